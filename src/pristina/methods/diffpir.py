"""DiffPIR: denoise with the prior, fit the data by its proximal step, add noise again. Not blind: it is told the operator and the noise.

Glossary: y observation, A operator, x_t diffused picture, x0 clean picture that the prior sees in it, sigma_bar noise of x_t over its signal, rho
weight of x0 against the data, lam its strength, zeta part of the noise that is drawn anew, spread how far clean pixels lie from their mean.

Source:
    Zhu et al., "Denoising diffusion models for plug-and-play image restoration", CVPRW 2023, algorithm 1: ``rho = lam sigma^2 / sigma_bar^2``,
    ``x0 <- argmin ||y - A x||^2 + rho ||x - x0||^2``.
    Deliberate differences: the minimiser is found by conjugate gradients from the operator and its adjoint, for any linear operator, in place
    of a closed form for each; lam and zeta are one default, tuned on faces of 64 px, not one for each task; the noise level is floored at 0.001; the timesteps are
    evenly spaced, for its own, dense where there is much noise, leave at few steps the last leap too long to remove any; ``spread``, see
    :class:`DiffPIR`, is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pristina.errors import Cancelled, InputError, OperatorError, SettingError
from pristina.methods.base import Books, Result, check_observation
from pristina.operators.base import Observation, Operator
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, ddim_step, eps_from_x0, step_pairs
from pristina.types import Draw, OnStep

MIN_SIGMA = 0.001  # in [0, 1] units: without any noise the problem would be singular


@dataclass(frozen=True)
class DiffPIR:
    """Settings of :func:`diffpir`.

    Attributes:
        steps: Network calls.
        lam: Strength of the prior against the data.
        zeta: Part of the noise that is drawn anew at each step, in [0, 1].
        spread: Standard deviation of clean pixels in [0, 1] units. x0 is uncertain by sigma_bar only where there is little noise; it is never
            more uncertain than clean pictures are, so that ``rho = lam sigma^2 (1 / sigma_bar^2 + 1 / spread^2)``. That makes each proximal step
            exact for a Gaussian prior of this spread; None leaves the second term out, as the paper does.
        cg_iterations: Iterations of the conjugate gradients at each step, at most.
    """

    steps: int = 20
    lam: float = 4.0
    zeta: float = 1.0
    spread: float | None = None
    cg_iterations: int = 30

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= N_TIMESTEPS:
            raise SettingError(f"steps must lie between 1 and {N_TIMESTEPS}, not {self.steps}.")
        if not self.lam > 0 or not 0 <= self.zeta <= 1 or self.cg_iterations < 1:
            raise SettingError("lam must be positive, zeta must lie in [0, 1], and cg_iterations must be at least 1.")
        if self.spread is not None and not self.spread > 0:
            raise SettingError(f"spread must be positive, not {self.spread}.")


PAPER = DiffPIR(steps=100, lam=1.0, zeta=0.25)  # zeta for x4; 0.1 for blur, 1.0 for inpainting


def proximal(operator: Operator, y: Tensor, x0: Tensor, rho: Tensor, iterations: int, tolerance: float = 1e-5) -> Tensor:
    """``argmin_x ||y - A x||^2 + rho ||x - x0||^2`` for a linear A, picture by picture, by conjugate gradients.

    Args:
        operator: A, linear.
        y: Observations, (B, C, h, w).
        x0: Where the pictures should stay near, (B, C, H, W).
        rho: Weight, a positive scalar.
        iterations: At most this many.
        tolerance: A picture is done when its residual has fallen to this part of its first one.
    """

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum((1, 2, 3), keepdim=True)

    d = torch.zeros_like(x0)  # x = x0 + d, and (A^T A + rho) d = A^T (y - A x0)
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


@torch.no_grad()
def diffpir(
    observation: Observation,
    prior: Prior,
    settings: DiffPIR = DiffPIR(),
    *,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Pictures restored with the true operator and the true noise level: what a blind method could reach at best.

    Args:
        observation: The degraded pictures, the true operator (linear), and ``known_sigma``.
        prior: The diffusion prior.
        settings: See :class:`DiffPIR`.
        generator: One for each picture.
        on_step: Called after each step.

    Returns:
        Pictures; trace ``loss``, the mean squared residual in [0, 1] units.

    Raises:
        OperatorError: There is no operator, or it is not linear.
        InputError: ``known_sigma`` is missing; NaN; the wrong number of channels.
        SizeError: The prior does not accept the size.

    Source:
        See the module.

    Example:
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> observation = Observation(torch.full((1, 3, 8, 8), 0.6), Operator(), known_sigma=0.05)
        >>> result = diffpir(observation, GaussianPrior(variance=0.1), DiffPIR(steps=10))
        >>> result.picture.shape, result.cost.network_calls
        (torch.Size([1, 3, 8, 8]), 10)
    """
    if observation.operator is None:
        raise OperatorError("DiffPIR needs the true operator; give it one, or take a blind method such as diip.")
    if not observation.operator.linear:
        raise OperatorError(f"DiffPIR needs a linear operator, and {observation.operator.name} is not; dps takes any.")
    if observation.known_sigma is None:
        raise InputError("DiffPIR must be told the noise: give known_sigma, in [0, 1] units.")
    height, width = check_observation(observation, prior)
    y = observation.y
    n = len(y)
    operator = observation.operator.for_batch(n).requires_grad_(False)
    draw = Draw(generator, n, y.device)
    variance = (2 * max(observation.known_sigma, MIN_SIGMA)) ** 2  # [-1, 1] pixels double the noise
    certainty = 0.0 if settings.spread is None else 1 / (2 * settings.spread) ** 2

    books = Books(prior, settings.steps, on_step)
    x = draw.normal(prior.channels, height, width)
    picture = observation.initial()
    why = ["the chain is done"] * n
    try:
        for t, s in step_pairs(settings.steps, len(prior.alpha_bar)):
            a_t, a_s = alpha_bar_at(prior.alpha_bar, t), alpha_bar_at(prior.alpha_bar, s)
            x0 = prior.predict(x, t).x0.clamp(-1, 1)
            rho = settings.lam * variance * (a_t / (1 - a_t) + certainty)  # sigma_bar^2 = (1 - alpha_bar) / alpha_bar
            fitted = proximal(operator, y, to_unit(x0), rho, settings.cg_iterations)
            picture = fitted.clamp(0, 1)
            loss = (operator(fitted) - y).square().mean((1, 2, 3))
            x0 = to_signed(fitted)
            eps = (1 - settings.zeta) ** 0.5 * eps_from_x0(x, x0, a_t) + settings.zeta**0.5 * draw.normal(*x.shape[1:])
            x = ddim_step(x0, eps, a_s)
            books.step(picture, loss)
    except Cancelled:
        why = [f"cancelled at step {books.n_done}"] * n
    return books.result("diffpir", picture, settings, draw.seeds, why)
