"""Deconvolution of images, large ones in parts that fade into each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pristina.methods.steps.evidence import evidence_of_blur
from pristina.operators.convolve import Boundary, Kernels, normalise
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

Work = Callable[[Tensor, Tensor, Boundary], Tensor]
"""Function of an observation (1, C, h, w), a kernel (1, 1, K, K) and the rule beyond the border
that returns the canvas, (1, C, h + K - 1, w + K - 1); of the size of the observation for
``circular``."""


def undo_blur(
    y: Tensor, kernels: Kernels, sigma: Tensor, boundary: Boundary, prior: AwarePrior
) -> Tensor:
    """Undo a blur by one call of an operator-aware regressor for each image.

    Args:
        y: Observations, (B, C, h, w).
        kernels: Their kernels, (B, 1, K, K), of at most :data:`LARGEST_PX`.
        sigma: Their noise levels, (B,), in [0, 1] units.
        boundary: Rule beyond the border.
        prior: The regressor; parts of one image count as one call.

    Returns:
        The images, (B, C, H, W), not clipped: larger than y by ``K - 1`` for ``valid``, else as
        large.
    """
    images, before = [], prior.n_calls
    for i in range(len(y)):
        level = sigma[i : i + 1]

        def work(y: Tensor, kernel: Tensor, boundary: Boundary, level: Tensor = level) -> Tensor:
            return prior.predict(evidence_of_blur(y, kernel, level, boundary), level)

        images.append(in_parts(work, y[i : i + 1], kernels[i : i + 1], boundary))
    prior.n_calls = before + len(y)
    return torch.cat(images)


def in_parts(work: Work, y: Tensor, kernel: Tensor, boundary: Boundary) -> Tensor:
    """Deconvolve an image, in parts that fade into each other where it is large.

    Args:
        work: What is done to the image, or to each part.
        y: Observation, (1, C, h, w).
        kernel: Kernel, (1, 1, K, K), of at most :data:`LARGEST_PX`.
        boundary: Rule beyond the border.

    Returns:
        The image, (1, C, H, W): larger than y by ``K - 1`` for ``valid``, else as large.
    """
    half = kernel.shape[-1] // 2
    more = half if boundary == "valid" else 0
    height, width = y.shape[-2] + 2 * more, y.shape[-1] + 2 * more
    if boundary == "circular" and max(height, width) <= TILE_PX:
        return work(y, kernel, boundary)
    images = y.new_zeros(1, y.shape[1], height, width)
    for rows in _parts(height):
        for columns in _parts(width):
            # Places are those of the picture; the observation begins at ``more``, and the canvas
            # of its places a to b goes from a - half to b + half.
            top, left = max(more, rows.start), max(more, columns.start)
            bottom, right = (min(rows.stop, height - more), min(columns.stop, width - more))
            seen = y[..., top - more : bottom - more, left - more : right - more]
            found = work(seen, kernel, "valid")
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
