"""A picture: pixels together with everything else that is in their file."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import PictureError
from pristina.files import check_name, read_bytes, write_all
from pristina.image.alpha import fill_transparent
from pristina.image.encoding import check_format, encode_levels, lost_metadata, writes_profile
from pristina.image.fit import resize
from pristina.image.jpeg_cells import JpegCells
from pristina.image.metadata import JpegTables, Metadata
from pristina.image.profiles import ProfileError, writing_profile
from pristina.image.samples import check_range
from pristina.types import check_dense

MAX_PIXELS = 178_000_000
"""Largest number of pixels that is read; Pillow refuses little more."""


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels, and what has to come back with them.

    Attributes:
        pixels: Colour, float32 (3, H, W), sRGB, in [0, 1]; grey pictures have three equal channels.
        alpha: Opacity, (1, H, W), in [0, 1]; None when the file has none.
        grey: Whether the file was grey, so that it is written grey again.
        depth: Bits a channel with which it is written where the format can: 8 or 16.
        beyond: Part of the colours that lies outside sRGB, (3, H, W), added again when the picture
            is written in its own colour profile; None if all lie inside.
        metadata: EXIF, XMP, colour profile, resolution, comments, quantisation tables.
        format: Format of the file, such as ``PNG``; None if there was none.
        content: Content of the file if it was a whole JPEG file, from which :meth:`jpeg_cells`
            tells what else could have given it; None for others.
        sha256: Digest of the file's content, 64 hexadecimal digits; None if there was none.
        damaged: Whether the file was cut off or damaged and was read as far as it goes.
        notes: Sentences for the user about what was lost or changed in reading.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    grey: bool = False
    depth: int = 8
    beyond: Tensor | None = None
    metadata: Metadata = field(default_factory=Metadata)
    format: str | None = None
    content: bytes | None = field(default=None, repr=False)
    sha256: str | None = None
    damaged: bool = False
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    @property
    def visible(self) -> Tensor:
        """Colours with fully transparent pixels filled from around: what a method should see."""
        return self.pixels if self.alpha is None else fill_transparent(self.pixels, self.alpha)

    @property
    def exif(self) -> bytes | None:
        """EXIF block without orientation, for the pixels are upright."""
        return self.metadata.exif

    @property
    def jpeg_tables(self) -> JpegTables | None:
        """Quantisation of the JPEG file that held the picture; None for other files."""
        return self.metadata.jpeg_tables

    @property
    def jpeg_quality(self) -> int | None:
        """Quality of the JPEG file that held the picture, 1 to 100; None for other files."""
        return None if self.jpeg_tables is None else self.jpeg_tables.quality

    def jpeg_cells(self) -> JpegCells | None:
        """Return what its JPEG file says about the picture.

        None if there was no such file, if nothing can be told from it, or if the pixels are not as
        they stand in it: it was turned upright, had another colour profile, or was changed.
        """
        if self.content is None:
            return None
        stored = Image.open(io.BytesIO(self.content), formats=["JPEG"]).convert("RGB")
        levels = (255 * self.pixels).round().byte().permute(1, 2, 0).numpy()
        same = stored.size[::-1] == self.size and np.array_equal(np.asarray(stored), levels)
        return JpegCells.read(self.content) if same else None

    @classmethod
    def open(cls, path: str | Path, *, truncated: bool = False) -> Picture:
        """Read the picture in a file, upright, in sRGB.

        Args:
            path: Path of a file, or of a pipe such as ``/dev/stdin``, which is read once.
            truncated: Whether a file that is cut off or damaged is read as far as it goes
                (:attr:`damaged` and a note say so) instead of refused.

        Raises:
            PictureError: The file is missing, empty, damaged, not a picture, or absurdly large.
        """
        if not isinstance(path, str | Path):
            raise PictureError(f"A file is given by its path, not by {type(path).__name__}.")
        check_name(path)
        return cls.decode(read_bytes(Path(path)), str(path), truncated=truncated)

    @classmethod
    def decode(cls, data: bytes, name: str, *, truncated: bool = False) -> Picture:
        """Read the picture in the content of a file.

        Args:
            data: Content of the file.
            name: Name of the file, for messages; a suffix of another format is noted.
            truncated: Whether damaged content is read as far as it goes, see :meth:`open`.

        Raises:
            PictureError: The content is empty, damaged, not a picture, or absurdly large.
        """
        from pristina.image.decoding import decode  # It returns pictures.

        return cls(**decode(data, name, truncated=truncated, max_pixels=MAX_PIXELS))

    @classmethod
    def of(cls, source: str | Path | Picture | Tensor | np.ndarray | Image.Image) -> Picture:
        """Return ``source`` as a picture, whether it is a file, pixels or an image.

        Raises:
            PictureError: It cannot be read or is none of these.
        """
        if isinstance(source, Picture):
            return source
        if isinstance(source, (str, Path)):
            return cls.open(source)
        return cls.from_pixels(source) if isinstance(source, Tensor) else cls.from_array(source)

    @classmethod
    def from_pixels(cls, pixels: Tensor) -> Picture:
        """Make a picture of a tensor.

        Args:
            pixels: Floating-point tensor, (3, H, W) or (1, H, W) for grey, in [0, 1]. Noise may
                carry single values beyond; other scales are refused, see
                :func:`pristina.image.samples.check_range`.

        Raises:
            PictureError: The shape or the numbers cannot be a picture.
        """
        check_dense(pixels, "Pixels", PictureError)
        if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or 0 in pixels.shape:
            raise PictureError(
                f"Pixels are (3, height, width), or 1 for grey; not {tuple(pixels.shape)}."
            )
        if not pixels.is_floating_point():
            raise PictureError("Pixels must be finite floating-point numbers in [0, 1].")
        colour = pixels.detach().float().cpu()
        check_range(colour, "Pixels")
        return cls(colour.expand(3, -1, -1), grey=pixels.shape[0] == 1)

    @classmethod
    def from_array(cls, array: np.ndarray | Image.Image) -> Picture:
        """Make a picture of a NumPy array or a Pillow image.

        Args:
            array: Array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of 8-bit or 16-bit whole numbers
                without a sign, booleans, or floating-point numbers in [0, 1]; the fourth channel
                is opacity. Or a Pillow image of any mode, read by the rules for files.

        Raises:
            PictureError: The shape, the type or the numbers cannot be a picture.
        """
        if isinstance(array, Image.Image):
            from pristina.image.decoding import decode_image

            return cls(**decode_image(array))
        if not isinstance(array, np.ndarray):
            raise PictureError(
                "A picture is a path, a Picture, a tensor, a NumPy array or a Pillow image, "
                f"not {type(array).__name__}."
            )
        if (
            array.ndim not in (2, 3)
            or 0 in array.shape
            or array.shape[2:] not in ((), (1,), (3,), (4,))
        ):
            raise PictureError(
                "Arrays are (height, width), or (height, width, 1, 3 or 4); "
                f"not {tuple(array.shape)}."
            )
        whites = {"bool": 1, "uint8": 255, "uint16": 65535}
        white = whites.get(array.dtype.name, 1 if array.dtype.kind == "f" else 0)
        if not white:
            raise PictureError(
                "Arrays hold whole numbers of type uint8 or uint16, or floating-point numbers in "
                f"[0, 1]; not {array.dtype}."
            )
        planes = torch.from_numpy(array.reshape(*array.shape[:2], -1).astype(np.float32) / white)
        planes = planes.permute(2, 0, 1).contiguous()
        made = cls.from_pixels(planes[:3])
        if len(planes) == 4:
            check_range(planes[3:], "Opacity")
            made = replace(made, alpha=planes[3:].clamp(0, 1))
        return replace(made, depth=16 if array.dtype == np.uint16 else 8)

    def with_pixels(self, pixels: Tensor) -> Picture:
        """Return the same picture with other pixels, (3, H, W).

        Opacity and resolution are brought to their size: the print stays as large.
        """
        height, width = pixels.shape[-2:]
        made = replace(self, pixels=pixels.detach().float().cpu())
        if (height, width) == self.size:
            return made
        dpi = self.metadata.dpi
        if dpi is not None:
            dpi = (dpi[0] * width / self.size[1], dpi[1] * height / self.size[0])
        beyond = self.beyond
        if beyond is not None:
            beyond = F.interpolate(
                beyond[None], size=(height, width), mode="bilinear", antialias=True
            )[0]
        return replace(
            made,
            alpha=None if self.alpha is None else resize(self.alpha[None], height, width)[0],
            beyond=beyond,
            metadata=replace(self.metadata, dpi=dpi),
        )

    def to_pillow(self) -> Image.Image:
        """Return an 8-bit Pillow image in sRGB: RGB or L, with A if there is opacity."""
        levels = _levels(self._colour(), self.alpha, 8)
        return Image.fromarray(levels.squeeze(-1) if levels.shape[-1] == 1 else levels)

    def check_encodable(
        self,
        path: str | Path,
        *,
        size: tuple[int, int] | None = None,
        quality: int | None = None,
    ) -> tuple[str, ...]:
        """Check before any work that the picture can be written to ``path``.

        Args:
            path: Path of the file to be written; the format follows from its suffix.
            size: Height and width of the result in pixels, where it is not that of the picture.
            quality: Quality as for :meth:`encode`.

        Returns:
            Sentences about what the format cannot hold and will be dropped.

        Raises:
            PictureError: The format is not known, or cannot hold the size or the opacity.
        """
        path = Path(path)
        kind = check_format(path, alpha=self.alpha is not None, size=size or self.size)
        return lost_metadata(kind, self.metadata, deep=self.depth > 8, quality=quality)

    def encode(self, path: str | Path, quality: int | None = None) -> bytes:
        """Return the content of a file that holds the picture.

        Args:
            path: Path of the file to be written; the format follows from its suffix.
            quality: Quality of JPEG, WebP and AVIF files, 1 to 100. None takes the quantisation
                tables of the JPEG file that held the picture for a JPEG file, else 95.

        Raises:
            PictureError: The format is not known, or cannot hold the size or the opacity.
        """
        path = Path(path)
        kind = check_format(path, alpha=self.alpha is not None, size=self.size)
        colour, metadata = self._colour(), self.metadata
        if metadata.profile is not None:
            profiled = self._in_profile(colour) if writes_profile(kind) else None
            colour = colour if profiled is None else profiled
            metadata = metadata if profiled is not None else replace(metadata, profile=None)
        depth = self.depth if kind in ("PNG", "TIFF") else 8
        return encode_levels(_levels(colour, self.alpha, depth), path, metadata, quality)

    def save(self, path: str | Path, quality: int | None = None) -> None:
        """Write the picture, whole or not at all, as :meth:`encode` makes it.

        Raises:
            PictureError: The format cannot hold the picture (see :meth:`encode`), or the place
                cannot be written to.
        """
        path = Path(path)
        write_all({path: self.encode(path, quality)})

    def _colour(self) -> Tensor:
        return self.pixels.mean(0, keepdim=True) if self.grey else self.pixels

    def _in_profile(self, colour: Tensor) -> Tensor | None:
        """Convert sRGB colours to the picture's own profile; None if it is for another space."""
        try:
            profile = writing_profile(self.metadata.profile or b"", "GRAY" if self.grey else "RGB")
        except ProfileError:
            return None
        if self.beyond is not None and not self.grey:
            # A colour that was brought back into sRGB is no longer beyond its limit.
            limit = (self.beyond > 0).float()
            colour = colour + self.beyond * (1 - 4 * (colour - limit).abs()).clamp(0, 1)
        return profile.from_srgb(colour)


def _levels(colour: Tensor, alpha: Tensor | None, depth: int) -> np.ndarray:
    """Round planes in [0, 1] to whole numbers, (H, W, C)."""
    planes = colour if alpha is None else torch.cat([colour, alpha])
    white, kind = (65535, np.uint16) if depth > 8 else (255, np.uint8)
    levels = planes.clamp(0, 1).mul_(white).round_().permute(1, 2, 0)
    return levels.numpy().astype(kind, order="C")
