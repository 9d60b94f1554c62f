"""DDRM: sample in coordinates in which the operator only scales, each blended with its observation.

The operator and the noise level must be known: an upper bound for blind methods, not one of them.

Glossary:
    A = U S V^T: operator; s its singular values.
    x_t: diffused image, variance exploding: x0 + sigma_t noise.
    x0, eps: clean image and noise that the prior predicts from it.
    y: observation; sigma_y its noise in [-1, 1] units.
    bar: coefficients, x_bar = V^T x and y_bar = U^T y / s, whose noise is sigma_y / s.
    eta: share of fresh noise in an update where the chain is less noisy than y.
    eta_b: share of the observation in an update where the chain is noisier than y.

Source:
    Kawar et al., "Denoising diffusion restoration models", NeurIPS 2022, eq. 4-8, with its 20
    steps, eta 0.85, eta_b 1 and zero threshold 0.03. Differences: blur is not circular here, so
    that its border is filled in as GibbsDDRM does (:mod:`pristina.operators.spectral`); the steps
    are those of :func:`pristina.priors.schedule.timesteps`; without noise, the last step sets what
    was observed exactly.

    The method has a bias that more steps do not remove: below sigma_y each step is pulled towards
    y by an amount that does not shrink with the step, so that the mean of a long chain tends to
    the observation, not to the posterior mean (``tests/oracle/test_samplers_b.py`` measures it).
    Twenty steps are a compromise, not an approximation of infinitely many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from annotated_types import Interval
from torch import Tensor

from pristina.errors import Cancelled
from pristina.methods.steps.chain import begin
from pristina.methods.steps.linear import known_sigma
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation, Operator
from pristina.operators.spectral import Spectrum, spectrum
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, step_pairs
from pristina.settings import Settings, Share
from pristina.types import Draw, Generators, OnStep


@dataclass(frozen=True)
class DDRM(Settings):
    """Settings of :func:`ddrm`.

    Attributes:
        steps: Number of network calls, 1 to 1000.
        eta: Share of fresh noise in each step where the chain is less noisy than the observation
            or nothing was observed, in [0, 1].
        eta_b: Share of the observation where the chain is noisier than it, in [0, 1].
        threshold: Singular values below this count as zero, in [0, 1].
    """

    steps: Annotated[int, Interval(ge=1, le=N_TIMESTEPS)] = 20
    eta: Share = 0.85
    eta_b: Share = 1.0
    threshold: Share = 0.03


def calls(settings: DDRM) -> Calls:
    """Return the network calls for one image."""
    return Calls(settings.steps)


class Etas(NamedTuple):
    """Weights of an update.

    Attributes:
        b: Weight of the observation, where the chain is noisier.
        c: Weight of the observation's noise, where the chain is less noisy.
        d: Weight of fresh noise, where nothing is observed.
    """

    b: float
    c: float
    d: float


def update(
    x0: Tensor,
    eps: Tensor,
    y: Tensor,
    s: Tensor,
    sigma_y: Tensor,
    sigma_next: Tensor,
    z: Tensor,
    etas: Etas,
) -> Tensor:
    """Return the coefficients of the next, less noisy image (variance exploding).

    Args:
        x0: Coefficients of the clean image.
        eps: Coefficients of the unit noise in the current image.
        y: Coefficients of the observation, ``U^T y``.
        s: Singular values, 0 where nothing is observed.
        sigma_y: Noise of the observation in [-1, 1] units, (B, 1, 1, 1).
        sigma_next: Noise of the next image.
        z: Coefficients of fresh unit noise.
        etas: Weights, see :class:`Etas`.
    """
    s_or_1 = torch.where(s > 0, s, 1.0)
    y_bar, sigma_bar = y / s_or_1, (sigma_y / s_or_1).clamp(min=1e-9)
    fresh = (sigma_next**2 - (etas.b * sigma_bar) ** 2).clamp(min=0).sqrt()
    above = etas.b * y_bar + (1 - etas.b) * x0 + fresh * z
    pull = etas.c * (y_bar - x0) / sigma_bar
    below = x0 + sigma_next * (pull + (1 - etas.c**2) ** 0.5 * z)
    unseen = x0 + sigma_next * ((1 - etas.d**2) ** 0.5 * eps + etas.d * z)
    return torch.where(s == 0, unseen, torch.where(s * sigma_next >= sigma_y, above, below))


def advance(
    space: Spectrum,
    x0: Tensor,
    eps: Tensor,
    sigma_next: Tensor,
    y: Tensor,
    sigma_y: Tensor,
    draw: Draw,
    etas: Etas,
    around: Tensor | None = None,
) -> Tensor:
    """Return the next image (variance exploding); images have full size and [-1, 1] units.

    Args:
        space: Decomposition of the operator.
        x0: Clean image of the prior, (B, C, H, W).
        eps: Noise of the prior, (B, C, H, W).
        sigma_next: Noise of the next image.
        y: Observation, (B, C, h, w).
        sigma_y: Noise of the observation, (B, 1, 1, 1).
        draw: Source of fresh noise.
        etas: Weights, see :class:`Etas`.
        around: Image that fills the observation's border; x0 if None.
    """
    shape = space.shape(x0)
    z = draw.normal(*shape)
    if space.margin:
        # The chain's noise beyond the border is unknown: any noise is as good.
        whole = draw.normal(*shape)
        space.crop(whole).copy_(eps)
        eps = whole
    if space.border:
        y, sigma_y = space.fill(y, x0 if around is None else around, sigma_y, draw.normal(*shape))
    of = space.coefficients
    x_bar = update(
        of(space.extend(x0)),
        of(eps),
        space.observed(y),
        space.s,
        sigma_y,
        sigma_next,
        of(z),
        etas,
    )
    return space.crop(space.canvas(x_bar))


def first_image(
    space: Spectrum, y: Tensor, around: Tensor, sigma_y: Tensor, sigma: Tensor, draw: Draw
) -> Tensor:
    """Draw the first, noisiest image (variance exploding).

    Args:
        space: Decomposition of the operator.
        y: Observation, (B, C, h, w).
        around: Image that fills the observation's border, (B, C, H, W).
        sigma_y: Noise of the observation, (B, 1, 1, 1).
        sigma: Noise round the observation, and round grey where nothing is observed.
        draw: Source of the noise.
    """
    z = draw.normal(*space.shape(around))
    y, sigma_y = space.fill(y, around, sigma_y, torch.zeros_like(z))
    y_bar, z_bar = space.observed(y), space.coefficients(z)
    s = torch.where(space.s > 0, space.s, 1.0)
    known = (space.s > 0) & (s * sigma > sigma_y)
    fresh = (sigma**2 - (sigma_y / s) ** 2).clamp(min=0).sqrt()
    x_bar = torch.where(known, y_bar / s + fresh * z_bar, sigma * z_bar)
    return space.crop(space.canvas(x_bar))


def sigma_at(prior: Prior, t: int) -> Tensor:
    """Return noise over signal at timestep ``t``: the noise of the variance exploding image."""
    alpha_bar = alpha_bar_at(prior.alpha_bar, t)
    return ((1 - alpha_bar) / alpha_bar).sqrt()


@torch.no_grad()
def ddrm(
    observation: Observation,
    prior: Prior,
    settings: DDRM = DDRM(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Sample, roughly, images of the prior that explain the observation by a known operator.

    Args:
        observation: Degraded images, the true operator (none: noise only) and ``known_sigma``.
        prior: Diffusion prior.
        settings: Settings, see :class:`DDRM`.
        start: State of a cancelled run to go on from. A state without progress begins anew.
        generator: Random generators, one for each image.
        on_step: Function called after each step.

    Returns:
        Result with images of the prior's size; trace ``loss``, the mean squared residual of the
        clean estimate in [0, 1] units.

    Raises:
        InputError: ``known_sigma`` is missing.
        OperatorError: The operator has no cheap singular value decomposition (blur, area
            downsampling and masks have one).
        SizeError: The prior does not accept the size.

    Source:
        See the module.

    Example:
        >>> import torch
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> y, prior = torch.full((1, 3, 8, 8), 0.6), GaussianPrior(variance=0.1)
        >>> result = ddrm(Observation(y, known_sigma=0.1), prior, DDRM(steps=10))
        >>> result.images.shape, result.cost.network_calls
        (torch.Size([1, 3, 8, 8]), 10)
    """
    height, width = check_observation(observation, prior)
    y = to_signed(observation.y)
    n = len(y)
    sigma_y = torch.full((n, 1, 1, 1), 2 * known_sigma(observation, "DDRM"), device=y.device)
    operator = Operator() if observation.operator is None else observation.operator
    space = spectrum(operator, height, width, device=y.device, threshold=settings.threshold)
    etas = Etas(b=settings.eta_b, c=(1 - settings.eta**2) ** 0.5, d=settings.eta)
    draw = Draw(generator, n, y.device)

    recorder = RunRecorder(prior, settings.steps, on_step, start)
    prior = recorder.prior
    pairs = step_pairs(settings.steps, len(prior.alpha_bar))
    initial = observation.initial()
    noisiest = sigma_at(prior, pairs[0][0])
    x_t, images = begin(
        start,
        "ddrm",
        draw,
        (n, prior.channels, height, width),
        initial,
        lambda: first_image(space, y, to_signed(initial), sigma_y, noisiest, draw),
    )
    stop = StopReason.COMPLETED
    try:
        for t, s in pairs[recorder.first_step :]:
            # Denoising step.
            eps, x0 = prior.predict(alpha_bar_at(prior.alpha_bar, t).sqrt() * x_t, t)
            # Update of each coefficient, with the observation where there is one.
            x_t = advance(space, x0, eps, sigma_at(prior, s), y, sigma_y, draw, etas)
            images = to_unit(x_t if s < 0 else x0).clamp(0, 1)
            loss = (operator(images) - observation.y).square().mean((1, 2, 3))
            recorder.step(images, loss)
    except Cancelled:
        stop = StopReason.CANCELLED
    state = recorder.state(
        "ddrm", recorder.n_done, x_t, images=images, generators=draw.get_states()
    )
    return recorder.result("ddrm", images, settings, draw.seeds, stop, state=state)
