"""Rain in the air and water on the lens. Where it is follows from a seed; how strongly it shows can be unknown."""

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
from pristina.operators.unknown import Unknown, check_finite, numbers, own_generator, say
from pristina.operators.warp import warp

N_HARMONICS = 3  # of a drop's outline


class Rain(Operator):
    """Bright streaks laid over the picture: ``y = x + strength r (1 - x)``, with the streaks ``r`` in [0, 1].

    Args:
        density: The share of pixels at which a streak begins.
        length_px: Of a streak.
        angle: Of the streaks in degrees, from x (to the right) towards y (downwards); 90 falls straight.
        strength: First guess of how white they are, between 0 and 1.
        seed: Of their places; all pictures of a size get the same.
        learnable: Whether the strength is unknown.

    Source:
        The streak model of synthetic deraining sets, with the light laid over (1 - x) rather than added, so that nothing has to be clipped.
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

    def forward(self, x: Tensor) -> Tensor:
        r = _streaks(x.shape[-2], x.shape[-1], self.density, self.length_px, self.angle, self.seed).to(x)
        return x + self.strength.over_pictures() * r * (1 - x)

    def estimates(self) -> dict[str, Any]:
        known = {"density": self.density, "length_px": self.length_px, "angle": self.angle, "seed": self.seed}
        return {"strength": numbers(self.strength()), **known}

    def describe(self) -> str:
        return f"rain of strength {say(self.strength())} in streaks of {self.length_px:g} px at {self.angle:g} degrees"


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is kept must serve runs with gradients too
def _streaks(height: int, width: int, density: float, length_px: float, angle: float, seed: int) -> Tensor:
    """Streaks of differing brightness on black, (1, 1, H, W), in [0, 1]."""
    stroke = line_kernel(2 * math.ceil(length_px / 2) + 5, length_px, math.radians(angle))
    more = stroke.shape[-1] - 1  # so that streaks come in from outside
    generator = own_generator("rain", seed)
    canvas = (1, 1, height + more, width + more)
    begins = torch.rand(canvas, generator=generator) < density
    brightness = 0.3 + 0.7 * torch.rand(canvas, generator=generator)
    return convolve(begins * brightness, stroke / stroke.max(), "valid").clamp(0, 1)


class WaterDrops(Operator):
    """Drops on the lens: each shows the scene behind it upside down, smaller and out of focus, darker towards its rim.

    ``y = (1 - a) x + a s (k * x)[c - m (p - c)]`` for a drop around ``c``, with its soft outline ``a``, shade ``s`` and blur ``k``.

    Args:
        count: How many drops.
        radius_px: Their mean radius; each has its own, and its own outline.
        refraction: How many times smaller the scene appears in a drop (``m``).
        blur_px: Standard deviation of the blur in a drop.
        opacity: First guess of how much of the scene a drop hides, between 0 and 1.
        seed: Of places, sizes and outlines; all pictures of a size get the same.
        learnable: Whether the opacity is unknown.

    Source:
        No published set of drops could be followed; decided on a thin spherical lens, which turns the picture over.
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
        for name, value in (("radius_px", radius_px), ("refraction", refraction), ("blur_px", blur_px)):
            if not value > 0:
                raise SettingError(f"{name} must be positive, not {value:g}.")
        self.count, self.radius_px, self.refraction, self.blur_px, self.seed = count, radius_px, refraction, blur_px, seed
        self.opacity = Unknown("opacity", opacity, "share", learnable=learnable)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        outline, shade, displacement = (t.to(x) for t in _drops(height, width, self.count, self.radius_px, self.refraction, self.seed))
        side = min(2 * math.ceil(3 * self.blur_px) + 1, 2 * min(height, width) - 1)
        kernel = gaussian_kernel(side, torch.tensor([self.blur_px], dtype=x.dtype, device=x.device))
        seen = shade * warp(convolve(x, kernel), displacement)
        a = self.opacity.over_pictures() * outline
        return (1 - a) * x + a * seen

    def estimates(self) -> dict[str, Any]:
        known = {
            "count": self.count,
            "radius_px": self.radius_px,
            "refraction": self.refraction,
            "blur_px": self.blur_px,
            "seed": self.seed,
        }
        return {"opacity": numbers(self.opacity()), **known}

    def describe(self) -> str:
        return f"{self.count} water drops of {self.radius_px:g} px radius and opacity {say(self.opacity())} on the lens"


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _drops(height: int, width: int, count: int, radius_px: float, refraction: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Soft outlines (1, 1, H, W), shades (1, 1, H, W) and displacements (1, 2, H, W) of all drops; a later one lies over an earlier."""
    generator = own_generator("drops", seed)
    y, x = torch.arange(height)[:, None], torch.arange(width)[None]
    outline, shade, displacement = torch.zeros(height, width), torch.ones(height, width), torch.zeros(2, height, width)
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
        displacement = torch.where(here, torch.stack(torch.broadcast_tensors(dx, dy)) * -(1 + refraction), displacement)
    return outline[None, None], shade[None, None], displacement[None]
