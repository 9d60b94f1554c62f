"""A picture and everything else that is in its file."""

from __future__ import annotations

import io
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from pristina.errors import PictureError
from pristina.image.fit import resize

MAX_PIXELS = 200_000_000
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"}
WITH_ALPHA = {"PNG", "WEBP", "TIFF"}
_ORIENTATION = 0x0112


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels, and what has to come back with them.

    Attributes:
        pixels: Colour, float32 (3, H, W), sRGB, in [0, 1]; grey pictures have three equal channels.
        alpha: Opacity, (1, H, W), in [0, 1]; None when the file has none.
        grey: Whether the file was grey, so that it is written grey again.
        exif: The file's EXIF block with the orientation reset, for the pixels are upright.
        notes: What was lost or changed in reading, in sentences for the user.
        jpeg_quality: Of the JPEG file it came from, 1 to 100, by its table for brightness; None for other files.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    grey: bool = False
    exif: bytes | None = None
    notes: tuple[str, ...] = ()
    jpeg_quality: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The picture in a file, upright, in sRGB.

        Raises:
            PictureError: The file is missing, empty, truncated, not a picture, or absurdly large.
        """
        path = Path(path)
        if path.is_dir():
            raise PictureError(f"{path} is a folder; give the path of a picture in it.")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise PictureError(f"{path} cannot be read: {error.strerror or error}.") from error
        if not data:
            raise PictureError(f"{path} is empty (0 bytes).")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of sizes and of odd metadata; sizes are checked here
                image = Image.open(io.BytesIO(data))
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise PictureError(f"{path} claims {width} x {height} px; more than {MAX_PIXELS // 10**6} million pixels are not read.")
                image.load()
        except UnidentifiedImageError as error:
            raise PictureError(f"{path} is not a picture that can be read (PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF ...).") from error
        except Image.DecompressionBombError as error:
            raise PictureError(f"{path} claims an absurd size; more than {MAX_PIXELS // 10**6} million pixels are not read.") from error
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise PictureError(f"{path} is damaged or cut off: {error}.") from error
        return cls._decode(image, data)

    @classmethod
    def _decode(cls, image: Image.Image, data: bytes) -> Self:
        notes = []
        if getattr(image, "n_frames", 1) > 1:
            notes.append("The file holds several frames; only the first is used.")
        if _deep_colour(image, data):
            notes.append("The file has 16 bits a channel; its colours were read at 8 bits.")
        quality = _jpeg_quality(image)
        profile = image.info.get("icc_profile")
        exif = image.getexif()
        image = ImageOps.exif_transpose(image)
        exif.pop(_ORIENTATION, None)

        grey = image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;16")
        alpha = None
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            image = image.convert("RGBA")
            alpha = _tensor(image.getchannel("A"))
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            levels = torch.from_numpy(np.asarray(image).astype(np.float32))
            scale = max(1.0, float(levels.max())) if image.mode == "F" else 65535.0
            pixels = (levels / scale).clamp(0, 1)[None].repeat(3, 1, 1)
        else:
            if profile and not grey:
                image, note = _to_srgb(image, profile)
                notes.extend(note)
            pixels = _tensor(image.convert("RGB"))
        return cls(pixels, alpha, grey, exif.tobytes() if len(exif) else None, tuple(notes), quality)

    @classmethod
    def from_pixels(cls, pixels: Tensor) -> Self:
        """A picture of ``pixels``, (3, H, W) or (1, H, W), in [0, 1].

        Raises:
            PictureError: The shape or the numbers cannot be a picture.
        """
        if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or 0 in pixels.shape:
            raise PictureError(f"Pixels are (3, height, width), or 1 for grey; not {tuple(pixels.shape)}.")
        if not pixels.is_floating_point() or not torch.isfinite(pixels).all():
            raise PictureError("Pixels must be finite floating-point numbers in [0, 1].")
        return cls(pixels.detach().float().cpu().expand(3, -1, -1), grey=pixels.shape[0] == 1)

    def with_pixels(self, pixels: Tensor) -> Self:
        """The same file with other pixels (3, H, W); alpha is brought to their size."""
        alpha = None if self.alpha is None else resize(self.alpha[None], *pixels.shape[-2:])[0]
        return replace(self, pixels=pixels.detach().float().cpu(), alpha=alpha)

    def to_pillow(self) -> Image.Image:
        """An 8-bit Pillow image: RGB or L, with A if there is alpha."""
        colour = self.pixels.mean(0, keepdim=True) if self.grey else self.pixels
        layers = colour if self.alpha is None else torch.cat([colour, self.alpha])
        levels = (layers.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        return Image.fromarray(levels.squeeze(-1) if levels.shape[-1] == 1 else levels)

    def encode(self, path: Path) -> bytes:
        """The content of a file of the format that follows from the suffix of ``path``.

        Raises:
            PictureError: The format is not known, or cannot hold the alpha channel or the size.
        """
        check_format(path, alpha=self.alpha is not None)
        return encode(self.to_pillow(), path, self.exif)

    def save(self, path: str | Path) -> None:
        """Write the picture, whole or not at all; the format follows from the suffix.

        Raises:
            PictureError: As :meth:`encode`, or the place cannot be written to.
        """
        path = Path(path)
        write({path: self.encode(path)})


def encode(image: Image.Image, path: Path, exif: bytes | None = None) -> bytes:
    """The content of a file that holds ``image``, in the format that follows from the suffix of ``path``.

    Raises:
        PictureError: The format is not known, or cannot hold the picture.
    """
    check_format(path)
    kind = FORMATS[path.suffix.lower()]
    options: dict[str, object] = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    if kind == "JPEG":
        options["subsampling"] = 0
    if exif and kind != "BMP":
        options["exif"] = exif
    file = io.BytesIO()
    try:
        image.save(file, kind, **options)
    except (OSError, ValueError) as error:
        raise PictureError(
            f"{kind} cannot hold this picture of {image.width} x {image.height} px ({error}); write {path.with_suffix('.png').name} instead."
        ) from error
    return file.getvalue()


def write(files: Mapping[Path, bytes]) -> None:
    """Write all files or none: each beside its place first, then all are renamed.

    Raises:
        PictureError: A place cannot be written to, or the disk is full.
    """
    with ExitStack() as stack:
        for path, content in files.items():
            stack.enter_context(atomic(path)).write_bytes(content)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, renamed to it once the block has succeeded and deleted if it has not.

    Raises:
        PictureError: The place cannot be written to, or the disk is full.
    """
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = _temporary(path)
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())  # some file systems say only now that they are full
        os.replace(beside, path)
    except OSError as error:
        raise PictureError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """A new empty file beside ``path``, with the rights of any other."""
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(name, 0o666 & ~umask)
    return Path(name)


