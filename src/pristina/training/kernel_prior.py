"""Train a diffusion prior of blur kernels, for BlindDPS: ``pristina train kernel-prior``.

Kernels are drawn on the fly from the project's own generators, so nothing has to be downloaded and
no kernel comes twice.

Source:
    Chung et al., "Parallel diffusion models of operator and image for blind inverse problems", CVPR
    2023, appendix: 50,000 motion kernels of intensity U(0.2, 1) to 10,000 Gaussian ones of sigma
    U(0.1, 5) px, all 64 x 64 and scaled to [-1, 1]. Differences: the kernels are as large as asked,
    and sigma in proportion; each is divided by its maximum (how they are scaled there is not said);
    kernels have a middle pixel while the network needs an even side, so the last row and column
    stay black; a small flow-matching network is trained for minutes in place of three million
    steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from pristina.operators.kernels import gaussian_kernel, motion_kernel
from pristina.priors.patch_unet import PatchUNet
from pristina.training.loop import train
from pristina.training.prior import FlowTask, PriorTraining
from pristina.training.schedule import Schedule

INTENSITY = (0.2, 1.0)
SIGMA_PX = (0.1, 5.0)  # at 64 px
SHARE_MOTION = 5 / 6
N_HELD_OUT = 300


@dataclass(frozen=True)
class KernelTraining(PriorTraining):
    """Say which kernels to learn, with which network; see also :class:`PriorTraining`.

    ``size_px`` is the side of the network's pictures, even; the kernels in them have a side of one
    less.
    """

    domain: str = "blur kernels: traces of a shaking camera, and Gaussians"
    size_px: int = 32
    channels: tuple[int, ...] = (32, 64, 96)
    augment: float = 0.0

    def network_settings(self) -> dict[str, Any]:
        """Return the settings of a :class:`PatchUNet` of one channel without labels."""
        return super().network_settings() | {"inputs": 1, "outputs": 1, "labels": 0}


def draw_kernel(size_px: int, generator: torch.Generator) -> Tensor:
    """Draw a kernel in the form that the network takes.

    Args:
        size_px: Side of the network's pictures, even.
        generator: Generator from which the kernel is drawn.

    Returns:
        The kernel, uint8 (1, size_px, size_px); its largest value is 255, and the last row and
        column are 0.
    """
    which, place = torch.rand(2, generator=generator).tolist()
    side = size_px - 1
    if which < SHARE_MOTION:
        low, high = INTENSITY
        kernel = motion_kernel(side, low + (high - low) * place, generator)
    else:
        low, high = SIGMA_PX
        kernel = gaussian_kernel(side, (low + (high - low) * place) * size_px / 64)
    return F.pad(255 * kernel[0] / kernel.max(), (0, 1, 0, 1)).round().byte()


class KernelStream(Dataset[Tensor]):
    """Draw kernels without end, uint8 (1, size_px, size_px).

    Args:
        size_px: Side of the network's pictures.
        seed: Seed of what is drawn; item ``i`` depends on it and on ``i`` alone.
        length: Number of items.
    """

    def __init__(self, size_px: int, *, seed: int = 0, length: int = 2**31):
        self.size_px, self.seed, self.length = size_px, seed, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, item: int) -> Tensor:
        return draw_kernel(self.size_px, torch.Generator().manual_seed(self.seed * 2**31 + item))


class KernelTask(FlowTask):
    """Learn kernels by the flow-matching objective."""

    def header(self) -> dict[str, Any]:
        """Return what the weight file's metadata say beside the network's settings."""
        return super().header() | {"kind": "kernel-prior"}


def train_kernel_prior(
    out: Path, settings: KernelTraining, schedule: Schedule, *, resume: bool | Path = False
) -> Path:
    """Train a prior of kernels and write its weights.

    Args:
        out: Path of the weights, ``NAME.safetensors``.
        settings: Which kernels are learned, with which network.
        schedule: How long and how fast.
        resume: Whether to go on with the run that was interrupted, or the path of a state.

    Returns:
        ``out``.
    """
    test = KernelStream(settings.size_px, seed=schedule.seed + 1)
    held_out = torch.stack([test[i] for i in range(N_HELD_OUT)])
    torch.manual_seed(schedule.seed)
    network = PatchUNet(settings.network_settings())
    stream = KernelStream(settings.size_px, seed=schedule.seed)
    return train(network, KernelTask(settings, held_out), stream, schedule, out, resume=resume)
