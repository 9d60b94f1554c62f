"""Singular value decompositions ``A = U S V^T`` of the operators that have a cheap one.

Coefficients ``V^T x`` have the layout of the image (or of its Fourier transform), and so has
``U^T y``: singular value, image and observation correspond position by position. Images and
observations are in [-1, 1] here.

A blurred image is not the circular convolution that the Fourier transform diagonalises.
Everything therefore happens on a canvas: the image continued beyond its border by the operator's
own rule. The observation is known only inside the canvas; around it, the blurred canvas of the
current estimate takes its place (:meth:`Spectrum.fill`). With the true image and kernel, the
filled canvas is exactly a circular convolution.

Source:
    Kawar et al. 2022, appendix D (denoising, mask, block mean); Murata et al. 2023, released code
    (``same_interp``: filling the border). Differences: the canvas is as small as the kernel allows
    instead of the next power of two, and does not depend on the batch; the image is continued by
    the operator's border rule instead of by zeros; the filled border counts as less certain than
    what was observed (otherwise its errors, divided by small singular values, spoil the image).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import OperatorError
from pristina.operators.base import Compose, Observed, Operator
from pristina.operators.blur import Blur, KernelBlur, VaryingBlur
from pristina.operators.convolve import Boundary, Kernels, check_fits, convolve
from pristina.operators.mask import Mask
from pristina.operators.noise import Noise
from pristina.operators.resample import Downsample
from pristina.types import Images


class Spectrum:
    """Decomposition ``A = U S V^T``; this class is that of a mask, with S the mask and U = V = I.

    Args:
        s: Singular values, 0 where nothing is observed; broadcasts against coefficients.

    Attributes:
        s: Singular values.
        margin: Pixels by which the canvas is larger than the image, on each side.
        border: Pixels by which the canvas is larger than what is observed of it, on each side.
    """

    margin = 0
    border = 0

    def __init__(self, s: Tensor):
        self.s = s

    def coefficients(self, x: Images) -> Tensor:
        """Compute the coefficients ``V^T x`` of a canvas."""
        return x

    def canvas(self, x_bar: Tensor) -> Images:
        """Compute the canvas ``V x_bar`` that has these coefficients."""
        return x_bar

    def observed(self, y: Observed) -> Tensor:
        """Compute ``U^T y`` of an observation on the canvas; 0 where s is 0."""
        return torch.where(self.s > 0, y, 0.0)

    def extend(self, x: Images) -> Tensor:
        """Continue images to the canvas."""
        return x

    def fill(self, y: Tensor, x0: Tensor, sigma: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Extend an observation to the canvas by what the estimate ``x0`` predicts around it.

        Args:
            y: Observation, (B, C, h, w).
            x0: Estimate of the image, (B, C, H, W).
            sigma: Standard deviation of the observation's noise, (B, 1, 1, 1).
            noise: Unit noise of the size of the canvas, which the filled border receives too.

        Returns:
            The filled canvas, and the root mean square over it of the noise and of the border's
            error, (B, 1, 1, 1). That error is taken to be as large as what the estimate fails to
            explain inside, beyond the noise.
        """
        return y, sigma

    def shape(self, x: Images) -> tuple[int, int, int]:
        """Return channels, height and width of the canvas of these images."""
        return x.shape[1], x.shape[2] + 2 * self.margin, x.shape[3] + 2 * self.margin

    def crop(self, canvas: Images) -> Tensor:
        """Cut the images out of their canvas."""
        return canvas[_middle(canvas, self.margin)]


class BlockMeanSpectrum(Spectrum):
    """Decomposition of the mean over ``factor`` x ``factor`` pixels.

    V is, in each block, the reflection that maps the constant block to its first pixel:
    ``I - 2 w w^T``, its own inverse. The first pixel then holds the mean times ``factor``, and the
    others everything that does not affect the mean.

    Args:
        factor: Side of the blocks, px.
        height: Height of the image, px.
        width: Width of the image, px.
        device: Device of the singular values.
    """

    def __init__(self, factor: int, height: int, width: int, device: torch.device):
        self.factor = factor
        s = torch.zeros(1, 1, height, width, device=device)
        s[..., ::factor, ::factor] = 1 / factor
        super().__init__(s)
        w = torch.full((factor, factor), 1 / factor, device=device)
        w[0, 0] -= 1
        self.w = w / w.norm().clamp(min=1e-12)  # a factor of 1 leaves nothing to reflect

    def coefficients(self, x: Images) -> Images:
        f = self.factor
        blocks = F.pixel_unshuffle(x.flatten(0, 1)[:, None], f)
        w = self.w.flatten().to(x.dtype).view(1, -1, 1, 1)
        return F.pixel_shuffle(blocks - 2 * w * (w * blocks).sum(1, keepdim=True), f).view(x.shape)

    def canvas(self, x_bar: Tensor) -> Images:
        return self.coefficients(x_bar)

    def observed(self, y: Observed) -> Tensor:
        shape = (*y.shape[:2], *self.s.shape[-2:])
        firsts = torch.zeros(shape, dtype=y.dtype, device=y.device)
        firsts[..., :: self.factor, :: self.factor] = y
        return firsts


