"""Seamless computation of large images in parts, in a bounded amount of memory."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LEAST_SIDE = 64
"""Shortest side in pixels of what a tile contributes."""
MANY_PIXELS = 2**23
"""Pixels that are computed at once where nobody has said how many may be."""
WORTH_TRIMMING = 2**16
"""Numbers in a tile above which freed memory is given back before it."""
LEAST_PIXELS = 2**8
"""Pixels below which smaller parts no longer help."""


class Portions:
    """How much is computed at once in one run; it shrinks when the memory runs out.

    Args:
        pixels: Largest number of pixels, of all images and with the borders of tiles, that are
            computed at once (default 8 million).

    Attributes:
        notes: What the user should know, in sentences.
    """

    def __init__(self, pixels: int = MANY_PIXELS):
        self.pixels = pixels
        self.notes: list[str] = []

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
        fits = height * width <= portions.pixels
        n = max(1, portions.pixels // (height * width))
        done = []
        for i in range(0, len(x), n):
            rows = slice(i, i + n)
            part = partial(function, rows=rows)
            if halo is None or fits:
                done.append(lean(part, several=n < len(x))(x[rows]))
            else:
                pixels = max(portions.pixels, least_tile(halo, multiple))
                done.append(in_tiles(part, x[rows], pixels=pixels, halo=halo, multiple=multiple))
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
    function: Callable[[Tensor], Tensor], x: Tensor, *, pixels: int, halo: int, multiple: int = 1
) -> Tensor:
    """Compute ``function(x)`` on overlapping tiles: the same numbers in less memory.

    Args:
        function: Map from images (B, C, h, w) to images (B, D, h, w) in which no pixel depends on
            one farther than ``halo`` away.
        x: Images, (B, C, H, W).
        pixels: Largest number of pixels of one image that go through the function at once.
        halo: Number of pixels that a tile sees beyond its contribution on every side.
        multiple: Grid on which tiles begin and end, as networks with strides need; both sides of
            ``x`` are multiples of it (default 1).

    Example:
        >>> import torch
        >>> x = torch.rand(1, 1, 50, 70)
        >>> smooth = torch.nn.AvgPool2d(5, stride=1, padding=2)
        >>> torch.allclose(in_tiles(smooth, x, pixels=600, halo=2), smooth(x), atol=1e-6)
        True
    """
    height, width = x.shape[-2:]
    if height * width <= pixels:
        return function(x)
    down, across = tile_parts(height, width, pixels=pixels, halo=halo, multiple=multiple)
    halo = _rounded(halo, multiple)
    one = lean(partial(_fresh, function))
    differentiated = torch.is_grad_enabled() and x.requires_grad
    whole, rows = None, []
    for top, bottom in down:
        row = []
        for left, right in across:
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


def _fresh(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return ``function(x)``, after what earlier tiles freed was given back to the system."""
    give_back(x)
    return function(x)


def give_back(x: Tensor) -> None:
    """Give freed memory back to the system, if ``x`` is large enough to be worth it.

    The allocator of Linux keeps freed blocks, into which those of another size do not fit.
    """
    trim = _malloc_trim()
    if trim is not None and x.device.type == "cpu" and x.numel() > WORTH_TRIMMING:
        trim(0)


@cache
def _malloc_trim() -> Any:
    """Return the function of the C library that gives freed memory back; None if it has none."""
    with suppress(OSError, TypeError, AttributeError):
        return ctypes.CDLL(None).malloc_trim
    return None


def least_tile(halo: int, multiple: int = 1) -> int:
    """Return how many pixels the smallest tile sees; the arguments are as in :func:`in_tiles`."""
    return (LEAST_SIDE + 2 * _rounded(halo, multiple)) ** 2


Parts = list[tuple[int, int]]
"""First pixel and the one after the last of each part of a side."""


def tile_parts(
    height: int, width: int, *, pixels: int, halo: int, multiple: int = 1
) -> tuple[Parts, Parts]:
    """Cut an image into the tiles that together see the fewest pixels.

    Args:
        height: Height of the image in pixels.
        width: Its width.
        pixels: Largest number of pixels that a tile may see; tiles of one cell of the grid see
            more where no others are possible.
        halo: Number of pixels that a tile sees beyond its contribution on every side.
        multiple: Grid on which tiles begin and end.

    Returns:
        The rows and the columns of what the tiles contribute, each as equal as possible.
    """
    halo = _rounded(halo, multiple)
    best = -(-height // multiple), -(-width // multiple)
    least = math.inf
    for columns in range(1, best[1] + 1):
        most = pixels // _seen(width, columns, halo, multiple)
        rows = _fewest(height, most, halo, multiple)
        if rows is None:
            continue
        seen = math.prod(
            side + 2 * halo * (n - 1) for side, n in ((height, rows), (width, columns))
        )
        if seen < least:
            best, least = (rows, columns), seen
    return _parts(height, best[0], multiple), _parts(width, best[1], multiple)


def _rounded(halo: int, multiple: int) -> int:
    """Return the halo as a multiple of the grid."""
    return -(-halo // multiple) * multiple


def _fewest(n: int, most: int, halo: int, multiple: int) -> int | None:
    """Return the smallest number of parts of ``n`` pixels that see at most ``most``, if any do."""
    inside = (most - 2 * halo) // multiple * multiple
    counts = (1, 2) if inside < multiple else (1, 2, max(3, -(-n // inside)))
    return next((k for k in counts if _seen(n, k, halo, multiple) <= most), None)


def _seen(n: int, count: int, halo: int, multiple: int) -> int:
    """Return how many pixels the largest of ``count`` parts of ``n`` pixels sees."""
    return _step(n, count, multiple) + halo * min(2, count - 1)


def _step(n: int, count: int, multiple: int) -> int:
    """Return the length of all parts but the last, a multiple of ``multiple``."""
    return -(-n // (count * multiple)) * multiple


def _parts(n: int, count: int, multiple: int) -> Parts:
    """Cut ``n`` pixels into at most ``count`` parts as equal as possible."""
    step = _step(n, count, multiple)
    return [(start, min(n, start + step)) for start in range(0, n, step)]
