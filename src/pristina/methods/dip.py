"""DIP: fit an untrained network to the degraded image, and stop before it learns the damage.

Glossary: y observation, A operator (identity when fully blind), z fixed noise, f network of one
image, x = f(z) its output, o running average of outputs, E loss.

Source:
    Ulyanov, Vedaldi and Lempitsky, "Deep Image Prior", CVPR 2018, and its released notebooks;
    ``stop="emv"``: Wang et al., "Early stopping for deep image prior", TMLR 2023 (moving variance
    over a window); ``stop="diip"``: the two rules of :mod:`pristina.methods.diip`.

    Deliberate differences: back-tracking restores the weights (they are cloned, and the bad step is
    skipped; the notebook applies the bad gradient to weights that, on the CPU, were never saved);
    the notebooks' "parameter noise" has no effect and is left out; no peak is picked against the
    truth; the average's weight of the past grows to its full value, so that the first outputs do
    not linger. Scales, width, iterations and the stopping rule of the defaults suit small images
    (on a face of 64 px ``emv`` stopped within 0.2 dB of the best average under noise); the paper's
    are in :data:`PAPER`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from pristina.errors import Cancelled
from pristina.image.statistics import sharpness
from pristina.methods.diip import DIIP, laplacian_fires, slope_fires
from pristina.methods.steps.recorder import RunRecorder
from pristina.methods.steps.result import Calls, Result, State, Stop, StopReason
from pristina.operators.base import Observation, Operator
from pristina.priors.base import BasePrior
from pristina.priors.untrained import SkipNetwork
from pristina.settings import Count, NotNegative, Positive, Settings
from pristina.types import Draw, Generators, OnStep

Rule = Literal["iterations", "emv", "diip"]
"""When to stop.

