"""A diffusion prior on the straight path of a flow.

There an image is ``x_u = (1 - u) x0 + u noise``; u counts from 1, pure noise, to 0, clean. Divided
by ``sqrt((1 - u)^2 + u^2)`` it is a diffused image of the prior, with
``alpha_bar = (1 - u)^2 / ((1 - u)^2 + u^2)``, whatever the prior was trained as.
"""

from __future__ import annotations

from pristina.priors.base import Prior
from pristina.priors.schedule import timestep_of
from pristina.types import Images


def denoise(prior: Prior, x: Images, u: float) -> Images:
    """Estimate the mean of the clean images in ``x``, with one network call for each.

    Args:
        prior: Diffusion prior.
        x: Images on the path, (B, C, H, W), in [-1, 1] units.
        u: Share of noise, above 0 and at most 1.

    Returns:
        Clean images in [-1, 1] units, not clipped.
    """
    return denoise_mixed(prior, x, 1 - u, u)


def denoise_mixed(prior: Prior, x: Images, signal: float, noise: float) -> Images:
    """Estimate the mean of the clean images in ``x = signal x0 + noise eps``, see :func:`denoise`.

    Args:
        prior: Diffusion prior.
        x: Images with noise, (B, C, H, W), in [-1, 1] units.
        signal: Factor of the clean images.
        noise: Standard deviation of the noise.
    """
    energy = signal**2 + noise**2
    return prior.predict(x / energy**0.5, timestep_of(prior.alpha_bar, signal**2 / energy)).x0
