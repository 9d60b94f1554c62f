"""All metrics of a batch at once."""

from __future__ import annotations

from pristina.metrics.fidelity import gmsd, haarpsi, psnr, psnr_after_shift, ssim
from pristina.metrics.noreference import blockiness, noise, sharpness
from pristina.metrics.perceptual import lpips
from pristina.types import PerPicture, Pictures

SHIFT_PX = 8


def measure(restored: Pictures, truth: Pictures | None = None, *, perceptual: bool = False) -> dict[str, PerPicture]:
    """Every metric by name, one number for each picture.

    Args:
        restored: (B, C, H, W), in [0, 1].
        truth: Likewise; None leaves what can be said without it.
        perceptual: LPIPS too (AlexNet), which needs its package and weights.

    Raises:
        InputError: The sizes differ.
        SizeError: The pictures are too small.
        MissingExtra: LPIPS was asked for and cannot be had.

    Example:
        >>> import torch
        >>> list(measure(torch.rand(1, 3, 16, 16)))
        ['sharpness', 'noise', 'blockiness']
    """
    blocks = blockiness(restored)  # first, for it needs the largest picture of the three
    alone = {"sharpness": sharpness(restored), "noise": noise(restored), "blockiness": blocks}
    if truth is None:
        return alone
    found = {name: metric(restored, truth) for name, metric in (("psnr", psnr), ("ssim", ssim), ("haarpsi", haarpsi), ("gmsd", gmsd))}
    if min(truth.shape[-2:]) > 3 * SHIFT_PX:
        found["psnr_after_shift"] = psnr_after_shift(restored, truth, SHIFT_PX)
    if perceptual:
        found["lpips"] = lpips(restored, truth)
    return {**found, **alone}
