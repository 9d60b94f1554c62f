"""Samples of an open file as numbers in [0, 1], by one stated rule for each kind of sample.

* Whole numbers without a sign: 0 is black and the largest number of the stored depth white: 1, 3,
  15, 255, 4095, 65535, 4294967295. The depth stands in the header; it is never guessed.
* Whole numbers with a sign: 0 is black and the largest number white; negative ones are refused.
* Whole numbers of 32 bits that all lie below 1/256 of white are refused: they are another scale's.
* Floating-point numbers: 0 is black and 1 white; other scales are refused (:func:`check_range`).
  NaN and infinity are refused.
* White-is-zero TIFF files: the same, then inverted, at any depth.
* A value that stands for transparent (tRNS): opacity 0 where the samples have it, else 1; the
  samples themselves stay.
* Palettes become RGB; premultiplied colours are divided by their opacity.
"""

from __future__ import annotations

import io
import struct
import sys
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import PictureError
from pristina.image.metadata import ORIENTATION
from pristina.image.profiles import Space

NOISE_MARGIN = 0.25
"""Largest distance of averages over 8 x 8 px from [0, 1]: noise averages out, scales do not."""


@dataclass
class Samples:
    """Samples of one picture.

    Attributes:
        colour: 8-bit, 16-bit or float samples, (H, W, C), in the file's colour space; None where
            ``image`` takes its place.
        white: Value of ``colour`` that is white.
        alpha: Opacity in [0, 1], float32 (H, W); None if the file has none.
        space: Colour space of the samples.
        depth: Bits with which the picture is written again: 8 or 16.
        image: 8-bit Pillow image in a space other than RGB and grey.
        notes: Sentences about what was lost.
    """

    colour: NDArray[np.generic]
    white: float
    alpha: NDArray[np.float32] | None
    space: Space
    depth: int
    image: Image.Image | None = None
    notes: tuple[str, ...] = ()

    def planes(self) -> Tensor:
        """Return the colour samples in [0, 1], (C, H, W)."""
        if self.colour.dtype == np.uint8:
            levels = torch.from_numpy(np.array(self.colour)).permute(2, 0, 1)
            return levels.contiguous().float().div_(self.white)
        planes = np.ascontiguousarray(self.colour.transpose(2, 0, 1), dtype=np.float32)
        return torch.from_numpy(planes).div_(self.white)


@dataclass(frozen=True)
class Layout:
    """How samples lie in a file, from its header.

    Attributes:
        bits: Bits of a sample.
        inverted: Whether 0 is white and the decoder does not know it.
        orientation: Orientation of a TIFF file that the decoder does not know, 1 to 8.
        data: Content of the file for the decoder.
    """

    bits: int = 8
    inverted: bool = False
    orientation: int | None = None
    data: bytes = b""


def layout_of(data: bytes) -> Layout:
    """Read the layout of samples from the header of a PNG or TIFF file.

    Pillow inverts white-is-zero TIFF files of up to 8 bits, takes others for black-is-zero or does
    not take them at all; it turns TIFF files, but not those whose halves are decoded apart. Here
    they are relabelled as black-is-zero and upright, then inverted and turned afterwards.
    """
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 25:
        return Layout(bits=data[24], data=data)
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or data[2:4] not in (b"*\0", b"\0*", b"+\0", b"\0+"):
        return Layout(data=data)
    try:
        tags = _tiff_tags(data, order, big=b"+" in data[2:4])
    except struct.error:
        return Layout(data=data)
    bits, _ = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1, 0))
    photometric, at = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, (1, 0))
    inverted = photometric == 0 and bits > 8
    orientation, turned_at = tags.get(ORIENTATION, (None, 0))
    content = bytearray(data)
    if inverted:
        struct.pack_into(f"{order}H", content, at, 1)
    if orientation is not None:
        struct.pack_into(f"{order}H", content, turned_at, 1)
        orientation = orientation if 1 <= orientation <= 8 else None
    return Layout(bits, inverted, orientation, bytes(content))


