"""PnP-Flow: step down the data term, put the image back on the flow's path, denoise; repeat.

The operator must be known, but not the noise level.

Glossary:
    y: observation.
    A: operator.
    u: share of noise on the flow's path, from 1 to 0; the paper's t is 1 - u.
    x: current image, in [-1, 1] units.
    z: x after a gradient step on the data term.
    gamma: step size, u ** alpha.

Source:
    Martin, Gagneux, Hagemann and Steidl, "PnP-Flow: Plug-and-play image restoration with flow
    matching", ICLR 2025, algorithm 3, and its released code: ``z = x - u^alpha A^T (A x - y)``,
    then the mean of the denoiser over several draws of ``(1 - u) z + u noise``. Deliberate
    differences:

    * Any diffusion prior, brought to the flow's path (:mod:`pristina.methods.steps.flow`).
    * The gradient is divided by the largest eigenvalue of A^T A where that is above 1 (power
      iteration), so that operators such as a sum of rays do not diverge.
    * The first image does not matter, for nothing of it is left at u = 1; the observation brought
      to picture size stands in for the adjoint of ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pristina.errors import Cancelled
from pristina.methods.steps.chain import begin
from pristina.methods.steps.flow import denoise
from pristina.methods.steps.linear import known_linear, largest_eigenvalue
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.settings import Count, NotNegative, Settings
from pristina.types import Draw, Generators, OnStep


@dataclass(frozen=True)
class PnPFlow(Settings):
    """Settings of :func:`pnp_flow`.

    Attributes:
        steps: Number of steps.
        alpha: Exponent of the step size; the larger, the sooner the data are left alone.
        draws: Number of network calls in each step, over which the denoiser is averaged.
    """

    steps: Count = 100
    alpha: NotNegative = 0.5
    draws: Count = 5


PAPER = PnPFlow(alpha=0.01)
"""Settings of the released script for Gaussian blur and random masks, on faces."""
PAPER_SUPER_RESOLUTION = PnPFlow(alpha=0.3)
"""Settings of the released script for super-resolution, on faces."""
PAPER_INPAINTING = PnPFlow(alpha=0.5)
"""Settings of the released script for a missing box, on faces."""


def calls(settings: PnPFlow) -> Calls:
    """Return the network calls for one image."""
    return Calls(settings.steps * settings.draws)


@torch.no_grad()
def pnp_flow(
    observation: Observation,
    prior: Prior,
    settings: PnPFlow = PnPFlow(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Restore images with the true operator.

    Args:
        observation: Degraded images and the true operator, which must be linear.
        prior: Diffusion prior.
        settings: Settings, see :class:`PnPFlow`.
        start: State of a cancelled run to go on from. A state without progress begins anew.
        generator: Random generators, one for each image.
        on_step: Function called after each step.

    Returns:
        Result with the images; trace ``loss``, the mean squared residual in [0, 1] units.

    Raises:
        OperatorError: There is no operator, or it is not linear.
        InputError: The observation does not fit the prior.
        SizeError: The prior does not accept the size.

    Source:
        See the module.

    Example:
        >>> from pristina.operators.base import Operator
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> observation = Observation(torch.full((1, 3, 8, 8), 0.6), Operator())
        >>> result = pnp_flow(observation, GaussianPrior(variance=0.1), PnPFlow(steps=10))
        >>> result.images.shape, result.cost.network_calls
        (torch.Size([1, 3, 8, 8]), 50)
    """
    known = known_linear("PnP-Flow", observation)
    height, width = check_observation(observation, prior)
    y = observation.y
    operator = known.for_batch(len(y)).requires_grad_(False)
    draw = Draw(generator, len(y), y.device)

    recorder = RunRecorder(prior, settings.steps, on_step, start)
    prior = recorder.prior
    shape = (len(y), prior.channels, height, width)
    first = observation.initial()
    x, images = begin(start, "pnp_flow", draw, shape, first, lambda: to_signed(first))
    scale = largest_eigenvalue(operator, shape, y).clamp(min=1)
    stop = StopReason.COMPLETED
    try:
        for k in range(recorder.first_step, settings.steps):
            u = 1 - k / settings.steps
            # Gradient step on the data term; a residual of [-1, 1] pixels is twice as large.
            residual = operator(to_unit(x)) - y
            z = x - 2 * u**settings.alpha * operator.adjoint(residual) / scale
            # Back on the path, and denoised; averaged over draws of the noise.
            x = torch.zeros_like(z)
            for _ in range(settings.draws):
                x += denoise(prior, (1 - u) * z + u * draw.normal(*shape[1:]), u) / settings.draws
            images = to_unit(x).clamp(0, 1)
            recorder.step(images, (operator(to_unit(x)) - y).square().mean((1, 2, 3)))
    except Cancelled:
        stop = StopReason.CANCELLED
    state = recorder.state(
        "pnp_flow", recorder.n_done, x, images=images, generators=draw.get_states()
    )
    return recorder.result("pnp_flow", images, settings, draw.seeds, stop, state=state)
