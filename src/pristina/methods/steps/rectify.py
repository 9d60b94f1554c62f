"""Rectification: correct noise until it is typical of N(0, I) again; step B of Invert2Restore.

The noise in which a degraded image is found is not typical of N(0, I): its scale, its distribution
and its correlations are off, over the whole image or in patches of it. "Nearby noise of higher
density" cannot mean the density itself, whose mode is z = 0: it means typicality.

Glossary: z noise, xi fresh noise, w(z) corrected patch, gamma share of fresh noise, p p-value,
n number of values in a patch.

Source:
    Chihaoui and Favaro, "Invert2Restore", 2025, of which the algorithms' text was not available;
    its summaries name local patches, a test of normality and a threshold on its p-value. Choices
    made here: patches of the whole image, then of 32, 16 and 8 px, because a patch of 8 px cannot
    distinguish 0.96 z from z; the tests below, of which those of correlation detect what blur and
    JPEG leave behind and a test of the marginal distribution does not; Bonferroni's correction over
    all patches and tests, so that typical noise is left alone with probability 1 - p_min; and for a
    patch that fails, the mildest correction that lets it pass, and only as much of it as is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import SettingError
from pristina.methods.steps.latent import to_sphere
from pristina.types import Images, PerImage

Rung = Literal["none", "norm", "scale", "standardise", "whiten", "noise"]
"""How far a correction may go; each rung includes those before it.

