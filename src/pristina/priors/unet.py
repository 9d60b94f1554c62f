"""Diffusion networks as priors."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from pristina.errors import SettingError
from pristina.priors.base import Prior, SizeRule
from pristina.priors.network import PatchUNet
from pristina.priors.schedule import x0_from_eps

PredictionType = Literal["eps", "v", "x0", "flow"]


class UNetPrior(Prior):
    """A diffusion network behind :meth:`Prior.predict`, whatever it was trained to predict.

    Args:
        network: ``network(x_t, t) -> prediction``. Frozen and put in evaluation mode.
        prediction: What the network returns: the noise (``eps``), ``v = alpha eps - sigma x0`` (``v``), the clean picture (``x0``),
            or the velocity ``eps - x0`` of the straight path ``(1 - u) x0 + u eps`` (``flow``). A flow network is given the time u in
            [0, 1] of the same signal-to-noise ratio, and ``x_t`` scaled to its path, so that it serves every timestep of the
            variance-preserving chain exactly.
        dtype: Where the network computes (weights stay as they are); float32 unless said otherwise.
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

    def _call(self, x: Tensor, t: Tensor) -> Tensor:
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32):
            out: Any = self.network(x, t)
        out = out if isinstance(out, Tensor) else out.sample
        return out[:, : self.channels].to(x.dtype)

    def predict_x0(self, x_t: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
        alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        if self.prediction == "flow":
            u = sigma / (alpha + sigma)
            x_u = x_t / (alpha + sigma)
            return x_u - u * self._call(x_u, u.flatten())
        out = self._call(x_t, t)
        if self.prediction == "eps":
            return x0_from_eps(x_t, out, alpha_bar)
        return out if self.prediction == "x0" else alpha * x_t - sigma * out


def flow_prior(network: PatchUNet, *, domain: str, native: int | None, fixed: bool, dtype: torch.dtype = torch.float32) -> UNetPrior:
    """A prior from a network trained by :mod:`pristina.training.prior`."""
    rule = SizeRule(multiple=network.multiple, minimum=network.multiple, native=native, fixed=fixed)
    return UNetPrior(network, prediction="flow", domain=domain, channels=network.settings["outputs"], size_rule=rule, dtype=dtype)
