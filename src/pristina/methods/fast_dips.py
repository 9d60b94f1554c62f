"""FAST-DIPS: bring the denoised image to where the residual is no larger than the noise; repeat.

Glossary:
    y: observation; m its number of values.
    A: operator; J its Jacobian.
    x_t: image with noise, x0 + sigma_t noise, in [-1, 1] units; sigma_t falls from step to step.
    x0: clean image that the prior predicts from x_t, the anchor.
    gamma: sigma_t^2, the squared radius of trust round x0.
    epsilon: radius of the ball round y in which A x must lie, in [-1, 1] units.
    v, u: split variable that stands for A x, and its scaled dual variable.
    rho: penalty of the splitting.

Source:
    Kim, Shin and Lim, "FAST-DIPS: Adjoint-free analytic steps and hard-constrained likelihood
    correction for diffusion-prior inverse problems", ICLR 2026, of which we read the abstract and a
    summary of its equations, and its released code, pixel space: ``min ||x - x0||^2 / (2 gamma)``
    subject to ``||A x - y|| <= epsilon``, by a few ADMM iterations: v by projection on the ball, x
    by gradient steps whose length is exact for an A that is linear near x, halved while they
    ascend; then ``x_s = x + sigma_s noise``. The noise levels fall from 100 to 0.1, and the result
    is the last clean image that the prior predicts. Deliberate differences:

    * epsilon is ``radius sigma_y sqrt(m)``. With a radius of 1 it is the expected length of the
      noise, as the paper derives it, which leaves too much to the prior (26.3 to 26.4 dB in 20
      calls on faces; 27.7 to 29.2 dB with the default). The released scripts have 0.05 for whole
      pictures of 256 px with noise of 0.05 in each pixel, which is hardly more than nothing
      (:data:`PAPER`): the last call of the prior removes the noise.
    * The release computes its last correction and does not use it; so do we not compute it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pristina.errors import Cancelled
from pristina.methods.steps.annealing import denoise, levels_to_zero
from pristina.methods.steps.chain import begin
from pristina.methods.steps.linear import known_operator, known_sigma
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation, Operator
from pristina.priors.base import Prior, to_unit
from pristina.settings import Count, NotNegative, Positive, Settings
from pristina.types import Draw, Generators, OnStep

HALVINGS = 8
"""Most often that a step which ascends is halved."""

PROBE = 1e-3
"""Length, in pixels of [-1, 1], of the step along which a non-linear operator is differentiated."""


@dataclass(frozen=True)
class FASTDIPS(Settings):
    """Settings of :func:`fast_dips`.

    Attributes:
        steps: Number of noise levels, with a network call each.
        admm: Number of ADMM iterations at each.
        descents: Number of gradient steps in each iteration.
        rho: Penalty of the splitting, in [-1, 1] units.
        radius: Root mean square of the residual that is allowed, as a multiple of the noise level.
        sigma_max: First noise level, in [-1, 1] units; never above the prior's largest.
        sigma_min: Last noise level.
    """

    steps: Count = 50
    admm: Count = 3
    descents: Count = 2
    rho: Positive = 200.0
    radius: NotNegative = 0.3
    sigma_max: Positive = 100.0
    sigma_min: Positive = 0.1


PAPER = FASTDIPS(steps=49, radius=0.05 / (0.05 * (3 * 256**2) ** 0.5))
"""Settings of the released script for blur. Its 50 noise levels make 49 network calls."""
PAPER_SUPER_RESOLUTION = FASTDIPS(steps=74, descents=1, radius=0.05 / (0.05 * (3 * 64**2) ** 0.5))
"""Settings of the released script for x4."""
PAPER_INPAINTING = FASTDIPS(steps=74, descents=1, radius=0.05 / (0.05 * (3 * 256**2) ** 0.5))
"""Settings of the released script for masks."""


def calls(settings: FASTDIPS) -> Calls:
    """Return the network calls for one image."""
    return Calls(settings.steps)


@torch.no_grad()
def fast_dips(
    observation: Observation,
    prior: Prior,
    settings: FASTDIPS = FASTDIPS(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Restore images with the true operator, which need not be linear, and the true noise level.

    Args:
        observation: Degraded images, the true operator, and ``known_sigma``.
        prior: Diffusion prior.
        settings: Settings, see :class:`FASTDIPS`.
        start: State of a cancelled run to go on from. A state without progress begins anew.
        generator: Random generators, one for each image.
        on_step: Function called after each step.

    Returns:
        Result with the images; trace ``loss``, the mean squared residual of the clean image that
        the prior predicts, in [0, 1] units.

    Raises:
        OperatorError: There is no operator.
        InputError: ``known_sigma`` is missing, or the observation does not fit the prior.
        SizeError: The prior does not accept the size.

    Source:
        See the module.

    Example:
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> observation = Observation(torch.full((1, 3, 8, 8), 0.6), Operator(), known_sigma=0.05)
        >>> result = fast_dips(observation, GaussianPrior(variance=0.1), FASTDIPS(steps=10))
        >>> result.images.shape, result.cost.network_calls
        (torch.Size([1, 3, 8, 8]), 10)
    """
    known = known_operator("FAST-DIPS", observation)
    height, width = check_observation(observation, prior)
    y = observation.y
    operator = known.for_batch(len(y)).requires_grad_(False)
    # [-1, 1] pixels double the noise.
    epsilon = 2 * settings.radius * known_sigma(observation, "FAST-DIPS") * y[0].numel() ** 0.5
    draw = Draw(generator, len(y), y.device)

    recorder = RunRecorder(prior, settings.steps, on_step, start)
    prior = recorder.prior
    shape = (len(y), prior.channels, height, width)
    sigmas = levels_to_zero(prior, settings.steps, settings.sigma_max, settings.sigma_min)
    x, images = begin(
        start,
        "fast_dips",
        draw,
        shape,
        observation.initial(),
        lambda: sigmas[0] * draw.normal(*shape[1:]),
    )
    stop = StopReason.COMPLETED
    try:
        for sigma, sigma_next in list(pairwise(sigmas))[recorder.first_step :]:
            x0 = denoise(prior, x, sigma)
            if sigma_next:
                x = corrected(operator, y, x0, sigma**2, epsilon, settings)
                x = x + sigma_next * draw.normal(*shape[1:])
            else:
                x = x0
            images = to_unit(x0).clamp(0, 1)
            recorder.step(images, (operator(to_unit(x0)) - y).square().mean((1, 2, 3)))
    except Cancelled:
        stop = StopReason.CANCELLED
    state = recorder.state(
        "fast_dips", recorder.n_done, x, images=images, generators=draw.get_states()
    )
    return recorder.result("fast_dips", images, settings, draw.seeds, stop, state=state)


