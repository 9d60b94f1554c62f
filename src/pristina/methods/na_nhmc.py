"""NA-NHMC: sample the seed of a few DDIM steps by Hamiltonian Monte Carlo, whatever the noise.

Glossary:
    y: observation; m: number of its values.
    A: operator.
    z: seed, standard normal before y is known.
    D: DDIM without fresh noise, from z at three quarters of the timesteps to a clean image.
    E: ``||y - A D(z)||^2``, in [-1, 1] units.
    U: potential, the negative log density of z.
    p: momentum, with a mass of 1.
    epsilon: step size of the leapfrog scheme.

    U(z) = ||z||^2 / 2 + (m / 2) log E    (the noise level of y is integrated out)

Source:
    Xia, Tanomkiattikun, Zhen and Gu, "Noise-adaptive diffusion sampling for inverse problems
    without task-specific tuning", ICLR 2026, of which we read the abstract, and the released code
    of its variant for unknown noise: timesteps 750 and 375; in the first trajectories E is divided
    by ``2 s^2`` with s falling from 2.5 towards 0.5 instead; epsilon is 0.05 there and 0.01
    afterwards, and 5 % smaller after each proposal that is refused; until the last trajectory, a
    proposal of lower U is accepted whatever the momentum says. Deliberate differences:

    * The number of trajectories is that of proposals, there of those that were accepted; a chain
      whose proposals are refused five times in a row goes on, there it ends.
    * Each image of a batch has a chain and an epsilon of its own.
    * The gradient at the beginning of a trajectory is that of the end of the last one, there it is
      computed anew.
    * The defaults are for few trajectories; :data:`PAPER` has the released ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge
from torch import Tensor

from pristina.errors import Cancelled, SettingError
from pristina.methods.steps.latent import first_noise
from pristina.methods.steps.linear import known_operator
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.priors.schedule import alpha_bar_at, ddim_step
from pristina.settings import Count, Positive, Settings
from pristina.types import Draw, Generators, Images, OnStep

NOISIEST = 0.75
"""Timestep at which D begins, as a share of all."""

WARM, WARMEST = 0.5, 2.5
"""Noise levels of the warm-up, in [-1, 1] units: it falls from the second towards the first."""

SHRINK = 0.95
"""Factor of epsilon after a proposal that is refused."""


@dataclass(frozen=True)
class NANHMC(Settings):
    """Settings of :func:`na_nhmc`.

    Attributes:
        trajectories: Number of proposals.
        warm_up: Number of trajectories, from the first, with a noise level that is set and falls.
        samples: Number of trajectories, from the last, that are accepted by Metropolis's rule
            alone, with an epsilon that stays, and whose images are averaged.
        leapfrog: Number of leapfrog steps in a trajectory, each with a gradient of D.
        first_step: Epsilon of the warm-up.
        step: Largest epsilon afterwards.
        sampler_steps: Network calls of D, all of them differentiated.
    """

    trajectories: Count = 20
    warm_up: Annotated[int, Ge(0)] = 2
    samples: Count = 1
    leapfrog: Count = 10
    first_step: Positive = 0.05
    step: Positive = 0.02
    sampler_steps: Count = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples > self.trajectories:
            raise SettingError(
                f"samples must be at most the {self.trajectories} trajectories, not {self.samples}."
            )


PAPER = NANHMC(trajectories=81, warm_up=10, leapfrog=20, step=0.01)
"""Settings of the released configuration."""


def calls(settings: NANHMC) -> Calls:
    """Return the network calls for one image."""
    n = (1 + settings.trajectories * settings.leapfrog) * settings.sampler_steps
    return Calls(n, n, kept=settings.sampler_steps)


class Place(NamedTuple):
    """Seeds, and what has been computed there.

    Attributes:
        z: Seeds, (B, C, H, W).
        x: Clean images, in [-1, 1] units.
        error: E of each image, (B, 1, 1, 1).
        slope: Gradient of E.
    """

    z: Tensor
    x: Tensor
    error: Tensor
    slope: Tensor

    def where(self, yes: Tensor, other: Place) -> Place:
        """Take the rows ``yes``, (B, 1, 1, 1), from here and the others from ``other``."""
        return Place(*(torch.where(yes, a, b) for a, b in zip(self, other, strict=True)))


def decode(prior: Prior, z: Tensor, steps: int) -> Images:
    """Compute ``D(z)``, in [-1, 1] units; the network's noise is taken as it is, not clipped."""
    times = [NOISIEST * len(prior.alpha_bar) * k / steps for k in range(steps, 0, -1)]
    x = z
    for t, s in zip(times, [*times[1:], -1.0], strict=True):
        eps, x0 = prior.predict(x, t)
        x = ddim_step(x0.clamp(-1, 1), eps, alpha_bar_at(prior.alpha_bar, s))
    return x.clamp(-1, 1)


