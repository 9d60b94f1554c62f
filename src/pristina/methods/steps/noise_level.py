"""Estimates of noise whose level nobody knows, from what a fit leaves over.

With a flat prior on its logarithm the level can be integrated out: what remains of the likelihood
is ``(m / 2) log ||r||^2`` for a residual r of m values, whose slope is that of a Gaussian with
variance ``||r||^2 / m``. Noise need not have one level: here it has one for each brightness (shot
and multiplicative noise) or for each frequency (damage that is no noise).

Source:
    The integral is classical; NA-NHMC (2026) uses it for inverse problems of unknown noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pristina.methods.steps.correlated import frequencies
from pristina.types import Images

MIN_SIGMA = 0.002
"""Least noise, in [0, 1] units: half a grey level."""

BRIGHTNESSES = 6
"""Number of brightnesses, evenly from 0 to 1, between which the variance is interpolated."""

BANDS = 12
"""Number of frequencies, evenly from 0 to 0.5 cycles per pixel, likewise."""

FEW = 30.0
"""Number of values for which the mean over all counts in the mean of each level."""


def by_brightness(square: Tensor, brightness: Tensor, seen: Tensor) -> Tensor:
    """Return the variance of each value as a function of its brightness.

    Args:
        square: Squared residuals, (B, C, h, w).
        brightness: Values without noise, of the same shape; clipped to [0, 1].
        seen: 1 where something was observed, 0 elsewhere.

    Returns:
        Variances, (B, C, h, w).
    """
    place = brightness.clamp(0, 1) * (BRIGHTNESSES - 1)
    overall = (square * seen).sum((1, 2, 3), keepdim=True) / seen.sum((1, 2, 3), keepdim=True)
    variance = torch.zeros_like(square)
    for level in range(BRIGHTNESSES):
        near = (1 - (place - level).abs()).clamp(min=0)
        total = (near * seen * square).sum((1, 2, 3), keepdim=True) + FEW * overall
        variance += near * total / ((near * seen).sum((1, 2, 3), keepdim=True) + FEW)
    return variance.clamp(min=MIN_SIGMA**2)


def by_frequency(residual: Images) -> Tensor:
    """Return the variance of each mode of residuals as a function of its frequency.

    Args:
        residual: Residuals, (B, C, H, W).

    Returns:
        Variances in an orthonormal ``rfft2``, which all channels share, (B, 1, H, W // 2 + 1).
    """
    height, width = residual.shape[-2:]
    power = torch.fft.rfft2(residual, norm="ortho").abs().square().mean(1, keepdim=True)
    place = (2 * frequencies(residual)).clamp(max=1) * (BANDS - 1)
    # All modes stand for two, but those of no frequency and, of an even width, of the highest.
    count = torch.full_like(power[0, 0, 0], 2.0)
    count[0] = 1
    if width % 2 == 0:
        count[-1] = 1
    overall = (count * power).sum((2, 3), keepdim=True) / (height * width)
    variance = torch.zeros_like(power)
    for band in range(BANDS):
        near = (1 - (place - band).abs()).clamp(min=0)
        total = (near * count * power).sum((2, 3), keepdim=True) + FEW * overall
        variance += near * total / ((near * count).sum() + FEW)
    return variance.clamp(min=MIN_SIGMA**2)


def unclipped(y: Tensor, mean: Tensor, variance: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Replace what was clipped by what is expected to have been there.

    Args:
        y: Observations.
        mean: The same without noise, as far as it is known.
        variance: Variance of the noise.
        low: Whether a value was clipped at 0.
        high: Whether a value was clipped at 1.

    Returns:
        ``E[value | value below 0, or above 1]`` of a Gaussian where it was clipped, y elsewhere.
    """
    sigma = variance.sqrt()

    def beyond(a: Tensor) -> Tensor:
        """Return the mean of standard normal numbers above a."""
        return (-0.5 * a.square() - torch.special.log_ndtr(-a)).exp() / math.sqrt(2 * math.pi)

    y = torch.where(high, mean + sigma * beyond((1 - mean) / sigma), y)
    return torch.where(low, mean - sigma * beyond(mean / sigma), y)


def clipped_at(y: Tensor, at: float) -> Tensor:
    """Return where values lie at an end of [0, 1], in images that nowhere leave this range."""
    inside = (y.amin((1, 2, 3), keepdim=True) >= 0) & (y.amax((1, 2, 3), keepdim=True) <= 1)
    return (y == at) & inside
