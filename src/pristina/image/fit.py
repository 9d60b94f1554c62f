"""Bringing pictures to a size that a prior accepts, and back."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from pristina.errors import SizeError


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """Pictures (B, C, H, W) at another size: bicubic, antialiased when it gets smaller."""
    if x.shape[-2:] == (height, width):
        return x
    return F.interpolate(x, size=(height, width), mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)


def pad_to_multiple(x: Tensor, multiple: int, minimum: int) -> Tensor:
    """Pictures continued to the right and below, reflected, until both sides are a multiple and large enough."""
    height, width = x.shape[-2:]
    below, right = (max(minimum, -(-n // multiple) * multiple) - n for n in (height, width))
    while below or right:  # a reflection reaches at most as far as the picture
        down, across = min(below, x.shape[-2] - 1), min(right, x.shape[-1] - 1)
        if (below and not down) or (right and not across):
            raise SizeError(f"A picture of {width} x {height} px is too small to be restored.")
        x = F.pad(x, (0, across, 0, down), mode="reflect")
        below, right = below - down, right - across
    return x


def fit(x: Tensor, *, multiple: int, minimum: int, native: int | None, fixed: bool) -> tuple[Tensor, Callable[[Tensor], Tensor], str]:
    """Pictures at a size that fits a prior's rule, the way back, and a sentence about what was done ("" if nothing).

    Args:
        x: Pictures, (B, C, H, W).
        multiple: Of both sides.
        minimum: Of either side.
        native: The side of a prior of one size.
        fixed: Whether the prior takes that size only.

    Raises:
        SizeError: A prior of one size, and a picture that is far from square.
    """
    height, width = x.shape[-2:]
    if fixed and native is not None:
        if not 0.9 < width / height < 1.1:
            raise SizeError(
                f"This prior knows square, aligned pictures; {width} x {height} px is far from square. "
                "Crop it to the face (eyes level at 40 % of the height, 30 % of the width apart), or use a prior for any size."
            )
        if (height, width) == (native, native):
            return x, lambda x: x, ""
        note = f"The prior works at {native} x {native} px: the picture was brought to that size, restored, and brought back."
        return resize(x, native, native), lambda x: resize(x, height, width), note
    return pad_to_multiple(x, multiple, minimum), lambda x: x[..., :height, :width], ""
