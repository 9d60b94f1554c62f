"""Estimate the blur kernel of a picture from the picture alone.

From coarse to fine, two steps take turns: a picture with few edges is fitted to the blurred one,
and the kernel that best maps its gradients to those of the blurred picture is found in closed form.
One kernel is shared by several windows. Their kernels are also estimated apart from each other:
where these disagree, what was found is no blur of the whole picture.

Glossary:
    y: blurred luma, (N, 1, H, W), one entry for each window.
    x: picture of few edges, of the same shape.
    k: kernel, (1, 1, K, K).

Source:
    Written from the published ideas: Xu, Zheng and Jia, "Unnatural L0 sparse representation for
    natural image deblurring", CVPR 2013 (the penalty on the number of gradients, solved by
    half-quadratic splitting); Cho and Lee, "Fast motion deblurring", 2009 (kernel from gradients,
    coarse to fine). Differences: the kernel step is one division in the Fourier domain, windows
    share a kernel, and their agreement is checked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.operators.convolve import Kernels, centre, convolve, fast_size, normalise
from pristina.operators.kernels import spread
from pristina.operators.unknown import in_words
from pristina.operators.wiener import laplacian, on_canvas
from pristina.types import Images

LUMA = (0.299, 0.587, 0.114)

WINDOW_PX = 384
"""Side of the windows, where the picture is large enough."""

EDGES = (8e-3, 5e-4)
"""Price of an edge on the coarsest and the finest scale, in squared [0, 1] units: few edges decide
the kernel's shape, many its details. Each round on a scale lowers it by :data:`CHEAPER`."""

CHEAPER = 1.25

SMOOTH = 0.05
"""Weight of the kernel's energy against its fit, as a share of the mean energy of gradients."""

FAINT = 0.12
"""Share of the kernel's largest value below which a value is set to zero."""

ROUNDS = 5
"""Rounds on each scale."""

COARSEST_PX = 5
"""Side of the kernel on the coarsest scale."""

SHARP_PX = 0.9
"""Spread (rms, px) of a kernel up to which a picture counts as sharp."""

AGREEMENT = 0.8
"""Correlation of the kernels of different windows from which they count as one."""


@dataclass(frozen=True)
class FoundKernel:
    """What was found out about the blur of a picture.

    Attributes:
        kernel: Kernel, (1, 1, K, K), of sum 1, centred.
        agreement: Correlation of the kernels that were estimated in different windows, at the best
            shift, in [0, 1].
        doubt: Reason not to rely on the kernel, in one sentence; empty if there is none.
    """

    kernel: Tensor
    agreement: float
    doubt: str = ""

    def sentence(self, left_alone: bool) -> str:
        """Return what was found in words.

        Args:
            left_alone: Whether a picture whose kernel is in doubt is left alone.
        """
        if self.doubt and left_alone:
            return f"{self.doubt} It was left as it is."
        width = in_words(spread(self.kernel), "px")
        found = (
            f"A blur of {width} (rms) was found in the picture; two parts of it agree on its "
            f"kernel to {100 * self.agreement:.0f} %."
        )
        return f"{found} {self.doubt}".strip()


def kernel_from_picture(y: Images, size: int) -> FoundKernel:
    """Estimate the kernel of one blurred picture.

    Args:
        y: The picture, (1, C, H, W), in [0, 1], of at least ``4 * size`` px a side.
        size: Side of the kernel, px, odd.

    Returns:
        The kernel, and whether it can be relied on.
    """
    windows = _windows(_luma(y), max(WINDOW_PX, 4 * size))
    apart = [estimate_kernel(window[None], size) for window in windows]
    agreement = similarity(apart[0], apart[1])
    kernel = estimate_kernel(windows, size)
    doubt = ""
    if float(spread(kernel)) < SHARP_PX:
        doubt = "The picture shows no blur beyond that of a pixel."
    elif agreement < AGREEMENT:
        doubt = (
            f"The blur that was found in two parts of the picture differs (agreement "
            f"{agreement:.2f}, at least {AGREEMENT} is needed)."
        )
    return FoundKernel(kernel, agreement, doubt)


