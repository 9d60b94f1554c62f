"""Training the conditional diffusion network: ``pristina train conditional``.

Glossary: c degraded picture, x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps.

Source:
    Saharia et al., SR3 (2021) and Palette (2022), but for what the network is asked for, see
    :mod:`pristina.methods.conditional_ddpm`: ``|x0 - c - network([c, x_t], t)|^2``, t drawn from the whole chain and continuous. The
    network, the pairs, their order and the schedule of training are those of :mod:`pristina.training.indi`, so that the two can be
    compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pristina.methods.conditional_ddpm import chain
from pristina.priors.base import to_signed, to_unit
from pristina.priors.direct import denoise
from pristina.priors.network import PatchUNet
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, ddim_step, eps_from_x0, linear_alpha_bar
from pristina.training.loop import Schedule, start_from, train
from pristina.training.pairs import HeldOut, PairTraining, gain, open_pairs, write_grid

HELD_OUT_STEPS = 10


class ConditionalTask:
    """The objective: the clean picture in x_t, given the degraded picture."""

    def __init__(self, settings: PairTraining, held_out: HeldOut):
        self.settings, self.held_out = settings, held_out
        self.alpha_bar = linear_alpha_bar()

    def loss(self, network: nn.Module, batch: Tensor, random: torch.Generator) -> Tensor:
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
        """Pictures in [0, 1] restored by DDIM in :data:`HELD_OUT_STEPS` steps."""
        device = next(network.parameters()).device
        c = to_signed(y).to(device)
        x_t = x0 = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(device)
        for t, s in chain(HELD_OUT_STEPS):
            a_t, a_s = alpha_bar_at(self.alpha_bar, t).to(device), alpha_bar_at(self.alpha_bar, s).to(device)
            x0 = denoise(network, x_t, torch.full((len(y),), t, device=device), c).clamp(-1, 1)
            x_t = ddim_step(x0, eps_from_x0(x_t, x0, a_t), a_s)
        return to_unit(x0).cpu()

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """By how many dB ten steps improve eight held-out pictures, for each kind of damage."""
        return {f"gain_{name}": gain(self.restore(network, pair[:8, 1]), pair[:8]) for name, pair in self.held_out.items()}

    def sample(self, network: nn.Module, path: Path) -> None:
        """Input, output and truth of held-out pictures: two of each kind of damage, eight where there is one kind."""
        n = 2 if len(self.held_out) > 1 else 8
        pair = torch.cat([p[:n] for p in self.held_out.values()])
        write_grid([pair[:, 1], self.restore(network, pair[:, 1]), pair[:, 0]], path)

    def header(self) -> dict[str, Any]:
        return {"kind": "conditional", "prediction": "x0"} | self.settings.header()


def train_conditional(
    data: Path,
    out: Path,
    settings: PairTraining,
    schedule: Schedule,
    *,
    degraded: Path | None = None,
    held_out: Path | None = None,
    weights: Mapping[str, float] | None = None,
    start: Path | None = None,
    resume: bool = False,
) -> Path:
    """Train a conditional diffusion network and write it to ``out``; the arguments are those of :func:`train_indi`."""
    stream, pairs = open_pairs(data, settings, degraded=degraded, held_out=held_out, weights=weights, seed=schedule.seed)
    torch.manual_seed(schedule.seed)
    network = PatchUNet(settings.network_settings(inputs=6))
    if start:
        start_from(network, start)
    return train(network, ConditionalTask(settings, pairs), stream, schedule, out, resume=resume)
