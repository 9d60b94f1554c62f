"""Draw what an operator-aware regressor learns from: operators, noise, and kernels told wrongly.

Glossary:
    x: clean picture, (3, H, W), in [0, 1].
    y: observation of it.
    case: x, its evidence, and the noise level that is told, cut to what was observed.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.methods.steps.evidence import evidence_of, evidence_of_blur
from pristina.operators.base import Operator
from pristina.operators.convolve import convolve, normalise
from pristina.operators.kernels import defocus_kernel, gaussian_kernel, motion_kernel
from pristina.operators.mask import Mask
from pristina.operators.resample import Downsample
from pristina.priors.aware import evidence_channels
from pristina.training.damage import eight_bits, log_uniform, normal, uniform
from pristina.training.kernels import draw_kernel

LARGEST_PX = 37
"""Side of the largest kernel."""

MULTIPLE = 24
"""Number of which the side of an observed picture is a multiple, for any reduction and network."""

FACTORS = (2, 3, 4)
"""Reductions."""

BLUR, MASK = 0.8, 0.88
"""Places, in [0, 1], at which blurs end and masks, and after them reductions, begin."""

ROUNDS = 4
"""Number of times that the border of a training crop is filled."""

CHANNELS = 3 + evidence_channels(3) + 1
"""Channels of a case: the picture, its evidence, the noise level that is told."""


def draw_case(x: Tensor, side: int, random: np.random.Generator) -> Tensor:
    """Damage a clean picture, and compute what a network is told about the result.

    Args:
        x: Clean picture, (3, H, W), with ``LARGEST_PX - 1`` px more a side than are observed.
        side: Side of what is observed, a multiple of :data:`MULTIPLE`.
        random: Generator from which everything is drawn.

    Returns:
        The case, (CHANNELS, side, side).
    """
    sigma = draw_sigma(random)
    said = sigma * (1.25 ** uniform(-1, 1, random) if random.random() < 0.5 else 1.0)
    place = random.random()
    if place < BLUR:
        kernel = draw_blur(random)
        told = disturbed(kernel, random.random(), random) if random.random() < 0.5 else kernel
        return blurred_case(x, side, (kernel, told), (sigma, said), random)
    operator = draw_mask(side, random) if place < MASK else draw_reduction(random)
    return operator_case(x, side, operator, (sigma, said), random)


def blurred_case(
    x: Tensor,
    side: int,
    kernels: tuple[Tensor, Tensor],
    sigmas: tuple[float, float],
    random: np.random.Generator,
) -> Tensor:
    """Blur a clean picture, assuming nothing about what lies beyond its border.

    Args:
        x: Clean picture, (3, H, W), see :func:`draw_case`.
        side: Side of what is observed, px.
        kernels: The kernel, (1, 1, K, K), and the one that is told.
        sigmas: The noise level, and the one that is told.
        random: Generator from which the noise is drawn.

    Returns:
        The case, (CHANNELS, side, side).
    """
    kernel, told = kernels
    half = kernel.shape[-1] // 2
    y = convolve(_middle(x, side + 2 * half)[None], kernel, "valid")
    y = eight_bits(y + sigmas[0] * normal(y.shape, random))
    evidence = evidence_of_blur(y, told, torch.tensor([sigmas[1]]), "valid", ROUNDS)
    return _stacked(_middle(x, side), _middle(evidence[0], side), sigmas[1])


def operator_case(
    x: Tensor,
    side: int,
    operator: Operator,
    sigmas: tuple[float, float],
    random: np.random.Generator,
) -> Tensor:
    """Observe the middle of a clean picture through an operator; see :func:`blurred_case`."""
    clean = _middle(x, side)
    y = operator(clean[None])
    y = eight_bits(y + sigmas[0] * normal(y.shape, random))
    evidence = evidence_of(y, operator, torch.tensor([sigmas[1]]))
    return _stacked(clean, evidence[0], sigmas[1])


def _stacked(x: Tensor, evidence: Tensor, sigma: float) -> Tensor:
    return torch.cat([x, evidence, torch.full_like(x[:1], sigma)])


def split_cases(cases: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return clean pictures, evidence, and the noise levels that are told, of a batch of cases."""
    return cases[:, :3], cases[:, 3:-1], cases[:, -1, 0, 0]


def _middle(x: Tensor, side: int) -> Tensor:
    """Cut the middle out of a square."""
    top = (x.shape[-1] - side) // 2
    return x[..., top : top + side, top : top + side]


