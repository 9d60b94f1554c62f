"""Seamless computation of large images in parts, in a bounded amount of memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

MAX_SIDE = 1536
"""Longest side in pixels that is computed at once, however much memory there is."""
LEAST_SIDE = 64
"""Shortest side in pixels of what a tile contributes."""
MANY_PIXELS = 2**22
"""Pixels that are computed at once where nobody has said how many may be."""
LEAST_PIXELS = 2**8
"""Pixels below which smaller parts no longer help."""


class Portions:
    """How much is computed at once in one run; it shrinks when the memory runs out.

    Args:
        pixels: Largest number of pixels, of all images and with the borders of tiles, that are
            computed at once (default 4 million).

    Attributes:
        notes: What the user should know, in sentences.
    """

    def __init__(self, pixels: int = MANY_PIXELS):
        self.pixels = pixels
        self.notes: list[str] = []

    def side(self, halo: int) -> int:
        """Return the side in pixels of what a tile contributes, seeing ``halo`` px beyond it."""
        side = math.isqrt(self.pixels) - 2 * halo
        return max(LEAST_SIDE, min(MAX_SIDE, side))

    def attempt(self, compute: Callable[[], Tensor]) -> Tensor:
        """Return ``compute()``; when the memory runs out, do it again in portions half as large."""
        while True:
            try:
                return compute()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.pixels < 2 * LEAST_PIXELS:
                    raise
            # Outside of the handler, so that the error no longer holds what it was computed from.
            self.pixels //= 2
            self.notes = [
                f"The memory ran out: smaller parts, of {self.pixels} pixels, went through the "
                "network from then on."
            ]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that there is no memory left, on a GPU or on the processor."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def in_portions(
    function: Callable[..., Tensor],
    x: Tensor,
    portions: Portions,
    *,
    halo: int | None,
    multiple: int = 1,
) -> Tensor:
    """Compute ``function(x, rows)`` on as many images and pixels at once as may be.

    Args:
        function: Map ``function(images, rows=rows)`` from images (B, C, h, w), the rows of ``x``
            that they come from, to images (B, D, h, w).
        x: Images, (N, C, H, W).
        portions: How much may be computed at once.
        halo: Distance in pixels beyond which no pixel changes another; None if there is none, and
            images are computed whole.
        multiple: Grid on which tiles begin and end.
    """
    height, width = x.shape[-2:]

    def compute() -> Tensor:
        fits = height * width <= portions.pixels and max(height, width) <= MAX_SIDE
        n = max(1, portions.pixels // (height * width))
        done = []
        for i in range(0, len(x), n):
            rows = slice(i, i + n)
            part = partial(function, rows=rows)
            if halo is None or fits:
                done.append(lean(part, several=n < len(x))(x[rows]))
            else:
                side = portions.side(halo)
                done.append(in_tiles(part, x[rows], side=side, halo=halo, multiple=multiple))
        return done[0] if len(done) == 1 else torch.cat(done)

    return portions.attempt(compute)


def lean(
    function: Callable[[Tensor], Tensor], *, several: bool = True
) -> Callable[[Tensor], Tensor]:
    """Return the function without what it keeps for its gradient, which is computed again.

    Args:
        function: Function of images.
        several: Whether it is computed in several parts; otherwise it stays as it is, because all
            that it keeps fits into the memory.
    """

    def again(x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            found: Tensor = checkpoint(function, x, use_reentrant=False, preserve_rng_state=False)
            return found
        return function(x)

    return again if several else function


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
    one, differentiated = lean(function), torch.is_grad_enabled() and x.requires_grad
    whole, rows = None, []
    for top, bottom in _parts(height, side, multiple):
        row = []
        for left, right in _parts(width, side, multiple):
            above, before = max(0, top - halo), max(0, left - halo)
            tile = one(x[..., above : bottom + halo, before : right + halo])
            part = tile[..., top - above : bottom - above, left - before : right - before]
            if differentiated:
                row.append(part.clone())  # Frees the rest of the tile.
                continue
            if whole is None:
                whole = part.new_empty(*part.shape[:2], height, width)
            whole[..., top:bottom, left:right] = part
        rows += [torch.cat(row, -1)] if row else []
    return torch.cat(rows, -2) if whole is None else whole


def _parts(n: int, side: int, multiple: int) -> Iterator[tuple[int, int]]:
    """Cut ``n`` pixels into parts as equal as possible, each about ``side`` long at most.

    The length of all parts but the last is a multiple of ``multiple``.
    """
    count = -(-n // side)
    step = -(-n // (count * multiple)) * multiple
    return ((start, min(n, start + step)) for start in range(0, n, step))
