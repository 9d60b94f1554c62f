"""InDI: from the degraded picture to the clean one in small steps, each a regression.

Glossary: x clean, y degraded, t time from 0 (clean) to 1 (degraded), x_t = (1 - t) x + t y + noise, s < t the next time,
F(x_t, t) the regressor's estimate of E[x | x_t], n normal noise.

Source:
    Delbracio and Milanfar, "Inversion by direct iteration", TMLR 2023 (arXiv 2303.11435). The text was not available; the update is
    ``E[x_s | x_t] = (1 - s/t) E[x | x_t] + (s/t) x_t`` (proposition 4.1), the noise that of equations 7 to 9 in the division-free form
    below, and the two other updates are those of Cold Diffusion (Bansal et al. 2022, algorithms 1 and 2) on the same path. Deliberate
    differences: noise is given in [0, 1] units; pictures leave clipped to [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from pristina.errors import Cancelled, SettingError
from pristina.methods.base import Books, Result, check_observation
from pristina.operators.base import Observation
from pristina.priors.direct import DirectPrior
from pristina.types import Draw, OnStep

Update = Literal["indi", "cold_naive", "cold_improved"]


@dataclass(frozen=True)
class InDI:
    """Settings of :func:`indi`.

    Attributes:
        steps: Network calls. One is plain regression; more trade fidelity for detail.
        grid: The times t: ``uniform`` from 1 down to 0; ``geometric`` (each t three quarters of the one before, then 0); or the times
            themselves, which begin with 1, fall, and end with 0 (``steps`` then follows from them and is not looked at).
        update: InDI's own, or one of Cold Diffusion's two; all agree when F is exact.
        noise: ``trained`` takes what the regressor was trained with. ``none``. ``constant``: of deviation ``eps t`` at t, added once at
            the start. ``brownian``: ``eps sqrt(t)``, some of it new at each step (for InDI's own update only).
        eps: Deviation of the noise at t = 1 in [0, 1] units, for ``constant`` and ``brownian``.
        strength: The time t at which the picture is taken to lie on the path: 1 for damage as in training, less for lighter damage, which
            is then repaired more carefully. All times shrink with it.
        ensemble: Take for F its mean over so many of the eight ways to mirror and turn a picture (1, 2, 4 or 8), at as many network calls.
    """

    steps: int = 1
    grid: Literal["uniform", "geometric"] | tuple[float, ...] = "uniform"
    update: Update = "indi"
    noise: Literal["trained", "none", "constant", "brownian"] = "trained"
    eps: float = 0.005
    strength: float = 1.0
    ensemble: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SettingError(f"steps must be at least 1, not {self.steps}.")
        if isinstance(self.grid, str):
            if self.grid not in ("uniform", "geometric"):
                raise SettingError(f"grid must be uniform, geometric or a tuple of times, not {self.grid!r}.")
        elif len(self.grid) < 2 or self.grid[0] != 1 or self.grid[-1] != 0 or any(t <= s for t, s in pairwise(self.grid)):
            raise SettingError(f"The times of a grid must begin with 1, fall, and end with 0; not {self.grid}.")
        if self.update not in ("indi", "cold_naive", "cold_improved"):
            raise SettingError(f"update must be indi, cold_naive or cold_improved, not {self.update!r}.")
        if self.noise not in ("trained", "none", "constant", "brownian"):
            raise SettingError(f"noise must be trained, none, constant or brownian; not {self.noise!r}.")
        if not self.eps >= 0:
            raise SettingError(f"eps must not be negative ({self.eps}).")
        if not 0 < self.strength <= 1:
            raise SettingError(f"strength must lie in (0, 1], not at {self.strength}.")
        if self.ensemble not in (1, 2, 4, 8):
            raise SettingError(f"ensemble must be 1, 2, 4 or 8, not {self.ensemble}.")

    @property
    def times(self) -> list[Fraction]:
        """The times from ``strength`` to 0, exact: one more than there are network calls."""
        if self.grid == "uniform":
            grid = [Fraction(k, self.steps) for k in range(self.steps, -1, -1)]
        elif self.grid == "geometric":
            grid = [*(Fraction(3, 4) ** k for k in range(self.steps)), Fraction(0)]
        else:
            grid = [Fraction(t) for t in self.grid]
        return [Fraction(self.strength) * t for t in grid]


def step(x_t: Tensor, clean: Tensor, y: Tensor, t: Fraction, s: Fraction, update: Update = "indi") -> Tensor:
    """``x_s`` from ``x_t`` and the regressor's ``clean`` = F(x_t, t), without noise; all (B, C, H, W)."""
    if update == "indi":
        return float(1 - s / t) * clean + float(s / t) * x_t
    if update == "cold_naive":
        return float(1 - s) * clean + float(s) * y
    return x_t + float(t - s) * (clean - y)


def predict(prior: DirectPrior, x_t: Tensor, t: float, ensemble: int = 1) -> Tensor:
    """F(x_t, t), the mean over ``ensemble`` ways to mirror and turn ``x_t``."""
    found = torch.zeros_like(x_t)
    for way in range(ensemble):
        mirrored = [side for bit, side in ((1, -1), (2, -2)) if way & bit]
        swapped = (-1, -2) if way & 4 else (-1, -1)
        found += prior.predict(x_t.flip(mirrored).transpose(*swapped), t).transpose(*swapped).flip(mirrored)
    return found / ensemble


def indi(
    observation: Observation,
    prior: DirectPrior,
    settings: InDI = InDI(),
    *,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """The clean pictures to which the path from the observation leads.

    Args:
        observation: The degraded pictures, of any size; an operator only says how to bring them to picture size.
        prior: The regressor.
        settings: See :class:`InDI`.
        generator: One for each picture; used only where there is noise.
        on_step: Called after each step with F(x_t, t), the clean pictures expected so far.

    Returns:
        Pictures of the observation's size; trace ``loss``, the mean squared change from y to F(x_t, t), and ``t``.

    Raises:
        InputError: NaN, or the wrong number of channels.
        SettingError: Brownian noise with an update of Cold Diffusion.

    Source:
        See the module. With constant noise the start ``x_1 = y + eps n`` is the only place where noise enters, and takes the part of y in
        the updates of Cold Diffusion.

    Example:
        >>> import torch
        >>> from pristina.priors.direct import DirectPrior
        >>> class Flat(DirectPrior):  # it knows that clean pictures are grey all over
        ...     def regress(self, x_t, t):
        ...         return x_t.mean((1, 2, 3), keepdim=True).expand_as(x_t)
        >>> y = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
        >>> result = indi(Observation(y), Flat(domain="grey"), InDI(steps=4))
        >>> bool((result.picture - y.mean()).abs().max() < 1e-6), result.cost.network_calls
        (True, 4)
    """
    check_observation(observation, prior)
    noise, eps = (prior.noise, prior.eps) if settings.noise == "trained" else (settings.noise, settings.eps)
    if noise == "brownian" and settings.update != "indi":
        raise SettingError(
            f"Brownian noise is not defined for the update {settings.update}; take constant noise, none, or the update indi."
        )
    y = observation.initial()
    draw = Draw(generator, len(y), y.device)
    times = settings.times
    books = Books(prior, len(times) - 1, on_step)

    x_t = y if noise == "none" else y + eps * draw.normal(*y.shape[1:])
    x_1, clean = x_t, y
    why = f"all {len(times) - 1} steps done"
    try:
        for t, s in pairwise(times):
            with torch.no_grad():
                clean = predict(prior, x_t, float(t), settings.ensemble)
            x_t = step(x_t, clean, x_1, t, s, settings.update)
            if noise == "brownian" and s > 0:
                # s sqrt(eps_s^2 - eps_t^2) with eps_t = eps / sqrt(t), where nothing is divided by s
                x_t = x_t + eps * float(s * (1 - s / t)) ** 0.5 * draw.normal(*y.shape[1:])
            books.step(clean.clamp(0, 1), (clean - y).square().mean((1, 2, 3)), t=torch.full((len(y),), float(t)))
    except Cancelled:
        why = "cancelled"
    return books.result("indi", clean.clamp(0, 1), settings, draw.seeds, [why] * len(y))
