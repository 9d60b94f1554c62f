"""MMSE: denoise with one network call, the baseline that every other method has to beat.

The observation is taken for a clean image with white noise. Scaled to the prior's chain it is an
``x_t``, and the network's clean image is ``E[x0 | x_t]``, the estimate of least mean squared error.

Source:
    Tweedie's formula, as every diffusion network embodies it; the noise level is estimated after
    Donoho and Johnstone 1994.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import torch

from pristina.errors import Cancelled
from pristina.image.statistics import estimate_noise
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason, refuse_start
from pristina.operators.base import Observation
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.priors.schedule import alpha_bar_at, timestep_of
from pristina.settings import NotNegative, Settings
from pristina.types import Draw, Generators, OnStep


@dataclass(frozen=True)
class MMSE(Settings):
    """Settings of :func:`mmse`.

    Attributes:
        sigma: Standard deviation of the noise, in [0, 1] units; None to estimate it from each
            image.
    """

    sigma: NotNegative | None = None


def calls(settings: MMSE) -> Calls:
    """Return the network calls that ``settings`` imply for one image."""
    return Calls(1, pictures=5)


def mmse(
    observation: Observation,
    prior: Prior,
    settings: MMSE = MMSE(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Estimate the mean of the clean images that may be behind the observation under white noise.

    Args:
        observation: Degraded images, (B, C, h, w); an operator only gives the size to restore.
        prior: Diffusion prior.
        settings: Settings, see :class:`MMSE`.
        start: None: there is nothing to go on with.
        generator: One generator for each image; nothing is drawn.
        on_step: Progress callback, called once; cancelling changes nothing.

    Returns:
        Images of the observation's size; in the extras the noise level ``sigma`` that was assumed,
        (B,), in [0, 1] units.

    Raises:
        SizeError: The prior does not accept the size.
        InputError: The channels or devices differ, or a state to start from is given.

    Source:
        See the module.

    Example:
        >>> import torch
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> y = torch.full((1, 3, 8, 8), 0.75)
        >>> result = mmse(Observation(y), GaussianPrior(variance=1.0), MMSE(sigma=0.5))
        >>> round(float(result.images[0, 0, 0, 0]), 3)  # Half way to the mean, 0.5.
        0.625
    """
    refuse_start("mmse", start)
    check_observation(observation, prior)
    y = observation.initial()
    recorder = RunRecorder(prior, 1, on_step)
    prior = recorder.prior
    sigma = estimate_noise(y)
    if settings.sigma is not None:
        sigma = torch.full_like(sigma, settings.sigma)
    t = timestep_of(prior.alpha_bar, 1 / (1 + (2 * sigma) ** 2))  # [-1, 1] doubles the noise.
    alpha_bar = alpha_bar_at(prior.alpha_bar, t).view(-1, 1, 1, 1)
    with torch.no_grad():
        x0 = prior.predict(alpha_bar.sqrt() * to_signed(y), t).x0
    images = to_unit(x0).clamp_(0, 1)
    del x0
    with suppress(Cancelled):
        recorder.step(images, (images - y).square_().mean((1, 2, 3)))
    seeds = Draw(generator, len(y)).seeds
    return recorder.result("mmse", images, settings, seeds, StopReason.COMPLETED, sigma=sigma)
