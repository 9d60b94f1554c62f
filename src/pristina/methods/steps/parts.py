"""Deconvolution of images, large ones in parts that fade into each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pristina.methods.steps.evidence import evidence_of_blur
from pristina.operators.convolve import Boundary, normalise
from pristina.operators.kernels import blending_weights
from pristina.priors.aware import AwarePrior

LARGEST_PX = 41
"""Side of the largest kernel, px; the halo of a part allows no larger one."""

FRINGE = 0.001
"""Share of a kernel's sum that may be cut off with its margins."""

TILE_PX = 1024
"""Largest side that is computed at once; what lies beyond is computed in overlapping parts."""

HALO_PX = 160
"""Pixels that a part sees beyond its contribution."""

FADE_PX = 32
"""Pixels on each side of a seam in which neighbouring parts fade into each other."""

Work = Callable[[Tensor, int, int, Boundary], Tensor]
"""Function of an observation (1, C, h, w), the row and the column of the picture at which it
begins, and the rule beyond the border; it returns the canvas, (1, C, h + K - 1, w + K - 1), of the
size of the observation for ``circular``."""


def undo_blur(
    y: Tensor,
    kernels: Tensor,
    sigma: Tensor,
    boundary: Boundary,
    prior: AwarePrior,
    grid: tuple[int, int] = (1, 1),
) -> Tensor:
    """Undo a blur by one call of an operator-aware regressor for each image.

    Args:
        y: Observations, (B, C, h, w).
        kernels: Their kernels, (B, N, K, K), N places in an image, K at most :data:`LARGEST_PX`.
        sigma: Their noise levels, (B,), in [0, 1] units.
        boundary: Rule beyond the border, not ``valid`` for more than one place.
        prior: The regressor; parts of one image count as one call.
        grid: Rows and columns of the N places, spaced evenly from border to border. Between them
            the Wiener solutions of neighbouring places are blended.

    Returns:
        The images, (B, C, H, W), not clipped: larger than y by ``K - 1`` for ``valid``, else as
        large.
    """
    images, before = [], prior.n_calls
    for image, own, level in zip(y.split(1), kernels, sigma.split(1), strict=True):
        work = partial(_undo, prior, own, level, _weights(image, grid))
        images.append(in_parts(work, image, kernels.shape[-1], boundary))
    prior.n_calls = before + len(y)
    return torch.cat(images)


def _undo(
    prior: AwarePrior,
    kernels: Tensor,
    level: Tensor,
    weights: tuple[Tensor, Tensor],
    seen: Tensor,
    top: int,
    left: int,
    boundary: Boundary,
) -> Tensor:
    """Undo the blur of a part of an image.

    Args:
        prior: The regressor.
        kernels: Kernels, (N, K, K).
        level: Noise level, (1,).
        weights: Shares of the rows and of the columns of places, (rows, H) and (columns, W).
        seen: Observation of the part, (1, C, h, w).
        top: Row of the image at which it begins.
        left: Column of the image at which it begins.
        boundary: Rule beyond the border.

    Returns:
        The canvas, (1, C, h + K - 1, w + K - 1); of the size of the observation for ``circular``.
    """
    if bool((kernels == kernels[:1]).all()):
        return prior.predict(evidence_of_blur(seen, kernels[:1, None], level, boundary), level)
    half = 0 if boundary == "circular" else kernels.shape[-1] // 2
    down = _on_canvas(weights[0], top, seen.shape[-2], half)
    across = _on_canvas(weights[1], left, seen.shape[-1], half)
    shares = (down[:, None, :, None] * across[None, :, None, :]).flatten(0, 1)
    evidence = torch.zeros(())
    for kernel, share in zip(kernels[:, None, None], shares, strict=True):
        if share.any():
            evidence = evidence + share * evidence_of_blur(seen, kernel, level, boundary)
    return prior.predict(evidence, level)


def _weights(image: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the shares of the rows and of the columns of places along the axes of an image."""
    height, width = image.shape[-2:]
    return blending_weights(height, grid[0], image), blending_weights(width, grid[1], image)


def _on_canvas(weights: Tensor, start: int, length: int, half: int) -> Tensor:
    """Cut weights (n, whole length) out for ``length`` places and ``half`` more on both sides."""
    places = torch.arange(start - half, start + length + half, device=weights.device)
    return weights[:, places.clamp(0, weights.shape[-1] - 1)]


def in_parts(work: Work, y: Tensor, side: int, boundary: Boundary) -> Tensor:
    """Deconvolve an image, in parts that fade into each other where it is large.

    Args:
        work: What is done to the image, or to each part.
        y: Observation, (1, C, h, w).
        side: Side K of the kernel, at most :data:`LARGEST_PX`.
        boundary: Rule beyond the border.

    Returns:
        The image, (1, C, H, W): larger than y by ``K - 1`` for ``valid``, else as large.
    """
    half = side // 2
    more = half if boundary == "valid" else 0
    height, width = y.shape[-2] + 2 * more, y.shape[-1] + 2 * more
    if boundary == "circular" and max(height, width) <= TILE_PX:
        return work(y, 0, 0, boundary)
    images = y.new_zeros(1, y.shape[1], height, width)
    for rows in _parts(height):
        for columns in _parts(width):
            # Places are those of the picture; the observation begins at ``more``, and the canvas
            # of its places a to b goes from a - half to b + half.
            top, left = max(more, rows.start), max(more, columns.start)
            bottom, right = (min(rows.stop, height - more), min(columns.stop, width - more))
            seen = y[..., top - more : bottom - more, left - more : right - more]
            found = work(seen, top - more, left - more, "valid")
            found = found[..., rows.start - top + half :, columns.start - left + half :]
            found = found[..., : rows.stop - rows.start, : columns.stop - columns.start]
            weight = rows.weight(y)[:, None] * columns.weight(y)
            images[..., rows.start : rows.stop, columns.start : columns.stop] += weight * found
    return images


@dataclass(frozen=True)
class Part:
    """A part of one axis of a picture that is computed at once.

    Attributes:
        start: First place that is computed.
        stop: Place after the last one.
        first: First place that the part contributes.
        last: Place after the last one that it contributes.
        length: Number of places of the whole axis.
    """

    start: int
    stop: int
    first: int
    last: int
    length: int

    def weight(self, like: Tensor) -> Tensor:
        """Return the share of the part in each place; neighbours fade into each other."""
        place = torch.arange(self.start, self.stop, dtype=like.dtype, device=like.device) + 0.5
        share = torch.ones_like(place)
        if self.first > 0:
            share = ((place - self.first) / (2 * FADE_PX) + 0.5).clamp(0, 1)
        if self.last < self.length:
            share = share.minimum(((self.last - place) / (2 * FADE_PX) + 0.5).clamp(0, 1))
        return share


def _parts(length: int) -> list[Part]:
    """Cut an axis into parts as equal as possible, each of which sees its surroundings."""
    step = -(-length // -(-length // TILE_PX))
    return [
        Part(max(0, a - HALO_PX), min(length, a + step + HALO_PX), a, min(length, a + step), length)
        for a in range(0, length, step)
    ]


def trimmed(kernel: Tensor) -> Tensor:
    """Cut off as much of a kernel's margins, the same on all sides, as hold next to nothing."""
    size = kernel.shape[-1]
    cut = 0
    while 2 * (cut + 1) < size:
        inner = kernel[..., cut + 1 : size - cut - 1, cut + 1 : size - cut - 1]
        if float(inner.sum((1, 2, 3)).min()) < 1 - FRINGE:
            break
        cut += 1
    return normalise(kernel[..., cut : size - cut, cut : size - cut])
