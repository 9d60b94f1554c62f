"""Pictures made smaller by a whole factor."""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch import Tensor
from torch.nn import functional as F

from pristina.errors import OperatorError, SettingError
from pristina.operators.base import Operator
from pristina.operators.blur import FreeKernel, spread, tilt_to_centre
from pristina.operators.convolve import Boundary, check_fits
from pristina.operators.kernels import gaussian_kernel
from pristina.operators.unknown import numbers, say

How = Literal["area", "bicubic", "kernel"]


class Downsample(Operator):
    """Reduction by ``factor``.

    Args:
        factor: How many pixels become one, along each side; at least 2.
        how: ``area``: the mean of each factor x factor block. ``bicubic``: the anti-aliased cubic filter (a = -0.5) of most image programs.
            ``kernel``: an unknown kernel, kept in place while it is fitted, then every factor-th pixel.
        size: For ``kernel``: its side, odd; 4 factor + 1 if None. It starts as a Gaussian of factor / 2 px, placed so that reduction and
            enlargement keep the picture where it is.
        boundary: For ``kernel``: what lies beyond the border.
    """

    def __init__(self, factor: int, how: How = "area", size: int | None = None, boundary: Boundary = "reflect"):
        super().__init__()
        if factor < 2:
            raise SettingError(f"factor must be at least 2, not {factor}.")
        if how not in get_args(How):
            raise SettingError(f"how must be one of {', '.join(get_args(How))}; not {how!r}.")
        if boundary == "valid":
            raise SettingError("Reduction has no valid border; take reflect, zero or circular.")
        self.factor, self.how = factor, how
        if how == "kernel":
            size = 4 * factor + 1 if size is None else size
            self.blur = FreeKernel(size, "logits", boundary, sigma=factor / 2)
            if factor % 2 == 0:  # the middle of an even block lies between two pixels
                start = gaussian_kernel(size, factor / 2)
                start = (start + start.roll(1, -1)) / 2
                start = (start + start.roll(1, -2)) / 2
                self.blur.logits.data = start.flatten(1).clamp_min(1e-12).log()

    @property
    def name(self) -> str:  # type: ignore[override]
        """Its word in recipes."""
        return "antialias" if self.how == "kernel" else self.how

    def kernel(self) -> Tensor:
        """The unknown kernel of ``how="kernel"``, (1 or B, 1, K, K)."""
        return self.blur.kernel()

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % self.factor or width % self.factor:
            raise OperatorError(f"A {width} x {height} px picture cannot be reduced by {self.factor}; its sides must be multiples of that.")
        if self.how == "area":
            return F.avg_pool2d(x, self.factor)
        if self.how == "bicubic":
            size = (height // self.factor, width // self.factor)
            return F.interpolate(x, size=size, mode="bicubic", align_corners=False, antialias=True)
        middle = self.factor // 2
        return self.blur(x)[..., middle :: self.factor, middle :: self.factor]

    def picture_size(self, height: int, width: int) -> tuple[int, int]:
        return height * self.factor, width * self.factor

    def check(self, y: Tensor) -> None:
        if self.how == "kernel":
            check_fits(*self.picture_size(*y.shape[-2:]), self.blur.size, self.blur.size, self.blur.boundary)

    def project(self) -> None:
        if self.how == "kernel":
            tilt_to_centre(self.blur.logits, self.blur.size, 0.0 if self.factor % 2 else 0.5)

    def estimates(self) -> dict[str, Any]:
        known: dict[str, Any] = {"factor": self.factor, "how": self.how}
        return known | {"kernel": numbers(self.kernel()[:, 0], 4)} if self.how == "kernel" else known

    def describe(self) -> str:
        if self.how == "area":
            return f"reduction by {self.factor}, each pixel the mean of its block"
        if self.how == "bicubic":
            return f"bicubic reduction by {self.factor}"
        return f"reduction by {self.factor} through an unknown kernel {say(spread(self.kernel()), 'px')} wide (rms)"
