"""Restorers to compare: our methods and classical ones, each a function of an observation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from benchmarks.common import damaged, restored
from skimage.restoration import (
    denoise_bilateral,
    denoise_nl_means,
    denoise_wavelet,
    richardson_lucy,
)
from torch import Tensor

from pristina.image.statistics import estimate_noise
from pristina.methods.conditional_ddpm import ConditionalDDPM
from pristina.methods.indi import InDI
from pristina.methods.mmse import MMSE
from pristina.operators.base import Observation, Operator
from pristina.operators.blur import Blur
from pristina.priors import load_prior
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.priors.direct import ConditionalPrior, DirectPrior
from pristina.priors.schedule import timestep_of


@dataclass(frozen=True)
class Case:
    """A clean picture and its observation.

    Attributes:
        x: Clean picture, (1, 3, H, W).
        y: Observation, (1, 3, h, w).
        enlarge: Operator from which the size of the picture is taken; None if it is that of ``y``.
        deconvolve: Richardson-Lucy with the true kernel; None where there is no blur.
    """

    x: Tensor
    y: Tensor
    enlarge: Operator | None = None
    deconvolve: Restorer | None = None

    @property
    def input(self) -> Tensor:
        """The observation at the size of the picture."""
        return Observation(self.y, self.enlarge).initial()


Restorer = Callable[[Case, int], Tensor]
"""Function of a case and a seed that returns the restored picture, (1, 3, H, W)."""


def observe(x: Tensor, operator: Operator, seed: int) -> Case:
    """Return the case of a picture that went through ``operator`` into a file of 8 bits."""
    y = damaged(x, operator, seed)
    return Case(x, y, None if y.shape == x.shape else operator, deconvolved(operator))


def by_indi(prior: DirectPrior, settings: InDI = InDI()) -> Restorer:
    """Restore with InDI."""
    return lambda case, seed: (
        restored("indi", case.y, prior, settings, operator=case.enlarge, seed=seed).images
    )


def by_conditional(prior: ConditionalPrior, settings: ConditionalDDPM) -> Restorer:
    """Restore with the conditional DDPM."""
    return lambda case, seed: (
        restored(
            "conditional_ddpm", case.y, prior, settings, operator=case.enlarge, seed=seed
        ).images
    )


def by_mmse(source: str) -> Restorer:
    """Restore with one call of a diffusion prior."""
    prior = load_prior(source)
    return lambda case, seed: (
        restored("mmse", case.y, prior, MMSE(), operator=case.enlarge, seed=seed).images
    )


def by_skimage(function: Callable[[np.ndarray], np.ndarray]) -> Restorer:
    """Restore with a classical method on an (H, W, 3) array in [0, 1]."""

    def restore(case: Case, seed: int) -> Tensor:
        y = case.input[0].permute(1, 2, 0).clamp(0, 1).numpy()
        found = torch.from_numpy(np.asarray(function(y), np.float32))
        return found.permute(2, 0, 1)[None].clamp(0, 1)

    return restore


def _sigma(y: np.ndarray) -> float:
    return float(estimate_noise(torch.from_numpy(y).permute(2, 0, 1)[None]))


def _median(y: np.ndarray) -> np.ndarray:
    from skimage.filters import median

    return np.stack([median(y[..., c], np.ones((3, 3))) for c in range(3)], -1)


def _bilateral(y: np.ndarray) -> np.ndarray:
    return denoise_bilateral(
        y, sigma_color=max(0.02, 2 * _sigma(y)), sigma_spatial=2, channel_axis=-1
    )


def _non_local_means(y: np.ndarray) -> np.ndarray:
    sigma = _sigma(y)
    sizes = {"patch_size": 5, "patch_distance": 8}
    return denoise_nl_means(y, h=0.6 * sigma, sigma=sigma, fast_mode=True, channel_axis=-1, **sizes)


def with_wavelet(y: np.ndarray) -> np.ndarray:
    """Shrink wavelet coefficients; needs the package PyWavelets."""
    sigma = _sigma(y)
    if sigma < 1e-3:  # There is nothing to remove, and the package would return NaN.
        return y
    return denoise_wavelet(y, sigma=sigma, channel_axis=-1, convert2ycbcr=True, rescale_sigma=True)


def with_bm3d(y: np.ndarray) -> np.ndarray:
    """Denoise with BM3D; needs the package bm3d."""
    from bm3d import bm3d_rgb

    return bm3d_rgb(y, _sigma(y))


# The settings of the bilateral filter and of non-local means are the best of eight on four training
# photographs.
CLASSICAL: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "median 3x3": _median,
    "bilateral": _bilateral,
    "non-local means": _non_local_means,
}


def deconvolved(operator: Operator) -> Restorer | None:
    """Return Richardson-Lucy, 20 rounds, with the true kernel; None where there is no blur."""
    kernels = [part.kernel() for part in operator.parts if isinstance(part, Blur)]
    if not kernels:
        return None
    kernel = kernels[0][0, 0].detach().numpy()

    def restore(y: np.ndarray) -> np.ndarray:
        pad = kernel.shape[0]
        wide = np.pad(y, ((pad, pad), (pad, pad), (0, 0)), mode="reflect").clip(1e-3, 1)
        sharp = [richardson_lucy(wide[..., c], kernel, num_iter=20) for c in range(3)]
        return np.stack(sharp, -1)[pad:-pad, pad:-pad]

    return by_skimage(restore)


class OfNoise(DirectPrior):
    """A diffusion prior as InDI's regressor of pure noise.

    Where the degraded picture is noise, (1 - t) x + t noise is the prior's own path.
    """

    def __init__(self, prior: Prior):
        super().__init__(domain=prior.domain)
        self.prior = prior

    def regress(self, x_t: Tensor, t: Tensor) -> Tensor:
        scale = ((1 - t).square() + t.square()).sqrt().view(-1, 1, 1, 1)
        alpha_bar = ((1 - t) / scale.flatten()).square()
        timestep = timestep_of(self.prior.alpha_bar, alpha_bar)
        return to_unit(self.prior.predict(to_signed(x_t) / scale, timestep).x0)
