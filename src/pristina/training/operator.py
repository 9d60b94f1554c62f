"""Train the regressor that is told the operator: ``pristina train operator``.

Clean crops go through random blurs, masks and reductions, and the network sees what the method
:mod:`pristina.methods.reconstruct` makes of them. In half of the cases the kernel that it is told
is slightly wrong, so that an estimated kernel is forgiven.

Source:
    Ours, see the method. The loss is that of :mod:`pristina.training.indi` under ``psnr``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pristina.errors import SettingError
from pristina.operators.base import Operator
from pristina.operators.kernels import defocus_kernel, gaussian_kernel, motion_kernel
from pristina.operators.mask import Mask
from pristina.operators.resample import Downsample
from pristina.priors.aware import MIDDLE_SCALE, N_SOLUTIONS, network_inputs, reconstructed
from pristina.priors.base import to_signed, to_unit
from pristina.priors.checkpoints.format import read_tensors
from pristina.priors.checkpoints.header import read_header
from pristina.priors.residual import ResidualUNet
from pristina.settings import Count, Settings
from pristina.training.data import PictureStream
from pristina.training.indi import FLOOR
from pristina.training.loop import start_from, train
from pristina.training.operator_cases import (
    LARGEST_PX,
    MULTIPLE,
    blurred_case,
    disturbed,
    draw_case,
    operator_case,
    split_cases,
)
from pristina.training.pairs import write_grid
from pristina.training.schedule import Schedule
from pristina.training.validation import divided, read_centres

AROUND_PX = 40
"""Pixels by which what is observed is larger than a crop of it, both sides together: a crop lies at
the border of an observation, or in its middle."""

HELD_OUT_PX, N_HELD_OUT = 120, 12
"""Side of the largest held-out crops, and their number."""


@dataclass(frozen=True)
class OperatorTraining(Settings):
    """Say what to learn, with which network.

    Attributes:
        domain: One sentence about the pictures and their damage, kept with the weights.
        size_px: Side of the training crops.
        channels: Widths of the network, from fine to coarse.
        layers: Residual blocks on each level.
    """

    domain: str = (
        f"photographs behind a blur of up to {LARGEST_PX} px that is known or nearly known, "
        "with lost pixels, or reduced by 2 to 4, and white noise of up to 50/255"
    )
    size_px: Count = 96
    channels: tuple[Count, ...] = (48, 96, 192)
    layers: Count = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        multiple = 2 * 2 ** (len(self.channels) - 1)
        if self.size_px % multiple:
            raise SettingError(
                f"size_px must be a multiple of {multiple} for this network, not {self.size_px}."
            )

    @property
    def side(self) -> int:
        """Return the side of what is observed, px."""
        return -(-(self.size_px + AROUND_PX) // MULTIPLE) * MULTIPLE

    def network_settings(self) -> dict[str, Any]:
        """Return the settings of a :class:`ResidualUNet`."""
        return {
            "architecture": "residual",
            "channels": list(self.channels),
            "layers": self.layers,
            "patch": 2,
            "inputs": network_inputs(3),
            "outputs": 3,
        }


class CaseStream(PictureStream):
    """Draw cases: clean crops, and what the network is told about them.

    An item is float32 (CHANNELS, size_px, size_px), see :mod:`pristina.training.operator_cases`.

    Args:
        paths: The clean pictures.
        settings: What is learned.
        weights: Prefix of a file name to the number of times such a picture counts.
        seed: Seed of what is drawn.
    """

    def __init__(
        self,
        paths: list[Path],
        settings: OperatorTraining,
        *,
        weights: Mapping[str, float] | None = None,
        seed: int = 0,
    ):
        self.settings = settings
        super().__init__(
            paths,
            settings.side + LARGEST_PX - 1,
            crop="random",
            weights=weights,
            seed=seed,
            max_zoom=2.0,
            native_share=0.4,
        )

    def __getitem__(self, item: int) -> Tensor:
        random = np.random.default_rng((23, self.seed, item))
        x = super().__getitem__(item).float() / 255
        if random.random() < 0.04:
            x = x.mean(0, keepdim=True).expand(3, -1, -1)
        if random.random() < 0.25:
            x = x.transpose(1, 2)
        size, side = self.settings.size_px, self.settings.side
        case = draw_case(x, side, random)
        # A quarter of the crops lie at each border.
        top, left = ((2 * random.random(2) - 0.5).clip(0, 1) * (side - size)).astype(int)
        return case[:, top : top + size, left : left + size]


def held_out_cases(crops: Tensor) -> dict[str, Tensor]:
    """Damage the held-out pictures in ways that no training draws exactly.

    Args:
        crops: Clean pictures, (n, 3, H, W), in [0, 1], of at least 84 px a side.

    Returns:
        Cases, (n, CHANNELS, side, side), by name of the damage: shake with noise of 1/255 and
        10/255, shake that is told wrongly, defocus, lost pixels, reduction by 3.
    """
    side = (crops.shape[-1] - LARGEST_PX + 1) // MULTIPLE * MULTIPLE
    found: dict[str, list[Tensor]] = {}
    for i, x in enumerate(crops):
        shake = motion_kernel(21, 0.5, torch.Generator().manual_seed(11_000 + i))
        disc = defocus_kernel(11, 4.0)
        wrong = disturbed(shake, 0.5, np.random.default_rng((11, i)))
        blurs = {
            "shake": (shake, shake, 1 / 255),
            "wrong": (shake, wrong, 1 / 255),
            "shake10": (shake, shake, 10 / 255),
            "defocus": (disc, disc, 1 / 255),
            "gaussian": (gaussian_kernel(11, 1.6), gaussian_kernel(11, 1.6), 1 / 255),
        }
        others: dict[str, Operator] = {"half": Mask(drop=0.5, seed=i), "x3": Downsample.area(3)}
        for name, (kernel, told, sigma) in blurs.items():
            random = np.random.default_rng((12, i))
            case = blurred_case(x, side, (kernel, told), (sigma, sigma), random)
            found.setdefault(name, []).append(case)
        for name, operator in others.items():
            random = np.random.default_rng((12, i))
            case = operator_case(x, side, operator, (2 / 255, 2 / 255), random)
            found.setdefault(name, []).append(case)
    return {name: torch.stack(cases) for name, cases in found.items()}


def mean_psnr(images: Tensor, clean: Tensor) -> float:
    """Return the mean PSNR in dB of images (n, 3, H, W), clipped, each at most 60 dB."""
    error = (images.clamp(0, 1) - clean).square().mean((1, 2, 3)).clamp(min=1e-6)
    return float((-10 * error.log10()).mean())


class OperatorTask:
    """Minimise the logarithm of each crop's squared error.

    Args:
        settings: What is learned.
        held_out: Cases that are not trained on, see :func:`held_out_cases`.
    """

    def __init__(self, settings: OperatorTraining, held_out: Mapping[str, Tensor]):
        self.settings, self.held_out = settings, held_out

    def loss(self, network: nn.Module, batch: Tensor, random: torch.Generator) -> Tensor:
        """Return the mean loss of a batch of cases, (B, CHANNELS, H, W)."""
        x, evidence, sigma = split_cases(batch.float().to(next(network.parameters()).device))
        error = reconstructed(network, evidence, sigma) - to_signed(x)
        return (error.square().mean((1, 2, 3)) + FLOOR).log().mean()

    @torch.no_grad()
    def restore(self, network: nn.Module, cases: Tensor) -> Tensor:
        """Return the restored pictures of some cases, a few at a time."""
        device, images = next(network.parameters()).device, []
        for part in cases.split(4):
            _, evidence, sigma = split_cases(part.to(device))
            images.append(to_unit(reconstructed(network, evidence, sigma)).cpu())
        return torch.cat(images).clamp(0, 1)

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Return PSNR in dB on held-out pictures, for each kind of damage."""
        return {
            f"psnr_{name}": mean_psnr(self.restore(network, cases), cases[:, :3])
            for name, cases in self.held_out.items()
        }

    def sample(self, network: nn.Module, path: Path) -> None:
        """Write observation, middle solution, result and truth: two pictures a kind of damage."""
        cases = torch.cat([cases[:2] for cases in self.held_out.values()])
        middle = 3 * (1 + N_SOLUTIONS // 2)
        x, evidence, _ = split_cases(cases)
        shown = evidence[:, :3], evidence[:, middle : middle + 3], self.restore(network, cases), x
        write_grid([image.clamp(0, 1) for image in shown], path)

    def header(self) -> dict[str, Any]:
        """Return what the weight file's metadata say beside the network's settings."""
        s = self.settings
        return {"kind": "operator", "predicts": "x0", "domain": s.domain, "size_px": s.size_px}


@torch.no_grad()
def start_from_regressor(network: ResidualUNet, path: Path) -> None:
    """Begin with the weights of the same network, or of a regressor that sees the picture only.

    Args:
        network: The network, changed in place.
        path: The weights.

    Raises:
        CheckpointError: The weights belong to a network that does not fit.
    """
    header = read_header(path)
    narrow = network.settings | {"inputs": 3}
    if header is None or header.get("network") != narrow:
        start_from(network, path)
        return
    tensors = read_tensors(path)
    # The middle solution comes first, and the time last.
    seen, cell = tensors["conv_in.weight"], 3 * network.patch**2
    whole = torch.zeros_like(network.conv_in.weight)
    whole[:, :cell] = seen[:, :cell] / MIDDLE_SCALE
    whole[:, -1:] = seen[:, -1:]
    network.load_state_dict(tensors | {"conv_in.weight": whole})


def train_operator(
    data: list[Path],
    out: Path,
    settings: OperatorTraining,
    schedule: Schedule,
    *,
    weights: Mapping[str, float] | None = None,
    start: Path | None = None,
    resume: bool | Path = False,
) -> Path:
    """Train an operator-aware regressor and write its weights.

    Args:
        data: Folders of clean pictures; the first, of photographs, gives the held-out ones.
        out: Path of the weights, ``NAME.safetensors``.
        settings: What is learned, with which network.
        schedule: How long and how fast.
        weights: Prefix of a file name to how often such a picture counts.
        start: Weights to begin with: of the same network, or of a regressor with the same widths
            and layers, which then denoises the middle solution.
        resume: Whether to go on with the run that was interrupted, or the path of a state.

    Returns:
        ``out``.
    """
    paths, photographs = divided(data)
    least = LARGEST_PX - 1 + MULTIPLE
    crops = read_centres(photographs, least, HELD_OUT_PX + LARGEST_PX - 1, N_HELD_OUT)
    task = OperatorTask(settings, held_out_cases(crops))
    stream = CaseStream(paths, settings, weights=weights, seed=schedule.seed)
    torch.manual_seed(schedule.seed)
    network = ResidualUNet(settings.network_settings())
    if start:
        start_from_regressor(network, start)
    return train(network, task, stream, schedule, out, resume=resume)
