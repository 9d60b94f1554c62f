"""Metrics of estimated blur kernels.

Blind deblurring cannot tell where a kernel lies in its window, so shifts are not counted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pristina.errors import InputError
from pristina.types import PerImage


def kernel_correlation(estimated: Tensor, true: Tensor) -> PerImage:
    """Compute the largest normalised cross-correlation of two kernels over all shifts.

    Args:
        estimated: Estimated kernels, (B, h, w).
        true: True kernels, (B, k, l); the two may differ in size.

    Returns:
        Correlation of each pair, (B,); 1 for equal kernels, wherever they lie.

    Raises:
        InputError: A kernel is zero, or the batches differ.

    Source:
        Hu and Yang 2012, "Good regions to deblur", equation 3; no mean is subtracted.

    Example:
        >>> import torch
        >>> k = torch.zeros(1, 5, 5)
        >>> k[0, 1, 1:4] = 1 / 3
        >>> shifted = k.roll(2, 1)
        >>> [round(float(f(k, shifted)), 4) for f in (kernel_correlation, kernel_error)]
        [1.0, 0.0]
    """
    a, b = _checked(estimated, true)
    return (_best_overlap(a, b) / (a.flatten(1).norm(dim=1) * b.flatten(1).norm(dim=1))).float()


def kernel_error(estimated: Tensor, true: Tensor) -> PerImage:
    """Compute ``||k - k_true|| / ||k_true||`` at the shift at which it is smallest.

    Both kernels are scaled to sum 1 first.

    Args:
        estimated: Estimated kernels, (B, h, w).
        true: True kernels, (B, k, l); the two may differ in size.

    Returns:
        Error of each pair, (B,).

    Raises:
        InputError: A kernel is zero or sums to zero, or the batches differ.
    """
    a, b = _checked(estimated, true)
    sums = a.sum((1, 2)), b.sum((1, 2))
    if any((s.abs() < 1e-12).any() for s in sums):
        raise InputError("A kernel that sums to zero cannot be scaled to sum 1.")
    a, b = (k / s.view(-1, 1, 1) for k, s in zip((a, b), sums, strict=True))
    square = b.square().sum((1, 2))
    least = (a.square().sum((1, 2)) + square - 2 * _best_overlap(a, b)).clamp(min=0)
    return (least / square).sqrt().float()


def _checked(estimated: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    for k in (estimated, true):
        if k.ndim != 3 or not (k.flatten(1) != 0).any(1).all():
            raise InputError(
                "Kernels must be (batch, height, width) and not all zero; "
                f"these are {tuple(k.shape)}."
            )
    if len(estimated) != len(true):
        raise InputError(
            f"{len(estimated)} estimated kernels do not go with {len(true)} true ones."
        )
    return estimated.detach().double(), true.detach().double()


def _best_overlap(a: Tensor, b: Tensor) -> Tensor:
    """Return the largest sum over pixels of a(x) b(x + s), over all shifts s, (B,)."""
    size = [a.shape[i] + b.shape[i] - 1 for i in (1, 2)]
    spectrum = torch.fft.rfft2(a, size).conj() * torch.fft.rfft2(b, size)
    return torch.fft.irfft2(spectrum, size).amax((1, 2))
