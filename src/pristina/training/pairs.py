"""Pairs for training, clean and degraded: drawn on the fly from clean pictures, or read from folders of pairs.

Item ``i`` of a stream depends on the seed and on ``i`` alone, whoever computes it: float32 (2, 3, H, W) in [0, 1], clean first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from pristina.errors import InputError, SettingError
from pristina.training.data import PictureStream, list_pictures, to_tensor
from pristina.training.loop import Stream
from pristina.training.recipes import MARGIN_PX, Recipe, convolve, degrade, down_up, jpeg, kernel, recipe

HeldOut = dict[str, Tensor]
"""Pairs that are never trained on, by name: (n, 2, 3, H, W) in [0, 1], clean first."""

CLEAN_NAMES = {"clean": "degraded", "sharp": "blur", "target": "source"}
"""Sister folders of pairs, clean to degraded: plain, GoPro, DPDD."""


@dataclass(frozen=True)
class PairTraining:
    """From which pairs, with which network: the same for InDI and for the conditional DDPM.

    Attributes:
        domain: One sentence about the pictures and their damage, kept with the weights.
        recipe: The damage drawn on the fly: a name in :data:`pristina.training.recipes.RECIPES`; None for folders of pairs.
        size_px: Side of the training crops.
        channels: Widths of the network, fine to coarse.
        layers: Residual blocks a level.
        patch: Pixels that are folded into channels, a side.
    """

    domain: str
    recipe: str | None = "photos-blind"
    size_px: int = 64
    channels: tuple[int, ...] = (32, 64, 128)
    layers: int = 1
    patch: int = 2

    def network_settings(self, inputs: int) -> dict[str, Any]:
        """What :class:`PatchUNet` needs; no layer depends on the size of the picture."""
        return {
            "channels": list(self.channels), "layers": self.layers, "patch": self.patch, "attention": False,
            "norm": "pixel", "head": "linear", "inputs": inputs, "outputs": 3, "labels": 0,
        }  # fmt: skip

    def header(self) -> dict[str, Any]:
        """What goes into the weight file."""
        return {"domain": self.domain, "recipe": self.recipe, "size_px": self.size_px}


class DegradedStream(PictureStream):
    """Clean crops and what a recipe makes of them.

    Args:
        paths: The clean pictures.
        size_px: The side of what is returned.
        recipe: What may happen to them.
        weights: File-name prefix to the number of times such a picture counts; others count once.
        seed: Two streams with the same seed hold the same items.
        flip: Mirror half of the crops.
    """

    def __init__(
        self,
        paths: list[Path],
        size_px: int,
        recipe: Recipe,
        *,
        weights: Mapping[str, float] | None = None,
        seed: int = 0,
        flip: bool = True,
    ):
        super().__init__(paths, size_px + 2 * MARGIN_PX, crop="random", weights=weights, seed=seed, max_zoom=2.0, flip=flip)
        self.recipe = recipe

    def __getitem__(self, item: int) -> Tensor:
        random = np.random.default_rng((self.seed, item, 1))
        x = super().__getitem__(item).float() / 255
        pair = torch.stack([x, degrade(self.recipe, x, random)])
        # JPEG's grid begins at the corner of most pictures, and anywhere in those that were cut afterwards
        top, left = MARGIN_PX + (random.integers(-8, 8, 2) if random.random() < 0.25 else np.zeros(2, int))
        side = self.size_px - 2 * MARGIN_PX
        return pair[..., top : top + side, left : left + side]


class PairStream(Dataset[Tensor]):
    """Crops from the same place of two pictures.

    Args:
        pairs: Clean and degraded files; a degraded one that is smaller is brought to the clean one's size bicubically.
        size_px: The side of what is returned.
        seed: Two streams with the same seed hold the same items.
        flip: Mirror half of the crops.
        keep_bytes: Decoded pictures are kept up to this much memory.
    """

    def __init__(
        self,
        pairs: list[tuple[Path, Path]],
        size_px: int,
        *,
        seed: int = 0,
        flip: bool = True,
        keep_bytes: int = 2**31,
        length: int = 2**31,
    ):
        self.pairs, self.size_px, self.seed, self.flip, self.length = pairs, size_px, seed, flip, length
        self.keep_bytes = keep_bytes
        self.kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return self.length

    def _pair(self, index: int) -> Tensor:
        if index in self.kept:
            return self.kept[index]
        with Image.open(self.pairs[index][0]) as file:
            clean = file.convert("RGB")
        with Image.open(self.pairs[index][1]) as file:
            degraded = file.convert("RGB")
        if min(clean.size) < self.size_px:
            raise InputError(f"{self.pairs[index][0]} is smaller than the crops of {self.size_px} px to be cut from it.")
        if degraded.size != clean.size:
            across, down = clean.width / degraded.width, clean.height / degraded.height
            if abs(across - down) > 0.05 * across or across < 1:
                raise InputError(f"{self.pairs[index][1]} {degraded.size} is no smaller copy of {self.pairs[index][0]} {clean.size}.")
            degraded = degraded.resize(clean.size, Image.Resampling.BICUBIC)
        pair = torch.stack([to_tensor(clean), to_tensor(degraded)])
        if (len(self.kept) + 1) * pair.numel() <= self.keep_bytes:
            self.kept[index] = pair
        return pair

    def __getitem__(self, item: int) -> Tensor:
        random = np.random.default_rng((self.seed, item))
        pair = self._pair(int(random.integers(len(self.pairs))))
        top = int(random.integers(pair.shape[-2] - self.size_px + 1))
        left = int(random.integers(pair.shape[-1] - self.size_px + 1))
        cut = pair[..., top : top + self.size_px, left : left + self.size_px].float() / 255
        return cut.flip(-1) if self.flip and random.random() < 0.5 else cut


def list_pairs(folder: Path, degraded: Path | None = None) -> list[tuple[Path, Path]]:
    """Clean and degraded files that belong together.

    Args:
        folder: With ``degraded``, the clean pictures. Without, a folder that holds pairs: ``clean`` and ``degraded`` with the same names
            inside; GoPro (``SCENE/sharp`` and ``SCENE/blur``); DPDD (``train_c/target`` and ``train_c/source``, whose names differ and
            whose sorted order agrees); or DIV2K (``DIV2K_train_HR`` and ``DIV2K_train_LR_bicubic/X4``, ``0001.png`` and ``0001x4.png``).
        degraded: The degraded pictures, with the same names.

    Raises:
        InputError: Nothing there is a pair, or a picture has no partner.
    """
    if degraded:
        return _same_names(folder, degraded)
    pairs = []
    for clean in sorted(p for p in [folder, *folder.rglob("*")] if p.is_dir()):
        partner = clean.with_name(CLEAN_NAMES.get(clean.name, "")) if clean.name in CLEAN_NAMES else None
        if clean.name.startswith("DIV2K_") and clean.name.endswith("_HR"):
            pairs += _div2k(clean)
        elif partner and partner.is_dir():
            pairs += _same_order(clean, partner) if clean.name == "target" else _same_names(clean, partner)
    if not pairs:
        raise InputError(
            f"{folder} holds no pairs: it needs sister folders such as clean and degraded, or a folder of degraded pictures named."
        )
    return pairs


def _same_names(clean: Path, degraded: Path) -> list[tuple[Path, Path]]:
    partners = {p.relative_to(degraded).with_suffix(""): p for p in list_pictures(degraded)}
    paths = list_pictures(clean)
    alone = [p for p in paths if p.relative_to(clean).with_suffix("") not in partners]
    if alone:
        raise InputError(
            f"{len(alone)} of {len(paths)} clean pictures have no partner of the same name in {degraded}; {alone[0]} is the first."
        )
    return [(p, partners[p.relative_to(clean).with_suffix("")]) for p in paths]


def _same_order(clean: Path, degraded: Path) -> list[tuple[Path, Path]]:
    a, b = list_pictures(clean), list_pictures(degraded)
    if len(a) != len(b):
        raise InputError(f"{clean} holds {len(a)} pictures and {degraded} {len(b)}; they are paired in sorted order and must be as many.")
    return list(zip(a, b, strict=True))


def _div2k(clean: Path) -> list[tuple[Path, Path]]:
    stem = clean.name.removesuffix("_HR")
    low = [p for folder in sorted(clean.parent.glob(f"{stem}_LR_*")) for p in list_pictures(folder)]
    pairs = [(path, p) for path in list_pictures(clean) for p in low if p.stem.split("x")[0] == path.stem]
    if not pairs:
        raise InputError(f"{clean} has no low-resolution pictures beside it ({stem}_LR_bicubic, say).")
    return pairs


def held_out_pairs(paths: list[Path], size_px: int, mixture: Recipe, n: int = 24) -> HeldOut:
    """The centre of each of the first ``n`` pictures: with the recipe's own damage, and with four that are always the same."""
    side = size_px + 2 * MARGIN_PX
    whole = []
    for path in paths[:n]:
        with Image.open(path) as file:
            x = to_tensor(file.convert("RGB")).float() / 255
        top, left = (x.shape[-2] - side) // 16 * 8, (x.shape[-1] - side) // 16 * 8
        if min(top, left) < 0:
            raise InputError(f"{path} is smaller than the {side} px that a held-out crop and its margin need.")
        whole.append(x[:, top : top + side, left : left + side])
    random = np.random.default_rng(1)
    disc = kernel("defocus", 2.0, random)
    ways = {
        "mixture": [degrade(mixture, x, np.random.default_rng((1, i))) for i, x in enumerate(whole)],
        "jpeg10": [jpeg(x, 10) for x in whole],
        "noise25": [x + 25 / 255 * torch.from_numpy(random.standard_normal(x.shape, np.float32)) for x in whole],
        "x4": [down_up(x, 4) for x in whole],
        "defocus2": [convolve(x, disc) for x in whole],
    }
    cut = slice(MARGIN_PX, MARGIN_PX + size_px)
    x = torch.stack(whole)
    return {name: torch.stack([x, torch.stack(y)], 1)[..., cut, cut] for name, y in ways.items()}


