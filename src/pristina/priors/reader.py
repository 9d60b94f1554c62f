"""The network that reads damage off crops of a picture.

Glossary:
    x: crops, (B, K, 3, H, W), in [0, 1]: K crops of each of B pictures.
    spread: half of the width of an interval that holds about two thirds of the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pristina.priors.base import BasePrior

KINDS = ("noise", "grain", "jpeg", "blur", "defocus", "shake", "enlarged")
"""Kinds of damage, each present or not."""
LEVELS = ("noise", "quality", "width", "scale")
"""Levels of damage: noise (binary logarithm of the deviation in 1/255), the lowest JPEG quality at
which the picture was saved (in tens), width of the blur and scale of the enlargement (binary
logarithms of pixels and of the factor)."""
CANDIDATES = ("blind", "jpeg", "x4")
"""Weights whose gain in PSNR, in dB, is predicted."""
CROP_PX = 128
"""Side of a crop in pixels."""
LEAST_PX = 40
"""Side to which smaller crops are filled up; the convolutions need some pixels."""
SQUARES = 8
"""Squares a side in which a crop is divided to find its smoothest place."""
BLOCK = 8
"""Side of a JPEG's blocks in pixels."""
LAG_PX = 8
"""Largest distance at which the details of a crop are compared with themselves."""
DETAIL = 8.0
"""Factor by which differences from the neighbourhood are enlarged for the network."""


