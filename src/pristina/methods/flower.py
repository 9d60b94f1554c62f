"""Flower: estimate where the flow leads, bring that to the data, go on from there with new noise.

The operator and the noise level must be known: an upper bound for blind methods, not one of them.

Glossary:
    y: observation.
    A: operator.
    u: share of noise in x_u, from 1 to 0; the paper's t is 1 - u.
    x_u: image on the flow's path, ``(1 - u) x0 + u noise``.
    x0: destination, the clean image that the prior predicts from x_u.
    sigma: noise of y; nu: uncertainty of x0; both in [-1, 1] units.

Source:
    Pourya, El Rawas and Unser, "Flower: A flow-matching solver for inverse problems", ICLR 2026,
    and its released code, with the paper's gamma = 0: ``nu = u / sqrt((1 - u)^2 + u^2)``, which is
    exact for clean pixels of unit variance; ``x0 <- argmin ||y - A x||^2 / sigma^2 +
    ||x - x0||^2 / nu^2``; ``x_v = (1 - v) x0 + v noise`` with new noise. Deliberate differences:

    * Any diffusion prior, brought to the flow's path (:mod:`pristina.methods.steps.flow`).
    * Conjugate gradients end when the residual has fallen enough; there, after 50 iterations.
    * The noise level has a floor of 0.001, for without noise the problem would be singular.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pristina.errors import Cancelled
from pristina.methods.steps.chain import begin
from pristina.methods.steps.flow import denoise
from pristina.methods.steps.linear import MIN_SIGMA, known_and_linear, proximal
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.settings import Count, Settings
from pristina.types import Draw, Generators, OnStep


@dataclass(frozen=True)
class Flower(Settings):
    """Settings of :func:`flower`.

    Attributes:
        steps: Number of network calls.
        cg_iterations: Largest number of conjugate gradient iterations in each step.
    """

    steps: Count = 100
    cg_iterations: Count = 50


def calls(settings: Flower) -> Calls:
    """Return the network calls for one image."""
    return Calls(settings.steps)


@torch.no_grad()
def flower(
    observation: Observation,
    prior: Prior,
    settings: Flower = Flower(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Restore images with the true operator and the true noise level.

    Args:
        observation: Degraded images, the true operator (linear), and ``known_sigma``.
        prior: Diffusion prior.
        settings: Settings, see :class:`Flower`. The defaults are the published ones.
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
        >>> observation = Observation(torch.full((1, 3, 8, 8), 0.6), Operator(), known_sigma=0.05)
        >>> result = flower(observation, GaussianPrior(variance=0.1), Flower(steps=10))
        >>> result.images.shape, result.cost.network_calls
        (torch.Size([1, 3, 8, 8]), 10)
    """
    known, sigma = known_and_linear("Flower", observation)
    height, width = check_observation(observation, prior)
    y = observation.y
    operator = known.for_batch(len(y)).requires_grad_(False)
    draw = Draw(generator, len(y), y.device)
    variance = torch.tensor((2 * max(sigma, MIN_SIGMA)) ** 2)  # [-1, 1] pixels double the noise.

    recorder = RunRecorder(prior, settings.steps, on_step, start)
    prior = recorder.prior
    shape = (len(y), prior.channels, height, width)
    x, images = begin(
        start, "flower", draw, shape, observation.initial(), lambda: draw.normal(*shape[1:])
    )
    stop = StopReason.COMPLETED
    try:
        for k in range(recorder.first_step, settings.steps):
            u, v = 1 - k / settings.steps, 1 - (k + 1) / settings.steps
            # Destination that the prior predicts.
            x0 = denoise(prior, x, u)
            # Refinement: the data pull as much as the destination is uncertain.
            nu_squared = u**2 / ((1 - u) ** 2 + u**2)
            fitted = proximal(
                operator, y, to_unit(x0), variance / nu_squared, settings.cg_iterations
            )
            images = fitted.clamp(0, 1)
            loss = (operator(fitted) - y).square().mean((1, 2, 3))
            # Progress along the path, with new noise.
            x = (1 - v) * to_signed(fitted) + v * draw.normal(*shape[1:])
            recorder.step(images, loss)
    except Cancelled:
        stop = StopReason.CANCELLED
    state = recorder.state(
        "flower", recorder.n_done, x, images=images, generators=draw.get_states()
    )
    return recorder.result("flower", images, settings, draw.seeds, stop, state=state)
