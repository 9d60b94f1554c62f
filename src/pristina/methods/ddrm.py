"""DDRM: the reverse chain run in the coordinates in which the operator only scales, each blended with what was observed of it.

The operator and the noise level must be known: an upper bound for the blind methods, not one of them.

Glossary: A = U S V^T the operator, s its singular values, x_t diffused picture (variance exploding: x0 + sigma_t noise), x0 and eps the
prior's clean picture and noise in it, y observation, sigma_y its noise; a bar means coefficients: x_bar = V^T x, and y_bar = U^T y / s,
whose noise is sigma_y / s; eta, eta_b how much of an update is fresh noise, or the observation, where the chain is less, or more, noisy.

Source:
    Kawar et al., "Denoising diffusion restoration models", NeurIPS 2022, eq. 4-8, with its 20 steps, eta 0.85, eta_b 1 and zero threshold
    0.03. Differences: blur is not circular here, so its border is filled in as GibbsDDRM does (:mod:`pristina.operators.spectral`); the
    steps are those of :func:`pristina.priors.schedule.timesteps`; without noise, the last step sets what was observed exactly.
    The method has a bias that more steps do not remove: below sigma_y each step is pulled towards y by an amount that does not shrink with
    the step, so that the mean of a long chain tends to the observation, not to the posterior mean
    (``tests/oracle/test_samplers_b.py`` measures it). Twenty steps are a compromise, not an approximation of infinitely many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pristina.errors import Cancelled, InputError, SettingError
from pristina.methods.base import Books, Result, check_observation
from pristina.operators.base import Observation, Operator
from pristina.operators.spectral import Spectrum, spectrum
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, step_pairs
from pristina.types import Draw, OnStep


@dataclass(frozen=True)
class DDRM:
    """Settings of :func:`ddrm`.

    Attributes:
        steps: Network calls.
        eta: How much of the noise is fresh in each step, where the chain is less noisy than the observation or nothing was observed.
        eta_b: How far to follow the observation where the chain is noisier than it.
        threshold: Singular values below this count as zero.
    """

    steps: int = 20
    eta: float = 0.85
    eta_b: float = 1.0
    threshold: float = 0.03

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= N_TIMESTEPS:
            raise SettingError(f"steps must lie between 1 and {N_TIMESTEPS}, not {self.steps}.")
        for name in ("eta", "eta_b", "threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"{name} must lie between 0 and 1, not {getattr(self, name)}.")


class Etas(NamedTuple):
    """The weights of an update.

    Attributes:
        b: Of the observation, where the chain is noisier.
        c: Of the observation's noise, where the chain is less noisy.
        d: Of fresh noise, where nothing is observed.
    """

    b: float
    c: float
    d: float


def update(x0: Tensor, eps: Tensor, y: Tensor, s: Tensor, sigma_y: Tensor, sigma_next: Tensor, z: Tensor, etas: Etas) -> Tensor:
    """The coefficients of the next, less noisy picture (variance exploding).

    Args:
        x0: Of the clean picture.
        eps: Of the unit noise in the present picture.
        y: Of the observation: ``U^T y``.
        s: Singular values, 0 where nothing is observed.
        sigma_y: Noise of the observation in [-1, 1] units, (B, 1, 1, 1).
        sigma_next: Noise of the next picture.
        z: Of fresh unit noise.
        etas: See :class:`Etas`.
    """
    s_or_1 = torch.where(s > 0, s, 1.0)
    y_bar, sigma_bar = y / s_or_1, (sigma_y / s_or_1).clamp(min=1e-9)
    above = etas.b * y_bar + (1 - etas.b) * x0 + (sigma_next**2 - (etas.b * sigma_bar) ** 2).clamp(min=0).sqrt() * z
    below = x0 + sigma_next * (etas.c * (y_bar - x0) / sigma_bar + (1 - etas.c**2) ** 0.5 * z)
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
    """The next picture (variance exploding), all at picture size and in [-1, 1] units.

    Args:
        space: The operator's decomposition.
        x0: The prior's clean picture, (B, C, H, W).
        eps: Its noise.
        sigma_next: Noise of the next picture.
        y: The observation.
        sigma_y: Its noise, (B, 1, 1, 1).
        draw: Where fresh noise comes from.
        etas: See :class:`Etas`.
        around: The picture that fills the observation's border; x0 if None.
    """
    shape = space.shape(x0)
    z = draw.normal(*shape)
    if space.margin:  # the chain's noise beyond the border is not known: any will do
        whole = draw.normal(*shape)
        space.crop(whole).copy_(eps)
        eps = whole
    if space.border:
        y, sigma_y = space.fill(y, x0 if around is None else around, sigma_y, draw.normal(*shape))
    of = space.coefficients
    x_bar = update(of(space.extend(x0)), of(eps), space.observed(y), space.s, sigma_y, sigma_next, of(z), etas)
    return space.crop(space.canvas(x_bar))


def first_picture(space: Spectrum, y: Tensor, around: Tensor, sigma_y: Tensor, sigma: Tensor, draw: Draw) -> Tensor:
    """The first, noisiest picture (variance exploding): ``sigma`` noise round the observation, round grey where there is none."""
    z = draw.normal(*space.shape(around))
    y, sigma_y = space.fill(y, around, sigma_y, torch.zeros_like(z))
    y_bar, z_bar = space.observed(y), space.coefficients(z)
    s = torch.where(space.s > 0, space.s, 1.0)
    known = (space.s > 0) & (s * sigma > sigma_y)
    x_bar = torch.where(known, y_bar / s + (sigma**2 - (sigma_y / s) ** 2).clamp(min=0).sqrt() * z_bar, sigma * z_bar)
    return space.crop(space.canvas(x_bar))


def sigma_at(prior: Prior, t: int) -> Tensor:
    """Noise over signal at timestep ``t``: the noise of the variance-exploding picture."""
    alpha_bar = alpha_bar_at(prior.alpha_bar, t)
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def known_sigma(observation: Observation, method: str) -> float:
    """The noise level of an observation, which ``method`` must be told.

    Raises:
        InputError: It is not there.
    """
    if observation.known_sigma is None:
        raise InputError(f"{method} must be told the noise: give known_sigma, in [0, 1] units.")
    return observation.known_sigma


@torch.no_grad()
def ddrm(
    observation: Observation,
    prior: Prior,
    settings: DDRM = DDRM(),
    *,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Draws, roughly, from the pictures of the prior that explain the observation through a known operator and noise level.

    Args:
        observation: The degraded pictures, the true operator (none: noise only) and ``known_sigma``.
        prior: The diffusion prior.
        settings: See :class:`DDRM`.
        generator: One for each picture.
        on_step: Called after each step.

    Returns:
        Pictures of the prior's size; trace ``loss`` (mean squared residual of the clean estimate, [0, 1] units).

    Raises:
        InputError: ``known_sigma`` is missing.
        OperatorError: The operator has no cheap singular value decomposition (blur, area downsampling and masks have).
        SizeError: The prior does not accept the size.

    Source:
        See the module.

    Example:
        >>> import torch
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> y = torch.full((1, 3, 8, 8), 0.6)
        >>> result = ddrm(Observation(y, known_sigma=0.1), GaussianPrior(variance=0.1), DDRM(steps=10))
        >>> result.picture.shape, result.cost.network_calls
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

    books = Books(prior, settings.steps, on_step)
    pairs = step_pairs(settings.steps, len(prior.alpha_bar))
    picture = observation.initial()
    x_t = first_picture(space, y, to_signed(picture), sigma_y, sigma_at(prior, pairs[0][0]), draw)
    why = "the chain is done"
    try:
        for t, s in pairs:
            eps, x0 = prior.predict(alpha_bar_at(prior.alpha_bar, t).sqrt() * x_t, t)
            x_t = advance(space, x0, eps, sigma_at(prior, s), y, sigma_y, draw, etas)
            picture = to_unit(x_t if s < 0 else x0).clamp(0, 1)
            books.step(picture, (operator(picture) - observation.y).square().mean((1, 2, 3)))
    except Cancelled:
        why = f"cancelled at step {books.n_done}"
    return books.result("ddrm", picture, settings, draw.seeds, [why] * n)
