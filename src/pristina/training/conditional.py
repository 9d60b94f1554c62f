"""Train the conditional diffusion network: ``pristina train conditional``.

Glossary: c degraded picture, x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps.

Source:
    Saharia et al., SR3 (2021) and Palette (2022), with another target, see
    :mod:`pristina.methods.conditional_ddpm`: ``|x0 - c - network([c, x_t], t)|^2``, t drawn from
    the whole chain and continuous. The pairs and their order are those of
    :mod:`pristina.training.indi`, so that the two can be compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pristina.methods.conditional_ddpm import chain
from pristina.priors.base import to_signed, to_unit
from pristina.priors.direct import denoise
from pristina.priors.patch_unet import PatchUNet
from pristina.priors.schedule import (
    N_TIMESTEPS,
    alpha_bar_at,
    ddim_step,
    eps_from_x0,
    linear_alpha_bar,
)
from pristina.training.loop import start_from, train
from pristina.training.pairs import PairFiles, PairTraining, gain, open_pairs, write_grid
from pristina.training.schedule import Schedule
from pristina.training.validation import HeldOut

HELD_OUT_STEPS = 10
N_HELD_OUT = 8


class ConditionalTask:
    """Minimise the squared error of the clean picture in x_t, given the degraded picture.

    Args:
        settings: What is learned.
        held_out: Pairs that are not trained on.
    """

    def __init__(self, settings: PairTraining, held_out: HeldOut):
        self.settings, self.held_out = settings, held_out
        self.alpha_bar = linear_alpha_bar()

    def loss(self, network: nn.Module, batch: Tensor, random: torch.Generator) -> Tensor:
        """Return the mean loss of a batch of pairs, (B, 2, 3, H, W) in [0, 1]."""
        x0, c = to_signed(batch.float().cpu()).unbind(1)
        t = (N_TIMESTEPS - 1) * torch.rand(len(x0), generator=random)
        alpha_bar = alpha_bar_at(self.alpha_bar, t).view(-1, 1, 1, 1)
        eps = torch.randn(x0.shape, generator=random)
        x_t = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps
        device = next(network.parameters()).device
        x0, x_t, t, c = (v.to(device) for v in (x0, x_t, t, c))
        return (denoise(network, x_t, t, c) - x0).square().mean()

    @torch.no_grad()
    def restore(self, network: nn.Module, y: Tensor) -> Tensor:
        """Restore pictures in [0, 1] by DDIM in :data:`HELD_OUT_STEPS` steps."""
        device = next(network.parameters()).device
        c = to_signed(y).to(device)
        x_t = x0 = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(device)
        for t, s in chain(HELD_OUT_STEPS):
            a_t = alpha_bar_at(self.alpha_bar, t).to(device)
            a_s = alpha_bar_at(self.alpha_bar, s).to(device)
            times = torch.full((len(y),), t, device=device)
            x0 = denoise(network, x_t, times, c).clamp(-1, 1)
            x_t = ddim_step(x0, eps_from_x0(x_t, x0, a_t), a_s)
        return to_unit(x0).cpu()

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Return the gain in dB on eight held-out pictures, for each kind of damage."""
        return {
            f"gain_{name}": gain(self.restore(network, pair[:N_HELD_OUT, 1]), pair[:N_HELD_OUT])
            for name, pair in self.held_out.items()
        }

    def sample(self, network: nn.Module, path: Path) -> None:
        """Write input, output and truth: two pictures a kind of damage, eight if there is one."""
        n = 2 if len(self.held_out) > 1 else N_HELD_OUT
        pair = torch.cat([p[:n] for p in self.held_out.values()])
        write_grid([pair[:, 1], self.restore(network, pair[:, 1]), pair[:, 0]], path)

    def header(self) -> dict[str, Any]:
        """Return what the weight file's metadata say beside the network's settings."""
        return {"kind": "conditional", "prediction": "x0"} | self.settings.header()


def train_conditional(
    files: PairFiles,
    out: Path,
    settings: PairTraining,
    schedule: Schedule,
    *,
    start: Path | None = None,
    resume: bool | Path = False,
) -> Path:
    """Train a conditional diffusion network and write its weights.

    Args:
        files: The pictures to learn from and to measure on.
        out: Path of the weights, ``NAME.safetensors``.
        settings: What is learned, with which network.
        schedule: How long and how fast.
        start: Weights of the same network to begin with.
        resume: Whether to go on with the run that was interrupted, or the path of a state.

    Returns:
        ``out``.
    """
    stream, held_out = open_pairs(files, settings, seed=schedule.seed)
    torch.manual_seed(schedule.seed)
    network = PatchUNet(settings.network_settings(inputs=6))
    if start:
        start_from(network, start)
    task = ConditionalTask(settings, held_out)
    return train(network, task, stream, schedule, out, resume=resume)
