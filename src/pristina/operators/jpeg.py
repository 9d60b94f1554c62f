"""JPEG, differentiable: what the lossy part of the coder does, with the rounding made passable."""

from __future__ import annotations

import io
import math
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import OperatorError, SettingError
from pristina.operators.base import Operator
from pristina.operators.unknown import Unknown, numbers, say
from pristina.types import Draw, PerPicture, Pictures

Rounding = Literal["straight", "soft"]

# The example quantisation tables of ITU-T T.81, annex K.1, which nearly every coder scales.
MAX_SIDE = 65_500  # of the common coders
LUMA = [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
]
CHROMA = [
    [17, 18, 24, 47, 99, 99, 99, 99],
    [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99],
    *[[99] * 8] * 4,
]
# JFIF: RGB to luma and two colour differences.
TO_YCBCR = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]


class JPEG(Operator):
    """JPEG coding and decoding with unknown quality.

    Descent does not find the quality: two codings of a picture agree only at nearly the same tables, and nothing points there from afar.
    The observation itself tells it, see :func:`estimate_quality`; start from that.

    Args:
        quality: First guess, between 1 and 100; the libjpeg scale.
        learnable: Whether it is unknown.
        subsample: Halve the colour differences in both directions (4:2:0), as nearly every coder does.
        rounding: ``straight``: round as the coder does, and differentiate as if it did not. ``soft``: replace rounding by
            ``round(v) + (v - round(v))^3``, which has a true derivative, and leave the tables unrounded.

    Source:
        Quality scaling as in libjpeg; the cubic is that of Shin and Song 2017, "JPEG-resistant adversarial images".
        Not modelled: the coder's integer arithmetic for colour and cosine transform, worth about one grey level.
    """

    name = "jpeg"
    linear = False

    def __init__(self, quality: float, learnable: bool = True, subsample: bool = True, rounding: Rounding = "straight"):
        super().__init__()
        if not 1 <= quality <= 100:
            raise SettingError(f"quality must lie between 1 and 100, not {quality:g}.")
        if rounding not in get_args(Rounding):
            raise SettingError(f"rounding must be straight or soft, not {rounding!r}.")
        self.quality = Unknown("quality", min(quality, 99.9), "share", limit=100.0, learnable=learnable)
        self.subsample: bool = subsample
        self.rounding = rounding
        self.register_buffer("tables", torch.tensor([LUMA, CHROMA], dtype=torch.float32), persistent=False)
        self.register_buffer("to_ycbcr", torch.tensor(TO_YCBCR, dtype=torch.float64).float(), persistent=False)
        self.register_buffer("to_rgb", torch.tensor(TO_YCBCR, dtype=torch.float64).inverse().float(), persistent=False)
        frequency = torch.arange(8, dtype=torch.float64)[:, None]
        cosines = (math.pi * frequency * (2 * torch.arange(8, dtype=torch.float64) + 1) / 16).cos() / 2
        cosines[0] /= math.sqrt(2)
        self.register_buffer("dct", cosines.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        colour = x.shape[1] == 3
        block = 16 if colour and self.subsample else 8
        whole = F.pad(x, (0, -width % block, 0, -height % block), mode="replicate")
        luma, chroma = self.quantisation()
        if not colour:
            y = self._code(255 * whole - 128, luma)
        else:
            planes = torch.einsum("ij,bjhw->bihw", self.get_buffer("to_ycbcr"), 255 * whole)
            brightness, differences = self._code(planes[:, :1] - 128, luma), planes[:, 1:]
            if self.subsample:
                small = self._code(F.avg_pool2d(differences, 2), chroma)
                differences = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
            else:
                differences = self._code(differences, chroma)
            planes = torch.cat([brightness + 128, differences], 1)
            y = torch.einsum("ij,bjhw->bihw", self.get_buffer("to_rgb"), planes) - 128
        return ((y + 128) / 255).clamp(0, 1)[..., :height, :width]

    def nearest(self) -> Tensor:
        """The nearest whole quality, (1 or B,): coders know no others."""
        return self.quality().detach().round().clamp(1, 100)

    def quantisation(self) -> tuple[Tensor, Tensor]:
        """The tables for brightness and colour, each (1 or B, 1, 8, 8)."""
        quality = self.quality().view(-1, 1, 1, 1)
        scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
        tables = self.get_buffer("tables")
        if self.rounding == "straight":
            scale = _straight(scale, (scale + 1e-3).floor())
            scaled = tables * scale / 100
            scaled = _straight(scaled, (scaled + 0.5 + 1e-4).floor())
        else:
            scaled = tables * scale / 100
        scaled = scaled.clamp(1, 255)
        return scaled[:, :1], scaled[:, 1:]

    def _code(self, planes: Tensor, table: Tensor) -> Tensor:
        """Planes (B, C, H, W), cut into blocks, transformed, quantised and back."""
        n, channels, height, width = planes.shape
        blocks = planes.view(n, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
        dct, table = self.get_buffer("dct"), table[:, :, None, None]
        levels = dct @ blocks @ dct.T / table
        rounded = levels.round()
        levels = _straight(levels, rounded) if self.rounding == "straight" else rounded + (levels - rounded.detach()) ** 3
        return (dct.T @ (levels * table) @ dct).transpose(3, 4).reshape(n, channels, height, width)

    def degrade(self, x: Tensor, draw: Draw) -> Tensor:
        """Through a real coder (Pillow), at the nearest whole quality."""
        if max(x.shape[-2:]) > MAX_SIDE:
            raise OperatorError(f"JPEG holds pictures of at most {MAX_SIDE} px a side, not {x.shape[-1]} x {x.shape[-2]} px.")
        quality = self.nearest().expand(len(x)).tolist()
        return torch.stack([_pillow(one, int(q), self.subsample) for one, q in zip(x, quality, strict=True)]).to(x)

    def estimates(self) -> dict[str, Any]:
        return {"quality": numbers(self.nearest()), "subsample": self.subsample}

    def describe(self) -> str:
        return f"JPEG of quality {say(self.nearest())}, colour {'halved' if self.subsample else 'in full'}"


def estimate_quality(y: Pictures) -> PerPicture:
    """The quality at which pictures were coded, 1 to 100, from the pictures alone, (B,).

    The brightness of a decoded picture, cut into the coder's blocks and transformed, lies near multiples of the table's entries. Each
    quality is scored by the likelihood that ``c`` is such a multiple plus the error of 8-bit pixels, against a smooth density:
    ``sum log(0.95 T N(c - T round(c / T); 0.5) + 0.05)`` over the coefficients that are not zero. Pictures that never were JPEGs come out
    above 90; below quality 8 too few coefficients are left for small pictures, and the same may happen.

    Args:
        y: Decoded JPEGs, not resized or shifted since, (B, C, H, W); the blocks begin at the top left corner.

    Raises:
        OperatorError: The pictures are smaller than a block.

    Source:
        The idea is that of Fan and de Queiroz 2003, "Identification of bitmap compression history"; the mixture is decided here.
    """
    height, width = y.shape[-2] // 8 * 8, y.shape[-1] // 8 * 8
    if not height or not width:
        raise OperatorError(f"Blocks are 8 x 8 px; a {y.shape[-1]} x {y.shape[-2]} px picture has none.")
    luma = y[..., :height, :width].detach().double()
    luma = (luma * luma.new_tensor(TO_YCBCR[0]).view(1, 3, 1, 1)).sum(1) if y.shape[1] == 3 else luma[:, 0]
    dct = JPEG(50).get_buffer("dct").to(luma)
    blocks = (255 * luma - 128).view(len(y), height // 8, 8, width // 8, 8).transpose(2, 3)
    c = dct @ blocks @ dct.T
    noise = 0.5
    scores = []
    for quality in range(1, 101):
        table = JPEG(quality).quantisation()[0][0, 0].detach().to(luma)
        rest = (c - table * (c / table).round()) / noise
        density = table / (noise * math.sqrt(2 * math.pi)) * (-rest.square() / 2).exp()
        scores.append(((0.95 * density + 0.05).log() * (c.abs() > 4 * noise)).flatten(1).sum(1))
    return (1 + torch.stack(scores).argmax(0)).to(y.dtype)


def _straight(value: Tensor, rounded: Tensor) -> Tensor:
    """``rounded``, with the derivative of ``value``."""
    return value + (rounded - value).detach()


def _pillow(x: Tensor, quality: int, subsample: bool) -> Tensor:
    """One picture (C, H, W) through Pillow's JPEG coder and decoder."""
    pixels = (255 * x.clamp(0, 1)).round().byte().permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).save(
        file, "JPEG", quality=quality, subsampling=2 if subsample else 0
    )
    decoded = torch.from_numpy(np.array(Image.open(file))).float() / 255
    return decoded.permute(2, 0, 1) if decoded.ndim == 3 else decoded[None]
