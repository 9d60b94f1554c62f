"""Seamless computation of large images in tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def in_tiles(
    function: Callable[[Tensor], Tensor], x: Tensor, *, side: int, halo: int, multiple: int = 1
) -> Tensor:
    """Compute ``function(x)`` on overlapping tiles: the same numbers in less memory.

    Args:
        function: Map from images (B, C, h, w) to images (B, D, h, w) in which no pixel depends on
            one farther than ``halo`` away.
        x: Images, (B, C, H, W).
        side: Largest side in pixels of what one tile contributes.
        halo: Number of pixels that a tile sees beyond its contribution on every side.
        multiple: Grid on which tiles begin and end, as networks with strides need; both sides of
            ``x`` are multiples of it (default 1).

    Example:
        >>> import torch
        >>> x = torch.rand(1, 1, 50, 70)
        >>> smooth = torch.nn.AvgPool2d(5, stride=1, padding=2)
        >>> torch.allclose(in_tiles(smooth, x, side=20, halo=2), smooth(x), atol=1e-6)
        True
    """
    height, width = x.shape[-2:]
    if max(height, width) <= side:
        return function(x)
    halo = -(-halo // multiple) * multiple
    rows = []
    for top, bottom in _parts(height, side, multiple):
        row = []
        for left, right in _parts(width, side, multiple):
            above, before = max(0, top - halo), max(0, left - halo)
            tile = function(x[..., above : bottom + halo, before : right + halo])
            part = tile[..., top - above : bottom - above, left - before : right - before]
            row.append(part.clone())  # Frees the rest of the tile.
        rows.append(torch.cat(row, -1))
    return torch.cat(rows, -2)


def _parts(n: int, side: int, multiple: int) -> Iterator[tuple[int, int]]:
    """Cut ``n`` pixels into parts as equal as possible, each about ``side`` long at most.

    The length of all parts but the last is a multiple of ``multiple``.
    """
    count = -(-n // side)
    step = -(-n // (count * multiple)) * multiple
    return ((start, min(n, start + step)) for start in range(0, n, step))
