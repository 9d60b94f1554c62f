"""Pictures bent out of shape."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pristina.errors import OperatorError, SettingError
from pristina.operators.base import Compose, Operator
from pristina.operators.blur import GaussianBlur
from pristina.operators.unknown import check_finite, numbers, own_generator, say


class Elastic(Operator):
    """Smooth elastic deformation: each pixel shows what lies a smooth displacement away, ``y[p] = x[p + d(p)]``.

    The field is a cubic B-spline on a lattice of ``scale_px``; beyond the border the picture is mirrored. It is linear in the picture and
    not in the field.

    Args:
        amplitude_px: Root-mean-square length of the displacement; 0 for no displacement, where a method that knows nothing starts.
        scale_px: Spacing of the lattice: the larger, the smoother.
        extent_px: The longest side of a picture; the lattice covers that much.
        seed: Of the field.
        learnable: Whether it is unknown.

    Attributes:
        lattice: Its weights, (1 or B, 2, n, n): displacement in x and in y, px.
    """

    name = "elastic"

    def __init__(self, amplitude_px: float = 3.0, scale_px: float = 32.0, extent_px: int = 256, seed: int = 0, learnable: bool = True):
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
        # white weights of variance 1 make a field of variance 2 (151/315)^2, both axes together
        drawn = torch.randn(1, 2, n, n, generator=own_generator(self.name, seed)) / (math.sqrt(2) * 151 / 315)
        self.lattice = nn.Parameter(amplitude_px * drawn, requires_grad=learnable)

    def displacement(self, height: int, width: int) -> Tensor:
        """The field on a picture of this size, (1 or B, 2, H, W), px: x, then y.

        Raises:
            OperatorError: The picture is larger than the lattice.
        """
        if max(height, width) > self.extent_px:
            raise OperatorError(f"A {width} x {height} px picture is larger than this deformation; give extent_px={max(height, width)}.")
        n = self.lattice.shape[-1]
        down, across = (_spline(length, self.scale_px, n).to(self.lattice) for length in (height, width))
        return down @ self.lattice @ across.T

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        return warp(x, self.displacement(height, width))

    def check(self, y: Tensor) -> None:
        self.displacement(y.shape[-2], y.shape[-1])

    def rms_px(self) -> Tensor:
        """Root-mean-square length of the displacement over the whole extent, (1 or B,)."""
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
        return f"elastic deformation by {say(self.rms_px(), 'px')} (rms) on a scale of {self.scale_px:g} px"


def warp(x: Tensor, displacement: Tensor) -> Tensor:
    """``x[p + d(p)]`` with bilinear interpolation and mirrored borders; ``displacement`` is (1 or B, 2, H, W), px, x before y."""
    height, width = x.shape[-2:]
    rows = torch.arange(height, dtype=x.dtype, device=x.device)[:, None]
    columns = torch.arange(width, dtype=x.dtype, device=x.device)
    across = 2 * (columns + displacement[:, 0]) / max(1, width - 1) - 1
    down = 2 * (rows + displacement[:, 1]) / max(1, height - 1) - 1
    grid = torch.stack([across, down], -1).expand(len(x), -1, -1, -1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=True)


def _spline(length: int, scale_px: float, n: int) -> Tensor:
    """The ``n`` cubic B-splines of a lattice of ``scale_px`` at ``length`` pixels, (length, n); each row sums to 1."""
    at = torch.arange(length, dtype=torch.float64)[:, None] / scale_px + 1
    r = (at - torch.arange(n, dtype=torch.float64)).abs()
    return torch.where(r < 1, 2 / 3 - r**2 + r**3 / 2, (2 - r).clamp_min(0) ** 3 / 6)


class Turbulence(Compose):
    """Looking through hot air: a fine tilt field, then Gaussian blur.

    Args:
        tilt_px: Root-mean-square length of the tilt.
        scale_px: Fineness of the tilt.
        sigma: Standard deviation of the blur, px.
        size: Side of the blur's kernel.
        extent_px: The longest side of a picture.
        seed: Of the tilt.
        learnable: Whether tilt and blur are unknown.

    Source:
        Tilt, then blur, as BlindDPS simulates it (Gaussian of 4 px for faces). Different here: the tilt is a B-spline field of stated
        strength, not a sum of 500 random patches clipped at 2.5 px.
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

    def describe(self) -> str:
        return "turbulence: " + " and ".join(o.describe() for o in self.parts)
