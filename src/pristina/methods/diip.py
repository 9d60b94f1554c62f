"""DIIP: fit the degraded image through the prior, and stop at the right moment.

Glossary: y observation at image size, z noise, x = G(z), E loss, slope relative decrease of E,
sharpness variance of the Laplacian.

Source:
    Chihaoui and Favaro, "Diffusion Image Prior", ICCV 2025. The paper's full text was not
    available; the algorithm follows its slides (``z <- z - a grad E``, E the squared error of G(z)
    to y) and a reading note (both stopping rules, Adam, learning rate 0.0015, k_min 100,
    epsilon 0.001, BIRD's ten-step sampler).

    Choices made here, for want of the text: the Laplacian is that of the luma, four neighbours,
    reflected border; a low-resolution input is first enlarged bicubically. The default returns z to
    the sphere after each step as BIRD does; the slides' algorithm does not, nor does
    :data:`PAPER`.

    :data:`PAPER` holds the published numbers. With the priors that are shipped here it harms: its
    rules, without warm-up, patience and smoothing, fire before the fit has converged
    (``benchmarks/diip.md``). The defaults differ from it for that reason.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from pristina.errors import Cancelled
from pristina.image.statistics import sharpness
from pristina.methods.steps.joint import fit_calls
from pristina.methods.steps.latent import first_noise, keep_rows, mean_squared, put_on_sphere
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, Stop, StopReason
from pristina.operators.base import Observation
from pristina.priors.base import Prior
from pristina.priors.generate import Gradient, generate
from pristina.settings import Count, NotNegative, Positive, Settings
from pristina.types import Draw, Generators, OnStep

Rule = Literal["first", "slope", "laplacian", "none"]
"""When to stop.

