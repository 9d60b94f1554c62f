"""The one decoder: from the content of a file to pixels in sRGB and their metadata."""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from pristina.errors import PictureError
from pristina.image.encoding import FORMATS
from pristina.image.metadata import Metadata, read_metadata
from pristina.image.profiles import CurveProfile, ProfileError, TableProfile
from pristina.image.samples import Layout, Samples, layout_of, read_samples

READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM")
"""Formats that are read; Pillow's other decoders are never tried on a file."""

_truncated_lock = threading.Lock()


def decode(data: bytes, name: str, *, truncated: bool, max_pixels: int) -> dict[str, Any]:
    """Decode the content of a file into the fields of a picture.

    Args:
        data: Content of the file.
        name: Name of the file, for messages.
        truncated: Whether damaged files are read as far as they go.
        max_pixels: Largest number of pixels that is decoded.

    Raises:
        PictureError: The content is empty, damaged, not a picture, or absurdly large.
    """
    if not data:
        raise PictureError(f"{name} is empty (0 bytes).")
    layout = layout_of(data)
    try:
        fields = _decode_open(_open(layout.data, name, max_pixels), layout)
        damaged = False
    except _Damaged as error:
        if not truncated:
            raise PictureError(f"{name} is damaged or cut off: {error}.") from error
        fields, damaged = _decode_truncated(layout, name, max_pixels), True
    except _Unusable as error:
        raise PictureError(f"{name} cannot be used: {error}.") from error
    notes = []
    kind = FORMATS.get(Path(name).suffix.lower())
    if kind is not None and kind != fields["format"]:
        notes.append(f"{name} holds {fields['format']}, whatever its name says.")
    if damaged:
        notes.append("The file is damaged or cut off and was read as far as it goes.")
    digest = hashlib.sha256(data).hexdigest()
    fields["notes"] = (*notes, *fields["notes"])
    content = data if fields["format"] == "JPEG" and not damaged else None
    return {**fields, "content": content, "sha256": digest, "damaged": damaged}


def decode_image(image: Image.Image) -> dict[str, Any]:
    """Decode a Pillow image into the fields of a picture.

    Raises:
        PictureError: It is damaged or of a mode that cannot be read.
    """
    try:
        image.load()
    except Exception as error:  # As in _open.
        raise PictureError(f"The Pillow image cannot be used: {_reason(error)}.") from error
    try:
        return _decode_open(image.copy(), Layout())
    except (_Damaged, _Unusable) as error:
        raise PictureError(f"The Pillow image cannot be used: {error}.") from error


class _Damaged(Exception):
    """A file that a decoder trips over."""


class _Unusable(Exception):
    """A sound file whose samples have no stated meaning."""


def _open(data: bytes, name: str, max_pixels: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns of sizes, which are checked here, and of odd metadata.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=READABLE)
    except UnidentifiedImageError as error:
        raise PictureError(_why_unidentified(data, name)) from error
    except Image.DecompressionBombError as error:
        raise PictureError(
            f"{name} claims an absurd size; more than {max_pixels // 10**6} million pixels are "
            "not read."
        ) from error
    except Exception as error:  # Pillow's decoders raise whatever damage makes them trip over.
        raise _Damaged(_reason(error)) from error
    width, height = image.size
    if width * height > max_pixels:
        raise PictureError(
            f"{name} claims {width} x {height} px; more than {max_pixels // 10**6} million pixels "
            "are not read."
        )
    return image


def _why_unidentified(data: bytes, name: str) -> str:
    """Say what is wrong with a file that no decoder takes."""
    if data[:4] in (b"II*\0", b"MM\0*"):
        try:
            TiffImagePlugin.TiffImageFile(io.BytesIO(data))
        except Exception as error:  # As in _open.
            return f"{name} is a TIFF file of a form that is not read ({_reason(error)})."
    return f"{name} is not a picture that can be read ({', '.join(READABLE)})."


