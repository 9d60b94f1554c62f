"""Sparse-view tomography: line integrals from few directions."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import OperatorError, SettingError
from pristina.operators.base import Observed, Operator
from pristina.types import Images

__all__ = ["Radon"]


class Radon(Operator):
    """Parallel-beam projections at angles spread evenly over 180 degrees.

    Each projection is the sum of the image along its columns after a rotation about its middle
    (bilinear), divided by ``size``, so that values stay in [0, 1]. What the rotation moves out of
    the square is lost. The adjoint is the exact transpose of this sum, by differentiation.

    Args:
        n_angles: Number of directions.
        size: Side of the square image, px, and number of detectors.

    Source:
        The geometry of scikit-image's ``radon`` with ``circle=True``. Difference: the axis there
        is a pixel, and here the true middle (the same for odd sizes).
    """

    name = "radon"

    def __init__(self, n_angles: int, size: int):
        super().__init__()
        if n_angles < 1:
            raise SettingError(f"n_angles must be at least 1, not {n_angles}.")
        if size < 2:
            raise SettingError(f"size must be at least 2, not {size}.")
        self.n_angles, self.size = n_angles, size

    def forward(self, x: Images) -> Float[Tensor, "batch channel detectors angles"]:
        """Project images.

        Returns:
            Sinograms, (B, C, size, n_angles), detectors down, angles across.
        """
        if tuple(x.shape[-2:]) != (self.size, self.size):
            raise OperatorError(
                f"This scanner holds images of {self.size} x {self.size} px, "
                f"not {x.shape[-1]} x {x.shape[-2]}."
            )
        # Coordinates u of detectors and v along rays, in [-1, 1] between the outer pixel centres.
        line = torch.linspace(-1, 1, self.size, dtype=x.dtype, device=x.device)
        u, v = line[None], line[:, None]
        projections = []
        for i in range(self.n_angles):
            angle = math.pi * i / self.n_angles
            cos, sin = math.cos(angle), math.sin(angle)
            grid = torch.stack([cos * u + sin * v, cos * v - sin * u], -1)
            rotated = _sampled(x, grid.expand(len(x), -1, -1, -1))
            projections.append(rotated.mean(2))
        return torch.stack(projections, 3)

    def picture_size(self, height: int, width: int) -> tuple[int, int]:
        return self.size, self.size

    def initial(self, y: Observed) -> Images:
        """Return the filtered back-projection with the ramp filter, clipped to [0, 1]."""
        n = 2 ** math.ceil(math.log2(2 * self.size))
        distance = torch.arange(n, dtype=y.dtype, device=y.device)
        distance = torch.minimum(distance, n - distance)
        # Band-limited ramp sampled in space, without an offset at frequency zero
        # (Kak and Slaney 1988, equation 61).
        odd = -1 / (math.pi * distance.clamp_min(1)).square()
        ramp = torch.where(distance % 2 == 1, odd, torch.zeros_like(distance))
        ramp[0] = 0.25
        spectrum = torch.fft.rfft(y, n=n, dim=2) * torch.fft.rfft(ramp)[:, None]
        filtered = torch.fft.irfft(spectrum, n=n, dim=2)[:, :, : self.size]
        # Back-projection.
        line = torch.linspace(-1, 1, self.size, dtype=y.dtype, device=y.device)
        image = torch.zeros(*y.shape[:2], self.size, self.size, dtype=y.dtype, device=y.device)
        for i in range(self.n_angles):
            angle = math.pi * i / self.n_angles
            u = math.cos(angle) * line - math.sin(angle) * line[:, None]
            grid = torch.stack([torch.zeros_like(u), u], -1).expand(len(y), -1, -1, -1)
            image = image + _sampled(filtered[..., i : i + 1], grid)
        return (image * (math.pi / self.n_angles * self.size)).clamp(0, 1)

    def check(self, y: Observed) -> None:
        if tuple(y.shape[-2:]) != (self.size, self.n_angles):
            raise OperatorError(
                f"A sinogram of this scanner has {self.size} detectors down and {self.n_angles} "
                f"angles across, not {y.shape[-2]} and {y.shape[-1]}."
            )

    def estimates(self) -> dict[str, Any]:
        return {"n_angles": self.n_angles, "size": self.size}

    def describe(self) -> str:
        return (
            f"parallel-beam projections of a {self.size} x {self.size} px image "
            f"from {self.n_angles} angles"
        )


def _sampled(x: Tensor, grid: Tensor) -> Tensor:
    """Sample images bilinearly, with black beyond the border."""
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
