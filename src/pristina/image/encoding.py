"""Writing pictures: from levels and metadata to the content of a file."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, TiffTags

from pristina.errors import PictureError, SettingError
from pristina.image.metadata import Metadata, descriptive_tags

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".avif": "AVIF",
}
WITH_ALPHA = {"PNG", "WEBP", "TIFF", "AVIF"}
WITH_DEPTH = {"PNG", "TIFF"}
WITH_QUALITY = {"JPEG", "WEBP", "AVIF"}
LARGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "AVIF": 16384}
QUALITY = 95
"""Quality of JPEG, WebP and AVIF files where none is asked for."""

LOW_QUALITY = 90
"""JPEG quality below which the tables of the input are not used: they would undo the repair."""

_JPEG_SEGMENT = 65533
_SCREENS = ((72.0, 72.0), (96.0, 96.0))

Levels = NDArray[np.uint8] | NDArray[np.uint16]


def check_format(path: Path, *, alpha: bool = False, size: tuple[int, int] | None = None) -> str:
    """Check that the suffix of ``path`` names a format of pictures that can hold the picture.

    Args:
        path: Path of the file to be written.
        alpha: Whether the picture has opacity (default no).
        size: Height and width of the picture in pixels, if known.

    Returns:
        Name of the format, such as ``PNG``.

    Raises:
        PictureError: The format is not known, or cannot hold the picture.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise PictureError(
            f"{path} should end in one of {', '.join(FORMATS)}: the format follows from the suffix."
        )
    if alpha and kind not in WITH_ALPHA:
        raise PictureError(
            f"The picture is partly transparent, which {kind} cannot hold; "
            f"write {path.with_suffix('.png').name} instead."
        )
    if size is not None and max(size) > LARGEST_SIDE.get(kind, 2**31):
        raise PictureError(
            f"{kind} cannot hold this picture of {size[1]} x {size[0]} px "
            f"(more than {LARGEST_SIDE[kind]} px a side); "
            f"write {path.with_suffix('.png').name} instead."
        )
    return kind


def check_quality(quality: int | None) -> None:
    """Raise :class:`SettingError` if ``quality`` is neither None nor between 1 and 100."""
    if quality is not None and not 1 <= quality <= 100:
        raise SettingError(f"quality must lie between 1 and 100, not at {quality}.")


def lost_metadata(
    kind: str, metadata: Metadata, *, deep: bool, quality: int | None = None
) -> tuple[str, ...]:
    """Return sentences about what a file of format ``kind`` will not hold.

    Args:
        kind: Name of the format.
        metadata: Metadata of the picture.
        deep: Whether the picture has 16 bits a channel.
        quality: Quality that is asked for, if any.
    """
    notes = []
    tables = metadata.jpeg_tables
    if kind == "JPEG" and quality is None and tables and tables.quality < LOW_QUALITY:
        notes.append(
            f"The JPEG file is written with quality {QUALITY}: that of the input, "
            f"{tables.quality}, would damage the picture again."
        )
    if deep and kind not in WITH_DEPTH:
        notes.append(f"{kind} holds 8 bits a channel: the picture's 16 bits are rounded.")
    names = {
        "exif": "EXIF data",
        "xmp": "XMP data",
        "profile": "colour profile",
        "dpi": "resolution",
        "comment": "comment",
        "texts": "text entries",
        "iptc": "IPTC data",
    }
    kept = _fitting(kind, metadata)
    lost = [name for key, name in names.items() if getattr(metadata, key) != getattr(kept, key)]
    if "resolution" in lost and metadata.dpi in _SCREENS:
        lost.remove("resolution")
    if lost:
        colours = " The colours are written as sRGB." if "colour profile" in lost else ""
        notes.append(f"{kind} cannot hold the file's {_listed(lost)}: dropped.{colours}")
    return tuple(notes)


def writes_profile(kind: str) -> bool:
    """Return whether a format can hold a colour profile."""
    return kind != "BMP"


