"""Missing pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pristina.errors import OperatorError, SettingError
from pristina.image.picture import Picture
from pristina.operators.base import Operator
from pristina.operators.unknown import own_generator


class Mask(Operator):
    """Pixels kept where the mask is 1 and black where it is 0. The mask is known: holes can be seen.

    Give one of the three:

    Args:
        mask: (1 or B, 1, H, W), of 0 and 1.
        box: The side in pixels of a square hole in the middle of a picture of any size.
        drop: The share of pixels lost at random places.
        seed: Of these places; they are the same for all pictures of a size.

    Raises:
        SettingError: None or several of the three, or one out of range.
    """

    name = "mask"

    def __init__(self, mask: Tensor | None = None, *, box: int | None = None, drop: float | None = None, seed: int = 0):
        super().__init__()
        if sum(given is not None for given in (mask, box, drop)) != 1:
            raise SettingError("A mask needs exactly one of: mask (a picture of 0 and 1), box (px), drop (share of the pixels).")
        if box is not None and box < 1:
            raise SettingError(f"box must be at least 1 px, not {box}.")
        if drop is not None and not 0 < drop < 1:
            raise SettingError(f"drop must lie between 0 and 1, not {drop:g}.")
        if mask is not None:
            if mask.ndim != 4 or mask.shape[1] != 1:
                raise OperatorError(f"A mask has the shape (1 or B, 1, H, W), not {tuple(mask.shape)}.")
            mask = mask.detach().float()
            if not ((mask == 0) | (mask == 1)).all():
                raise OperatorError("A mask holds 0 (lost) and 1 (kept) and nothing between.")
            if not mask.flatten(1).any(1).all():
                raise OperatorError("A mask must keep at least one pixel of each picture.")
        self.register_buffer("given", mask)
        self.box, self.drop, self.seed = box, drop, seed

    @classmethod
    def from_file(cls, file: str | Path) -> Mask:
        """The mask in a picture file: bright is kept, dark is lost.

        Raises:
            PictureError: The file cannot be read as a picture.
        """
        return cls((Picture.open(file).pixels.mean(0) > 0.5)[None, None])

    def mask(self, height: int, width: int) -> Tensor:
        """The mask of a picture of this size, (1 or B, 1, H, W).

        Raises:
            OperatorError: The mask has another size, or nothing of the picture would be left.
        """
        if self.box is not None:
            if self.box >= min(height, width):
                raise OperatorError(f"A hole of {self.box} px does not fit into a {width} x {height} px picture; take a smaller box.")
            top, left = (height - self.box) // 2, (width - self.box) // 2
            mask = torch.ones(1, 1, height, width)
            mask[..., top : top + self.box, left : left + self.box] = 0
            return mask
        if self.drop is not None:
            mask = (torch.rand(1, 1, height, width, generator=own_generator(self.name, self.seed)) >= self.drop).float()
            if not mask.any():
                raise OperatorError(f"drop={self.drop:g} leaves no pixel of a {width} x {height} px picture; take a smaller share.")
            return mask
        mask = self.get_buffer("given")
        if mask.shape[-2:] != (height, width):
            raise OperatorError(
                f"The mask is {mask.shape[-1]} x {mask.shape[-2]} px and the picture {width} x {height} px; "
                "give a mask of the picture's size."
            )
        return mask

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask(x.shape[-2], x.shape[-1]).to(x)

    def initial(self, y: Tensor) -> Tensor:
        """The holes filled with the mean colour of what is left."""
        kept = self.mask(y.shape[-2], y.shape[-1]).to(y)
        mean = (kept * y).sum((2, 3), keepdim=True) / kept.sum((2, 3), keepdim=True)
        return kept * y + (1 - kept) * mean

    def check(self, y: Tensor) -> None:
        mask = self.mask(y.shape[-2], y.shape[-1])
        if len(mask) not in (1, len(y)):
            raise OperatorError(f"There are {len(mask)} masks for {len(y)} pictures; give one, or one for each.")

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
        return f"{100 * (1 - float(self.get_buffer('given').mean())):.1f} % of the pixels lost at known places"
