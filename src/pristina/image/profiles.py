"""Colour profiles (ICC): from a file's colours to sRGB, and back.

Profiles of a matrix and tone curves (Display P3, Adobe RGB, ProPhoto, Rec. 2020, cameras) and of a
grey tone curve are computed here in floating point and beyond the range of sRGB, for Pillow's
LittleCMS knows 8 bits and cuts off what sRGB cannot show. All others go through LittleCMS.

Source:
    ICC.1:2022, sections 8.3 (matrices), 10.6 and 10.18 (curves); IEC 61966-2-1 (sRGB).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms
from torch import Tensor

Curve = NDArray[np.float64]
Space = Literal["RGB", "GRAY", "CMYK", "LAB"]

_STEPS = 65536
_CHUNK_PX = 1 << 20
_SRGB_TO_XYZ = np.array(
    [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
)
"""Colorants of sRGB adapted to D50, the white of profiles."""


class ProfileError(Exception):
    """A profile that cannot be used for the picture in whose file it is."""


class CurveProfile:
    """Profile of RGB by a matrix and tone curves, or of grey by a tone curve.

    Args:
        data: Content of the profile.
        space: Colour space of the picture.

    Raises:
        ProfileError: The profile is damaged, of another space, or not of this kind.
    """

    def __init__(self, data: bytes, space: Space):
        self.space = space
        tags = _tags(data, space)
        names = ["kTRC"] if space == "GRAY" else ["rTRC", "gTRC", "bTRC"]
        if space not in ("RGB", "GRAY") or not all(name in tags for name in names):
            raise ProfileError("it has no tone curves")
        self.curves = [_curve(tags[name]) for name in names]
        if space == "GRAY":
            if data[20:24] == b"Lab ":
                self.curves = [_lightness_to_linear(self.curves[0])]
            return
        if data[20:24] != b"XYZ " or any(name.startswith("A2B") for name in tags):
            raise ProfileError("it is not a matrix profile")
        colorants = [_xyz(tags.get(name, b"")) for name in ("rXYZ", "gXYZ", "bXYZ")]
        matrix = np.linalg.inv(_SRGB_TO_XYZ) @ np.stack(colorants, 1)
        white = matrix.sum(1, keepdims=True)
        if np.abs(white - 1).max() < 0.01:  # Rounding of the stored colorants; white is white.
            matrix = matrix / white
        if not 1e-6 < abs(np.linalg.det(matrix)) < 1e6:
            raise ProfileError("its colours lie in a plane")
        self.matrix = matrix

    @cached_property
    def is_srgb(self) -> bool:
        """Whether the profile is sRGB but for rounding."""
        axis = torch.linspace(0, 1, 18)
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).view(3, 1, -1)
        grid = grid[:1] if self.space == "GRAY" else grid
        return float((self._decode(grid) - grid).abs().max()) < 1 / 255

    def to_srgb(self, planes: Tensor) -> Tensor:
        """Convert device values in [0, 1], (C, H, W), to sRGB, which may lie outside [0, 1]."""
        return planes if self.is_srgb else _in_chunks(self._decode, planes)

    def from_srgb(self, planes: Tensor) -> Tensor:
        """Convert sRGB, (C, H, W), to device values in [0, 1]."""
        return planes if self.is_srgb else _in_chunks(self._encode, planes)

    @cached_property
    def _inverse_curves(self) -> list[Tensor]:
        """Device values by the tone of sRGB, which spreads dark ones as tone curves do."""
        grid = np.linspace(0, 1, _STEPS)
        linear = _linear_from_srgb(torch.from_numpy(grid)).numpy()
        return [torch.from_numpy(np.interp(linear, curve, grid)).float() for curve in self.curves]

    def _decode(self, planes: Tensor) -> Tensor:
        curves = [torch.from_numpy(curve).float() for curve in self.curves]
        places = (planes * (_STEPS - 1)).round_().long()
        linear = torch.stack([c[x] for c, x in zip(curves, places, strict=True)])
        if self.space == "RGB":
            linear = torch.einsum("ij,jhw->ihw", torch.from_numpy(self.matrix).float(), linear)
        return _srgb_from_linear(linear)

    def _encode(self, planes: Tensor) -> Tensor:
        linear = _linear_from_srgb(planes)
        if self.space == "RGB":
            inverse = torch.from_numpy(np.linalg.inv(self.matrix)).float()
            linear = torch.einsum("ij,jhw->ihw", inverse, linear)
        tones = _srgb_from_linear(linear.clamp_(0, 1)).mul_(_STEPS - 1)
        below = tones.floor().clamp_(0, _STEPS - 2)
        share, places = tones - below, below.long()
        inverses = zip(self._inverse_curves, places, share, strict=True)
        return torch.stack([torch.lerp(c[x], c[x + 1], f) for c, x, f in inverses])


class TableProfile:
    """Profile of any kind, by LittleCMS at 8 bits a channel.

    Args:
        data: Content of the profile; None for CIELAB itself.
        space: Colour space of the picture.

    Raises:
        ProfileError: The profile is damaged or of another space.
    """

    is_srgb = False

    def __init__(self, data: bytes | None, space: Space):
        if data is not None:
            _tags(data, space)
        self.space = space
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "LAB": "LAB"}[space]
        try:
            profile = (
                ImageCms.createProfile("LAB")
                if data is None
                else ImageCms.ImageCmsProfile(io.BytesIO(data))
            )
            srgb = ImageCms.createProfile("sRGB")
            self._forward = ImageCms.buildTransform(profile, srgb, mode, "RGB")
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
            raise ProfileError(str(error)) from error
        try:
            back = ImageCms.buildTransform(srgb, profile, "RGB", mode)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            back = None
        self._back: ImageCms.ImageCmsTransform | None = back

    @property
    def has_way_back(self) -> bool:
        """Whether RGB pictures can be given back in this profile."""
        return self.space == "RGB" and self._back is not None

    def image_to_srgb(self, image: Image.Image) -> Image.Image:
        """Convert an 8-bit image in the profile's space to an sRGB image of mode RGB."""
        converted = ImageCms.applyTransform(image, self._forward)
        if converted is None:
            raise ProfileError("it cannot be applied")
        return converted

    def from_srgb(self, planes: Tensor) -> Tensor:
        """Convert sRGB, (3, H, W), to device values in [0, 1]."""
        if self._back is None:
            raise ProfileError("it has no way back")
        levels = (planes.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        converted = ImageCms.applyTransform(Image.fromarray(levels), self._back)
        return torch.from_numpy(np.asarray(converted).copy()).permute(2, 0, 1).float().div_(255)


def writing_profile(data: bytes, space: Space) -> CurveProfile | TableProfile:
    """Return the profile with which pixels are converted back from sRGB.

    Raises:
        ProfileError: There is no way back.
    """
    try:
        return CurveProfile(data, space)
    except ProfileError:
        table = TableProfile(data, space)
        if not table.has_way_back:
            raise
        return table


def _in_chunks(function: Callable[[Tensor], Tensor], planes: Tensor) -> Tensor:
    """Apply a function to a few rows at a time, to bound the memory of intermediates."""
    converted = torch.empty_like(planes)
    rows = max(1, _CHUNK_PX // planes.shape[-1])
    for top in range(0, planes.shape[-2], rows):
        converted[:, top : top + rows] = function(planes[:, top : top + rows])
    return converted


def _tags(data: bytes, space: Space) -> dict[str, bytes]:
    """Read the tag table of a profile."""
    if len(data) < 132 or data[36:40] != b"acsp":
        raise ProfileError("it is no ICC profile")
    found = data[16:20].decode("latin-1").strip()
    if found.upper() != space:
        raise ProfileError(f"it is for {found} and the picture is {space}")
    (count,) = struct.unpack_from(">L", data, 128)
    if 132 + 12 * count > len(data):
        raise ProfileError("it is cut off")
    tags = {}
    for at in range(132, 132 + 12 * count, 12):
        name, start, length = struct.unpack_from(">4sLL", data, at)
        tags[name.decode("latin-1")] = data[start : start + length]
    return tags


def _xyz(tag: bytes) -> NDArray[np.float64]:
    if len(tag) < 20 or tag[:4] != b"XYZ ":
        raise ProfileError("a colorant is missing or damaged")
    return np.array(struct.unpack_from(">3l", tag, 8)) / 65536


def _curve(tag: bytes) -> Curve:
    """Sample a tone curve at 65536 places; it never falls, so that it can be inverted."""
    x = np.linspace(0, 1, _STEPS)
    try:
        with np.errstate(all="ignore"):
            y = _sampled(tag, x)
    except (struct.error, KeyError, ValueError, ZeroDivisionError) as error:
        raise ProfileError("a tone curve is damaged") from error
    if not np.isfinite(y).all() or y[-1] <= y[0]:
        raise ProfileError("a tone curve is damaged")
    return np.maximum.accumulate(y.clip(0, 1))


def _sampled(tag: bytes, x: Curve) -> Curve:
    if tag[:4] == b"curv":
        (n,) = struct.unpack_from(">L", tag, 8)
        if n == 0:
            return x
        if 12 + 2 * n > len(tag):
            raise ValueError("cut off")
        table = np.frombuffer(tag, ">u2", n, 12).astype(np.float64)
        if n == 1:
            return x ** (table[0] / 256)
        return np.interp(x, np.linspace(0, 1, n), table / 65535)
    if tag[:4] != b"para":
        raise ValueError("neither curv nor para")
    (kind,) = struct.unpack_from(">H", tag, 8)
    n = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}[kind]
    given = struct.unpack_from(f">{n}l", tag, 12)
    g, a, b, c, d, e, f = (v / 65536 for v in (*given, *[0] * (7 - n)))
    if kind == 0:
        return x**g
    if kind == 1:
        return np.where(x >= -b / a, (a * x + b) ** g, 0.0)
    if kind == 2:
        return np.where(x >= -b / a, (a * x + b) ** g + c, c)
    return np.where(x >= d, (a * x + b) ** g + e, c * x + f)


def _lightness_to_linear(curve: Curve) -> Curve:
    """Convert a curve of CIE lightness, scaled to [0, 1], to one of luminance."""
    t = (100 * curve + 16) / 116
    return np.where(t > 6 / 29, t**3, 3 * (6 / 29) ** 2 * (t - 4 / 29))


def _srgb_from_linear(y: Tensor) -> Tensor:
    """Apply the tone curve of sRGB, continued oddly below 0."""
    m = y.abs()
    return y.sign() * torch.where(m <= 0.0031308, 12.92 * m, 1.055 * m ** (1 / 2.4) - 0.055)


def _linear_from_srgb(x: Tensor) -> Tensor:
    """Invert :func:`_srgb_from_linear`."""
    m = x.abs()
    return x.sign() * torch.where(m <= 0.04045, m / 12.92, ((m + 0.055) / 1.055) ** 2.4)