@torch.no_grad()
def estimate_kernel(y: Tensor, size: int) -> Kernels:
    """Estimate the kernel that windows share.

    Args:
        y: Blurred luma, (N, 1, H, W).
        size: Side of the kernel, px, odd.

    Returns:
        The kernel, (1, 1, size, size), of sum 1, centred.
    """
    ratio = math.sqrt(0.5)
    coarsest = max(0, math.ceil(math.log(COARSEST_PX / size) / math.log(ratio)))
    kernel = _first_kernel(y)
    for level in range(coarsest, -1, -1):
        scale = ratio**level
        side = max(3, 2 * round((size * scale - 1) / 2) + 1)
        small = [max(32, round(length * scale)) for length in y.shape[-2:]]
        kernel = _cleaned(_resized(kernel, [side, side]), 0.02)
        price = EDGES[1] * (EDGES[0] / EDGES[1]) ** (level / max(1, coarsest))
        kernel = _refined(_resized(y, small), kernel, price)
    return _centred(kernel)


def similarity(a: Kernels, b: Kernels) -> float:
    """Return the correlation of two kernels of one size at the best shift, in [0, 1]."""
    size = [2 * n for n in a.shape[-2:]]
    product = torch.fft.rfft2(a, s=size) * torch.fft.rfft2(b, s=size).conj()
    found = torch.fft.irfft2(product, s=size).max() / (a.norm() * b.norm()).clamp(min=1e-12)
    return float(found.clamp(0, 1))


def _first_kernel(y: Tensor) -> Tensor:
    """Return a short level stroke, which prefers no shift."""
    return torch.tensor([[0.0, 0.0, 0.0], [0.25, 0.5, 0.25], [0.0, 0.0, 0.0]]).to(y)[None, None]


def _refined(y: Tensor, kernel: Tensor, price: float) -> Tensor:
    """Improve a kernel on one scale, where an edge costs ``price`` at first."""
    side = kernel.shape[-1]
    half = side // 2
    height, width = y.shape[-2:]
    size = (fast_size(height + 2 * half), fast_size(width + 2 * half))
    canvas = on_canvas(y, half, half, size)
    seen = torch.zeros(1, 1, *size, dtype=y.dtype, device=y.device)
    seen[..., half + 1 : half + height - 1, half + 1 : half + width - 1] = 1
    for _ in range(ROUNDS):
        x = _few_edges(canvas, kernel, price)
        kernel = centre(_cleaned(_kernel_between(x, canvas, seen, side), FAINT))[0]
        price /= CHEAPER
    return kernel


def _few_edges(y: Tensor, kernel: Tensor, price: float) -> Tensor:
    """Minimise ``||k * x - y||^2 + price * (number of edges of x)`` by half-quadratic splitting."""
    size = (y.shape[-2], y.shape[-1])
    point = torch.zeros(1, 1, *size, dtype=y.dtype, device=y.device)
    point[..., 0, 0] = 1
    transfer = torch.fft.rfft2(convolve(point, kernel, "circular"))
    power = transfer.real.square() + transfer.imag.square()
    fitted = transfer.conj() * torch.fft.rfft2(y)
    stiff = laplacian(size, y)
    x, beta = y, 2 * price
    while beta < 1e3:
        edges = _gradients(x)
        edges = edges * (edges.square().sum(1, keepdim=True) >= price / beta)
        spectrum = fitted + beta * torch.fft.rfft2(_divergence(edges))
        x = torch.fft.irfft2(spectrum / (power + beta * stiff), s=size)
        beta *= 2
    return x


