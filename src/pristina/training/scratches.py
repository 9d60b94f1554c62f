"""Train the network that finds dust, scratches, cracks, tears and stains: ``pristina train
scratches``.

The marks are drawn on crops of clean photographs, see :mod:`pristina.training.marks`; some crops
get none, so that the network learns what lines photographs have of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from pristina.errors import SettingError
from pristina.priors.residual import ResidualUNet
from pristina.priors.scratches import marks_logit
from pristina.settings import Count, Settings
from pristina.training.data import PictureStream
from pristina.training.loop import train
from pristina.training.marks import aged, draw_marks, scanned
from pristina.training.pairs import write_grid
from pristina.training.schedule import Schedule
from pristina.training.validation import divided

CLEAN_SHARE = 0.3
"""Share of the crops that get no marks."""
N_HELD_OUT = 96
"""Number of crops on which progress is measured."""
THRESHOLDS = (0.5, 0.7, 0.8, 0.9)
"""Probabilities from which a pixel is taken for a mark in the held-out figures."""


@dataclass(frozen=True)
class ScratchTraining(Settings):
    """Say what is learned, with which network.

    Attributes:
        size_px: Side of the crops in pixels.
        channels: Widths of the network, from fine to coarse.
        layers: Residual blocks on each level.
        domain: One sentence about the pictures, kept with the weights.
    """

    size_px: Count = 128
    channels: tuple[Count, ...] = (24, 48, 96)
    layers: Count = 1
    domain: str = "photographs with dust, scratches, cracks, tears and stains"

    def __post_init__(self) -> None:
        super().__post_init__()
        multiple = 2 ** len(self.channels)
        if self.size_px % multiple:
            raise SettingError(
                f"size_px must be a multiple of {multiple} for this network, not {self.size_px}."
            )

    def network_settings(self) -> dict[str, Any]:
        """Return the settings of a :class:`ResidualUNet` with one channel for its answer."""
        return {
            "architecture": "residual",
            "channels": list(self.channels),
            "layers": self.layers,
            "patch": 2,
            "inputs": 3,
            "outputs": 1,
        }


class MarkedStream(Dataset[Tensor]):
    """Crops with marks, their mask, and which pixels count: (5, H, W), float16, in [0, 1].

    Args:
        pictures: Clean crops, uint8 (3, H, W).
        seed: Seed of what is drawn; item ``i`` depends on it and on ``i`` alone.
    """

    def __init__(self, pictures: PictureStream, seed: int = 0):
        self.pictures, self.seed = pictures, seed

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, item: int) -> Tensor:
        random = np.random.default_rng((19, self.seed, item))
        x = aged(self.pictures[item].float() / 255, random)
        if random.random() < CLEAN_SHARE:
            y, mask, counts = x, torch.zeros_like(x[:1]), torch.ones_like(x[:1])
        else:
            y, mask, counts = draw_marks(x, random)
        return torch.cat([scanned(y, random), mask, counts]).half()


class ScratchTask:
    """Minimise the cross entropy of each pixel that counts.

    Args:
        settings: What is learned.
        held_out: Items of a :class:`MarkedStream` that are not trained on, (n, 5, H, W).
    """

    def __init__(self, settings: ScratchTraining, held_out: Tensor):
        self.settings, self.held_out = settings, held_out

    def loss(self, network: nn.Module, batch: Tensor, random: torch.Generator) -> Tensor:
        """Return the mean loss of a batch of items, (B, 5, H, W)."""
        device = next(network.parameters()).device
        y, mask, counts = batch.float().to(device).split([3, 1, 1], 1)
        answer = marks_logit(network, y)
        each = F.binary_cross_entropy_with_logits(answer, mask, reduction="none")
        return (counts * each).sum() / counts.sum()

    @torch.no_grad()
    def probabilities(self, network: nn.Module) -> Tensor:
        """Return the answers for the held-out items, (n, 1, H, W), in [0, 1]."""
        device = next(network.parameters()).device
        answers = [
            marks_logit(network, part.to(device)).cpu()
            for part in self.held_out[:, :3].float().split(8)
        ]
        return torch.cat(answers).sigmoid()

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Return recall and precision over all held-out pixels that count."""
        found, figures = self.probabilities(network), {}
        mask, counts = self.held_out[:, 3:4] > 0, self.held_out[:, 4:] > 0
        for threshold in THRESHOLDS:
            taken = (found > threshold) & counts
            hits = float((taken & mask).sum())
            figures[f"recall_{threshold:g}"] = hits / max(1.0, float(mask.sum()))
            figures[f"precision_{threshold:g}"] = hits / max(1.0, float(taken.sum()))
        return figures

    def sample(self, network: nn.Module, path: Path) -> None:
        """Write pictures with marks, the answers and the masks."""
        n = 16
        answers = self.probabilities(network)[:n].expand(-1, 3, -1, -1)
        rows = [self.held_out[:n, :3].float(), answers, self.held_out[:n, 3:4].float()]
        write_grid([rows[0], rows[1], rows[2].expand(-1, 3, -1, -1)], path)

    def header(self) -> dict[str, Any]:
        """Return what the weight file's metadata say beside the network's settings."""
        return {"kind": "scratches", "domain": self.settings.domain, "predicts": "mask"}


def train_scratches(
    data: list[Path],
    out: Path,
    settings: ScratchTraining,
    schedule: Schedule,
    *,
    weights: Mapping[str, float] | None = None,
    resume: bool | Path = False,
) -> Path:
    """Train a finder of marks and write its weights.

    Args:
        data: Folders of clean photographs; the first gives the held-out ones.
        out: Path of the weights, ``NAME.safetensors``.
        settings: What is learned, with which network.
        schedule: How long and how fast.
        weights: Prefix of a file name to how often such a picture counts.
        resume: Whether to go on with the run that was interrupted, or the path of a state.

    Returns:
        ``out``.
    """
    paths, validation = divided(data)
    side, seed = settings.size_px, schedule.seed
    test = MarkedStream(PictureStream(validation, side, crop="random", seed=101), seed=101)
    held_out = torch.stack([test[i] for i in range(N_HELD_OUT)])
    torch.manual_seed(seed)
    network = ResidualUNet(settings.network_settings())
    pictures = PictureStream(paths, side, crop="random", weights=weights, seed=seed)
    task = ScratchTask(settings, held_out)
    return train(network, task, MarkedStream(pictures, seed), schedule, out, resume=resume)
