"""Missing pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pristina.errors import OperatorError, SettingError
from pristina.image.picture import Picture
from pristina.operators.base import Operator
from pristina.operators.unknown import own_generator
from pristina.types import Images

__all__ = ["Mask"]


class Mask(Operator):
    """Known mask: pixels are kept where it is 1 and black where it is 0.

    Exactly one of ``mask``, ``box`` and ``drop`` is given.

    Args:
        mask: Mask of 0 and 1, (1 or B, 1, H, W).
        box: Side in pixels of a square hole in the middle of an image of any size.
        drop: Share of pixels lost at random places, between 0 and 1.
        seed: Random seed of these places; they are the same for all images of a size.

    Raises:
        OperatorError: ``mask`` has another shape or other values, or keeps nothing.
        SettingError: None or several of the three are given, or one is out of range.
    """

    name = "mask"

    def __init__(
        self,
        mask: Tensor | None = None,
        *,
        box: int | None = None,
        drop: float | None = None,
        seed: int = 0,
    ):
        super().__init__()
        if sum(given is not None for given in (mask, box, drop)) != 1:
            raise SettingError(
                "A mask needs exactly one of: mask (an image of 0 and 1), box (px), "
                "drop (share of the pixels)."
            )
        if box is not None and box < 1:
            raise SettingError(f"box must be at least 1 px, not {box}.")
        if drop is not None and not 0 < drop < 1:
            raise SettingError(f"drop must lie between 0 and 1, not {drop:g}.")
        if mask is not None:
            if mask.ndim != 4 or mask.shape[1] != 1:
                raise OperatorError(
                    f"A mask has the shape (1 or B, 1, H, W), not {tuple(mask.shape)}."
                )
            mask = mask.detach().float()
            if not ((mask == 0) | (mask == 1)).all():
                raise OperatorError("A mask holds 0 (lost) and 1 (kept) and nothing between.")
            if not mask.flatten(1).any(1).all():
                raise OperatorError("A mask must keep at least one pixel of each image.")
        self.register_buffer("given", mask)
        self.box, self.drop, self.seed = box, drop, seed

    @classmethod
    def from_arguments(
        cls,
        box: int | None = None,
        drop: float | None = None,
        file: Path | None = None,
        seed: int = 0,
    ) -> Mask:
        """Build the mask that exactly one of ``box``, ``drop`` and ``file`` describes.

        Raises:
            SettingError: None or several of the three are given, or one is out of range.
        """
        if sum(given is not None for given in (box, drop, file)) != 1:
            raise SettingError(
                "A mask needs exactly one of: box (px), drop (share of the pixels), "
                "file (bright is kept)."
            )
        return cls(box=box, drop=drop, seed=seed) if file is None else cls.from_file(file)

    @classmethod
    def from_file(cls, file: str | Path) -> Mask:
        """Read a mask from a picture: bright is kept, dark or transparent is lost.

        Args:
            file: Path of the picture. Where some of it is transparent, the rest must be bright:
                otherwise it is unclear which of the two marks what is lost.

        Raises:
            OperatorError: The picture has transparent pixels and opaque dark ones, or keeps
                nothing.
            PictureError: The file cannot be read as a picture.
        """
        picture = Picture.open(file)
        bright = picture.pixels.mean(0) > 0.5
        opaque = torch.ones_like(bright) if picture.alpha is None else picture.alpha[0] > 0.5
        if not opaque.all() and not bright[opaque].all():
            raise OperatorError(
                f"{file} is transparent in some places and dark in others, so that it is unclear "
                "what is lost; save it without transparency, with what is kept bright and what "
                "is lost dark."
            )
        return cls((bright & opaque)[None, None])

    def mask(self, height: int, width: int) -> Float[Tensor, "masks 1 {height} {width}"]:
        """Return the mask for images of this size, (1 or B, 1, H, W), of 0 and 1.

        Raises:
            OperatorError: The mask has another size, or nothing is left of such an image.
        """
        if self.box is not None:
            if self.box >= min(height, width):
                raise OperatorError(
                    f"A hole of {self.box} px does not fit into a {width} x {height} px image; "
                    "take a smaller box."
                )
            mask = torch.ones(1, 1, height, width)
            top, left = (height - self.box) // 2, (width - self.box) // 2
            mask[..., top : top + self.box, left : left + self.box] = 0
            return mask
        if self.drop is not None:
            generator = own_generator(self.name, self.seed)
            mask = (torch.rand(1, 1, height, width, generator=generator) >= self.drop).float()
            if not mask.any():
                raise OperatorError(
                    f"drop={self.drop:g} leaves no pixel of a {width} x {height} px image; "
                    "take a smaller share."
                )
            return mask
        mask = self.get_buffer("given")
        if mask.shape[-2:] != (height, width):
            raise OperatorError(
                f"The mask is {mask.shape[-1]} x {mask.shape[-2]} px and the image "
                f"{width} x {height} px; give a mask of the image's size."
            )
        return mask

    def forward(self, x: Images) -> Images:
        return x * self.mask(x.shape[-2], x.shape[-1]).to(x)

    def initial(self, y: Images) -> Images:
        """Fill the holes with the mean colour of what is left."""
        kept = self.mask(y.shape[-2], y.shape[-1]).to(y)
        mean = (kept * y).sum((2, 3), keepdim=True) / kept.sum((2, 3), keepdim=True)
        return kept * y + (1 - kept) * mean

    def check(self, y: Images) -> None:
        mask = self.mask(y.shape[-2], y.shape[-1])
        if len(mask) not in (1, len(y)):
            raise OperatorError(
                f"There are {len(mask)} masks for {len(y)} images; give one, or one for each."
            )

    def estimates(self) -> dict[str, Any]:
        if self.box is not None:
            return {"box": self.box}
        if self.drop is not None:
            return {"drop": self.drop, "seed": self.seed}
        lost = 1 - self.get_buffer("given").mean((1, 2, 3))
        return {"lost": [round(v, 4) for v in lost.tolist()]}

    def describe(self) -> str:
        if self.box is not None:
            return f"a square hole of {self.box} x {self.box} px in the middle"
        if self.drop is not None:
            return f"{100 * self.drop:g} % of the pixels lost at known places"
        lost = 100 * (1 - float(self.get_buffer("given").mean()))
        return f"{lost:.1f} % of the pixels lost at known places"
