"""Sizes that a prior accepts: padding or resizing images, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from pristina.errors import SizeError


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """Resize images, (B, C, H, W), by bicubic interpolation, antialiased when they get smaller."""
    if x.shape[-2:] == (height, width):
        return x
    size = (height, width)
    y = F.interpolate(x, size=size, mode="bicubic", align_corners=False, antialias=True)
    return y.clamp(0, 1)


def pad(x: Tensor, height: int, width: int) -> Tensor:
    """Pad images, (B, C, H, W), by reflection to the right and below, to ``height`` x ``width``.

    Raises:
        SizeError: A side of one pixel has nothing to reflect.
    """
    below, right = height - x.shape[-2], width - x.shape[-1]
    while below or right:  # One reflection reaches at most as far as the image.
        down, across = min(below, x.shape[-2] - 1), min(right, x.shape[-1] - 1)
        if (below and not down) or (right and not across):
            raise _too_small(x.shape[-2], x.shape[-1])
        x = F.pad(x, (0, across, 0, down), mode="reflect")
        below, right = below - down, right - across
    return x


def _too_small(height: int, width: int) -> SizeError:
    return SizeError(f"A picture of {width} x {height} px is too small to be restored.")


@dataclass(frozen=True)
class Fit:
    """How images of one size are brought to a size that a prior accepts, and back.

    Attributes:
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        work_height: Height at which the prior works.
        work_width: Width at which the prior works.
        resized: Whether images are resized; otherwise they are padded on the right and below.

    Example:
        >>> import torch
        >>> fit = Fit.to(18, 21, multiple=8)
        >>> x = torch.rand(1, 3, 18, 21)
        >>> fit.apply(x).shape, bool((fit.undo(fit.apply(x)) == x).all())
        (torch.Size([1, 3, 24, 24]), True)
    """

    height: int
    width: int
    work_height: int
    work_width: int
    resized: bool = False

    @classmethod
    def to(
        cls,
        height: int,
        width: int,
        *,
        multiple: int = 1,
        minimum: int = 1,
        native: int | None = None,
        fixed: bool = False,
    ) -> Fit:
        """Return how images of ``height`` x ``width`` px fit a prior.

        Args:
            height: Height of the images in pixels.
            width: Width of the images in pixels.
            multiple: Number that both sides must be a multiple of.
            minimum: Smallest side in pixels.
            native: Side in pixels of a prior of one size; None if it has none.
            fixed: Whether the prior takes its native size only.

        Raises:
            SizeError: The prior takes one size only, and the images are far from square; or a side
                of one pixel has nothing to reflect.
        """
        if fixed and native is not None:
            if not 0.9 < width / height < 1.1:
                raise SizeError(
                    f"This prior knows square, aligned pictures; {width} x {height} px is far "
                    "from square. Crop it to the face (eyes level at 40 % of the height, 30 % of "
                    "the width apart), or use a prior for any size, such as photos."
                )
            return cls(height, width, native, native, resized=(height, width) != (native, native))
        sides = (max(minimum, n) for n in (height, width))
        high, wide = (-(-n // multiple) * multiple for n in sides)
        if high > height == 1 or wide > width == 1:
            raise _too_small(height, width)
        return cls(height, width, high, wide)

    @property
    def note(self) -> str:
        """A sentence about what is done to the images; empty if they are only padded."""
        if not self.resized:
            return ""
        return (
            f"The prior works at {self.work_width} x {self.work_height} px: the picture was "
            "brought to that size, restored, and brought back."
        )

    def apply(self, x: Tensor) -> Tensor:
        """Bring images, (B, C, H, W), to the size at which the prior works."""
        change = resize if self.resized else pad
        return change(x, self.work_height, self.work_width)

    def undo(self, x: Tensor) -> Tensor:
        """Bring images back to their own size."""
        if self.resized:
            return resize(x, self.height, self.width)
        return x[..., : self.height, : self.width]
