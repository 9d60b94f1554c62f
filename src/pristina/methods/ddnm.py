"""DDNM: replace what the observation says of the clean image, and let the prior fill in the rest.

The operator and the noise level must be known: an upper bound for blind methods, not one of them.

Glossary:
    y: observation; sigma_y its noise in [-1, 1] units.
    A: operator; ``A^+`` its pseudo-inverse; s its singular values.
    x_t: diffused image, variance exploding: x0 + sigma_t noise.
    x0, eps: clean image and noise that the prior predicts from it.
    eta: share of fresh noise in a step.
    travel: going back some steps by adding noise, and making them again.

Source:
    Wang, Yu and Zhang, "Zero-shot image restoration using denoising diffusion null-space model",
    ICLR 2023, whose text was not available to us, and its released code: DDNM+, with
    ``x0 <- x0 + Sigma A^+ (y - A x0)``, where Sigma keeps the noise of y, as it enters the next
    image, below the noise that the next image must have. Decisions and deliberate differences:

    * Where the project has a singular value decomposition (blur, reduction by area, masks), Sigma
      has an entry for each singular value, as there. The released update is then that of DDRM with
      ``eta_b = 1``, and is computed by :func:`pristina.methods.ddrm.advance`; what distinguishes
      DDNM is that it begins with pure noise, and travels.
    * For other linear operators Sigma is a number, as in the paper's simplified form, the
      pseudo-inverse is found by conjugate gradients, and all that is observed counts as observed
      with the largest singular value.
    * A travel adds noise to the diffused image, not to the clean one that the prior last predicted.
      All steps of a travel back are made at once, for the sum of their noise is what counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from pristina.errors import Cancelled, OperatorError
from pristina.methods.ddrm import Etas, advance, sigma_at
from pristina.methods.steps.chain import begin
from pristina.methods.steps.linear import (
    known_linear,
    known_sigma,
    largest_eigenvalue,
    proximal,
)
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation, Operator
from pristina.operators.spectral import spectrum
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, step_pairs
from pristina.settings import Count, Settings, Share
from pristina.types import Draw, Generators, OnStep

CG_ITERATIONS = 50

Update = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Function of clean image, noise and the next noise level, that returns the next image."""


@dataclass(frozen=True)
class DDNM(Settings):
    """Settings of :func:`ddnm`.

    Attributes:
        steps: Number of noise levels, 1 to 1000.
        eta: Share of fresh noise in each step, in [0, 1].
        threshold: Singular values below this share of the largest count as zero, in [0, 1].
        travel_length: Number of steps that a travel goes back.
        travel_repeat: How often each step that lies in a travel is made; 1 travels nowhere.
    """

    steps: Annotated[int, Interval(ge=1, le=N_TIMESTEPS)] = 100
    eta: Share = 0.85
    threshold: Share = 0.03
    travel_length: Count = 1
    travel_repeat: Count = 1


PAPER_INPAINTING = DDNM(travel_length=10, travel_repeat=3)
"""Time travel, which makes what is filled in agree with its surroundings."""


def calls(settings: DDNM) -> Calls:
    """Return the network calls for one image."""
    return Calls(len(route(settings)))


def route(settings: DDNM) -> list[int]:
    """Return the steps in the order in which they are made; where they do not rise, is a travel.

    All but the last step, counted from the end, are made in groups of ``travel_length``.

    Example:
        >>> route(DDNM(steps=6, travel_length=2, travel_repeat=2))
        [0, 1, 2, 1, 2, 3, 4, 3, 4, 5]
    """
    last, length = settings.steps - 1, settings.travel_length
    steps = list(range(last % length))
    for first in range(last % length, last, length):
        steps += [*range(first, first + length)] * settings.travel_repeat
    return [*steps, last]


