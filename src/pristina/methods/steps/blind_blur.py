"""Estimation of an unknown blur kernel: which blur there was, and Langevin steps on its kernel.

Source:
    Murata et al., "GibbsDDRM", ICML 2023, and its released code. The likelihood compares what was
    observed and nothing else: the border that is filled in for DDRM's update has no part in it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import InputError, OperatorError
from pristina.methods.steps.result import State, check_start
from pristina.operators.base import Observation
from pristina.operators.blur import Blur, FreeKernel, VaryingBlur
from pristina.operators.convolve import normalise
from pristina.operators.spectral import BlurSpectrum, what_matters
from pristina.types import Draw

SOFTEST = 1e-3
"""Share of the largest curvature below which the Langevin step does not grow any more."""

MAX_PATCH_VALUES = 2**22
"""Largest number of values of the patch matrix of one channel that are in memory at a time."""


def blur_of(observation: Observation, method: str, kernel_px: int) -> Blur:
    """Return the one blur of an observation, of which a blind method uses the border rule only.

    Args:
        observation: Blurred images and the form of their degradation.
        method: Name of the method, for error messages.
        kernel_px: Side of the kernel that the method estimates, in pixels.

    Raises:
        OperatorError: There is no blur, there is more than a blur and noise, or the kernel must
            have another size.
    """
    parts = [] if observation.operator is None else what_matters(observation.operator)
    if len(parts) != 1 or not isinstance(parts[0], Blur) or isinstance(parts[0], VaryingBlur):
        raise OperatorError(
            f"{method} is for blur with one unknown kernel, and noise: "
            f"give the operator FreeKernel({kernel_px})."
        )
    if parts[0].boundary == "valid" and parts[0].size != kernel_px:
        raise OperatorError(
            f"With a valid border the kernel's size is known, {parts[0].size} px; "
            f"set kernel_px to it, not to {kernel_px}."
        )
    return parts[0]


def blur_with(kernel: Tensor, blur: Blur) -> FreeKernel:
    """Return ``blur`` with the kernels (B, 1, K, K), their negative entries set to zero."""
    start = normalise(kernel.clamp(min=0))
    return FreeKernel(kernel.shape[-1], boundary=blur.boundary, start=start)


def bump(size: int) -> Tensor:
    """Return the first kernel, (1, 1, size, size): exp(-r / 10) at 64 px, scaled for others."""
    axis = torch.arange(size) - size // 2
    r = (axis[:, None].square() + axis[None].square()).sqrt()
    return normalise((-r * 64 / size / 10).exp()[None, None])


def first_kernel(start: State | None, method: str, kernel: Tensor) -> Tensor:
    """Return the kernels from which a run begins or goes on, (B, 1, K, K).

    Args:
        start: State whose estimate is used, or None.
        method: Name of the method.
        kernel: Kernels of a run without a state, (B, 1, K, K).

    Raises:
        InputError: The state is that of another method, or its kernels have another shape.
    """
    check_start(start)
    if start is None or not isinstance(start.operator, Blur):
        return kernel
    found = start.memory["kernel"] if "kernel" in start.memory else start.operator.kernel()
    if found.shape != kernel.shape:
        raise InputError(
            f"The state holds kernels of shape {tuple(found.shape)}, and {method} needs "
            f"{tuple(kernel.shape)}; start without it, or set kernel_px to {found.shape[-1]}."
        )
    return found.detach().clone()


def canvas_of(space: BlurSpectrum, x: Tensor, kernel_px: int) -> Tensor:
    """Continue images so far that their valid convolution is as large as the observation.

    Args:
        space: Decomposition of the blur.
        x: Images, (B, C, H, W), in [-1, 1].
        kernel_px: Side of the kernel in pixels.
    """
    if space.boundary == "circular":
        return F.pad(x, (kernel_px // 2,) * 4, mode="circular")
    return space.extend(x)


def normal_equations(canvas: Tensor, y: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return ``P P^T`` and ``P y`` of the least squares problem of a kernel, for one image.

    Args:
        canvas: Image with its border, (C, h + size - 1, w + size - 1).
        y: Observation, (C, h, w).
        size: Side of the kernel.

    Returns:
        ``P P^T``, (size^2, size^2), and ``P y``, (size^2, 1), where ``P^T k`` is the valid
        convolution of the canvas with the kernel k.
    """
    height, width = y.shape[-2:]
    n_rows = max(1, MAX_PATCH_VALUES // (size**2 * width))
    square, right = y.new_zeros(size**2, size**2), y.new_zeros(size**2, 1)
    for top in range(0, height, n_rows):
        rows = y[:, top : top + n_rows]
        band = canvas[:, None, top : top + rows.shape[1] + size - 1]
        patches = F.unfold(band, size)
        square += (patches @ patches.mT).sum(0)
        right += (patches @ rows.flatten(1)[..., None]).sum(0)
    # A convolution runs through its kernel backwards.
    return square.flip(0, 1), right.flip(0)


def langevin(
    kernel: Tensor,
    canvas: Tensor,
    y: Tensor,
    sigma: Tensor,
    n: int,
    rate: float,
    weight: float,
    draw: Draw,
) -> Tensor:
    """Sample kernels given the images, with a fixed metric, and scale them to sum 1.

    The density is ``exp(-||y - k * x||^2 / (2 sigma^2) - weight ||k||_1)``. A kernel stays as it
    was where the image has too little contrast to distinguish it from another, or where the sample
    has lost half its sum. Each image is computed by itself, so that none depends on its neighbours.

    Args:
        kernel: Kernels to start from, (B, 1, K, K).
        canvas: Images with their border, (B, C, h + K - 1, w + K - 1).
        y: Observations, (B, C, h, w).
        sigma: Noise, (B, 1, 1, 1), in the units of the images.
        n: Number of iterations ``k <- k - (rate / 2) M gradient + sqrt(rate M) noise``, where M is
            the inverse of the softened curvature.
        rate: Step size, in (0, 2].
        weight: Weight of the absolute sum.
        draw: Source of the noise.
    """
    size = kernel.shape[-1]
    noise = draw.normal(size**2, n)
    return torch.stack(
        [
            _langevin_of_one(k, x, one, float(s), rate, weight, z)
            for k, x, one, s, z in zip(kernel, canvas, y, sigma.flatten(), noise, strict=True)
        ]
    )


def _langevin_of_one(
    kernel: Tensor,
    canvas: Tensor,
    y: Tensor,
    sigma: float,
    rate: float,
    weight: float,
    noise: Tensor,
) -> Tensor:
    size = kernel.shape[-1]
    # The mean colour says nothing about a kernel of sum 1.
    mean = y.mean((1, 2), keepdim=True)
    canvas, y = canvas - mean, y - mean
    # A bound on the largest eigenvalue of R; scale / sigma^2 bounds the likelihood's curvature.
    scale = torch.fft.rfft2(canvas).abs().square().sum(0).amax()
    if not scale > (sigma * size) ** 2:
        return kernel
    # The gradient is (R k - b) / sigma^2 + weight sign(k).
    R, b = normal_equations(canvas, y, size)
    root = torch.linalg.cholesky(R / scale + SOFTEST * torch.eye(size**2, device=y.device))
    M = torch.cholesky_inverse(root) / scale  # times sigma^2
    step = sigma * (rate / scale).sqrt()
    noise = torch.linalg.solve_triangular(root.mT, noise, upper=True) * step
    k = kernel.flatten()[:, None]
    for z in noise.unbind(1):
        gradient = R @ k - b + sigma**2 * weight * k.sign()
        k = k - rate / 2 * (M @ gradient) + z[:, None]
    total = k.sum()
    return (k / total).view(1, size, size) if total > 0.5 else kernel


def langevin_as_released(
    kernel: Tensor,
    canvas: Tensor,
    y: Tensor,
    sigma: Tensor,
    n: int,
    rate: float,
    weight: float,
    draw: Draw,
) -> Tensor:
    """Sample kernels as :func:`langevin` does, without a metric: the released algorithm.

    ``rate`` is the step size for 256 x 256 px and a noise of 0.04 in [-1, 1] units; it changes
    with the number of pixels and with the noise as the likelihood's curvature does.
    """
    size, (height, width) = kernel.shape[-1], canvas.shape[-2:]
    step = rate * 256**2 / (y.shape[-2] * y.shape[-1]) * (sigma / 0.04) ** 2
    noise = draw.normal(n, 1, size, size)
    fx = torch.fft.rfft2(canvas)
    k = kernel
    for i in range(n):
        whole = torch.fft.irfft2(fx * torch.fft.rfft2(k, s=(height, width)), s=(height, width))
        r = F.pad(whole[..., size - 1 :, size - 1 :] - y, (size - 1, 0, size - 1, 0))
        product = (fx.conj() * torch.fft.rfft2(r)).sum(1, keepdim=True)
        correlation = torch.fft.irfft2(product, s=(height, width))[..., :size, :size]
        gradient = correlation / sigma**2 + weight * k.sign()
        k = k - step / 2 * gradient + step.sqrt() * noise[:, i]
    total = k.sum((2, 3), keepdim=True)
    return torch.where(total > 0.5, k / torch.where(total > 0.5, total, 1.0), kernel)
