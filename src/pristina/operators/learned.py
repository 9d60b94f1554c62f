"""A small network for damage whose form nobody knows."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pristina.errors import OperatorError, SettingError
from pristina.operators.base import Operator
from pristina.operators.unknown import numbers, own_generator, say


class LearnedOperator(Operator):
    """``y = x + network(x)``: a residual convolutional network that starts as the identity, with weights of its own for each picture.

    Args:
        width: Channels between the layers.
        depth: 3 x 3 convolutions; the reach of the operator is ``depth`` pixels to each side.
        channels: Of the pictures.
        seed: Of the first weights; the last layer starts at zero.

    Source:
        Decided here: small enough (3.2 k weights by default) that it can imitate local damage but not draw a picture. Borders are mirrored.
    """

    name = "learned"
    linear = False

    def __init__(self, width: int = 16, depth: int = 3, channels: int = 3, seed: int = 0):
        super().__init__()
        if width < 1 or depth < 2:
            raise SettingError(f"width must be at least 1 and depth at least 2, not {width} and {depth}.")
        if channels < 1:
            raise SettingError(f"channels must be at least 1, not {channels}.")
        self.depth = depth
        generator = own_generator(self.name, seed)
        sides = [channels, *[width] * (depth - 1), channels]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for i, (n_in, n_out) in enumerate(pairwise(sides)):
            scale = 0.0 if i == depth - 1 else 1 / math.sqrt(9 * n_in)
            self.weights.append(nn.Parameter(scale * torch.randn(1, n_out, n_in, 3, 3, generator=generator)))
            self.biases.append(nn.Parameter(torch.zeros(1, n_out)))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.weights[0].shape[2]:
            raise OperatorError(f"This operator is for pictures of {self.weights[0].shape[2]} channels, not {x.shape[1]}.")
        if min(x.shape[-2:]) < 2:
            raise OperatorError(f"This operator mirrors the border and needs 2 px at least, not {x.shape[-1]} x {x.shape[-2]}.")
        h = x
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = _per_picture(F.silu(h) if i else h, weight, bias)
        return x + h

    def estimates(self) -> dict[str, Any]:
        n_weights = sum(p[0].numel() for p in self.parameters())
        return {"n_weights": n_weights, "depth": self.depth, "last_layer_rms": numbers(self._rms())}

    def describe(self) -> str:
        return f"a learned local operator reaching {self.depth} px, its last layer {say(self._rms())} (rms) away from the identity"

    def _rms(self) -> Tensor:
        return self.weights[-1].detach().square().mean((1, 2, 3, 4)).sqrt()


def _per_picture(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 3 x 3 convolution with mirrored borders; ``weight`` is (1 or B, out, in, 3, 3)."""
    x = F.pad(x, (1, 1, 1, 1), mode="reflect")
    if len(weight) == 1:
        return F.conv2d(x, weight[0], bias[0])
    n, n_out = weight.shape[:2]
    y = F.conv2d(x.reshape(1, -1, *x.shape[-2:]), weight.flatten(0, 1), bias.flatten(), groups=n)
    return y.view(n, n_out, *y.shape[-2:])