class BlurSpectrum(Spectrum):
    """Decomposition of the convolution with a kernel.

    V is the inverse Fourier transform, S the modulus of the transfer function, and U carries its
    phase.

    Args:
        kernel: One kernel for all images, (1, 1, K, K), or one for each, (B, 1, K, K); K odd.
        height: Height of the image, px.
        width: Width of the image, px.
        boundary: Rule beyond the border.
        threshold: Bound below which singular values count as zero.
    """

    def __init__(
        self,
        kernel: Kernels,
        height: int,
        width: int,
        boundary: Boundary = "reflect",
        threshold: float = 0.0,
    ):
        half = kernel.shape[-1] // 2
        check_fits(height, width, kernel.shape[-2], kernel.shape[-1], boundary)
        self.boundary: Boundary = boundary
        self.border = 0 if boundary == "circular" else half
        self.margin = 0 if boundary == "valid" else self.border
        self.size = (height + 2 * self.margin, width + 2 * self.margin)
        self.set_kernel(kernel, threshold)

    def set_kernel(self, kernel: Kernels, threshold: float) -> None:
        """Replace the kernel by another one of the same size."""
        point = torch.zeros(len(kernel), 1, *self.size, dtype=kernel.dtype, device=kernel.device)
        point[..., 0, 0] = 1
        self.transfer = torch.fft.rfft2(convolve(point, kernel, "circular"))
        s = self.transfer.abs()
        super().__init__(torch.where(s < threshold, 0.0, s))
        self.phase = torch.polar(torch.ones_like(s), self.transfer.angle())

    def coefficients(self, x: Images) -> Tensor:
        return torch.fft.rfft2(x, norm="ortho")

    def canvas(self, x_bar: Tensor) -> Images:
        return torch.fft.irfft2(x_bar, s=self.size, norm="ortho")

    def observed(self, y: Observed) -> Tensor:
        return torch.where(self.s > 0, self.phase.conj() * torch.fft.rfft2(y, norm="ortho"), 0.0)

    def blur(self, canvas: Images) -> Images:
        """Convolve the canvas with the kernel, circularly."""
        return torch.fft.irfft2(self.transfer * torch.fft.rfft2(canvas), s=self.size)

    def extend(self, x: Images) -> Tensor:
        if not self.margin:
            return x
        if self.boundary == "zero":
            return F.pad(x, (self.margin,) * 4, value=-1.0)  # black
        return F.pad(x, (self.margin,) * 4, mode="reflect")

    def fill(self, y: Tensor, x0: Tensor, sigma: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        if not self.border:
            return y, sigma
        whole = self.blur(self.extend(x0))
        inside = _middle(whole, self.border)
        error = (y - whole[inside]).square().mean((1, 2, 3), keepdim=True)
        unexplained = (error - sigma**2).clamp(min=0)
        share = 1 - y[0, 0].numel() / whole[0, 0].numel()
        whole += sigma * noise
        whole[inside] = y
        return whole, (sigma**2 + share * unexplained).sqrt()


def what_matters(operator: Operator) -> list[Operator]:
    """List the parts of an operator that change the mean of an image.

    Noise and identities are left out, and compositions are flattened.
    """
    if isinstance(operator, Compose):
        return [part for o in operator.parts for part in what_matters(o)]
    return [] if isinstance(operator, Noise) or type(operator) is Operator else [operator]


def spectrum(
    operator: Operator,
    height: int,
    width: int,
    *,
    device: torch.device | str = "cpu",
    threshold: float = 0.0,
) -> Spectrum:
    """Return the decomposition of an operator for images of this size.

    Args:
        operator: Noise alone, a blur with one kernel, a reduction by block means, or a mask; each
            may be followed by noise.
        height: Height of the image, px.
        width: Width of the image, px.
        device: Device of the images.
        threshold: Bound below which singular values of a blur count as zero.

    Raises:
        OperatorError: No cheap decomposition is known, or a given kernel changes the brightness.

    Example:
        >>> from pristina.operators.mask import Mask
        >>> spectrum(Mask(box=2), 4, 4).s[0, 0].sum(1).tolist()
        [4.0, 2.0, 2.0, 4.0]
    """
    parts = what_matters(operator)
    if not parts:
        return Spectrum(torch.ones(1, 1, 1, 1, device=device))
    part = parts[0]
    if len(parts) == 1:
        if isinstance(part, Mask):
            return Spectrum(part.mask(height, width).to(device))
        if isinstance(part, Downsample) and part.how == "area":
            return BlockMeanSpectrum(part.factor, height, width, torch.device(device))
        if isinstance(part, Blur) and not isinstance(part, VaryingBlur):
            if isinstance(part, KernelBlur):
                _check_sum(part.kernel())
            kernel = part.kernel().detach().to(device)
            return BlurSpectrum(kernel, height, width, part.boundary, threshold)
    raise OperatorError(
        f"There is no cheap singular value decomposition of: {operator.describe()}. "
        "Take one blur, reduction by area or mask, with or without noise; "
        "or a method that needs none, such as diffpir or dps."
    )


def _check_sum(kernel: Kernels) -> None:
    if (kernel.sum((1, 2, 3)) - 1).abs().max() > 1e-3:
        raise OperatorError(
            "The kernel's sum is not 1, and on [-1, 1] such a blur is not linear; "
            "divide the kernel by its sum."
        )


def _middle(canvas: Tensor, border: int) -> tuple[Any, ...]:
    rows = slice(border, canvas.shape[-2] - border)
    return ..., rows, slice(border, canvas.shape[-1] - border)
