"""Wiener solutions of a convolution: linear and quick, a start for what knows the kernel.

Glossary:
    y: observation, k * x + noise.
    k: kernel.
    canvas: picture continued by half a kernel on every side, all that the observation depends on.

Source:
    Wiener's filter under the spectrum of natural images, ``sigma^2 / S(f)`` with ``S`` in inverse
    proportion to the square of the frequency. What lies beyond the border is unknown and is filled
    in turns with what the present solution predicts there, as in the maximisation-minimisation
    of Almeida and Figueiredo, "Deconvolving images with unknown boundaries", 2013.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from pristina.operators.base import Observed
from pristina.operators.convolve import Boundary, Kernels, convolve, fast_size

__all__ = ["FACTORS", "laplacian", "on_canvas", "wiener"]

FACTORS = (0.2, 1.0, 10.0)
"""Regularisations: multiples of the noise's variance over that of the pictures' gradients."""

GRADIENT_VARIANCE = 0.005
"""Typical variance of the differences between neighbouring pixels, both directions together."""

LEAST_SIGMA = 0.3 / 255
"""Least noise level that is assumed: that of rounding to 8 bits."""

ROUNDS = 6
"""Number of times that the border is filled."""


class _Canvas:
    """An observation on its canvas, what is unknown of it filled in turns.

    With ``circular`` the canvas is the picture. With every other rule what lies beyond the border
    is unknown, and the canvas is as much larger as lets it repeat without any effect on what was
    observed.

    Args:
        y: Observation, (B, C, h, w).
        kernel: Kernel, (1 or B, 1, K, K), K odd.
        boundary: Rule beyond the border.

    Attributes:
        size: Height and width of the canvas.
        y: The observation on the canvas, (B, C, *size).
        transfer: Fourier transform of the kernel.
        power: Square of its absolute value.
    """

    def __init__(self, y: Tensor, kernel: Tensor, boundary: Boundary):
        height, width = y.shape[-2:]
        circular = boundary == "circular"
        above, left = (0, 0) if circular else (n // 2 for n in kernel.shape[-2:])
        self.whole = (height + 2 * above, width + 2 * left)
        self.size = self.whole if circular else (fast_size(self.whole[0]), fast_size(self.whole[1]))
        self.inside = (..., slice(above, above + height), slice(left, left + width))
        self.observed = y
        self.y = y if circular else on_canvas(y, above, left, self.size)
        point = torch.zeros(len(kernel), 1, *self.size, dtype=y.dtype, device=y.device)
        point[..., 0, 0] = 1
        self.transfer = torch.fft.rfft2(convolve(point, kernel.to(y), "circular"))
        self.power = self.transfer.real.square() + self.transfer.imag.square()

    def fill(self, x: Tensor) -> None:
        """Fill what was not observed with what an estimate predicts.

        Args:
            x: Fourier transform of the estimate of the canvas.
        """
        if self.whole == tuple(self.observed.shape[-2:]):
            return
        self.y = torch.fft.irfft2(self.transfer * x, s=self.size)
        self.y[self.inside] = self.observed

    def solve(self, weight: Tensor) -> Tensor:
        """Minimise ``||y - k * x||^2 + weight ||x||^2``, frequency by frequency.

        Args:
            weight: Weight of each frequency.

        Returns:
            The Fourier transform of the solution.
        """
        data = self.transfer.conj() * torch.fft.rfft2(self.y)
        return data / (self.power + weight + 1e-8)

    def image(self, x: Tensor) -> Tensor:
        """Return what the observation depends on, (B, C, h + K - 1, w + K - 1).

        Args:
            x: Fourier transform of the canvas.
        """
        return torch.fft.irfft2(x, s=self.size)[..., : self.whole[0], : self.whole[1]]


def _noise_penalty(sigma: Float[Tensor, " batch"], size: tuple[int, int]) -> Tensor:
    """Return the noise's variance over the spectrum of natural pictures, frequency by frequency."""
    variance = sigma.view(-1, 1, 1, 1).clamp(min=LEAST_SIGMA).square()
    return variance / GRADIENT_VARIANCE * laplacian(size, sigma)


@torch.no_grad()
def wiener(
    y: Observed,
    kernel: Kernels,
    sigma: Float[Tensor, " batch"],
    boundary: Boundary = "reflect",
    factors: tuple[float, ...] = FACTORS,
    rounds: int = ROUNDS,
) -> Float[Tensor, "batch factors channel height width"]:
    """Compute the Wiener solutions of a convolution at several regularisations.

    Args:
        y: Observation, (B, C, h, w), in [0, 1].
        kernel: Kernel, (1 or B, 1, K, K), of sum 1, K odd.
        sigma: Standard deviation of the noise of each image, (B,), in [0, 1] units.
        boundary: Rule beyond the border. ``circular`` is solved exactly; no other rule is used:
            what lies beyond is unknown.
        factors: Multiples of the regularisation.
        rounds: Number of times that the unknown border is filled.

    Returns:
        Solutions on the canvas, (B, F, C, h + K - 1, w + K - 1); of the size of ``y`` for
        ``circular``. They are not clipped.

    Example:
        >>> point = torch.zeros(1, 1, 16, 16); point[..., 8, 8] = 1
        >>> kernel = torch.full((1, 1, 1, 3), 1 / 3)
        >>> y = convolve(point, kernel, "circular")
        >>> x = wiener(y, kernel, torch.zeros(1), "circular")
        >>> bool((x[0, 0] - point[0]).abs().max() < 0.1), x.shape[-2:]
        (True, torch.Size([16, 16]))
    """
    canvas = _Canvas(y, kernel, boundary)
    penalty = _noise_penalty(sigma.to(y), canvas.size)
    for _ in range(rounds):
        canvas.fill(canvas.solve(penalty))
    solved = [canvas.image(canvas.solve(f * penalty)) for f in factors]
    return torch.stack(solved, 1)


def laplacian(size: tuple[int, int], like: Tensor) -> Tensor:
    """Return the square of the transfer function of both differences, as ``rfft2`` lays it out."""
    down = torch.fft.fftfreq(size[0], dtype=like.dtype, device=like.device)
    across = torch.fft.rfftfreq(size[1], dtype=like.dtype, device=like.device)
    return 4 - 2 * (2 * torch.pi * down).cos()[:, None] - 2 * (2 * torch.pi * across).cos()[None]


def on_canvas(y: Tensor, above: int, left: int, size: tuple[int, int]) -> Tensor:
    """Continue an observation to the canvas, so that opposite borders meet smoothly."""
    height, width = y.shape[-2:]
    y = _extended(y, above, size[0] - height - above, -2)
    return _extended(y, left, size[1] - width - left, -1)


def _extended(y: Tensor, before: int, after: int, axis: int) -> Tensor:
    """Append ``after`` and prepend ``before`` pixels along an axis, so that its ends meet."""
    first, last = y.narrow(axis, 0, 1), y.narrow(axis, y.shape[axis] - 1, 1)
    n = before + after
    shape = [1] * y.ndim
    shape[axis] = n
    share = ((torch.arange(n, dtype=y.dtype, device=y.device) + 1) / (n + 1)).view(shape)
    ring = (1 - share) * last + share * first
    return torch.cat([ring.narrow(axis, after, before), y, ring.narrow(axis, 0, after)], axis)
