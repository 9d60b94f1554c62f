"""Steps on the noise and the operator that a method optimises, and where they start."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pristina.methods.steps.result import State
from pristina.operators.base import Observation, Operator
from pristina.types import Draw, Images, PerImage


def first_noise(method: str, shape: tuple[int, ...], draw: Draw, start: State | None) -> Images:
    """Return the noise with which a run begins: drawn, or that of the state it starts from.

    The generators are brought to where they were in that state.

    Args:
        method: Name of the method.
        shape: Shape of the noise, (B, C, H, W).
        draw: Generators of the run.
        start: State from which the run goes on; None for a new run.

    Raises:
        InputError: The state is that of another method, or of images of another shape.
    """
    if start is None:
        return draw.normal(*shape[1:])
    start.check(method, shape, draw.device)
    start.restore_generators(draw)
    return draw.normal(*shape[1:]) if start.noise is None else start.noise.clone()


def first_operator(observation: Observation, start: State | None) -> Operator:
    """Return a copy of the operator with which a run begins, with parameters for each image.

    Args:
        observation: Degraded images; without an operator they are taken for the images themselves.
        start: State whose operator the run goes on with; None for the first guess.

    Raises:
        OperatorError: The operator has parameters for another number of images.
    """
    operator = Operator() if observation.operator is None else observation.operator
    if start is not None and start.operator is not None:
        operator = start.operator
    return operator.for_batch(len(observation.y)).to(observation.y.device)


def to_sphere(z: Tensor) -> Tensor:
    """Scale ``z`` to norm ``sqrt(d)``, d = C H W, image by image: the norm of typical noise.

    Source:
        BIRD's released code, applied after each optimiser step; its 1e-9 under the root is kept.
    """
    return z * _scale(z)


def put_on_sphere(z: Tensor) -> None:
    """Scale ``z`` in place as :func:`to_sphere` does; no gradient is taken."""
    with torch.no_grad():
        z.mul_(_scale(z))


def _scale(z: Tensor) -> Tensor:
    squared = z.square().sum((1, 2, 3), keepdim=True)
    return (z[0].numel() / (squared + 1e-9)).sqrt()


def keep_rows(optimizer: torch.optim.Optimizer, rows: Tensor) -> None:
    """Drop images that have stopped from an optimiser.

    Args:
        optimizer: Its parameters and their moments keep only ``rows`` of axis 0.
        rows: Boolean mask, (B,).
    """
    for group in optimizer.param_groups:
        kept = []
        for p in group["params"]:
            state = optimizer.state.pop(p, {})
            p_kept = torch.nn.Parameter(p.detach()[rows])
            optimizer.state[p_kept] = {
                k: v[rows] if v.shape == p.shape else v for k, v in state.items()
            }
            kept.append(p_kept)
        group["params"] = kept


class _MeanSquare(torch.autograd.Function):
    """Mean square whose gradient takes one image of memory beside the residual, and not four."""

    @staticmethod
    def forward(ctx: Any, r: Tensor) -> Tensor:
        ctx.save_for_backward(r)
        return r.square().mean((1, 2, 3))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (r,) = ctx.saved_tensors
        return (2 * gradient / r[0].numel()).view(-1, 1, 1, 1) * r


def mean_squared(r: Images) -> PerImage:
    """Compute the mean square of each residual, (B, C, H, W), with little memory for its gradient.

    Example:
        >>> mean_squared(torch.full((2, 3, 4, 4), 3.0))
        tensor([9., 9.])
    """
    found: Tensor = _MeanSquare.apply(r)
    return found
