"""Random convolutional network whose structure prefers images to noise: the only prior of DIP.

Source:
    Ulyanov, Vedaldi and Lempitsky, "Deep Image Prior", CVPR 2018, the "skip" network as its
    released code sets it up for denoising. Deliberate differences: one image is one network, so
    that batch normalisation, which there sees a batch of one, is written as what it then is,
    instance normalisation; weights are drawn from the image's own generator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pristina.errors import SizeError
from pristina.types import Draw


def _stage(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """Make a convolution with normalisation and activation."""
    convolution = nn.Conv2d(
        inputs, outputs, size, stride, padding=size // 2, padding_mode="reflect"
    )
    return nn.Sequential(convolution, nn.InstanceNorm2d(outputs, affine=True), nn.LeakyReLU(0.2))


class _Level(nn.Module):
    """One scale: a narrow skip beside the way down to the coarser scales and up again."""

    def __init__(self, inputs: int, channels: int, skip: int, deeper: nn.Module):
        super().__init__()
        self.skip = _stage(inputs, skip, 1)
        self.down = nn.Sequential(
            _stage(inputs, channels, 3, stride=2), _stage(channels, channels, 3)
        )
        self.deeper = deeper
        self.norm = nn.InstanceNorm2d(skip + channels, affine=True)
        self.up = nn.Sequential(_stage(skip + channels, channels, 3), _stage(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        deep = F.interpolate(
            self.deeper(self.down(x)), scale_factor=2, mode="bilinear", align_corners=False
        )
        deep = deep[..., : x.shape[-2], : x.shape[-1]]  # An odd side comes back one pixel larger.
        up: Tensor = self.up(self.norm(torch.cat([self.skip(x), deep], 1)))
        return up


class SkipNetwork(nn.Module):
    """Encoder and decoder with narrow skips and random weights.

    Args:
        draw: Randomness of one image, from which the weights are drawn.
        inputs: Number of channels of the noise.
        outputs: Number of channels of the image.
        channels: Width of every scale.
        scales: Number of times that the image is halved.
        skip: Number of channels of the skip at each scale.

    Example:
        >>> network = SkipNetwork(Draw(None, 1), inputs=8, channels=16, scales=2)
        >>> network(torch.zeros(1, 8, 17, 24)).shape
        torch.Size([1, 3, 17, 24])
    """

    def __init__(
        self,
        draw: Draw,
        *,
        inputs: int = 32,
        outputs: int = 3,
        channels: int = 128,
        scales: int = 5,
        skip: int = 4,
    ):
        super().__init__()
        self.scales = scales
        with torch.device("meta"):  # No weights yet, and no numbers from the global generator.
            body: nn.Module = nn.Identity()
            for level in reversed(range(scales)):
                body = _Level(channels if level else inputs, channels, skip, body)
            self.body = body
            self.head = nn.Conv2d(channels, outputs, 1)
        self.to_empty(device=draw.device)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                # The usual bound of a convolution: uniform, variance 1 / (3 fan-in).
                bound = 1 / math.sqrt(module.weight[0].numel())
                weight, bias = module.weight, module.bias
                weight.data = (2 * draw.uniform(*weight.shape)[0] - 1) * bound
                bias.data = (2 * draw.uniform(*bias.shape)[0] - 1) * bound
            elif isinstance(module, nn.InstanceNorm2d):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)

    def check(self, height: int, width: int) -> None:
        """Raise :class:`SizeError` if the coarsest scale would be a single pixel."""
        if math.ceil(min(height, width) / 2**self.scales) < 2:
            need = 2**self.scales + 1
            raise SizeError(
                f"{self.scales} scales need at least {need} px a side, not {width} x {height}; ask "
                "for fewer scales."
            )

    def forward(self, z: Tensor) -> Tensor:
        """Compute the image of the noise under the present weights.

        Args:
            z: Noise, (1, inputs, H, W).

        Returns:
            Image, (1, outputs, H, W), in [0, 1].
        """
        return self.head(self.body(z)).sigmoid()
