"""Draw blur kernels at random for training pairs, and convolve with them."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import SettingError

Blur = Literal["gaussian", "anisotropic", "defocus", "motion"]
BLURS: tuple[Blur, ...] = get_args(Blur)

MARGIN_PX = 16
"""Pixels around a crop that are degraded with it and then cut off, so that the network sees no
effect of the border."""


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve a picture with a kernel; borders wrap round.

    Args:
        x: The picture, (3, H, W).
        kernel: The kernel, (n, n) with n odd.

    Returns:
        The blurred picture, of the same size.
    """
    height, width = x.shape[-2:]
    n = kernel.shape[-1]
    padded = F.pad(kernel, (0, width - n, 0, height - n)).roll((-(n // 2), -(n // 2)), (0, 1))
    return torch.fft.irfft2(torch.fft.rfft2(x) * torch.fft.rfft2(padded), s=(height, width))


def draw_kernel(kind: Blur, spread_px: float, random: np.random.Generator) -> Tensor:
    """Draw a blur kernel.

    Args:
        kind: gaussian, anisotropic, defocus or motion.
        spread_px: Standard deviation of the kernel (the larger one if it is anisotropic), radius of
            the defocus, or a fifth of the length of the path.
        random: Generator from which its direction and shape are drawn.

    Returns:
        The kernel, (n, n), of sum 1, n odd and at most ``2 * MARGIN_PX + 1``.

    Raises:
        SettingError: There is no such kind.
    """
    if kind not in BLURS:
        raise SettingError(f"A blur is {', '.join(BLURS)}; not {kind!r}.")
    if kind == "motion":
        return _motion(5 * spread_px, random)
    reach = spread_px + 1 if kind == "defocus" else 3 * spread_px
    radius = min(MARGIN_PX, math.ceil(reach))
    axis = torch.arange(-radius, radius + 1.0)
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    if kind == "defocus":
        kernel = (spread_px + 0.5 - (u.square() + v.square()).sqrt()).clamp(0, 1)
    else:
        angle = math.pi * random.random()
        share = 0.25 + 0.75 * random.random() if kind == "anisotropic" else 1.0
        along = (u * math.cos(angle) + v * math.sin(angle)) / spread_px
        across = (v * math.cos(angle) - u * math.sin(angle)) / max(spread_px * share, 0.2)
        kernel = (-0.5 * (along.square() + across.square())).exp()
    return kernel / kernel.sum()


def _motion(length_px: float, random: np.random.Generator) -> Tensor:
    """Draw the trace of a shaking camera: a path whose direction wanders, with bilinear weights."""
    n_points = 128
    shake = 3.0 * random.random() ** 2  # radians by which the direction wanders over the path
    turns = shake / math.sqrt(n_points) * random.standard_normal(n_points)
    angle = 2 * math.pi * random.random() + np.cumsum(turns)
    path = np.cumsum(np.stack([np.sin(angle), np.cos(angle)]), 1) * (length_px / n_points)
    path = (path - path.mean(1, keepdims=True)).clip(-MARGIN_PX + 1, MARGIN_PX - 1)
    radius = math.ceil(np.abs(path).max()) + 1
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    corner = np.floor(path).astype(int)
    share = path - corner
    for i in (0, 1):
        for j in (0, 1):
            weight = np.abs(1 - i - share[0]) * np.abs(1 - j - share[1])
            place = (corner[0] + i + radius, corner[1] + j + radius)
            np.add.at(kernel, place, weight.astype(np.float32))
    return torch.from_numpy(kernel / kernel.sum())
