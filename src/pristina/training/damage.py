"""Single damages to a picture, with what is random in them drawn from a generator.

Glossary: x picture, (3, H, W) in [0, 1].
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pristina.training.kernels import convolve, draw_kernel

SCREEN_ANGLES = (15.0, 75.0, 0.0)
"""Angles in degrees between a printer's screens for red, green and blue."""


def normal(shape: tuple[int, ...] | torch.Size, random: np.random.Generator) -> Tensor:
    """Draw standard normal numbers, float32, of a shape."""
    return torch.from_numpy(random.standard_normal(tuple(shape), dtype=np.float32))


def uniform(low: float, high: float, random: np.random.Generator) -> float:
    """Draw a number between two bounds."""
    return low + (high - low) * random.random()


def log_uniform(low: float, high: float, random: np.random.Generator) -> float:
    """Draw a positive number between two bounds, uniform in its logarithm."""
    return float(low * (high / low) ** random.random())


def eight_bits(y: Tensor) -> Tensor:
    """Clip a picture to [0, 1] and round it to 8 bits."""
    return (255 * y).round_().clamp_(0, 255) / 255


def down_up(x: Tensor, scale: float, mode: str = "bicubic", smooth: bool = True) -> Tensor:
    """Reduce a picture and bring it back to its size.

    Args:
        x: The picture, (3, H, W).
        scale: How many times smaller it becomes on each side.
        mode: The filter of the reduction: bicubic, bilinear or area.
        smooth: Bring it back bicubically; otherwise bilinearly.

    Returns:
        The picture, of the same size.
    """
    height, width = x.shape[-2:]
    size = (max(1, round(height / scale)), max(1, round(width / scale)))
    small = resized(x, size, mode)
    return resized(small, (height, width), "bicubic" if smooth else "bilinear")


def resized(x: Tensor, size: tuple[int, int], mode: str = "bicubic") -> Tensor:
    """Resize a picture (3, H, W) to ``size`` with bicubic, bilinear or area."""
    if mode == "area":
        return F.interpolate(x[None], size=size, mode=mode)[0]
    return F.interpolate(x[None], size=size, mode=mode, antialias=True, align_corners=False)[0]


def jpeg(x: Tensor, quality: int, subsampling: int = 2) -> Tensor:
    """Pass a picture through a JPEG file.

    Args:
        x: The picture, (3, H, W) in [0, 1].
        quality: JPEG quality, 1 to 100.
        subsampling: Subsampling of the colour channels: 0 for 4:4:4, 1 for 4:2:2, 2 for 4:2:0.

    Returns:
        The decoded picture, (3, H, W) in [0, 1].
    """
    pixels = (255 * x).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=subsampling)
    with Image.open(file) as back:
        return torch.from_numpy(np.asarray(back).copy()).permute(2, 0, 1).float() / 255


def smoothed(field: Tensor, spread_px: float, random: np.random.Generator) -> Tensor:
    """Smooth a field of noise and give it a deviation of 1 again."""
    field = convolve(field, draw_kernel("gaussian", spread_px, random))
    return field / field.std().clamp(min=1e-6)


def demosaic(raw: Tensor, random: np.random.Generator) -> Tensor:
    """Keep one colour a pixel, as a Bayer mosaic does, and interpolate the others.

    Half of the time each colour is interpolated by itself. Otherwise green is interpolated first,
    and red and blue are interpolated as differences to it.
    """
    mask = torch.zeros_like(raw)
    top, left = int(random.integers(2)), int(random.integers(2))
    mask[0, top::2, left::2] = 1
    mask[2, 1 - top :: 2, 1 - left :: 2] = 1
    mask[1] = 1 - mask[0] - mask[2]
    seen = (raw * mask)[None]
    if random.random() < 0.5:
        return F.conv2d(seen, BILINEAR, padding=1, groups=3)[0]
    green = F.conv2d(seen[:, 1:2], BILINEAR[1:2], padding=1)
    difference = F.conv2d(seen - green * mask, BILINEAR, padding=1, groups=3)[0]
    difference[1] = 0
    return green[0] + difference


