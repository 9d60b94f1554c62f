"""Sparse-view tomography: line integrals from few directions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import OperatorError, SettingError
from pristina.operators.base import Operator


class Radon(Operator):
    """Parallel-beam projections at ``n_angles`` angles spread evenly over 180 degrees.

    Each is the sum of the picture along its columns after a rotation about its middle (bilinear), divided by ``size``, so that values stay
    in [0, 1]. What turns out of the square is lost. The adjoint is the exact transpose of this sum, by differentiation.

    Args:
        n_angles: How many directions.
        size: The side of the square picture, px, and the number of detectors.

    Source:
        The geometry of scikit-image's ``radon`` with ``circle=True``; but its axis is a pixel, and here the true middle (the same for odd
        sizes).
    """

    name = "radon"

    def __init__(self, n_angles: int, size: int):
        super().__init__()
        if n_angles < 1:
            raise SettingError(f"n_angles must be at least 1, not {n_angles}.")
        if size < 2:
            raise SettingError(f"size must be at least 2, not {size}.")
        self.n_angles, self.size = n_angles, size

    def forward(self, x: Tensor) -> Tensor:
        """Sinograms, (B, C, size, n_angles): detectors down, angles across."""
        if tuple(x.shape[-2:]) != (self.size, self.size):
            raise OperatorError(f"This scanner holds pictures of {self.size} x {self.size} px, not {x.shape[-1]} x {x.shape[-2]}.")
        # detector coordinate u across, ray coordinate v down, both in units of half the side between the outer pixel centres
        line = torch.linspace(-1, 1, self.size, dtype=x.dtype, device=x.device)
        u, v = line[None], line[:, None]
        projections = []
        for i in range(self.n_angles):
            angle = math.pi * i / self.n_angles
            cos, sin = math.cos(angle), math.sin(angle)
            grid = torch.stack([cos * u + sin * v, cos * v - sin * u], -1).expand(len(x), -1, -1, -1)
            turned = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
            projections.append(turned.mean(2))
        return torch.stack(projections, 3)

    def picture_size(self, height: int, width: int) -> tuple[int, int]:
        return self.size, self.size

    def initial(self, y: Tensor) -> Tensor:
        """Filtered back-projection with the ramp filter, clipped to [0, 1]."""
        n = 2 ** math.ceil(math.log2(2 * self.size))
        distance = torch.arange(n, dtype=y.dtype, device=y.device)
        distance = torch.minimum(distance, n - distance)
        # the band-limited ramp, sampled in space: no offset at frequency zero (Kak and Slaney 1988, equation 61)
        ramp = torch.where(distance % 2 == 1, -1 / (math.pi * distance.clamp_min(1)).square(), torch.zeros_like(distance))
        ramp[0] = 0.25
        spectrum = torch.fft.rfft(y, n=n, dim=2) * torch.fft.rfft(ramp)[:, None]
        filtered = torch.fft.irfft(spectrum, n=n, dim=2)[:, :, : self.size]
        line = torch.linspace(-1, 1, self.size, dtype=y.dtype, device=y.device)
        picture = torch.zeros(*y.shape[:2], self.size, self.size, dtype=y.dtype, device=y.device)
        for i in range(self.n_angles):
            angle = math.pi * i / self.n_angles
            u = math.cos(angle) * line - math.sin(angle) * line[:, None]
            grid = torch.stack([torch.zeros_like(u), u], -1).expand(len(y), -1, -1, -1)
            picture = picture + F.grid_sample(filtered[..., i : i + 1], grid, padding_mode="zeros", align_corners=True)
        return (picture * (math.pi / self.n_angles * self.size)).clamp(0, 1)

    def check(self, y: Tensor) -> None:
        if tuple(y.shape[-2:]) != (self.size, self.n_angles):
            raise OperatorError(
                f"A sinogram of this scanner has {self.size} detectors down and {self.n_angles} angles across, "
                f"not {y.shape[-2]} and {y.shape[-1]}."
            )

    def estimates(self) -> dict[str, Any]:
        return {"n_angles": self.n_angles, "size": self.size}

    def describe(self) -> str:
        return f"parallel-beam projections of a {self.size} x {self.size} px picture from {self.n_angles} angles"
