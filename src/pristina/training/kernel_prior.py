"""Training a diffusion prior of blur kernels, for BlindDPS: ``pristina train kernel-prior``.

Kernels are drawn on the fly from the project's own generators, so nothing has to be downloaded and no kernel comes twice.

Source:
    Chung et al., "Parallel diffusion models of operator and image for blind inverse problems", CVPR 2023, appendix: 50,000 motion
    kernels of intensity U(0.2, 1) to 10,000 Gaussian ones of sigma U(0.1, 5) px, all 64 x 64 and scaled to [-1, 1]. Differences: the
    kernels are as large as asked, and sigma in proportion; each is divided by its maximum (how they are scaled there is not said); kernels
    have a middle pixel while the network needs an even side, so the last row and column stay black; a small flow-matching network trained
    for minutes in place of three million steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from pristina.errors import SettingError
from pristina.operators.kernels import gaussian_kernel, motion_kernel
from pristina.priors.network import PatchUNet
from pristina.training.loop import Schedule, train
from pristina.training.prior import FlowTask, PriorTraining

INTENSITY = (0.2, 1.0)
SIGMA_PX = (0.1, 5.0)  # at 64 px
SHARE_MOTION = 5 / 6
N_HELD_OUT = 300


@dataclass(frozen=True)
class KernelTraining(PriorTraining):
    """Which kernels to learn, with which network; the attributes are those of :class:`PriorTraining`.

    ``size_px`` is the side of the network's pictures, even; the kernels in them have a side of one less.
    """

    domain: str = "blur kernels: traces of a shaking camera, and Gaussians"
    size_px: int = 32
    channels: tuple[int, ...] = (32, 64, 96)
    augment: float = 0.0

    def __post_init__(self) -> None:
        multiple = self.patch * 2 ** (len(self.channels) - 1)
        if self.size_px < 8 or self.size_px % multiple:
            raise SettingError(f"size_px must be a multiple of {multiple} for this network and at least 8, not {self.size_px}.")

    def network_settings(self) -> dict[str, Any]:
        return super().network_settings() | {"inputs": 1, "outputs": 1, "labels": 0}


def draw_kernel(size_px: int, generator: torch.Generator) -> Tensor:
    """A kernel as the network sees it, uint8 (1, size_px, size_px): its largest value is 255, and the last row and column are 0."""
    which, place = torch.rand(2, generator=generator).tolist()
    low, high = INTENSITY if which < SHARE_MOTION else SIGMA_PX
    value = low + (high - low) * place
    side = size_px - 1
    kernel = motion_kernel(side, value, generator) if which < SHARE_MOTION else gaussian_kernel(side, value * size_px / 64)
    return F.pad(255 * kernel[0] / kernel.max(), (0, 1, 0, 1)).round().byte()


class KernelStream(Dataset[Tensor]):
    """Kernels without end, uint8 (1, size_px, size_px); item ``i`` depends on the seed and on ``i`` alone."""

    def __init__(self, size_px: int, *, seed: int = 0, length: int = 2**31):
        self.size_px, self.seed, self.length = size_px, seed, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, item: int) -> Tensor:
        return draw_kernel(self.size_px, torch.Generator().manual_seed(self.seed * 2**31 + item))


class KernelTask(FlowTask):
    """The flow-matching objective on kernels."""

    def header(self) -> dict[str, Any]:
        return super().header() | {"kind": "kernel-prior"}


def train_kernel_prior(out: Path, settings: KernelTraining, schedule: Schedule, *, resume: bool = False) -> Path:
    """Train a prior of kernels and write it to ``out`` (``NAME.safetensors``).

    Args:
        resume: Go on with the run that was interrupted.
    """
    test = KernelStream(settings.size_px, seed=schedule.seed + 1)
    held_out = torch.stack([test[i] for i in range(N_HELD_OUT)])
    torch.manual_seed(schedule.seed)
    network = PatchUNet(settings.network_settings())
    return train(network, KernelTask(settings, held_out), KernelStream(settings.size_px, seed=schedule.seed), schedule, out, resume=resume)
