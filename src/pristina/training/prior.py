"""Training a diffusion prior: ``pristina train prior``."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from pristina.errors import CheckpointError
from pristina.priors.checkpoints.format import read_tensors
from pristina.priors.checkpoints.header import read_header
from pristina.priors.network import PatchUNet, complete
from pristina.training.data import Crop, PictureStream, augment, list_pictures
from pristina.training.loop import Schedule, start_from, train

HELD_OUT_TIMES = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)


@dataclass(frozen=True)
class PriorTraining:
    """What to learn, from what, with which network.

    Attributes:
        domain: One sentence about the pictures, kept with the weights.
        size_px: Side of the training pictures.
        crop: ``whole`` pictures (all alike, aligned) or ``random`` crops of them.
        channels: Widths of the network, fine to coarse.
        layers: Residual blocks a level.
        patch: Pixels that are folded into channels, a side.
        attention: Self-attention on the coarsest level.
        norm: ``group``, or ``pixel`` for a network that must not depend on the size of the picture.
        head: ``norm`` or ``linear``, as in :class:`PatchUNet`.
        augment: Share of pictures changed more strongly, told to the network so that it does not leak.
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

    def network_settings(self) -> dict[str, Any]:
        """What :class:`PatchUNet` needs."""
        return {
            "channels": list(self.channels), "layers": self.layers, "patch": self.patch, "attention": self.attention,
            "norm": self.norm, "head": self.head, "inputs": 3, "outputs": 3, "labels": 2,
        }  # fmt: skip


class FlowTask:
    """The flow-matching objective: predict ``eps - x0`` on the path ``x_u = (1 - u) x0 + u eps``, u logit-normal.

    Source:
        Liu et al. 2023 (rectified flow); time density of Esser et al. 2024, section 3.1 (logit-normal, mean 0, deviation 1).
    """

    def __init__(self, settings: PriorTraining, held_out: Tensor):
        self.settings = settings
        self.held_out = held_out.float() / 127.5 - 1

    def loss(self, network: nn.Module, batch: Tensor, random: torch.Generator) -> Tensor:
        x0, label = augment(batch.float().cpu() / 127.5 - 1, random, self.settings.augment)
        u = torch.randn(len(x0), generator=random).sigmoid()
        eps = torch.randn(x0.shape, generator=random)
        device = next(network.parameters()).device
        x0, eps, u = (v.to(device) for v in (x0, eps, u))
        told = label.to(device) if self.settings.augment else None
        w = u.view(-1, 1, 1, 1)
        return (network(((1 - w) * x0 + w * eps).contiguous(memory_format=torch.channels_last), u, told) - (eps - x0)).square().mean()

    @torch.no_grad()
    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """PSNR of the one-call estimate of x0 on held-out pictures, at seven noise levels."""
        device = next(network.parameters()).device
        random = torch.Generator().manual_seed(0)
        figures = {}
        for u in HELD_OUT_TIMES:
            errors = []
            for x0 in self.held_out.split(50):
                eps = torch.randn(x0.shape, generator=random)
                x_u = ((1 - u) * x0 + u * eps).to(device)
                found = (x_u - u * network(x_u, torch.full((len(x0),), u, device=device))).clamp(-1, 1)
                errors.append((found.cpu() - x0).square().mean((1, 2, 3)) / 4)
            figures[f"psnr_at_{u}"] = float((-10 * torch.cat(errors).log10()).mean())
        return figures

    @torch.no_grad()
    def sample(self, network: nn.Module, path: Path) -> None:
        """A grid of 32 pictures, 20 steps each."""
        side = self.settings.size_px
        device = next(network.parameters()).device
        channels = self.held_out.shape[1]
        x = torch.randn(32, channels, side, side, generator=torch.Generator().manual_seed(1)).to(device)
        times = torch.linspace(1, 0, 21) ** 1.2
        for u, v in pairwise(times):
            velocity = network(x, u.to(device).expand(len(x)))
            x0 = (x - u * velocity).clamp(-1, 1)
            x = x0 + v / u * (x - x0)
        pixels = ((x.cpu() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
        grid = pixels.view(4, 8, side, side, channels).permute(0, 2, 1, 3, 4).reshape(4 * side, 8 * side, channels)
        Image.fromarray(grid.squeeze(2).numpy()).save(path)

    def header(self) -> dict[str, Any]:
        s = self.settings
        return {"kind": "prior", "prediction": "flow", "domain": s.domain, "size_px": s.size_px, "fixed_size": s.fixed_size}


def start_from_regressor(network: PatchUNet, path: Path) -> None:
    """Begin with a regressor of the same shape that InDI's training made (pictures in, pictures out, no labels).

    Its estimate of x0 is ``x_t + t n(x_t, t)``, that of a flow ``x_u - u v(x_u, u)``: v = -n. What it knows of noise and blur is of use at
    once: benchmarks/priors.md.
    """
    header = read_header(path)
    if header is None or complete(header["network"]) | {"labels": network.settings["labels"]} != network.settings:
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
    weights: dict[str, float] | None = None,
    start: Path | None = None,
    resume: bool = False,
) -> Path:
    """Train a prior on the pictures of a folder and write it to ``out``.

    Args:
        data: Folder of clean pictures.
        out: ``NAME.safetensors``.
        held_out: Folder of pictures for the held-out figures; without it every 30th file of ``data`` is set aside.
        weights: File-name prefix to how often such a picture counts.
        start: Weights to begin with: of the same network (trained on smaller pictures, say), of one with fewer levels, or a regressor's.
        resume: Go on with the run that was interrupted.
    """
    paths = list_pictures(data)
    test_paths = list_pictures(held_out) if held_out else paths[::30]
    if not held_out:
        paths = [p for i, p in enumerate(paths) if i % 30]
    n = min(300, max(64, len(test_paths)))
    test = PictureStream(test_paths, settings.size_px, crop=settings.crop, seed=1, flip=False)
    pixels = (
        torch.stack([test.whole(i) for i in range(min(n, len(test_paths)))])
        if settings.crop == "whole"
        else torch.stack([test[i] for i in range(n)])
    )
    torch.manual_seed(schedule.seed)
    network = PatchUNet(settings.network_settings())
    if start and (read_header(start) or {}).get("kind") == "indi":
        start_from_regressor(network, start)
    elif start:
        start_from(network, start)
    stream = PictureStream(paths, settings.size_px, crop=settings.crop, weights=weights, seed=schedule.seed)
    return train(network, FlowTask(settings, pixels), stream, schedule, out, resume=resume)
