"""JPEG compression, differentiable: the lossy part of the coder with a gradient for rounding."""

from __future__ import annotations

import io
import math
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import OperatorError, SettingError
from pristina.operators.base import Operator
from pristina.operators.unknown import Unknown, in_words, numbers
from pristina.types import Draw, Images, PerImage

__all__ = ["JPEG", "estimate_quality"]

Rounding = Literal["straight", "soft"]

Tables = Float[Tensor, "parameters 1 8 8"]

MAX_SIDE = 65_500
"""Largest side that common coders accept, px."""

# Example quantisation tables of ITU-T T.81, annex K.1, which nearly every coder scales.
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

    Descent does not find the quality: two codings of an image agree only at nearly the same
    tables, and there is no gradient towards them from farther away. Start from
    :func:`estimate_quality`, which reads it from the observation.

    Args:
        quality: First guess, between 1 and 100 on the scale of libjpeg.
        learnable: Whether the quality is unknown.
        subsample: Whether the colour differences are halved in both directions (4:2:0), as by
            nearly every coder.
        rounding: ``straight``: rounding as in the coder, with the derivative of the identity.
            ``soft``: ``round(v) + (v - round(v))^3``, which has a derivative of its own, and
            tables that are not rounded.

    Source:
        Quality scaling as in libjpeg; the cubic is that of Shin and Song 2017, "JPEG-resistant
        adversarial images". Not modelled: the coder's integer arithmetic for colour and cosine
        transform, worth about one grey level.
    """

    name = "jpeg"
    linear = False

    def __init__(
        self,
        quality: float,
        learnable: bool = True,
        subsample: bool = True,
        rounding: Rounding = "straight",
    ):
        super().__init__()
        if not 1 <= quality <= 100:
            raise SettingError(f"quality must lie between 1 and 100, not {quality:g}.")
        if rounding not in get_args(Rounding):
            raise SettingError(f"rounding must be straight or soft, not {rounding!r}.")
        self.quality = Unknown(
            "quality", min(quality, 99.9), "share", limit=100.0, learnable=learnable
        )
        self.subsample: bool = subsample
        self.rounding = rounding
        to_ycbcr = torch.tensor(TO_YCBCR, dtype=torch.float64)
        frequency = torch.arange(8, dtype=torch.float64)[:, None]
        cosines = (math.pi * frequency * (2 * torch.arange(8, dtype=torch.float64) + 1) / 16).cos()
        cosines = cosines / 2
        cosines[0] /= math.sqrt(2)
        tables = torch.tensor([LUMA, CHROMA], dtype=torch.float32)
        self.register_buffer("tables", tables, persistent=False)
        self.register_buffer("to_ycbcr", to_ycbcr.float(), persistent=False)
        self.register_buffer("to_rgb", to_ycbcr.inverse().float(), persistent=False)
        self.register_buffer("dct", cosines.float(), persistent=False)

    def forward(self, x: Images) -> Images:
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
                differences = F.interpolate(
                    small, scale_factor=2, mode="bilinear", align_corners=False
                )
            else:
                differences = self._code(differences, chroma)
            planes = torch.cat([brightness + 128, differences], 1)
            y = torch.einsum("ij,bjhw->bihw", self.get_buffer("to_rgb"), planes) - 128
        return ((y + 128) / 255).clamp(0, 1)[..., :height, :width]

    def nearest(self) -> Float[Tensor, " parameters"]:
        """Return the nearest whole quality, (1 or B,), because coders have no others."""
        return self.quality().detach().round().clamp(1, 100)

    def quantisation(self) -> tuple[Tables, Tables]:
        """Return the tables for brightness and colour, each (1 or B, 1, 8, 8)."""
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

    def _code(self, planes: Images, table: Tables) -> Images:
        """Cut planes into blocks, transform and quantise them, and return."""
        n, channels, height, width = planes.shape
        blocks = planes.view(n, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
        dct, table = self.get_buffer("dct"), table[:, :, None, None]
        levels = dct @ blocks @ dct.T / table
        rounded = levels.round()
        if self.rounding == "straight":
            levels = _straight(levels, rounded)
        else:
            levels = rounded + (levels - rounded.detach()) ** 3
        decoded = dct.T @ (levels * table) @ dct
        return decoded.transpose(3, 4).reshape(n, channels, height, width)

    def degrade(self, x: Images, draw: Draw) -> Images:
        """Compress with a real coder (Pillow) at the nearest whole quality."""
        if max(x.shape[-2:]) > MAX_SIDE:
            raise OperatorError(
                f"JPEG holds images of at most {MAX_SIDE} px a side, "
                f"not {x.shape[-1]} x {x.shape[-2]} px."
            )
        quality = self.nearest().expand(len(x)).tolist()
        coded = [_pillow(one, int(q), self.subsample) for one, q in zip(x, quality, strict=True)]
        return torch.stack(coded).to(x)

    def estimates(self) -> dict[str, Any]:
        return {"quality": numbers(self.nearest()), "subsample": self.subsample}

    def describe(self) -> str:
        colour = "half resolution" if self.subsample else "full resolution"
        return f"JPEG compression of quality {in_words(self.nearest())} with colour at {colour}"


def estimate_quality(y: Images) -> PerImage:
    """Estimate the quality at which images were coded, 1 to 100, from the images alone.

    The brightness of a decoded image, cut into the coder's blocks and transformed, lies near
    multiples of the table's entries. Each quality is scored by the likelihood that ``c`` is such a
    multiple plus the error of 8-bit pixels, against a smooth density:
    ``sum log(0.95 T N(c - T round(c / T); 0.5) + 0.05)`` over the coefficients that are not zero.
    The estimate is above 90 for images that have never been JPEGs, and may be for small images of
    quality below 8, where too few coefficients are left.

    Args:
        y: Decoded JPEGs, not resized or shifted since, (B, C, H, W); the blocks begin at the top
            left corner.

    Returns:
        Quality of each image, (B,).

    Raises:
        OperatorError: The images are smaller than a block.

    Source:
        The idea is that of Fan and de Queiroz 2003, "Identification of bitmap compression
        history"; the mixture is our own.
    """
    height, width = y.shape[-2] // 8 * 8, y.shape[-1] // 8 * 8
    if not height or not width:
        raise OperatorError(
            f"Blocks are 8 x 8 px; a {y.shape[-1]} x {y.shape[-2]} px image has none."
        )
    luma = y[..., :height, :width].detach().double()
    if y.shape[1] == 3:
        luma = (luma * luma.new_tensor(TO_YCBCR[0]).view(1, 3, 1, 1)).sum(1)
    else:
        luma = luma[:, 0]
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
    """Return ``rounded`` with the derivative of ``value``."""
    return value + (rounded - value).detach()


def _pillow(x: Tensor, quality: int, subsample: bool) -> Tensor:
    """Code and decode one image (C, H, W) with Pillow."""
    pixels = (255 * x.clamp(0, 1)).round().byte().permute(1, 2, 0).cpu().numpy()
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling=2 if subsample else 0)
    decoded = torch.from_numpy(np.array(Image.open(file))).float() / 255
    return decoded.permute(2, 0, 1) if decoded.ndim == 3 else decoded[None]
