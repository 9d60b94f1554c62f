"""G: the deterministic map from noise to images, its gradient, and its inverse.

Source:
    The few-step DDIM sampler of BIRD (Chihaoui et al., NeurIPS 2024), as in its released code:
    timesteps n - dt, ..., dt, 0; the clean image clipped at every step and the noise derived again
    from it; the last step returns the clean image itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pristina.errors import SettingError
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.priors.schedule import (
    alpha_bar_at,
    ddim_step,
    eps_from_x0,
    step_pairs,
    x0_from_eps,
)
from pristina.types import Images

Gradient = Literal["detached", "checkpointed", "full"]
"""How G is differentiated.

``detached``: the network's noise is a constant, so that only the sampler's arithmetic is
differentiated; this is what BIRD's released code does, and costs nothing. ``full``: true
back-propagation through every network call. ``checkpointed``: the same numbers in the memory of one
call, computing each twice.
"""


MEMORY = 5
"""Number of moves that the inverse remembers at each step."""
MAX_ERROR = 0.02
"""Relative error of a step's equation above which the inverse is not found."""


class NotConverged(UserWarning):
    """The inverse of the sampler was not found: the noise does not give the image back."""


def check_gradient(gradient: str) -> None:
    """Raise :class:`SettingError` unless ``gradient`` is one of :data:`Gradient`."""
    if gradient not in get_args(Gradient):
        raise SettingError(
            f"gradient must be one of {', '.join(get_args(Gradient))}; not {gradient!r}."
        )


def generate(
    prior: Prior,
    z: Images,
    steps: int = 10,
    *,
    gradient: Gradient = "detached",
    clip: bool = True,
) -> Images:
    """Generate the images that noise stands for.

    Args:
        prior: Diffusion prior.
        z: Noise, (B, C, H, W), standard normal.
        steps: Number of network calls for each image (default 10). A single one is made at the
            last timestep.
        gradient: Gradient with respect to ``z``, see :data:`Gradient`.
        clip: Whether the clean image is clipped to [-1, 1] at every step, the last included.

    Returns:
        Images, (B, C, H, W), in [0, 1] (if ``clip``).

    Raises:
        SizeError: The prior does not accept the size of ``z``.

    Example:
        >>> import torch
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> prior = GaussianPrior(mean=0.0, variance=0.25)
        >>> x = generate(prior, torch.ones(1, 3, 8, 8), clip=False)
        >>> round(float(2 * x[0, 0, 0, 0] - 1), 4)
        0.3741
    """
    check_gradient(gradient)
    pairs = step_pairs(steps, len(prior.alpha_bar))
    if gradient == "checkpointed" and z.requires_grad and torch.is_grad_enabled():
        last: Tensor = _Checkpointed.apply(
            z, [partial(_step, prior, t=t, s=s, gradient="full", clip=clip) for t, s in pairs]
        )
        return to_unit(last)
    x = z
    for t, s in pairs:
        x = _step(prior, x, t, s, gradient, clip)
    return to_unit(x)