def read_samples(image: Image.Image, layout: Layout) -> Samples:
    """Decode an open Pillow image.

    Raises:
        PictureError: The samples cannot be brought to [0, 1] by the rules above.
        OSError: The file is damaged; Pillow raises other exceptions too.
    """
    mode, marked = image.mode, image.info.get("transparency")
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    rawmode = _rawmode(tiles[0]) if tiles else ""
    if layout.bits == 16 and mode in ("RGB", "RGBA", "RGBX"):
        deep = _deep_colour(image, layout.data)
        if deep is not None:
            return deep
        if rawmode in ("R", "G", "B", "A", "X", "a"):
            raise PictureError(
                "it has 16 bits a channel in separate planes, which are not read; "
                "save it with interleaved channels"
            )
    load(image)
    notes = () if layout.bits <= 8 or mode not in ("RGB", "RGBA", "CMYK") else (_CUT_NOTE,)
    if mode in ("I", "F") or mode.startswith("I;16"):
        return _scientific(image, rawmode, layout.inverted, marked)
    if mode in ("1", "L"):
        levels = np.asarray(image).astype(np.uint8) * (255 if mode == "1" else 1)
        # Pillow scales the samples of 2 and 4 bits to 8, but not the value that is transparent.
        scale = {2: 85, 4: 17}.get(layout.bits, 1) if image.format == "PNG" else 1
        alpha = None if marked is None else _opaque_but(levels[..., None], marked, scale)
        return Samples(levels[..., None], 255, alpha, "GRAY", 8)
    if mode in ("LA", "La"):
        levels = np.asarray(image.convert("LA"))
        return Samples(levels[..., :1], 255, _opacity(levels[..., 1]), "GRAY", 8)
    if mode in ("CMYK", "LAB"):
        blank = np.zeros((1, 1, 3), np.uint8)
        space: Space = "CMYK" if mode == "CMYK" else "LAB"
        return Samples(blank, 255, None, space, 8, image, notes)
    if mode == "RGB" and marked is not None:
        levels = np.asarray(image)
        return Samples(levels, 255, _opaque_but(levels, marked), "RGB", 8, notes=notes)
    if mode in ("RGBA", "RGBa", "PA") or (mode == "P" and marked is not None):
        levels = np.asarray(image.convert("RGBA"))
        return Samples(levels[..., :3], 255, _opacity(levels[..., 3]), "RGB", 8, notes=notes)
    return Samples(np.asarray(image.convert("RGB")), 255, None, "RGB", 8, notes=notes)


