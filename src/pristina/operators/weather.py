"""Rain in the air and water on the lens.

Their places follow from a seed; how strongly they show can be unknown.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from pristina.errors import SettingError
from pristina.operators.base import Operator
from pristina.operators.convolve import convolve
from pristina.operators.kernels import gaussian_kernel, line_kernel
from pristina.operators.unknown import Unknown, check_finite, in_words, numbers, own_generator
from pristina.operators.warp import warp
from pristina.types import Images

__all__ = ["Rain", "WaterDrops"]

N_HARMONICS = 3
"""Number of harmonics in the outline of a drop."""


class Rain(Operator):
    """Bright streaks ``r`` in [0, 1] over the image: ``y = x + strength r (1 - x)``.

    Args:
        density: Share of pixels at which a streak begins, between 0 and 1.
        length_px: Length of a streak, px.
        angle: Direction of the streaks in degrees, from x (to the right) towards y (downwards);
            90 falls straight.
        strength: First guess of the whiteness of the streaks, between 0 and 1.
        seed: Random seed of their places; all images of a size get the same.
        learnable: Whether the strength is unknown.

    Source:
        The streak model of synthetic deraining sets. Difference: the light is laid over (1 - x)
        rather than added, so that nothing has to be clipped.
    """

    name = "rain"
    linear = False

    def __init__(
        self,
        density: float = 0.004,
        length_px: float = 20.0,
        angle: float = 80.0,
        strength: float = 0.6,
        seed: int = 0,
        learnable: bool = True,
    ):
        super().__init__()
        check_finite(angle=angle)
        if not 0 < density < 1:
            raise SettingError(f"density must lie between 0 and 1, not {density:g}.")
        if not 1 <= length_px <= 200:
            raise SettingError(f"length_px must lie between 1 and 200, not {length_px:g}.")
        self.density, self.length_px, self.angle, self.seed = density, length_px, angle, seed
        self.strength = Unknown("strength", strength, "share", learnable=learnable)

    def forward(self, x: Images) -> Images:
        height, width = x.shape[-2:]
        r = _streaks(height, width, self.density, self.length_px, self.angle, self.seed).to(x)
        return x + self.strength.over_images() * r * (1 - x)

    def estimates(self) -> dict[str, Any]:
        return {
            "strength": numbers(self.strength()),
            "density": self.density,
            "length_px": self.length_px,
            "angle": self.angle,
            "seed": self.seed,
        }

    def describe(self) -> str:
        return (
            f"rain of strength {in_words(self.strength())} in streaks of {self.length_px:g} px "
            f"at {self.angle:g} degrees"
        )


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # the cache must serve runs with gradients too
def _streaks(
    height: int, width: int, density: float, length_px: float, angle: float, seed: int
) -> Tensor:
    """Draw streaks of differing brightness on black, (1, 1, H, W), in [0, 1]."""
    stroke = line_kernel(2 * math.ceil(length_px / 2) + 5, length_px, math.radians(angle))
    more = stroke.shape[-1] - 1  # so that streaks enter from outside
    generator = own_generator("rain", seed)
    canvas = (1, 1, height + more, width + more)
    begins = torch.rand(canvas, generator=generator) < density
    brightness = 0.3 + 0.7 * torch.rand(canvas, generator=generator)
    return convolve(begins * brightness, stroke / stroke.max(), "valid").clamp(0, 1)


class WaterDrops(Operator):
    """Water drops on the lens.

    Each drop shows the scene behind it upside down, smaller and out of focus, darker towards its
    rim: ``y = (1 - a) x + a s (k * x)[c - m (p - c)]`` for a drop around ``c``, with its soft
    outline ``a``, shade ``s`` and blur ``k``.

    Args:
        count: Number of drops.
        radius_px: Mean radius of the drops, px; each has its own radius and outline.
        refraction: Factor ``m`` by which the scene is smaller in a drop.
        blur_px: Standard deviation of the blur in a drop, px.
        opacity: First guess of the share of the scene that a drop hides, between 0 and 1.
        seed: Random seed of places, sizes and outlines; all images of a size get the same.
        learnable: Whether the opacity is unknown.

    Source:
        Our own model of a thin spherical lens, which turns the image over; no published set of
        drops could be followed.
    """

    name = "drops"

    def __init__(
        self,
        count: int = 12,
        radius_px: float = 14.0,
        refraction: float = 2.0,
        blur_px: float = 1.5,
        opacity: float = 0.9,
        seed: int = 0,
        learnable: bool = True,
    ):
        super().__init__()
        if not 1 <= count <= 1000:
            raise SettingError(f"count must lie between 1 and 1000, not {count}.")
        check_finite(radius_px=radius_px, refraction=refraction, blur_px=blur_px)
        positive = {"radius_px": radius_px, "refraction": refraction, "blur_px": blur_px}
        for name, value in positive.items():
            if not value > 0:
                raise SettingError(f"{name} must be positive, not {value:g}.")
        self.count, self.radius_px, self.refraction = count, radius_px, refraction
        self.blur_px, self.seed = blur_px, seed
        self.opacity = Unknown("opacity", opacity, "share", learnable=learnable)

    def forward(self, x: Images) -> Images:
        height, width = x.shape[-2:]
        drawn = _drops(height, width, self.count, self.radius_px, self.refraction, self.seed)
        outline, shade, displacement = (t.to(x) for t in drawn)
        side = min(2 * math.ceil(3 * self.blur_px) + 1, 2 * min(height, width) - 1)
        sigma = torch.tensor([self.blur_px], dtype=x.dtype, device=x.device)
        scene = shade * warp(convolve(x, gaussian_kernel(side, sigma)), displacement)
        a = self.opacity.over_images() * outline
        return (1 - a) * x + a * scene

    def estimates(self) -> dict[str, Any]:
        return {
            "opacity": numbers(self.opacity()),
            "count": self.count,
            "radius_px": self.radius_px,
            "refraction": self.refraction,
            "blur_px": self.blur_px,
            "seed": self.seed,
        }

    def describe(self) -> str:
        return (
            f"{self.count} water drops of {self.radius_px:g} px radius "
            f"and opacity {in_words(self.opacity())} on the lens"
        )


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # the cache must serve runs with gradients too
def _drops(
    height: int, width: int, count: int, radius_px: float, refraction: float, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw drops; a later one lies over an earlier one.

    Returns:
        Soft outlines (1, 1, H, W), shades (1, 1, H, W) and displacements (1, 2, H, W), px.
    """
    generator = own_generator("drops", seed)
    y, x = torch.arange(height)[:, None], torch.arange(width)[None]
    outline, shade = torch.zeros(height, width), torch.ones(height, width)
    displacement = torch.zeros(2, height, width)
    for _ in range(count):
        u = torch.rand(3 + 2 * N_HARMONICS, generator=generator)
        dy, dx = y - u[0] * (height - 1), x - u[1] * (width - 1)
        angle = torch.atan2(dy, dx)
        radius = radius_px * (0.5 + u[2]) * torch.ones_like(angle)
        for k in range(N_HARMONICS):
            swell, turn = 0.3 * u[3 + 2 * k] / (k + 2), 2 * math.pi * u[4 + 2 * k]
            radius = radius * (1 + swell * ((k + 2) * angle + turn).cos())
        inside = radius - (dy.square() + dx.square()).sqrt()  # px from the rim
        soft = ((inside + 1) / 2).clamp(0, 1)
        here = soft > 0
        outline = torch.where(here, torch.maximum(outline, soft), outline)
        shade = torch.where(here, 1 - 0.4 * (1 - inside / radius).clamp(0, 1) ** 4, shade)
        flipped = torch.stack(torch.broadcast_tensors(dx, dy)) * -(1 + refraction)
        displacement = torch.where(here, flipped, displacement)
    return outline[None, None], shade[None, None], displacement[None]
