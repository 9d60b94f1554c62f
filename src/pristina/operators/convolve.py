"""Convolution of images with kernels, with an explicit rule for what lies beyond the border.

``y[p] = sum over q of k[q] x[p - q]``, with ``q = 0`` at the middle of the odd-sized kernel, so
that the kernel is the image of a point of light. (Neural networks call convolution what is
correlation: there the kernel is rotated by 180 degrees.)
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import OperatorError, SettingError
from pristina.image.tile import lean
from pristina.types import Images

Boundary = Literal["reflect", "circular", "zero", "valid"]
"""Rule beyond the border: ``reflect`` mirrors the image about its outermost pixels, ``circular``
repeats it, ``zero`` continues it with black, and ``valid`` assumes nothing: the result is
smaller."""

LARGE = 2**18
"""Number of pixels of a picture above which memory counts more than time."""

Kernels = Float[Tensor, "kernels 1 kernel_height kernel_width"]
"""One kernel for all images of a batch, or one for each."""


def check_boundary(boundary: str) -> None:
    """Raise :class:`SettingError` unless ``boundary`` is a known rule."""
    if boundary not in get_args(Boundary):
        raise SettingError(
            f"boundary must be one of {', '.join(get_args(Boundary))}; not {boundary!r}."
        )


def check_kernel_size(size: int) -> None:
    """Raise :class:`SettingError` unless ``size`` is odd and at least 1."""
    if size < 1 or size % 2 == 0:
        raise SettingError(
            "A kernel must have an odd size of at least 1, so that it has a middle, "
            f"not {size}; take {max(1, size - 1)}."
        )


def check_fits(
    height: int, width: int, kernel_height: int, kernel_width: int, boundary: str
) -> None:
    """Raise :class:`OperatorError` if the kernel is too large for an image of this size."""
    if boundary == "valid":
        fits = kernel_height <= height and kernel_width <= width
        most = min(height, width)
    else:
        fits = kernel_height // 2 < height and kernel_width // 2 < width
        most = 2 * min(height, width) - 1
    if not fits:
        raise OperatorError(
            f"A {kernel_width} x {kernel_height} px kernel is too large for "
            f"a {width} x {height} px image with the {boundary} border; "
            f"take a kernel of at most {most - 1 + most % 2} px a side."
        )


def convolve(
    x: Images, kernel: Tensor, boundary: Boundary = "reflect"
) -> Float[Tensor, "batch channel result_height result_width"]:
    """Convolve each image with its kernel; differentiable in both.

    Args:
        x: Images, (B, C, H, W).
        kernel: One kernel for all images, (1, 1, K, L), or one for each, (B, 1, K, L); K and L
            odd. Every channel is convolved with the same kernel.
        boundary: Rule beyond the border, see :data:`Boundary`.

    Returns:
        (B, C, H, W); (B, C, H - K + 1, W - L + 1) for ``valid``.

    Raises:
        OperatorError: The kernel has another shape, or is too large for the image.
        SettingError: The kernel has an even side, or the rule is unknown.

    Example:
        >>> import torch
        >>> point = torch.zeros(1, 1, 3, 5); point[..., 1, 2] = 1
        >>> kernel = torch.tensor([[[[0.0, 0, 0], [0.1, 0.6, 0.3], [0, 0, 0]]]])
        >>> [round(abs(v), 1) for v in convolve(point, kernel)[0, 0, 1].tolist()]
        [0.0, 0.1, 0.6, 0.3, 0.0]
    """
    check_boundary(boundary)
    if kernel.ndim != 4 or kernel.shape[1] != 1 or len(kernel) not in (1, len(x)):
        raise OperatorError(
            f"{len(x)} images need kernels of shape (1 or {len(x)}, 1, K, K), "
            f"not {tuple(kernel.shape)}."
        )
    height, width = kernel.shape[-2:]
    check_kernel_size(height)
    check_kernel_size(width)
    check_fits(x.shape[-2], x.shape[-1], height, width, boundary)
    around = (width // 2, width // 2, height // 2, height // 2)
    if boundary == "circular":
        return _circular(x, kernel)
    if boundary != "valid":
        x = F.pad(x, around, mode="constant" if boundary == "zero" else boundary)
    return _valid(x, kernel)


def _valid(x: Tensor, kernel: Tensor) -> Tensor:
    """Return the part of the convolution that does not depend on what lies beyond the border."""
    height, width = x.shape[-2:]
    # From kernels of 5 x 5 px on, the FFT is 3 to 10 times faster than the direct sum.
    size = (fast_size(height), fast_size(width))
    # Only the first K - 1 rows and columns have wrapped around.
    kept = (..., slice(kernel.shape[-2] - 1, height), slice(kernel.shape[-1] - 1, width))
    return _multiply(x, kernel, size, kept)


def _circular(x: Tensor, kernel: Tensor) -> Tensor:
    """Return the convolution of an image that repeats."""
    height, width = x.shape[-2:]
    middle = (kernel.shape[-2] // 2, kernel.shape[-1] // 2)
    kernel = _period(_period(kernel, -2, height), -1, width).roll(
        (-middle[0], -middle[1]), (-2, -1)
    )
    return _multiply(x, kernel, (height, width), ...)


def _multiply(x: Tensor, kernel: Tensor, size: tuple[int, int], kept: Any) -> Tensor:
    """Return the part ``kept`` of the convolution on a torus of this size.

    A large picture goes through it one channel at a time, and its spectra are not kept for the
    gradient: they take several times its memory.
    """

    def convolved(x: Tensor, factor: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x, s=size) * factor, s=size)[kept]

    spectrum = torch.fft.rfft2(kernel, s=size)
    if size[0] * size[1] <= LARGE:
        return convolved(x, spectrum)
    factors = spectrum.expand(*x.shape[:2], -1, -1).unbind(1)
    channels = zip(x.unbind(1), factors, strict=True)
    return torch.stack([lean(partial(convolved, factor=k))(channel) for channel, k in channels], 1)


def _period(kernel: Tensor, axis: int, n: int) -> Tensor:
    """Fold a kernel, or pad it with zeros, to one period of ``n`` pixels along ``axis``."""
    missing = -kernel.shape[axis] % n
    kernel = F.pad(kernel, (0, 0, 0, missing) if axis == -2 else (0, missing))
    return torch.stack(kernel.split(n, axis)).sum(0)


def fast_size(n: int) -> int:
    """Return the smallest length of at least ``n`` that has no prime factor above 5."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def normalise(kernel: Kernels) -> Kernels:
    """Divide each kernel by its sum, so that it preserves the brightness."""
    return kernel / kernel.sum((-2, -1), keepdim=True)


