"""Data steps on a predicted image whose error is correlated, as that of a denoiser is.

A denoiser errs by much where a frequency is drowned in noise, and by no more than the image has
where there is little of it. The error is described as a stationary Gaussian whose power falls with
frequency. A data step then corrects smooth errors more than fine ones, fills holes from their
border, and needs few conjugate gradients.

Glossary:
    x0: predicted image; e: its error, ``e = L w`` with white noise w of unit variance.
    A: operator; y: observation; weight: 1 / variance of the noise of each value of y.

Source:
    The covariance of a denoiser's error as a Wiener filter leaves it, in a fixed basis: Peng et
    al., "Improving diffusion models for inverse problems using optimal posterior covariance", ICML
    2024. The power law of images is classical (Field 1987); its numbers here were measured on
    training faces. The line search along a difference quotient is that of FAST-DIPS (2026), in
    effect; written from the description.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pristina.operators.base import Operator
from pristina.types import Images

POWER = 0.6
"""Power of images in an orthonormal Fourier mode at :data:`AT`, in [0, 1] units squared."""

AT = 0.05
"""That frequency, cycles per pixel."""

FALL = 3.0
"""Exponent with which the power of images falls."""

PROBE = 0.05
"""Largest change of a pixel by which the slope of a non-linear operator is measured."""


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product of each image of two batches, (B, 1, 1, 1)."""
    return (a * b).sum((1, 2, 3), keepdim=True)


class ErrorSpectrum:
    """Power of the error of images that were predicted from noisy ones.

    Args:
        like: Images, (B, C, H, W).
        sigma: Noise from which they were predicted, in [0, 1] units.
        share: Share of a Wiener filter's error that is left; a network that knows more than the
            power of images leaves less than 1.

    Attributes:
        power: Power in each mode of an orthonormal ``rfft2``, (H, W // 2 + 1).
    """

    def __init__(self, like: Images, sigma: float, share: float):
        self.size = height, width = like.shape[-2], like.shape[-1]
        image = POWER * (AT / frequencies(like).clamp(min=0.5 / max(height, width))) ** FALL
        self.power = share * image * sigma**2 / (image + sigma**2)
        self.root = self.power.sqrt()

    def shape(self, w: Tensor) -> Tensor:
        """Return ``L w``, white noise made an error; L is symmetric."""
        return torch.fft.irfft2(self.root * torch.fft.rfft2(w), s=self.size)


def frequencies(like: Tensor) -> Tensor:
    """Return the frequency of each mode of ``rfft2``, (H, W // 2 + 1), in cycles per pixel."""
    height, width = like.shape[-2:]
    kind = {"dtype": like.dtype, "device": like.device}
    down = torch.fft.fftfreq(height, **kind)[:, None]
    return (down.square() + torch.fft.rfftfreq(width, **kind).square()).sqrt()


@torch.no_grad()
def fit_linear(
    operator: Operator,
    y: Tensor,
    x0: Images,
    weight: Tensor,
    error: ErrorSpectrum,
    iterations: int,
    drawn: tuple[Tensor, Tensor] | None = None,
) -> Images:
    """Minimise ``sum weight (y - A (x0 + L w))^2 + ||w||^2`` by conjugate gradients.

    Args:
        operator: Linear operator.
        y: Observations, (B, C', h, w).
        x0: Predicted images, (B, C, H, W).
        weight: Inverse variance of the noise of y, of its shape; 0 where nothing was seen.
        error: Error of x0.
        iterations: Number of iterations; an image whose residual has fallen to a thousandth rests.
        drawn: White noise of the shapes of y and x0, to draw from the Gaussian instead of taking
            its mean (perturb and optimise).

    Returns:
        ``x0 + L w``.
    """
    r = weight * (y - operator(x0))
    if drawn is not None:
        r = r + weight.sqrt() * drawn[0]
    r = error.shape(operator.adjoint(r))
    if drawn is not None:
        r = r + drawn[1]
    w, p, rr = torch.zeros_like(x0), r, dot(r, r)
    goal = 1e-6 * rr
    for _ in range(iterations):
        going = rr > goal
        if not going.any():
            break
        q = error.shape(operator.adjoint(weight * operator(error.shape(p)))) + p
        step = torch.where(going, rr / dot(p, q).clamp(min=1e-30), 0)
        w, r = w + step * p, r - step * q
        rr, last = torch.where(going, dot(r, r), rr), rr
        p = torch.where(going, r + rr / last.clamp(min=1e-30) * p, p)
    return x0 + error.shape(w)


def fit_any(
    operator: Operator,
    y: Tensor,
    x0: Images,
    weight: Tensor,
    error: ErrorSpectrum,
    iterations: int,
) -> Images:
    """Lower ``sum weight (y - A(x0 + L w))^2 + ||w||^2`` for any differentiable operator.

    Non-linear conjugate gradients (Polak and Ribiere) whose step length comes from a difference
    quotient of A along the direction; see :func:`fit_linear` for the parameters.
    """
    w = torch.zeros_like(x0)
    p = old = None
    for _ in range(iterations):
        with torch.enable_grad():
            at = w.clone().requires_grad_()
            seen = operator(x0 + error.shape(at))
            (pull,) = torch.autograd.grad(seen, at, (weight * (y - seen)).detach())
        with torch.no_grad():
            r = pull - w
            if p is None or old is None:
                p = r
            else:
                more = (dot(r, r - old) / dot(old, old).clamp(min=1e-30)).clamp(min=0)
                p = r + more * p
            change = error.shape(p)
            h = PROBE / change.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-20)
            slope = (operator(x0 + error.shape(w) + h * change) - seen) / h
            step = dot(r, p) / (dot(weight * slope, slope) + dot(p, p)).clamp(min=1e-30)
            w, old = w + step.clamp(min=0) * p, r
    return (x0 + error.shape(w)).detach()
