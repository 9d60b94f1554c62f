"""A diffusion prior on images with plain noise, ``x0 + sigma noise``, and noise levels that fall.

Divided by ``sqrt(1 + sigma^2)`` such an image is a diffused image of the prior, with
``alpha_bar = 1 / (1 + sigma^2)``.

Source:
    Karras et al., "Elucidating the design space of diffusion-based generative models", NeurIPS
    2022, eq. 5, the noise levels with rho = 7.
"""

from __future__ import annotations

from pristina.methods.steps.flow import denoise_mixed
from pristina.priors.base import Prior
from pristina.types import Images

POWER = 7


def noise_levels(n: int, first: float, last: float) -> list[float]:
    """Return ``n`` noise levels that fall from ``first`` to ``last``, dense where there is little.

    Example:
        >>> [round(sigma, 2) for sigma in noise_levels(4, 100.0, 0.1)]
        [100.0, 19.36, 2.26, 0.1]
    """
    a, b = first ** (1 / POWER), last ** (1 / POWER)
    return [float((a + k / max(n - 1, 1) * (b - a)) ** POWER) for k in range(n)]


def largest_level(prior: Prior, most: float) -> float:
    """Return ``most``, or the largest noise level that the prior knows if that is smaller."""
    alpha_bar = float(prior.alpha_bar[-1])
    return min(most, ((1 - alpha_bar) / alpha_bar) ** 0.5)


def levels_to_zero(prior: Prior, n: int, first: float, last: float) -> list[float]:
    """Return ``n`` noise levels that the prior knows, from ``first`` to ``last``, and then 0."""
    most = largest_level(prior, first)
    return [*noise_levels(n, most, min(most, last)), 0.0]


def denoise(prior: Prior, x: Images, sigma: float) -> Images:
    """Estimate the mean of the clean images in ``x``, with one network call for each.

    Args:
        prior: Diffusion prior.
        x: Images with noise, (B, C, H, W), in [-1, 1] units.
        sigma: Standard deviation of the noise, positive.

    Returns:
        Clean images in [-1, 1] units, not clipped.
    """
    return denoise_mixed(prior, x, 1.0, sigma)