@torch.no_grad()
def ddnm(
    observation: Observation,
    prior: Prior,
    settings: DDNM = DDNM(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Sample images that agree with the observation as far as its noise allows.

    Args:
        observation: Degraded images, the true operator (linear; none: noise only), and
            ``known_sigma``.
        prior: Diffusion prior.
        settings: Settings, see :class:`DDNM`. The defaults are the published ones.
        start: State of a cancelled run to go on from. A state without progress begins anew.
        generator: Random generators, one for each image.
        on_step: Function called after each step.

    Returns:
        Result with the images; trace ``loss``, the mean squared residual of the clean estimate in
        [0, 1] units.

    Raises:
        OperatorError: The operator is not linear.
        InputError: ``known_sigma`` is missing, or the observation does not fit the prior.
        SizeError: The prior does not accept the size.

    Source:
        See the module.

    Example:
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> y, prior = torch.full((1, 3, 8, 8), 0.6), GaussianPrior(variance=0.1)
        >>> result = ddnm(Observation(y, known_sigma=0.1), prior, DDNM(steps=10))
        >>> result.images.shape, result.cost.network_calls
        (torch.Size([1, 3, 8, 8]), 10)
    """
    height, width = check_observation(observation, prior)
    y = observation.y
    draw = Draw(generator, len(y), y.device)
    shape = (len(y), prior.channels, height, width)
    update = update_for(observation, shape, settings, draw)

    order = route(settings)
    recorder = RunRecorder(prior, len(order), on_step, start)
    prior = recorder.prior
    pairs = step_pairs(settings.steps, len(prior.alpha_bar))
    sigmas = [sigma_at(prior, t) for t in (*(t for t, _ in pairs), -1)]
    x_t, images = begin(
        start,
        "ddnm",
        draw,
        shape,
        observation.initial(),
        lambda: sigmas[0] * draw.normal(*shape[1:]),
    )
    operator = Operator() if observation.operator is None else observation.operator
    stop = StopReason.COMPLETED
    try:
        for i in range(recorder.first_step, len(order)):
            k = order[i]
            if i and k <= order[i - 1]:  # Travel back.
                more = sigmas[k] ** 2 - sigmas[order[i - 1] + 1] ** 2
                x_t = x_t + more.sqrt() * draw.normal(*shape[1:])
            t = pairs[k][0]
            eps, x0 = prior.predict(alpha_bar_at(prior.alpha_bar, t).sqrt() * x_t, t)
            x_t = update(x0, eps, sigmas[k + 1])
            images = to_unit(x_t if k + 1 == settings.steps else x0).clamp(0, 1)
            recorder.step(images, (operator(images) - y).square().mean((1, 2, 3)))
    except Cancelled:
        stop = StopReason.CANCELLED
    state = recorder.state(
        "ddnm", recorder.n_done, x_t, images=images, generators=draw.get_states()
    )
    return recorder.result("ddnm", images, settings, draw.seeds, stop, state=state)


def update_for(
    observation: Observation, shape: tuple[int, ...], settings: DDNM, draw: Draw
) -> Update:
    """Return the update: for each singular value if they are known, else for all at once."""
    y, sigma = observation.y, 2 * known_sigma(observation, "DDNM")
    sigma_y = torch.full((len(y), 1, 1, 1), sigma, device=y.device)
    known = Operator() if observation.operator is None else observation.operator
    c, d = (1 - settings.eta**2) ** 0.5, settings.eta
    try:
        space = spectrum(known, *shape[2:], device=y.device, threshold=settings.threshold)
    except OperatorError:
        operator = known_linear("DDNM", observation).for_batch(len(y)).requires_grad_(False)
        largest = largest_eigenvalue(operator, shape, y)
        rho = (max(settings.threshold, 0.001) ** 2 * largest).clamp(min=1e-12)
        return lambda x0, eps, sigma_next: update_at_once(
            operator, y, largest.sqrt(), rho, x0, eps, sigma_y, sigma_next, (c, d), draw
        )
    etas = Etas(b=1.0, c=c, d=d)
    return lambda x0, eps, sigma_next: advance(
        space, x0, eps, sigma_next, to_signed(y), sigma_y, draw, etas
    )


def update_at_once(
    operator: Operator,
    y: Tensor,
    s: Tensor,
    rho: Tensor,
    x0: Tensor,
    eps: Tensor,
    sigma_y: Tensor,
    sigma_next: Tensor,
    etas: tuple[float, float],
    draw: Draw,
) -> Tensor:
    """Return the next image as if all singular values were ``s`` or 0.

    Args:
        operator: Linear operator.
        y: Observations, (B, C, h, w), in [0, 1] units.
        s: Largest singular value, (B, 1, 1, 1).
        rho: Weight with which singular values that are nearly 0 are left out of the pseudo-inverse.
        x0: Clean images of the prior, (B, C, H, W), in [-1, 1] units.
        eps: Noise of the prior.
        sigma_y: Noise of the observations in [-1, 1] units, (B, 1, 1, 1).
        sigma_next: Noise of the next image.
        etas: Weights of the observation and of fresh noise where the chain is less noisy.
        draw: Source of fresh noise.
    """
    c, d = etas
    noise_of_y = sigma_y / s
    above = sigma_next >= noise_of_y
    share = torch.where(above, 1.0, c * sigma_next / noise_of_y.clamp(min=1e-9))
    fresh = torch.where(above, (sigma_next**2 - noise_of_y**2).clamp(min=0).sqrt(), d * sigma_next)
    fitted = to_signed(proximal(operator, y, to_unit(x0), rho, CG_ITERATIONS))
    z = draw.normal(*x0.shape[1:])
    # Where nothing is observed, the noise of a DDIM step: the part that A does not pass.
    unseen = sigma_next * (d * z + (1 - d**2) ** 0.5 * eps) - fresh * z
    unseen = proximal(operator, torch.zeros_like(y), unseen, rho, CG_ITERATIONS)
    return x0 + share * (fitted - x0) + fresh * z + unseen
