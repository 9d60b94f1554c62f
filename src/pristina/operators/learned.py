"""A small network for degradation of unknown form."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pristina.errors import OperatorError, SettingError
from pristina.operators.base import Operator
from pristina.operators.unknown import in_words, numbers, own_generator
from pristina.types import Images

__all__ = ["LearnedOperator"]


class LearnedOperator(Operator):
    """Residual convolutional network ``y = x + network(x)`` that starts as the identity.

    Args:
        width: Number of channels between the layers.
        depth: Number of 3 x 3 convolutions; the operator reaches ``depth`` px to each side.
        channels: Number of channels of the images.
        seed: Random seed of the initial weights; the last layer starts at zero.

    Source:
        Our own design, small enough (3.2 k weights by default) to imitate local damage but not to
        draw an image. Borders are mirrored.
    """

    name = "learned"
    linear = False

    def __init__(self, width: int = 16, depth: int = 3, channels: int = 3, seed: int = 0):
        super().__init__()
        if width < 1 or depth < 2:
            raise SettingError(
                f"width must be at least 1 and depth at least 2, not {width} and {depth}."
            )
        if channels < 1:
            raise SettingError(f"channels must be at least 1, not {channels}.")
        self.depth = depth
        generator = own_generator(self.name, seed)
        sides = [channels, *[width] * (depth - 1), channels]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for i, (n_in, n_out) in enumerate(pairwise(sides)):
            scale = 0.0 if i == depth - 1 else 1 / math.sqrt(9 * n_in)
            weight = scale * torch.randn(1, n_out, n_in, 3, 3, generator=generator)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(1, n_out)))

    def forward(self, x: Images) -> Images:
        channels = self.weights[0].shape[2]
        if x.shape[1] != channels:
            raise OperatorError(
                f"This operator is for images of {channels} channels, not {x.shape[1]}."
            )
        if min(x.shape[-2:]) < 2:
            raise OperatorError(
                "This operator mirrors the border and needs 2 px at least, "
                f"not {x.shape[-1]} x {x.shape[-2]}."
            )
        h = x
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = _convolved(F.silu(h) if i else h, weight, bias)
        return x + h

    def estimates(self) -> dict[str, Any]:
        n_weights = sum(p[0].numel() for p in self.parameters())
        rms = numbers(self._last_layer_rms())
        return {"n_weights": n_weights, "depth": self.depth, "last_layer_rms": rms}

    def describe(self) -> str:
        rms = in_words(self._last_layer_rms())
        return f"learned local operator of reach {self.depth} px, last layer {rms} (rms)"

    def _last_layer_rms(self) -> Float[Tensor, " parameters"]:
        return self.weights[-1].detach().square().mean((1, 2, 3, 4)).sqrt()


def _convolved(
    x: Float[Tensor, "batch n_in height width"],
    weight: Float[Tensor, "parameters n_out n_in 3 3"],
    bias: Float[Tensor, "parameters n_out"],
) -> Float[Tensor, "batch n_out height width"]:
    """Convolve with mirrored borders; weights are shared (1) or of each image (B)."""
    x = F.pad(x, (1, 1, 1, 1), mode="reflect")
    if len(weight) == 1:
        return F.conv2d(x, weight[0], bias[0])
    n, n_out = weight.shape[:2]
    flat = x.reshape(1, -1, *x.shape[-2:])
    y = F.conv2d(flat, weight.flatten(0, 1), bias.flatten(), groups=n)
    return y.view(n, n_out, *y.shape[-2:])
