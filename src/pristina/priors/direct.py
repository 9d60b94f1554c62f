"""Priors that learn from pairs: InDI's regressor and the conditional diffusion network.

Both are made from one network in which no layer depends on the size of the image, and take images
of any size.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import InputError
from pristina.priors.base import BasePrior, Prediction, to_signed, to_unit
from pristina.priors.network import ImageNetwork
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, eps_from_x0, linear_alpha_bar
from pristina.types import Images

PathNoise = Literal["none", "constant", "brownian"]
"""Standard deviation of the noise on InDI's path at t: zero, ``eps t``, or ``eps sqrt(t)``."""


def regress(network: Callable[[Tensor, Tensor], Tensor], x_t: Tensor, t: Tensor) -> Tensor:
    """Compute ``F(x_t, t) = x_t + t network(x_t, t)``.

    Training starts at the identity, and the network predicts ``x - y`` (and noise), whose size does
    not depend on t.

    Args:
        network: Network on images and times.
        x_t: Images on the path, (B, C, H, W), pixels in [-1, 1].
        t: Time of each, (B,), in (0, 1].

    Returns:
        Clean images, (B, C, H, W), pixels in [-1, 1].
    """
    x_t = x_t.contiguous(memory_format=torch.channels_last)
    return x_t + t.view(-1, 1, 1, 1) * network(x_t, t)


def denoise(
    network: Callable[[Tensor, Tensor], Tensor], x_t: Tensor, t: Tensor, condition: Tensor
) -> Tensor:
    """Compute ``x0 = c + network([c, x_t], t)``: training starts at the degraded image.

    Args:
        network: Network on pairs of images, concatenated, and times.
        x_t: Diffused images, (B, C, H, W), pixels in [-1, 1].
        t: Timestep of each, (B,), in [0, 999].
        condition: Degraded images c, (B, C, H, W), pixels in [-1, 1].

    Returns:
        Clean images, (B, C, H, W), pixels in [-1, 1].
    """
    both = torch.cat([condition, x_t], 1).contiguous(memory_format=torch.channels_last)
    return condition + network(both, t / N_TIMESTEPS)


def noise_scale(noise: PathNoise, eps: float, t: Tensor) -> Tensor:
    """Return the standard deviation of the noise on the path at ``t``."""
    return {"none": 0 * t, "constant": eps * t, "brownian": eps * t.sqrt()}[noise]


class Padded:
    """Padding of images to a multiple of the network's stride, and cropping of its output."""

    def __init__(self, x: Tensor, multiple: int):
        self.height, self.width = x.shape[-2:]
        self.pad = (0, -self.width % multiple, 0, -self.height % multiple)

    def __call__(self, x: Tensor) -> Tensor:
        if not any(self.pad):
            return x
        fits = self.pad[1] < self.width and self.pad[3] < self.height
        return F.pad(x, self.pad, mode="reflect" if fits else "replicate")

    def crop(self, x: Tensor) -> Tensor:
        return x[..., : self.height, : self.width]


