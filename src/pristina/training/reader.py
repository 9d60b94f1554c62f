"""Train the network that reads damage off a picture: ``pristina train reader``.

An item is four crops of a picture whose damage was drawn, what that damage is, and how much each of
the shipped regressors gains on these crops. The gains cost most; so those of the specialists are
measured where their damage is and in some other pictures, and the items are computed once, kept in
a file beside the weights, and seen many times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from pristina.priors.direct import DirectPrior
from pristina.priors.load import load_weights
from pristina.priors.reader import CANDIDATES, CROP_PX, KINDS, LEVELS, ReaderNetwork
from pristina.settings import Count, Settings
from pristina.training.damage import eight_bits
from pristina.training.data import PictureStream
from pristina.training.kernels import MARGIN_PX
from pristina.training.labelled import draw_labelled
from pristina.training.loop import train
from pristina.training.pairs import write_grid
from pristina.training.schedule import Schedule
from pristina.training.validation import divided

N_CROPS = 4
"""Number of crops in an item: the quarters of a square."""
CROP_BYTES = N_CROPS * 3 * CROP_PX**2
N_LABELS = len(KINDS) + len(LEVELS) + 1 + len(CANDIDATES)
"""Numbers in an item beside its crops: kinds, levels, quality of the file, gains."""
BEST_DB = 48.0
"""PSNR from which two pictures count as equal."""
GAINS_DB = (-10.0, 16.0)
"""Bounds to which gains are clipped."""
SPECIALITY = {"jpeg": {"jpeg"}, "x4": {"enlarged", "blur"}}
"""The damage for which a specialist was trained."""
ELSEWHERE = 0.25
"""Share of the other pictures in which its gain is measured too."""
N_HELD_OUT = 400
"""Number of items on which progress is measured."""


@dataclass(frozen=True)
class ReaderTraining(Settings):
    """Say what is learned, with which network.

    Attributes:
        items: Number of different items.
        channels: Widths of the network, from fine to coarse.
        hidden: Width of its dense layers.
        domain: One sentence about the pictures, kept with the weights.
    """

    items: Count = 6000
    channels: tuple[Count, ...] = (32, 64, 96, 128)
    hidden: Count = 256
    domain: str = "photographs with noise, grain, JPEG compression, blur or enlargement"


class LabelledStream(Dataset[Tensor]):
    """Crops of damaged pictures and what there is to read in them, each uint8 (n_bytes,).

    Args:
        pictures: Squares of two crops a side and a margin, uint8 (3, H, W).
        priors: The regressors whose gains are measured, by the names in
            :data:`pristina.priors.reader.CANDIDATES`.
        seed: Seed of what is drawn; item ``i`` depends on it and on ``i`` alone.
    """

    def __init__(self, pictures: PictureStream, priors: Mapping[str, DirectPrior], seed: int = 0):
        self.pictures, self.priors, self.seed = pictures, priors, seed

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, item: int) -> Tensor:
        random = np.random.default_rng((23, self.seed, item))
        x, y, labels = draw_labelled(self.pictures[item].float() / 255, random)
        x, y = quarters(x), quarters(y)
        before = capped_psnr(y, x)
        gains = []
        for name, prior in self.priors.items():
            fit = name not in SPECIALITY or labels.kinds & SPECIALITY[name]
            measured = fit or random.random() < ELSEWHERE
            gains.append(capped_psnr(_answer(prior, y), x) - before if measured else math.nan)
        return pack(y, torch.cat([labels.tensor(), torch.tensor(gains)]))


def quarters(x: Tensor) -> Tensor:
    """Cut a square without its margin into four crops, (4, 3, h, w)."""
    inner = x[:, MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
    side = inner.shape[-1] // 2
    parts = inner.unflatten(2, (2, side)).unflatten(1, (2, side))
    return parts.permute(1, 3, 0, 2, 4).flatten(0, 1)


def pack(crops: Tensor, labels: Tensor) -> Tensor:
    """Put crops, in [0, 1], and labels into one row of bytes."""
    pixels = (255 * crops).round().byte().flatten()
    return torch.cat([pixels, labels.float().contiguous().view(torch.uint8)])


def unpack(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return crops, (B, K, 3, H, W) in [0, 1], and labels, (B, n), of rows of bytes."""
    pixels, labels = rows[:, :CROP_BYTES], rows[:, CROP_BYTES:]
    crops = pixels.unflatten(1, (N_CROPS, 3, CROP_PX, CROP_PX)).float() / 255
    return crops, labels.contiguous().view(torch.float32)


def capped_psnr(a: Tensor, b: Tensor) -> float:
    """Return the PSNR in dB over all pixels of a batch, at most :data:`BEST_DB`."""
    mse = float((a - b).square().mean())
    return min(BEST_DB, -10 * math.log10(max(mse, 1e-9)))


@torch.inference_mode()
def _answer(prior: DirectPrior, y: Tensor) -> Tensor:
    return eight_bits(prior.predict(y, 1.0))


class KeptItems(Dataset[Tensor]):
    """Compute the first items of a stream once, keep them in a file, and go through them again.

    Args:
        stream: The stream.
        n: Number of different items.
        path: The file; zeros stand where an item was not computed yet.
    """

    def __init__(self, stream: LabelledStream, n: int, path: Path):
        self.stream, self.n = stream, n
        shape = (n, CROP_BYTES + 4 * N_LABELS)
        with path.open("ab") as file:
            file.truncate(max(path.stat().st_size, shape[0] * shape[1]))
        self.rows = np.memmap(path, np.uint8, "r+", shape=shape)

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, item: int) -> Tensor:
        row = self.rows[item % self.n]
        if not row.any():
            row[:] = self.stream[item % self.n].numpy()
        return torch.from_numpy(np.array(row))