def _kernel_between(x: Tensor, y: Tensor, seen: Tensor, side: int) -> Tensor:
    """Return the kernel that best maps the gradients of ``x`` to those of ``y``."""
    size = (y.shape[-2], y.shape[-1])
    a, b = torch.fft.rfft2(_gradients(x) * seen), torch.fft.rfft2(_gradients(y) * seen)
    energy = (a.real.square() + a.imag.square()).sum((0, 1))
    spectrum = (a.conj() * b).sum((0, 1)) / (energy + SMOOTH * energy.mean() + 1e-12)
    kernel = torch.fft.irfft2(spectrum, s=size).roll((side // 2, side // 2), (0, 1))
    return kernel[None, None, :side, :side]


def _gradients(x: Tensor) -> Tensor:
    """Return the differences to the right and downwards, (N, 2, H, W), round the borders."""
    return torch.cat([x.roll(-1, -1) - x, x.roll(-1, -2) - x], 1)


def _divergence(d: Tensor) -> Tensor:
    """Apply the transpose of :func:`_gradients`, (N, 2, H, W) to (N, 1, H, W)."""
    return (d[:, :1].roll(1, -1) - d[:, :1]) + (d[:, 1:].roll(1, -2) - d[:, 1:])


def _cleaned(kernel: Tensor, faint: float) -> Tensor:
    """Set negative and faint values of a kernel to zero; without any other it is a point."""
    kernel = kernel.clamp(min=0)
    kernel = torch.where(kernel < faint * kernel.max(), 0, kernel)
    if float(kernel.sum()) <= 0:
        kernel[..., kernel.shape[-2] // 2, kernel.shape[-1] // 2] = 1
    return normalise(kernel)


def _centred(kernel: Tensor) -> Tensor:
    """Move the centre of mass to the middle by a fraction of a pixel, so that no picture moves."""
    axis = torch.arange(kernel.shape[-1], dtype=kernel.dtype, device=kernel.device)
    axis = axis - kernel.shape[-1] // 2
    wide = F.pad(kernel, (2,) * 4)
    down = torch.fft.fftfreq(wide.shape[-2], dtype=kernel.dtype, device=kernel.device)[:, None]
    across = torch.fft.rfftfreq(wide.shape[-1], dtype=kernel.dtype, device=kernel.device)[None]
    offset = (kernel.sum((0, 1, 3)) * axis).sum(), (kernel.sum((0, 1, 2)) * axis).sum()
    turn = torch.exp(2j * math.pi * (offset[0] * down + offset[1] * across))
    moved = torch.fft.irfft2(turn * torch.fft.rfft2(wide), s=wide.shape[-2:])
    # What the shift rings is as faint as what was cut off before.
    return _cleaned(moved[..., 2:-2, 2:-2], FAINT / 2)


def _resized(x: Tensor, size: list[int]) -> Tensor:
    if list(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bicubic", align_corners=False, antialias=True)


def _luma(y: Tensor) -> Tensor:
    if y.shape[1] == 1:
        return y
    return (y * torch.tensor(LUMA).to(y).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _windows(y: Tensor, side: int) -> Tensor:
    """Cut the window of most edges out of each half of a picture, (2, 1, h, w)."""
    axis = -1 if y.shape[-1] >= y.shape[-2] else -2
    half = y.shape[axis] // 2
    parts = [y.narrow(axis, 0, half), y.narrow(axis, y.shape[axis] - half, half)]
    return torch.cat([_window(part, side) for part in parts])


def _window(y: Tensor, side: int) -> Tensor:
    """Cut out the window of the strongest edges, each edge counted up to a bound."""
    height, width = min(side, y.shape[-2]), min(side, y.shape[-1])
    energy = _gradients(y)[..., :-1, :-1].square().sum(1, keepdim=True).clamp(max=0.01)
    total = F.pad(energy, (1, 1, 1, 1)).cumsum(-1).cumsum(-2)
    top, left = total[..., :-height, :], total[..., height:, :]
    sums = (left - top)[..., width:] - (left - top)[..., :-width]
    place = int(sums.flatten().argmax())
    row, column = place // sums.shape[-1], place % sums.shape[-1]
    return y[..., row : row + height, column : column + width]
