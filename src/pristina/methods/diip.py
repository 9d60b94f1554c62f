"""DIIP: fit the degraded picture through the prior, and stop at the right moment.

Glossary: y observation at picture size, z noise, x = G(z), E loss, slope relative decrease of E, sharpness variance of the Laplacian.

Source:
    Chihaoui and Favaro, "Diffusion Image Prior", ICCV 2025. The paper's full text was not available; the algorithm follows its slides
    (``z <- z - a grad E``, E the squared error of G(z) to y) and a reading note (both stopping rules, Adam, learning rate 0.0015,
    k_min 100, epsilon 0.001, BIRD's ten-step sampler). Decided here, for want of the text: z is returned to the sphere after each step as in
    BIRD; the Laplacian is of the luma, four neighbours, reflected border; a low-resolution input is enlarged bicubically first. By the note
    the Laplacian rule returns iterate ``k_min + 1`` at the earliest; here it is ``k_min``.
    Deliberate differences of the default from :data:`PAPER`: see :class:`DIIP`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import Cancelled, SettingError
from pristina.methods.base import Books, Result, check_observation, keep_rows, to_sphere
from pristina.operators.base import Observation
from pristina.priors.base import Prior
from pristina.priors.generate import Gradient, check_gradient, generate
from pristina.types import Draw, OnStep

Rule = Literal["first", "slope", "laplacian", "none"]


@dataclass(frozen=True)
class DIIP:
    """Settings of :func:`diip`.

    Attributes:
        iterations: At most this many optimiser steps.
        learning_rate: Of Adam on z.
        sampler_steps: Network calls of G in each iteration.
        gradient: How G is differentiated.
        sphere: Return z to the sphere of typical noise after each step.
        rule: When to stop: ``slope`` (the loss hardly falls any more: damage that adds high frequencies), ``laplacian`` (sharpness has
            passed its peak: damage that removes them), whichever fires ``first``, or ``none``.
        epsilon: Slope below which the run stops.
        k_min: Iterations before the Laplacian rule may fire; the first picture that it can return is G after ``k_min`` of them.
        warm_up: Iterations before the slope rule may fire: Adam's first momentum overshoots, and the loss stalls for some ten iterations.
        patience: Times in a row that a rule, one or the other, must fire.
        smoothing: Length of the moving average over which both rules look.
    """

    iterations: int = 200
    learning_rate: float = 0.05
    sampler_steps: int = 10
    gradient: Gradient = "detached"
    sphere: bool = True
    rule: Rule = "first"
    epsilon: float = 0.001
    k_min: int = 80
    warm_up: int = 50
    patience: int = 3
    smoothing: int = 10

    def __post_init__(self) -> None:
        check_gradient(self.gradient)
        if self.rule not in ("first", "slope", "laplacian", "none"):
            raise SettingError(f"rule must be first, slope, laplacian or none; not {self.rule!r}.")
        for name in ("iterations", "sampler_steps", "patience", "smoothing"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("epsilon", "k_min", "warm_up"):
            if not getattr(self, name) >= 0:
                raise SettingError(f"{name} must not be negative ({getattr(self, name)}).")
        if not self.learning_rate > 0:
            raise SettingError(f"learning_rate must be positive, not {self.learning_rate}.")


PAPER = DIIP(iterations=1500, learning_rate=0.0015, k_min=100, warm_up=0, patience=1, smoothing=1)


def sharpness(x: Tensor) -> Tensor:
    """Variance of the Laplacian of the luma of each picture, (B,)."""
    luma = (x * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True) if x.shape[1] == 3 else x
    kernel = x.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]]).view(1, 1, 3, 3)
    return F.conv2d(F.pad(luma, (1, 1, 1, 1), mode="reflect"), kernel).flatten(1).var(1)


def slope_fires(loss: Tensor, settings: DIIP) -> Tensor:
    """Whether the slope rule fires now, for each picture; ``loss`` is (iterations so far, B).

    The slope is ``(E_k - E_{k+1}) / E_k``, a relative decrease, averaged over ``smoothing`` iterations.
    """
    k, window = len(loss) - 1, settings.smoothing
    if k < window or k < settings.warm_up:
        return torch.zeros(loss.shape[1], dtype=torch.bool)
    return (loss[k - window] - loss[k]) / (window * loss[k - window]) < settings.epsilon


def laplacian_fires(sharp: Tensor, settings: DIIP) -> Tensor:
    """Whether sharpness is falling now, for each picture; ``sharp`` is (iterations so far, B)."""
    k, window = len(sharp) - 1, settings.smoothing
    if k <= settings.k_min or k < window:
        return torch.zeros(sharp.shape[1], dtype=torch.bool)
    return sharp[k] < sharp[k - window]


def diip(
    observation: Observation,
    prior: Prior,
    settings: DIIP = DIIP(),
    *,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """The pictures that the prior makes of the observation before it learns to make the damage too.

    Args:
        observation: The degraded pictures; an operator, if there is one, only says how to bring them to picture size.
        prior: The diffusion prior.
        settings: See :class:`DIIP`.
        generator: One for each picture.
        on_step: Called after each iteration.

    Returns:
        Pictures of the prior's size; traces ``loss`` and ``sharpness``; the noise ``z`` in the extras. The picture is the one before the
        rule began to fire.

    Raises:
        SizeError: The prior does not accept the size.
        InputError: NaN, or the wrong number of channels.

    Source:
        See the module.

    Example:
        >>> import torch
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> y = torch.full((1, 3, 8, 8), 0.6)
        >>> result = diip(Observation(y), GaussianPrior(variance=0.1), DIIP(iterations=5))
        >>> result.picture.shape, result.cost.network_calls
        (torch.Size([1, 3, 8, 8]), 60)
    """
    check_observation(observation, prior)
    y = observation.initial()
    n = len(y)
    draw = Draw(generator, n, y.device)
    z = torch.nn.Parameter(draw.normal(*y.shape[1:]))
    optimizer = torch.optim.Adam([z], lr=settings.learning_rate)
    books = Books(prior, settings.iterations + 1, on_step)

    picture, final_z = y.clone(), z.detach().clone()
    why = ["all iterations done"] * n
    running = torch.arange(n)  # the pictures that still run
    kept: list[Tensor] = []  # their last ``patience`` estimates
    fired = torch.zeros(n, dtype=torch.long)
    losses, sharps = torch.zeros(0, n), torch.zeros(0, n)
    loss_now, sharp_now = torch.zeros(n), torch.zeros(n)
    try:
        for k in range(settings.iterations + 1):
            x = generate(prior, z, settings.sampler_steps, gradient=settings.gradient)
            loss = (x - y[running]).square().mean((1, 2, 3))
            picture[running], final_z[running] = x.detach(), z.detach()
            loss_now[running], sharp_now[running] = loss.detach().cpu(), sharpness(x.detach()).cpu()
            losses, sharps = torch.cat([losses, loss_now[None]]), torch.cat([sharps, sharp_now[None]])
            books.step(picture, loss_now, sharpness=sharp_now)

            by_slope = slope_fires(losses, settings) & torch.tensor(settings.rule in ("first", "slope"))
            by_laplacian = laplacian_fires(sharps, settings) & torch.tensor(settings.rule in ("first", "laplacian"))
            fired = torch.where(by_slope | by_laplacian, fired + 1, 0)
            kept = [*kept, torch.cat([x.detach(), z.detach()], 1)][-settings.patience - 1 :]
            stop = fired[running] >= settings.patience
            if stop.any():
                channels = y.shape[1]
                before = kept[0][stop]  # as it was before the rule first fired
                picture[running[stop]], final_z[running[stop]] = before[:, :channels], before[:, channels:]
                for i in running[stop].tolist():
                    rule = "the loss hardly falls any more (slope rule)" if by_slope[i] else "sharpness passed its peak (Laplacian rule)"
                    why[i] = f"{rule} at iteration {k - settings.patience}"
                if stop.all():
                    break
                loss = loss[~stop]
            if k == settings.iterations:
                break
            if settings.gradient != "detached":
                books.backward_calls += settings.sampler_steps * len(z)
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
            if stop.any():
                running, kept = running[~stop], [both[~stop] for both in kept]
                keep_rows(optimizer, ~stop)
                z = optimizer.param_groups[0]["params"][0]
            if settings.sphere:
                z.data = to_sphere(z.data)
    except Cancelled:
        why = [f"cancelled at iteration {books.n_done - 1}" if w == "all iterations done" else w for w in why]
    return books.result("diip", picture, settings, draw.seeds, why, z=final_z)