_CROSS = torch.tensor([[0.0, 0.25, 0.0], [0.25, 1.0, 0.25], [0.0, 0.25, 0.0]])
_SQUARE = torch.tensor([[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]])
BILINEAR = torch.stack([_SQUARE, _CROSS, _SQUARE])[:, None]
"""Bilinear interpolation of red, green and blue on a Bayer mosaic, as grouped kernels."""


def halftone(x: Tensor, random: np.random.Generator) -> Tensor:
    """Print a picture as dots and blur them slightly."""
    height, width = x.shape[-2:]
    period = uniform(2.2, 5.0, random)
    v, u = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    first = uniform(0, 90, random)
    same = random.random() < 0.4
    screens = []
    for angle in SCREEN_ANGLES[: 1 if same else 3]:
        a = math.radians(first + angle)
        along, across = u * math.cos(a) + v * math.sin(a), v * math.cos(a) - u * math.sin(a)
        screens.append(
            0.5
            + 0.25 * (2 * math.pi / period * along).cos()
            + 0.25 * (2 * math.pi / period * across).cos()
        )
    screen = torch.stack(screens)
    dots = torch.sigmoid(uniform(4, 20, random) * (x - screen))
    dots = convolve(dots, draw_kernel("gaussian", uniform(0.5, 1.2, random), random))
    share = uniform(0.1, 0.9, random)
    mean = dots.mean((1, 2), keepdim=True) - x.mean((1, 2), keepdim=True)
    return (1 - share) * x + share * (dots - mean)


def dust(x: Tensor, random: np.random.Generator) -> Tensor:
    """Lay a few specks and hairs on a picture, bright or dark."""
    height, width = x.shape[-2:]
    v, u = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    for _ in range(1 + int(random.integers(4))):
        row, column = random.random() * height, random.random() * width
        angle, radius = math.pi * random.random(), uniform(0.5, 1.6, random)
        long = log_uniform(1, 25, random) if random.random() < 0.5 else 1.0
        along = (u - column) * math.cos(angle) + (v - row) * math.sin(angle)
        across = (v - row) * math.cos(angle) - (u - column) * math.sin(angle)
        across = across + uniform(-0.01, 0.01, random) * along.square()
        alpha = ((along.abs() - long).clamp(min=0).square() + across.square()) / radius**2
        alpha = uniform(0.3, 1.0, random) * (-alpha).exp()
        value = random.random() * 0.2 + (0.8 if random.random() < 0.7 else 0.0)
        x = x + alpha * (value - x)
    return x


def faded(x: Tensor, random: np.random.Generator) -> Tensor:
    """Give a clean picture the colours of an old print: grey, tinted, or with less contrast.

    The clean and the degraded picture of a pair share these colours: a regressor is to repair
    detail and to leave colours as they are.
    """
    if random.random() < 0.5:
        x = x.mean(0, keepdim=True).expand(3, -1, -1)
    black = torch.from_numpy(random.uniform(0.0, 0.2, (3, 1, 1)).astype(np.float32))
    white = torch.from_numpy(random.uniform(0.75, 1.0, (3, 1, 1)).astype(np.float32))
    if random.random() < 0.5:
        black, white = black[:1], white[:1]
    return eight_bits(black + (white - black) * x)


def softened(x: Tensor, random: np.random.Generator) -> Tensor:
    """Give a clean picture less detail: that of a soft lens, or of a smaller picture.

    The clean and the degraded picture of a pair share this sharpness.
    """
    if random.random() < 0.6:
        return convolve(x, draw_kernel("gaussian", log_uniform(0.4, 1.8, random), random))
    return down_up(x, uniform(1.1, 2.5, random)).clamp(0, 1)
