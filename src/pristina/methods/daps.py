"""DAPS: solve the flow to a clean image, sample near it what the data allow, add noise anew.

Glossary:
    y: observation.
    A: operator.
    x: image with noise, x0 + sigma noise, in [-1, 1] units; sigma falls from step to step.
    x0_hat: clean image to which the probability flow of the prior leads from x.
    x0_y: sample of ``exp(-||y - A x0||^2 / (2 tau^2) - ||x0 - x0_hat||^2 / (2 sigma^2))``.
    tau: noise of y.

Source:
    Zhang et al., "Improving diffusion inverse problem solving with decoupled noise annealing", CVPR
    2025, algorithm 1, whose text was not available to us, and its released code, with its noise
    levels from 100 to 0.1, its Euler steps from each to 0.01 and then to 0, and its Langevin steps.
    Deliberate differences:

    * tau is the noise of y; the release has 0.01 in [-1, 1] units for all tasks, and its squared
      residual lacks the factor 1/2, see :data:`PAPER`.
    * The Langevin step is a share of the inverse of the curvature, ``L / tau^2 + 1 / sigma^2``,
      where L is the largest eigenvalue of A^T A (1 for an operator that is not linear); there, it
      is 1e-4 and falls linearly to a hundredth, so that the last levels hardly move.
    * The noise levels of the default end at 0.02, for the last sample keeps noise of that level
      where nothing is observed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pristina.errors import Cancelled
from pristina.methods.steps.annealing import denoise, levels_to_zero, noise_levels
from pristina.methods.steps.chain import begin
from pristina.methods.steps.linear import MIN_SIGMA, known_operator, known_sigma, largest_eigenvalue
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation, Operator
from pristina.priors.base import Prior, to_unit
from pristina.settings import Count, Positive, Settings, Share
from pristina.types import Draw, Generators, OnStep

CLEAN = 0.01
"""Noise level from which an Euler step leads to the clean image."""


@dataclass(frozen=True)
class DAPS(Settings):
    """Settings of :func:`daps`.

    Attributes:
        steps: Number of noise levels.
        ode_steps: Number of network calls at each, the Euler steps of the flow.
        langevin: Number of Langevin steps at each noise level, which call the operator only.
        rate: Langevin step as a share of the inverse curvature, in (0, 1].
        tau: Noise of the observation in [0, 1] units; None takes ``known_sigma``.
        sigma_max: First noise level, in [-1, 1] units; never above the prior's largest.
        sigma_min: Last noise level.
    """

    steps: Count = 50
    ode_steps: Count = 2
    langevin: Count = 20
    rate: Share = 0.5
    tau: Positive | None = None
    sigma_max: Positive = 100.0
    sigma_min: Positive = 0.02


PAPER = DAPS(steps=200, ode_steps=5, langevin=100, rate=1.0, tau=0.005 / 2**0.5, sigma_min=0.1)
"""Published settings in pixel space: 1000 network calls, and the released tau."""


def calls(settings: DAPS) -> Calls:
    """Return the network calls for one image."""
    return Calls(settings.steps * settings.ode_steps)


@torch.no_grad()
def daps(
    observation: Observation,
    prior: Prior,
    settings: DAPS = DAPS(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Sample images that the true operator and noise could have turned into the observation.

    Args:
        observation: Degraded images, the true operator (linear or not), and ``known_sigma``.
        prior: Diffusion prior.
        settings: Settings, see :class:`DAPS`.
        start: State of a cancelled run to go on from. A state without progress begins anew.
        generator: Random generators, one for each image.
        on_step: Function called after each step.

    Returns:
        Result with the images; trace ``loss``, the mean squared residual in [0, 1] units.

    Raises:
        OperatorError: There is no operator.
        InputError: The noise level is missing, or the observation does not fit the prior.
        SizeError: The prior does not accept the size.

    Source:
        See the module.

    Example:
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> observation = Observation(torch.full((1, 3, 8, 8), 0.6), Operator(), known_sigma=0.05)
        >>> result = daps(observation, GaussianPrior(variance=0.1), DAPS(steps=10))
        >>> result.images.shape, result.cost.network_calls
        (torch.Size([1, 3, 8, 8]), 20)
    """
    known = known_operator("DAPS", observation)
    height, width = check_observation(observation, prior)
    y = observation.y
    operator = known.for_batch(len(y)).requires_grad_(False)
    tau = known_sigma(observation, "DAPS") if settings.tau is None else settings.tau
    variance = (2 * max(tau, MIN_SIGMA)) ** 2  # [-1, 1] pixels double the noise.
    draw = Draw(generator, len(y), y.device)

    recorder = RunRecorder(prior, settings.steps, on_step, start)
    prior = recorder.prior
    shape = (len(y), prior.channels, height, width)
    sigmas = levels_to_zero(prior, settings.steps, settings.sigma_max, settings.sigma_min)
    x, images = begin(
        start,
        "daps",
        draw,
        shape,
        observation.initial(),
        lambda: sigmas[0] * draw.normal(*shape[1:]),
    )
    steepest = largest_eigenvalue(operator, shape, y) if operator.linear else torch.tensor(1.0)
    stop = StopReason.COMPLETED
    try:
        for sigma, sigma_next in list(pairwise(sigmas))[recorder.first_step :]:
            x0_hat = flow(prior, x, sigma, settings.ode_steps)
            step = settings.rate / (steepest / variance + 1 / sigma**2)
            x0_y = x0_hat
            for _ in range(settings.langevin):
                pull = pull_of_data(operator, y, x0_y) / variance + (x0_hat - x0_y) / sigma**2
                x0_y = x0_y + step * pull + (2 * step).sqrt() * draw.normal(*shape[1:])
            x = x0_y + sigma_next * draw.normal(*shape[1:])
            images = to_unit(x0_y).clamp(0, 1)
            loss = (operator(to_unit(x0_y)) - y).square().mean((1, 2, 3))
            recorder.step(images, loss)
    except Cancelled:
        stop = StopReason.CANCELLED
    state = recorder.state("daps", recorder.n_done, x, images=images, generators=draw.get_states())
    return recorder.result("daps", images, settings, draw.seeds, stop, state=state)


def flow(prior: Prior, x: Tensor, sigma: float, steps: int) -> Tensor:
    """Follow the probability flow from ``x`` to a clean image by Euler steps, a call for each.

    Args:
        prior: Diffusion prior.
        x: Images with noise ``sigma``, (B, C, H, W).
        sigma: Standard deviation of the noise.
        steps: Number of steps; a single one ends at the mean of the clean images.
    """
    for now, after in pairwise([*noise_levels(steps, sigma, min(sigma, CLEAN)), 0.0]):
        x0 = denoise(prior, x, now)
        x = x0 + after / now * (x - x0)
    return x


def pull_of_data(operator: Operator, y: Tensor, x: Tensor) -> Tensor:
    """Compute the gradient of ``-||2 y - 2 A||^2 / 2`` in images ``x`` of [-1, 1] units."""
    if operator.linear:
        return 2 * operator.adjoint(y - operator(to_unit(x)))
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        misfit = 2 * (y - operator(to_unit(x))).square().sum()
        (gradient,) = torch.autograd.grad(misfit, x)
    return -gradient
