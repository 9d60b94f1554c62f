"""GDP: sample from the prior, and move each step towards the observation.

Glossary:
    y: observation.
    A: operator.
    x_t: diffused image.
    x0: clean image that the prior predicts from x_t.
    mean, variance: of the ancestral step.
    L: mean squared error of A(x0) to y.
    s: guidance scale.
    f, M: factor and mask of the light model.

Source:
    Fei et al., "Generative diffusion prior for unified image restoration and enhancement", CVPR
    2023, and its released code: ``mean <- mean - s grad L``, the gradient taken through A only,
    never through the network, and not multiplied by the variance as the paper prints.
    Deliberate differences:

    * Any number of steps; s is multiplied by ``1000 / steps``.
    * s, which belongs to a mean over 256 x 256 px, is multiplied by ``H W / 256^2``, so that a
      pixel moves as far as it does there.
    * The scales of the default and of :data:`LIGHT` are not the paper's, which overshoot at few
      steps.
    * The "small" variance, for a prior that predicts none.
    * The optimiser round the mean, which never receives a gradient, is left out.
    * The guidance of the light model is applied once (there twice from the same x0); its
      exposure, colour and smoothness terms, commented out there, are left out.
    * Any operator's learnable parameters are fitted in the way f and M are.
    * An image that does not fit the prior needs :class:`pristina.priors.windowed.Windowed`, whose
      windows share one A and one gradient, taken on the blended x0.

    Because the guidance knows neither the noise of y nor the variance of the step, GDP fits the
    noise as well, and is the least exact of the samplers.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn

from pristina.errors import Cancelled
from pristina.methods.steps.chain import begin
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation, Operator
from pristina.priors.base import Prior, to_unit
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, ddpm_posterior, step_pairs
from pristina.settings import NotNegative, Settings
from pristina.types import Draw, Generators, OnStep


@dataclass(frozen=True)
class GDP(Settings):
    """Settings of :func:`gdp`.

    Attributes:
        steps: Number of network calls, 1 to 1000.
        scale: Guidance scale s, in the paper's units (1000 steps at 256 px); the paper has 2000
            (x4) to 6000 (blur).
        guide: Image that is compared with the observation: ``x0``, the clean one, or ``xt``, the
            diffused one, which is worse.
        rate: Step size of the gradient descent on the operator's unknown parameters.
    """

    steps: Annotated[int, Interval(ge=1, le=N_TIMESTEPS)] = 50
    scale: NotNegative = 3000.0
    guide: Literal["x0", "xt"] = "x0"
    rate: NotNegative = 1.0


PAPER = GDP(steps=1000, scale=6000.0)
LIGHT = GDP(scale=15_000.0)


def calls(settings: GDP) -> Calls:
    """Return the network calls for one image."""
    return Calls(settings.steps)


class Light(Operator):
    """GDP's blind light model ``y = f x + M``: a factor, and a mask that all colours share.

    Args:
        factor: Factor f, (B, 1, 1, 1).
        mask: Mask M, (B, 1, H, W), in [0, 1] units.
    """

    name = "light"
    linear = False  # affine

    def __init__(self, factor: Tensor, mask: Tensor):
        super().__init__()
        self.factor, self.mask = nn.Parameter(factor), nn.Parameter(mask)

    @classmethod
    def guess(cls, draw: Draw, height: int, width: int) -> Light:
        """Draw the paper's first guess, which turns every image almost black."""
        return cls(draw.normal(1, 1, 1) / 100, draw.uniform(1, height, width) / 10000)

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x + self.mask

    def estimates(self) -> dict[str, Any]:
        mask_mean = self.mask.mean((1, 2, 3)).tolist()
        return {"factor": self.factor.flatten().tolist(), "mask_mean": mask_mean}

    def describe(self) -> str:
        factors = ", ".join(f"{f:.2f}" for f in self.factor.flatten().tolist())
        masks = ", ".join(f"{m:.3f}" for m in self.mask.mean((1, 2, 3)).tolist())
        return f"light multiplied by {factors}, and {masks} added on average"


