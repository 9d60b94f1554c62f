"""Train a diffusion prior: ``pristina train prior``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from pristina.errors import CheckpointError, InputError, PictureError, SettingError
from pristina.priors.checkpoints.format import read_tensors
from pristina.priors.checkpoints.header import read_header
from pristina.priors.network import complete
from pristina.priors.patch_unet import PatchUNet
from pristina.training.data import Crop, PictureStream, augment, list_pictures, to_stderr
from pristina.training.loop import start_from, train
from pristina.training.schedule import Schedule
from pristina.training.validation import held_out_share

HELD_OUT_TIMES = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
MAX_HELD_OUT = 300
MIN_HELD_OUT = 64


@dataclass(frozen=True)
class PriorTraining:
    """Say what to learn, from what, with which network.

    Attributes:
        domain: One sentence about the pictures, kept with the weights.
        size_px: Side of the training pictures.
        crop: ``whole`` pictures (all alike, aligned) or ``random`` crops of them.
        channels: Widths of the network, from fine to coarse.
        layers: Residual blocks on each level.
        patch: Side in pixels of the squares that are folded into channels.
        attention: Whether there is self-attention on the coarsest level.
        norm: ``group``, or ``pixel`` for a network that must not depend on the size of the picture.
        head: ``norm`` or ``linear``, see :class:`PatchUNet`.
        augment: Share of the pictures that is changed more strongly and labelled as changed.
        fixed_size: Whether the prior makes sense only at ``size_px`` (aligned faces).
    """

    domain: str
    size_px: int = 64
    crop: Crop = "whole"
    channels: tuple[int, ...] = (64, 128, 256)
    layers: int = 1
    patch: int = 2
    attention: bool = True
    norm: str = "group"
    head: str = "norm"
    augment: float = 0.15
    fixed_size: bool = True

    def __post_init__(self) -> None:
        multiple = self.patch * 2 ** (len(self.channels) - 1)
        if self.size_px < 8 or self.size_px % multiple:
            raise SettingError(
                f"size_px must be a multiple of {multiple} for this network and at least 8, "
                f"not {self.size_px}."
            )

    def network_settings(self) -> dict[str, Any]:
        """Return the settings of the :class:`PatchUNet` that is trained."""
        return {
            "channels": list(self.channels),
            "layers": self.layers,
            "patch": self.patch,
            "attention": self.attention,
            "norm": self.norm,
            "head": self.head,
            "inputs": 3,
            "outputs": 3,
            "labels": 2,
        }


class FlowTask:
    """Predict ``eps - x0`` on the path ``x_u = (1 - u) x0 + u eps``, u logit-normal.

    Args:
        settings: What is learned.
        held_out: Pictures that are not trained on, uint8 (n, C, H, W).

    Source:
        Liu et al. 2023 (rectified flow); time density of Esser et al. 2024, section 3.1
        (logit-normal, mean 0, deviation 1).
    """

    def __init__(self, settings: PriorTraining, held_out: Tensor):
        self.settings = settings
        self.held_out = held_out.float() / 127.5 - 1

    def loss(self, network: nn.Module, batch: Tensor, random: torch.Generator) -> Tensor:
        """Return the mean loss of a batch of pictures, uint8 (B, C, H, W)."""
        x0, label = augment(batch.float().cpu() / 127.5 - 1, random, self.settings.augment)
        u = torch.randn(len(x0), generator=random).sigmoid()
        eps = torch.randn(x0.shape, generator=random)
        device = next(network.parameters()).device
        x0, eps, u = (v.to(device) for v in (x0, eps, u))
        label_in = label.to(device) if self.settings.augment else None
        w = u.view(-1, 1, 1, 1)
        x_u = ((1 - w) * x0 + w * eps).contiguous(memory_format=torch.channels_last)
        return (network(x_u, u, label_in) - (eps - x0)).square().mean()

    @torch.no_grad()
    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Return the PSNR of the one-call estimate of x0 at seven noise levels."""
        device = next(network.parameters()).device
        random = torch.Generator().manual_seed(0)
        figures = {}
        for u in HELD_OUT_TIMES:
            errors = []
            for x0 in self.held_out.split(50):
                eps = torch.randn(x0.shape, generator=random)
                x_u = ((1 - u) * x0 + u * eps).to(device)
                velocity = network(x_u, torch.full((len(x0),), u, device=device))
                estimate = (x_u - u * velocity).clamp(-1, 1)
                errors.append((estimate.cpu() - x0).square().mean((1, 2, 3)) / 4)
            figures[f"psnr_at_{u}"] = float((-10 * torch.cat(errors).log10()).mean())
        return figures

    @torch.no_grad()
    def sample(self, network: nn.Module, path: Path) -> None:
        """Write a grid of 32 generated pictures, 20 steps each."""
        side = self.settings.size_px
        device = next(network.parameters()).device
        channels = self.held_out.shape[1]
        random = torch.Generator().manual_seed(1)
        x = torch.randn(32, channels, side, side, generator=random).to(device)
        times = torch.linspace(1, 0, 21) ** 1.2
        for u, v in pairwise(times):
            velocity = network(x, u.to(device).expand(len(x)))
            x0 = (x - u * velocity).clamp(-1, 1)
            x = x0 + v / u * (x - x0)
        pixels = ((x.cpu() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
        grid = pixels.view(4, 8, side, side, channels).permute(0, 2, 1, 3, 4)
        grid = grid.reshape(4 * side, 8 * side, channels)
        Image.fromarray(grid.squeeze(2).numpy()).save(path)

    def header(self) -> dict[str, Any]:
        """Return what the weight file's metadata say beside the network's settings."""
        s = self.settings
        own = {"domain": s.domain, "size_px": s.size_px, "fixed_size": s.fixed_size}
        return {"kind": "prior", "prediction": "flow"} | own


def start_from_regressor(network: PatchUNet, path: Path) -> None:
    """Begin with a regressor of the same shape (pictures in, pictures out, no labels).

    Its estimate of x0 is ``x_t + t n(x_t, t)``, and that of a flow is ``x_u - u v(x_u, u)``: v =
    -n. What it knows of noise and blur is of use at once; see benchmarks/priors.md.

    Args:
        network: The network, changed in place.
        path: Weights of the regressor.

    Raises:
        CheckpointError: The regressor has another shape.
    """
    header = read_header(path)
    old = header["network"] if header else {}
    labels = {"labels": network.settings["labels"]}
    if complete(old) | labels != network.settings:
        raise CheckpointError(f"{path} holds another network than {network.settings}.")
    tensors = read_tensors(path)
    for name in ("unet.conv_out.weight", "unet.conv_out.bias"):
        tensors[name] = -tensors[name]
    label = "unet.class_embedding.weight"
    network.load_state_dict(tensors | {label: torch.zeros_like(network.state_dict()[label])})


def train_prior(
    data: Path,
    out: Path,
    settings: PriorTraining,
    schedule: Schedule,
    *,
    held_out: Path | None = None,
    weights: Mapping[str, float] | None = None,
    start: Path | None = None,
    resume: bool | Path = False,
) -> Path:
    """Train a prior on the pictures of a folder and write its weights.

    Args:
        data: Folder of clean pictures.
        out: Path of the weights, ``NAME.safetensors``.
        settings: What is learned, with which network.
        schedule: How long and how fast.
        held_out: Folder of pictures for the held-out figures; without it every 30th file of
            ``data`` is set aside.
        weights: Prefix of a file name to how often such a picture counts.
        start: Weights to begin with: of the same network (trained on smaller pictures, say), of one
            with fewer levels, or of a regressor.
        resume: Whether to go on with the run that was interrupted, or the path of a state.

    Returns:
        ``out``.
    """
    paths = list_pictures(data)
    test_paths = list_pictures(held_out) if held_out else held_out_share(paths)
    if not held_out:
        paths = [path for path in paths if path not in set(test_paths)]
    if not paths:
        raise InputError(f"{data} holds one picture only; training needs at least two.")
    pixels = held_out_crops(test_paths, settings)
    torch.manual_seed(schedule.seed)
    network = PatchUNet(settings.network_settings())
    if start and (read_header(start) or {}).get("kind") == "indi":
        start_from_regressor(network, start)
    elif start:
        start_from(network, start)
    stream = PictureStream(
        paths, settings.size_px, crop=settings.crop, weights=weights, seed=schedule.seed
    )
    return train(network, FlowTask(settings, pixels), stream, schedule, out, resume=resume)


def held_out_crops(paths: list[Path], settings: PriorTraining) -> Tensor:
    """Read the pictures on which a prior is measured.

    Args:
        paths: Files that are not trained on; those that cannot be read are passed over.
        settings: What is learned.

    Returns:
        Whole pictures, or random crops of them, uint8 (n, 3, size_px, size_px).

    Raises:
        InputError: No file can be read.
    """
    stream = PictureStream(paths, settings.size_px, crop=settings.crop, seed=1, flip=False)
    n = min(MAX_HELD_OUT, max(MIN_HELD_OUT, len(paths)))
    if settings.crop == "random":
        return torch.stack([stream[i] for i in range(n)])
    crops = []
    for i in range(min(n, len(paths))):
        try:
            crops.append(stream.whole(i))
        except PictureError as error:
            to_stderr(f"Skipped: {error}")
    if not crops:
        raise InputError("None of the held-out pictures can be read.")
    return torch.stack(crops)
