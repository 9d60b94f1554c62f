"""Refit: in each step fit the image, the damage and the noise again, to what one call predicts.

Blind, and without a gradient through the network: a chain falls from much noise to little and stays
there, with one call in each step, and the mean of the images of its end is returned.

Glossary:
    y: observation; m: number of its values.
    A: operator; eta: its unknown parameters.
    x_tau: image with noise of standard deviation tau, in the prior's [-1, 1] units.
    x0: clean image that the prior predicts from it.
    x: image fitted to x0 and y.
    C: covariance of the error of x0.
    sigma: noise of y, of one level for each brightness.

Source:
    Ours, of published parts. Each step is::

        x0    = D(x_tau)
        x     = argmin ||(y - A x) / sigma||^2 + (x - x0)^T C^-1 (x - x0)
        eta   : some steps of Adam on ||(y - A x0) / sigma||^2
        sigma^2 = ||y - A x||^2 / m  and what x is uncertain by
        x_tau = x + tau noise, with new noise and the next tau

    * The data step on the prediction and the new noise: Flower (Pourya et al., ICLR 2026), PnP-Flow
      (Martin et al., ICLR 2025), FAST-DIPS (2026) for operators that are not linear. C is not a
      number but falls with frequency (:mod:`pristina.methods.steps.correlated`).
    * Unknowns fitted in turns with the image: GibbsDDRM (Murata et al., ICML 2023), which fits them
      to the prediction as here (x already agrees with whatever they are), and FastDiffusionEM
      (Laroche et al., WACV 2024). A kernel step in closed form was worse (``benchmarks/speed.md``).
    * The noise integrated out, ``(m / 2) log ||r||^2``: NA-NHMC (2026). New: for each brightness or
      frequency, and with values that were clipped replaced by their expectation
      (:mod:`pristina.methods.steps.noise_level`).
    * New: before the first call the image is fitted to a single colour, with C the spectrum of
      images, so that the chain begins with moderate noise (without an operator, at y); it stays at
      the last level and returns the mean of its images there, which is nearer to the mean of the
      posterior than one of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from pristina.errors import Cancelled
from pristina.methods.steps.annealing import denoise
from pristina.methods.steps.correlated import ErrorSpectrum
from pristina.methods.steps.fitted import KnownForm, UnknownForm, cooling
from pristina.methods.steps.latent import first_operator
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation, Operator
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.settings import Count, Positive, Settings, Share
from pristina.types import Draw, Generators, Images, OnStep

PACE = 30
"""Number of steps for which the learning rates are meant; in more steps each is smaller."""

TOLD = 2.0, 0.3
"""First and last noise where the form of the damage is known; the last is larger where y is small:
an image that fits is then nearest to the truth if it is the mean of many that differ."""

UNTOLD = 0.6, 0.2
"""The same where it is not, and the chain begins at the observation."""


@dataclass(frozen=True)
class Refit(Settings):
    """Settings of :func:`refit`.

    Attributes:
        steps: Number of network calls.
        first_noise: Noise of the first step, in [-1, 1] units; None for 2 with an operator, and 0.6
            without one.
        last_noise: Noise of the last steps; None for 0.2 without an operator. With one, an eighth
            of the side, in pixels, of the area that a number of y stands for, 0.3 to 2.
        settle: Share of the steps that are made at the last level; the others fall to it
            geometrically.
        average: Share of the steps whose images are averaged, from the end; 0 for the last one.
        trust: Share of a Wiener filter's error that the prior's predictions have.
        rate: Learning rate of the operator's unknowns, in the units in which the operator keeps
            them (mostly logarithms of positive numbers), for a chain of 30 steps; in a chain of
            more, each is that much smaller. It falls to zero along half a cosine.
        kernel_rate: Learning rate of kernels that are kept as logits.
        iterations: Number of conjugate gradient iterations of a data step.
        sample: Whether each image is drawn given prediction and observation instead of their mean.
    """

    steps: Count = 30
    first_noise: Positive | None = None
    last_noise: Positive | None = None
    settle: Share = 0.6
    average: Share = 0.5
    trust: Annotated[float, Interval(gt=0, le=1)] = 0.7
    rate: Positive = 0.05
    kernel_rate: Positive = 0.07
    iterations: Count = 6
    sample: bool = False

    def levels(self, told: bool, area: float = 1.0) -> list[float]:
        """Return the noise of each step.

        Args:
            told: Whether there is an operator.
            area: Pixels of the image for each number of y.
        """
        first, last = TOLD if told else UNTOLD
        if told:
            last = min(first, max(last, math.sqrt(area) / 8))
        first = first if self.first_noise is None else self.first_noise
        last = last if self.last_noise is None else self.last_noise
        n = self.steps - round(self.settle * self.steps)
        falling = [first * (last / first) ** (k / max(1, n)) for k in range(n)]
        return falling + [last] * (self.steps - n)


SAMPLE = Refit(last_noise=0.02, settle=0.0, average=0.0, sample=True)
"""A chain to the end, whose image is one of those that are possible and not their mean."""


def calls(settings: Refit) -> Calls:
    """Return the network calls for one image."""
    return Calls(settings.steps)


def refit(
    observation: Observation,
    prior: Prior,
    settings: Refit = Refit(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Restore images by fitting them, the unknowns of the damage and its noise in each step.

    Args:
        observation: Degraded images, and the form of the damage, whose unknowns are learnable and
            start from a first guess. Without an operator the damage may have any form; it is taken
            for noise of an unknown spectrum.
        prior: Diffusion prior.
        settings: Settings, see :class:`Refit`.
        start: State of a cancelled run to go on from. A state without progress gives the first
            guess of the unknowns; the chain begins with noise of its own.
        generator: Random generators, one for each image.
        on_step: Function called after each step.

    Returns:
        Result with the images and the estimated operator, if there is one; trace ``loss``, the
        mean squared residual in [0, 1] units; extra ``sigma``, the estimated noise, (B,).

    Raises:
        InputError: The observation does not fit the prior, or the state to the observation.
        OperatorError: The operator has parameters for another number of images.
        SizeError: The prior does not accept the size.

    Source:
        See the module.

    Example:
        >>> from pristina.operators.blur import GaussianBlur
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> y = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> observation = Observation(y, GaussianBlur(1.0, size=9))
        >>> result = refit(observation, GaussianPrior(variance=0.1), Refit(steps=10))
        >>> result.images.shape, result.cost.network_calls
        (torch.Size([1, 3, 16, 16]), 10)
    """
    size = check_observation(observation, prior)
    y = observation.y
    draw = Draw(generator, len(y), y.device)
    recorder = RunRecorder(prior, settings.steps, on_step, start)
    prior = recorder.prior
    shape = (len(y), prior.channels, *size)
    if start is not None:
        start.check("refit", shape, draw.device)
        start.restore_generators(draw)
    operator = None if observation.operator is None else first_operator(observation, start)
    fitted = UnknownForm(y) if operator is None else _known_form(y, operator, shape, settings)
    levels = settings.levels(operator is not None, math.prod(shape[1:]) / y[0].numel())
    if start is not None and start.memory and start.noise is not None:
        memory = start.recall()
        x_tau, total, images = start.noise.clone(), memory["total"], memory["images"]
        fitted.recall(memory["fitted"])
    else:
        x = fitted.first(shape, draw)
        x_tau = _renewed(x, levels[0], draw)
        total, images = torch.zeros_like(x), x.clamp(0, 1)
    n_averaged = max(1, round(settings.average * settings.steps))
    stop = StopReason.COMPLETED
    try:
        for k, tau in [*enumerate(levels)][recorder.first_step :]:
            with torch.no_grad():
                x0 = to_unit(denoise(prior, x_tau, tau))
            error = ErrorSpectrum(x0, tau / 2, settings.trust)  # [-1, 1] pixels double the noise.
            x = fitted.fit(x0, error, draw, settings.sample)
            fitted.learn(x0, PACE / settings.steps * cooling(k / settings.steps))
            loss = fitted.measure(x, error, draw)
            # The mean of the last images, or the last one.
            images = x.clamp(0, 1)
            n_kept = k + 1 - (settings.steps - n_averaged)
            if n_kept > 0:
                total = total + images
                images = total / n_kept
            x_tau = _renewed(x, levels[min(k + 1, settings.steps - 1)], draw)
            recorder.step(images, loss)
    except Cancelled:
        stop = StopReason.CANCELLED
    state = recorder.state(
        "refit",
        recorder.n_done,
        x_tau,
        operator,
        images=images,
        total=total,
        fitted=fitted.memory(),
        generators=draw.get_states(),
    )
    return recorder.result(
        "refit",
        images,
        settings,
        draw.seeds,
        stop,
        operator=operator,
        state=state,
        sigma=fitted.sigma(),
    )


def _known_form(
    y: Tensor, operator: Operator, shape: tuple[int, ...], settings: Refit
) -> KnownForm:
    rates = settings.rate, settings.kernel_rate
    return KnownForm(y, operator, shape, *rates, settings.iterations)


def _renewed(x: Images, tau: float, draw: Draw) -> Tensor:
    """Return images in [-1, 1] units with new noise tau."""
    return to_signed(x) + tau * draw.normal(*x.shape[1:])
