"""Analytic priors, whose every prediction is exact: oracles of the tests and small examples."""

from __future__ import annotations

import torch
from torch import Tensor

from pristina.priors.base import Prior


class GaussianPrior(Prior):
    """Gaussian distribution of images, in the prior's [-1, 1] units.

    Args:
        mean: Mean, a number or a tensor that broadcasts against (C, H, W).
        variance: Variance of each pixel, a number or a tensor that broadcasts against (C, H, W); or
            of each Fourier mode (orthonormal FFT) if ``spectral``, which makes the distribution
            stationary and neighbouring pixels correlated.
        spectral: Whether ``variance`` refers to Fourier modes.
        channels: Number of colour channels.
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        mean: Tensor | float = 0.0,
        variance: Tensor | float = 1.0,
        *,
        spectral: bool = False,
        channels: int = 3,
    ):
        super().__init__(
            domain="Gaussian noise with a known mean and covariance", channels=channels
        )
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("variance", torch.as_tensor(variance, dtype=torch.float32))
        self.spectral = spectral

    def predict_x0(self, x_t: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
        alpha = alpha_bar.sqrt()
        gain = alpha * self.variance / (alpha_bar * self.variance + 1 - alpha_bar)
        return self.mean + self._filter(gain, x_t - alpha * self.mean)

    def sample(self, noise: Tensor) -> Tensor:
        """Draw exact samples, in [-1, 1] units, from standard normal ``noise`` (B, C, H, W)."""
        return self.mean + self._filter(self.variance.sqrt(), noise)

    def _filter(self, gain: Tensor, x: Tensor) -> Tensor:
        return torch.fft.ifft2(gain * torch.fft.fft2(x)).real if self.spectral else gain * x


class GaussianMixturePrior(Prior):
    """Mixture of Gaussians of one isotropic variance, in [-1, 1] units: exact and non-linear.

    Args:
        means: Mean of each component, (K, C, H, W).
        variance: Variance of each component.
        weights: Weight of each component, (K,); equal by default.
    """

    means: Tensor
    log_weights: Tensor

    def __init__(self, means: Tensor, variance: float, weights: Tensor | None = None):
        super().__init__(domain="a mixture of Gaussians", channels=means.shape[1])
        self.register_buffer("means", means)
        weights = torch.ones(len(means)) if weights is None else weights
        self.register_buffer("log_weights", (weights / weights.sum()).log())
        self.variance = variance

    def predict_x0(self, x_t: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
        alpha, spread = alpha_bar.sqrt(), alpha_bar * self.variance + 1 - alpha_bar
        off = x_t.unsqueeze(1) - alpha.unsqueeze(1) * self.means
        log = self.log_weights - off.square().flatten(2).sum(2) / (2 * spread.view(-1, 1))
        share = log.softmax(1).view(*log.shape, 1, 1, 1)
        each = self.means + (alpha * self.variance / spread).unsqueeze(1) * off
        return (share * each).sum(1)
