"""GDP: sample from the prior, and push every step towards the observation.

Glossary: y observation, A operator, x_t diffused picture, x0 clean picture that the prior sees in it, mean and variance of the ancestral step,
L mean squared error of A(x0) to y, s guidance scale, f and M factor and mask of the light model.

Source:
    Fei et al., "Generative diffusion prior for unified image restoration and enhancement", CVPR 2023, and its released code: ``mean <- mean
    - s grad L``, the gradient through A only, never through the network, and not multiplied by the variance as the paper prints.
    Deliberate differences: any number of steps, s multiplied by ``1000 / steps``; s, which belongs to a mean over 256 x 256 px, is multiplied
    by ``H W / 256^2``, so that a pixel is pushed as far as there; the scales of the default and of :data:`LIGHT` were tuned on faces of
    64 px, for at few steps the paper's overshoot; the "small" variance, for a prior that predicts none; the optimiser round the mean, which
    never sees a gradient, is left out; the light model's guidance is applied once (there twice from the same x0); its exposure, colour and
    smoothness terms, commented out there, are left out; windows overlap by half and share one A and one gradient, taken on the averaged x0.
    Any operator's learnable parameters are fitted the way f and M are.
    Because the push knows neither the noise of y nor the variance of the step, GDP fits the noise as well, and is the least exact sampler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pristina.errors import Cancelled, SettingError
from pristina.methods.base import Books, Result, check_observation
from pristina.operators.base import Observation, Operator
from pristina.priors.base import Prior, SizeRule, to_unit
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, ddpm_posterior, step_pairs
from pristina.types import Draw, OnStep


@dataclass(frozen=True)
class GDP:
    """Settings of :func:`gdp`.

    Attributes:
        steps: Network calls.
        scale: Guidance scale s, in the paper's units (1000 steps at 256 px); the paper has 2000 (x4) to 6000 (blur).
        guide: ``x0`` compares the clean picture with the observation; ``xt`` the diffused picture itself, which is worse.
        rate: Step size of the gradient descent on the operator's unknown parameters.
    """

    steps: int = 50
    scale: float = 3000.0
    guide: Literal["x0", "xt"] = "x0"
    rate: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= N_TIMESTEPS:
            raise SettingError(f"steps must lie between 1 and {N_TIMESTEPS}, not {self.steps}.")
        if self.guide not in ("x0", "xt"):
            raise SettingError(f"guide must be x0 or xt, not {self.guide!r}.")
        if not (self.scale >= 0 and self.rate >= 0):
            raise SettingError("scale and rate must not be negative.")


PAPER = GDP(steps=1000, scale=6000.0)
LIGHT = GDP(scale=15_000.0)


class Light(Operator):
    """GDP's blind light model ``y = f x + M``: one factor, and a mask that all colours share.

    Args:
        factor: f, (B, 1, 1, 1).
        mask: M, (B, 1, H, W).
    """

    name = "light"
    linear = False  # affine

    def __init__(self, factor: Tensor, mask: Tensor):
        super().__init__()
        self.factor, self.mask = nn.Parameter(factor), nn.Parameter(mask)

    @classmethod
    def guess(cls, draw: Draw, height: int, width: int) -> Light:
        """The paper's start: as good as black."""
        return cls(draw.normal(1, 1, 1) / 100, draw.uniform(1, height, width) / 10000)

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x + self.mask

    def estimates(self) -> dict[str, Any]:
        return {"factor": self.factor.flatten().tolist(), "mask_mean": self.mask.mean((1, 2, 3)).tolist()}

    def describe(self) -> str:
        factors = ", ".join(f"{f:.2f}" for f in self.factor.flatten().tolist())
        masks = ", ".join(f"{m:.3f}" for m in self.mask.mean((1, 2, 3)).tolist())
        return f"light multiplied by {factors}, and {masks} added on average"


