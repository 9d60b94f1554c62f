"""Reduction of images by a whole factor."""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch.nn import functional as F

from pristina.errors import OperatorError, SettingError
from pristina.operators.base import Observed, Operator
from pristina.operators.blur import FreeKernel
from pristina.operators.convolve import Boundary, Kernels, check_fits
from pristina.operators.kernels import gaussian_kernel, spread, tilt_to_centre
from pristina.operators.unknown import in_words, numbers
from pristina.types import Images

__all__ = ["Downsample"]

How = Literal["area", "bicubic", "kernel"]


class Downsample(Operator):
    """Reduction by a whole factor.

    Args:
        factor: Number of pixels that become one along each side, at least 2.
        how: ``area``: the mean of each factor x factor block. ``bicubic``: the anti-aliased cubic
            filter (a = -0.5) of most image programs. ``kernel``: an unknown kernel, kept in place
            while it is fitted, then every factor-th pixel.
        size: Side of the unknown kernel in pixels, odd; 4 factor + 1 if None. The kernel starts as
            a Gaussian of factor / 2 px, placed so that reduction and enlargement do not shift the
            image.
        boundary: Rule beyond the border for the unknown kernel, except ``valid``.
    """

    def __init__(
        self,
        factor: int,
        how: How = "area",
        size: int | None = None,
        boundary: Boundary = "reflect",
    ):
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

    @classmethod
    def area(cls, factor: int) -> Downsample:
        """Build a reduction by block means."""
        return cls(factor, "area")

    @classmethod
    def bicubic(cls, factor: int) -> Downsample:
        """Build a reduction by the anti-aliased cubic filter."""
        return cls(factor, "bicubic")

    @classmethod
    def antialias(
        cls, factor: int, size: int | None = None, boundary: Boundary = "reflect"
    ) -> Downsample:
        """Build a reduction through an unknown kernel."""
        return cls(factor, "kernel", size, boundary)

    @property
    def name(self) -> str:  # type: ignore[override]
        """Word in recipes."""
        return "antialias" if self.how == "kernel" else self.how

    def kernel(self) -> Kernels:
        """Return the current kernel of ``how="kernel"``, (1 or B, 1, K, K)."""
        return self.blur.kernel()

    def forward(self, x: Images) -> Observed:
        height, width = x.shape[-2:]
        if height % self.factor or width % self.factor:
            raise OperatorError(
                f"A {width} x {height} px image cannot be reduced by {self.factor}; "
                "its sides must be multiples of that."
            )
        if self.how == "area":
            return F.avg_pool2d(x, self.factor)
        if self.how == "bicubic":
            size = (height // self.factor, width // self.factor)
            return F.interpolate(x, size=size, mode="bicubic", align_corners=False, antialias=True)
        middle = self.factor // 2
        return self.blur(x)[..., middle :: self.factor, middle :: self.factor]

    def picture_size(self, height: int, width: int) -> tuple[int, int]:
        return height * self.factor, width * self.factor

    def check(self, y: Observed) -> None:
        if self.how == "kernel":
            size = self.picture_size(*y.shape[-2:])
            check_fits(*size, self.blur.size, self.blur.size, self.blur.boundary)

    def project(self) -> None:
        if self.how == "kernel":
            tilt_to_centre(self.blur.logits, self.blur.size, 0.0 if self.factor % 2 else 0.5)

    def estimates(self) -> dict[str, Any]:
        known: dict[str, Any] = {"factor": self.factor, "how": self.how}
        if self.how != "kernel":
            return known
        return known | {"kernel": numbers(self.kernel()[:, 0], 4)}

    def describe(self) -> str:
        if self.how == "area":
            return f"reduction by {self.factor} through block means"
        if self.how == "bicubic":
            return f"bicubic reduction by {self.factor}"
        width = in_words(spread(self.kernel()), "px")
        return f"reduction by {self.factor} through an unknown kernel {width} wide (rms)"
