"""Train InDI's regressor: ``pristina train indi``.

Glossary: x clean, y degraded, x_t = (1 - t) x + t y + noise, F(x_t, t) the estimate of x.

Source:
    Delbracio and Milanfar, "Inversion by direct iteration", TMLR 2023, section 3 and sections 6.3
    (p(t)) and 6.4 (noise). The text was not available; widths, crop, batch and learning rate are
    ours. F is parametrised as ``x_t + t network(x_t, t)``, see
    :func:`pristina.priors.direct.regress`. By default p(t) is a mixture that puts half of its
    weight on t = 1, as in several re-implementations. They take L1; L2 is the default here. The
    shipped regressor was trained with the PSNR loss of NAFNet (Chen et al. 2022, its code): heavy
    noise costs hundreds of times what mild JPEG costs, and a mean of squares teaches little but the
    former.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pristina.errors import SettingError
from pristina.priors.base import to_signed, to_unit
from pristina.priors.direct import PathNoise, noise_scale, regress
from pristina.priors.residual import ResidualUNet
from pristina.settings import Count, NotNegative
from pristina.training.loop import start_from, train
from pristina.training.pairs import PairFiles, PairTraining, gain, open_pairs, psnr, write_grid
from pristina.training.schedule import Schedule
from pristina.training.validation import HeldOut

TimeDensity = Literal["mixture", "uniform", "linear", "quadratic"]
Loss = Literal["l1", "l2", "psnr"]

FLOOR = 4e-3
"""Squared error on [-1, 1] (30 dB) that the PSNR loss adds to that of each picture.

Without it, pictures that are nearly clean would outweigh all others.
"""


@dataclass(frozen=True)
class InDITraining(PairTraining):
    """Say what to learn, from what, with which network; see also :class:`PairTraining`.

    Attributes:
        loss: ``l1``, ``l2``, or ``psnr``, the logarithm of the squared error of each picture, under
            which light damage counts as much as heavy.
        times: p(t): ``uniform`` on (0, 1]; ``linear`` or ``quadratic``, rising with t; ``mixture``,
            which sets t = 1 with probability a / (1 + a) and is uniform otherwise.
        a: Weight of t = 1 in the mixture.
        noise: Noise on the path: ``none``, ``constant`` (deviation eps t) or ``brownian``
            (eps sqrt(t)).
        eps: Size of that noise, in [0, 1] units (the 0.01 of re-implementations is on [-1, 1] and
            is 0.005 here).
    """

    channels: tuple[Count, ...] = (48, 96, 192)
    layers: Count = 2
    loss: Loss = "l2"
    times: TimeDensity = "mixture"
    a: NotNegative = 1.0
    noise: PathNoise = "none"
    eps: NotNegative = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.noise == "none") != (self.eps == 0):
            raise SettingError(
                f"noise {self.noise!r} does not go with eps = {self.eps}: give both or neither."
            )

    def network_settings(self, inputs: int = 3) -> dict[str, Any]:
        """Return the settings of a :class:`ResidualUNet`."""
        return {
            "architecture": "residual",
            "channels": list(self.channels),
            "layers": self.layers,
            "patch": self.patch,
            "inputs": inputs,
            "outputs": 3,
        }


def draw_times(settings: InDITraining, n: int, random: torch.Generator) -> Tensor:
    """Draw ``n`` times t in (0, 1] from p(t)."""
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
    """Minimise ``|F(x_t, t) - x|^p``, or the logarithm of its square, with t drawn from p(t).

    Args:
        settings: What is learned.
        held_out: Pairs that are not trained on.
    """

    def __init__(self, settings: InDITraining, held_out: HeldOut):
        self.settings, self.held_out = settings, held_out

    def loss(self, network: nn.Module, batch: Tensor, random: torch.Generator) -> Tensor:
        """Return the mean loss of a batch of pairs, (B, 2, 3, H, W) in [0, 1]."""
        s = self.settings
        x, y = to_signed(batch.float().cpu()).unbind(1)
        t = draw_times(s, len(x), random)
        w = t.view(-1, 1, 1, 1)
        x_t = (1 - w) * x + w * y
        if s.noise != "none":
            scale = noise_scale(s.noise, 2 * s.eps, w)
            x_t = x_t + scale * torch.randn(x.shape, generator=random)
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
        """Return the regression ``F(y, 1)`` of pictures in [0, 1], a few at a time."""
        device = next(network.parameters()).device
        random = torch.Generator().manual_seed(0)
        scale = noise_scale(self.settings.noise, 2 * self.settings.eps, torch.ones(()))
        x_1 = to_signed(y) + scale * torch.randn(y.shape, generator=random)
        images = [
            regress(network, part.to(device), torch.ones(len(part), device=device)).cpu()
            for part in x_1.split(8)
        ]
        return to_unit(torch.cat(images)).clamp(0, 1)

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Return PSNR and gain in dB of one call on held-out pictures, for each kind of damage."""
        figures = {}
        for name, pair in self.held_out.items():
            images = self.restore(network, pair[:, 1])
            figures[f"psnr_{name}"] = psnr(images, pair)
            figures[f"gain_{name}"] = gain(images, pair)
        return figures

    def sample(self, network: nn.Module, path: Path) -> None:
        """Write input, output and truth: two pictures a kind of damage, eight if there is one."""
        n = 2 if len(self.held_out) > 1 else 8
        pair = torch.cat([p[:n] for p in self.held_out.values()])
        write_grid([pair[:, 1], self.restore(network, pair[:, 1]), pair[:, 0]], path)

    def header(self) -> dict[str, Any]:
        """Return what the weight file's metadata say beside the network's settings."""
        s = self.settings
        own = {"noise": s.noise, "eps": s.eps, "times": s.times, "a": s.a, "loss": s.loss}
        return {"kind": "indi"} | own | s.header()


def train_indi(
    files: PairFiles,
    out: Path,
    settings: InDITraining,
    schedule: Schedule,
    *,
    start: Path | None = None,
    resume: bool | Path = False,
) -> Path:
    """Train a regressor and write its weights.

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
    network = ResidualUNet(settings.network_settings())
    if start:
        start_from(network, start)
    return train(network, InDITask(settings, held_out), stream, schedule, out, resume=resume)