class DirectPrior(BasePrior):
    """Regressor ``F(x_t, t)`` of clean images from the path between clean and degraded ones.

    A subclass implements :meth:`regress`. Images of any size are accepted.

    Args:
        domain: Description of the damage and images that it was trained on, in one sentence.
        channels: Number of colour channels.
        noise: Noise on the path in training.
        eps: Scale of that noise, in [0, 1] units.
    """

    def __init__(
        self, *, domain: str, channels: int = 3, noise: PathNoise = "none", eps: float = 0.0
    ):
        super().__init__(domain=domain, channels=channels)
        self.noise, self.eps = noise, eps

    @abstractmethod
    def regress(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Predict the clean images behind images on the path.

        Args:
            x_t: Images on the path, (B, C, H, W), in [0, 1].
            t: Time of each, (B,), in (0, 1].

        Returns:
            ``E[x | x_t]``, (B, C, H, W), in [0, 1] and not clipped.
        """

    def predict(self, x_t: Tensor, t: Tensor | float) -> Images:
        """Predict the clean images behind ``x_t = (1 - t) x + t y``.

        Args:
            x_t: Images on the path, (B, C, H, W), in [0, 1] except for noise; any size.
            t: Time from 0 (clean, exclusive) to 1 (degraded); one number, or one for each image.

        Returns:
            Clean images, (B, C, H, W), in [0, 1] and not clipped.

        Raises:
            InputError: The number of channels is wrong, or t is out of range.
        """
        if x_t.ndim != 4 or x_t.shape[1] != self.channels:
            raise InputError(
                f"The regressor takes (batch, {self.channels}, height, width), "
                f"not {tuple(x_t.shape)}."
            )
        t = torch.as_tensor(t, dtype=torch.float32, device=x_t.device).expand(len(x_t))
        if not bool(((t > 0) & (t <= 1)).all()):
            raise InputError(f"t must lie in (0, 1], not at {t.tolist()}.")
        self._count(x_t)
        return self.regress(x_t, t)


class DirectNetwork(DirectPrior):
    """Trained network as InDI's regressor.

    Args:
        network: Network as trained by :mod:`pristina.training.indi`; frozen and put in evaluation
            mode.
        domain: Description of the damage and images that it was trained on, in one sentence.
        noise: Noise on the path in training.
        eps: Scale of that noise, in [0, 1] units.
        dtype: Type in which the network computes (default float32).
    """

    def __init__(
        self,
        network: ImageNetwork,
        *,
        domain: str,
        noise: PathNoise = "none",
        eps: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(domain=domain, channels=network.settings["outputs"], noise=noise, eps=eps)
        self.network = network.eval().requires_grad_(False)
        self.dtype = dtype

    def regress(self, x_t: Tensor, t: Tensor) -> Tensor:
        padded = Padded(x_t, self.network.multiple)

        def clean(x: Tensor, rows: slice) -> Tensor:
            with torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32):
                out = regress(self.call, to_signed(x), t[rows])
            return to_unit(out.to(x.dtype))

        return padded.crop(self.portioned(clean, padded(x_t)))


class ConditionalPrior(BasePrior):
    """Diffusion network that sees the degraded image beside ``x_t``.

    A subclass implements :meth:`predict_x0`. Images of any size are accepted.

    Args:
        domain: Description of the damage and images that it was trained on, in one sentence.
        channels: Number of colour channels of an image.
        alpha_bar: Table of the noise schedule, (1000,); linear by default.
    """

    alpha_bar: Tensor

    def __init__(self, *, domain: str, channels: int = 3, alpha_bar: Tensor | None = None):
        super().__init__(domain=domain, channels=channels)
        table = linear_alpha_bar() if alpha_bar is None else alpha_bar
        self.register_buffer("alpha_bar", table, persistent=False)

    @abstractmethod
    def predict_x0(self, x_t: Tensor, t: Tensor, alpha_bar: Tensor, condition: Tensor) -> Tensor:
        """Predict the clean images in diffused ones, given the degraded images.

        Args:
            x_t: Diffused images, (B, C, H, W), variance preserving.
            t: Timestep of each image, (B,), in [0, 999].
            alpha_bar: Value of the schedule at ``t``, (B, 1, 1, 1).
            condition: Degraded images, (B, C, H, W), in [-1, 1].

        Returns:
            Clean images, (B, C, H, W), in [-1, 1] and not clipped.
        """

    def predict(self, x_t: Tensor, t: Tensor | float, condition: Tensor) -> Prediction:
        """Split diffused images into noise and clean images, given the degraded images.

        Args:
            x_t: Diffused images, (B, C, H, W), variance preserving.
            t: Timestep in [0, 999], fractions allowed; one number, or one for each image.
            condition: Degraded images of the same size, (B, C, H, W), in [-1, 1].

        Returns:
            The noise and the clean images, (B, C, H, W) each.

        Raises:
            InputError: The shapes do not match.
        """
        if x_t.ndim != 4 or x_t.shape[1] != self.channels or condition.shape != x_t.shape:
            raise InputError(
                f"Picture and condition must both be (batch, {self.channels}, height, width); "
                f"they are {tuple(x_t.shape)} and {tuple(condition.shape)}."
            )
        t = torch.as_tensor(t, dtype=torch.float32, device=x_t.device).expand(len(x_t))
        alpha_bar = alpha_bar_at(self.alpha_bar, t).to(x_t.dtype).view(-1, 1, 1, 1)
        self._count(x_t)
        x0 = self.predict_x0(x_t, t, alpha_bar, condition)
        return Prediction(eps_from_x0(x_t, x0, alpha_bar), x0)


class ConditionalNetwork(ConditionalPrior):
    """Trained network on ``[condition, x_t]``, see :func:`denoise`.

    Args:
        network: Network as trained by :mod:`pristina.training.conditional`; frozen and put in
            evaluation mode.
        domain: Description of the damage and images that it was trained on, in one sentence.
        dtype: Type in which the network computes (default float32).
    """

    def __init__(self, network: ImageNetwork, *, domain: str, dtype: torch.dtype = torch.float32):
        super().__init__(domain=domain, channels=network.settings["outputs"])
        self.network = network.eval().requires_grad_(False)
        self.dtype = dtype

    def predict_x0(self, x_t: Tensor, t: Tensor, alpha_bar: Tensor, condition: Tensor) -> Tensor:
        padded = Padded(x_t, self.network.multiple)

        def clean(pair: Tensor, rows: slice) -> Tensor:
            condition, x = pair.chunk(2, 1)
            with torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32):
                return denoise(self.call, x, t[rows], condition).to(x.dtype)

        pair = torch.cat([padded(condition), padded(x_t)], 1)
        return padded.crop(self.portioned(clean, pair))
