"""A residual U-Net without biases and without normalisation, the network of the blind regressor.

Glossary:
    x: image on InDI's path, pixels in [-1, 1].
    t: InDI's time.
    cell: square of ``patch`` x ``patch`` pixels, folded into channels.

Source:
    Mohan et al., "Robust and interpretable blind image denoising via bias-free convolutional neural
    networks", ICLR 2020 (no biases); Zhang et al., "Plug-and-play image restoration with deep
    denoiser prior" (DRUNet), 2021 (residual blocks, strided and transposed 2 x 2 convolutions,
    skips that are added). The time enters as a constant channel, which is ours.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pristina.priors.network import ImageNetwork


class ResidualBlock(nn.Module):
    """Add to its input two 3 x 3 convolutions with an absolute value between them.

    It starts as the identity. With ReLUs in place of the absolute value, 99 % of the units were
    zero after 1,500 steps of Muon on mostly light damage: setting them to zero was the quickest way
    to add no error to nearly clean images. An absolute value cannot be switched off in this way.

    Args:
        width: Number of channels.
    """

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x + second(abs(first(x)))``, of the same shape."""
        return x + self.second(self.first(x).abs())


def _blocks(width: int, n: int) -> nn.Sequential:
    """Return ``n`` residual blocks of one width, one after the other."""
    return nn.Sequential(*[ResidualBlock(width) for _ in range(n)])


class ResidualUNet(ImageNetwork):
    """Predict what is to be added to an image, from the image and InDI's time.

    Args:
        settings: All that is needed to build it again, kept in the metadata of the weights:
            ``architecture`` ("residual"), ``channels`` (widths from fine to coarse), ``layers``
            (residual blocks a level, on each way and in the middle), ``patch`` (side of a cell in
            pixels), ``inputs`` and ``outputs`` (colour channels).
    """

    ends = ("conv_in", "conv_out")
    """Names of the first and the last layer, which Muon leaves to AdamW."""

    def __init__(self, settings: dict[str, Any]):
        super().__init__()
        self.settings = complete_residual(settings)
        self.patch: int = self.settings["patch"]
        widths, layers = self.settings["channels"], self.settings["layers"]
        cell = self.patch**2
        self.conv_in = nn.Conv2d(
            self.settings["inputs"] * cell + 1, widths[0], 3, padding=1, bias=False
        )
        self.down = nn.ModuleList([_blocks(width, layers) for width in widths[:-1]])
        self.reduce = nn.ModuleList(
            [nn.Conv2d(a, b, 2, 2, bias=False) for a, b in pairwise(widths)]
        )
        self.middle = _blocks(widths[-1], layers)
        self.enlarge = nn.ModuleList(
            [nn.ConvTranspose2d(b, a, 2, 2, bias=False) for a, b in pairwise(widths)]
        )
        self.up = nn.ModuleList([_blocks(width, layers) for width in widths[:-1]])
        self.conv_out = nn.Conv2d(
            widths[0], self.settings["outputs"] * cell, 3, padding=1, bias=False
        )
        nn.init.zeros_(self.conv_out.weight)

    @property
    def multiple(self) -> int:
        """Return the number of pixels of which both sides of an image must be a multiple."""
        return int(self.patch * 2 ** (len(self.settings["channels"]) - 1))

    @property
    def radius(self) -> int:
        """Return the distance in pixels beyond which no pixel of the input changes the output."""
        levels, layers = len(self.settings["channels"]), self.settings["layers"]
        coarse = 2 ** (levels - 1)
        # Two convolutions a block reach 2^i cells each: both ways on each fine level, once in the
        # middle; the 2 x 2 convolutions reach at most one coarser cell; first and last, one cell.
        cells = (coarse - 1) * 4 * layers + coarse * 2 * layers + 2 * coarse + 2
        return int(self.patch * (cells + 1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Compute the addition to an image.

        Args:
            x: Images on InDI's path, (B, inputs, H, W), pixels in [-1, 1].
            time: InDI's time of each, (B,), in [0, 1].

        Returns:
            What the network predicts, (B, outputs, H, W).
        """
        cells = F.pixel_unshuffle(x, self.patch)
        constant = time.to(cells.dtype).view(-1, 1, 1, 1).expand(-1, 1, *cells.shape[-2:])
        h = torch.cat([cells, constant], 1).contiguous(memory_format=torch.channels_last)
        h = self.conv_in(h)
        skips = []
        for blocks, reduce in zip(self.down, self.reduce, strict=True):
            h = blocks(h)
            skips.append(h)
            h = reduce(h)
        h = self.middle(h)
        for i in reversed(range(len(skips))):
            h = self.up[i](self.enlarge[i](h) + skips[i])
        return F.pixel_shuffle(self.conv_out(h), self.patch)


def complete_residual(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a residual U-Net with defaults for what they leave out."""
    defaults = {"channels": [48, 96, 192], "layers": 2, "patch": 2, "inputs": 3, "outputs": 3}
    return {"architecture": "residual"} | defaults | settings
