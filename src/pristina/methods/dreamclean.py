"""DreamClean: invert the degraded image to a noise level, and sample back with part of it renewed.

Glossary:
    y: observation at image size.
    x_t: diffused image.
    eps: its noise as the prior predicts it.
    tau: timestep up to which the image is inverted.
    gamma: share of the noise that is renewed.
    K: number of levels.
    M: number of renewals at each level.

Source:
    Xiao et al., "DreamClean: restoring clean image using deep diffusion prior", ICLR 2024. The
    paper's text and code were not available; the algorithm follows its abstract and public
    reviews: inversion up to tau, then at each level M variance preserving steps
    ``x_t <- x_t + eta_l score + eta_g z`` with ``eta_l = gamma (1 - alpha_bar)`` and
    ``eta_g = sqrt(gamma (2 - gamma) (1 - alpha_bar))``, and a DDIM step. M is 1 in practice there.

    Decided here, because the text was missing: K, tau and gamma (30 calls in place of the 90 that
    the paper reports and K = 30 would make), levels evenly spaced in t, y taken for the image at
    t = 0, the clean image not clipped. The variant that uses a known degradation is not
    implemented.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from pristina.errors import Cancelled
from pristina.methods.steps.chain import begin
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, ddim_step, x0_from_eps
from pristina.settings import Count, Settings, Share
from pristina.types import Draw, Generators, OnStep


@dataclass(frozen=True)
class DreamClean(Settings):
    """Settings of :func:`dreamclean`; K, tau and gamma were chosen here, not by the paper.

    Attributes:
        levels: Number of levels K. An image costs (2 + M) K network calls.
        tau: Timestep up to which the image is inverted, of 1000: small for light damage, large for
            heavy damage.
        gamma: Share of the noise that is renewed, in [0, 1]; 0 samples back what was inverted.
        renewals: Number of variance preserving steps M at each level.
    """

    levels: Count = 10
    tau: Annotated[float, Interval(gt=0, le=N_TIMESTEPS - 1)] = 60.0
    gamma: Share = 0.2
    renewals: Annotated[int, Ge(0)] = 1


def calls(settings: DreamClean) -> Calls:
    """Return the network calls for one image."""
    return Calls((2 + settings.renewals) * settings.levels)


def renew(x_t: Tensor, eps: Tensor, alpha_bar: Tensor, gamma: float, z: Tensor) -> Tensor:
    """Replace part of the noise of ``x_t`` by fresh noise and keep its variance.

    The noise ``sqrt(1 - alpha_bar) eps`` shrinks by the factor ``1 - gamma`` and gains the variance
    ``gamma (2 - gamma) (1 - alpha_bar)``; ``(1 - gamma)^2 + gamma (2 - gamma) = 1``.

    Args:
        x_t: Diffused images, (B, C, H, W).
        eps: Unit noise in them, (B, C, H, W).
        alpha_bar: Share of the signal in the variance, a scalar.
        gamma: Share of the noise that is renewed, in [0, 1].
        z: Fresh unit noise, (B, C, H, W).

    Example:
        >>> x_t, eps = torch.zeros(2, 1, 100, 100), torch.randn(2, 1, 100, 100)
        >>> x_t = x_t + eps  # alpha_bar = 0: nothing but noise
        >>> abs(renew(x_t, eps, torch.tensor(0.0), 0.5, torch.randn_like(eps)).std() - 1) < 0.05
        tensor(True)
    """
    sigma = (1 - alpha_bar).sqrt()
    return x_t - gamma * sigma * eps + (gamma * (2 - gamma)) ** 0.5 * sigma * z


@torch.no_grad()
def dreamclean(
    observation: Observation,
    prior: Prior,
    settings: DreamClean = DreamClean(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Replace the observation by similar images that are more likely under the prior.

    Args:
        observation: Degraded images; an operator is used only to bring them to image size.
        prior: Diffusion prior.
        settings: Settings, see :class:`DreamClean`.
        start: State of a cancelled run to go on from. A state without progress begins anew.
        generator: Random generators, one for each image.
        on_step: Function called after each level, on the way up and on the way down.

    Returns:
        Result with images of the prior's size; trace ``loss``, the mean squared distance of the
        current clean image from y.

    Raises:
        SizeError: The prior does not accept the size.
        InputError: The observation contains NaN or has the wrong number of channels.

    Source:
        See the module.

    Example:
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> y, prior = torch.full((1, 3, 8, 8), 0.6), GaussianPrior(variance=0.1)
        >>> result = dreamclean(Observation(y), prior, DreamClean(levels=4))
        >>> result.images.shape, result.cost.network_calls
        (torch.Size([1, 3, 8, 8]), 12)
    """
    check_observation(observation, prior)
    y = observation.initial()
    draw = Draw(generator, len(y), y.device)
    recorder = RunRecorder(prior, 2 * settings.levels, on_step, start)
    prior = recorder.prior
    shape = tuple(y.shape)
    x, images = begin(start, "dreamclean", draw, shape, y.clamp(0, 1), lambda: to_signed(y))

    # Levels of the whole chain: 0, 1, ..., K on the way up and K, ..., 1, 0 on the way down.
    levels = [*range(settings.levels), *range(settings.levels, -1, -1)]
    ts = [settings.tau * k / settings.levels for k in levels]
    alpha_bars = [alpha_bar_at(prior.alpha_bar, t) for t in ts]
    stop = StopReason.COMPLETED
    try:
        for i, (now, after) in list(enumerate(pairwise(levels)))[recorder.first_step :]:
            if now < after:
                # Inversion step.
                eps = prior.predict(x, ts[i]).eps
                x0 = x0_from_eps(x, eps, alpha_bars[i])
                x, estimate = ddim_step(x0, eps, alpha_bars[i + 1]), to_signed(y)
            else:
                # Renewal of part of the noise.
                for _ in range(settings.renewals):
                    eps = prior.predict(x, ts[i]).eps
                    x = renew(x, eps, alpha_bars[i], settings.gamma, draw.normal(*shape[1:]))
                # Sampling step.
                eps, x0 = prior.predict(x, ts[i])
                x = ddim_step(x0, eps, alpha_bars[i + 1])
                estimate = x if after == 0 else x0
            images = to_unit(estimate).clamp(0, 1)
            recorder.step(images, (images - y).square().mean((1, 2, 3)))
    except Cancelled:
        stop = StopReason.CANCELLED
    state = recorder.state(
        "dreamclean", recorder.n_done, x, images=images, generators=draw.get_states()
    )
    return recorder.result("dreamclean", images, settings, draw.seeds, stop, state=state)
