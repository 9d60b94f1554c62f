"""Metadata that a picture's file holds beside its pixels, and that goes into the restored file."""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image, JpegImagePlugin

ORIENTATION = 0x0112
SUB_BLOCKS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
DESCRIPTIVE_TAGS = frozenset(
    {
        ExifTags.Base.DocumentName,
        ExifTags.Base.ImageDescription,
        ExifTags.Base.Make,
        ExifTags.Base.Model,
        ExifTags.Base.PageName,
        ExifTags.Base.Software,
        ExifTags.Base.DateTime,
        ExifTags.Base.Artist,
        ExifTags.Base.HostComputer,
        ExifTags.Base.Copyright,
        ExifTags.Base.Rating,
        ExifTags.Base.XPTitle,
        ExifTags.Base.XPComment,
        ExifTags.Base.XPAuthor,
        ExifTags.Base.XPKeywords,
        ExifTags.Base.XPSubject,
        *SUB_BLOCKS,
    }
)
"""TIFF tags that describe the picture; the others describe how its pixels lay in the file."""

_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation\s*=\s*[\"']\s*|<tiff:Orientation>\s*)([0-9])")

# ITU T.81, annex K.1: the standard table for brightness.
_LUMA_TABLE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip


@dataclass(frozen=True)
class JpegTables:
    """Quantisation of a JPEG file.

    Attributes:
        luma: Quantisation table for brightness, 64 numbers.
        chroma: Quantisation table for colour; that for brightness in grey files.
        subsampling: Pillow's number of the chroma subsampling: 0 is 4:4:4, 1 4:2:2, 2 4:2:0.
        progressive: Whether the file is progressive.
    """

    luma: tuple[int, ...]
    chroma: tuple[int, ...]
    subsampling: int
    progressive: bool

    @property
    def quality(self) -> int:
        """Quality on the scale of the Independent JPEG Group, 1 to 100.

        It follows from the ratio of the table for brightness to the standard one, over those
        entries that are not cut off at 255.
        """
        pairs = zip(sorted(self.luma), sorted(_LUMA_TABLE), strict=False)
        valid = [(found, standard) for found, standard in pairs if found < 255]
        if not valid:
            return 1
        scale = 100 * sum(found for found, _ in valid) / sum(standard for _, standard in valid)
        quality = (200 - scale) / 2 if scale <= 100 else 5000 / scale
        return round(min(100.0, max(1.0, quality)))