def check_format(path: Path, *, alpha: bool = False) -> None:
    """Raise :class:`PictureError` if ``path`` does not name a format of pictures, or one without ``alpha`` where there is some."""
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise PictureError(f"{path} should end in one of {', '.join(FORMATS)}: the format follows from the suffix.")
    if alpha and kind not in WITH_ALPHA:
        raise PictureError(f"The picture is partly transparent, which {kind} cannot hold; write {path.with_suffix('.png').name} instead.")


def check_outputs(pictures: Iterable[Path | None], others: Iterable[Path | None] = (), *, inputs: Iterable[Path | None] = ()) -> None:
    """Raise :class:`PictureError` now, rather than after minutes of work, if results cannot be written where they should be.

    Args:
        pictures: Where pictures are to be written; None is passed over, here and below.
        others: Where other files are.
        inputs: What is read, and so must not be written to.
    """
    shown, told, read = ([path for path in paths if path is not None] for paths in (pictures, others, inputs))
    taken, written = {os.path.realpath(path) for path in read}, set()
    for path in shown + told:
        place = os.path.realpath(path)
        if os.path.exists(path) and not os.path.isfile(path):
            raise PictureError(f"{path} is a folder or a device; give the name of a file.")
        folder = next(parent for parent in path.absolute().parents if os.path.exists(parent))  # what is missing below it is made later
        if not folder.is_dir():
            raise PictureError(f"{path} cannot be written: {folder} is a file, not a folder.")
        if place in taken:
            raise PictureError(f"{path} is to be read, and would be overwritten; give the result another name.")
        if place in written:
            raise PictureError(f"Two results would be written to the same file {path}; give them different names.")
        written.add(place)
        try:
            _temporary(folder / path.name).unlink()
        except OSError as error:
            raise PictureError(f"{path} cannot be written: {error.strerror or error}.") from error
    for path in shown:
        check_format(path)


_LUMA_TABLE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip


def _jpeg_quality(image: Image.Image) -> int | None:
    """The quality of a JPEG file on the scale of the Independent JPEG Group; None for other files.

    By the ratio of its first table to the standard one (ITU T.81, annex K.1), of those entries that are not cut off at 255.
    """
    table = getattr(image, "quantization", {}).get(0)
    if not table:
        return None
    pairs = [(found, standard) for found, standard in zip(sorted(table), sorted(_LUMA_TABLE), strict=False) if found < 255]
    if not pairs:
        return 1
    scale = 100 * sum(found for found, _ in pairs) / sum(standard for _, standard in pairs)
    return round(min(100.0, max(1.0, (200 - scale) / 2 if scale <= 100 else 5000 / scale)))


def _tensor(image: Image.Image) -> Tensor:
    levels = torch.from_numpy(np.asarray(image).copy()).float() / 255
    return levels[None] if levels.ndim == 2 else levels.permute(2, 0, 1).contiguous()


def _deep_colour(image: Image.Image, data: bytes) -> bool:
    """Whether a colour file has 16 bits a channel, which Pillow reduces silently."""
    if image.format == "PNG":
        return data[24] == 16 and data[25] in (2, 6)
    bits = getattr(image, "tag_v2", {}).get(258, ()) if image.format == "TIFF" else ()
    return isinstance(bits, tuple) and len(bits) >= 3 and max(bits) > 8


def _to_srgb(image: Image.Image, profile: bytes) -> tuple[Image.Image, list[str]]:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        image = image if image.mode in ("RGB", "CMYK") else image.convert("RGB")
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB") or image, []
    except (ImageCms.PyCMSError, OSError):
        return image, ["The file's colour profile could not be used; its colours were taken for sRGB."]