def load(image: Image.Image) -> None:
    """Decode an open Pillow image, without what Pillow does with the EXIF tags of TIFF files."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        image.load_end = lambda: None  # type: ignore[method-assign]
    image.load()


def check_range(x: Tensor, what: str) -> None:
    """Check that an image is on the scale from 0 (black) to 1 (white).

    Noise carries single values beyond the range, but averages over 8 x 8 px by no more than
    :data:`NOISE_MARGIN` (at a deviation of 0.5 they have one of 0.06). Images in 0..255 or in -1..1
    have averages outside it wherever they are bright or dark.

    Args:
        x: Image, float (C, H, W).
        what: Beginning of the sentence, such as "Pixels".

    Raises:
        PictureError: It holds NaN or infinity, or is on another scale.
    """
    if not bool(x.isfinite().all()):
        count = int((~x.isfinite()).sum())
        raise PictureError(
            f"{what} must be finite numbers in [0, 1], and {count} of them are NaN or infinite; "
            "fill them first."
        )
    means = F.avg_pool2d(x[None].float(), [min(8, n) for n in x.shape[-2:]])
    if float(means.min()) < -NOISE_MARGIN or float(means.max()) > 1 + NOISE_MARGIN:
        raise PictureError(
            f"{what} must be in [0, 1] (0 is black, 1 white), and these reach from "
            f"{float(x.min()):.4g} to {float(x.max()):.4g}; scale them first."
        )


_CUT_NOTE = "The file has 16 bits a channel in a form that is read at 8 bits only."


def _tiff_tags(data: bytes, order: str, *, big: bool) -> dict[int, tuple[int, int]]:
    """Return the first value of each short tag of the first TIFF directory, and its place.

    Args:
        data: Content of the file.
        order: Byte order as ``struct`` writes it.
        big: Whether it is a BigTIFF file, which has counts and places of 64 bits.
    """
    place, size = ("Q", 8) if big else ("L", 4)
    (start,) = struct.unpack_from(f"{order}{place}", data, 8 if big else 4)
    counter = f"{order}{'Q' if big else 'H'}"
    (count,) = struct.unpack_from(counter, data, start)
    tags, length = {}, 4 + 2 * size
    first = start + struct.calcsize(counter)
    for at in range(first, first + length * min(count, 1000), length):
        tag, kind, n = struct.unpack_from(f"{order}HH{place}", data, at)
        if kind != 3 or n == 0:
            continue
        value_at = at + 4 + size
        if 2 * n > size:
            (value_at,) = struct.unpack_from(f"{order}{place}", data, value_at)
        tags[tag] = (struct.unpack_from(f"{order}H", data, value_at)[0], value_at)
    return tags


def _opacity(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return levels.astype(np.float32) / np.float32(255)


def _opaque_but(
    levels: NDArray[np.generic], value: object, scale: int = 1
) -> NDArray[np.float32] | None:
    """Return the opacity of samples (H, W, C) of which one value stands for transparent."""
    wanted = np.asarray(value if isinstance(value, (int, tuple)) else (), dtype=np.int64) * scale
    if wanted.size not in (1, levels.shape[-1]):
        return None
    return (levels != wanted).any(-1).astype(np.float32)


def _scientific(image: Image.Image, rawmode: str, inverted: bool, marked: object) -> Samples:
    """Scale grey samples of more than 8 bits, which lay in the file as ``rawmode`` says."""
    levels = np.asarray(image)
    if image.mode == "F":
        return _floats(levels, inverted)
    signed = rawmode.endswith("S")
    if image.mode != "I" or image.format == "PPM":
        white = 4095 if rawmode == "I;12" else 65535
    elif "16" in rawmode:
        white = 32767
    else:
        unsigned = bool(rawmode) and not signed
        white = 2**32 - 1 if unsigned else 2**31 - 1
        levels = levels.view(np.uint32) if unsigned else levels
    if int(levels.min()) < 0:
        raise PictureError(
            f"it holds negative numbers (down to {int(levels.min())}), which are no brightness; "
            "save it with 0 for black"
        )
    top = int(levels.max())
    if white > 65535 and 0 < top < white / 256:
        raise PictureError(
            f"it holds whole numbers of 32 bits, of which {white} is white, but none above {top}: "
            "all would be black; save it with the depth that it uses, such as 16 bits"
        )
    alpha = None if marked is None else _opaque_but(levels[..., None], marked)
    if inverted:
        levels = white - levels
    colour = levels.astype(np.float64 if white > 65535 else np.int32)[..., None]
    return Samples(colour, white, alpha, "GRAY", 16)


def _floats(levels: NDArray[np.float32], inverted: bool) -> Samples:
    levels = levels.astype(np.float32)
    try:
        check_range(torch.from_numpy(levels)[None], "its numbers")
    except PictureError as error:
        raise PictureError(str(error).removesuffix(".")) from None
    notes: tuple[str, ...] = ()
    if levels.min() < 0 or levels.max() > 1:
        notes = (
            f"The file's numbers reach from {levels.min():.4g} to {levels.max():.4g}; "
            "what lies outside [0, 1] was cut off.",
        )
        levels = levels.clip(0, 1)
    levels = 1 - levels if inverted else levels
    return Samples(levels[..., None], 1, None, "GRAY", 16, notes=notes)


def _deep_colour(image: Image.Image, data: bytes) -> Samples | None:
    """Decode colour or grey with opacity of 16 bits a channel; None if its form is not known.

    Pillow keeps 8 of the 16 bits: which ones follows from the byte order that its decoder is told.
    So the file is decoded once for each half.
    """
    if getattr(image, "tag_v2", {}).get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) != 1:
        return None
    high, rawmode = _half(image, data, True)
    low, _ = _half(image, data, False)
    if high is None or low is None:
        return None
    if rawmode == "LA;16B":
        levels = high[..., 0::2].astype(np.uint16) << 8 | high[..., 1::2]
    else:
        levels = high.astype(np.uint16) << 8 | low
    space: Space = "RGB" if levels.shape[-1] > 2 else "GRAY"
    n = 3 if space == "RGB" else 1
    colour, alpha, white = levels[..., :n], None, np.float32(65535)
    marked = image.info.get("transparency")
    if marked is not None:
        alpha = _opaque_but(levels, marked)
    if levels.shape[-1] > n:
        alpha = levels[..., n].astype(np.float32) / white
        if rawmode.startswith("RGBa"):
            divided = colour.astype(np.float32) / np.maximum(alpha, 1e-6)[..., None]
            colour = divided.clip(0, white).round().astype(np.uint16)
    return Samples(colour, 65535, alpha, space, 16)


def _half(image: Image.Image, data: bytes, high: bool) -> tuple[NDArray[np.uint8] | None, str]:
    """Decode the high or the low bytes of 16-bit samples, (H, W, C); return the raw mode too."""
    opened = Image.open(io.BytesIO(data), formats=[image.format or ""])
    tiles, stored = [], _rawmode(opened.tile[0])
    for tile in opened.tile:
        rawmode = _other_rawmode(_rawmode(tile), high)
        if rawmode is None:
            return None, stored
        args = (rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode
        tiles.append(tile._replace(args=args))
    opened.tile = tiles
    load(opened)
    return np.asarray(opened), stored


def _rawmode(tile: object) -> str:
    args = getattr(tile, "args", "")
    return args if isinstance(args, str) else str(args[0])


def _other_rawmode(rawmode: str, high: bool) -> str | None:
    """Return the raw mode that takes the high (or low) byte of each sample."""
    if rawmode == "LA;16B":  # The four bytes of grey and opacity, as they are.
        return "RGBA"
    layout, _, order = rawmode.partition(";16")
    if layout not in ("RGB", "RGBA", "RGBa", "RGBX") or order not in ("B", "L", "N"):
        return None
    order = order if order != "N" else "L" if sys.byteorder == "little" else "B"
    other = {"B": "L", "L": "B"}[order]
    # Without the division by opacity, which Pillow would do with 8 bits.
    return f"{layout.replace('a', 'A')};16{order if high else other}"
