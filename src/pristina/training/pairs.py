"""Pairs of a clean and a degraded picture: drawn on the fly, or read from folders of pairs.

Item ``i`` of a stream depends on the seed and on ``i`` alone, whichever process computes it. It is
float32 (2, 3, H, W) in [0, 1], the clean picture first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from pristina.errors import InputError, PictureError, SettingError
from pristina.settings import Count, Settings
from pristina.training.damage import faded, softened
from pristina.training.data import (
    KEEP_BYTES,
    PictureStream,
    Report,
    SkippedFiles,
    list_pictures,
    read_image,
    to_stderr,
    to_tensor,
)
from pristina.training.kernels import MARGIN_PX
from pristina.training.loop import Stream
from pristina.training.mixture import DegradationMixture, degrade, mixture
from pristina.training.validation import (
    HeldOut,
    divided,
    held_out_pairs,
    held_out_share,
    read_centres,
)

CLEAN_NAMES = {"clean": "degraded", "sharp": "blur", "target": "source"}
"""Sister folders of pairs, clean to degraded: plain, GoPro, DPDD."""

VALIDATION_PX = 160
"""Side of the validation crops where the pictures are large enough."""


@dataclass(frozen=True)
class PairTraining(Settings):
    """Say from which pairs to learn, with which network.

    Attributes:
        domain: One sentence about the pictures and their damage, kept with the weights.
        mixture: Damage drawn on the fly, by its name in
            :data:`pristina.training.mixture.MIXTURES`; None for folders of pairs.
        size_px: Side of the training crops.
        channels: Widths of the network, from fine to coarse.
        layers: Residual blocks on each level.
        patch: Side in pixels of the squares that are folded into channels.
    """

    domain: str
    mixture: str | None = "photographs"
    size_px: Count = 64
    channels: tuple[Count, ...] = (32, 64, 128)
    layers: Count = 1
    patch: Count = 2

    def network_settings(self, inputs: int) -> dict[str, Any]:
        """Return the settings of a :class:`PatchUNet` in which no layer depends on the size."""
        return {
            "channels": list(self.channels),
            "layers": self.layers,
            "patch": self.patch,
            "attention": False,
            "norm": "pixel",
            "head": "linear",
            "inputs": inputs,
            "outputs": 3,
            "labels": 0,
        }

    def header(self) -> dict[str, Any]:
        """Return what goes into the metadata of the weights."""
        return {"domain": self.domain, "mixture": self.mixture, "size_px": self.size_px}


@dataclass(frozen=True)
class PairFiles:
    """Say where the pictures of a training on pairs are.

    Attributes:
        data: Folders of clean pictures for a mixture; one folder of pairs, as :func:`list_pairs`
            takes it, without one.
        degraded: The degraded pictures, if ``data`` holds only the clean ones of the pairs.
        held_out: Clean pictures, or pairs, for the held-out figures; None sets some of ``data``
            aside, see :func:`pristina.training.validation.held_out_pictures`.
        weights: Prefix of a file name to how often such a picture counts (for a mixture).
    """

    data: tuple[Path, ...]
    degraded: Path | None = None
    held_out: Path | None = None
    weights: Mapping[str, float] | None = None


class DegradedStream(PictureStream):
    """Draw clean crops and what a mixture makes of them.

    Args:
        paths: The clean pictures.
        size_px: Side of an item.
        mixture: What may happen to them.
        weights: Prefix of a file name to the number of times such a picture counts; others count
            once.
        seed: Seed of what is drawn; two streams with the same seed hold the same items.
        flip: Whether half of the crops are mirrored, and a quarter transposed.
        report: Function that receives a sentence for each file that is passed over.
    """

    def __init__(
        self,
        paths: list[Path],
        size_px: int,
        mixture: DegradationMixture,
        *,
        weights: Mapping[str, float] | None = None,
        seed: int = 0,
        flip: bool = True,
        report: Report = to_stderr,
    ):
        super().__init__(
            paths,
            size_px + 2 * MARGIN_PX,
            crop="random",
            weights=weights,
            seed=seed,
            max_zoom=2.0,
            native_share=0.4,
            flip=flip,
            report=report,
        )
        self.mixture = mixture

    def __getitem__(self, item: int) -> Tensor:
        random = np.random.default_rng((self.seed, item, 1))
        x = super().__getitem__(item)
        if self.flip and random.random() < 0.25:
            x = x.transpose(1, 2)
        x = x.float() / 255
        if random.random() < 0.08:
            x = faded(x, random)
        elif random.random() < 0.04:
            x = (255 * x.mean(0, keepdim=True).expand(3, -1, -1)).round() / 255
        if self.mixture.keep_sharpness and random.random() < 0.4:
            x = softened(x, random)
        x = x.contiguous()
        pair = torch.stack([x, degrade(self.mixture, x, random)])
        # JPEG's grid begins at the corner of most pictures, and anywhere in those cut afterwards.
        off_grid = random.random() < 0.25
        shift = random.integers(-8, 8, 2) if off_grid else np.zeros(2, int)
        top, left = MARGIN_PX + shift
        side = self.size_px - 2 * MARGIN_PX
        return pair[..., top : top + side, left : left + side]


class PairStream(Dataset[Tensor]):
    """Cut crops from the same place of two pictures.

    Args:
        pairs: Clean and degraded files; a degraded one that is smaller is brought to the size of
            the clean one bicubically.
        size_px: Side of an item.
        seed: Seed of what is drawn; two streams with the same seed hold the same items.
        flip: Whether half of the crops are mirrored.
        keep_bytes: Memory for decoded pictures.
        length: Number of items.
        report: Function that receives a sentence for each pair that is passed over.
    """

    def __init__(
        self,
        pairs: list[tuple[Path, Path]],
        size_px: int,
        *,
        seed: int = 0,
        flip: bool = True,
        keep_bytes: int = KEEP_BYTES,
        length: int = 2**31,
        report: Report = to_stderr,
    ):
        self.pairs, self.size_px, self.seed = pairs, size_px, seed
        self.flip, self.keep_bytes, self.length = flip, keep_bytes, length
        self.kept: dict[int, Tensor] = {}
        self.kept_bytes = 0
        self.skipped = SkippedFiles(len(pairs), report)

    def __len__(self) -> int:
        return self.length

    def _pair(self, index: int) -> Tensor:
        """Return both pictures of a pair, uint8 (2, 3, H, W)."""
        if index in self.kept:
            return self.kept[index]
        clean, degraded = (read_image(path) for path in self.pairs[index])
        if min(clean.size) < self.size_px:
            raise PictureError(
                f"{self.pairs[index][0]} is smaller than the crops of {self.size_px} px "
                "to be cut from it."
            )
        if degraded.size != clean.size:
            across, down = clean.width / degraded.width, clean.height / degraded.height
            if abs(across - down) > 0.05 * across or across < 1:
                raise PictureError(
                    f"{self.pairs[index][1]} {degraded.size} is no smaller copy "
                    f"of {self.pairs[index][0]} {clean.size}."
                )
            degraded = degraded.resize(clean.size, Image.Resampling.BICUBIC)
        pair = torch.stack([to_tensor(clean), to_tensor(degraded)])
        if self.kept_bytes + pair.numel() <= self.keep_bytes:
            self.kept[index] = pair
            self.kept_bytes += pair.numel()
        return pair

    def __getitem__(self, item: int) -> Tensor:
        random = np.random.default_rng((self.seed, item))
        pair = self._drawn(random)
        top = int(random.integers(pair.shape[-2] - self.size_px + 1))
        left = int(random.integers(pair.shape[-1] - self.size_px + 1))
        cut = pair[..., top : top + self.size_px, left : left + self.size_px].float() / 255
        return cut.flip(-1) if self.flip and random.random() < 0.5 else cut

    def _drawn(self, random: np.random.Generator) -> Tensor:
        """Draw pairs until one can be used."""
        while True:
            index = int(random.integers(len(self.pairs)))
            if self.pairs[index][0] in self.skipped.paths:
                continue
            try:
                return self._pair(index)
            except PictureError as error:
                self.skipped.add(self.pairs[index][0], error)


def list_pairs(folder: Path, degraded: Path | None = None) -> list[tuple[Path, Path]]:
    """List the clean and degraded files that belong together.

    Args:
        folder: With ``degraded``, the clean pictures. Without, a folder that holds pairs: ``clean``
            and ``degraded`` with the same names inside; GoPro (``SCENE/sharp`` and ``SCENE/blur``);
            DPDD (``train_c/target`` and ``train_c/source``, whose names differ and whose sorted
            order agrees); or DIV2K (``DIV2K_train_HR`` and ``DIV2K_train_LR_bicubic/X4``,
            ``0001.png`` and ``0001x4.png``).
        degraded: The degraded pictures, with the same names.

    Returns:
        Pairs of paths, the clean picture first.

    Raises:
        InputError: Nothing there is a pair, or a picture has no partner.
    """
    if degraded:
        return _same_names(folder, degraded)
    pairs: list[tuple[Path, Path]] = []
    for clean in sorted(path for path in [folder, *folder.rglob("*")] if path.is_dir()):
        sister = CLEAN_NAMES.get(clean.name)
        partner = clean.with_name(sister) if sister else None
        if clean.name.startswith("DIV2K_") and clean.name.endswith("_HR"):
            pairs += _div2k(clean)
        elif partner and partner.is_dir():
            match = _same_order if clean.name == "target" else _same_names
            pairs += match(clean, partner)
    if not pairs:
        raise InputError(
            f"{folder} holds no pairs: it needs sister folders such as clean and degraded, "
            "or a folder of degraded pictures named."
        )
    return pairs


def _same_names(clean: Path, degraded: Path) -> list[tuple[Path, Path]]:
    found = list_pictures(degraded)
    partners = {path.relative_to(degraded).with_suffix(""): path for path in found}
    paths = list_pictures(clean)
    names = [path.relative_to(clean).with_suffix("") for path in paths]
    alone = [path for path, name in zip(paths, names, strict=True) if name not in partners]
    if alone:
        raise InputError(
            f"{len(alone)} of {len(paths)} clean pictures have no partner of the same name "
            f"in {degraded}; {alone[0]} is the first."
        )
    return [(path, partners[name]) for path, name in zip(paths, names, strict=True)]


def _same_order(clean: Path, degraded: Path) -> list[tuple[Path, Path]]:
    a, b = list_pictures(clean), list_pictures(degraded)
    if len(a) != len(b):
        raise InputError(
            f"{clean} holds {len(a)} pictures and {degraded} {len(b)}; "
            "they are paired in sorted order and must be as many."
        )
    return list(zip(a, b, strict=True))


def _div2k(clean: Path) -> list[tuple[Path, Path]]:
    stem = clean.name.removesuffix("_HR")
    folders = sorted(clean.parent.glob(f"{stem}_LR_*"))
    low = list_pictures(folders) if folders else []
    pairs = [
        (path, p) for path in list_pictures(clean) for p in low if p.stem.split("x")[0] == path.stem
    ]
    if not pairs:
        raise InputError(
            f"{clean} has no low-resolution pictures beside it ({stem}_LR_bicubic, say)."
        )
    return pairs


def open_pairs(
    files: PairFiles, settings: PairTraining, *, seed: int = 0
) -> tuple[Stream, HeldOut]:
    """Open the stream to train on, and pairs that are not in it.

    Args:
        files: Where the pictures are.
        settings: What is learned from them.
        seed: Seed of the stream.

    Returns:
        The stream, and the held-out pairs by name of their damage.

    Raises:
        InputError: There are no pictures or pairs, or too few.
        SettingError: Degraded pictures are given together with a mixture.
    """
    if settings.mixture is None:
        return _open_folders(files, settings.size_px, seed)
    if files.degraded:
        raise SettingError(
            f"Degraded pictures were given and a mixture ({settings.mixture}) too: "
            "set mixture to None, or leave them out."
        )
    damage = mixture(settings.mixture)
    if files.held_out:
        photographs = list_pictures(files.held_out)
        paths = [path for folder in files.data for path in list_pictures(folder)]
    else:
        paths, photographs = divided(files.data)
    crops = read_centres(photographs, max(settings.size_px, 96), VALIDATION_PX)
    stream = DegradedStream(paths, settings.size_px, damage, weights=files.weights, seed=seed)
    return stream, held_out_pairs(crops, damage)


def _open_folders(files: PairFiles, size_px: int, seed: int) -> tuple[Stream, HeldOut]:
    if len(files.data) != 1:
        raise SettingError("Pairs are read from one folder; give --data once.")
    pairs = list_pairs(files.data[0], files.degraded)
    if files.held_out:
        held_out = list_pairs(files.held_out)
    else:
        held_out = held_out_share(pairs)
        pairs = [pair for pair in pairs if pair not in held_out]
    if not pairs:
        raise InputError(
            f"{files.data[0]} holds one pair only; one is set aside for the held-out figures, "
            "so at least two are needed."
        )
    test = PairStream(held_out, size_px, seed=1, flip=False)
    crops = torch.stack([test[i] for i in range(24)])
    return PairStream(pairs, size_px, seed=seed), {"pairs": crops}


def psnr(images: Tensor, pair: Tensor) -> float:
    """Return the mean PSNR in dB of restored pictures, each at most 60 dB.

    Args:
        images: Restored pictures, (n, 3, H, W) in [0, 1].
        pair: Clean and degraded pictures, (n, 2, 3, H, W).
    """
    return float((-10 * _errors(images, pair).log10()).mean())


def gain(images: Tensor, pair: Tensor) -> float:
    """Return by how many dB restored pictures exceed the PSNR of the degraded ones, on average.

    Args:
        images: Restored pictures, (n, 3, H, W) in [0, 1].
        pair: Clean and degraded pictures, (n, 2, 3, H, W).
    """
    return psnr(images, pair) - psnr(pair[:, 1], pair)


def _errors(images: Tensor, pair: Tensor) -> Tensor:
    """Return the mean squared error of each picture, at least 1e-6."""
    return (images.clamp(0, 1) - pair[:, 0]).square().mean((1, 2, 3)).clamp(min=1e-6)


def write_grid(columns: Iterable[Tensor], path: Path) -> None:
    """Write pictures (n, 3, H, W) in [0, 1] side by side, one row for each of the n."""
    rows = torch.cat([torch.cat(list(column), -2) for column in columns], -1)
    levels = (255 * rows).round().clamp(0, 255).byte().permute(1, 2, 0)
    Image.fromarray(levels.contiguous().numpy()).save(path)