def _decode_open(image: Image.Image, layout: Layout) -> dict[str, Any]:
    """Decode an open Pillow image into the fields of a picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            notes = _frame_notes(image, layout.data)
            if image.mode in ("P", "PA"):
                notes.append("The file has a palette; the result has full colour.")
            samples = read_samples(image, layout)
            profile = image.info.get("icc_profile")
            metadata, orientation, more = read_metadata(image, layout.data)
            orientation = layout.orientation or orientation
            notes += [*samples.notes, *_gamma_notes(image), *more]
            pixels, beyond, metadata, more = _in_srgb(samples, profile, metadata)
        except PictureError as error:
            raise _Unusable(str(error)) from error
        except Exception as error:  # As in _open.
            raise _Damaged(_reason(error)) from error
    if orientation > 4 and metadata.dpi is not None:
        metadata = replace(metadata, dpi=metadata.dpi[::-1])
    alpha = None if samples.alpha is None else torch.from_numpy(samples.alpha)[None]
    return {
        "pixels": _upright(pixels, orientation).expand(3, -1, -1),
        "alpha": None if alpha is None else _upright(alpha, orientation),
        "grey": samples.space == "GRAY",
        "depth": samples.depth,
        "beyond": None if beyond is None else _upright(beyond, orientation),
        "metadata": metadata,
        "format": "JPEG" if image.format == "MPO" else image.format,
        "notes": (*notes, *more),
    }


def _decode_truncated(layout: Layout, name: str, max_pixels: int) -> dict[str, Any]:
    """Decode a damaged file as far as it goes."""
    try:
        with _reading_truncated():
            return _decode_open(_open(layout.data, name, max_pixels), layout)
    except (_Damaged, _Unusable) as error:
        raise PictureError(f"{name} is damaged, and none of it can be read: {error}.") from error


@contextmanager
def _reading_truncated() -> Iterator[None]:
    """Let Pillow read damaged files; it knows this as a setting of the whole process only."""
    with _truncated_lock:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _frame_notes(image: Image.Image, data: bytes) -> list[str]:
    """Say that a file holds several frames; a damaged second one must not cost the first."""
    if not hasattr(image, "n_frames") or not data:
        return []
    try:
        # In an image of its own, for a failed search ends on another frame.
        Image.open(io.BytesIO(data), formats=[image.format or ""]).seek(1)
    except EOFError:
        return []
    except Exception:  # As in _open.
        return ["The file holds several frames, the second damaged; only the first is used."]
    return ["The file holds several frames; only the first is used."]


def _gamma_notes(image: Image.Image) -> list[str]:
    """Say that the gamma of a PNG file without a profile is not used where it is not sRGB's."""
    gamma = image.info.get("gamma")
    known = "icc_profile" in image.info or "srgb" in image.info
    if known or not isinstance(gamma, float) or abs(gamma - 1 / 2.2) < 0.02:
        return []
    return [f"The file's gamma of {gamma:.3g} is not used; its colours were taken for sRGB."]


def _in_srgb(
    samples: Samples, profile: bytes | None, metadata: Metadata
) -> tuple[Tensor, Tensor | None, Metadata, list[str]]:
    """Convert samples to sRGB, (C, H, W).

    Returns:
        The colours in [0, 1], what lies beyond where sRGB cannot show a colour, the metadata (with
        the profile if the picture can be written in it again), and notes.
    """
    space = samples.space
    notes = {
        "CMYK": ["The file is in CMYK; it was converted to sRGB and is written as RGB."],
        "LAB": ["The file is in CIELAB; it was converted to sRGB and is written as RGB."],
    }.get(space, [])
    if space == "LAB" and samples.image is not None:
        colours = _planes(TableProfile(None, "LAB").image_to_srgb(samples.image))
        return colours, None, metadata, notes
    if profile:
        try:
            colours, kept = _by_profile(samples, profile)
            if kept:
                metadata = replace(metadata, profile=profile)
            elif space != "CMYK":
                notes.append("The file's colour profile has no way back; the result is in sRGB.")
            return *_split(colours), metadata, notes
        except ProfileError as error:
            notes.append(
                f"The file's colour profile could not be used ({error}); "
                "its colours were taken for sRGB."
            )
    if samples.image is not None:
        return _planes(samples.image.convert("RGB")), None, metadata, notes
    return samples.planes(), None, metadata, notes


def _by_profile(samples: Samples, data: bytes) -> tuple[Tensor, bool]:
    """Convert samples by a profile, and return whether it has a way back."""
    try:
        curves = CurveProfile(data, samples.space)
    except ProfileError:
        table = TableProfile(data, samples.space)
        image = samples.image
        if image is None:
            levels = (samples.planes() * 255).round().byte().permute(1, 2, 0).numpy()
            image = Image.fromarray(levels.squeeze(-1) if levels.shape[-1] == 1 else levels)
        colours = _planes(table.image_to_srgb(image))
        return colours[:1] if samples.space == "GRAY" else colours, table.has_way_back
    return curves.to_srgb(samples.planes()), True


def _split(colours: Tensor) -> tuple[Tensor, Tensor | None]:
    """Split colours into those that sRGB can show and the rest (None if there is none)."""
    if float(colours.min()) > -1e-4 and float(colours.max()) < 1 + 1e-4:
        return colours.clamp_(0, 1), None
    inside = colours.clamp(0, 1)
    return inside, colours.sub_(inside)


def _planes(image: Image.Image) -> Tensor:
    """Return an 8-bit RGB image as planes in [0, 1]."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float().div_(255)


def _upright(planes: Tensor, orientation: int) -> Tensor:
    """Turn planes (C, H, W) as the EXIF orientation says."""
    if orientation > 4:
        planes = planes.transpose(-1, -2)
    mirrored = {2: (-1,), 3: (-2, -1), 4: (-2,), 6: (-1,), 7: (-2, -1), 8: (-2,)}.get(orientation)
    return (planes.flip(mirrored) if mirrored else planes).contiguous()


def _reason(error: Exception) -> str:
    """Return what an exception says, on one line and without a full stop."""
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    return (
        text
        if isinstance(error, OSError | SyntaxError | ValueError) and text
        else (f"{type(error).__name__}: {text}".rstrip(": "))
    )
