"""Damage drawn at random for training pairs: fast, on small crops, not differentiable.

A recipe is a wide mixture; what happens to one picture is drawn from one generator. The operators of :mod:`pristina.operators` are for
methods and measurements, which need gradients and exact parameters; here only speed and variety count.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import SettingError

MARGIN_PX = 16
"""Pixels around a crop that are degraded with it and then cut off, so that no border effect is learned."""


@dataclass(frozen=True)
class Recipe:
    """What may happen to a picture, in random order or in that of a camera.

    Attributes:
        blur: Probability of a blur.
        resample: Probability of going to a smaller size and back.
        noise: Probability of noise.
        jpeg: Probability of JPEG compression.
        nothing: Probability that nothing at all happens; otherwise at least one thing does.
        camera: Probability that things happen in the order in which a camera does them: blur, reduction, noise, compression.
        blurs: Kinds of blur, equally likely.
        spread_px: Least and largest standard deviation, defocus radius, or fifth of a motion's length.
        scales: Least and largest reduction.
        filters: How it is reduced; the way back is always bicubic.
        noises: Kinds of noise, equally likely.
        sigma: Least and largest standard deviation (at mid grey), in [0, 1] units.
        quality: Least and largest JPEG quality.
        replace: Nothing is left of the picture but noise: generation as restoration.
    """

    blur: float = 0.0
    resample: float = 0.0
    noise: float = 0.0
    jpeg: float = 0.0
    nothing: float = 0.0
    camera: float = 0.0
    blurs: tuple[str, ...] = ("gaussian", "anisotropic", "defocus", "motion")
    spread_px: tuple[float, float] = (0.4, 4.0)
    scales: tuple[float, float] = (1.0, 4.0)
    filters: tuple[str, ...] = ("bicubic", "area", "bilinear")
    noises: tuple[str, ...] = ("gaussian", "poisson", "camera")
    sigma: tuple[float, float] = (0.0, 55 / 255)
    quality: tuple[int, int] = (5, 95)
    replace: bool = False

    def __post_init__(self) -> None:
        chances = (self.blur, self.resample, self.noise, self.jpeg, self.nothing, self.camera)
        if not all(0 <= p <= 1 for p in chances):
            raise SettingError(f"A recipe's probabilities must lie in [0, 1], not {chances}.")
        if not (self.replace or any(chances[:4]) or self.nothing == 1):
            raise SettingError("A recipe in which nothing can happen teaches nothing: give a part of it a probability.")


NOISES = ("gaussian", "gaussian", "poisson", "camera")  # every other time the plain one
RECIPES = {
    "photos-blind": Recipe(blur=0.25, resample=0.2, noise=0.4, jpeg=0.4, nothing=0.1, noises=NOISES),
    "mixed": Recipe(0.7, 0.2, 0.8, 0.8, camera=0.5, noises=NOISES, spread_px=(0.4, 3), sigma=(0, 35 / 255), quality=(15, 95)),
    "jpeg": Recipe(jpeg=1, nothing=0.02),
    "denoise": Recipe(noise=1, nothing=0.02, noises=NOISES),
    "deblur": Recipe(blur=1, nothing=0.02),
    "x4": Recipe(resample=1, scales=(4, 4), filters=("bicubic",)),
    "motion": Recipe(blur=1, blurs=("motion",)),
    "defocus": Recipe(blur=1, blurs=("defocus",)),
    "jpeg10": Recipe(jpeg=1, quality=(10, 10)),
    "pure-noise": Recipe(replace=True),
}
"""The blind mixture, the specialists, the paper's other tasks, and generation from noise."""


def recipe(name: str) -> Recipe:
    """The recipe called ``name``.

    Raises:
        SettingError: There is none.
    """
    if name not in RECIPES:
        raise SettingError(f"There is no recipe {name!r}; there are {', '.join(RECIPES)}.")
    return RECIPES[name]


def degrade(recipe: Recipe, x: Tensor, random: np.random.Generator) -> Tensor:
    """What the recipe makes of one picture (3, H, W) in [0, 1]; the same size, in [0, 1] but for noise."""
    if recipe.replace:
        return 0.5 + 0.5 * _normal(x.shape, random)
    if random.random() < recipe.nothing:
        return x
    chances = {_blur: recipe.blur, _resample: recipe.resample, _noise: recipe.noise, _jpeg: recipe.jpeg}
    parts = [part for part, p in chances.items() if random.random() < p]
    while not parts:
        parts = [part for part, p in chances.items() if random.random() < p]
    y = x
    in_order = recipe.camera and random.random() < recipe.camera
    for i in range(len(parts)) if in_order else random.permutation(len(parts)):
        y = parts[i](recipe, y, random)
    if random.random() < 0.5:  # most pictures come from a file of 8 bits, some straight from memory
        y = (255 * y).round().clamp(0, 255) / 255
    return y


def _normal(shape: torch.Size, random: np.random.Generator) -> Tensor:
    return torch.from_numpy(random.standard_normal(tuple(shape), dtype=np.float32))


def _between(bounds: tuple[float, float], random: np.random.Generator) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * random.random()


def _blur(recipe: Recipe, x: Tensor, random: np.random.Generator) -> Tensor:
    kind = recipe.blurs[random.integers(len(recipe.blurs))]
    spread = recipe.spread_px[0] * (recipe.spread_px[1] / recipe.spread_px[0]) ** random.random()
    return convolve(x, kernel(kind, spread, random))


