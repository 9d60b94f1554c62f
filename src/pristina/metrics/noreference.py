"""What can be said of a picture without knowing the truth. None of these is a measure of quality: noise is sharp."""

from __future__ import annotations

import torch
from torch import Tensor

from pristina.errors import SizeError
from pristina.image.noise_level import estimate_sigma
from pristina.methods.diip import sharpness
from pristina.types import PerPicture, Pictures

__all__ = ["blockiness", "noise", "sharpness"]


def noise(x: Pictures) -> PerPicture:
    """The standard deviation of white noise, in [0, 1] units, (B,); see :func:`pristina.image.noise_level.estimate_sigma`."""
    return estimate_sigma(x)


def blockiness(x: Pictures, block: int = 8) -> PerPicture:
    """How much larger the steps across the borders of 8 x 8 blocks are than the steps elsewhere, (B,): 1 without blocks, more with.

    Args:
        x: (B, C, H, W), in [0, 1]; blocks are counted from the upper left corner, so a crop off the grid shows none.
        block: Side of a block in pixels.

    Raises:
        SizeError: There is no border of two blocks in the picture.

    Example:
        >>> import torch
        >>> from pristina.types import generators
        >>> smooth = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
        >>> blocks = smooth.unflatten(-1, (8, 8)).mean(-1, keepdim=True).expand(1, 3, 64, 8, 8).flatten(-2)
        >>> round(float(blockiness(smooth)), 3), float(blockiness(0.9 * blocks + 0.1 * smooth)) > 10
        (1.0, True)
    """
    if min(x.shape[-2:]) <= block:
        raise SizeError(f"Blockiness needs more than {block} px a side, not {x.shape[-1]} x {x.shape[-2]}.")
    across, down = _steps(x, block), _steps(x.transpose(-1, -2), block)
    # a picture without any step has no blocks either
    return (across[0] + down[0] + 1e-6) / (across[1] + down[1] + 1e-6)


def _steps(x: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Mean absolute difference of horizontal neighbours across block borders, and elsewhere, each (B,)."""
    steps = (x[..., 1:] - x[..., :-1]).abs().mean((1, 2))
    at_border = torch.arange(steps.shape[1], device=x.device) % block == block - 1
    return steps[:, at_border].mean(1), steps[:, ~at_border].mean(1)
