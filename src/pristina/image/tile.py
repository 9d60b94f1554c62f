"""Large pictures piece by piece, without seams."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def in_tiles(function: Callable[[Tensor], Tensor], x: Tensor, *, side: int, halo: int, multiple: int = 1) -> Tensor:
    """``function(x)``, computed on overlapping tiles: the same numbers in less memory.

    Args:
        function: Pictures (B, C, h, w) to pictures (B, D, h, w), in which no pixel depends on one farther than ``halo`` away.
        x: Pictures, (B, C, H, W).
        side: The largest side of what one tile contributes.
        halo: Pixels around it that the tile sees beside.
        multiple: Tiles begin and end at multiples of this, as they must for a network with strides; ``x`` has such a size.

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
            row.append(tile[..., top - above : bottom - above, left - before : right - before].clone())  # lets go of the rest
        rows.append(torch.cat(row, -1))
    return torch.cat(rows, -2)


def _parts(n: int, side: int, multiple: int) -> Iterator[tuple[int, int]]:
    """``n`` pixels in parts as equal as possible, each about ``side`` long at most, all but the last a multiple."""
    count = -(-n // side)
    step = -(-n // (count * multiple)) * multiple
    return ((start, min(n, start + step)) for start in range(0, n, step))