def _resample(recipe: Recipe, x: Tensor, random: np.random.Generator) -> Tensor:
    scale = _between(recipe.scales, random)
    mode = recipe.filters[random.integers(len(recipe.filters))]
    return down_up(x, scale, mode)


def down_up(x: Tensor, scale: float, mode: str = "bicubic") -> Tensor:
    """(3, H, W) reduced ``scale`` times with ``mode`` (bicubic, bilinear or area) and brought back bicubically."""
    height, width = x.shape[-2:]
    smooth = mode != "area"
    size = (max(1, round(height / scale)), max(1, round(width / scale)))
    small = F.interpolate(x[None], size=size, mode=mode, antialias=smooth, align_corners=False if smooth else None)
    return F.interpolate(small, size=(height, width), mode="bicubic", antialias=True, align_corners=False)[0]


def _noise(recipe: Recipe, x: Tensor, random: np.random.Generator) -> Tensor:
    kind = recipe.noises[random.integers(len(recipe.noises))]
    sigma = _between(recipe.sigma, random)
    if kind == "gaussian":
        return x + sigma * _normal(x.shape, random)
    if kind == "poisson":  # the same sigma at mid grey: var = x / peak
        peak = 0.5 / max(sigma, 1e-3) ** 2
        counts = random.poisson(peak * x.clamp(0, 1).numpy())
        return torch.from_numpy(counts.astype(np.float32)) / peak
    # camera: shot and read noise on linear light, some of it shared with the neighbours, then back through the tone curve
    grain = _normal(x.shape, random)
    if random.random() < 0.7:
        grain = convolve(grain, kernel("gaussian", _between((0.3, 0.9), random), random))
        grain = grain / grain.std().clamp(min=1e-6)
    linear = x.clamp(0, 1) ** 2.2
    slope = 2.2 * 0.5**1.2  # of the curve at mid grey, so that sigma is again the noise there
    share = random.random()
    variance = (slope * sigma) ** 2 * (share * linear / 0.5**2.2 + (1 - share))
    return (linear + variance.sqrt() * grain).clamp(0, 1) ** (1 / 2.2)


def _jpeg(recipe: Recipe, x: Tensor, random: np.random.Generator) -> Tensor:
    low, high = recipe.quality
    quality = round(low * (high / low) ** random.random())  # as many at 5 to 10 as at 45 to 90
    return jpeg(x, quality, subsample=random.random() < 0.7)


def jpeg(x: Tensor, quality: int, *, subsample: bool = True) -> Tensor:
    """(3, H, W) through a JPEG file; chroma at half size if ``subsample``."""
    pixels = (255 * x).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=2 if subsample else 0)
    with Image.open(file) as back:
        return torch.from_numpy(np.asarray(back).copy()).permute(2, 0, 1).float() / 255


def convolve(x: Tensor, k: Tensor) -> Tensor:
    """(3, H, W) with the kernel (n, n), n odd; borders wrap round (crops carry a margin that is cut off)."""
    height, width = x.shape[-2:]
    n = k.shape[-1]
    padded = F.pad(k, (0, width - n, 0, height - n)).roll((-(n // 2), -(n // 2)), (0, 1))
    return torch.fft.irfft2(torch.fft.rfft2(x) * torch.fft.rfft2(padded), s=(height, width))


def kernel(kind: str, spread_px: float, random: np.random.Generator) -> Tensor:
    """A blur kernel (n, n) of sum 1, n odd and at most ``2 MARGIN_PX + 1``.

    Args:
        kind: gaussian, anisotropic, defocus or motion.
        spread_px: Its standard deviation (the larger one if anisotropic), its radius, or a fifth of the length of the path.
    """
    if kind == "motion":
        return _motion(5 * spread_px, random)
    radius = min(MARGIN_PX, math.ceil(spread_px + 1 if kind == "defocus" else 3 * spread_px))
    v, u = torch.meshgrid(*(2 * [torch.arange(-radius, radius + 1.0)]), indexing="ij")
    if kind == "defocus":
        k = (spread_px + 0.5 - (u.square() + v.square()).sqrt()).clamp(0, 1)
    else:
        angle = math.pi * random.random()
        minor = spread_px * (0.25 + 0.75 * random.random() if kind == "anisotropic" else 1)
        along, across = u * math.cos(angle) + v * math.sin(angle), v * math.cos(angle) - u * math.sin(angle)
        k = (-0.5 * ((along / spread_px).square() + (across / max(minor, 0.2)).square())).exp()
    return k / k.sum()


def _motion(length_px: float, random: np.random.Generator) -> Tensor:
    """A path whose direction wanders, drawn with bilinear weights."""
    n_points = 128
    shake = 3.0 * random.random() ** 2  # radians that the direction wanders over the whole path
    turns = shake / math.sqrt(n_points) * random.standard_normal(n_points)
    angle = 2 * math.pi * random.random() + np.cumsum(turns)
    path = np.cumsum(np.stack([np.sin(angle), np.cos(angle)]), 1) * (length_px / n_points)
    path = (path - path.mean(1, keepdims=True)).clip(-MARGIN_PX + 1, MARGIN_PX - 1)
    radius = math.ceil(np.abs(path).max()) + 1
    k = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    corner = np.floor(path).astype(int)
    share = path - corner
    for i in (0, 1):
        for j in (0, 1):
            weight = np.abs(1 - i - share[0]) * np.abs(1 - j - share[1])
            np.add.at(k, (corner[0] + i + radius, corner[1] + j + radius), weight.astype(np.float32))
    return torch.from_numpy(k / k.sum())