def centre(kernel: Kernels) -> tuple[Kernels, Int[Tensor, "kernels 2"]]:
    """Move the centre of mass of kernels to the middle pixel.

    A blurred image determines image and kernel only up to a shift of one against the other. The
    centred kernel goes with the image moved by the same ``shift_px``:
    ``torch.roll(x, shift_px, (-2, -1))``.

    Args:
        kernel: Kernels, (B, 1, K, K), not negative.

    Returns:
        Kernels moved by whole pixels (what leaves the frame is lost, and the sum restored), and
        the rounded offsets (dy, dx) of their centres of mass from the middle before, (B, 2), long.
    """
    height, width = kernel.shape[-2:]
    weight = normalise(kernel.detach())
    rows = torch.arange(height, dtype=kernel.dtype, device=kernel.device) - height // 2
    columns = torch.arange(width, dtype=kernel.dtype, device=kernel.device) - width // 2
    offset = torch.stack(
        [(weight.sum((1, 3)) * rows).sum(1), (weight.sum((1, 2)) * columns).sum(1)], 1
    )
    shift = offset.round().long()
    moved = []
    for k, (dy, dx) in zip(kernel, shift.tolist(), strict=True):
        across = F.pad(k, (max(0, -dx), max(0, dx), max(0, -dy), max(0, dy)))
        moved.append(across[..., max(0, dy) : max(0, dy) + height, max(0, dx) : max(0, dx) + width])
    centred = torch.stack(moved)
    return normalise(centred) * kernel.sum((-2, -1), keepdim=True), shift