class _Checkpointed(torch.autograd.Function):
    """A chain of steps that keeps their inputs alone, and makes each again for the gradient.

    The inputs lie in one piece of memory: between what the network allocates and frees, many small
    ones would keep the process from giving memory back.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, moves: list[Callable[[Tensor], Tensor]]) -> Tensor:
        inputs, x = z.new_empty(len(moves), *z.shape), z
        for kept, move in zip(inputs, moves, strict=True):
            kept.copy_(x)
            x = move(x)
        ctx.save_for_backward(inputs)
        ctx.moves = moves
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (inputs,) = ctx.saved_tensors
        for kept, move in zip(reversed(inputs.unbind()), reversed(ctx.moves), strict=True):
            x = kept.detach().requires_grad_()
            with torch.enable_grad():
                moved = move(x)
            (gradient,) = torch.autograd.grad(moved, x, gradient)
        return gradient, None


def _step(prior: Prior, x: Tensor, t: int, s: int, gradient: Gradient, clip: bool) -> Tensor:
    """Take a step of the sampler from t to s; the clean images themselves for s < 0."""
    a_t, a_s = alpha_bar_at(prior.alpha_bar, t), alpha_bar_at(prior.alpha_bar, s)
    if gradient == "detached":
        with torch.no_grad():
            eps = prior.predict(x, t).eps
        x0 = x0_from_eps(x, eps, a_t)
        del eps
    else:
        x0 = prior.predict(x, t).x0
    if clip:
        x0 = clip_signed(x0)
    return x0 if s < 0 else ddim_step(x0, eps_from_x0(x, x0, a_t), a_s)


class _Clip(torch.autograd.Function):
    """``clamp(-1, 1)`` that keeps for its gradient where it does nothing, and not its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward((x >= -1).logical_and_(x <= 1))
        return x.clamp(-1, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (inside,) = ctx.saved_tensors
        return gradient.where(inside, 0)


def clip_signed(x: Tensor) -> Tensor:
    """Clip pixels to [-1, 1], with little memory for the gradient, one byte for each number."""
    if torch.is_grad_enabled() and x.requires_grad:
        clipped: Tensor = _Clip.apply(x)
        return clipped
    return x.clamp(-1, 1)


@torch.no_grad()
def invert(
    prior: Prior, x: Images, steps: int = 10, *, refine: int = 20, tolerance: float = 1e-4
) -> Images:
    """Find the noise ``z`` with ``generate(prior, z, steps, clip=False) = x``.

    Going from s to t, the noise must be evaluated at the unknown end ``x_t``. The plain inverse
    evaluates it at ``x_s`` instead and is off by a quarter at ten steps; here the equation for
    ``x_t`` is solved, image by image.

    Args:
        prior: Diffusion prior.
        x: Images, (B, C, H, W), in [0, 1].
        steps: Number of network calls of the map to invert (default 10).
        refine: Largest number of network calls a step (default 20); 1 is the plain inverse.
        tolerance: Relative error of the equation below which an image is done with a step (default
            1e-4); 0 takes all calls.

    Returns:
        Noise, (B, C, H, W). It is standard normal only if ``x`` is a typical image of the prior.

    Warns:
        NotConverged: An equation has a relative error above 0.02 after ``refine`` calls, unless the
            plain inverse was asked for.

    Source:
        Plain inversion: Song et al. 2021, section 4.3. The implicit equation: Pan et al. 2023
        ("AIDI"), which iterates it to a fixed point. That diverges where the noise changes faster
        than the image, at few steps above all. Difference: the equation is ``g(x_t) = 0`` with g
        the gradient of a strongly convex function, because the noise is the gradient of a function
        of ``x_t`` whose curvature is at most ``1 / sqrt(1 - alpha_bar_t)`` for the exact prediction
        of any distribution; it is solved by L-BFGS (Nocedal and Wright 2006, algorithm 7.4).
    """
    z, note = find_noise(prior, x, steps, refine=refine, tolerance=tolerance)
    if note:
        warnings.warn(note, NotConverged, stacklevel=3)
    return z


def find_noise(
    prior: Prior, x: Images, steps: int, *, refine: int, tolerance: float
) -> tuple[Images, str]:
    """Find the noise as :func:`invert` does.

    Returns:
        Noise, (B, C, H, W), and a sentence that warns of an inverse that was not found; it is
        empty if all were found.
    """
    if refine < 1:
        raise SettingError(f"refine must be at least 1, not {refine}.")
    x_s, largest, where = to_signed(x), 0.0, 0
    for t, s in reversed(step_pairs(steps, len(prior.alpha_bar))):
        x_s, error = _solve(_end(prior, x_s, t, s), x_s, refine, tolerance)
        if not error <= largest:
            largest, where = error, t
    if refine == 1 or largest <= MAX_ERROR:
        return x_s, ""
    return x_s, (
        f"The noise of an image was not found in {refine} network calls a step: the equation "
        f"at timestep {where} has a relative error of {largest:.2g}, so that the sampler does "
        "not give the image back. More steps or more refinement may help."
    )


def _end(prior: Prior, x_s: Tensor, t: int, s: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function of a guess of ``x_t`` and its rows that the true ``x_t`` leaves alone."""
    a_t, a_s = alpha_bar_at(prior.alpha_bar, t), alpha_bar_at(prior.alpha_bar, s)

    def end(guess: Tensor, rows: Tensor) -> Tensor:
        eps = prior.predict(guess, t).eps
        return ddim_step(x0_from_eps(x_s[rows], eps, a_s), eps, a_t)

    return end


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the scalar product of each image, (B, 1, 1, 1)."""
    return (a * b).sum((1, 2, 3), keepdim=True, dtype=torch.float64).to(a.dtype)


def _solve(
    end: Callable[[Tensor, Tensor], Tensor], start: Tensor, n_calls: int, tolerance: float
) -> tuple[Tensor, float]:
    """Solve ``x = end(x)`` by L-BFGS on its gap ``g(x) = x - end(x)``.

    Args:
        end: Function of images and of their rows in the batch.
        start: First guess, (B, C, H, W).
        n_calls: Largest number of calls of ``end`` for an image.
        tolerance: Relative gap below which an image is done.

    Returns:
        ``end`` at the best guess of each image, and the largest relative gap.
    """
    x, n = start, len(start)
    found = end(x, torch.arange(n, device=x.device))
    gap = x - found
    pairs: list[tuple[Tensor, Tensor]] = []  # moves, and the changes of the gap along them
    shrink = torch.ones_like(gap[:, :1, :1, :1])
    for _ in range(n_calls - 1):
        undone = _dot(gap, gap).sqrt() >= tolerance * _dot(x, x).sqrt()
        rows = undone.flatten().nonzero().flatten()
        if not len(rows):
            break
        move = shrink * _direction(gap, pairs)
        trial, trial_found = x + move, found.clone()
        trial_found[rows] = end(trial[rows], rows)
        trial_gap = trial - trial_found
        change = trial_gap - gap
        curved = undone & (_dot(move, change) > 1e-9 * _dot(move, move))
        pairs = [*pairs[1 - MEMORY :], (move.where(curved, 0), change.where(curved, 0))]
        # The gap falls along the move until it has passed the solution too far.
        accepted = undone & (_dot(trial_gap, move) <= 0.9 * _dot(gap, move).abs())
        shrink = torch.where(accepted, 1, torch.where(curved, shrink, shrink / 2))
        x, found = trial.where(accepted, x), trial_found.where(accepted, found)
        gap = trial_gap.where(accepted, gap)
    error = _dot(gap, gap).sqrt() / _dot(x, x).sqrt().clamp(min=1e-20)
    return found, float(error.max())


def _direction(gap: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the quasi-Newton direction of each image (two-loop recursion)."""
    q, done = gap, []
    for move, change in reversed(pairs):
        rho = 1 / _dot(move, change).clamp(min=1e-20)
        a = rho * _dot(move, q)
        q = q - a * change
        done.append((rho, a))
    if pairs:
        move, change = pairs[-1]
        scale = _dot(move, change) / _dot(change, change).clamp(min=1e-20)
        q = q * torch.where(scale > 0, scale.clamp(1e-3, 100), 1)
    for (rho, a), (move, change) in zip(reversed(done), pairs, strict=True):
        q = q + (a - rho * _dot(change, q)) * move
    return -q
