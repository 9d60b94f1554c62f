"""What learns from pairs: InDI's regressor, and the conditional diffusion network it is compared with.

Both are made from one :class:`PatchUNet` in which no layer depends on the size of the picture, and take pictures of any size.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pristina.errors import InputError
from pristina.priors.base import Prediction, SizeRule, to_signed, to_unit
from pristina.priors.network import PatchUNet
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, eps_from_x0, linear_alpha_bar
from pristina.types import Pictures

Noise = Literal["none", "constant", "brownian"]
"""How the standard deviation of the noise on InDI's path depends on t: zero, ``eps t``, or ``eps sqrt(t)``."""


def regress(network: Callable[[Tensor, Tensor], Tensor], x_t: Tensor, t: Tensor) -> Tensor:
    """``F(x_t, t) = x_t + t network(x_t, t)`` on pixels in [-1, 1]; t is (B,) in (0, 1].

    The identity is where training starts, and the network is asked for ``x - y`` (and noise), whose size does not depend on t.
    """
    x_t = x_t.contiguous(memory_format=torch.channels_last)
    return x_t + t.view(-1, 1, 1, 1) * network(x_t, t)


def denoise(network: Callable[[Tensor, Tensor], Tensor], x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    """``x0 = c + network([c, x_t], t)``: training starts at the degraded picture; pixels in [-1, 1], timesteps t (B,)."""
    both = torch.cat([condition, x_t], 1).contiguous(memory_format=torch.channels_last)
    return condition + network(both, t / N_TIMESTEPS)


def noise_scale(noise: Noise, eps: float, t: Tensor) -> Tensor:
    """Standard deviation of the noise on the path at t."""
    return {"none": 0 * t, "constant": eps * t, "brownian": eps * t.sqrt()}[noise]


class _Padded:
    """Pictures brought to a multiple of the network's stride by reflection, and its answer cut back."""

    def __init__(self, x: Tensor, multiple: int):
        self.height, self.width = x.shape[-2:]
        self.pad = (0, -self.width % multiple, 0, -self.height % multiple)

    def __call__(self, x: Tensor) -> Tensor:
        fits = self.pad[1] < self.width and self.pad[3] < self.height
        return F.pad(x, self.pad, mode="reflect" if fits else "replicate")

    def back(self, x: Tensor) -> Tensor:
        return x[..., : self.height, : self.width]


class DirectPrior(nn.Module):
    """A regressor ``F(x_t, t)`` of clean pictures from the path between clean and degraded. A subclass implements :meth:`regress`.

    Attributes:
        domain: One sentence: which damage to which pictures it has learned to undo.
        size_rule: Which sizes it accepts: any.
        channels: Colour channels it works in.
        noise: The noise it was trained with on the path.
        eps: That noise's size, in [0, 1] units.
        n_calls: Network calls so far, one for each picture of each batch.
        source: Where its weights came from (file, sha256, layout), for records; empty if it has none.
    """

    def __init__(self, *, domain: str, channels: int = 3, noise: Noise = "none", eps: float = 0.0):
        super().__init__()
        self.domain, self.channels = domain, channels
        self.noise, self.eps = noise, eps
        self.size_rule = SizeRule()
        self.n_calls = 0
        self.source: dict[str, str] = {}
        self.register_buffer("_here", torch.zeros(()), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the prior computes."""
        return next(self.buffers()).device

    @abstractmethod
    def regress(self, x_t: Tensor, t: Tensor) -> Tensor:
        """``E[x | x_t]`` in [0, 1], not clipped, for ``x_t`` (B, C, H, W) and ``t`` (B,)."""

    def predict(self, x_t: Pictures, t: Tensor | float) -> Pictures:
        """The clean pictures expected behind ``x_t = (1 - t) x + t y``.

        Args:
            x_t: Pictures on the path, (B, C, H, W), in [0, 1] but for noise; any size.
            t: From 0 (clean, exclusive) to 1 (degraded); a number, or one for each picture.

        Raises:
            InputError: The number of channels is wrong, or t is out of range.
        """
        if x_t.ndim != 4 or x_t.shape[1] != self.channels:
            raise InputError(f"The regressor takes (batch, {self.channels}, height, width), not {tuple(x_t.shape)}.")
        t = torch.as_tensor(t, dtype=torch.float32, device=x_t.device).expand(len(x_t))
        if not bool(((t > 0) & (t <= 1)).all()):
            raise InputError(f"t must lie in (0, 1], not at {t.tolist()}.")
        self.n_calls += len(x_t)
        return self.regress(x_t, t)


class DirectNetwork(DirectPrior):
    """A trained network as InDI's regressor.

    Args:
        network: As trained by :mod:`pristina.training.indi`. Frozen and put in evaluation mode.
        dtype: Where the network computes; float32 unless said otherwise.
    """

    def __init__(self, network: PatchUNet, *, domain: str, noise: Noise = "none", eps: float = 0.0, dtype: torch.dtype = torch.float32):
        super().__init__(domain=domain, channels=network.settings["outputs"], noise=noise, eps=eps)
        self.network = network.eval().requires_grad_(False)
        self.dtype = dtype

    def regress(self, x_t: Tensor, t: Tensor) -> Tensor:
        padded = _Padded(x_t, self.network.multiple)
        with torch.autocast(x_t.device.type, self.dtype, enabled=self.dtype != torch.float32):
            out = regress(self.network, padded(to_signed(x_t)), t)
        return to_unit(padded.back(out).to(x_t.dtype))


class ConditionalPrior(nn.Module):
    """A diffusion network that sees the degraded picture beside ``x_t``. A subclass implements :meth:`predict_x0`.

    Attributes:
        domain: One sentence: which damage to which pictures it has learned to undo.
        size_rule: Which sizes it accepts: any.
        channels: Colour channels of a picture.
        alpha_bar: The schedule's table, shape (1000,).
        n_calls: Network calls so far, one for each picture of each batch.
        source: Where its weights came from (file, sha256, layout), for records; empty if it has none.
    """

    alpha_bar: Tensor

    def __init__(self, *, domain: str, channels: int = 3, alpha_bar: Tensor | None = None):
        super().__init__()
        self.domain, self.channels = domain, channels
        self.size_rule = SizeRule()
        self.register_buffer("alpha_bar", linear_alpha_bar() if alpha_bar is None else alpha_bar, persistent=False)
        self.n_calls = 0
        self.source: dict[str, str] = {}

    @property
    def device(self) -> torch.device:
        """Where the prior computes."""
        return self.alpha_bar.device

    @abstractmethod
    def predict_x0(self, x_t: Tensor, t: Tensor, alpha_bar: Tensor, condition: Tensor) -> Tensor:
        """The clean picture in ``x_t``; pictures and condition in [-1, 1], ``t`` (B,), ``alpha_bar`` (B, 1, 1, 1)."""

    def predict(self, x_t: Tensor, t: Tensor | float, condition: Tensor) -> Prediction:
        """Noise and clean picture in ``x_t``, given the degraded picture.

        Args:
            x_t: Diffused pictures, (B, C, H, W), variance preserving.
            t: Timestep in [0, 999], fractions allowed; a number, or one for each picture.
            condition: The degraded pictures at picture size, (B, C, H, W), in [-1, 1].

        Raises:
            InputError: The shapes do not go together.
        """
        if x_t.ndim != 4 or x_t.shape[1] != self.channels or condition.shape != x_t.shape:
            raise InputError(
                f"Picture and condition must both be (batch, {self.channels}, height, width); "
                f"they are {tuple(x_t.shape)} and {tuple(condition.shape)}."
            )
        t = torch.as_tensor(t, dtype=torch.float32, device=x_t.device).expand(len(x_t))
        alpha_bar = alpha_bar_at(self.alpha_bar, t).to(x_t.dtype).view(-1, 1, 1, 1)
        self.n_calls += len(x_t)
        x0 = self.predict_x0(x_t, t, alpha_bar, condition)
        return Prediction(eps_from_x0(x_t, x0, alpha_bar), x0)


class ConditionalNetwork(ConditionalPrior):
    """A trained network of six input channels, ``[condition, x_t]``; see :func:`denoise`.

    Args:
        network: As trained by :mod:`pristina.training.conditional`. Frozen and put in evaluation mode.
        dtype: Where the network computes; float32 unless said otherwise.
    """

    def __init__(self, network: PatchUNet, *, domain: str, dtype: torch.dtype = torch.float32):
        super().__init__(domain=domain, channels=network.settings["outputs"])
        self.network = network.eval().requires_grad_(False)
        self.dtype = dtype

    def predict_x0(self, x_t: Tensor, t: Tensor, alpha_bar: Tensor, condition: Tensor) -> Tensor:
        padded = _Padded(x_t, self.network.multiple)
        with torch.autocast(x_t.device.type, self.dtype, enabled=self.dtype != torch.float32):
            out = denoise(self.network, padded(x_t), t, padded(condition))
        return padded.back(out).to(x_t.dtype)
