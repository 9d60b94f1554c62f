"""Read pictures for training as an endless stream of crops.

Item ``i`` of a stream depends on the seed and on ``i`` alone, so a resumed run goes on exactly
where it stopped, with any number of worker processes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from pristina.errors import InputError, PictureError
from pristina.image.picture import Picture

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
Crop = Literal["whole", "random"]
Report = Callable[[str], None]

KEEP_BYTES = 2**31
"""Memory for decoded pictures; the rest is decoded again whenever it is drawn."""
MAX_SKIPPED = 20
"""Number of unusable files that a training passes over, or a tenth of all files if that is more."""


def to_stderr(sentence: str) -> None:
    """Write a sentence to standard error."""
    print(sentence, file=sys.stderr, flush=True)


def list_pictures(folders: Path | Iterable[Path]) -> list[Path]:
    """List all picture files in one or several folders and their sub-folders.

    Args:
        folders: A folder, or several. Hidden files and folders in them are passed over.

    Returns:
        The paths, sorted within each folder.

    Raises:
        InputError: A folder does not exist, or holds no picture.
    """
    found: list[Path] = []
    for folder in [folders] if isinstance(folders, Path) else folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder of pictures.")
        paths = sorted(path for path in folder.rglob("*") if _is_picture(path, folder))
        if not paths:
            raise InputError(f"{folder} holds no picture ({', '.join(sorted(SUFFIXES))}).")
        found += paths
    return found


def _is_picture(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def read_image(path: Path) -> Image.Image:
    """Read a picture as `restore` reads it: upright, in sRGB, grey as three equal channels.

    Args:
        path: The file.

    Returns:
        An 8-bit RGB image of Pillow.

    Raises:
        PictureError: The file cannot be read.
    """
    pixels = Picture.open(path).pixels
    levels = (255 * pixels.clamp(0, 1)).round().byte().permute(1, 2, 0)
    return Image.fromarray(levels.contiguous().numpy())


def to_tensor(image: Image.Image) -> Tensor:
    """Convert an RGB image of Pillow to uint8 (3, H, W)."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