``none``: no correction. ``norm``: the norm of the whole, which is BIRD's projection. ``scale``: the
mean square of each patch in which it is off; nothing else is tested. ``standardise``: the scale,
then mean and scale, of each patch that fails any test. ``whiten``: also its spectrum and the
correlation of its colours. ``noise``: also fresh noise, as little as suffices.
"""

TESTS = ("mean", "second moment", "distribution", "vertical", "horizontal", "colour")
"""Names of the tests of a patch, in the order of :func:`p_values`."""


@dataclass(frozen=True)
class Rectified:
    """Corrected noise, as :func:`rectify` returns it.

    Attributes:
        z: Corrected noise, (B, C, H, W).
        changed: Share of the pixels that lie in a patch that failed, (B,); 0 if only the norm was
            set.
        gamma: Largest share of fresh noise in any patch, (B,).
    """

    z: Images
    changed: PerImage
    gamma: PerImage


def p_values(patches: Tensor) -> Tensor:
    """Compute the probability that white standard normal noise is as unusual as each patch.

    Args:
        patches: Patches, (N, C, h, w).

    Returns:
        One p-value for each test, (N, 6), in the order of :data:`TESTS`.
    """
    x = patches.double()
    flat = x.flatten(1)
    n = flat.shape[1]
    energy = flat.square().sum(1)
    mean = flat.sum(1) / math.sqrt(n)
    cdf = torch.special.ndtr(flat.sort(1).values)
    grid = torch.arange(n, dtype=x.dtype, device=x.device) / n
    distance = torch.maximum((cdf - grid).amax(1), (grid + 1 / n - cdf).amax(1))

    def correlation(a: Tensor, b: Tensor) -> Tensor:
        """Compute a z-score: the sum of products, scaled by the measured energy."""
        pairs = max(a[0].numel(), 1)
        return (a * b).flatten(1).sum(1) / (energy / n).clamp(min=1e-12) / math.sqrt(pairs)

    scores = [
        mean,
        correlation(x[:, :, 1:], x[:, :, :-1]),
        correlation(x[..., 1:], x[..., :-1]),
        correlation(x[:, 1:], x[:, :-1]),
    ]
    mean_p, *correlated = [torch.special.erfc(score.abs() / math.sqrt(2)) for score in scores]
    return torch.stack([mean_p, _chi_square(energy, n), _kolmogorov(distance, n), *correlated], 1)


def _chi_square(energy: Tensor, n: int) -> Tensor:
    """Compute the two-sided p-value of the sum of squares of ``n`` normal values."""
    below = torch.special.gammainc(torch.full_like(energy, n / 2), energy / 2)
    return 2 * torch.minimum(below, 1 - below)


def _kolmogorov(distance: Tensor, n: int) -> Tensor:
    """Compute the p-value of the Kolmogorov distance of ``n`` values, with Stephens' correction."""
    scaled = (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * distance
    j = torch.arange(1, 101, dtype=scaled.dtype, device=scaled.device)
    series = 2 * ((-1) ** (j - 1) * torch.exp(-2 * (j * scaled.unsqueeze(-1)).square())).sum(-1)
    return torch.where(scaled < 0.2, torch.ones_like(series), series).clamp(0, 1)


def whiten(patches: Tensor, passes: int = 3) -> Tensor:
    """Decorrelate the colours of patches and flatten their smoothed spectra, at unit variance.

    The colours are rotated to their principal axes, each axis is divided by the root of its power
    spectrum averaged over neighbouring frequencies, and rotated back; phases stay. Where the
    spectrum is steep the average is off, therefore the step is repeated.

    Args:
        patches: Patches, (N, C, h, w).
        passes: Number of repetitions.
    """
    half = 1 if min(patches.shape[-2:]) < 16 else 2
    x = standardise(patches)
    for _ in range(passes):
        x = x - x.mean((-2, -1), keepdim=True)
        axes = torch.linalg.eigh(torch.einsum("nchw,ndhw->ncd", x, x))[1]
        turned = torch.fft.fft2(torch.einsum("ncd,nchw->ndhw", axes, x), norm="ortho")
        power = F.pad(
            turned.abs().square(), (half,) * 4, mode="circular"
        )  # Frequencies lie on a torus.
        smooth = F.avg_pool2d(power, 2 * half + 1, stride=1).clamp(min=1e-10)
        x = standardise(
            torch.einsum(
                "ncd,ndhw->nchw", axes, torch.fft.ifft2(turned / smooth.sqrt(), norm="ortho").real
            )
        )
    return x


def standardise(patches: Tensor) -> Tensor:
    """Bring patches to mean 0 and mean square 1."""
    x = patches - patches.mean((1, 2, 3), keepdim=True)
    return x / x.square().mean((1, 2, 3), keepdim=True).clamp(min=1e-12).sqrt()


def rescale(patches: Tensor) -> Tensor:
    """Bring patches to mean square 1."""
    return patches / patches.square().mean((1, 2, 3), keepdim=True).clamp(min=1e-12).sqrt()


def correct(
    patches: Tensor, xi: Tensor, threshold: float, rung: Rung, bisections: int = 6
) -> tuple[Tensor, Tensor]:
    """Correct each patch by the mildest correction that lets it pass the tests.

    Args:
        patches: Patches that fail, (N, C, h, w).
        xi: Fresh noise of the same shape.
        threshold: Smallest p-value with which a patch passes, in (0, 1).
        rung: How far to go; its own correction is applied even where the patch still fails.
        bisections: Number of bisections of the way towards a correction, and of gamma.

    Returns:
        The corrected patches, and the share of fresh noise in each, (N,).
    """

    def passes(x: Tensor) -> Tensor:
        return (p_values(x).amin(1) >= threshold).view(-1, 1, 1, 1)

    def nearest(
        a: Tensor, b: Tensor, mix: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Find the point nearest to ``a`` on the way to ``b`` that passes; ``b`` if none does."""
        low, high = a.new_zeros(len(a), 1, 1, 1), a.new_ones(len(a), 1, 1, 1)
        for _ in range(bisections):
            middle = (low + high) / 2
            good = passes(mix(a, b, middle))
            low, high = torch.where(good, low, middle), torch.where(good, middle, high)
        return mix(a, b, high), high.flatten()

    best = rescale(patches)
    if rung == "scale":
        return best, patches.new_zeros(len(patches))
    done = passes(best)
    last = best
    for strength in (standardise, whiten) if rung in ("whiten", "noise") else (standardise,):
        last = strength(patches)
        near, _ = nearest(
            rescale(patches), last, lambda a, b, share: rescale((1 - share) * a + share * b)
        )
        passed = passes(near)
        best = torch.where(~done & passed, near, best)
        done = done | passed
    if rung != "noise":
        return torch.where(done, best, last), patches.new_zeros(len(patches))
    mixed, gamma = nearest(last, xi, lambda a, b, share: (1 - share).sqrt() * a + share.sqrt() * b)
    return torch.where(done, best, mixed), torch.where(done.flatten(), 0.0, gamma)


def rectify(
    z: Images,
    xi: Images,
    rung: Rung = "noise",
    *,
    p_min: float = 0.05,
    sizes: tuple[int, ...] = (32, 16, 8),
) -> Rectified:
    """Correct noise until it is typical of N(0, I).

    Patches that pass the tests change only with the norm of the whole.

    Args:
        z: Noise, (B, C, H, W).
        xi: Fresh standard normal noise of the same shape, mixed in where nothing else helps.
        rung: How far to go, see :data:`Rung`.
        p_min: Probability, in (0, 1), that any patch of typical noise is changed, over all patches
            and tests together.
        sizes: Sides of the patches in px, after the whole image; those that do not divide it, or
            are not smaller, are left out.

    Returns:
        The noise, on the sphere of norm sqrt(C H W) unless ``rung`` is none, and how much of it was
        changed.

    Raises:
        SettingError: The rung is unknown, or p_min is not in (0, 1).

    Source:
        See the module.

    Example:
        >>> import torch
        >>> z, xi = torch.randn(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> done = rectify(1.04 * z, xi)
        >>> round(float(done.z.norm() / z.numel() ** 0.5), 4), bool(done.gamma == 0)
        (1.0, True)
    """
    if rung not in get_args(Rung):
        raise SettingError(f"rung must be one of {', '.join(get_args(Rung))}; not {rung!r}.")
    if not 0 < p_min < 1:
        raise SettingError(f"p_min must lie between 0 and 1, not at {p_min}.")
    n, _, height, width = z.shape
    changed = torch.zeros(n, height, width, dtype=torch.bool, device=z.device)
    gamma = torch.zeros(n, device=z.device)
    if rung in ("none", "norm"):
        return Rectified(z if rung == "none" else to_sphere(z), torch.zeros_like(gamma), gamma)
    grids = [(s, s) for s in sizes if height % s == width % s == 0 and (s, s) != (height, width)]
    grids = [(height, width), *grids]
    n_tests = 1 if rung == "scale" else len(TESTS)
    n_tests *= sum(height * width // (h * w) for h, w in grids)
    for h, w in grids:
        # Tests of every patch.
        patches, fresh = _cut(z, h, w), _cut(xi, h, w)
        if rung == "scale":
            p = _chi_square(patches.double().square().sum((1, 2, 3)), patches[0].numel())
        else:
            p = p_values(patches).amin(1)
        failed = p < p_min / n_tests
        if not failed.any():
            continue
        # Correction of those that fail.
        corrected, share = correct(patches[failed], fresh[failed], p_min / n_tests, rung)
        patches[failed] = corrected.to(z.dtype)
        shares = torch.zeros(len(patches), device=z.device)
        shares[failed] = share
        z = _join(patches, n, height, width)
        gamma = torch.maximum(gamma, shares.view(n, -1).amax(1))
        marks = failed.view(-1, 1, 1, 1).expand(-1, 1, h, w).contiguous()
        changed |= _join(marks, n, height, width)[:, 0]
    return Rectified(to_sphere(z), changed.float().mean((1, 2)), gamma)


def _cut(z: Tensor, h: int, w: int) -> Tensor:
    """Cut images into patches that do not overlap, (B x rows x columns, C, h, w)."""
    n, c, height, width = z.shape
    cells = z.reshape(n, c, height // h, h, width // w, w).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(-1, c, h, w).clone()


def _join(patches: Tensor, n: int, height: int, width: int) -> Tensor:
    """Put the patches of :func:`_cut` together again."""
    _, c, h, w = patches.shape
    cells = patches.view(n, height // h, width // w, c, h, w).permute(0, 3, 1, 4, 2, 5)
    return cells.reshape(n, c, height, width)
