"""DPS: ancestral sampling, each step corrected by the gradient of the residual through the network.

Glossary:
    y: observation.
    A: operator.
    x_t: diffused image.
    x0: clean image that the prior predicts from x_t.
    r: residual y - A(x0).
    zeta: step size.

Source:
    Chung et al., "Diffusion posterior sampling for general noisy inverse problems", ICLR 2023,
    algorithm 1, and its released code: ``x_s <- step(x_t) - zeta grad_{x_t} ||y - A(x0)||``, the
    norm not squared, in [-1, 1] units, x0 clipped. Deliberate differences:

    * The norm is that of each image (there it runs over the batch).
    * Any number of steps and any size: zeta, given for 1000 steps at 256 x 256 px, is multiplied
      by ``1000 / steps`` and by ``sqrt(H W) / 256``, because a unit residual is spread over that
      many pixels.
    * The "small" variance, for a prior that predicts none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval

from pristina.errors import Cancelled, OperatorError
from pristina.methods.steps.chain import begin
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation
from pristina.priors.base import Prior, to_unit
from pristina.priors.generate import clip_signed
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, ddpm_step, step_pairs
from pristina.settings import NotNegative, Settings
from pristina.types import Draw, Generators, OnStep


@dataclass(frozen=True)
class DPS(Settings):
    """Settings of :func:`dps`.

    Attributes:
        steps: Number of network calls, 1 to 1000, each differentiated.
        zeta: Step size in the paper's units (1000 steps at 256 px).
    """

    steps: Annotated[int, Interval(ge=1, le=N_TIMESTEPS)] = 50
    zeta: NotNegative = 1.0


PAPER = DPS(steps=1000, zeta=0.3)
"""Published settings for blur, x4 and non-linear blur."""

PAPER_INPAINTING = DPS(steps=1000, zeta=0.5)
"""Published settings for masks."""


def calls(settings: DPS) -> Calls:
    """Return the network calls for one image."""
    return Calls(settings.steps, settings.steps, pictures=16)


def dps(
    observation: Observation,
    prior: Prior,
    settings: DPS = DPS(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Sample images that the known operator could have turned into the observation.

    Args:
        observation: Degraded images and the operator, whose parameters are taken for the truth.
        prior: Diffusion prior.
        settings: Settings, see :class:`DPS`.
        start: State of a cancelled run to go on from. A state without progress begins anew.
        generator: Random generators, one for each image.
        on_step: Function called after each step.

    Returns:
        Result with the images; trace ``loss``, the mean squared residual in [0, 1] units.

    Raises:
        OperatorError: There is no operator.
        SizeError: The prior does not accept the size.
        InputError: The observation contains NaN or has the wrong number of channels.

    Source:
        See the module.

    Example:
        >>> from pristina.operators.base import Operator
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> observation = Observation(torch.full((1, 3, 8, 8), 0.6), Operator())
        >>> result = dps(observation, GaussianPrior(variance=0.1), DPS(steps=10))
        >>> result.images.shape, result.cost.network_calls, result.cost.backward_calls
        (torch.Size([1, 3, 8, 8]), 10, 10)
    """
    if observation.operator is None:
        raise OperatorError(
            "DPS needs the operator, with its parameters; "
            "give it one, or take a blind method such as diip."
        )
    height, width = check_observation(observation, prior)
    y = observation.y
    n = len(y)
    operator = observation.operator.for_batch(n).requires_grad_(False)
    draw = Draw(generator, n, y.device)
    zeta = settings.zeta * (N_TIMESTEPS / settings.steps) * (height * width) ** 0.5 / 256

    recorder = RunRecorder(prior, settings.steps, on_step, start)
    prior = recorder.prior
    shape = (n, prior.channels, height, width)
    x, images = begin(
        start, "dps", draw, shape, observation.initial(), lambda: draw.normal(*shape[1:])
    )
    stop = StopReason.COMPLETED
    try:
        for t, s in step_pairs(settings.steps, len(prior.alpha_bar))[recorder.first_step :]:
            a_t, a_s = alpha_bar_at(prior.alpha_bar, t), alpha_bar_at(prior.alpha_bar, s)
            # Gradient of ||r|| in x_t through the network; the factor 2 makes it [-1, 1] units.
            x.requires_grad_()
            x0 = clip_signed(prior.predict(x, t).x0)
            r = (y - operator(to_unit(x0))).flatten(1)
            norm, loss = 2 * r.norm(dim=1), r.detach().square().mean(1)
            del r
            (gradient,) = torch.autograd.grad(norm.sum(), x)
            x0 = x0.detach()
            del norm
            recorder.backward_calls += n
            with torch.no_grad():
                # Ancestral step, corrected.
                x = ddpm_step(x, x0, a_t, a_s, draw.normal(*x.shape[1:]))
                x = x.sub_(gradient.mul_(zeta))
                images = to_unit(x if s < 0 else x0).clamp(0, 1)
            recorder.step(images, loss)
    except Cancelled:
        stop = StopReason.CANCELLED
    state = recorder.state("dps", recorder.n_done, x, images=images, generators=draw.get_states())
    return recorder.result("dps", images, settings, draw.seeds, stop, state=state)
