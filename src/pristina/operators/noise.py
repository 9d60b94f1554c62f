"""Noise: nothing happens to the mean, so ``forward`` is the identity; ``degrade`` draws, and ``variance`` says how strong it is."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from pristina.operators.base import Operator
from pristina.operators.unknown import Unknown, numbers, say
from pristina.types import Draw


class Noise(Operator):
    """Noise of zero mean, independent from pixel to pixel; what all kinds share.

    The mean teaches an optimiser nothing about the strength: a method that wants it learned puts :meth:`variance` into its loss.
    """

    @abstractmethod
    def variance(self, x: Tensor) -> Tensor:
        """The variance at each pixel of clean pictures ``x``; broadcasts to (B, C, H, W), differentiable in the strength."""

    def degrade(self, x: Tensor, draw: Draw) -> Tensor:
        return x + self.variance(x).detach().sqrt() * draw.normal(*x.shape[1:]).to(x)


class GaussianNoise(Noise):
    """White noise of standard deviation ``sigma``, in [0, 1] units.

    Args:
        sigma: First guess of the strength; 0.1 is 25.5 grey levels of 255.
        learnable: Whether it is unknown.
    """

    name = "noise"

    def __init__(self, sigma: float, learnable: bool = False):
        super().__init__()
        self.sigma = Unknown("sigma", sigma, "positive", learnable=learnable)

    def variance(self, x: Tensor) -> Tensor:
        return self.sigma.over_pictures().square()

    def estimates(self) -> dict[str, Any]:
        return {"sigma": numbers(self.sigma())}

    def describe(self) -> str:
        return f"Gaussian noise with sigma {say(self.sigma())} ({say(self.sigma(), 'of 255', 255)})"


class PoissonNoise(Noise):
    """Shot noise: each pixel counts light, ``Poisson(peak x) / peak``.

    Args:
        peak: First guess of the count at white; the fewer, the noisier.
        learnable: Whether it is unknown.
    """

    name = "poisson"

    def __init__(self, peak: float, learnable: bool = False):
        super().__init__()
        self.peak = Unknown("peak", peak, "positive", learnable=learnable)

    def variance(self, x: Tensor) -> Tensor:
        return x.clamp_min(0) / self.peak.over_pictures()

    def degrade(self, x: Tensor, draw: Draw) -> Tensor:
        peak = self.peak.over_pictures().detach()
        rate = (peak * x.clamp_min(0)).cpu()
        counts = torch.stack([torch.poisson(r, generator=g) for r, g in zip(rate, draw.generators, strict=True)])
        return counts.to(x) / peak

    def estimates(self) -> dict[str, Any]:
        return {"peak": numbers(self.peak())}

    def describe(self) -> str:
        return f"shot noise with {say(self.peak())} counts at white"


class SpeckleNoise(Noise):
    """The mixture ``y = 0.8 (x + lam x g1) + 0.2 (x + sigma g2)`` of multiplicative and additive noise.

    Args:
        lam: First guess of the multiplicative strength.
        sigma: First guess of the additive one, [0, 1] units.
        learnable: Whether both are unknown.

    Source:
        BIRD's released degradations: lam 0.4, sigma 0.15 for denoising; 0.12 and 0.05 on top of blur, reduction and masks.
    """

    name = "speckle"

    def __init__(self, lam: float = 0.4, sigma: float = 0.15, learnable: bool = False):
        super().__init__()
        self.lam = Unknown("lam", lam, "positive", learnable=learnable)
        self.sigma = Unknown("sigma", sigma, "positive", learnable=learnable)

    def variance(self, x: Tensor) -> Tensor:
        return (0.8 * self.lam.over_pictures() * x).square() + (0.2 * self.sigma.over_pictures()).square()

    def degrade(self, x: Tensor, draw: Draw) -> Tensor:
        g1, g2 = draw.normal(*x.shape[1:]).to(x), draw.normal(*x.shape[1:]).to(x)
        lam, sigma = self.lam.over_pictures().detach(), self.sigma.over_pictures().detach()
        return 0.8 * (x + lam * x * g1) + 0.2 * (x + sigma * g2)

    def estimates(self) -> dict[str, Any]:
        return {"lam": numbers(self.lam()), "sigma": numbers(self.sigma())}

    def describe(self) -> str:
        return f"speckle of strength {say(self.lam())} mixed with Gaussian noise of sigma {say(self.sigma())}"