def window_starts(side: int, native: int) -> list[int]:
    """Where windows of ``native`` pixels begin: every half window, and one flush with the far edge.

    Example:
        >>> window_starts(150, 64)
        [0, 32, 64, 86]
    """
    starts = list(range(0, side - native + 1, max(native // 2, 1)))
    return starts if starts[-1] == side - native else [*starts, side - native]


def needs_windows(rule: SizeRule, height: int, width: int) -> bool:
    """Whether the prior has one size only, and the picture is larger."""
    return rule.fixed and rule.native is not None and min(height, width) >= rule.native and (height, width) != (rule.native, rule.native)


def predict_x0(prior: Prior, x_t: Tensor, t: int) -> Tensor:
    """The prior's clean picture, (B, C, H, W); for a picture larger than the prior's only size, averaged over windows.

    The ancestral step's mean is linear in x0, so that averaging one is averaging the other.
    """
    height, width = x_t.shape[-2:]
    native = prior.size_rule.native
    if native is None or not needs_windows(prior.size_rule, height, width):
        return prior.predict(x_t, t).x0
    total, weight = torch.zeros_like(x_t), torch.zeros_like(x_t[:1, :1])
    for top in window_starts(height, native):
        for left in window_starts(width, native):
            spot = (..., slice(top, top + native), slice(left, left + native))
            total[spot] += prior.predict(x_t[spot], t).x0
            weight[spot] += 1
    return total / weight


def gdp(
    observation: Observation,
    prior: Prior,
    settings: GDP = GDP(),
    *,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Pictures sampled from the prior under the guidance of the observation.

    Args:
        observation: The degraded pictures and the operator; its learnable parameters are fitted on the way, from where they stand. Without
            an operator the blind light model ``y = f x + M`` stands in; :data:`LIGHT` is meant for it.
        prior: The diffusion prior. One of fixed size smaller than the picture is applied in windows.
        settings: See :class:`GDP`.
        generator: One for each picture.
        on_step: Called after each step.

    Returns:
        Pictures, the operator with its fitted parameters if it has any, and trace ``loss`` (L).

    Raises:
        SizeError: The prior does not accept the size.
        InputError: NaN, or the wrong number of channels.

    Source:
        See the module.

    Example:
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> result = gdp(Observation(torch.full((1, 3, 8, 8), 0.2)), GaussianPrior(variance=0.1), GDP(steps=10))
        >>> result.picture.shape, result.operator.name, result.cost.network_calls
        (torch.Size([1, 3, 8, 8]), 'light', 10)
    """
    height, width = check_observation(observation, prior, in_windows=needs_windows(prior.size_rule, *observation.size))
    y = observation.y
    n = len(y)
    draw = Draw(generator, n, y.device)
    operator = Light.guess(draw, height, width) if observation.operator is None else observation.operator.for_batch(n)
    unknowns = [p for p in operator.parameters() if p.requires_grad]
    scale = settings.scale * (N_TIMESTEPS / settings.steps) * (height * width / 256**2)

    books = Books(prior, settings.steps, on_step)
    x = draw.normal(prior.channels, height, width)
    picture = observation.initial()
    why = ["the chain is done"] * n
    try:
        for t, s in step_pairs(settings.steps, len(prior.alpha_bar)):
            with torch.no_grad():
                x0 = predict_x0(prior, x, t).clamp(-1, 1)
            mean, variance = ddpm_posterior(x, x0, alpha_bar_at(prior.alpha_bar, t), alpha_bar_at(prior.alpha_bar, s))

            guided = (x0 if settings.guide == "x0" else x).requires_grad_()
            loss = (operator(to_unit(guided)) - y).square().mean((1, 2, 3))
            gradient, *others = torch.autograd.grad(loss.sum(), [guided, *unknowns], materialize_grads=True)
            with torch.no_grad():
                x = mean.detach() - scale * gradient
                if s >= 0:
                    x = x + variance.sqrt() * draw.normal(*x.shape[1:])
                for p, g in zip(unknowns, others, strict=True):
                    p.sub_(settings.rate * g)
                operator.project()
            picture = to_unit(x if s < 0 else x0).detach().clamp(0, 1)
            books.step(picture, loss)
    except Cancelled:
        why = [f"cancelled at step {books.n_done}"] * n
    return books.result("gdp", picture, settings, draw.seeds, why, operator if unknowns else None)