def gdp(
    observation: Observation,
    prior: Prior,
    settings: GDP = GDP(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Sample images from the prior under the guidance of the observation.

    Args:
        observation: Degraded images and the operator; its learnable parameters are fitted on the
            way, from their current values. Without an operator the blind light model
            ``y = f x + M`` is fitted; :data:`LIGHT` is meant for it.
        prior: Diffusion prior.
        settings: Settings, see :class:`GDP`.
        start: State of a cancelled run to go on from. A state without progress gives the first
            guess of the operator's parameters; the chain begins with noise of its own.
        generator: Random generators, one for each image.
        on_step: Function called after each step.

    Returns:
        Result with the images, the operator with its fitted parameters if it has any, and trace
        ``loss`` (L).

    Raises:
        SizeError: The prior does not accept the size.
        InputError: The observation contains NaN or has the wrong number of channels.

    Source:
        See the module.

    Example:
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> y, prior = torch.full((1, 3, 8, 8), 0.2), GaussianPrior(variance=0.1)
        >>> result = gdp(Observation(y), prior, GDP(steps=10))
        >>> result.images.shape, result.operator.name, result.cost.network_calls
        (torch.Size([1, 3, 8, 8]), 'light', 10)
    """
    height, width = check_observation(observation, prior)
    y = observation.y
    n = len(y)
    draw = Draw(generator, n, y.device)
    recorder = RunRecorder(prior, settings.steps, on_step, start)
    prior = recorder.prior
    operator = _first_operator(observation, start, draw, height, width)
    unknowns = [p for p in operator.parameters() if p.requires_grad]
    scale = settings.scale * (N_TIMESTEPS / settings.steps) * (height * width / 256**2)

    shape = (n, prior.channels, height, width)
    x, images = begin(
        start, "gdp", draw, shape, observation.initial(), lambda: draw.normal(*shape[1:])
    )
    stop = StopReason.COMPLETED
    try:
        for t, s in step_pairs(settings.steps, len(prior.alpha_bar))[recorder.first_step :]:
            # Ancestral step.
            a_t, a_s = alpha_bar_at(prior.alpha_bar, t), alpha_bar_at(prior.alpha_bar, s)
            with torch.no_grad():
                x0 = prior.predict(x, t).x0.clamp(-1, 1)
            mean, variance = ddpm_posterior(x, x0, a_t, a_s)

            # Gradient of the data term in the guide and in the operator's parameters.
            guided = (x0 if settings.guide == "x0" else x).requires_grad_()
            loss = (operator(to_unit(guided)) - y).square().mean((1, 2, 3))
            gradient, *others = torch.autograd.grad(
                loss.sum(), [guided, *unknowns], materialize_grads=True
            )
            with torch.no_grad():
                # Guided step: x_s = mean - s grad L + noise.
                x = mean.detach() - scale * gradient
                if s >= 0:
                    x = x + variance.sqrt() * draw.normal(*x.shape[1:])
                # Gradient descent on the operator's parameters.
                for p, g in zip(unknowns, others, strict=True):
                    p.sub_(settings.rate * g)
                operator.project()
            images = to_unit(x if s < 0 else x0).detach().clamp(0, 1)
            recorder.step(images, loss)
    except Cancelled:
        stop = StopReason.CANCELLED
    fitted = operator if unknowns else None
    state = recorder.state(
        "gdp", recorder.n_done, x, fitted, images=images, generators=draw.get_states()
    )
    return recorder.result("gdp", images, settings, draw.seeds, stop, operator=fitted, state=state)


def _first_operator(
    observation: Observation, start: State | None, draw: Draw, height: int, width: int
) -> Operator:
    if start is not None and start.operator is not None:
        return copy.deepcopy(start.operator)
    if observation.operator is None:
        return Light.guess(draw, height, width)
    return observation.operator.for_batch(len(observation.y))
