"""DiffPIR: denoise with the prior, fit the data by a proximal step, add noise again.

The operator and the noise level must be known: an upper bound for blind methods, not one of them.

Glossary:
    y: observation.
    A: operator.
    x_t: diffused image.
    x0: clean image that the prior predicts from x_t.
    sigma: noise of y; sigma_bar: noise of x_t over its signal; both in [-1, 1] units.
    rho: weight of x0 against the data.
    lam: strength of the prior.
    zeta: share of the noise that is drawn anew.

Source:
    Zhu et al., "Denoising diffusion models for plug-and-play image restoration", CVPRW 2023,
    algorithm 1: ``rho = lam sigma^2 / sigma_bar^2``,
    ``x0 <- argmin ||y - A x||^2 + rho ||x - x0||^2``. Deliberate differences:

    * The minimiser is found by conjugate gradients from the operator and its adjoint, for any
      linear operator, instead of in a closed form for each.
    * sigma is in [-1, 1] units as sigma_bar is; the released scripts take it in [0, 1] units, so
      that their lambda is four times ``lam``.
    * The default has one lam and zeta for all tasks, and evenly spaced timesteps. Those of the
      scripts (``spacing="quadratic"``) are dense where there is little
      noise, with a leap of a tenth of the chain at its beginning.
    * The chain begins with pure noise; there, with the observation diffused to t = 999.
    * The data step is made at t = 0 too and its result returned; there, the last diffused image.
    * ``spread``, see :class:`DiffPIR`.

    The noise level has a floor of 0.001, as in the scripts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
from annotated_types import Interval

from pristina.errors import Cancelled
from pristina.methods.steps.chain import begin
from pristina.methods.steps.linear import MIN_SIGMA, known_and_linear, proximal
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.priors.schedule import (
    N_TIMESTEPS,
    alpha_bar_at,
    ddim_step,
    eps_from_x0,
    step_pairs,
)
from pristina.settings import Count, Positive, Settings, Share
from pristina.types import Draw, Generators, OnStep


@dataclass(frozen=True)
class DiffPIR(Settings):
    """Settings of :func:`diffpir`.

    Attributes:
        steps: Number of network calls, 1 to 1000; fewer if quadratic timesteps repeat.
        lam: Strength of the prior against the data.
        zeta: Share of the noise that is drawn anew at each step, in [0, 1].
        spread: Standard deviation of clean pixels in [0, 1] units. x0 is uncertain by sigma_bar
            only where there is little noise; it is never more uncertain than clean images are, so
            that ``rho = lam sigma^2 (1 / sigma_bar^2 + 1 / spread^2)``. This makes each proximal
            step exact for a Gaussian prior of this spread; None leaves the second term out, as
            the paper does.
        cg_iterations: Largest number of conjugate gradient iterations in each step.
        spacing: Spacing of the timesteps: ``even``, or ``quadratic`` as in the released scripts.
    """

    steps: Annotated[int, Interval(ge=1, le=N_TIMESTEPS)] = 20
    lam: Positive = 4.0
    zeta: Share = 1.0
    spread: Positive | None = None
    cg_iterations: Count = 30
    spacing: Literal["even", "quadratic"] = "even"


PAPER = DiffPIR(steps=100, lam=7 / 4, zeta=0.3, spacing="quadratic")
"""Settings with which the released script for blur runs: lambda 7 in its units."""

PAPER_SUPER_RESOLUTION = DiffPIR(steps=100, lam=7 / 4, zeta=0.25, spacing="quadratic")
"""Settings of the script for x4: the middle of the lambdas 2, 3, ..., 12 that it runs through."""

PAPER_INPAINTING = DiffPIR(steps=20, lam=1 / 4, zeta=1.0, spacing="quadratic")
"""Settings with which the script for masks runs: lambda 1 in its units."""


def calls(settings: DiffPIR) -> Calls:
    """Return the network calls for one image."""
    return Calls(len(chain(settings)))


def chain(settings: DiffPIR, n: int = N_TIMESTEPS) -> list[tuple[int, int]]:
    """Return the (t, s) pairs of a chain for a prior of ``n`` timesteps."""
    even = settings.spacing == "even"
    return step_pairs(settings.steps, n) if even else quadratic_pairs(settings.steps, n)


def quadratic_pairs(steps: int, n: int = N_TIMESTEPS) -> list[tuple[int, int]]:
    """Return the (t, s) pairs of the released scripts; the last s is -1, where alpha_bar is 1.

    Timesteps that would repeat, as they do from some 500 steps on, are made once.

    Args:
        steps: Number of steps.
        n: Number of timesteps of the prior.

    Example:
        >>> quadratic_pairs(4)
        [(999, 422), (422, 183), (183, 0), (0, -1)]
    """
    squares = torch.linspace(0, n**2, steps, dtype=torch.float64)
    ts = [n - 1 - min(int(root), n - 1) for root in squares.sqrt().tolist()]
    return list(pairwise([*dict.fromkeys(ts), -1]))


@torch.no_grad()
def diffpir(
    observation: Observation,
    prior: Prior,
    settings: DiffPIR = DiffPIR(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Restore images with the true operator and the true noise level.

    Args:
        observation: Degraded images, the true operator (linear), and ``known_sigma``.
        prior: Diffusion prior.
        settings: Settings, see :class:`DiffPIR`.
        start: State of a cancelled run to go on from. A state without progress begins anew.
        generator: Random generators, one for each image.
        on_step: Function called after each step.

    Returns:
        Result with the images; trace ``loss``, the mean squared residual in [0, 1] units.

    Raises:
        OperatorError: There is no operator, or it is not linear.
        InputError: ``known_sigma`` is missing, or the observation does not fit the prior.
        SizeError: The prior does not accept the size.

    Source:
        See the module.

    Example:
        >>> from pristina.operators.base import Operator
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> y, prior = torch.full((1, 3, 8, 8), 0.6), GaussianPrior(variance=0.1)
        >>> observation = Observation(y, Operator(), known_sigma=0.05)
        >>> result = diffpir(observation, prior, DiffPIR(steps=10))
        >>> result.images.shape, result.cost.network_calls
        (torch.Size([1, 3, 8, 8]), 10)
    """
    known, sigma = known_and_linear("DiffPIR", observation)
    height, width = check_observation(observation, prior)
    y = observation.y
    n = len(y)
    operator = known.for_batch(n).requires_grad_(False)
    draw = Draw(generator, n, y.device)
    variance = (2 * max(sigma, MIN_SIGMA)) ** 2  # [-1, 1] pixels double the noise
    certainty = 0.0 if settings.spread is None else 1 / (2 * settings.spread) ** 2

    pairs = chain(settings, len(prior.alpha_bar))
    recorder = RunRecorder(prior, len(pairs), on_step, start)
    prior = recorder.prior
    shape = (n, prior.channels, height, width)
    x, images = begin(
        start, "diffpir", draw, shape, observation.initial(), lambda: draw.normal(*shape[1:])
    )
    stop = StopReason.COMPLETED
    try:
        for t, s in pairs[recorder.first_step :]:
            a_t, a_s = alpha_bar_at(prior.alpha_bar, t), alpha_bar_at(prior.alpha_bar, s)
            # Denoising step.
            x0 = prior.predict(x, t).x0.clamp(-1, 1)
            # Data step: proximal map of the residual, with sigma_bar^2 = (1 - a_t) / a_t.
            rho = settings.lam * variance * (a_t / (1 - a_t) + certainty)
            fitted = proximal(operator, y, to_unit(x0), rho, settings.cg_iterations)
            images = fitted.clamp(0, 1)
            loss = (operator(fitted) - y).square().mean((1, 2, 3))
            # Diffusion to s, with the share zeta of the noise drawn anew.
            x0 = to_signed(fitted)
            old, new = eps_from_x0(x, x0, a_t), draw.normal(*x.shape[1:])
            eps = (1 - settings.zeta) ** 0.5 * old + settings.zeta**0.5 * new
            x = ddim_step(x0, eps, a_s)
            recorder.step(images, loss)
    except Cancelled:
        stop = StopReason.CANCELLED
    state = recorder.state(
        "diffpir", recorder.n_done, x, images=images, generators=draw.get_states()
    )
    return recorder.result("diffpir", images, settings, draw.seeds, stop, state=state)