``iterations``: after all of them. ``emv``: the moving variance of the outputs has passed its
minimum. ``diip``: the slope or the Laplacian rule of DIIP fires.
"""


@dataclass(frozen=True)
class DIP(Settings):
    """Settings of :func:`dip`.

    Attributes:
        iterations: Largest number of optimiser steps.
        learning_rate: Learning rate of Adam for the weights.
        channels: Width of the network.
        scales: Number of times that the network halves the image.
        skip: Number of channels of its skip connections.
        inputs: Number of channels of the noise z.
        jitter: Standard deviation of the noise that is added to z anew in each iteration.
        average: Weight of the past in the running average of outputs, in [0, 1); 0 returns the
            output itself.
        backtrack_db: Loss of PSNR against y, in dB, above which a step is undone.
        blind: Whether to compare with the observation at image size even if an operator is known.
        stop: Stopping rule, see :data:`Rule`.
        window: Number of iterations over which the variance is taken, and which DIIP's rules use
            for smoothing.
        patience: Iterations in a row in which a rule must hold.
        epsilon: Slope, as a share of the loss per iteration, below which DIIP's slope rule fires.
        warm_up: Iterations before either of DIIP's rules may fire.
    """

    iterations: Count = 500
    learning_rate: Positive = 0.01
    channels: Count = 64
    scales: Count = 4
    skip: Count = 4
    inputs: Count = 32
    jitter: NotNegative = 1 / 30
    average: Annotated[float, Interval(ge=0, lt=1)] = 0.99
    backtrack_db: Positive = 5.0
    blind: bool = False
    stop: Rule = "emv"
    window: Annotated[int, Ge(2)] = 50
    patience: Count = 100
    epsilon: NotNegative = 0.001
    warm_up: Annotated[int, Ge(0)] = 200


PAPER = DIP(iterations=3000, channels=128, scales=5, stop="iterations")


def calls(settings: DIP) -> Calls:
    """Return the network calls that ``settings`` imply for one image: none of a prior."""
    return Calls(0, may_stop=settings.stop != "iterations")


class _Fit:
    """Network of one image, its noise and its optimiser."""

    def __init__(self, draw: Draw, channels: int, z: Tensor, settings: DIP):
        self.draw, self.settings, self.z = draw, settings, z
        self.network = SkipNetwork(
            draw,
            inputs=settings.inputs,
            outputs=channels,
            channels=settings.channels,
            scales=settings.scales,
            skip=settings.skip,
        )
        self.network.check(*z.shape[-2:])
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)
        self.good: list[Tensor] = []  # Last weights that did well.
        self.good_psnr = -math.inf
        self.average, self.n_taken = torch.zeros(0), 0

    def output(self) -> Tensor:
        """Compute ``f(z + jitter)``, (1, C, H, W)."""
        jitter = self.settings.jitter * self.draw.normal(*self.z.shape[1:])
        x: Tensor = self.network(self.z + jitter)
        return x

    def take(self, x: Tensor, loss: float) -> bool:
        """Take an output into the average unless it is too bad; return whether it was taken."""
        psnr = math.inf if loss == 0 else -10 * math.log10(loss)
        if not psnr >= self.good_psnr - self.settings.backtrack_db:
            return False
        self.good, self.good_psnr = [p.detach().clone() for p in self.network.parameters()], psnr
        past = min(self.settings.average, (1 + self.n_taken) / (10 + self.n_taken))
        self.average = x if self.n_taken == 0 else past * self.average + (1 - past) * x
        self.n_taken += 1
        return True

    def undo(self) -> None:
        """Bring the weights back to where the last output was taken."""
        with torch.no_grad():
            for p, saved in zip(self.network.parameters(), self.good, strict=True):
                p.copy_(saved)


def _begin(x: Tensor, settings: DIP, draw: Draw, start: State | None) -> list[_Fit]:
    """Make the networks of images ``x`` and their noise, or bring back those of a state."""
    singles = [Draw([g], 1, x.device) for g in draw.generators]
    z = 0.1 * draw.uniform(settings.inputs, *x.shape[-2:])
    if start is not None:
        start.check("dip", z.shape, z.device)
        z = z if start.noise is None else start.noise
    if start is None or not start.memory:
        return [_Fit(one, x.shape[1], z[i : i + 1], settings) for i, one in enumerate(singles)]
    start.restore_generators(draw)
    fits: list[_Fit] = start.recall()["fits"]
    for fit, one in zip(fits, singles, strict=True):
        fit.draw, fit.settings = one, settings
    return fits


class _Watch:
    """Stopping rule of all images, and what it keeps from one iteration to the next."""

    def __init__(self, images: Tensor, settings: DIP):
        n = len(images)
        self.settings = settings
        self.running = torch.ones(n, dtype=torch.bool)
        self.waited = torch.zeros(n, dtype=torch.long)  # Iterations in a row without improvement.
        self.kept = images.clone()  # Images at the last improvement.
        self.stops: dict[int, Stop] = {}
        self.recent: deque[Tensor] = deque(maxlen=settings.window)
        self.least = torch.full((n,), torch.inf)
        self.losses, self.sharps = torch.zeros(0, n), torch.zeros(0, n)
        self.reasons = [StopReason.VARIANCE] * n
        warm_up, window = settings.warm_up, settings.window
        k_min = max(0, warm_up - 1)
        self.rules = DIIP(epsilon=settings.epsilon, warm_up=warm_up, k_min=k_min, smoothing=window)

    def stop(self, better: Tensor, took: Tensor, images: Tensor, step: int) -> None:
        """Stop images that have not improved for long; in ``images`` they return to their best."""
        self.kept[better & took] = images[better & took]
        self.waited = torch.where(better, 0, self.waited + 1)
        stops = self.running & (self.waited >= self.settings.patience)
        self.running = self.running & ~stops
        images[stops] = self.kept[stops]
        for i in stops.nonzero().flatten().tolist():
            self.stops[i] = Stop(self.reasons[i], step - self.settings.patience)

    def better(self, x: Tensor, loss: Tensor) -> Tensor:
        """Judge outputs (B, C, H, W) with losses (B,): a boolean for each, (B,)."""
        everywhere = torch.ones(len(x), dtype=torch.bool)
        if self.settings.stop == "iterations":
            return everywhere
        if self.settings.stop == "diip":
            self.losses = torch.cat([self.losses, loss[None]])
            self.sharps = torch.cat([self.sharps, sharpness(x).cpu()[None]])
            by_slope = slope_fires(self.losses, self.rules)
            by_laplacian = laplacian_fires(self.sharps, self.rules)
            kinds = (StopReason.LAPLACIAN, StopReason.SLOPE)
            self.reasons = [kinds[fires] for fires in by_slope.tolist()]
            return ~(by_slope | by_laplacian)
        self.recent.append(x.clone())
        if len(self.recent) < self.settings.window:
            return everywhere
        outputs = torch.stack(list(self.recent))
        variance = outputs.var(0, unbiased=False).mean((1, 2, 3)).cpu()
        lower = variance < self.least
        self.least = torch.minimum(self.least, variance)
        return lower


def dip(
    observation: Observation,
    prior: BasePrior | None = None,
    settings: DIP = DIP(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Restore images as outputs of untrained networks on their way to reproducing the observation.

    Every image has a network of its own; those of a batch take their steps side by side.

    Args:
        observation: Degraded images, (B, C, h, w). With an operator, whose parameters are taken as
            they are, the output is compared through it; without one, or with ``blind``, directly.
        prior: Unused: the structure of the network is the prior.
        settings: Settings, see :class:`DIP`.
        start: State of an earlier run to go on from; of a fresh one only the noise is used.
        generator: One generator for each image.
        on_step: Progress callback, called after each iteration.

    Returns:
        Average of the outputs up to the end, or up to where the stopping rule began to hold; traces
        ``loss`` and ``undone`` (1 where a step was undone).

    Raises:
        SizeError: The image is too small for the number of scales.
        InputError: The state does not fit.

    Source:
        See the module.

    Example:
        >>> observation = Observation(torch.full((1, 3, 16, 16), 0.6))
        >>> result = dip(observation, None, DIP(iterations=3, channels=8, scales=2))
        >>> result.images.shape, result.cost.network_calls
        (torch.Size([1, 3, 16, 16]), 0)
    """
    known = None if settings.blind else observation.operator
    x = observation.initial()
    n = len(x)
    operator = Operator() if known is None else known.for_batch(n).requires_grad_(False)
    y = x if settings.blind else observation.y
    draw = Draw(generator, n, y.device)
    recorder = RunRecorder(None, settings.iterations, on_step, start)
    memory = {} if start is None else start.recall()
    fits = _begin(x, settings, draw, start)
    watch = memory.get("watch") or _Watch(x, settings)
    x, images = memory.get("images", (x, x.clone()))  # Last outputs and their averages.
    reason = StopReason.COMPLETED
    while watch.running.any() and recorder.n_done < settings.iterations:
        # Outputs of the networks that still run, and their losses.
        running = watch.running.nonzero().flatten().tolist()
        outputs = [fits[i].output() if i in running else x[i : i + 1] for i in range(n)]
        both = torch.cat(outputs)
        loss = (operator(both) - y).square().mean((1, 2, 3))
        x, losses = both.detach(), loss.tolist()

        # Averages of the outputs that are good enough.
        took, undone = torch.zeros(2, n, dtype=torch.bool)
        for i in running:
            took[i] = fits[i].take(x[i : i + 1], losses[i])
            undone[i] = ~took[i]
            images[i] = fits[i].average[0]

        # Stopping rule.
        watch.stop(watch.better(x, loss.detach().cpu()), took, images, recorder.n_done + 1)
        try:
            recorder.step(images, loss, undone=undone.float())
        except Cancelled:
            reason = StopReason.CANCELLED

        # Descent step, or back-tracking; also when cancelled, so that the run can go on from here.
        go_on = took & watch.running
        if go_on.any():
            loss[go_on].sum().backward()
        for i in go_on.nonzero().flatten().tolist():
            fits[i].optimizer.step()
            fits[i].optimizer.zero_grad()
        for i in undone.nonzero().flatten().tolist():
            fits[i].undo()
        if reason is StopReason.CANCELLED:
            break
    stopped = [watch.stops.get(i, Stop(reason, recorder.n_done)) for i in range(n)]
    loop: dict[str, Any] = {"watch": watch, "images": (x, images), "fits": fits}
    noise, random = torch.cat([fit.z for fit in fits]), draw.get_states()
    state = recorder.state("dip", recorder.n_done, noise, **loop, generators=random)
    found = images if reason is StopReason.CANCELLED else watch.kept
    return recorder.result("dip", found.clamp(0, 1), settings, draw.seeds, stopped, state=state)