``slope``: the loss hardly falls any more (suits damage that adds high frequencies).
``laplacian``: sharpness has passed its peak (suits damage that removes them). ``first``: whichever
of the two fires first. ``none``: after all iterations.
"""


@dataclass(frozen=True)
class DIIP(Settings):
    """Settings of :func:`diip`.

    Attributes:
        iterations: Largest number of optimiser steps.
        learning_rate: Learning rate of Adam for z.
        sampler_steps: Network calls of G in each iteration.
        gradient: Differentiation of G, see :data:`pristina.priors.generate.Gradient`.
        sphere: Whether z returns to the sphere of typical noise after each step.
        rule: Stopping rule, see :data:`Rule`.
        epsilon: Slope, as a share of the loss per iteration, below which the slope rule fires.
        k_min: The Laplacian rule returns G after more than ``k_min`` iterations, as in the slides:
            ``k_min + 1`` at the earliest.
        warm_up: Iterations before the slope rule may fire: Adam's first momentum overshoots, and
            the loss stalls for some ten iterations.
        patience: Iterations in a row in which a rule, one or the other, must fire.
        smoothing: Length, in iterations, of the moving average that both rules use.
    """

    iterations: Count = 200
    learning_rate: Positive = 0.05
    sampler_steps: Count = 10
    gradient: Gradient = "detached"
    sphere: bool = True
    rule: Rule = "first"
    epsilon: NotNegative = 0.001
    k_min: Annotated[int, Ge(0)] = 79
    warm_up: Annotated[int, Ge(0)] = 50
    patience: Count = 3
    smoothing: Count = 10


PAPER = DIIP(
    iterations=1500,
    learning_rate=0.0015,
    sphere=False,
    k_min=100,
    warm_up=0,
    patience=1,
    smoothing=1,
)
"""Published settings; with the shipped priors they stop too early, see the module."""


def calls(settings: DIIP) -> Calls:
    """Return the network calls that ``settings`` imply for one image."""
    n = settings.iterations
    may_stop = settings.rule != "none"
    return fit_calls(
        n, settings.sampler_steps, settings.gradient, n_images=n + 1, may_stop=may_stop
    )


def slope_fires(loss: Tensor, settings: DIIP) -> Tensor:
    """Find the images for which the slope rule fires now.

    The slope is ``(E_k - E_{k+1}) / E_k``, a relative decrease, averaged over ``smoothing``
    iterations.

    Args:
        loss: Loss in the iterations so far, (iterations, B).
        settings: Settings of the rule.

    Returns:
        Boolean mask, (B,).
    """
    k, window = len(loss) - 1, settings.smoothing
    if k < window or k < settings.warm_up:
        return torch.zeros(loss.shape[1], dtype=torch.bool)
    return (loss[k - window] - loss[k]) / (window * loss[k - window]) < settings.epsilon


def laplacian_fires(sharp: Tensor, settings: DIIP) -> Tensor:
    """Find the images whose sharpness falls now, from that of an iteration after ``k_min``.

    Args:
        sharp: Sharpness in the iterations so far, (iterations, B).
        settings: Settings of the rule.

    Returns:
        Boolean mask, (B,).
    """
    k, window = len(sharp) - 1, settings.smoothing
    if k <= settings.k_min + 1 or k < window:
        return torch.zeros(sharp.shape[1], dtype=torch.bool)
    return sharp[k] < sharp[k - window]


@dataclass
class _Batch:
    """Variables of the loop, with a row for each image; values are replaced, never changed.

    Attributes:
        images: Current images, (B, C, H, W); those that have stopped stay.
        noise: Their noise.
        running: Indices of the images that are still being fitted.
        calm: Images and noise of the last iteration in which no rule fired; None where none can.
        stops: Why and when images stopped, by index.
        loss: Current losses, (B,).
        sharpness: Current sharpness, (B,).
        fired: Iterations in a row in which a rule has fired, (B,).
    """

    images: Tensor
    noise: Tensor
    running: Tensor
    calm: tuple[Tensor, ...] | None = None
    stops: dict[int, Stop] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.images)
        self.loss, self.sharpness = torch.zeros(n), torch.zeros(n)
        self.fired = torch.zeros(n, dtype=torch.long)

    def evaluate(self, x: Tensor, z: Tensor, loss: Tensor) -> None:
        """Enter the images, the noise and the losses of those that run."""
        self.images = _written(self.images, self.running, x)
        self.noise = _written(self.noise, self.running, z)
        self.loss = _written(self.loss, self.running, loss.cpu())
        self.sharpness = _written(self.sharpness, self.running, sharpness(x).cpu())

    def stop(self, trace: dict[str, Tensor], step: int, settings: DIIP) -> Tensor:
        """Stop images by the rules; return a mask of those that ran, true where one stops."""
        by_slope = slope_fires(trace["loss"], settings)
        by_slope &= torch.tensor(settings.rule in ("first", "slope"))
        by_laplacian = laplacian_fires(trace["sharpness"], settings)
        by_laplacian &= torch.tensor(settings.rule in ("first", "laplacian"))
        self.fired = torch.where(by_slope | by_laplacian, self.fired + 1, 0)
        stops = self.fired[self.running] >= settings.patience
        done = self.running[stops]
        if settings.rule != "none":
            self._remember(torch.nonzero(self.fired == 0).flatten())
        if self.calm is not None and len(done):
            self.images = _written(self.images, done, self.calm[0][done])
            self.noise = _written(self.noise, done, self.calm[1][done])
        for i in done.tolist():
            reason = StopReason.SLOPE if by_slope[i] else StopReason.LAPLACIAN
            self.stops = self.stops | {i: Stop(reason, step - settings.patience + 1)}
        self.running = self.running[~stops]
        return stops

    def _remember(self, rows: Tensor) -> None:
        """Remember the images of these indices, and their noise, into which Adam writes."""
        if self.calm is None or len(rows) == len(self.images):
            self.calm = self.images, self.noise.clone()
        elif len(rows):
            pairs = zip(self.calm, (self.images, self.noise), strict=True)
            self.calm = tuple(_written(old, rows, new[rows]) for old, new in pairs)


def _written(whole: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    """Return ``whole`` with new values in the rows of these indices: a copy, or the values."""
    if len(rows) == len(whole):
        return values
    whole = whole.clone()
    whole[rows] = values
    return whole


def diip(
    observation: Observation,
    prior: Prior,
    settings: DIIP = DIIP(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Restore images as the prior's first approximation of them, before it reproduces the damage.

    Args:
        observation: Degraded images, (B, C, h, w); an operator only gives the size to restore.
        prior: Diffusion prior.
        settings: Settings, see :class:`DIIP`.
        start: State of an earlier run to go on from.
        generator: One generator for each image.
        on_step: Progress callback, called after each iteration.

    Returns:
        Images as they were before the rule began to fire; traces ``loss`` and ``sharpness``; their
        noise ``z`` in the extras.

    Raises:
        SizeError: The prior does not accept the size.
        InputError: The channels or devices differ, or the state does not fit.

    Source:
        See the module.

    Example:
        >>> import torch
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> y = torch.full((1, 3, 8, 8), 0.6)
        >>> result = diip(Observation(y), GaussianPrior(variance=0.1), DIIP(iterations=5))
        >>> result.images.shape, result.cost.network_calls
        (torch.Size([1, 3, 8, 8]), 60)
    """
    check_observation(observation, prior)
    y = observation.initial()
    n = len(y)
    draw = Draw(generator, n, y.device)
    recorder = RunRecorder(prior, settings.iterations + 1, on_step, start)
    prior = recorder.prior
    noise = first_noise("diip", y.shape, draw, start)
    memory = {} if start is None else start.recall()
    batch = memory.get("batch") or _Batch(y, noise, torch.arange(n))
    del noise
    z = torch.nn.Parameter(batch.noise[batch.running])
    optimizer = torch.optim.Adam([z], lr=settings.learning_rate)
    if memory:
        optimizer.load_state_dict(memory["optimizer"])

    reason, step, top = StopReason.COMPLETED, recorder.first_step, batch
    try:
        for step in range(recorder.first_step, settings.iterations + 1):
            # Evaluation: the images of the current noise, and their losses.
            x = generate(prior, z, settings.sampler_steps, gradient=settings.gradient)
            loss = mean_squared(x - (y if len(z) == n else y[batch.running]))
            batch.evaluate(x.detach(), z.detach(), loss.detach())
            top = copy.copy(batch)
            recorder.step(batch.images, batch.loss, sharpness=batch.sharpness)

            # Stopping rules: an image that stops returns to where its rule began to fire.
            runs = ~batch.stop(recorder.trace(), step, settings)
            if step == settings.iterations or not runs.any():
                break

            # Descent step on the noise of the others.
            if settings.gradient != "detached":
                recorder.backward_calls += settings.sampler_steps * len(z)
            loss[runs].sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            if not runs.all():
                keep_rows(optimizer, runs)
                z = optimizer.param_groups[0]["params"][0]
            if settings.sphere:
                put_on_sphere(z)
    except Cancelled:
        reason = StopReason.CANCELLED
    stopped = [batch.stops.get(i, Stop(reason, recorder.n_done)) for i in range(n)]
    # A run that goes on repeats the last iteration, with the images that stopped in it.
    adam, random = optimizer.state_dict(), draw.get_states()
    state = recorder.state("diip", step, batch.noise, batch=top, optimizer=adam, generators=random)
    return recorder.result(
        "diip", batch.images, settings, draw.seeds, stopped, state=state, z=batch.noise
    )
