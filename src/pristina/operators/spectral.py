"""Singular value decompositions ``A = U S V^T`` of the operators that have a cheap one.

Coefficients ``V^T x`` have the layout of the picture (or of its Fourier transform), and ``U^T y`` is laid out the same, so that singular
value, picture and observation meet position by position. Pictures and observations are in [-1, 1] here.

A blurred picture is not the circular convolution that the Fourier transform diagonalises. So everything happens on a canvas: the
picture continued beyond its border by the operator's own rule. The observation is known inside the canvas only; around it, the blurred
canvas of the present estimate stands in (:meth:`Spectrum.fill`). With the true picture and kernel, the filled canvas is exactly a circular
convolution.

Source:
    Kawar et al. 2022, appendix D (denoising, mask, block mean); Murata et al. 2023, released code (``same_interp``: filling the border).
    Differences: the canvas is as small as the kernel allows instead of the next power of two, and does not depend on the batch; the picture
    is continued by the operator's border rule instead of by zeros; the filled border counts as less certain than what was observed
    (else its errors, divided by small singular values, spoil the picture).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import OperatorError
from pristina.operators.base import Compose, Operator
from pristina.operators.blur import Blur, KernelBlur, VaryingBlur
from pristina.operators.convolve import Boundary, check_fits, convolve
from pristina.operators.mask import Mask
from pristina.operators.noise import Noise
from pristina.operators.resample import Downsample


class Spectrum:
    """``A = U S V^T``; as it stands, of a mask: S is the mask, U and V are the identity.

    Attributes:
        s: Singular values, 0 where nothing is observed; broadcasts against coefficients.
        margin: Pixels by which the canvas is larger than the picture, on each side.
        border: Pixels by which the canvas is larger than what is observed of it, on each side.
    """

    margin = 0
    border = 0

    def __init__(self, s: Tensor):
        self.s = s

    def coefficients(self, x: Tensor) -> Tensor:
        """``V^T x`` of a canvas."""
        return x

    def canvas(self, x_bar: Tensor) -> Tensor:
        """``V x_bar``: the canvas that has these coefficients."""
        return x_bar

    def observed(self, y: Tensor) -> Tensor:
        """``U^T y`` of an observation on the canvas; 0 where s is 0."""
        return torch.where(self.s > 0, y, 0.0)

    def extend(self, x: Tensor) -> Tensor:
        """The picture continued to the canvas."""
        return x

    def fill(self, y: Tensor, x0: Tensor, sigma: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The observation on the canvas, and its noise: ``y`` inside, and around it what the estimate ``x0`` would look like.

        Args:
            y: The observation, (B, C, h, w).
            x0: The estimate, (B, C, H, W).
            sigma: Noise of the observation, (B, 1, 1, 1).
            noise: Unit noise of the canvas, which the filled border gets too.

        Returns:
            The canvas, and the root mean square over it of the noise and of the border's error, (B, 1, 1, 1). That error is taken to be as
            large as what the estimate fails to explain inside, beyond the noise.
        """
        return y, sigma

    def shape(self, x: Tensor) -> tuple[int, int, int]:
        """Channels, height and width of the canvas of these pictures."""
        return x.shape[1], x.shape[2] + 2 * self.margin, x.shape[3] + 2 * self.margin

    def crop(self, canvas: Tensor) -> Tensor:
        """The picture in the canvas."""
        return canvas[_middle(canvas, self.margin)]


class BlockMeanSpectrum(Spectrum):
    """Of the mean over ``factor`` x ``factor`` pixels.

    V is, in each block, the reflection that takes the constant block to its first pixel: ``I - 2 w w^T``, its own inverse. The first
    pixel then holds the mean times ``factor``, and the others everything that the mean does not tell.
    """

    def __init__(self, factor: int, height: int, width: int, device: torch.device):
        self.factor = factor
        s = torch.zeros(1, 1, height, width, device=device)
        s[..., ::factor, ::factor] = 1 / factor
        super().__init__(s)
        w = torch.full((factor, factor), 1 / factor, device=device)
        w[0, 0] -= 1
        self.w = w / w.norm().clamp(min=1e-12)  # a factor of 1 leaves nothing to reflect

    def coefficients(self, x: Tensor) -> Tensor:
        f = self.factor
        blocks = F.pixel_unshuffle(x.flatten(0, 1)[:, None], f)
        w = self.w.flatten().to(x.dtype).view(1, -1, 1, 1)
        return F.pixel_shuffle(blocks - 2 * w * (w * blocks).sum(1, keepdim=True), f).view(x.shape)

    def canvas(self, x_bar: Tensor) -> Tensor:
        return self.coefficients(x_bar)

    def observed(self, y: Tensor) -> Tensor:
        spread = torch.zeros(*y.shape[:2], *self.s.shape[-2:], dtype=y.dtype, device=y.device)
        spread[..., :: self.factor, :: self.factor] = y
        return spread


