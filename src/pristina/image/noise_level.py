"""How noisy a picture is, from the picture alone."""

from __future__ import annotations

import torch
from torch import Tensor

from pristina.types import PerPicture, Pictures


def estimate_sigma(y: Pictures) -> PerPicture:
    """The standard deviation of white noise in each picture, in [0, 1] units, (B,).

    Median absolute diagonal detail of the Haar transform, averaged over channels: what the picture itself has there
    is little in most places, and the median does not see the rest.

    Source:
        Donoho and Johnstone 1994, "Ideal spatial adaptation by wavelet shrinkage", section 4.2.
    """
    height, width = y.shape[-2] // 2 * 2, y.shape[-1] // 2 * 2
    a, b = y[..., 0:height:2, 0:width:2], y[..., 0:height:2, 1:width:2]
    c, d = y[..., 1:height:2, 0:width:2], y[..., 1:height:2, 1:width:2]
    detail: Tensor = ((a - b - c + d) / 2).abs().flatten(2)
    return torch.quantile(detail, 0.5, dim=2).mean(1) / 0.6745
