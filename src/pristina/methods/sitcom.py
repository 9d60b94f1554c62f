"""SITCOM: change the network's input until its clean image explains the data, then renew the noise.

Glossary:
    y: observation.
    A: operator.
    x_t: diffused image.
    v: input of the network, optimised from x_t.
    x0: clean image that the prior predicts from v, clipped.
    delta: root mean square of the residual at which the optimisation of an image ends.

Source:
    Alkhouri et al., "SITCOM: Step-wise triple-consistent diffusion sampling for inverse problems",
    ICML 2025, of which we read the abstract, and its released code
    (``SITCOM_with_noise.py``): in each step, Adam on v against ``||y - A x0(v)||^2`` until the
    residual is that of the noise (and 0.001 more, in [-1, 1] units); then
    ``x_s = sqrt(alpha_bar_s) x0 + sqrt(1 - alpha_bar_s) noise``. The penalty on ``||v - x_t||`` of
    the paper is not in the release, and not here. Deliberate differences:

    * Each image ends its optimisation by itself, and then costs no more calls.
    * The last of the inner iterations only predicts: the release makes one more Adam step, whose
      result nothing depends on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from pristina.errors import Cancelled
from pristina.methods.steps.chain import begin
from pristina.methods.steps.linear import known_operator, known_sigma
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation
from pristina.priors.base import Prior, to_unit
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, ddim_step, step_pairs
from pristina.settings import Count, Positive, Settings
from pristina.types import Draw, Generators, OnStep

SLACK = 0.0005
"""What is added to the noise level of y for delta, in [0, 1] units."""


@dataclass(frozen=True)
class SITCOM(Settings):
    """Settings of :func:`sitcom`.

    Attributes:
        steps: Number of noise levels, 1 to 1000.
        iterations: Largest number of network calls at each; all but the last are differentiated.
        learning_rate: Learning rate of Adam.
    """

    steps: Annotated[int, Interval(ge=1, le=N_TIMESTEPS)] = 20
    iterations: Count = 30
    learning_rate: Positive = 0.02


def calls(settings: SITCOM) -> Calls:
    """Return the most network calls for one image."""
    n, k = settings.steps, settings.iterations
    return Calls(n * k, n * (k - 1), may_stop=True)


def sitcom(
    observation: Observation,
    prior: Prior,
    settings: SITCOM = SITCOM(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Restore images with the true operator, which need not be linear, and the true noise level.

    Args:
        observation: Degraded images, the true operator, and ``known_sigma``.
        prior: Diffusion prior.
        settings: Settings, see :class:`SITCOM`. The defaults are those of the released script.
        start: State of a cancelled run to go on from. A state without progress begins anew.
        generator: Random generators, one for each image.
        on_step: Function called after each step.

    Returns:
        Result with the images; trace ``loss``, the mean squared residual in [0, 1] units.

    Raises:
        OperatorError: There is no operator.
        InputError: ``known_sigma`` is missing, or the observation does not fit the prior.
        SizeError: The prior does not accept the size.

    Source:
        See the module.

    Example:
        >>> from pristina.operators.base import Operator
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> observation = Observation(torch.full((1, 3, 8, 8), 0.6), Operator(), known_sigma=0.05)
        >>> result = sitcom(observation, GaussianPrior(variance=0.1), SITCOM(steps=5))
        >>> result.images.shape, result.cost.network_calls <= 150
        (torch.Size([1, 3, 8, 8]), True)
    """
    known = known_operator("SITCOM", observation)
    height, width = check_observation(observation, prior)
    y = observation.y
    operator = known.for_batch(len(y))
    delta = known_sigma(observation, "SITCOM") + SLACK
    draw = Draw(generator, len(y), y.device)

    recorder = RunRecorder(prior, settings.steps, on_step, start)
    shape = (len(y), prior.channels, height, width)
    x, images = begin(
        start, "sitcom", draw, shape, observation.initial(), lambda: draw.normal(*shape[1:])
    )
    stop = StopReason.COMPLETED
    try:
        for t, s in step_pairs(settings.steps, len(prior.alpha_bar))[recorder.first_step :]:
            x0, loss = consistent(recorder, Observation(y, operator), x, t, delta, settings)
            a_s = alpha_bar_at(prior.alpha_bar, s)
            x = ddim_step(x0, draw.normal(*shape[1:]), a_s)
            images = to_unit(x0).clamp(0, 1)
            recorder.step(images, loss)
    except Cancelled:
        stop = StopReason.CANCELLED
    state = recorder.state(
        "sitcom", recorder.n_done, x, images=images, generators=draw.get_states()
    )
    return recorder.result("sitcom", images, settings, draw.seeds, stop, state=state)


def consistent(
    recorder: RunRecorder[Prior],
    observation: Observation,
    x_t: Tensor,
    t: int,
    delta: float,
    settings: SITCOM,
) -> tuple[Tensor, Tensor]:
    """Optimise the network's input, each image until its residual is small enough.

    Args:
        recorder: Recorder, whose prior is called and which counts what is differentiated.
        observation: Observation and its operator, with parameters of their own for each image.
        x_t: Diffused images, (B, C, H, W).
        t: Timestep.
        delta: Root mean square of the residual that is small enough, in [0, 1] units.
        settings: Settings, see :class:`SITCOM`.

    Returns:
        The clean images in [-1, 1] units, (B, C, H, W), and their mean squared residuals, (B,).
    """
    y, operator = observation.y, observation.operator
    assert operator is not None
    v = x_t.clone().requires_grad_()
    adam = torch.optim.Adam([v], lr=settings.learning_rate)
    x0, loss = torch.zeros_like(x_t), x_t.new_zeros(len(y))
    going = torch.ones(len(y), dtype=torch.bool, device=y.device)
    for i in range(settings.iterations):
        last = i + 1 == settings.iterations
        with torch.set_grad_enabled(not last):
            found = recorder.prior.predict(v[going], t).x0.clamp(-1, 1)
            residual = y[going] - operator.keep(going).requires_grad_(False)(to_unit(found))
        squares = residual.square().mean((1, 2, 3))
        x0[going], loss[going] = found.detach(), squares.detach()
        still = loss[going] > delta**2
        if last or not still.any():
            break
        # What has ended is moved by Adam too, but not looked at any more.
        (v.grad,) = torch.autograd.grad(squares[still].sum(), v)
        recorder.backward_calls += int(still.sum())
        adam.step()
        going = going & (loss > delta**2)
    return x0, loss
