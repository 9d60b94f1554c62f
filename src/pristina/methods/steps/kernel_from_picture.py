"""Estimate the blur kernel of a picture from the picture alone.

From coarse to fine, two steps take turns: a picture with few edges is fitted to the blurred one,
and the kernel without negative values that best maps its gradients to those of the blurred picture
is found.
Windows share a kernel. The kernels of two windows are also estimated apart from each other: where
the windows, sharpened with each of the kernels, differ too much, what was found is not believed.

Glossary:
    y: blurred luma, (N, 1, H, W), one entry for each window.
    x: picture of few edges, of the same shape.
    k: kernel, (1, 1, K, K).

Source:
    Written from the published ideas: Xu, Zheng and Jia, "Unnatural L0 sparse representation for
    natural image deblurring", CVPR 2013 (the penalty on the number of gradients, solved by
    half-quadratic splitting); Cho and Lee, "Fast motion deblurring", 2009 (kernel from gradients,
    coarse to fine). Differences: the kernel is fitted with its small support and its sign known, by
    projected gradients with momentum (Beck and Teboulle, "FISTA", 2009) on the correlations of
    gradients; windows share a kernel, and their agreement is checked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.image.statistics import estimate_noise
from pristina.operators.convolve import Kernels, centre, convolve, fast_size, normalise
from pristina.operators.kernels import spread
from pristina.operators.unknown import in_words
from pristina.operators.wiener import laplacian, on_canvas, wiener
from pristina.types import Images

LUMA = (0.299, 0.587, 0.114)

WINDOW_PX = 384
"""Side of the two windows that check each other, where the picture is large enough."""

WHOLE_PX = 768
"""Side of the window that decides the kernel, where the picture is large enough."""

EDGES = (8e-3, 5e-4)
"""Price of an edge on the coarsest and the finest scale, in squared [0, 1] units: few edges decide
the kernel's shape, many its details. Each round on a scale lowers it by :data:`CHEAPER`."""

CHEAPER = 1.25

SMALL, EVEN = 0.1, 0.03
"""Weights of the kernel's energy, and of that of its gradients, against its fit, as shares of the
mean energy of the picture's gradients."""

FAINT = 0.12
"""Share of the kernel's largest value below which a value is set to zero."""

SPECK, GAP_PX = 0.1, 2
"""Share of a kernel's sum below which a part apart from the rest is no part of it, and the number
of empty pixels over which parts still belong together."""

FITTINGS = 60
"""Steps in which the kernel of a round is fitted."""

ROUNDS = 5
"""Rounds on each scale."""

COARSEST_PX = 5
"""Side of the kernel on the coarsest scale."""

SHARP_PX = 0.9
"""Spread (rms, px) of a kernel up to which a picture counts as sharp."""

AGREEMENT_DB = 10.0
"""Least agreement at which a kernel is believed; chosen on 115 training photographs with kernels of
an earlier estimate: 62 reached it and none of those lost, see benchmarks/camera_shake.md."""

BROAD_PX, ALIKE, BROAD_DB = 2.0, 0.87, 2.5
"""Spread of a kernel and its correlation with that of one of the windows from which less agreement
is enough: broad kernels that two windows have in common are not found in sharp pictures."""

SIGMA = 4 / 255
"""Least noise that the windows are taken to have where they are sharpened."""


@dataclass(frozen=True)
class FoundKernel:
    """What was found out about the blur of a picture.

    Attributes:
        kernel: Kernel, (1, 1, K, K), of sum 1, centred; (1, N, K, K) for N places of a picture.
        agreement: How far the change from the blurred to the sharpened picture lies above what
            differs between the kernels of different windows, in dB.
        doubt: Reason not to rely on the kernel, in one sentence; empty if there is none.
    """

    kernel: Tensor
    agreement: float
    doubt: str = ""

    def sentence(self, instead: str) -> str:
        """Return what was found in words.

        Args:
            instead: What becomes of a picture whose kernel is in doubt, in a sentence.
        """
        if self.doubt:
            return f"{self.doubt} {instead}"
        width = in_words(spread(self.kernel.transpose(0, 1)), "px")
        return (
            f"A blur of {width} (rms) was found in the picture; what its parts agree on is "
            f"{self.agreement:.0f} dB above what they differ in."
        )


def kernel_from_picture(y: Images, size: int) -> FoundKernel:
    """Estimate the kernel of one blurred picture.

    Args:
        y: The picture, (1, C, H, W), in [0, 1], of at least ``4 * size`` px a side.
        size: Side of the kernel, px, odd.

    Returns:
        The kernel, and whether it can be relied on.
    """
    luma = _luma(y)
    windows = _windows(luma, max(WINDOW_PX, 4 * size))
    apart = [estimate_kernel(window[None], size) for window in windows]
    kernel = estimate_kernel(_window(luma, max(WHOLE_PX, 4 * size)), size)
    agreement = _agreement(windows, [kernel, *apart], estimate_noise(y).clamp(min=SIGMA))
    width, alike = float(spread(kernel)), max(similarity(kernel, one) for one in apart)
    needed = BROAD_DB if width >= BROAD_PX and alike >= ALIKE else AGREEMENT_DB
    doubt = ""
    if width < SHARP_PX:
        doubt = "The picture shows no blur beyond that of a pixel."
    elif agreement < needed:
        doubt = (
            f"The blur that was found in parts of the picture differs (what they agree on is "
            f"{agreement:.0f} dB above what they differ in; at least {needed:.0f} dB are "
            "needed)."
        )
    return FoundKernel(kernel, agreement, doubt)