def na_nhmc(
    observation: Observation,
    prior: Prior,
    settings: NANHMC = NANHMC(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Sample images that the true operator and noise of any level could have turned into ``y``.

    Args:
        observation: Degraded images and the true operator, which need not be linear.
        prior: Diffusion prior.
        settings: Settings, see :class:`NANHMC`.
        start: State of an earlier run to go on from. Of a state without progress the seed is used.
        generator: Random generators, one for each image.
        on_step: Function called after each trajectory.

    Returns:
        Result with the images; traces ``loss``, the mean squared residual in [0, 1] units,
        ``accepted`` (1 where the proposal was) and ``step_size``; extras ``z``, the seed, and
        ``sigma``, the root mean square of the residual, (B,).

    Raises:
        OperatorError: There is no operator.
        InputError: The observation does not fit the prior, or the state to the observation.
        SizeError: The prior does not accept the size.

    Source:
        See the module.

    Example:
        >>> from pristina.operators.base import Operator
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> observation = Observation(torch.full((1, 3, 8, 8), 0.6), Operator())
        >>> settings = NANHMC(trajectories=3, leapfrog=5)
        >>> result = na_nhmc(observation, GaussianPrior(variance=0.1), settings)
        >>> result.images.shape, result.cost.network_calls
        (torch.Size([1, 3, 8, 8]), 32)
    """
    known = known_operator("NA-NHMC", observation)
    size = check_observation(observation, prior)
    y, n = observation.y, len(observation.y)
    operator = known.for_batch(n).requires_grad_(False)
    draw = Draw(generator, n, y.device)
    recorder = RunRecorder(prior, settings.trajectories, on_step, start)
    prior = recorder.prior

    def visit(z: Tensor) -> Place:
        z = z.detach().requires_grad_()
        x = decode(prior, z, settings.sampler_steps)
        error = (to_signed(operator(to_unit(x))) - to_signed(y)).square().sum((1, 2, 3))
        (slope,) = torch.autograd.grad(error.sum(), z)
        recorder.backward_calls += settings.sampler_steps * n
        return Place(z.detach(), x.detach(), error.detach().view(-1, 1, 1, 1), slope)

    z = first_noise("na_nhmc", (n, prior.channels, *size), draw, start)
    memory = {} if start is None else start.recall()
    epsilon = memory.get("epsilon", torch.full((n, 1, 1, 1), settings.first_step, device=y.device))
    total, images = memory.get("total", torch.zeros_like(z)), memory.get("images", z)
    here: Place | None = memory.get("here")
    stop = StopReason.COMPLETED
    try:
        here = visit(z) if here is None else here
        for k in range(recorder.first_step, settings.trajectories):
            potential = Potential(y[0].numel(), k, settings.warm_up)
            if k == settings.warm_up:
                epsilon = epsilon.clamp(max=settings.step)
            there, yes = propose(visit, potential, here, epsilon, settings.leapfrog, draw)
            n_taken = k + 1 - (settings.trajectories - settings.samples)
            if n_taken <= 0:
                yes = yes | (potential(there) < potential(here))
                epsilon = torch.where(yes, epsilon, SHRINK * epsilon)
            here = there.where(yes, here)
            images = to_unit(here.x)
            if n_taken > 0:
                total = total + images
                images = total / n_taken
            moves = {"accepted": yes.flatten().float(), "step_size": epsilon.flatten()}
            recorder.step(images, mean_square(here, y), **moves)
    except Cancelled:
        stop = StopReason.CANCELLED
    assert here is not None
    loop = {"here": here, "epsilon": epsilon, "total": total, "images": images}
    state = recorder.state(
        "na_nhmc", recorder.n_done, here.z, None, **loop, generators=draw.get_states()
    )
    sigma = mean_square(here, y).sqrt()
    return recorder.result(
        "na_nhmc", images, settings, draw.seeds, stop, state=state, z=here.z, sigma=sigma
    )


def mean_square(place: Place, y: Tensor) -> Tensor:
    """Return the mean squared residual of each image in [0, 1] units, which are half as large."""
    return place.error.flatten() / (4 * y[0].numel())


def propose(
    visit: Callable[[Tensor], Place],
    potential: Potential,
    here: Place,
    epsilon: Tensor,
    n: int,
    draw: Draw,
) -> tuple[Place, Tensor]:
    """Go from ``here`` with a random momentum, ``n`` leapfrog steps far.

    Returns:
        Where that leads, and whether Metropolis's rule accepts it, (B, 1, 1, 1).
    """
    p = draw.normal(*here.z.shape[1:])
    energy, there = potential(here) + half_square(p), here
    for _ in range(n):
        p = p - epsilon / 2 * potential.gradient(there)
        there = visit(there.z + epsilon * p)
        p = p - epsilon / 2 * potential.gradient(there)
    chance = (energy - potential(there) - half_square(p)).exp()
    return there, draw.uniform(1, 1, 1) < chance


def half_square(x: Tensor) -> Tensor:
    """Return ``||x||^2 / 2`` of each image, (B, 1, 1, 1)."""
    return x.square().sum((1, 2, 3), keepdim=True) / 2


class Potential:
    """Potential U of a trajectory, without constants.

    Args:
        m: Number of values of an observation.
        k: Number of the trajectory, from 0.
        warm_up: Number of trajectories with a noise level that is set.
    """

    def __init__(self, m: int, k: int, warm_up: int):
        self.m, self.sigma = m, None if k >= warm_up else WARMEST - (WARMEST - WARM) * k / warm_up

    def __call__(self, place: Place) -> Tensor:
        """Return U of each image, (B, 1, 1, 1)."""
        if self.sigma is not None:
            return half_square(place.z) + place.error / (2 * self.sigma**2)
        return half_square(place.z) + self.m / 2 * place.error.log()

    def gradient(self, place: Place) -> Tensor:
        """Return the gradient of U in z."""
        if self.sigma is not None:
            return place.z + place.slope / (2 * self.sigma**2)
        return place.z + self.m / 2 * place.slope / place.error
