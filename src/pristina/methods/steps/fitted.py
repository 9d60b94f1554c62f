"""What is fitted to an observation in each step of a chain: the image, the damage, its noise.

:class:`KnownForm` knows the form of the damage; it fits its unknowns and a noise of any level.
:class:`UnknownForm` knows nothing, and takes whatever damage there is for noise of any spectrum.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from pristina.methods.steps.correlated import ErrorSpectrum, fit_any, fit_linear
from pristina.methods.steps.noise_level import (
    MIN_SIGMA,
    by_brightness,
    by_frequency,
    clipped_at,
    unclipped,
)
from pristina.operators.base import Observed, Operator
from pristina.types import Draw, Images, PerImage

FIRST_SIGMA = 0.1
"""First guess of the noise, in [0, 1] units."""

WARM_UP = 3
"""Fits before the first network call, by which the first image and the noise become known."""

WIDE = 500.0
"""Uncertainty of the single colour to which they start, in [0, 1] units: that of any image."""

UPDATES = 3
"""Steps of Adam on the unknowns of the damage, for each image that is fitted."""

BETAS = (0.8, 0.95)
"""Decay rates of Adam, for so few steps shorter in memory than the usual ones."""


DOUBT = 0.25
"""Share of the uncertainty of a prediction that is taken off what it leaves over."""


class KnownForm:
    """Observation through an operator whose form is known.

    Args:
        y: Observations, (B, C', h, w).
        operator: Operator with unknowns of its own for each image; they are changed in place.
        shape: Shape of the images, (B, C, H, W).
        rate: Learning rate of the unknowns, in the units in which the operator keeps them.
        kernel_rate: Learning rate of those among them that are logits of kernels.
        iterations: Number of iterations of a data step.
    """

    def __init__(
        self,
        y: Observed,
        operator: Operator,
        shape: tuple[int, ...],
        rate: float,
        kernel_rate: float,
        iterations: int,
    ):
        self.y, self.operator, self.iterations = y, operator, iterations
        with torch.no_grad():
            empty = torch.zeros(shape, dtype=y.dtype, device=y.device)
            self.white = operator(empty + 1) - operator(empty)
        self.seen = (self.white.abs() > 1e-6).to(y.dtype)
        self.low = clipped_at(y, 0.0) & (self.seen > 0)
        self.high = clipped_at(y, 1.0) & (self.seen > 0)
        self.target, self.variance = y, torch.full_like(y, FIRST_SIGMA**2)
        self.rates = {
            p: kernel_rate if name.endswith("logits") else rate
            for name, p in operator.named_parameters()
            if p.requires_grad
        }
        self.adam = None
        if self.rates:
            groups = [{"params": [p], "lr": lr} for p, lr in self.rates.items()]
            self.adam = torch.optim.Adam(groups, betas=BETAS)

    def first(self, shape: tuple[int, ...], draw: Draw) -> Images:
        """Fit images and noise to a single colour, with the power of images, without a network."""
        level = self._level(shape)
        error = ErrorSpectrum(level, WIDE, 1.0)
        x = level
        for _ in range(WARM_UP):
            x = self.fit(level, error, draw, sample=False)
            self.measure(x, error, draw)
        return x

    def _level(self, shape: tuple[int, ...]) -> Images:
        """Return the images of one colour that come nearest to the observation."""
        colour = (self.white * self.y).sum((2, 3), keepdim=True)
        colour = colour / self.white.square().sum((2, 3), keepdim=True).clamp(min=1e-12)
        if colour.shape[1] != shape[1]:
            colour = colour.mean(1, keepdim=True)
        return colour.clamp(0, 1).expand(shape).clone()

    def fit(self, x0: Images, error: ErrorSpectrum, draw: Draw, sample: bool) -> Images:
        """Fit the images, starting from predicted ones with this error."""
        weight = self.seen / self.variance
        given = self.operator, self.target, x0, weight, error, self.iterations
        if not self.operator.linear:
            return fit_any(*given)
        drawn = None
        if sample:
            drawn = draw.normal(*self.y.shape[1:]), draw.normal(*x0.shape[1:])
        return fit_linear(*given, drawn)

    def learn(self, x: Images, pace: float) -> None:
        """Fit the unknowns of the damage to images, at ``pace`` times the rates."""
        if self.adam is None:
            return
        unknowns = list(self.rates)
        weight = (self.seen / self.variance).detach()
        for group in self.adam.param_groups:
            group["lr"] = pace * self.rates[group["params"][0]]
        for _ in range(UPDATES):
            with torch.enable_grad():
                loss = (weight * (self.operator(x) - self.target).square()).sum()
                if not loss.requires_grad:  # What is unknown does not change the mean.
                    return
                slopes = torch.autograd.grad(loss, unknowns, materialize_grads=True)
            for p, slope in zip(unknowns, slopes, strict=True):
                p.grad = slope
            self.adam.step()
            self.operator.project()

    @torch.no_grad()
    def measure(self, x: Images, error: ErrorSpectrum, draw: Draw) -> PerImage:
        """Estimate the noise from fitted images, and return their mean squared residual."""
        mean = self.operator(x)
        square = (self.target - mean).square()
        # What the images are still uncertain by, seen through the operator: one random probe.
        probe = self.operator(x + error.shape(draw.normal(*x.shape[1:]))) - mean
        count = self.seen.sum((1, 2, 3), keepdim=True)
        before = (self.seen * probe.square()).sum((1, 2, 3), keepdim=True) / count
        after = before * self.variance / (before + self.variance)
        self.variance = by_brightness(square + after, mean, self.seen)
        self.target = unclipped(self.y, mean, self.variance, self.low, self.high)
        return (self.y - mean).square().mean((1, 2, 3))

    def sigma(self) -> PerImage:
        """Return the root mean square of the noise of each image, in [0, 1] units."""
        total = (self.seen * self.variance).sum((1, 2, 3))
        return (total / self.seen.sum((1, 2, 3))).sqrt()

    def memory(self) -> dict[str, Any]:
        """Return what a run needs to go on; :meth:`recall` takes it."""
        adam = None if self.adam is None else self.adam.state_dict()
        return {"target": self.target, "variance": self.variance, "adam": adam}

    def recall(self, memory: dict[str, Any]) -> None:
        """Go on from what another run left."""
        self.target, self.variance = memory["target"], memory["variance"]
        if self.adam is not None:
            self.adam.load_state_dict(memory["adam"])


class UnknownForm:
    """Observation of unknown form: the image itself, with noise of an unknown spectrum.

    Args:
        y: Observations, (B, C, H, W).
    """

    def __init__(self, y: Images):
        self.y = y
        spectrum = torch.fft.rfft2(y[:, :1])
        self.variance = torch.full_like(spectrum.real, FIRST_SIGMA**2)

    def first(self, shape: tuple[int, ...], draw: Draw) -> Images:
        """Return the observation: a chain that begins with less detail does not return to it."""
        return self.y

    def fit(self, x0: Images, error: ErrorSpectrum, draw: Draw, sample: bool) -> Images:
        """Fit the images in closed form, see :meth:`KnownForm.fit`.

        The noise is what the *predicted* images leave over, less a share of their uncertainty.
        What the fitted ones leave over, or all of that uncertainty taken off, would be too small:
        the observation is then trusted more, and so on until it is its own explanation.
        """
        residual = self.y - x0
        variance = by_frequency(residual) - DOUBT * error.power
        self.variance = variance.clamp(min=MIN_SIGMA**2)
        share = error.power / (error.power + self.variance)
        size = x0.shape[-2:]
        x = x0 + torch.fft.irfft2(share * torch.fft.rfft2(residual), s=size)
        if not sample:
            return x
        spread = (share * self.variance).sqrt() * torch.fft.rfft2(draw.normal(*x0.shape[1:]))
        return x + torch.fft.irfft2(spread, s=size)

    def learn(self, x: Images, pace: float) -> None:
        """Do nothing: there are no unknowns but the noise."""

    def measure(self, x: Images, error: ErrorSpectrum, draw: Draw) -> PerImage:
        """Return the mean squared residual."""
        return (self.y - x).square().mean((1, 2, 3))

    def sigma(self) -> PerImage:
        """Return the root mean square of what is taken for noise, in [0, 1] units."""
        return self.variance.mean((1, 2, 3)).sqrt()

    def memory(self) -> dict[str, Any]:
        """Return what a run needs to go on; :meth:`recall` takes it."""
        return {"variance": self.variance}

    def recall(self, memory: dict[str, Any]) -> None:
        """Go on from what another run left."""
        self.variance = memory["variance"]


def cooling(done: float) -> float:
    """Return the factor of the learning rates when this share of a run is done: half a cosine."""
    return 0.5 + 0.5 * math.cos(math.pi * done)
