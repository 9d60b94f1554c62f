"""What an operator-aware regressor is told: an observation, and solutions for a linear operator.

Glossary:
    y: observation, A x + noise.
    A: linear operator.
    x0: observation brought to the size of the picture.
    sigma: noise level of y.
    rho: regularisation, ``sigma^2`` over the variance of ``x - x0``.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pristina.image.holes import fill_smoothly
from pristina.methods.steps.linear import proximal
from pristina.operators.base import Observed, Operator
from pristina.operators.convolve import Boundary, Kernels
from pristina.operators.mask import Mask
from pristina.operators.spectral import what_matters
from pristina.operators.wiener import FACTORS, LEAST_SIGMA, ROUNDS, wiener
from pristina.priors.aware import N_SOLUTIONS, Evidence, stack_evidence

DEVIATION_VARIANCE = 0.005
"""Typical variance of ``x - x0``."""

ITERATIONS = 20
"""Largest number of iterations of conjugate gradients for one solution."""

TOLERANCE = 1e-3
"""Share of its first residual at which they end."""

assert len(FACTORS) == N_SOLUTIONS


@torch.no_grad()
def evidence_of_blur(
    y: Observed,
    kernel: Kernels,
    sigma: Float[Tensor, " batch"],
    boundary: Boundary,
    rounds: int = ROUNDS,
) -> Evidence:
    """Compute what a network is told about blurred images: their Wiener solutions.

    Args:
        y: Observation, (B, C, h, w).
        kernel: Kernel, (1 or B, 1, K, K), of sum 1, K odd.
        sigma: Noise level of each image, (B,), in [0, 1] units.
        boundary: Rule beyond the border; only ``circular`` is used, else what lies there is
            unknown.
        rounds: Number of times that the unknown border is filled.

    Returns:
        Evidence on the canvas, (B, D, h + K - 1, w + K - 1); of the size of y for ``circular``.
    """
    solved = wiener(y, kernel, sigma, boundary, rounds=rounds)
    half = 0 if boundary == "circular" else kernel.shape[-1] // 2
    observed = F.pad(y, (half,) * 4, mode="replicate")
    return stack_evidence(observed, list(solved.unbind(1)), torch.zeros_like(observed[:, :1]))


@torch.no_grad()
def evidence_of(y: Observed, operator: Operator, sigma: Float[Tensor, " batch"]) -> Evidence:
    """Compute what a network is told about images behind a linear operator.

    The solutions minimise ``||y - A x||^2 + rho ||x - x0||^2`` at three weights rho.

    Args:
        y: Observation, (B, C, h, w).
        operator: Linear operator A; its noise is left out.
        sigma: Noise level of each image, (B,), in [0, 1] units.

    Returns:
        Evidence at the size of the images, (B, D, H, W).
    """
    x0 = _at_picture_size(y, operator)
    rho = sigma.view(-1, 1, 1, 1).clamp(min=LEAST_SIGMA).square() / DEVIATION_VARIANCE
    solved = [proximal(operator, y, x0, factor * rho, ITERATIONS, TOLERANCE) for factor in FACTORS]
    return stack_evidence(x0, solved, _lost(operator, x0))


def _lost(operator: Operator, x: Tensor) -> Tensor:
    """Return the share of each pixel that is not observed, (B, 1, H, W), in [0, 1].

    The sensitivity ``A^T A 1`` is compared with its median over the pixels that are observed.
    """
    seen = operator.adjoint(operator(torch.ones_like(x))).mean(1, keepdim=True)
    usual = [image[image > 1e-3 * image.max()].median() for image in seen]
    return (1 - seen / torch.stack(usual).view(-1, 1, 1, 1)).clamp(0, 1)


def _at_picture_size(y: Tensor, operator: Operator) -> Tensor:
    """Bring an observation to the size of the picture; holes alone are filled smoothly."""
    parts = what_matters(operator)
    if len(parts) != 1 or not isinstance(parts[0], Mask):
        return operator.initial(y)
    holes = 1 - parts[0].mask(y.shape[-2], y.shape[-1]).to(y)
    each = zip(y.split(1), holes.expand(len(y), -1, -1, -1).split(1), strict=True)
    return torch.cat([fill_smoothly(image, hole) for image, hole in each])
