"""Training InDI's regressor: ``pristina train indi``.

Glossary: x clean, y degraded, x_t = (1 - t) x + t y + noise, F(x_t, t) the network's estimate of x.

Source:
    Delbracio and Milanfar, "Inversion by direct iteration", TMLR 2023, section 3 and sections 6.3 (p(t)) and 6.4 (noise). The text was
    not available; widths, crop, batch and learning rate are ours. F is parametrised as ``x_t + t network(x_t, t)``, see
    :func:`pristina.priors.direct.regress`. As in several re-implementations p(t) is by default a mixture that puts half of its weight on
    t = 1. They take L1; L2 is the default here, because a small network learns from a wide mixture of damage much sooner with it. The mixture
    ends with the PSNR loss of NAFNet (Chen et al. 2022, its code): heavy noise costs hundreds of times what mild JPEG costs, and a mean of
    squares teaches next to nothing but the former.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pristina.errors import SettingError
from pristina.priors.base import to_signed, to_unit
from pristina.priors.direct import Noise, noise_scale, regress
from pristina.priors.network import PatchUNet
from pristina.training.loop import Schedule, start_from, train
from pristina.training.pairs import HeldOut, PairTraining, gain, open_pairs, write_grid

TimeDensity = Literal["mixture", "uniform", "linear", "quadratic"]
Loss = Literal["l1", "l2", "psnr"]

FLOOR = 4e-3
"""Squared error on [-1, 1] (30 dB) that the PSNR loss adds to each picture's own: far below it, clean pictures would outweigh all others
(with 4e-5 strong damage was repaired much worse than before, with 1e-3 a little)."""


@dataclass(frozen=True)
class InDITraining(PairTraining):
    """What to learn, from what, with which network.

    Attributes:
        loss: ``l1``, ``l2``, or ``psnr``, the logarithm of each picture's squared error: light damage counts as much as heavy.
        times: p(t): ``uniform`` on (0, 1]; ``linear`` or ``quadratic``, rising with t; ``mixture``, which sets t = 1 with probability
            a / (1 + a) and is uniform otherwise.
        a: Of the mixture.
        noise: The noise on the path: ``none``, ``constant`` (deviation eps t) or ``brownian`` (eps sqrt(t)).
        eps: Its size, in [0, 1] units (the 0.01 of re-implementations is on [-1, 1] and is 0.005 here).
    """

    loss: Loss = "l2"
    times: TimeDensity = "mixture"
    a: float = 1.0
    noise: Noise = "none"
    eps: float = 0.0

    def __post_init__(self) -> None:
        if self.loss not in get_args(Loss):
            raise SettingError(f"loss must be {', '.join(get_args(Loss))}; not {self.loss!r}.")
        if self.times not in ("mixture", "uniform", "linear", "quadratic"):
            raise SettingError(f"times must be mixture, uniform, linear or quadratic; not {self.times!r}.")
        if self.noise not in ("none", "constant", "brownian"):
            raise SettingError(f"noise must be none, constant or brownian; not {self.noise!r}.")
        if self.a < 0 or self.eps < 0:
            raise SettingError(f"a and eps must not be negative ({self.a}, {self.eps}).")
        if (self.noise == "none") != (self.eps == 0):
            raise SettingError(f"noise {self.noise!r} does not go with eps = {self.eps}: give both or neither.")


def draw_times(settings: InDITraining, n: int, random: torch.Generator) -> Tensor:
    """``n`` times t in (0, 1], never 0."""
    u = 1 - torch.rand(n, generator=random)
    match settings.times:
        case "uniform":
            return u
        case "linear":  # p(t) = 2 t
            return u.sqrt()
        case "quadratic":  # p(t) = 3 t^2
            return u ** (1 / 3)
        case "mixture":
            ends = torch.rand(n, generator=random) < settings.a / (1 + settings.a)
            return torch.where(ends, torch.ones(n), u)


class InDITask:
    """The objective ``|F(x_t, t) - x|^p``, or the logarithm of its square, t drawn from p(t)."""

    def __init__(self, settings: InDITraining, held_out: HeldOut):
        self.settings, self.held_out = settings, held_out

    def loss(self, network: nn.Module, batch: Tensor, random: torch.Generator) -> Tensor:
        s = self.settings
        x, y = to_signed(batch.float().cpu()).unbind(1)
        t = draw_times(s, len(x), random)
        w = t.view(-1, 1, 1, 1)
        x_t = (1 - w) * x + w * y
        if s.noise != "none":
            x_t = x_t + noise_scale(s.noise, 2 * s.eps, w) * torch.randn(x.shape, generator=random)
        device = next(network.parameters()).device
        x, x_t, t = (v.to(device) for v in (x, x_t, t))
        error = regress(network, x_t, t) - x
        match s.loss:
            case "l1":
                return error.abs().mean()
            case "l2":
                return error.square().mean()
            case "psnr":
                return (error.square().mean((1, 2, 3)) + FLOOR).log().mean()

    @torch.no_grad()
    def restore(self, network: nn.Module, y: Tensor) -> Tensor:
        """The regression ``F(y, 1)`` of pictures in [0, 1], batch by batch."""
        device = next(network.parameters()).device
        random = torch.Generator().manual_seed(0)
        x_1 = to_signed(y) + noise_scale(self.settings.noise, 2 * self.settings.eps, torch.ones(())) * torch.randn(
            y.shape, generator=random
        )
        found = [regress(network, part.to(device), torch.ones(len(part), device=device)).cpu() for part in x_1.split(8)]
        return to_unit(torch.cat(found)).clamp(0, 1)

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """By how many dB one call improves the held-out pictures, for each kind of damage."""
        return {f"gain_{name}": gain(self.restore(network, pair[:, 1]), pair) for name, pair in self.held_out.items()}

    def sample(self, network: nn.Module, path: Path) -> None:
        """Input, output and truth of held-out pictures: two of each kind of damage, eight where there is one kind."""
        n = 2 if len(self.held_out) > 1 else 8
        pair = torch.cat([p[:n] for p in self.held_out.values()])
        write_grid([pair[:, 1], self.restore(network, pair[:, 1]), pair[:, 0]], path)

    def header(self) -> dict[str, Any]:
        s = self.settings
        return {"kind": "indi", "noise": s.noise, "eps": s.eps, "times": s.times, "a": s.a, "loss": s.loss} | s.header()


def train_indi(
    data: Path,
    out: Path,
    settings: InDITraining,
    schedule: Schedule,
    *,
    degraded: Path | None = None,
    held_out: Path | None = None,
    weights: Mapping[str, float] | None = None,
    start: Path | None = None,
    resume: bool = False,
) -> Path:
    """Train a regressor and write it to ``out``.

    Args:
        data: Clean pictures for a recipe; for ``settings.recipe=None`` pairs, as :func:`pristina.training.pairs.list_pairs` takes them.
        out: ``NAME.safetensors``.
        degraded: The degraded pictures, if ``data`` holds only the clean ones.
        held_out: Pictures (or pairs) for the held-out figures; without it every 30th of ``data`` is set aside.
        weights: File-name prefix to how often such a picture counts (for a recipe).
        start: Weights of the same network to begin with: a specialist may start from the blind one.
        resume: Go on with the run that was interrupted.
    """
    stream, pairs = open_pairs(data, settings, degraded=degraded, held_out=held_out, weights=weights, seed=schedule.seed)
    torch.manual_seed(schedule.seed)
    network = PatchUNet(settings.network_settings(inputs=3))
    if start:
        start_from(network, start)
    return train(network, InDITask(settings, pairs), stream, schedule, out, resume=resume)