def corrected(
    operator: Operator,
    y: Tensor,
    x0: Tensor,
    gamma: float,
    epsilon: float,
    settings: FASTDIPS,
) -> Tensor:
    """Move images towards where ``||A x - y|| <= epsilon``, but not far from ``x0``, by ADMM.

    Args:
        operator: Operator A.
        y: Observations, (B, C, h, w), in [0, 1] units.
        x0: Anchors, (B, C, H, W), in [-1, 1] units.
        gamma: Squared radius of trust.
        epsilon: Radius of the ball, in [-1, 1] units.
        settings: Settings, see :class:`FASTDIPS`.
    """

    def misfit(x: Tensor) -> Tensor:  # A x - y, twice that of [0, 1] pixels.
        return 2 * (operator(to_unit(x)) - y)

    x, v = x0, misfit(x0)  # v is measured from y.
    u = torch.zeros_like(v)
    for _ in range(settings.admm):
        for _ in range(settings.descents):
            x = descended(operator, misfit, x, x0, v - u, gamma, settings.rho)
        w = misfit(x) + u
        v = w * (epsilon / norm(w).clamp(min=1e-12)).clamp(max=1)
        u = w - v
    return x


def descended(
    operator: Operator,
    misfit: Callable[[Tensor], Tensor],
    x: Tensor,
    x0: Tensor,
    b: Tensor,
    gamma: float,
    rho: float,
) -> Tensor:
    """Make a gradient step on ``||x - x0||^2 / (2 gamma) + rho ||misfit(x) - b||^2 / 2``.

    Its length minimises the value for an operator that is linear along the gradient, and is halved
    for the images whose value it raises.
    """

    def value(x: Tensor, r: Tensor) -> Tensor:
        return norm(x - x0) ** 2 / gamma + rho * norm(r) ** 2

    with torch.enable_grad():
        x = x.detach().requires_grad_()
        r = misfit(x) - b
        (from_data,) = torch.autograd.grad(r, x, r.detach())
    x, r = x.detach(), r.detach()
    g = (x - x0) / gamma + rho * from_data
    # J g: exact for a linear operator, a difference quotient for others.
    probe = 1.0 if operator.linear else PROBE / g.abs().amax((1, 2, 3), keepdim=True).clamp(1e-12)
    along = (misfit(x - probe * g) - b - r) / -probe
    length = norm(g) ** 2 / (norm(g) ** 2 / gamma + rho * norm(along) ** 2).clamp(min=1e-30)
    before = value(x, r)
    for _ in range(HALVINGS):
        step = x - length * g
        worse = value(step, misfit(step) - b) > before * (1 + 1e-6)
        if operator.linear or not worse.any():
            break
        length = torch.where(worse, length / 2, length)
    return x - length * g


def norm(x: Tensor) -> Tensor:
    """Compute the Euclidean norm of each image, (B, 1, 1, 1)."""
    return x.square().sum((1, 2, 3), keepdim=True).sqrt()