def kernels_from_fields(y: Images, size: int, grid: tuple[int, int]) -> FoundKernel:
    """Estimate the kernels of one picture whose blur varies, each from the field around its place.

    A place whose field shows no kernel that can be relied on takes that of the nearest one that
    does.

    Args:
        y: The picture, (1, C, H, W), in [0, 1].
        size: Side of the kernels, px, odd.
        grid: Rows and columns of places, spaced evenly from border to border.

    Returns:
        The kernels, and whether they can be relied on: a third of the fields must show one.
    """
    places = [(row, column) for row in range(grid[0]) for column in range(grid[1])]
    found = []
    for row, column in places:
        rows, columns = (
            _field(y.shape[-2], row, grid[0], size),
            _field(y.shape[-1], column, grid[1], size),
        )
        found.append(kernel_from_picture(y[..., rows, columns], size))
    sure = [i for i, one in enumerate(found) if not one.doubt]
    taken = sure or list(range(len(found)))
    nearest = [min(taken, key=lambda i: math.dist(places[i], place)) for place in places]
    kernels = torch.cat([found[i].kernel for i in nearest], 1)
    agreement = min(found[i].agreement for i in taken)
    doubt = ""
    if 3 * len(sure) < len(found):
        doubt = (
            f"A blur that can be relied on was found in {len(sure)} of {len(found)} fields of the "
            "picture; a third of them is needed."
        )
    return FoundKernel(kernels, agreement, doubt)


def _field(length: int, place: int, n: int, size: int) -> slice:
    """Return the part of an axis from which the kernel of one of its ``n`` places is estimated.

    It reaches three quarters of the way to the next place, and is never under ``4 * size`` px.
    """
    if n == 1:
        return slice(0, length)
    spacing = (length - 1) / (n - 1)
    reach = max(0.75 * spacing, 2 * size)
    first = min(max(0, round(place * spacing - reach)), max(0, length - 4 * size))
    last = max(min(length, round(place * spacing + reach)), min(length, 4 * size))
    return slice(first, last)


def _agreement(windows: Tensor, kernels: list[Kernels], sigma: Tensor) -> float:
    """Compare a sharpened picture with what other kernels would make of it, in dB.

    Args:
        windows: Luma, (N, 1, h, w).
        kernels: The kernel that was found and those of single windows.
        sigma: Noise level, (1,).
    """
    margin = kernels[0].shape[-1] // 2
    sharpened = torch.stack([_sharpened(windows, kernel, sigma) for kernel in kernels])
    change = (sharpened[0] - windows[..., margin:-margin, margin:-margin]).square().mean()
    difference = sharpened.var(0).mean()
    return float(10 * ((change + 1e-9) / (difference + 1e-9)).log10())


def _sharpened(y: Tensor, kernel: Kernels, sigma: Tensor) -> Tensor:
    """Return the Wiener solution, without as many pixels at the borders as half a kernel."""
    cut = 2 * (kernel.shape[-1] // 2)  # The solution begins half a kernel outside.
    solved = wiener(y, kernel, sigma.expand(len(y)), factors=(1.0,))[:, 0]
    return solved[..., cut:-cut, cut:-cut]


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
    return _centred(_without_specks(kernel))


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
    """Return the kernel that best maps the gradients of ``x`` to those of ``y``.

    It has no negative value. Its fit depends on the correlations of the gradients alone, at
    distances that are smaller than the kernel.
    """
    size = (y.shape[-2], y.shape[-1])
    a, b = torch.fft.rfft2(_gradients(x) * seen), torch.fft.rfft2(_gradients(y) * seen)
    energy = (a.real.square() + a.imag.square()).sum((0, 1))
    scale = energy.mean() + 1e-12
    product = (a.conj() * b).sum((0, 1))
    half, reach = side // 2, side - 1
    wanted = _around(torch.fft.irfft2(product, s=size), half)
    own = _around(torch.fft.irfft2(energy, s=size), reach)
    wide = (fast_size(3 * side),) * 2  # What goes round the border ends outside the kernel.
    transfer = torch.fft.rfft2(
        F.pad(own, (0, wide[0] - 2 * reach - 1) * 2).roll((-reach,) * 2, (0, 1))
    )
    transfer = transfer + scale * (SMALL + EVEN * laplacian(wide, y))
    bound = transfer.abs().max()
    first = product / (energy + SMALL * scale)
    kernel = _around(torch.fft.irfft2(first, s=size), half).clamp(min=0)
    ahead, momentum = kernel, 1.0
    for _ in range(FITTINGS):
        mapped = torch.fft.irfft2(transfer * torch.fft.rfft2(ahead, s=wide), s=wide)[:side, :side]
        last, kernel = kernel, (ahead - (mapped - wanted) / bound).clamp(min=0)
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = kernel + (momentum - 1) / following * (kernel - last)
        momentum = following
    return kernel[None, None]


def _around(x: Tensor, reach: int) -> Tensor:
    """Cut out the places up to ``reach`` from the first one on all sides, round the borders."""
    return x.roll((reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]


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


def _without_specks(kernel: Tensor) -> Tensor:
    """Remove what lies apart from the rest of a kernel and holds little of it.

    A blur is the trace of one motion, and a speck far out would shift its centre.
    """
    seen = (kernel > 0).to(kernel)
    places = torch.arange(1, kernel.numel() + 1).to(kernel).view_as(kernel)
    parts, before = places * seen, torch.zeros_like(kernel)
    while not torch.equal(parts, before):  # Each part gets the number of its last place.
        before, parts = parts, F.max_pool2d(parts, 2 * GAP_PX + 1, 1, GAP_PX) * seen
    kept = kernel
    for part in parts[parts > 0].unique():
        held = torch.where(parts == part, kernel, 0)
        if float(held.sum()) < SPECK * float(kernel.sum()):
            kept = kept - held
    return kernel if float(kept.sum()) <= 0 else normalise(kept)


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
