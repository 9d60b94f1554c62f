"""How good an estimated blur kernel is. Where a kernel lies in its window is open in blind deblurring, so shifts do not count."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from pristina.errors import InputError
from pristina.types import PerPicture

Kernels = Float[Tensor, "batch height width"]


def kernel_correlation(estimated: Kernels, true: Kernels) -> PerPicture:
    """The greatest normalised cross-correlation over all shifts, (B,); 1 for the same kernel, wherever it lies.

    Args:
        estimated: (B, h, w); the two may differ in size.
        true: (B, h, w).

    Raises:
        InputError: A kernel is zero, or the batches differ.

    Source:
        Hu and Yang 2012, "Good regions to deblur", equation 3; no mean is subtracted.

    Example:
        >>> import torch
        >>> k = torch.zeros(1, 5, 5)
        >>> k[0, 1, 1:4] = 1 / 3
        >>> [round(float(v), 4) for v in (kernel_correlation(k, k.roll(2, 1)), kernel_error(k, k.roll(2, 1)))]
        [1.0, 0.0]
    """
    a, b = _checked(estimated), _checked(true)
    if len(a) != len(b):
        raise InputError(f"{len(a)} estimated kernels do not go with {len(b)} true ones.")
    return (_best_overlap(a, b) / (a.flatten(1).norm(dim=1) * b.flatten(1).norm(dim=1))).float()


def kernel_error(estimated: Kernels, true: Kernels) -> PerPicture:
    """``||k - k_true|| / ||k_true||`` at the shift where it is least, (B,), both kernels brought to sum 1 first.

    Args:
        estimated: (B, h, w); the two may differ in size.
        true: (B, h, w).

    Raises:
        InputError: A kernel is zero or sums to zero, or the batches differ.
    """
    a, b = _checked(estimated), _checked(true)
    if len(a) != len(b):
        raise InputError(f"{len(a)} estimated kernels do not go with {len(b)} true ones.")
    sums = a.sum((1, 2)), b.sum((1, 2))
    if any((s.abs() < 1e-12).any() for s in sums):
        raise InputError("A kernel that sums to zero cannot be brought to sum 1.")
    a, b = (k / s.view(-1, 1, 1) for k, s in zip((a, b), sums, strict=True))
    square = b.square().sum((1, 2))
    least = (a.square().sum((1, 2)) + square - 2 * _best_overlap(a, b)).clamp(min=0)
    return (least / square).sqrt().float()


def _checked(k: Tensor) -> Tensor:
    if k.ndim != 3 or not (k.flatten(1) != 0).any(1).all():
        raise InputError(f"Kernels are (batch, height, width) and not all zero; these are {tuple(k.shape)}.")
    return k.detach().double()


def _best_overlap(a: Tensor, b: Tensor) -> Tensor:
    """The greatest sum over pixels of a(x) b(x + s), over all shifts s, (B,)."""
    size = [a.shape[i] + b.shape[i] - 1 for i in (1, 2)]
    return torch.fft.irfft2(torch.fft.rfft2(a, size).conj() * torch.fft.rfft2(b, size), size).amax((1, 2))