class SkippedFiles:
    """Count the files that a training passes over, and end it when they are too many.

    Args:
        n_files: Number of files in all.
        report: Function that receives one sentence for each file.
    """

    def __init__(self, n_files: int, report: Report = to_stderr):
        self.limit = min(n_files - 1, max(MAX_SKIPPED, n_files // 10))
        self.n_files, self.report = n_files, report
        self.paths: set[Path] = set()

    def add(self, path: Path, reason: Exception) -> None:
        """Count one file.

        Args:
            path: The file.
            reason: The error that says why it cannot be used.

        Raises:
            InputError: Too many files cannot be used.
        """
        self.paths.add(path)
        if len(self.paths) > self.limit:
            raise InputError(
                f"{len(self.paths)} of {self.n_files} files cannot be trained on; "
                f"the last one: {reason} Remove or repair them."
            ) from reason
        self.report(f"Skipped: {reason}")


class PictureStream(Dataset[Tensor]):
    """Cut squares from the pictures of a list of files.

    An item is uint8 (3, size_px, size_px). A file that cannot be read, or is smaller than a crop,
    is passed over with one sentence, and another file is drawn in its place.

    Args:
        paths: The files; each is decoded once and kept, up to :data:`KEEP_BYTES` in all.
        size_px: Side of an item.
        crop: ``whole`` takes the largest centred square (aligned faces); ``random`` a square of
            random place and scale, from ``size_px`` up to ``max_zoom`` times that (photographs), so
            that nothing is ever enlarged.
        weights: Prefix of a file name to the number of times such a picture counts; others count
            once.
        seed: Seed of what is drawn; two streams with the same seed hold the same items.
        length: Number of items.
        max_zoom: Largest reduction of a random crop.
        native_share: Probability that a random crop keeps the pixels of the file, beyond those
            whose reduction is under 1.1 anyway.
        keep_px: Short side to which larger pictures are reduced when they are read.
        flip: Whether half of the items are mirrored.
        report: Function that receives a sentence for each file that is passed over.
    """

    def __init__(
        self,
        paths: list[Path],
        size_px: int,
        *,
        crop: Crop,
        weights: Mapping[str, float] | None = None,
        seed: int = 0,
        length: int = 2**31,
        max_zoom: float = 3.0,
        native_share: float = 0.0,
        keep_px: int = 1024,
        flip: bool = True,
        report: Report = to_stderr,
    ):
        self.paths, self.size_px, self.crop, self.seed = paths, size_px, crop, seed
        self.length, self.keep_px, self.flip = length, keep_px, flip
        self.max_zoom, self.native_share = max_zoom, native_share
        weight = np.array([_weight(path, weights or {}) for path in paths], dtype=float)
        if not weight.sum() > 0:
            raise InputError("The shares leave nothing to train on: each picture counts 0 times.")
        self.cumulative = np.cumsum(weight / weight.sum())
        self.kept: dict[int, Image.Image] = {}
        self.kept_bytes = 0
        self.skipped = SkippedFiles(len(paths), report)

    def __len__(self) -> int:
        return self.length

    def whole(self, index: int) -> Tensor:
        """Return picture ``index`` without drawing anything, for ``crop="whole"``."""
        return to_tensor(self._image(index))

    def __getitem__(self, item: int) -> Tensor:
        random = np.random.default_rng((self.seed, item))
        image = self._drawn(random)
        if self.crop == "random":
            image = self._cut(image, random)
        pixels = to_tensor(image)
        return pixels.flip(-1) if self.flip and random.random() < 0.5 else pixels

    def _drawn(self, random: np.random.Generator) -> Image.Image:
        """Draw pictures until one can be used."""
        while True:
            place = np.searchsorted(self.cumulative, random.random(), side="right")
            index = int(place.clip(max=len(self.paths) - 1))
            if self.paths[index] in self.skipped.paths:
                continue
            try:
                return self._image(index)
            except PictureError as error:
                self.skipped.add(self.paths[index], error)

    def _image(self, index: int) -> Image.Image:
        if index in self.kept:
            return self.kept[index]
        image = read_image(self.paths[index])
        if self.crop == "whole":
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = _resized(image, self.size_px, left, top, side)
        elif min(image.size) < self.size_px:
            raise PictureError(
                f"{self.paths[index]} is smaller than the crops of {self.size_px} px "
                "to be cut from it."
            )
        elif min(image.size) > self.keep_px:
            scale = self.keep_px / min(image.size)
            size = (scale * image.width, scale * image.height)
            image.thumbnail(size, Image.Resampling.LANCZOS)
        n_bytes = 3 * image.width * image.height
        if self.kept_bytes + n_bytes <= KEEP_BYTES:
            self.kept[index] = image
            self.kept_bytes += n_bytes
        return image

    def _cut(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """Cut a square of random place and scale."""
        longest = min(self.max_zoom * self.size_px, *image.size)
        side = self.size_px * (longest / self.size_px) ** random.random()
        left = random.random() * (image.width - side)
        top = random.random() * (image.height - side)
        native = random.random() < self.native_share if self.native_share else False
        if native or side < 1.1 * self.size_px:
            # Unchanged pixels, so that the finest detail is learned too.
            side, left, top = self.size_px, int(left), int(top)
        return _resized(image, self.size_px, left, top, side)


def _resized(image: Image.Image, size_px: int, left: float, top: float, side: float) -> Image.Image:
    box = (left, top, left + side, top + side)
    return image.resize((size_px, size_px), Image.Resampling.LANCZOS, box)


def _weight(path: Path, weights: Mapping[str, float]) -> float:
    """Return how often a picture counts: the number of the first prefix that fits, else 1."""
    return next((w for prefix, w in weights.items() if path.name.startswith(prefix)), 1.0)


def augment(x: Tensor, random: torch.Generator, share: float) -> tuple[Tensor, Tensor]:
    """Turn, shift, zoom and re-colour a share of a batch, and label it.

    The network is given the labels, and a prior is only ever asked for label 0: it learns from the
    changed pictures without generating such changes (the idea of Karras et al. 2022, appendix F.2,
    with one bit).

    Args:
        x: Pictures, (B, 3, H, W), in [-1, 1].
        random: Generator from which the changes are drawn.
        share: Share of the pictures that is changed.

    Returns:
        Pictures, and labels (B,), long: 1 where a picture was changed.
    """
    label = (torch.rand(len(x), generator=random) < share).long()
    n = int(label.sum())
    if n == 0:
        return x, label

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=random)

    angle, zoom = uniform(-0.26, 0.26), uniform(0.75, 1.1)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    first = torch.stack([cos, -sin, uniform(-0.15, 0.15)], 1)
    second = torch.stack([sin, cos, uniform(-0.15, 0.15)], 1)
    theta = torch.stack([first, second], 1)
    grid = torch.nn.functional.affine_grid(theta, [n, *x.shape[1:]], align_corners=False)
    changed = torch.nn.functional.grid_sample(
        x[label == 1], grid, padding_mode="reflection", align_corners=False
    )
    grey = changed.mean(1, keepdim=True)
    changed = grey + uniform(0, 1.5, 1, 1, 1) * (changed - grey)
    changed = uniform(0.7, 1.3, 1, 1, 1) * changed + uniform(-0.2, 0.2, 3, 1, 1)
    x = x.clone()
    x[label == 1] = changed.clamp(-1, 1)
    return x, label
