"""Data steps for a linear operator that is known."""

from __future__ import annotations

import torch
from torch import Tensor

from pristina.errors import InputError, OperatorError
from pristina.operators.base import Observation, Operator

MIN_SIGMA = 0.001
"""Least noise level, in [0, 1] units; without any noise the problem would be singular."""

POWER_ITERATIONS = 20


def proximal(
    operator: Operator,
    y: Tensor,
    x0: Tensor,
    rho: Tensor,
    iterations: int,
    tolerance: float = 1e-5,
) -> Tensor:
    """Minimise ``||y - A x||^2 + rho ||x - x0||^2`` by conjugate gradients, image by image.

    Args:
        operator: Linear operator A.
        y: Observations, (B, C, h, w).
        x0: Images near which the minimiser stays, (B, C, H, W).
        rho: Weight, a positive scalar.
        iterations: Largest number of iterations.
        tolerance: Share of its first residual to which an image's residual must fall.

    Returns:
        The minimisers, (B, C, H, W).
    """

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum((1, 2, 3), keepdim=True)

    # With x = x0 + d, solve (A^T A + rho) d = A^T (y - A x0).
    d = torch.zeros_like(x0)
    r = operator.adjoint(y - operator(x0))
    p, rr = r, dot(r, r)
    goal = tolerance**2 * rr
    for _ in range(iterations):
        going = rr > goal
        if not going.any():
            break
        q = operator.adjoint(operator(p)) + rho * p
        step = torch.where(going, rr / dot(p, q).clamp(min=1e-30), 0)
        d, r = d + step * p, r - step * q
        rr, last = torch.where(going, dot(r, r), rr), rr
        p = torch.where(going, r + rr / last.clamp(min=1e-30) * p, p)
    return x0 + d


def largest_eigenvalue(operator: Operator, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Compute the largest eigenvalue of ``A^T A`` for each image by power iteration.

    Args:
        operator: Linear operator A.
        shape: Shape of its images, (B, C, H, W).
        like: Tensor whose device and dtype are taken.

    Returns:
        Eigenvalues, (B, 1, 1, 1); a little too small, by less the more iterations are made.
    """
    fixed = torch.Generator(like.device).manual_seed(0)
    x = torch.randn(1, *shape[1:], generator=fixed, device=like.device, dtype=like.dtype)
    x, norm = x.expand(shape), like.new_ones(shape[0], 1, 1, 1)
    for _ in range(POWER_ITERATIONS):
        x = x / x.square().sum((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-20)
        x = operator.adjoint(operator(x))
        norm = x.square().sum((1, 2, 3), keepdim=True).sqrt()
    return norm


def pseudo_inverse(operator: Operator, y: Tensor, rho: float = 0.01) -> Tensor:
    """Return the images nearest to grey that explain ``y``, but for what is hardly observed.

    Args:
        operator: Linear operator A.
        y: Observations, (B, C, h, w), in [0, 1] units.
        rho: Weight of grey: a singular value s counts as ``s^2 / (s^2 + rho)``.
    """
    grey = torch.full_like(operator.adjoint(y), 0.5)
    return proximal(operator, y, grey, torch.tensor(rho), 30)


def known_and_linear(title: str, observation: Observation) -> tuple[Operator, float]:
    """Return the operator and the noise level of an observation.

    Args:
        title: Name of the method that cannot do without them.
        observation: The observation.

    Raises:
        OperatorError: There is no operator, or it is not linear.
        InputError: The noise level is missing.
    """
    operator = known_linear(title, observation)
    return operator, known_sigma(observation, title)


def known_sigma(observation: Observation, title: str) -> float:
    """Return the noise level of an observation, in [0, 1] units; see :func:`known_and_linear`."""
    if observation.known_sigma is None:
        raise InputError(f"{title} must know the noise: give known_sigma, in [0, 1] units.")
    return observation.known_sigma


def known_linear(title: str, observation: Observation) -> Operator:
    """Return the operator of an observation; see :func:`known_and_linear`."""
    operator = known_operator(title, observation)
    if not operator.linear:
        raise OperatorError(
            f"{title} needs a linear operator, and {operator.name} is not; dps takes any."
        )
    return operator


def known_operator(title: str, observation: Observation) -> Operator:
    """Return the operator of an observation, linear or not; see :func:`known_and_linear`."""
    if observation.operator is None:
        raise OperatorError(
            f"{title} needs the true operator; give it one, or take a blind method such as diip."
        )
    return observation.operator
