"""The finder of dust, scratches, cracks, tears and stains.

Glossary:
    x: pictures, (B, 3, H, W), in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pristina.errors import InputError
from pristina.priors.base import BasePrior, to_signed
from pristina.priors.direct import Padded
from pristina.priors.residual import ResidualUNet

RARE = 3.5
"""Logarithm of the odds against a mark, with which training begins: marks are rare."""


def marks_logit(network: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the logarithm of the odds that each pixel belongs to a mark, (B, 1, H, W).

    Args:
        network: Network on images in [-1, 1] and times.
        x: Pictures, (B, 3, H, W), in [0, 1], both sides a multiple of the network's.
    """
    x = to_signed(x).contiguous(memory_format=torch.channels_last)
    return network(x, torch.ones(len(x), device=x.device)) - RARE


class ScratchFinder(BasePrior):
    """Trained network that says of each pixel how likely it belongs to a mark.

    Args:
        network: Network as trained by :mod:`pristina.training.scratches`; frozen and put in
            evaluation mode.
        domain: Description of the pictures that it was trained on, in one sentence.
        dtype: Type in which the network computes (default float32).
    """

    def __init__(self, network: ResidualUNet, *, domain: str, dtype: torch.dtype = torch.float32):
        super().__init__(domain=domain)
        self.network = network.eval().requires_grad_(False)
        self.dtype = dtype

    def predict(self, x: Tensor) -> Tensor:
        """Return the probability that each pixel belongs to a mark, (B, 1, H, W).

        Args:
            x: Pictures of any size, (B, 3, H, W), in [0, 1].

        Raises:
            InputError: The number of channels is wrong.
        """
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise InputError(
                f"The finder takes (batch, {self.channels}, height, width), not {tuple(x.shape)}."
            )
        self._count(x)
        padded = Padded(x, self.network.multiple)

        def probability(x: Tensor, rows: slice) -> Tensor:
            with torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32):
                return marks_logit(self.call, x).float().sigmoid()

        return padded.crop(self.portioned(probability, padded(x)))