def open_pairs(
    data: Path,
    settings: PairTraining,
    *,
    degraded: Path | None = None,
    held_out: Path | None = None,
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
) -> tuple[Stream, HeldOut]:
    """The stream to train on, and pairs that are not in it.

    Args:
        data: Clean pictures for a recipe; for ``settings.recipe=None``, what :func:`list_pairs` takes.
        degraded: See :func:`list_pairs`.
        held_out: Clean pictures, or pairs, for the held-out figures; without it every 30th of ``data`` is set aside.
        weights: File-name prefix to how often such a picture counts (for a recipe).
        seed: Of the stream.
    """
    size = settings.size_px
    if settings.recipe is None:
        pairs = list_pairs(data, degraded)
        test_pairs = list_pairs(held_out) if held_out else pairs[::30]
        if not held_out:
            pairs = [p for i, p in enumerate(pairs) if i % 30]
        if not pairs:
            raise InputError(f"{data} holds one pair only; one is set aside for the held-out figures, so at least two are needed.")
        test = PairStream(test_pairs, size, seed=1, flip=False)
        return PairStream(pairs, size, seed=seed), {"pairs": torch.stack([test[i] for i in range(24)])}
    if degraded:
        raise SettingError(f"Degraded pictures were given and a recipe ({settings.recipe}) too: set recipe to None, or leave them out.")
    paths = list_pictures(data)
    test_paths = list_pictures(held_out) if held_out else paths[::30]
    if not held_out:
        paths = [p for i, p in enumerate(paths) if i % 30]
    damage = recipe(settings.recipe)
    stream = DegradedStream(paths, size, damage, weights=weights, seed=seed)
    return stream, held_out_pairs(test_paths, max(size, 96), damage)


def gain(found: Tensor, pair: Tensor) -> float:
    """By how many dB the PSNR of ``found`` (n, 3, H, W) exceeds that of the degraded pictures, mean over (n, 2, 3, H, W) pairs."""
    x, y = pair.unbind(1)
    # 1e-6: beyond 60 dB nothing is gained or lost
    errors = [(v.clamp(0, 1) - x).square().mean((1, 2, 3)).clamp(min=1e-6) for v in (y, found)]
    return float((10 * (errors[0] / errors[1]).log10()).mean())


def write_grid(columns: list[Tensor], path: Path) -> None:
    """Pictures (n, 3, H, W) in [0, 1] side by side, one row for each of the n."""
    rows = torch.cat([torch.cat(list(column), -2) for column in columns], -1)
    Image.fromarray((255 * rows).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()).save(path)
