"""Opacity: colours beneath transparent pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def fill_transparent(pixels: Tensor, alpha: Tensor) -> Tensor:
    """Give fully transparent pixels the colours of the visible ones around them.

    What lies there by chance (black, as a rule) would otherwise be restored into the edges.

    Args:
        pixels: Colours, (C, H, W).
        alpha: Opacity, (1, H, W), in [0, 1].

    Returns:
        Colours, (C, H, W); those of pixels that show at all stay the same to the bit.

    Example:
        >>> pixels, alpha = torch.zeros(1, 1, 4), torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
        >>> pixels[..., 2:] = 0.75
        >>> fill_transparent(pixels, alpha).flatten().tolist()
        [0.75, 0.75, 0.75, 0.75]
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    return torch.where(hidden, _filled((pixels * alpha)[None], alpha[None])[0], pixels)


def _filled(sums: Tensor, weights: Tensor) -> Tensor:
    """Divide weighted sums by their weights, and take coarser ones where there is no weight."""
    colours = sums / weights.clamp_min(1e-12)
    if bool((weights > 0).all()):
        return colours
    coarse = [F.avg_pool2d(x, 2, ceil_mode=True) for x in (sums, weights)]
    size = tuple(2 * n for n in coarse[0].shape[-2:])
    wide = F.interpolate(_filled(*coarse), size=size, mode="bilinear", align_corners=False)
    return torch.where(weights > 0, colours, wide[..., : sums.shape[-2], : sums.shape[-1]])