def encode(image: Image.Image, path: Path) -> bytes:
    """Return the content of a file that holds an 8-bit Pillow image, without metadata.

    Args:
        image: Image of mode L, LA, RGB or RGBA.
        path: Path of the file to be written; the format follows from its suffix.

    Raises:
        PictureError: The format is not known, or cannot hold the picture.
    """
    levels = np.asarray(image)
    levels = levels[..., None] if levels.ndim == 2 else levels
    check_format(path, alpha=levels.shape[-1] in (2, 4), size=levels.shape[:2])
    return encode_levels(levels, path, Metadata(), None)


def encode_levels(levels: Levels, path: Path, metadata: Metadata, quality: int | None) -> bytes:
    """Return the content of a file that holds ``levels``.

    Args:
        levels: Grey or RGB, with opacity as the last channel if there is any, (H, W, C), of 8 bits,
            or of 16 bits for PNG and TIFF.
        path: Path of the file to be written; the format follows from its suffix.
        metadata: Metadata of the picture; what the format cannot hold is dropped.
        quality: Quality of JPEG, WebP and AVIF files, 1 to 100; None takes the metadata's
            quantisation tables for a JPEG file, else :data:`QUALITY`.

    Raises:
        PictureError: The format cannot hold the picture.
        SettingError: The quality is not one.
    """
    check_quality(quality)
    kind = FORMATS[path.suffix.lower()]
    metadata = _fitting(kind, metadata)
    height, width = levels.shape[:2]
    deep = levels.dtype == np.uint16
    try:
        if kind == "TIFF":
            return _tiff(levels, metadata)
        if deep and levels.shape[-1] > 1:
            return _png_of_16_bits(levels, metadata)
        image = Image.fromarray(levels.squeeze(-1) if levels.shape[-1] == 1 else levels)
        file = io.BytesIO()
        image.save(file, kind, **_options(kind, metadata, quality, levels.shape[-1]))
        return file.getvalue()
    except (OSError, ValueError, RuntimeError, struct.error) as error:
        raise PictureError(
            f"{kind} cannot hold this picture of {width} x {height} px ({error}); "
            f"write {path.with_suffix('.png').name} instead."
        ) from error


def _fitting(kind: str, metadata: Metadata) -> Metadata:
    """Return what of the metadata a file of format ``kind`` can hold."""
    kept: dict[str, Any] = dict(vars(metadata))
    exif, xmp, comment = metadata.exif, metadata.xmp, metadata.comment
    if kind == "BMP":
        kept |= {"exif": None, "xmp": None, "profile": None}
    if kind == "JPEG":
        if exif and len(exif) + 6 > _JPEG_SEGMENT:
            kept["exif"] = None
        if xmp and len(xmp) + 29 > _JPEG_SEGMENT:
            kept["xmp"] = None
        if comment and len(comment.encode()) > _JPEG_SEGMENT:
            kept["comment"] = None
    if kind in ("TIFF", "AVIF") and exif and not descriptive_tags(exif):
        kept["exif"] = None
    if kind not in ("JPEG", "PNG"):
        kept["comment"] = None
    if kind != "PNG":
        kept["texts"] = ()
    if kind != "JPEG":
        kept["iptc"] = None
    if kind in ("WEBP", "AVIF"):
        kept["dpi"] = None
    return Metadata(**kept)


def _options(kind: str, metadata: Metadata, quality: int | None, channels: int) -> dict[str, Any]:
    """Return Pillow's options for writing a file."""
    options: dict[str, Any] = {}
    if metadata.exif:
        options["exif"] = b"Exif\0\0" + metadata.exif
    if metadata.profile:
        options["icc_profile"] = metadata.profile
    if metadata.dpi:
        options["dpi"] = metadata.dpi
    if metadata.xmp and kind != "PNG":
        options["xmp"] = metadata.xmp
    if kind in ("WEBP", "AVIF"):
        options["quality"] = quality or QUALITY
    if kind == "PNG":
        options["pnginfo"] = _png_texts(metadata)
    if kind == "JPEG":
        tables = metadata.jpeg_tables
        if quality is None and tables is not None and tables.quality >= LOW_QUALITY:
            used = [tables.luma] if channels == 1 else [tables.luma, tables.chroma]
            options |= {"qtables": [list(table) for table in used], "optimize": True}
            options |= {"subsampling": tables.subsampling, "progressive": tables.progressive}
        else:
            options |= {"quality": quality or QUALITY, "subsampling": 0}
        if metadata.comment:
            options["comment"] = metadata.comment.encode()
        if metadata.iptc:
            length = struct.pack(">H", len(metadata.iptc) + 2)
            options["extra"] = b"\xff\xed" + length + metadata.iptc
    return options


