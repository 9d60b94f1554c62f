"""The prior's own estimate, in one network call: the baseline that every other method has to beat.

The observation is taken for a clean picture with white noise; scaled to the prior's chain it is an ``x_t``, and the network's clean picture is
``E[x0 | x_t]``, the estimate of least mean squared error.

Source:
    Tweedie's formula, as every diffusion network embodies it; the noise level is estimated after Donoho and Johnstone 1994.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from pristina.errors import Cancelled, SettingError
from pristina.image.noise_level import estimate_sigma
from pristina.methods.base import Books, Result, check_observation
from pristina.operators.base import Observation
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.priors.schedule import alpha_bar_at, timestep_of
from pristina.types import Draw, OnStep


@dataclass(frozen=True)
class MMSE:
    """Settings of :func:`mmse`.

    Attributes:
        sigma: The noise's standard deviation in [0, 1] units; estimated from each picture when None.
    """

    sigma: float | None = None

    def __post_init__(self) -> None:
        if self.sigma is not None and not self.sigma >= 0:
            raise SettingError(f"sigma must not be negative ({self.sigma}).")


def mmse(
    observation: Observation,
    prior: Prior,
    settings: MMSE = MMSE(),
    *,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """The mean of the clean pictures that could have become the observation through white noise alone.

    Args:
        observation: The degraded pictures; an operator only says how to bring them to picture size.
        prior: The diffusion prior.
        settings: See :class:`MMSE`.
        generator: Unused: nothing is drawn.
        on_step: Called once.

    Returns:
        Pictures of the prior's size; the noise level ``sigma`` that was assumed, in [0, 1] units, in the extras.

    Raises:
        SizeError: The prior does not accept the size.
        InputError: NaN, or the wrong number of channels.

    Source:
        See the module.

    Example:
        >>> import torch
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> result = mmse(Observation(torch.full((1, 3, 8, 8), 0.75)), GaussianPrior(variance=1.0), MMSE(sigma=0.5))
        >>> round(float(result.picture[0, 0, 0, 0]), 3)  # half way to the mean, 0.5
        0.625
    """
    check_observation(observation, prior)
    y = observation.initial()
    books = Books(prior, 1, on_step)
    sigma = estimate_sigma(y) if settings.sigma is None else torch.full((len(y),), settings.sigma, device=y.device)
    t = timestep_of(prior.alpha_bar, 1 / (1 + (2 * sigma) ** 2))  # [-1, 1] pixels double the noise
    alpha_bar = alpha_bar_at(prior.alpha_bar, t).view(-1, 1, 1, 1)
    with torch.no_grad():
        picture = to_unit(prior.predict(alpha_bar.sqrt() * to_signed(y), t).x0).clamp(0, 1)
    with suppress(Cancelled):  # there is nothing left to cancel
        books.step(picture, (picture - y).square().mean((1, 2, 3)))
    seeds = Draw(generator, len(y)).seeds
    return books.result("mmse", picture, settings, seeds, ["one network call is all there is"] * len(y), sigma=sigma)
