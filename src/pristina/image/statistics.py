"""Statistics of an image's damage, computed from its pixels alone.

None of these is a measure of quality: noise is sharp, and texture is noise to most estimators.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import SizeError
from pristina.types import Images, PerImage

if TYPE_CHECKING:
    from pristina.image.picture import Picture

SMALLEST_PX = 32
"""Smallest side of an image whose statistics mean anything."""


@dataclass(frozen=True)
class ImageStatistics:
    """Statistics of a picture's damage, as :func:`damage_statistics` computes them.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        jpeg_quality: Quality of the JPEG file that held the picture; None for other files.
        blockiness: Value of :func:`blockiness_anywhere`; near 1 without blocks.
        noise: Value of :func:`noise_floor`, in [0, 1] units.
        whiteness: Value of :func:`whiteness`; near 1 where what resembles noise is white.
        noise_wide: Noise floor at twice the size, where compression leaves more of the noise.
        whiteness_wide: Whiteness at twice the size.
        fineness: Value of :func:`fineness`; low where fine detail is missing.
        fineness_wide: Fineness over two octaves; low where more than the finest detail is missing.
    """

    height: int
    width: int
    jpeg_quality: int | None
    blockiness: float
    noise: float
    whiteness: float
    noise_wide: float
    whiteness_wide: float
    fineness: float
    fineness_wide: float

    def sentence(self) -> str:
        """Return the figures in words."""
        quality = self.jpeg_quality
        file = "" if quality is None else f", a JPEG of quality {quality}"
        return (
            f"{self.width} x {self.height} px{file}, noise {255 * self.noise:.1f}/255, "
            f"blockiness {self.blockiness:.2f}, "
            f"fine detail {self.fineness:.2f} and {self.fineness_wide:.2f}"
        )


def check_judgeable(height: int, width: int) -> None:
    """Raise :class:`SizeError` unless both sides, in pixels, have :data:`SMALLEST_PX`."""
    if min(height, width) < SMALLEST_PX:
        raise SizeError(f"{width} x {height} px is too small to judge its damage; name a method.")


def damage_statistics(picture: Picture) -> ImageStatistics:
    """Compute the statistics of a picture's damage, without a network.

    Args:
        picture: Picture of at least :data:`SMALLEST_PX` a side.

    Raises:
        SizeError: A side is under :data:`SMALLEST_PX`.
    """
    height, width = picture.size
    check_judgeable(height, width)
    y = picture.pixels[None]
    details = [_local_detail(y, octaves) for octaves in range(3)]
    noise = [
        figure
        for detail, coarser in pairwise(details)
        for figure in (_floor(detail), _whiteness(detail, coarser))
    ]
    figures = map(float, (blockiness_anywhere(y), *noise, fineness(y), fineness(y, octaves=2)))
    return ImageStatistics(height, width, picture.jpeg_quality, *figures)


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
        weights = x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        luma = (x * weights).sum(1, keepdim=True)
    kernel = x.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]]).view(1, 1, 3, 3)
    return F.conv2d(F.pad(luma, (1, 1, 1, 1), mode="reflect"), kernel).flatten(1).var(1)


def noise_floor(y: Images, octaves: int = 0) -> PerImage:
    """Compute the deviation of the finest detail where the image is smoothest.

    The root mean square of the diagonal Haar detail is taken over squares of 32 px; its lowest
    tenth is averaged over the channels. Noise is everywhere and shows in the smooth places too
    (about a tenth under its true deviation), while texture does not.

    Args:
        y: Images, (B, C, H, W), at least 32 px a side.
        octaves: Number of octaves over which pixels are averaged first, scaled so that white
            noise keeps its deviation (default 0).

    Returns:
        Deviations in [0, 1] units, (B,).
    """
    return _floor(_local_detail(y, octaves))


def whiteness(y: Images, octaves: int = 0) -> PerImage:
    """Compute the ratio of the finest diagonal detail to that of twice the size, where smooth.

    White noise has as much detail at every size: 1. The finest texture of photographs still has
    more of the coarser: 0.77 at most in 150 clean photographs, over 0.7 in 98 of 100 of the same
    with noise of 10/255. A JPEG file keeps noise of twice the finest size that it has lost at the
    finest: of 157 training photographs in files of quality 50, 80 and 95, 1, 1 and 3 have 0.65 or
    more there together with a :func:`noise_floor` of 6/255; of the same with noise of 25/255
    before compression 111, 121 and 123, with 10/255 12, 58 and 79.

    Args:
        y: Images, (B, C, H, W), at least 32 px a side.
        octaves: Number of octaves over which pixels are averaged first (default 0).

    Returns:
        Ratios in the smoothest tenth of each image, (B,).
    """
    return _whiteness(_local_detail(y, octaves), _local_detail(y, octaves + 1))


def fineness(y: Images, octaves: int = 1) -> PerImage:
    """Compute the energy of the finest differences over that of coarser ones.

    Differences of neighbours, and of neighbours after averaging, are taken in the mean of the
    channels. Over one octave 157 photographs have 0.32 or more (all but one in a hundred 0.34),
    and 50 of them enlarged by two 0.24 or less; enlarged by four they have 0.32 to 0.49, for the
    next octave is as empty as the finest. Over two octaves that shows: 0.10 or less, as after a
    blur of two pixels, and 0.115 or more if clean.

    Args:
        y: Images, (B, C, H, W), at least ``2 ** (octaves + 1)`` px a side.
        octaves: Number of octaves between the two: averages of ``2 ** octaves`` px a side
            (default 1).

    Returns:
        Ratios, (B,); low in blurred and enlarged images.
    """
    step = 2 ** (octaves + 1)
    height, width = (n // step * step for n in y.shape[-2:])
    luma = y[..., :height, :width].mean(1, keepdim=True)
    fine, coarse = _differences(luma), _differences(F.avg_pool2d(luma, 2**octaves))
    return (fine + 1e-9) / (coarse + 1e-9)


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


def blockiness_anywhere(x: Images, block: int = 8) -> PerImage:
    """Compute the blockiness on the grid that shows it most, whatever its first row and column.

    The grid of a JPEG that was cropped afterwards begins anywhere. The arguments and the result are
    those of :func:`blockiness`; on pictures without blocks the value is a little larger.

    Args:
        x: Images, (B, C, H, W), in [0, 1], at least two blocks a side.
        block: Side of a block in pixels (default 8).
    """
    if min(x.shape[-2:]) < 2 * block:
        return blockiness(x, block)
    best = []
    for dim in (-1, -2):
        steps = _steps(x, dim)
        grids = [torch.stack(_at_borders(steps[:, k:], block)) for k in range(block)]
        at_border, elsewhere = torch.stack(grids, 1)  # Each (block, B).
        k = at_border.argmax(0, keepdim=True)
        best.append((at_border.gather(0, k)[0], elsewhere.gather(0, k)[0]))
    (across, across_elsewhere), (down, down_elsewhere) = best
    return (across + down + 1e-6) / (across_elsewhere + down_elsewhere + 1e-6)


def _floor(detail: Tensor) -> PerImage:
    return detail.quantile(0.1, dim=2).mean(1)


def _whiteness(fine: Tensor, coarse: Tensor) -> PerImage:
    fine, coarse = fine.mean(1), coarse.mean(1)
    smooth = fine.argsort(1)[:, : max(1, fine.shape[1] // 10)]
    return fine.gather(1, smooth).mean(1) / (coarse.gather(1, smooth).mean(1) + 1e-6)


def _local_detail(y: Tensor, octaves: int = 0) -> Tensor:
    """Compute the root mean square of diagonal Haar detail in squares, (B, C, squares).

    The squares have 32 px a side, before averaging over ``octaves``.
    """
    side = 16 >> octaves
    if octaves:
        y = F.avg_pool2d(y, 2**octaves) * 2**octaves
    height, width = (n // (2 * side) * 2 * side for n in y.shape[-2:])
    detail = _diagonal_detail(y[..., :height, :width])
    return F.avg_pool2d(detail.square(), side).sqrt().flatten(2)


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


def _differences(y: Tensor) -> Tensor:
    """Compute the mean squared difference of neighbours in both directions, (B,)."""
    across, down = y[..., 0::2] - y[..., 1::2], y[..., 0::2, :] - y[..., 1::2, :]
    return across.square().mean((1, 2, 3)) + down.square().mean((1, 2, 3))


def _steps(x: Tensor, dim: int) -> Tensor:
    """Compute the mean difference of neighbours along dimension -1 or -2 at each place, (B, n)."""
    return x.diff(dim=dim).abs_().mean((1, -3 - dim))


def _at_borders(steps: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Compute the mean of steps, (B, n), at block borders and elsewhere, each (B,)."""
    at_border = torch.arange(steps.shape[1], device=steps.device) % block == block - 1
    return steps[:, at_border].mean(1), steps[:, ~at_border].mean(1)
