"""DPS: ancestral sampling, each step corrected by the gradient of the residual, taken through the network.

Glossary: y observation, A operator, x_t diffused picture, x0 clean picture that the prior sees in it, r residual y - A(x0), zeta step size.

Source:
    Chung et al., "Diffusion posterior sampling for general noisy inverse problems", ICLR 2023, algorithm 1, and its released code: ``x_s <-
    step(x_t) - zeta grad_{x_t} ||y - A(x0)||``, norm not squared, in [-1, 1] units, x0 clipped.
    Deliberate differences: the norm is each picture's own (there it runs over the batch); any number of steps, and any size: zeta, given for
    1000 steps at 256 x 256 px, is multiplied by ``1000 / steps`` and by ``sqrt(H W) / 256``, for a unit residual is spread over that many
    pixels; the "small" variance, for a prior that predicts none; the network's weights need no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pristina.errors import Cancelled, OperatorError, SettingError
from pristina.methods.base import Books, Result, check_observation
from pristina.operators.base import Observation
from pristina.priors.base import Prior, to_unit
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, ddpm_step, step_pairs
from pristina.types import Draw, OnStep


@dataclass(frozen=True)
class DPS:
    """Settings of :func:`dps`.

    Attributes:
        steps: Network calls, each differentiated through.
        zeta: Step size in the paper's units (1000 steps at 256 px).
    """

    steps: int = 50
    zeta: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= N_TIMESTEPS:
            raise SettingError(f"steps must lie between 1 and {N_TIMESTEPS}, not {self.steps}.")
        if not self.zeta >= 0:
            raise SettingError(f"zeta must not be negative ({self.zeta}).")


PAPER = DPS(steps=1000, zeta=0.3)


def dps(
    observation: Observation,
    prior: Prior,
    settings: DPS = DPS(),
    *,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Samples of the pictures that the known operator could have turned into the observation.

    Args:
        observation: The degraded pictures and the operator, its parameters taken for the truth.
        prior: The diffusion prior.
        settings: See :class:`DPS`.
        generator: One for each picture.
        on_step: Called after each step.

    Returns:
        Pictures; trace ``loss``, the mean squared residual in [0, 1] units.

    Raises:
        OperatorError: There is no operator.
        SizeError: The prior does not accept the size.
        InputError: NaN, or the wrong number of channels.

    Source:
        See the module.

    Example:
        >>> from pristina.operators.base import Operator
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> observation = Observation(torch.full((1, 3, 8, 8), 0.6), Operator())
        >>> result = dps(observation, GaussianPrior(variance=0.1), DPS(steps=10))
        >>> result.picture.shape, result.cost.network_calls, result.cost.backward_calls
        (torch.Size([1, 3, 8, 8]), 10, 10)
    """
    if observation.operator is None:
        raise OperatorError("DPS needs the operator, with its parameters; give it one, or take a blind method such as diip.")
    height, width = check_observation(observation, prior)
    y = observation.y
    n = len(y)
    operator = observation.operator.for_batch(n).requires_grad_(False)
    draw = Draw(generator, n, y.device)
    zeta = settings.zeta * (N_TIMESTEPS / settings.steps) * (height * width) ** 0.5 / 256

    books = Books(prior, settings.steps, on_step)
    x = draw.normal(prior.channels, height, width)
    picture = observation.initial()
    why = ["the chain is done"] * n
    try:
        for t, s in step_pairs(settings.steps, len(prior.alpha_bar)):
            x.requires_grad_()
            x0 = prior.predict(x, t).x0.clamp(-1, 1)
            r = (y - operator(to_unit(x0))).flatten(1)
            norm = 2 * r.norm(dim=1)  # [-1, 1] units
            (gradient,) = torch.autograd.grad(norm.sum(), x)
            books.backward_calls += n
            with torch.no_grad():
                noise = draw.normal(*x.shape[1:])
                x = ddpm_step(x, x0, alpha_bar_at(prior.alpha_bar, t), alpha_bar_at(prior.alpha_bar, s), noise) - zeta * gradient
                picture = to_unit(x if s < 0 else x0).clamp(0, 1)
            books.step(picture, r.detach().square().mean(1))
    except Cancelled:
        why = [f"cancelled at step {books.n_done}"] * n
    return books.result("dps", picture, settings, draw.seeds, why)
