"""Statistics of an image's damage, computed from its pixels alone.

None of these is a measure of quality: noise is sharp, and texture is noise to most estimators.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import SizeError
from pristina.types import Images, PerImage

BAND_PX = 128
"""Height of the bands in which large images are convolved."""


def estimate_noise(y: Images) -> PerImage:
    """Estimate the standard deviation of white noise in each image.

    The median of the absolute diagonal Haar detail is averaged over the channels. The image itself
    has little such detail in most places, and the median ignores the rest.

    Args:
        y: Images, (B, C, H, W), in [0, 1], at least 2 px a side.

    Returns:
        Standard deviations in [0, 1] units, (B,).

    Source:
        Donoho and Johnstone 1994, "Ideal spatial adaptation by wavelet shrinkage", section 4.2.
    """
    return _median(_diagonal_detail(y).abs().flatten(2)).mean(1) / 0.6745


def noise_coarseness(y: Images) -> PerImage:
    """Compare the noise of two scales: how much more of it spans two pixels than one.

    Diagonal Haar details of the first two scales are compared in blocks of 32 px, in the fifth of
    them that are flattest at the fourth scale; there is little but noise in those.

    Args:
        y: Images, (B, C, H, W), in [0, 1], at least 32 px a side.

    Returns:
        Ratios, (B,), the median of the blocks: 1 for white noise; more for that of cameras, films
        and compressed files, which neighbouring pixels share, and for images without noise.

    Example:
        >>> import torch
        >>> noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> smooth = (noise + noise.roll(1, -1) + noise.roll(1, -2)) / 3
        >>> round(float(noise_coarseness(noise)), 1), float(noise_coarseness(smooth)) > 1.3
        (1.0, True)
    """
    height, width = (n // 32 * 32 for n in y.shape[-2:])
    scale, energy = y[..., :height, :width], []
    for level in range(1, 5):
        a, b, c, d = (scale[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
        details = (a - b - c + d) / 2, (a - b + c - d) / 2, (a + b - c - d) / 2
        in_blocks = (F.avg_pool2d(x.square(), 32 >> level).mean(1).flatten(1) for x in details)
        energy.append(torch.stack(list(in_blocks)))
        scale = (a + b + c + d) / 2
    n_blocks = energy[0].shape[-1]
    flat = energy[3].sum(0).topk(min(n_blocks, max(4, n_blocks // 5)), largest=False).indices
    fine, coarse = (energy[level][0].gather(1, flat) for level in (0, 1))
    return _median(coarse / fine.clamp(min=1e-9)).sqrt()


def sharpness(x: Images) -> PerImage:
    """Compute the variance of the Laplacian of each image's luma.

    Args:
        x: Images, (B, C, H, W), at least 2 px a side; with other than three channels the luma is
            the single channel.

    Returns:
        Variances, (B,). Noise raises them too.
    """
    luma = x
    if x.shape[1] == 3:
        red, green, blue = x.split(1, 1)
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
    kernel = x.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]]).view(1, 1, 3, 3)
    padded = F.pad(luma, (1, 1, 1, 1), mode="reflect")
    # In bands, because a convolution takes sixteen times the memory of such a plane.
    starts = range(0, x.shape[-2], BAND_PX)
    bands = [F.conv2d(padded[..., i : i + BAND_PX + 2, :], kernel) for i in starts]
    return torch.cat(bands, -2).flatten(1).var(1)


def blockiness(x: Images, block: int = 8) -> PerImage:
    """Compute the ratio of the steps across block borders to the steps elsewhere.

    Args:
        x: Images, (B, C, H, W), in [0, 1]. Blocks are counted from the upper left corner, so a
            crop off the grid shows none.
        block: Side of a block in pixels (default 8).

    Returns:
        Ratios, (B,): 1 without blocks, more with blocks.

    Raises:
        SizeError: The image holds no border of two blocks.

    Example:
        >>> import torch
        >>> smooth = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
        >>> means = smooth.unflatten(-1, (8, 8)).mean(-1, keepdim=True)
        >>> blocks = means.expand(1, 3, 64, 8, 8).flatten(-2)
        >>> mixed = 0.9 * blocks + 0.1 * smooth
        >>> round(float(blockiness(smooth)), 3), float(blockiness(mixed)) > 10
        (1.0, True)
    """
    if min(x.shape[-2:]) <= block:
        raise SizeError(
            f"Blockiness needs more than {block} px a side, not {x.shape[-1]} x {x.shape[-2]}."
        )
    across, down = (_at_borders(_steps(x, dim), block) for dim in (-1, -2))
    # An image without any step has no blocks either.
    return (across[0] + down[0] + 1e-6) / (across[1] + down[1] + 1e-6)


def _diagonal_detail(y: Tensor) -> Tensor:
    """Compute the diagonal coefficients of a Haar transform, (B, C, H // 2, W // 2)."""
    height, width = (n // 2 * 2 for n in y.shape[-2:])
    a, b = y[..., 0:height:2, 0:width:2], y[..., 0:height:2, 1:width:2]
    c, d = y[..., 1:height:2, 0:width:2], y[..., 1:height:2, 1:width:2]
    return (a - b - c + d) / 2


def _median(x: Tensor) -> Tensor:
    """Compute the median of the last dimension; ``torch.quantile`` stops at 2**24 numbers."""
    middle, odd = divmod(x.shape[-1], 2)
    upper = x.kthvalue(middle + 1).values
    return upper if odd else torch.lerp(x.kthvalue(middle).values, upper, 0.5)


def _steps(x: Tensor, dim: int) -> Tensor:
    """Compute the mean difference of neighbours along dimension -1 or -2 at each place, (B, n)."""
    return x.diff(dim=dim).abs_().mean((1, -3 - dim))


def _at_borders(steps: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Compute the mean of steps, (B, n), at block borders and elsewhere, each (B,)."""
    at_border = torch.arange(steps.shape[1], device=steps.device) % block == block - 1
    return steps[:, at_border].mean(1), steps[:, ~at_border].mean(1)
