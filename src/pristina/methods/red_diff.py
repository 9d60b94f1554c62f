"""RED-diff: descend on the image itself, with the denoiser's error as the gradient of the prior.

Glossary:
    y: observation.
    A: operator.
    mu: image that is optimised, in [-1, 1] units.
    x_t: mu diffused with the noise eps to the timestep t, which falls from step to step.
    eps_hat: noise that the prior predicts in x_t.
    w_t: weight of the prior, the noise of x_t over its signal (the root of 1 / SNR_t).
    lam: strength of the prior against the data.

Source:
    Mardani, Song, Kautz and Vahdat, "A variational perspective on solving inverse problems with
    diffusion models", ICLR 2024, algorithm 1, whose text was not available to us, and its released
    code (``algos/reddiff.py``): Adam with momenta 0.9 and 0.99 on
    ``mean (y - A mu)^2 / 2 + lam w_t mean (eps_hat - eps) mu``, of which eps_hat - eps is held
    constant: nothing is differentiated through the network. Deliberate differences:

    * Each image has its own mean (there it runs over the batch).
    * The first image is the pseudo-inverse of y, as there, but regularised; grey where nothing is
      observed. For an operator that is not linear it is the observation at picture size.
    * Evenly spaced timesteps of any number; the default learning rate is for few steps and some
      noise, :data:`PAPER` has the one released.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from pristina.errors import Cancelled
from pristina.methods.steps.chain import begin
from pristina.methods.steps.linear import known_operator, pseudo_inverse
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, step_pairs
from pristina.settings import NotNegative, Positive, Settings
from pristina.types import Draw, Generators, OnStep


@dataclass(frozen=True)
class REDDiff(Settings):
    """Settings of :func:`red_diff`.

    Attributes:
        steps: Number of steps with one network call each, 1 to 1000.
        learning_rate: Learning rate of Adam, in [-1, 1] units.
        lam: Strength of the prior against the data.
    """

    steps: Annotated[int, Interval(ge=1, le=N_TIMESTEPS)] = 100
    learning_rate: Positive = 0.05
    lam: NotNegative = 0.25


PAPER = REDDiff(steps=1000, learning_rate=0.1)
"""Settings of the released configuration, with a step for each timestep."""


def calls(settings: REDDiff) -> Calls:
    """Return the network calls for one image."""
    return Calls(settings.steps)


def red_diff(
    observation: Observation,
    prior: Prior,
    settings: REDDiff = REDDiff(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Restore images with the true operator, which need not be linear.

    Args:
        observation: Degraded images and the operator, whose parameters are taken for the truth.
        prior: Diffusion prior.
        settings: Settings, see :class:`REDDiff`.
        start: State of a cancelled run to go on from. A state without progress begins anew.
        generator: Random generators, one for each image.
        on_step: Function called after each step.

    Returns:
        Result with the images; trace ``loss``, the mean squared residual in [0, 1] units.

    Raises:
        OperatorError: There is no operator.
        InputError: The observation does not fit the prior.
        SizeError: The prior does not accept the size.

    Source:
        See the module.

    Example:
        >>> from pristina.operators.base import Operator
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> observation = Observation(torch.full((1, 3, 8, 8), 0.6), Operator())
        >>> result = red_diff(observation, GaussianPrior(variance=0.1), REDDiff(steps=10))
        >>> result.images.shape, result.cost.network_calls, result.cost.backward_calls
        (torch.Size([1, 3, 8, 8]), 10, 0)
    """
    known = known_operator("RED-diff", observation)
    height, width = check_observation(observation, prior)
    y = observation.y
    operator = known.for_batch(len(y)).requires_grad_(False)
    draw = Draw(generator, len(y), y.device)

    recorder = RunRecorder(prior, settings.steps, on_step, start)
    prior = recorder.prior
    shape = (len(y), prior.channels, height, width)

    def first() -> Tensor:
        return to_signed(pseudo_inverse(operator, y) if operator.linear else observation.initial())

    mu, images = begin(start, "red_diff", draw, shape, observation.initial(), first)
    adam = torch.optim.Adam([mu], lr=settings.learning_rate, betas=(0.9, 0.99))
    if start is not None and start.memory:
        adam.load_state_dict(start.recall()["optimizer"])
    stop = StopReason.COMPLETED
    try:
        for t, _ in step_pairs(settings.steps, len(prior.alpha_bar))[recorder.first_step :]:
            a_t = alpha_bar_at(prior.alpha_bar, t)
            # What the prior would have changed of the noise.
            with torch.no_grad():
                eps = draw.normal(*shape[1:])
                x_t = a_t.sqrt() * mu + (1 - a_t).sqrt() * eps
                off = prior.predict(x_t, t).eps - eps
            # Gradients of both terms; a residual of [-1, 1] pixels is twice as large.
            mu.requires_grad_()
            residual = y - operator(to_unit(mu))
            (gradient,) = torch.autograd.grad(2 * residual.square().mean((1, 2, 3)).sum(), mu)
            w_t = ((1 - a_t) / a_t).sqrt()
            mu.grad = gradient + settings.lam * w_t * off / off[0].numel()
            adam.step()
            mu.requires_grad_(False)
            images = to_unit(mu).clamp(0, 1)
            recorder.step(images, residual.detach().square().mean((1, 2, 3)))
    except Cancelled:
        stop = StopReason.CANCELLED
    state = recorder.state(
        "red_diff",
        recorder.n_done,
        mu,
        images=images,
        generators=draw.get_states(),
        optimizer=adam.state_dict(),
    )
    return recorder.result("red_diff", images, settings, draw.seeds, stop, state=state)