class ReaderTask:
    """Minimise the cross entropy of the kinds and Laplace's likelihood of levels and gains.

    Args:
        settings: What is learned.
        held_out: Rows of a :class:`LabelledStream` that are not trained on.
    """

    def __init__(self, settings: ReaderTraining, held_out: Tensor):
        self.settings, self.held_out = settings, held_out

    def loss(self, network: nn.Module, batch: Tensor, random: torch.Generator) -> Tensor:
        """Return the mean loss of a batch of rows; the crops are turned and mirrored at random."""
        crops, labels = unpack(batch)
        turn = torch.randint(8, (len(crops),), generator=random)
        crops = torch.stack([_turned(c, int(k)) for c, k in zip(crops, turn, strict=True)])
        device = next(network.parameters()).device
        crops, labels = crops.to(device), labels.to(device)
        kinds, values, file_quality = split(labels)
        logits, means, spreads = network(crops, file_quality)
        known = ~values.isnan()
        off = (values.nan_to_num() - means).abs() / spreads + spreads.log()
        entropy = F.binary_cross_entropy_with_logits(logits, kinds)
        return entropy + (off * known).sum() / known.sum()

    @torch.no_grad()
    def read(self, network: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, values and spreads of the held-out items."""
        device = next(network.parameters()).device
        parts = []
        for rows in self.held_out.split(25):
            crops, labels = unpack(rows)
            parts.append(network(crops.to(device), split(labels)[2].to(device)))
        return tuple(torch.cat(part).cpu() for part in zip(*parts, strict=True))  # type: ignore

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Return balanced accuracies, mean errors, and how many spreads hold their value."""
        logits, means, spreads = self.read(network)
        kinds, values, _ = split(unpack(self.held_out)[1])
        figures = {}
        for i, name in enumerate(KINDS):
            there, said = kinds[:, i] > 0.5, logits[:, i] > 0
            rates = [float((said[part] == there[part]).float().mean()) for part in (there, ~there)]
            figures[f"seen_{name}"] = sum(rates) / 2
        for i, name in enumerate((*LEVELS, *(f"gain_{name}" for name in CANDIDATES))):
            known = ~values[:, i].isnan()
            off = (means[known, i] - values[known, i]).abs()
            figures[f"off_{name}"] = float(off.mean())
            figures[f"held_{name}"] = float((off < spreads[known, i]).float().mean())
        return figures

    def sample(self, network: nn.Module, path: Path) -> None:
        """Write a crop of some held-out items."""
        write_grid([unpack(self.held_out[:16])[0][:, 0]], path)

    def header(self) -> dict[str, Any]:
        """Return what the weight file's metadata say beside the network's settings."""
        return {"kind": "reader", "domain": self.settings.domain, "predicts": "damage"}


def split(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return kinds, values (levels and gains, NaN where they mean nothing), and file qualities."""
    kinds, levels, quality, gains = labels.split([len(KINDS), len(LEVELS), 1, len(CANDIDATES)], 1)
    return kinds, torch.cat([levels, gains.clamp(*GAINS_DB)], 1), quality[:, 0]


def _turned(crops: Tensor, k: int) -> Tensor:
    """Turn crops by quarters, and mirror them, in one of eight ways."""
    crops = crops.rot90(k % 4, (-2, -1))
    return crops.flip(-1) if k >= 4 else crops


def train_reader(
    data: list[Path],
    out: Path,
    settings: ReaderTraining,
    schedule: Schedule,
    *,
    weights: Mapping[str, float] | None = None,
    resume: bool | Path = False,
) -> Path:
    """Train a damage reader and write its weights.

    Args:
        data: Folders of clean photographs; the first gives the held-out ones.
        out: Path of the weights, ``NAME.safetensors``; the items are kept in ``NAME.items`` and
            ``NAME.held-out`` beside it.
        settings: What is learned, with which network.
        schedule: How long and how fast.
        weights: Prefix of a file name to how often such a picture counts.
        resume: Whether to go on with the run that was interrupted, or the path of a state.

    Returns:
        ``out``.
    """
    stream, held_out = open_items(data, out, settings, weights=weights, seed=schedule.seed)
    torch.manual_seed(schedule.seed)
    network_settings = {
        "architecture": "reader",
        "channels": list(settings.channels),
        "hidden": settings.hidden,
    }
    network = ReaderNetwork(network_settings)
    rows = torch.stack([held_out[i] for i in range(N_HELD_OUT)])
    return train(network, ReaderTask(settings, rows), stream, schedule, out, resume=resume)


def open_items(
    data: list[Path],
    out: Path,
    settings: ReaderTraining,
    *,
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
) -> tuple[KeptItems, KeptItems]:
    """Open the items to train on and the held-out ones; see :func:`train_reader`."""
    paths, validation = divided(data)
    side = 2 * CROP_PX + 2 * MARGIN_PX
    priors = {name: load_weights("direct", name, dtype=torch.float32) for name in CANDIDATES}
    pictures = PictureStream(
        paths, side, crop="random", weights=weights, seed=seed, native_share=0.5
    )
    test = PictureStream(validation, side, crop="random", seed=101, native_share=0.5)
    return (
        KeptItems(
            LabelledStream(pictures, priors, seed), settings.items, out.with_suffix(".items")
        ),
        KeptItems(LabelledStream(test, priors, 101), N_HELD_OUT, out.with_suffix(".held-out")),
    )
