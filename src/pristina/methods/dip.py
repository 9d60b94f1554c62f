"""DIP: fit an untrained network to the degraded picture, and stop before it learns the damage.

Glossary: y observation, A operator (identity when fully blind), z fixed noise, f the network of one picture, x = f(z) its output, o the
running average of outputs, E loss.

Source:
    Ulyanov, Vedaldi and Lempitsky, "Deep Image Prior", CVPR 2018, and its released notebooks; ``stop="emv"``: Wang et al., "Early stopping
    for deep image prior", TMLR 2023 (moving variance over a window); ``stop="diip"``: the two rules of :mod:`pristina.methods.diip`.
    Deliberate differences: back-tracking really restores (the weights are cloned, and the bad step is skipped; the notebook applies the
    bad gradient to weights that, on the CPU, were never saved); the notebooks' "parameter noise" has no effect and is left out; no peak is
    picked against the truth; the average's weight of the past grows to its full value, lest the first outputs linger; scales, width,
    iterations and the stopping rule of the defaults suit small pictures (on a face of 64 px ``emv`` stopped within 0.2 dB of the best
    average under noise), the paper's are in :data:`PAPER`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from pristina.errors import Cancelled, SettingError
from pristina.methods.base import Books, Result
from pristina.methods.diip import DIIP, laplacian_fires, sharpness, slope_fires
from pristina.operators.base import Observation, Operator
from pristina.priors.base import Prior
from pristina.priors.untrained import SkipNetwork
from pristina.types import Draw, OnStep

Stop = Literal["iterations", "emv", "diip"]


@dataclass(frozen=True)
class DIP:
    """Settings of :func:`dip`.

    Attributes:
        iterations: At most this many optimiser steps.
        learning_rate: Of Adam on the weights.
        channels: Width of the network.
        scales: How often it halves the picture.
        skip: Channels of its skips.
        inputs: Channels of the noise z.
        jitter: Standard deviation of the noise added to z, anew in each iteration.
        average: Weight of the past in the running average of outputs; 0 returns the bare output.
        backtrack_db: A step that loses more PSNR than this, against y, is undone.
        blind: Take the observation at picture size for the picture, even when an operator is known.
        stop: ``iterations`` (after all of them), ``emv`` (the outputs' moving variance has passed its minimum), ``diip`` (the slope or
            the Laplacian rule of DIIP).
        window: Iterations over which the variance is taken, and over which DIIP's rules look.
        patience: Iterations in a row that a rule must hold.
        epsilon: Slope below which DIIP's first rule fires.
        warm_up: Iterations before either of DIIP's rules may fire.
    """

    iterations: int = 500
    learning_rate: float = 0.01
    channels: int = 64
    scales: int = 4
    skip: int = 4
    inputs: int = 32
    jitter: float = 1 / 30
    average: float = 0.99
    backtrack_db: float = 5.0
    blind: bool = False
    stop: Stop = "emv"
    window: int = 50
    patience: int = 100
    epsilon: float = 0.001
    warm_up: int = 200

    def __post_init__(self) -> None:
        if self.stop not in get_args(Stop):
            raise SettingError(f"stop must be one of {', '.join(get_args(Stop))}; not {self.stop!r}.")
        for name in ("iterations", "channels", "scales", "skip", "inputs", "patience"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.window < 2:
            raise SettingError(f"window must be at least 2, not {self.window}.")
        if not (self.learning_rate > 0 and self.backtrack_db > 0):
            raise SettingError("learning_rate and backtrack_db must be positive.")
        if not self.jitter >= 0 or not 0 <= self.average < 1:
            raise SettingError("jitter must not be negative, and average must lie in [0, 1).")
        if not (self.epsilon >= 0 and self.warm_up >= 0):
            raise SettingError("epsilon and warm_up must not be negative.")


PAPER = DIP(iterations=3000, channels=128, scales=5, stop="iterations")


class _Fit:
    """The network of one picture, its noise and its optimiser."""

    def __init__(self, draw: Draw, channels: int, size: tuple[int, int], settings: DIP):
        self.draw, self.settings = draw, settings
        self.z = 0.1 * draw.uniform(settings.inputs, *size)
        self.network = SkipNetwork(
            draw, inputs=settings.inputs, outputs=channels, channels=settings.channels, scales=settings.scales, skip=settings.skip
        )
        self.network.check(*size)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)
        self.good: list[Tensor] = []  # the last weights that did well, and their PSNR
        self.good_psnr = -math.inf
        self.average: Tensor | None = None
        self.n_taken = 0

    def output(self) -> Tensor:
        """``f(z + jitter)``, (1, C, H, W)."""
        x: Tensor = self.network(self.z + self.settings.jitter * self.draw.normal(*self.z.shape[1:]))
        return x

    def take(self, x: Tensor, loss: float) -> bool:
        """Whether the output is good enough to go on from; if not, the weights go back to where it was."""
        psnr = math.inf if loss == 0 else -10 * math.log10(loss)
        weights = list(self.network.parameters())
        if not psnr >= self.good_psnr - self.settings.backtrack_db:
            with torch.no_grad():
                for p, saved in zip(weights, self.good, strict=True):
                    p.copy_(saved)
            return False
        self.good, self.good_psnr = [p.detach().clone() for p in weights], psnr
        past = min(self.settings.average, (1 + self.n_taken) / (10 + self.n_taken))
        self.average = x if self.average is None else past * self.average + (1 - past) * x
        self.n_taken += 1
        return True


class _Watch:
    """Says of each picture whether it still gets better, by the rule in the settings."""

    def __init__(self, n: int, settings: DIP):
        self.settings = settings
        self.recent: deque[Tensor] = deque(maxlen=settings.window)
        self.least = torch.full((n,), torch.inf)
        self.losses, self.sharps = torch.zeros(0, n), torch.zeros(0, n)
        self.rules = DIIP(epsilon=settings.epsilon, warm_up=settings.warm_up, k_min=settings.warm_up, smoothing=settings.window)

    def better(self, x: Tensor, loss: Tensor) -> Tensor:
        """For outputs (B, C, H, W) and losses (B,): (B,) booleans."""
        everywhere = torch.ones(len(x), dtype=torch.bool)
        if self.settings.stop == "iterations":
            return everywhere
        if self.settings.stop == "diip":
            self.losses, self.sharps = torch.cat([self.losses, loss[None]]), torch.cat([self.sharps, sharpness(x).cpu()[None]])
            return ~(slope_fires(self.losses, self.rules) | laplacian_fires(self.sharps, self.rules))
        self.recent.append(x.clone())
        if len(self.recent) < self.settings.window:
            return everywhere
        variance = torch.stack(list(self.recent)).var(0, unbiased=False).mean((1, 2, 3)).cpu()
        lower = variance < self.least
        self.least = torch.minimum(self.least, variance)
        return lower


def dip(
    observation: Observation,
    prior: Prior | None = None,
    settings: DIP = DIP(),
    *,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """The pictures that untrained networks make of the observation on their way to reproducing it.

    Every picture has a network of its own; those of a batch take their steps side by side and never meet.

    Args:
        observation: The degraded pictures. With an operator the output is compared through it, its parameters taken as they are;
            without one, or with ``blind``, directly.
        prior: Unused: the network's structure is all the prior there is.
        settings: See :class:`DIP`.
        generator: One for each picture.
        on_step: Called after each iteration.

    Returns:
        The average of the outputs up to the end, or up to where the stopping rule began to hold; traces ``loss`` and ``undone`` (1 where a
        step was taken back).

    Raises:
        SizeError: The picture is too small for the number of scales.

    Source:
        See the module.

    Example:
        >>> result = dip(Observation(torch.full((1, 3, 16, 16), 0.6)), None, DIP(iterations=3, channels=8, scales=2))
        >>> result.picture.shape, result.cost.network_calls
        (torch.Size([1, 3, 16, 16]), 0)
    """
    start = observation.initial()
    n, channels, *size = start.shape
    known = None if settings.blind else observation.operator
    operator = Operator() if known is None else known.for_batch(n).requires_grad_(False)
    y = start if settings.blind else observation.y
    draw = Draw(generator, n, y.device)
    fits = [_Fit(Draw([g], 1, y.device), channels, (size[0], size[1]), settings) for g in draw.generators]
    watch = _Watch(n, settings)
    books = Books(None, settings.iterations, on_step)

    x, picture, kept = start.clone(), start.clone(), start.clone()
    why = [f"all {settings.iterations} iterations done"] * n
    running = torch.ones(n, dtype=torch.bool)
    waited = torch.zeros(n, dtype=torch.long)
    try:
        for k in range(settings.iterations):
            outputs = [fit.output() if runs else x[i : i + 1] for i, (fit, runs) in enumerate(zip(fits, running, strict=True))]
            both = torch.cat(outputs)
            loss = (operator(both) - y).square().mean((1, 2, 3))
            x, losses = both.detach(), loss.tolist()
            took = torch.tensor([bool(runs) and fits[i].take(x[i : i + 1], losses[i]) for i, runs in enumerate(running)])
            for i, fit in enumerate(fits):
                if took[i] and fit.average is not None:
                    picture[i] = fit.average[0]

            better = watch.better(x, loss.detach().cpu())
            kept[better & took] = picture[better & took]
            waited = torch.where(better, 0, waited + 1)
            stop = running & (waited >= settings.patience)
            for i in stop.nonzero().flatten().tolist():
                rule = "the outputs' variance passed its minimum" if settings.stop == "emv" else "DIIP's rule fired"
                why[i] = f"{rule} at iteration {k + 1 - settings.patience}"
            undone = (running & ~took).float()
            running, picture[stop] = running & ~stop, kept[stop]
            books.step(picture, loss, undone=undone)
            if not running.any():
                break
            if (took & running).any():
                loss[took & running].sum().backward()
            for i in (took & running).nonzero().flatten().tolist():
                fits[i].optimizer.step()
                fits[i].optimizer.zero_grad()
    except Cancelled:
        why = [f"cancelled at iteration {books.n_done}" if runs else w for w, runs in zip(why, running, strict=True)]
    else:
        picture = kept
    return books.result("dip", picture.clamp(0, 1), settings, draw.seeds, why)