class BlurSpectrum(Spectrum):
    """Of the convolution with a kernel: V is the inverse Fourier transform, S the modulus of the transfer function, U carries its phase.

    Args:
        kernel: (1, 1, K, K), or (B, 1, K, K) with one for each picture; K odd.
        height: Of the picture.
        width: Of the picture.
        boundary: What lies beyond the border.
        threshold: Singular values below this count as zero.
    """

    def __init__(self, kernel: Tensor, height: int, width: int, boundary: Boundary = "reflect", threshold: float = 0.0):
        half = kernel.shape[-1] // 2
        check_fits(height, width, kernel.shape[-2], kernel.shape[-1], boundary)
        self.boundary: Boundary = boundary
        self.border = 0 if boundary == "circular" else half
        self.margin = 0 if boundary == "valid" else self.border
        self.size = (height + 2 * self.margin, width + 2 * self.margin)
        self.set_kernel(kernel, threshold)

    def set_kernel(self, kernel: Tensor, threshold: float) -> None:
        """Take another kernel of the same size."""
        point = torch.zeros(len(kernel), 1, *self.size, dtype=kernel.dtype, device=kernel.device)
        point[..., 0, 0] = 1
        self.transfer = torch.fft.rfft2(convolve(point, kernel, "circular"))
        s = self.transfer.abs()
        super().__init__(torch.where(s < threshold, 0.0, s))
        self.phase = torch.polar(torch.ones_like(s), self.transfer.angle())

    def coefficients(self, x: Tensor) -> Tensor:
        return torch.fft.rfft2(x, norm="ortho")

    def canvas(self, x_bar: Tensor) -> Tensor:
        return torch.fft.irfft2(x_bar, s=self.size, norm="ortho")

    def observed(self, y: Tensor) -> Tensor:
        return torch.where(self.s > 0, self.phase.conj() * torch.fft.rfft2(y, norm="ortho"), 0.0)

    def blur(self, canvas: Tensor) -> Tensor:
        """The canvas convolved with the kernel, circularly."""
        return torch.fft.irfft2(self.transfer * torch.fft.rfft2(canvas), s=self.size)

    def extend(self, x: Tensor) -> Tensor:
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
        unexplained = ((y - whole[inside]).square().mean((1, 2, 3), keepdim=True) - sigma**2).clamp(min=0)
        share = 1 - y[0, 0].numel() / whole[0, 0].numel()
        whole += sigma * noise
        whole[inside] = y
        return whole, (sigma**2 + share * unexplained).sqrt()


def what_matters(operator: Operator) -> list[Operator]:
    """The parts of an operator that change the mean of a picture: without noise, without the identity, without nesting."""
    if isinstance(operator, Compose):
        return [part for o in operator.parts for part in what_matters(o)]
    return [] if isinstance(operator, Noise) or type(operator) is Operator else [operator]


def spectrum(operator: Operator, height: int, width: int, *, device: torch.device | str = "cpu", threshold: float = 0.0) -> Spectrum:
    """The decomposition of an operator for pictures of this size.

    Args:
        operator: Noise alone, a blur with one kernel, a reduction by block means, or a mask; noise may come on top of each.
        height: Of the picture.
        width: Of the picture.
        device: Where the pictures are.
        threshold: Singular values of a blur below this count as zero.

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
            if isinstance(part, KernelBlur) and (part.kernel().sum((1, 2, 3)) - 1).abs().max() > 1e-3:
                raise OperatorError("The kernel's sum is not 1, and on [-1, 1] such a blur is not linear; divide the kernel by its sum.")
            return BlurSpectrum(part.kernel().detach().to(device), height, width, part.boundary, threshold)
    raise OperatorError(
        f"There is no cheap singular value decomposition of: {operator.describe()}. Take one blur, reduction by area or mask, "
        "with or without noise; or a method that needs none, such as diffpir or dps."
    )


def _middle(canvas: Tensor, border: int) -> tuple[Any, ...]:
    return ..., slice(border, canvas.shape[-2] - border), slice(border, canvas.shape[-1] - border)