def draw_sigma(random: np.random.Generator) -> float:
    """Draw a noise level in [0, 1] units: none, or 0.3 to 50/255 with a median of 2/255."""
    if random.random() < 0.1:
        return 0.0
    return float(0.3 * (50 / 0.3) ** random.random() ** 1.4) / 255


def draw_blur(random: np.random.Generator) -> Tensor:
    """Draw a kernel: camera shake in most cases, else a disc or a Gaussian, round or not.

    Returns:
        The kernel, (1, 1, K, K), of sum 1, K odd and at most :data:`LARGEST_PX`.
    """
    kind, place = random.random(), random.random()
    if kind < 0.35:
        side = 2 * round((5 * (LARGEST_PX / 5) ** place - 1) / 2) + 1
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        return motion_kernel(side, uniform(0.05, 1, random), generator)
    if kind < 0.62:
        return draw_kernel("motion", 0.6 * 12**place, random)[None, None]
    if kind < 0.8:
        radius = 0.7 * (8.5 / 0.7) ** place
        return defocus_kernel(2 * math.ceil(radius + 0.5) + 1, radius)
    sigma = 0.4 * (4.5 / 0.4) ** place
    second = sigma * (1 if kind < 0.92 else uniform(0.25, 1, random))
    side = min(LARGEST_PX, 2 * math.ceil(3 * sigma) + 1)
    return gaussian_kernel(side, sigma, second, uniform(0, math.pi, random))


def disturbed(kernel: Tensor, amount: float, random: np.random.Generator) -> Tensor:
    """Draw a kernel that is slightly wrong, as one that was found in a picture is.

    It is stretched and turned, softened, uneven, faint values are cut, and it is moved by up to a
    quarter of a pixel: nothing tells a network in which direction a picture moved.

    Args:
        kernel: Kernel, (1, 1, K, K), of sum 1.
        amount: Size of the errors, in [0, 1].
        random: Generator from which the errors are drawn.

    Returns:
        A kernel of sum 1, 2 px larger on each side.
    """
    wide = F.pad(kernel, (2,) * 4)
    side = wide.shape[-1]
    found = _moved(wide, torch.eye(2) + 0.12 * amount * normal((2, 2), random), torch.zeros(2))
    uneven = normal((1, 1, side // 4 + 1, side // 4 + 1), random)
    uneven = F.interpolate(uneven, size=(side, side), mode="bicubic", align_corners=False)
    found = found * (amount * (0.4 * uneven + 0.2 * normal(wide.shape, random))).exp()
    found = convolve(found, gaussian_kernel(5, 0.2 + amount * random.random()), "zero")
    found = (found - uniform(0, 0.08, random) * amount * found.max()).clamp(min=0)
    if float(found.sum()) < 1e-6:
        return wide
    offset = torch.tensor([uniform(-0.25, 0.25, random) for _ in range(2)]) * amount
    towards = _centre(wide) - _centre(normalise(found)) + offset
    return normalise(_moved(found, torch.eye(2), towards).clamp(min=0))


def _centre(kernel: Tensor) -> Tensor:
    """Return the centre of mass (x, y) of a kernel, in pixels from the middle."""
    axis = torch.arange(kernel.shape[-1]) - kernel.shape[-1] // 2
    return torch.stack([(kernel.sum((0, 1, 2)) * axis).sum(), (kernel.sum((0, 1, 3)) * axis).sum()])


def _moved(kernel: Tensor, turn: Tensor, by: Tensor) -> Tensor:
    """Turn a kernel by a matrix, (2, 2), and move it by (x, y) pixels, bilinearly."""
    theta = torch.cat([turn, -2 * by[:, None] / kernel.shape[-1]], 1)[None]
    grid = F.affine_grid(theta, list(kernel.shape), align_corners=False)
    return F.grid_sample(kernel, grid, align_corners=False).clamp(min=0)


def draw_mask(side: int, random: np.random.Generator) -> Mask:
    """Draw lost pixels: single ones at random, or up to six rectangles."""
    kept = torch.ones(1, 1, side, side)
    if random.random() < 0.5:
        lost = torch.from_numpy(random.random(kept.shape)) < uniform(0.2, 0.9, random)
        return Mask((~lost).float())
    for _ in range(int(random.integers(1, 7))):
        height, width = (round(log_uniform(2, 24, random)) for _ in range(2))
        top, left = (int(k) for k in random.integers(0, side - 24, 2))
        kept[..., top : top + height, left : left + width] = 0
    return Mask(kept)


def draw_reduction(random: np.random.Generator) -> Downsample:
    """Draw a reduction by 2 to 4."""
    how = Downsample.area if random.random() < 0.5 else Downsample.bicubic
    return how(int(random.choice(FACTORS)))
