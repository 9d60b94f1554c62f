"""Diffusion networks as priors."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from pristina.errors import SettingError
from pristina.priors.base import Prior, SizeRule
from pristina.priors.network import ImageNetwork
from pristina.priors.schedule import x0_from_eps

PredictionType = Literal["eps", "v", "x0", "flow"]


class UNetPrior(Prior):
    """Diffusion network of any prediction type as a prior.

    Args:
        network: Network ``network(x_t, t)``; frozen and put in evaluation mode.
        prediction: Quantity that the network predicts: the noise (``eps``), ``v = alpha eps - sigma
            x0`` (``v``), the clean images (``x0``), or the velocity ``eps - x0`` of the straight
            path ``(1 - u) x0 + u eps`` (``flow``). A flow network gets the time u in [0, 1] of the
            same signal-to-noise ratio and ``x_t`` scaled to its path, and so serves every timestep
            of the variance-preserving chain exactly.
        domain: Description of the images that it was trained on, in one sentence.
        channels: Number of colour channels.
        size_rule: Accepted sizes; any by default.
        alpha_bar: Table of the noise schedule, (1000,); linear by default.
        dtype: Type in which the network computes (default float32); the weights stay as they are.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        prediction: PredictionType,
        domain: str,
        channels: int = 3,
        size_rule: SizeRule | None = None,
        alpha_bar: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(domain=domain, channels=channels, size_rule=size_rule, alpha_bar=alpha_bar)
        if prediction not in ("eps", "v", "x0", "flow"):
            raise SettingError(f"prediction must be eps, v, x0 or flow, not {prediction!r}.")
        self.network = network.eval().requires_grad_(False)
        self.prediction = prediction
        self.dtype = dtype

    def predict_x0(self, x_t: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
        def clean(x: Tensor, rows: slice) -> Tensor:
            return self._clean(x, t[rows], alpha_bar[rows])

        return self.portioned(clean, x_t)

    def _clean(self, x_t: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
        """Predict the clean images of a portion, as :meth:`predict_x0` does."""
        alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        if self.prediction == "flow":
            u = sigma / (alpha + sigma)
            x_u = x_t / (alpha + sigma)
            return x_u - u * self._output(x_u, u.flatten())
        out = self._output(x_t, t)
        if self.prediction == "eps":
            return x0_from_eps(x_t, out, alpha_bar)
        return out if self.prediction == "x0" else alpha * x_t - sigma * out

    def _output(self, x: Tensor, t: Tensor) -> Tensor:
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32):
            out = self.call(x, t)
        return out[:, : self.channels].to(x.dtype)


def flow_prior(
    network: ImageNetwork,
    *,
    domain: str,
    native: int | None,
    fixed: bool,
    dtype: torch.dtype = torch.float32,
) -> UNetPrior:
    """Make a prior from a network trained by :mod:`pristina.training.prior`.

    Args:
        network: Trained network.
        domain: Description of the images that it was trained on, in one sentence.
        native: Side of the training images in pixels.
        fixed: Whether only images of that size are accepted.
        dtype: Type in which the network computes (default float32).
    """
    multiple = network.multiple
    return UNetPrior(
        network,
        prediction="flow",
        domain=domain,
        channels=network.settings["outputs"],
        size_rule=SizeRule(multiple=multiple, minimum=multiple, native=native, fixed=fixed),
        dtype=dtype,
    )