class ReaderNetwork(nn.Module):
    """Convolutions over each crop, averages over its places, and dense layers on their mean.

    The features of a crop are means and deviations, over its places, of what each convolution
    gives, and the mean in its smoothest place; for damage is a texture and not a place. The shape
    of a blur shows in how the details of all crops repeat themselves.

    Args:
        settings: ``channels``, the widths from fine to coarse, and ``hidden``, that of the dense
            layers.
    """

    ends = ("convolutions.0", "answer")
    """Names of the first and the last layer, which Muon leaves to AdamW."""

    def __init__(self, settings: Mapping[str, Any]):
        super().__init__()
        self.settings = dict(settings)
        widths, hidden = list(settings["channels"]), int(settings["hidden"])
        ins = [4 * 6, *widths[:-1]]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(i, o, 3, stride=2 if level else 1)
            for level, (i, o) in enumerate(zip(ins, widths, strict=True))
        )
        self.crop = nn.Linear(3 * sum(widths), hidden)
        n_lags = (LAG_PX + 1) * (2 * LAG_PX + 1)
        self.picture = nn.Linear(2 * hidden + 2 + 2 * BLOCK + 2 * n_lags, hidden)
        n_values = len(LEVELS) + len(CANDIDATES)
        self.answer = nn.Linear(hidden, len(KINDS) + 2 * n_values)

    def forward(self, x: Tensor, quality: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of the kinds, values and spreads of the levels and gains.

        Args:
            x: Crops, (B, K, 3, H, W), in [0, 1].
            quality: Quality of the JPEG files that hold the pictures, in [0, 1], 0 for other
                files, (B,).
        """
        n_crops = x.shape[1]
        grid = torch.cat([_grid(x), _grid(x.transpose(-1, -2))], 1)
        repeats = _repeats(x)
        x = x.flatten(0, 1)
        around = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)
        x = F.pixel_unshuffle(torch.cat([x - 0.5, DETAIL * (x - around)], 1), 2)
        x = x.contiguous(memory_format=torch.channels_last)
        features = []
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
            low = F.adaptive_avg_pool2d(x, SQUARES).flatten(2).amin(2)
            deviation = x.var((2, 3), correction=0).add(1e-8).sqrt()
            features += [_level(x.mean((2, 3))), _level(deviation), _level(low)]
        each = F.relu(self.crop(torch.cat(features, 1))).unflatten(0, (-1, n_crops))
        told = torch.stack([quality, (quality > 0).float()], 1)
        picture = torch.cat([each.mean(1), each.amax(1), told, grid, repeats], 1)
        answer = self.answer(F.relu(self.picture(picture)))
        kinds, values, spreads = answer.split(
            [len(KINDS), len(LEVELS) + len(CANDIDATES), len(LEVELS) + len(CANDIDATES)], 1
        )
        return kinds, values, F.softplus(spreads) + 0.02


def _grid(x: Tensor) -> Tensor:
    """Compare the steps between columns by their place in the blocks of a JPEG, (B, 8).

    The crops of a picture lie on one grid, wherever it begins; the places are sorted.
    """
    steps = x.diff(dim=-1).abs().mean((1, 2, 3))
    steps = steps[:, : steps.shape[1] // BLOCK * BLOCK].unflatten(1, (-1, BLOCK)).mean(1)
    ratio = (steps + 1e-4) / (steps.mean(1, keepdim=True) + 1e-4)
    return 5 * ratio.log().sort(1, descending=True).values


def _repeats(x: Tensor) -> Tensor:
    """Compare the details of a picture with themselves, some pixels apart, (B, n).

    They are the autocorrelation of the whitened crops and their cepstrum, at all distances up to
    :data:`LAG_PX`. A blur by a line or a disc leaves lobes there at its own length (Yitzhaky and
    Kopeika, Graphical Models and Image Processing 59, 1997).
    """
    height, width = x.shape[-2:]
    light = x.float().mean(2)
    light = light - light.mean((2, 3), keepdim=True)
    window = torch.outer(
        torch.hann_window(height, device=x.device), torch.hann_window(width, device=x.device)
    )
    power = torch.fft.rfft2(window * light).abs().square()
    down = torch.fft.fftfreq(height, device=x.device)[:, None]
    right = torch.fft.rfftfreq(width, device=x.device)
    power = power * (down**2 + right**2)  # Clean pictures have about as much at each frequency.
    power = power.mean(1) + 1e-6 * height * width
    found = []
    for spectrum in (power, power.log()):
        lags = torch.fft.irfft2(spectrum, s=(height, width)).roll(LAG_PX, -1)
        lags = lags[:, : LAG_PX + 1, : 2 * LAG_PX + 1]
        found.append(lags.flatten(1))
    found[0] = found[0] / found[0][:, LAG_PX, None].clamp(min=1e-12)
    return torch.cat(found, 1)


def _level(x: Tensor) -> Tensor:
    """Return the logarithm of a mean or a deviation, brought near [-1, 1].

    Damage shows in ratios, as of the finest detail to coarser detail; they are differences here.
    """
    return 0.3 * (x + 1e-3).log() + 1


class DamageReader(BasePrior):
    """Trained network that reads damage off crops of a picture.

    Args:
        network: Network as trained by :mod:`pristina.training.reader`; frozen and put in
            evaluation mode.
        domain: Description of the pictures that it was trained on, in one sentence.
        dtype: Type in which the network computes (default float32).
    """

    def __init__(self, network: ReaderNetwork, *, domain: str, dtype: torch.dtype = torch.float32):
        super().__init__(domain=domain)
        self.network = network.eval().requires_grad_(False)
        self.dtype = dtype

    def predict(self, x: Tensor, quality: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the network reads in crops, as :meth:`ReaderNetwork.forward` does.

        Args:
            x: Crops, (B, K, 3, H, W), in [0, 1].
            quality: Quality of the JPEG files that hold the pictures, in [0, 1], 0 for other
                files, (B,).
        """
        self._count(x)
        down, right = (max(0, LEAST_PX - n) for n in x.shape[-2:])
        if down or right:
            x = F.pad(x.flatten(0, 1), (0, right, 0, down), mode="replicate").unflatten(
                0, (-1, x.shape[1])
            )
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32):
            kinds, values, spreads = self.network(x, quality)
        return kinds.float(), values.float(), spreads.float()