def _png_texts(metadata: Metadata) -> PngImagePlugin.PngInfo:
    texts = PngImagePlugin.PngInfo()
    entries = metadata.texts
    if metadata.comment:
        entries = (*entries, ("Comment", metadata.comment))
    for key, text in entries:
        texts.add_itxt(key, text)
    if metadata.xmp:
        texts.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode("utf-8", "replace"))
    return texts


def _png_of_16_bits(levels: Levels, metadata: Metadata) -> bytes:
    """Encode a PNG file of 16 bits a channel, which Pillow writes for grey only.

    The chunks of metadata are those that Pillow writes for a picture of one pixel.

    Source:
        PNG specification, third edition, sections 9 (filters) and 11.2 (chunks).
    """
    height, width, channels = levels.shape
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG", **_options("PNG", metadata, None, channels))
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">LLBBBBB", width, height, 16, colour_type, 0, 0, 0)
    new = {b"IHDR": header, b"IDAT": zlib.compress(_filtered(levels), 6)}
    content, at = file.getvalue(), 8
    parts = [content[:at]]
    while at < len(content):
        (length,) = struct.unpack_from(">L", content, at)
        name, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        body = new.get(name, body)
        checksum = zlib.crc32(name + body)
        parts += [struct.pack(">L", len(body)), name, body, struct.pack(">L", checksum)]
        at += 12 + length
    return b"".join(parts)


def _filtered(levels: Levels) -> bytes:
    """Filter the rows of a PNG file by the difference from the row above."""
    rows = np.ascontiguousarray(levels, dtype=">u2").view(np.uint8).reshape(len(levels), -1)
    filtered = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return filtered.tobytes()


def _tiff(levels: Levels, metadata: Metadata) -> bytes:
    """Encode an uncompressed TIFF file of 8 or 16 bits a channel.

    Pillow writes 16 bits for grey only. Its directory writer is used for the tags.

    Source:
        TIFF 6.0, part 1.
    """
    height, width, channels = levels.shape
    colour = 3 if channels > 2 else 1
    samples = np.ascontiguousarray(levels, dtype=levels.dtype.newbyteorder("<")).tobytes()
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    for tag, value in descriptive_tags(metadata.exif).items():
        tags[tag] = value
    tags[TiffImagePlugin.IMAGEWIDTH] = width
    tags[TiffImagePlugin.IMAGELENGTH] = height
    tags[TiffImagePlugin.BITSPERSAMPLE] = (8 * levels.itemsize,) * channels
    tags[TiffImagePlugin.COMPRESSION] = 1
    tags[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 2 if colour == 3 else 1
    # The directory writer adds the place at which the directory ends.
    tags.tagtype[TiffImagePlugin.STRIPOFFSETS] = TiffTags.LONG
    tags[TiffImagePlugin.STRIPOFFSETS] = 0
    tags[TiffImagePlugin.SAMPLESPERPIXEL] = channels
    tags[TiffImagePlugin.ROWSPERSTRIP] = height
    tags[TiffImagePlugin.STRIPBYTECOUNTS] = len(samples)
    if channels > colour:
        tags[TiffImagePlugin.EXTRASAMPLES] = 2
    if metadata.dpi:
        tags[TiffImagePlugin.X_RESOLUTION], tags[TiffImagePlugin.Y_RESOLUTION] = metadata.dpi
        tags[TiffImagePlugin.RESOLUTION_UNIT] = 2
    if metadata.profile:
        tags.tagtype[TiffImagePlugin.ICCPROFILE] = TiffTags.UNDEFINED
        tags[TiffImagePlugin.ICCPROFILE] = metadata.profile
    if metadata.xmp:
        tags.tagtype[ExifTags.Base.XMLPacket] = TiffTags.BYTE
        tags[ExifTags.Base.XMLPacket] = metadata.xmp
    content = b"II*\0" + struct.pack("<L", 8) + tags.tobytes(8)
    if len(content) + len(samples) >= 2**32:
        raise ValueError("more than 4 GiB")
    return content + samples


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
