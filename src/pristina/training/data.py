"""Pictures for training: an endless stream in which item ``i`` depends on the seed and on ``i`` alone.

That is what makes a resumed run go on exactly where it stopped, on any number of workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from pristina.errors import InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
Crop = Literal["whole", "random"]


def list_pictures(folder: Path) -> list[Path]:
    """All picture files under ``folder``, sorted.

    Raises:
        InputError: There is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of pictures.")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(f"{folder} holds no picture ({', '.join(sorted(SUFFIXES))}).")
    return paths


def to_tensor(picture: Image.Image) -> Tensor:
    """A Pillow RGB picture as uint8 (3, H, W)."""
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)


class PictureStream(Dataset[Tensor]):
    """Squares of ``size_px`` cut from the pictures of a folder, uint8 (3, size_px, size_px).

    Args:
        paths: The files; each is decoded once and kept.
        size_px: The side of what is returned.
        crop: ``whole`` takes the largest centred square (aligned faces); ``random`` a square of random place and scale, from
            ``size_px`` up to ``max_zoom`` times that (photographs), so that nothing is ever enlarged.
        weights: File-name prefix to the number of times such a picture counts; others count once.
        seed: Two streams with the same seed hold the same items.
        length: How many items there are.
        keep_px: Larger pictures are kept reduced to this on the short side.
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
        keep_px: int = 1024,
        flip: bool = True,
    ):
        self.paths, self.size_px, self.crop, self.seed, self.length = paths, size_px, crop, seed, length
        self.max_zoom, self.keep_px, self.flip = max_zoom, keep_px, flip
        weight = np.array([next((w for p, w in (weights or {}).items() if path.name.startswith(p)), 1.0) for path in paths])
        self.cumulative = np.cumsum(weight / weight.sum())
        self.kept: dict[int, Image.Image] = {}

    def __len__(self) -> int:
        return self.length

    def _picture(self, index: int) -> Image.Image:
        if index not in self.kept:
            with Image.open(self.paths[index]) as file:
                picture = file.convert("RGB")
            if self.crop == "whole":
                side = min(picture.size)
                left, top = (picture.width - side) // 2, (picture.height - side) // 2
                picture = picture.resize((self.size_px,) * 2, Image.Resampling.LANCZOS, (left, top, left + side, top + side))
            elif min(picture.size) < self.size_px:
                raise InputError(f"{self.paths[index]} is smaller than the crops of {self.size_px} px to be cut from it.")
            elif min(picture.size) > self.keep_px:
                scale = self.keep_px / min(picture.size)
                picture.thumbnail((scale * picture.width, scale * picture.height), Image.Resampling.LANCZOS)
            self.kept[index] = picture
        return self.kept[index]

    def whole(self, index: int) -> Tensor:
        """Picture ``index`` as it is, without anything drawn (for ``crop="whole"``)."""
        return to_tensor(self._picture(index))

    def __getitem__(self, item: int) -> Tensor:
        random = np.random.default_rng((self.seed, item))
        picture = self._picture(int(np.searchsorted(self.cumulative, random.random(), side="right").clip(max=len(self.paths) - 1)))
        if self.crop == "random":
            longest = min(self.max_zoom * self.size_px, *picture.size)
            side = self.size_px * (longest / self.size_px) ** random.random()
            left, top = random.random() * (picture.width - side), random.random() * (picture.height - side)
            if side < 1.1 * self.size_px:  # untouched pixels, so that the finest grain is learned too
                side, left, top = self.size_px, int(left), int(top)
            picture = picture.resize((self.size_px,) * 2, Image.Resampling.LANCZOS, (left, top, left + side, top + side))
        pixels = to_tensor(picture)
        return pixels.flip(-1) if self.flip and random.random() < 0.5 else pixels


def augment(x: Tensor, random: torch.Generator, share: float) -> tuple[Tensor, Tensor]:
    """Stronger changes for a share of a batch, and the label that tells the network so.

    Turned, shifted, zoomed and re-coloured pictures are labelled 1, and the prior is only ever asked for label 0: the network learns
    from them, and they do not leak into what it generates (the idea of Karras et al. 2022, appendix F.2, with one bit).

    Args:
        x: Pictures, (B, 3, H, W), in [-1, 1].
        share: The fraction that is changed.

    Returns:
        Pictures and labels (B,), long.
    """
    label = (torch.rand(len(x), generator=random) < share).long()
    n = int(label.sum())
    if n == 0:
        return x, label

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=random)

    angle, zoom = uniform(-0.26, 0.26), uniform(0.75, 1.1)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    theta = torch.stack([torch.stack([cos, -sin, uniform(-0.15, 0.15)], 1), torch.stack([sin, cos, uniform(-0.15, 0.15)], 1)], 1)
    grid = torch.nn.functional.affine_grid(theta, [n, *x.shape[1:]], align_corners=False)
    changed = torch.nn.functional.grid_sample(x[label == 1], grid, padding_mode="reflection", align_corners=False)
    grey = changed.mean(1, keepdim=True)
    changed = grey + uniform(0, 1.5, 1, 1, 1) * (changed - grey)
    changed = uniform(0.7, 1.3, 1, 1, 1) * changed + uniform(-0.2, 0.2, 3, 1, 1)
    x = x.clone()
    x[label == 1] = changed.clamp(-1, 1)
    return x, label
