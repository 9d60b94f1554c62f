"""Geometric deformation of images."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pristina.errors import OperatorError, SettingError
from pristina.operators.base import Compose, Operator
from pristina.operators.blur import GaussianBlur
from pristina.operators.unknown import check_finite, in_words, numbers, own_generator
from pristina.types import Images

__all__ = ["Elastic", "Turbulence"]


class Elastic(Operator):
    """Smooth elastic deformation ``y[p] = x[p + d(p)]`` by a displacement field ``d``.

    The field is a cubic B-spline on a lattice of ``scale_px``. The image is mirrored beyond its
    border. The operator is linear in the image but not in the field.

    Args:
        amplitude_px: Root-mean-square length of the displacement, px; 0 for none, from which a
            blind method starts.
        scale_px: Spacing of the lattice, px; the larger, the smoother.
        extent_px: Longest side of an image that the lattice covers, px.
        seed: Random seed of the field.
        learnable: Whether the field is unknown.

    Attributes:
        lattice: Weights of the lattice, (1 or B, 2, n, n): displacement in x and in y, px.
    """

    name = "elastic"

    def __init__(
        self,
        amplitude_px: float = 3.0,
        scale_px: float = 32.0,
        extent_px: int = 256,
        seed: int = 0,
        learnable: bool = True,
    ):
        super().__init__()
        check_finite(amplitude_px=amplitude_px, scale_px=scale_px)
        if amplitude_px < 0:
            raise SettingError(f"amplitude_px must not be negative ({amplitude_px:g}).")
        if scale_px < 1:
            raise SettingError(f"scale_px must be at least 1, not {scale_px:g}.")
        if extent_px < 1:
            raise SettingError(f"extent_px must be at least 1, not {extent_px}.")
        self.scale_px, self.extent_px, self.seed = scale_px, extent_px, seed
        n = math.ceil((extent_px - 1) / scale_px) + 4
        # White weights of variance 1 make a field of variance 2 (151 / 315)^2, both axes together.
        white = torch.randn(1, 2, n, n, generator=own_generator(self.name, seed))
        drawn = white / (math.sqrt(2) * 151 / 315)
        self.lattice = nn.Parameter(amplitude_px * drawn, requires_grad=learnable)

    @classmethod
    def flat(cls, scale_px: float = 32.0, extent_px: int = 256, learnable: bool = True) -> Elastic:
        """Build a deformation that starts from no displacement."""
        return cls(0.0, scale_px, extent_px, learnable=learnable)

    def displacement(
        self, height: int, width: int
    ) -> Float[Tensor, "parameters 2 {height} {width}"]:
        """Return the field on an image of this size, (1 or B, 2, H, W), px: x, then y.

        Raises:
            OperatorError: The image is larger than the lattice.
        """
        if max(height, width) > self.extent_px:
            raise OperatorError(
                f"A {width} x {height} px image is larger than this deformation; "
                f"give extent_px={max(height, width)}."
            )
        n = self.lattice.shape[-1]
        down = _spline(height, self.scale_px, n).to(self.lattice)
        across = _spline(width, self.scale_px, n).to(self.lattice)
        return down @ self.lattice @ across.T

    def forward(self, x: Images) -> Images:
        height, width = x.shape[-2:]
        return warp(x, self.displacement(height, width))

    def check(self, y: Images) -> None:
        self.displacement(y.shape[-2], y.shape[-1])

    def rms_px(self) -> Float[Tensor, " parameters"]:
        """Return the root-mean-square length of the displacement over the whole extent, px."""
        d = self.displacement(self.extent_px, self.extent_px).detach()
        return d.square().sum(1).mean((1, 2)).sqrt()

    def estimates(self) -> dict[str, Any]:
        return {
            "rms_px": numbers(self.rms_px()),
            "scale_px": self.scale_px,
            "extent_px": self.extent_px,
            "lattice": numbers(self.lattice, 4),
        }

    def describe(self) -> str:
        length = in_words(self.rms_px(), "px")
        return f"elastic deformation by {length} (rms) on a scale of {self.scale_px:g} px"


def warp(x: Images, displacement: Float[Tensor, "fields 2 height width"]) -> Images:
    """Sample ``x[p + d(p)]`` bilinearly, mirroring the image beyond its border.

    Args:
        x: Images, (B, C, H, W).
        displacement: Field ``d``, (1 or B, 2, H, W), px, x before y.
    """
    height, width = x.shape[-2:]
    rows = torch.arange(height, dtype=x.dtype, device=x.device)[:, None]
    columns = torch.arange(width, dtype=x.dtype, device=x.device)
    across = 2 * (columns + displacement[:, 0]) / max(1, width - 1) - 1
    down = 2 * (rows + displacement[:, 1]) / max(1, height - 1) - 1
    grid = torch.stack([across, down], -1).expand(len(x), -1, -1, -1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=True)


def _spline(length: int, scale_px: float, n: int) -> Float[Tensor, "{length} {n}"]:
    """Return ``n`` cubic B-splines of a lattice of ``scale_px`` at each pixel; rows sum to 1."""
    at = torch.arange(length, dtype=torch.float64)[:, None] / scale_px + 1
    r = (at - torch.arange(n, dtype=torch.float64)).abs()
    return torch.where(r < 1, 2 / 3 - r**2 + r**3 / 2, (2 - r).clamp_min(0) ** 3 / 6)


class Turbulence(Compose):
    """View through hot air: a fine tilt field, then Gaussian blur.

    Args:
        tilt_px: Root-mean-square length of the tilt, px.
        scale_px: Spacing of the lattice of the tilt, px; the smaller, the finer.
        sigma: Standard deviation of the blur, px.
        size: Side of the blur's kernel in pixels, odd.
        extent_px: Longest side of an image, px.
        seed: Random seed of the tilt.
        learnable: Whether tilt and blur are unknown.

    Source:
        Tilt, then blur, as BlindDPS simulates it (Gaussian of 4 px for faces). Difference: the
        tilt is a B-spline field of given strength instead of a sum of 500 random patches clipped
        at 2.5 px.
    """

    name = "turbulence"

    def __init__(
        self,
        tilt_px: float = 1.0,
        scale_px: float = 6.0,
        sigma: float = 2.0,
        size: int = 41,
        extent_px: int = 256,
        seed: int = 0,
        learnable: bool = True,
    ):
        if tilt_px < 0:
            raise SettingError(f"tilt_px must not be negative ({tilt_px:g}).")
        tilt = Elastic(tilt_px, scale_px, extent_px, seed, learnable)
        super().__init__([tilt, GaussianBlur(sigma, size, learnable=learnable)])

    @classmethod
    def flat(
        cls,
        scale_px: float = 6.0,
        sigma: float = 2.0,
        size: int = 41,
        extent_px: int = 256,
        learnable: bool = True,
    ) -> Turbulence:
        """Build turbulence that starts from no tilt."""
        return cls(0.0, scale_px, sigma, size, extent_px, learnable=learnable)

    def describe(self) -> str:
        return "turbulence: " + " and ".join(o.describe() for o in self.parts)
