"""Convolution of images with kernels, with an explicit rule for what lies beyond the border.

``y[p] = sum over q of k[q] x[p - q]``, with ``q = 0`` at the middle of the odd-sized kernel, so
that the kernel is the image of a point of light. (Neural networks call convolution what is
correlation: there the kernel is rotated by 180 degrees.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import OperatorError, SettingError
from pristina.image.tile import give_back
from pristina.types import Images

Boundary = Literal["reflect", "circular", "zero", "valid"]
"""Rule beyond the border: ``reflect`` mirrors the image about its outermost pixels, ``circular``
repeats it, ``zero`` continues it with black, and ``valid`` assumes nothing: the result is
smaller."""

Pad = Callable[[Tensor], Tensor]
"""Continuation of images (B, H, W) or (B, C, H, W) beyond their border."""

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
    if boundary == "circular":
        return _circular(x, kernel)
    around = (width // 2, width // 2, height // 2, height // 2)
    sides, pad = (x.shape[-2] + height - 1, x.shape[-1] + width - 1), _unchanged
    if boundary == "valid":
        sides = (x.shape[-2], x.shape[-1])
    else:
        mode = "constant" if boundary == "zero" else boundary
        pad = partial(F.pad, pad=around, mode=mode)
    # From kernels of 5 x 5 px on, the FFT is 3 to 10 times faster than the direct sum.
    size = (fast_size(sides[0]), fast_size(sides[1]))
    # Only the first K - 1 rows and columns have wrapped around.
    kept = (..., slice(height - 1, sides[0]), slice(width - 1, sides[1]))
    return _multiply(x, kernel, size, kept, pad)


def _unchanged(x: Tensor) -> Tensor:
    return x


def _circular(x: Tensor, kernel: Tensor) -> Tensor:
    """Return the convolution of an image that repeats."""
    height, width = x.shape[-2:]
    middle = (kernel.shape[-2] // 2, kernel.shape[-1] // 2)
    kernel = _period(_period(kernel, -2, height), -1, width).roll(
        (-middle[0], -middle[1]), (-2, -1)
    )
    return _multiply(x, kernel, (height, width), ..., _unchanged)


def _multiply(x: Tensor, kernel: Tensor, size: tuple[int, int], kept: Any, pad: Pad) -> Tensor:
    """Return the part ``kept`` of the convolution of padded images on a torus of this size."""
    if size[0] * size[1] <= LARGE:
        return _product(pad(x), kernel, size)[kept]
    found: Tensor = _ChannelByChannel.apply(x, kernel, size, kept, pad)
    return found


def _product(x: Tensor, kernel: Tensor, size: tuple[int, int], *, turned: bool = False) -> Tensor:
    """Convolve on a torus of this size, with kernels turned by 180 degrees on request."""
    factor = torch.fft.rfft2(kernel, s=size)
    return torch.fft.irfft2(
        torch.fft.rfft2(x, s=size) * (factor.conj() if turned else factor), s=size
    )


class _ChannelByChannel(torch.autograd.Function):
    """Convolution of large images: at any time there are the spectra of one channel only.

    For its gradient it keeps the images where that of the kernel is asked for, and nothing else.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernel: Tensor, size: tuple[int, int], kept: Any, pad: Pad
    ) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, kernel)
        ctx.shape, ctx.size, ctx.kept, ctx.pad = x.shape, size, kept, pad
        images = []
        for one in x.unbind(1):
            images.append(_product(pad(one), kernel[:, 0], size)[kept].clone())
            give_back(x)
        return torch.stack(images, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel = ctx.saved_tensors
        of_x, of_kernel = [], torch.zeros_like(kernel[:, 0])
        for i, one in enumerate(gradient.unbind(1)):
            spread = one.new_zeros(len(one), *ctx.size)
            spread[ctx.kept] = one
            if ctx.needs_input_grad[0]:
                of_padded = _product(spread, kernel[:, 0], ctx.size, turned=True)
                of_x.append(_unpadded(of_padded, ctx.pad, (len(one), *ctx.shape[-2:])))
            if ctx.needs_input_grad[1]:
                every = _product(spread, ctx.pad(x[:, i]), ctx.size, turned=True)
                every = every[..., : kernel.shape[-2], : kernel.shape[-1]]
                of_kernel = of_kernel + (every if len(kernel) > 1 else every.sum(0, keepdim=True))
            give_back(gradient)
        return torch.stack(of_x, 1) if of_x else None, of_kernel[:, None], None, None, None


def _unpadded(gradient: Tensor, pad: Pad, shape: tuple[int, ...]) -> Tensor:
    """Return the gradient of images of a shape from that of the padded ones, at least as large."""
    differentiated = torch.is_grad_enabled()
    with torch.enable_grad():
        x = gradient.new_zeros(shape).requires_grad_()
        padded = pad(x)
        part = gradient[..., : padded.shape[-2], : padded.shape[-1]]
        (found,) = torch.autograd.grad(padded, x, part, create_graph=differentiated)
    return found


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
