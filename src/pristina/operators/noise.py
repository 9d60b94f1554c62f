"""Noise: the mean of an image stays as it is, so that ``forward`` is the identity.

``degrade`` draws the noise, and ``variance`` returns its strength.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from pristina.operators.base import Operator
from pristina.operators.unknown import Unknown, in_words, numbers
from pristina.types import Draw, Images

__all__ = ["GaussianNoise", "Noise", "PoissonNoise", "SpeckleNoise"]


class Noise(Operator):
    """Noise of zero mean, independent from pixel to pixel; base of all kinds.

    The mean does not depend on the strength. A method that estimates the strength puts
    :meth:`variance` into its loss.
    """

    @abstractmethod
    def variance(self, x: Images) -> Tensor:
        """Return the variance at each pixel of clean images; differentiable in the strength.

        Args:
            x: Clean images, (B, C, H, W).

        Returns:
            Variance, in a shape that broadcasts to (B, C, H, W).
        """

    def degrade(self, x: Images, draw: Draw) -> Images:
        return x + self.variance(x).detach().sqrt() * draw.normal(*x.shape[1:]).to(x)


class GaussianNoise(Noise):
    """White Gaussian noise.

    Args:
        sigma: First guess of the standard deviation in [0, 1] units; 0.1 is 25.5 grey levels of
            255.
        learnable: Whether sigma is unknown.
    """

    name = "noise"

    def __init__(self, sigma: float, learnable: bool = False):
        super().__init__()
        self.sigma = Unknown("sigma", sigma, "positive", learnable=learnable)

    def variance(self, x: Images) -> Tensor:
        return self.sigma.over_images().square()

    def estimates(self) -> dict[str, Any]:
        return {"sigma": numbers(self.sigma())}

    def describe(self) -> str:
        sigma = self.sigma()
        return f"Gaussian noise with sigma {in_words(sigma)} ({in_words(sigma, 'of 255', 255)})"


class PoissonNoise(Noise):
    """Shot noise ``Poisson(peak x) / peak``: each pixel counts photons.

    Args:
        peak: First guess of the count at white; the smaller, the noisier.
        learnable: Whether the peak is unknown.
    """

    name = "poisson"

    def __init__(self, peak: float, learnable: bool = False):
        super().__init__()
        self.peak = Unknown("peak", peak, "positive", learnable=learnable)

    def variance(self, x: Images) -> Images:
        return x.clamp_min(0) / self.peak.over_images()

    def degrade(self, x: Images, draw: Draw) -> Images:
        peak = self.peak.over_images().detach()
        rate = (peak * x.clamp_min(0)).cpu()
        counts = [torch.poisson(r, generator=g) for r, g in zip(rate, draw.generators, strict=True)]
        return torch.stack(counts).to(x) / peak

    def estimates(self) -> dict[str, Any]:
        return {"peak": numbers(self.peak())}

    def describe(self) -> str:
        return f"shot noise with {in_words(self.peak())} counts at white"


class SpeckleNoise(Noise):
    """Mixture ``y = 0.8 (x + lam x g1) + 0.2 (x + sigma g2)`` of two kinds of Gaussian noise.

    Args:
        lam: First guess of the strength of the multiplicative noise.
        sigma: First guess of the standard deviation of the additive noise, [0, 1] units.
        learnable: Whether both are unknown.
        clip: Whether what leaves [0, 1] is clipped.

    Source:
        BIRD's released degradations: lam 0.4, sigma 0.15 for denoising; 0.12 and 0.05 in addition
        to blur, reduction and masks. They clip for denoising and masks, and not for the others.
    """

    name = "speckle"

    def __init__(
        self, lam: float = 0.4, sigma: float = 0.15, learnable: bool = False, clip: bool = False
    ):
        super().__init__()
        self.clip = clip
        self.lam = Unknown("lam", lam, "positive", learnable=learnable)
        self.sigma = Unknown("sigma", sigma, "positive", learnable=learnable)

    def variance(self, x: Images) -> Images:
        multiplicative = (0.8 * self.lam.over_images() * x).square()
        return multiplicative + (0.2 * self.sigma.over_images()).square()

    def degrade(self, x: Images, draw: Draw) -> Images:
        g1, g2 = draw.normal(*x.shape[1:]).to(x), draw.normal(*x.shape[1:]).to(x)
        lam, sigma = self.lam.over_images().detach(), self.sigma.over_images().detach()
        y = 0.8 * (x + lam * x * g1) + 0.2 * (x + sigma * g2)
        return y.clamp(0, 1) if self.clip else y

    def estimates(self) -> dict[str, Any]:
        return {"lam": numbers(self.lam()), "sigma": numbers(self.sigma())}

    def describe(self) -> str:
        lam, sigma = in_words(self.lam()), in_words(self.sigma())
        return f"speckle noise of strength {lam} mixed with Gaussian noise of sigma {sigma}"


def white_noise_sigma(operator: Operator) -> float | None:
    """Return the standard deviation of the noise of an operator in [0, 1] units, or None.

    None unless the last part is white Gaussian noise and no other part is noise.
    """
    *others, last = operator.parts
    if not isinstance(last, GaussianNoise) or any(isinstance(part, Noise) for part in others):
        return None
    return float(last.sigma().detach())
