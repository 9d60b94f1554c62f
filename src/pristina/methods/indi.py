"""InDI: restore in small direct steps, each of which is a regression.

Glossary: x clean image, y degraded image, t time from 0 (clean) to 1 (degraded), s < t the next
time, x_t = (1 - t) x + t y + noise, F(x_t, t) the regressor's estimate of E[x | x_t], n normal
noise.

Source:
    Delbracio and Milanfar, "Inversion by direct iteration", TMLR 2023 (arXiv 2303.11435). The text
    was not available; the update is ``E[x_s | x_t] = (1 - s/t) E[x | x_t] + (s/t) x_t``
    (proposition 4.1), the noise that of equations 7 to 9 in the division-free form below, and the
    two other updates are those of Cold Diffusion (Bansal et al. 2022, algorithms 1 and 2) on the
    same path. Deliberate differences: noise is given in [0, 1] units; images leave clipped to
    [0, 1]; the observation may lie at a time before 1 (``strength``).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from annotated_types import Interval

from pristina.errors import Cancelled, SettingError
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation
from pristina.priors.direct import DirectPrior
from pristina.settings import Count, NotNegative, Settings
from pristina.types import Draw, Generators, Images, OnStep

Update = Literal["indi", "cold_naive", "cold_improved"]
"""Step from t to s: InDI's own, or one of Cold Diffusion's two; all agree where F is exact."""


@dataclass(frozen=True)
class InDI(Settings):
    """Settings of :func:`indi`.

    Attributes:
        steps: Number of steps. One is plain regression; more exchange fidelity for detail.
        grid: Times t: ``uniform`` from 1 down to 0; ``geometric`` (each t three quarters of the one
            before, then 0); or the times themselves, which begin with 1, fall, and end with 0
            (``steps`` then follows from them and is ignored).
        update: Step from one time to the next, see :data:`Update`.
        noise: ``trained`` for the noise that the regressor was trained with; ``none``; ``constant``
            for a standard deviation of ``eps t`` at t, added once at the start; ``brownian`` for
            ``eps sqrt(t)``, part of it drawn anew at each step (InDI's own update only).
        eps: Standard deviation of ``constant`` and ``brownian`` noise at t = 1, in [0, 1] units.
        strength: Time t, in (0, 1], at which the observation is taken to lie on the path: 1 for
            damage as in training, less for lighter damage, which is then repaired more carefully.
            All times are scaled with it.
        ensemble: Number of the eight ways to mirror and turn an image over which F is averaged, at
            as many network calls.
    """

    steps: Count = 1
    grid: Literal["uniform", "geometric"] | tuple[float, ...] = "uniform"
    update: Update = "indi"
    noise: Literal["trained", "none", "constant", "brownian"] = "trained"
    eps: NotNegative = 0.005
    strength: Annotated[float, Interval(gt=0, le=1)] = 1.0
    ensemble: Annotated[int, Interval(ge=1, le=8)] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ensemble not in (1, 2, 4, 8):
            raise SettingError(f"ensemble must be 1, 2, 4 or 8, not {self.ensemble}.")
        if isinstance(self.grid, str):
            return
        falls = all(t > s for t, s in pairwise(self.grid))
        if len(self.grid) < 2 or self.grid[0] != 1 or self.grid[-1] != 0 or not falls:
            raise SettingError(
                f"The times of a grid must begin with 1, fall, and end with 0; not {self.grid}."
            )

    @property
    def times(self) -> list[Fraction]:
        """Exact times from ``strength`` to 0, one more than there are steps."""
        if self.grid == "uniform":
            grid = [Fraction(k, self.steps) for k in range(self.steps, -1, -1)]
        elif self.grid == "geometric":
            grid = [*(Fraction(3, 4) ** k for k in range(self.steps)), Fraction(0)]
        else:
            grid = [Fraction(t) for t in self.grid]
        return [Fraction(self.strength) * t for t in grid]


def calls(settings: InDI) -> Calls:
    """Return the network calls that ``settings`` imply for one image."""
    return Calls((len(settings.times) - 1) * settings.ensemble, pictures=6)


def step(
    x_t: Images, clean: Images, y: Images, t: Fraction, s: Fraction, update: Update = "indi"
) -> Images:
    """Step from ``x_t`` to ``x_s``, without noise.

    Args:
        x_t: Images at time t, (B, C, H, W).
        clean: Estimate F(x_t, t), of the same shape.
        y: Images at time 1, of the same shape.
        t: Present time, in (0, 1], where 1 is the time of the observation.
        s: Next time, in [0, t).
        update: Which step, see :data:`Update`.
    """
    if update == "indi" and s == 0:
        return clean
    if update == "indi":
        return (float(1 - s / t) * clean).add_(float(s / t) * x_t)
    if update == "cold_naive":
        return float(1 - s) * clean + float(s) * y
    return x_t + float(t - s) * (clean - y)


def predict(prior: DirectPrior, x_t: Images, t: float, ensemble: int = 1) -> Images:
    """Compute F(x_t, t), averaged over ``ensemble`` ways to mirror and turn ``x_t``."""
    if ensemble == 1:
        return prior.predict(x_t, t)
    total = torch.zeros_like(x_t)
    for way in range(ensemble):
        mirrored = [side for bit, side in ((1, -1), (2, -2)) if way & bit]
        swapped = (-1, -2) if way & 4 else (-1, -1)
        found = prior.predict(x_t.flip(mirrored).transpose(*swapped), t)
        total += found.transpose(*swapped).flip(mirrored)
    return total.div_(ensemble)


def indi(
    observation: Observation,
    prior: DirectPrior,
    settings: InDI = InDI(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Restore images by following the path from the observation to the clean images.

    Args:
        observation: Degraded images of any size, (B, C, h, w); an operator only gives the size to
            restore.
        prior: Regressor.
        settings: Settings, see :class:`InDI`.
        start: State of an earlier run to go on from; a fresh one has nothing to start from.
        generator: One generator for each image; used only where there is noise.
        on_step: Progress callback, called after each step with F(x_t, t).

    Returns:
        Images of the observation's size; traces ``loss``, the mean squared change from y to
        F(x_t, t), and ``t``.

    Raises:
        InputError: The channels or devices differ, or the state does not fit.
        SettingError: Brownian noise is combined with an update of Cold Diffusion.

    Source:
        See the module. With constant noise the start ``x_1 = y + eps n`` is the only place where
        noise enters, and replaces y in the updates of Cold Diffusion.

    Example:
        >>> import torch
        >>> from pristina.priors.direct import DirectPrior
        >>> class Flat(DirectPrior):  # Clean images are grey all over.
        ...     def regress(self, x_t, t):
        ...         return x_t.mean((1, 2, 3), keepdim=True).expand_as(x_t)
        >>> y = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
        >>> result = indi(Observation(y), Flat(domain="grey"), InDI(steps=4))
        >>> bool((result.images - y.mean()).abs().max() < 1e-6), result.cost.network_calls
        (True, 4)
    """
    check_observation(observation, prior)
    noise, eps = settings.noise, settings.eps
    if noise == "trained":
        noise, eps = prior.noise, prior.eps
    if noise == "brownian" and settings.update != "indi":
        raise SettingError(
            f"Brownian noise is not defined for the update {settings.update}; "
            "take constant noise, none, or the update indi."
        )
    y = observation.initial()
    draw = Draw(generator, len(y), y.device)
    times = settings.times
    recorder = RunRecorder(prior, len(times) - 1, on_step, start)
    prior = recorder.prior

    # Start: the observation at the first time, with the noise of that time.
    x_1, clean = y, y
    if noise != "none":
        scale = eps * float(times[0]) ** (0.5 if noise == "brownian" else 1)
        x_1 = y + scale * draw.normal(*y.shape[1:])
    x_t = x_1
    if start is not None:
        start.check("indi", y.shape, y.device)
        start.restore_generators(draw)
    if start is not None and start.noise is not None and start.memory:
        x_t, x_1, clean = start.noise, start.memory["x_1"], start.memory["clean"]

    reason = StopReason.COMPLETED
    try:
        for t, s in list(pairwise(times))[recorder.first_step :]:
            # Regression, and the step towards its result.
            with torch.no_grad():
                clean = predict(prior, x_t, float(t), settings.ensemble)
            x_t = step(x_t, clean, x_1, t / times[0], s / times[0], settings.update)
            if noise == "brownian" and s > 0:
                # s sqrt(eps_s^2 - eps_t^2) with eps_t = eps / sqrt(t), without division by s.
                scale = eps * float(s * (1 - s / t)) ** 0.5
                x_t = x_t + scale * draw.normal(*y.shape[1:])
            loss = (clean - y).square_().mean((1, 2, 3))
            recorder.step(clean.clamp(0, 1), loss, t=torch.full_like(loss, float(t)))
    except Cancelled:
        reason = StopReason.CANCELLED
    loop: dict[str, Any] = {"x_1": x_1, "clean": clean, "generators": draw.get_states()}
    state = recorder.state("indi", recorder.n_done, x_t, **loop)
    return recorder.result("indi", clean.clamp(0, 1), settings, draw.seeds, reason, state=state)