@dataclass(frozen=True)
class Metadata:
    """Everything in a picture's file that is not pixels.

    Attributes:
        exif: EXIF block as it came, without its orientation and thumbnail.
        xmp: XMP packet with the orientation reset.
        profile: ICC profile to which the pixels are converted back on writing.
        dpi: Horizontal and vertical resolution in dots per inch.
        comment: Comment of a JPEG, GIF or PNG file.
        texts: Other text entries of a PNG file, keyword and text.
        iptc: IPTC block of a JPEG file (segment APP13).
        jpeg_tables: Quantisation of the JPEG file that held the picture.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    profile: bytes | None = None
    dpi: tuple[float, float] | None = None
    comment: str | None = None
    texts: tuple[tuple[str, str], ...] = ()
    iptc: bytes | None = None
    jpeg_tables: JpegTables | None = None


def read_metadata(image: Image.Image, data: bytes) -> tuple[Metadata, int, list[str]]:
    """Collect the metadata of an open Pillow image, without its colour profile.

    Args:
        image: Image as Pillow opened it.
        data: Content of its file; empty if there is none.

    Returns:
        The metadata, the orientation (1 to 8), and notes about what could not be kept.
    """
    notes: list[str] = []
    try:
        if image.format == "TIFF":
            exif, orientation = _exif_of_tiff(data, notes), None
        else:
            exif, orientation = split_exif(_exif_block(image))
    except Exception as error:  # Pillow's parser raises whatever damage makes it trip over.
        exif, orientation = None, None
        notes.append(f"The file's EXIF block cannot be read and was dropped ({error}).")
    xmp = _packet(image.info.get("xmp"))
    if orientation is None:
        orientation = _orientation(image, xmp)
    entries = _text_entries(image)
    comment = entries.pop("Comment", None) or _decoded(image.info.get("comment"))
    metadata = Metadata(
        exif=exif,
        xmp=xmp and _XMP_ORIENTATION.sub(rb"\g<1>1", xmp),
        dpi=_resolution(image),
        comment=comment or None,
        texts=tuple(entries.items()),
        iptc=_iptc(image),
        jpeg_tables=_jpeg_tables(image),
    )
    return metadata, orientation, notes


def split_exif(block: bytes) -> tuple[bytes | None, int | None]:
    """Take the orientation and the thumbnail out of an EXIF block; all other bytes stay.

    Args:
        block: EXIF data with or without the header ``Exif``; empty if there is none.

    Returns:
        The block (None if it is empty), and the orientation, 1 to 8 (None if it says none).

    Raises:
        ValueError: The first directory of the block cannot be read.
    """
    content = bytearray(block.removeprefix(b"Exif\0\0"))
    if not content:
        return None, None
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(content[:4]))
    if order is None:
        raise ValueError("it does not begin as a TIFF directory")
    (start,) = struct.unpack_from(f"{order}L", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, start)
    end = start + 2 + 12 * count
    if end + 4 > len(content):
        raise ValueError("its directory is cut off")
    entries = [bytes(content[at : at + 12]) for at in range(start + 2, end, 12)]
    kept, orientation = [], None
    for entry in entries:
        tag, kind, n = struct.unpack_from(f"{order}HHL", entry)
        if tag != ORIENTATION:
            kept.append(entry)
        elif kind in (3, 4) and n == 1:
            (value,) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'L'}", entry, 8)
            orientation = value if 1 <= value <= 8 else orientation
    # The link to the next directory, that of the thumbnail, becomes 0.
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept)
    content[start : end + 4] = directory.ljust(end + 4 - start, b"\0")
    return (bytes(content) if kept else None), orientation


def descriptive_tags(block: bytes | None) -> dict[int, Any]:
    """Return the tags of an EXIF block that may stand in the directory of any TIFF file."""
    if block is None:
        return {}
    exif = Image.Exif()
    try:
        exif.load(block)
    except Exception:  # As in read_metadata.
        return {}
    return _descriptions(exif)[0]


def _descriptions(exif: Image.Exif) -> tuple[dict[int, Any], list[int]]:
    """Return the descriptive tags with what they refer to, and those that cannot be kept."""
    kept, lost = {}, []
    for tag in sorted(DESCRIPTIVE_TAGS.intersection(exif)):
        try:
            value: Any = exif.get_ifd(tag) if tag in SUB_BLOCKS else exif[tag]
            single = Image.Exif()
            single[tag] = value
            single.tobytes()
        except Exception:  # As in read_metadata.
            lost.append(int(tag))
            continue
        if value or value == 0:
            kept[int(tag)] = value
    return kept, lost


def _exif_of_tiff(data: bytes, notes: list[str]) -> bytes | None:
    """Build an EXIF block of the descriptive tags of a TIFF file."""
    # Opened anew, for Pillow drops the directory when it decodes the pixels.
    found = Image.open(io.BytesIO(data), formats=["TIFF"]).getexif()
    kept, lost = _descriptions(found)
    if lost:
        names = ", ".join(ExifTags.TAGS.get(tag, str(tag)) for tag in lost)
        notes.append(f"Tags of the file cannot be read and were dropped: {names}.")
    if not kept:
        return None
    exif = Image.Exif()
    for tag, value in kept.items():
        exif[tag] = value
    return exif.tobytes().removeprefix(b"Exif\0\0")


def _exif_block(image: Image.Image) -> bytes:
    """Return the EXIF block of an open image as it is in the file; empty if there is none."""
    block = image.info.get("exif")
    if isinstance(block, bytes):
        return block
    text = image.info.get("Raw profile type exif")
    return b"" if text is None else bytes.fromhex("".join(str(text).split("\n")[3:]))


def _orientation(image: Image.Image, xmp: bytes | None) -> int:
    """Return the orientation that XMP gives, or what Pillow finds in damaged EXIF, or 1."""
    found = _XMP_ORIENTATION.search(xmp or b"")
    try:
        value = int(found[2]) if found else image.getexif().get(ORIENTATION, 1)
    except Exception:  # As in read_metadata.
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _packet(packet: object) -> bytes | None:
    packet = packet.encode() if isinstance(packet, str) else packet
    return packet if isinstance(packet, bytes) and packet else None


def _text_entries(image: Image.Image) -> dict[str, str]:
    if image.format != "PNG":
        return {}
    raw = ("XML:com.adobe.xmp", "Raw profile type")
    texts = getattr(image, "text", {}).items()
    return {key: str(text) for key, text in texts if not key.startswith(raw)}


def _decoded(comment: object) -> str:
    if not isinstance(comment, bytes):
        return comment if isinstance(comment, str) else ""
    try:
        return comment.decode()
    except UnicodeDecodeError:
        return comment.decode("latin-1")


def _resolution(image: Image.Image) -> tuple[float, float] | None:
    """Return the resolution in dots per inch if the file gives a sensible one."""
    try:
        across, down = map(float, image.info["dpi"])
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    return (across, down) if 1 <= across <= 1e5 and 1 <= down <= 1e5 else None


def _iptc(image: Image.Image) -> bytes | None:
    segments = [data for name, data in getattr(image, "applist", []) if name == "APP13"]
    return bytes(segments[0]) if len(segments) == 1 and len(segments[0]) <= 65533 else None


def _jpeg_tables(image: Image.Image) -> JpegTables | None:
    """Return the quantisation of a JPEG file; None for other files and for CMYK."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.layers not in (1, 3):
        return None
    tables = [image.quantization.get(layer[3], ()) for layer in image.layer]
    if any(len(table) != 64 for table in tables):
        return None
    sampling = JpegImagePlugin.get_sampling(image)
    return JpegTables(
        tuple(tables[0]),
        tuple(tables[-1]),
        max(0, sampling),
        bool(image.info.get("progressive")),
    )
