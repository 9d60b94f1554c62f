"""Invert2Restore: find the noise behind the observation, make it typical, and let the prior draw again.

Glossary: y observation, H the operator and eta its unknown parameters, z noise, xi fresh noise, x = G(z).

Three steps: A invert (G(z) = y), B rectify (the nearest noise that passes for N(0, I), see :mod:`pristina.methods.rectify`), C generate.
Fully blind when nothing is known about the damage; partially blind when its form is: ``||y - H_eta(G(z))||^2`` is minimised over both.

Source:
    Chihaoui and Favaro, "Invert2Restore", 2025. The text of its three algorithms was not available; steps A to C follow its summaries, what
    is inside them was designed here. :data:`DESIGNED` is the first design: A and B once each, A by fixed-point inversion of the sampler
    (which reproduces y to 38 dB and more, so that no descent follows it). It turned out weak on small face priors, so the default differs.
    (1) A is a fit by Adam from typical noise, not an inversion: a clean picture, too, inverts to noise that fails the tests (norm 0.4 to
    1.2 of the sphere's, colours correlated), because neither prior nor few-step sampler is exact, and correcting that costs content: at
    32 px a *clean* picture comes back at 20 to 25 dB. (2) B is applied after every iteration, not once: the fit then puts the content
    back that a correction took. (3) B sets the scale of patches, as the whole norm is set in BIRD, and goes no further: their means and
    correlations carry the picture's own colours and shapes, so that the full correction fades them. :data:`FULL` makes it all the same,
    every ten iterations, and then fits for five, which brings back colours and shapes before the damage. On twenty held-out faces (seed 0;
    input, default, ``FULL``; PSNR in dB and HaarPSI) it takes the blocks of JPEG 10 away: 25.7 and 0.741, 26.2 and 0.772, 25.6 and 0.784. It loses
    where the damage leaves most of the picture alone (water drops: 26.4 and 0.817, 26.6 and 0.809, 24.7 and 0.775), and under noise.
    With ``rectifier="norm"`` this is BIRD.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from pristina.errors import Cancelled, SettingError
from pristina.methods.base import Books, Result, check_observation, to_sphere
from pristina.methods.bird import centre_kernel, cooling, joint_adam
from pristina.methods.rectify import Rung, check_rung, rectify
from pristina.operators.base import Observation, Operator
from pristina.priors.base import Prior
from pristina.priors.generate import Gradient, check_gradient, generate, invert
from pristina.types import Draw, OnStep

Start = Literal["inverse", "noise"]
"""Where z starts: at the ``inverse`` of the observation under G, or at typical ``noise``."""


@dataclass(frozen=True)
class Invert2Restore:
    """Settings of :func:`invert2restore`.

    Attributes:
        start: Where z starts, see :data:`Start`.
        refine: Network calls for each step of the inverse, if that is where z starts.
        iterations: Of Adam on z and the operator's unknowns; 0 leaves z where it starts.
        learning_rate: Of Adam on z.
        operator_learning_rate: Of Adam on the operator's unknowns.
        kernel_learning_rate: Of Adam on kernels that are kept as logits; both fall to zero, as in BIRD.
        sampler_steps: Network calls of G.
        gradient: How G is differentiated.
        rectifier: How far the correction of z may go, see :data:`pristina.methods.rectify.Rung`.
        every: Rectify after every so many iterations, and set the norm after the others; 0, or more than there are
            iterations: only once, at the end.
        p_min: Chance that typical noise is changed at all by one rectification.
        centre: Return a free kernel with its centre of mass in the middle, and the picture moved along.
    """

    start: Start = "noise"
    refine: int = 8
    iterations: int = 200
    learning_rate: float = 0.02
    operator_learning_rate: float = 0.05
    kernel_learning_rate: float = 0.07
    sampler_steps: int = 5
    gradient: Gradient = "detached"
    rectifier: Rung = "scale"
    every: int = 1
    p_min: float = 0.05
    centre: bool = True

    def __post_init__(self) -> None:
        check_gradient(self.gradient)
        check_rung(self.rectifier)
        if self.start not in get_args(Start):
            raise SettingError(f"start must be one of {', '.join(get_args(Start))}; not {self.start!r}.")
        for name, least in (("iterations", 0), ("every", 0), ("refine", 1), ("sampler_steps", 1)):
            if getattr(self, name) < least:
                raise SettingError(f"{name} must be at least {least}, not {getattr(self, name)}.")
        for name in ("learning_rate", "operator_learning_rate", "kernel_learning_rate"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name} must be positive, not {getattr(self, name)}.")
        if not 0 < self.p_min < 1:
            raise SettingError(f"p_min must lie between 0 and 1, not {self.p_min}.")


DESIGNED = Invert2Restore(start="inverse", iterations=0, sampler_steps=10, rectifier="noise", every=0)
FULL = Invert2Restore(iterations=105, rectifier="noise", every=10)


def invert2restore(
    observation: Observation,
    prior: Prior,
    settings: Invert2Restore = Invert2Restore(),
    *,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """The pictures that the prior draws from typical noise near that in which the observation is found.

    Args:
        observation: The degraded pictures; the form of the damage, if it is known (partially blind).
        prior: The diffusion prior.
        settings: See :class:`Invert2Restore`.
        generator: One for each picture.
        on_step: Called after each iteration and at the end.

    Returns:
        Pictures of the prior's size; the estimated operator; the mean squared residual as trace ``loss``; in the extras the final noise
        ``z``, the noise before the last rectification ``z_found``, ``changed``, the share of the pixels that it corrected (B,),
        ``gamma``, the largest share of fresh noise that it mixed in (B,), and ``shift_px`` (B, 2), as in BIRD.

    Raises:
        SizeError: The prior does not accept the size.
        InputError: NaN, or the wrong number of channels.
        OperatorError: The operator does not fit the observation.

    Source:
        See the module.

    Example:
        >>> import torch
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> y = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> result = invert2restore(Observation(y), GaussianPrior(0.0, 0.3), DESIGNED)
        >>> d = result.extras["z"].numel()
        >>> round(float(result.extras["z"].norm()) / d**0.5, 4)
        1.0
    """
    height, width = check_observation(observation, prior)
    y = observation.y
    n = len(y)
    draw = Draw(generator, n, y.device)
    noise = draw.normal(prior.channels, height, width)
    xi = draw.normal(prior.channels, height, width)
    operator = (Operator() if observation.operator is None else observation.operator).for_batch(n).to(y.device)
    books = Books(prior, settings.iterations + 1, on_step)

    # A
    if settings.start == "inverse":
        steps, refine = settings.sampler_steps, settings.refine
        noise = invert(prior, observation.initial(), steps, refine=refine, tolerance=0.0)  # so that no neighbour decides when to stop
    z = torch.nn.Parameter(noise)
    optimizer = joint_adam(z, operator, settings.learning_rate, settings.operator_learning_rate, settings.kernel_learning_rate)
    schedule = cooling(optimizer, max(settings.iterations, 1))
    picture = observation.initial().clamp(0, 1)
    why = [f"all {settings.iterations} iterations done"] * n
    found, done = z.data.clone(), rectify(z.data, xi, "none")
    once = settings.every == 0 or settings.every > settings.iterations
    due = [settings.iterations] if once else range(settings.every, settings.iterations + 1, settings.every)
    try:
        for iteration in range(settings.iterations + 1):
            # B
            if iteration in due:
                found, done = z.data.clone(), rectify(z.data, xi, settings.rectifier, p_min=settings.p_min)
                z.data = done.z
            elif iteration > 0 and not once and settings.rectifier != "none":
                z.data = to_sphere(z.data)
            if iteration == settings.iterations:
                break
            # A
            x = generate(prior, z, settings.sampler_steps, gradient=settings.gradient)
            if settings.gradient != "detached":
                books.backward_calls += settings.sampler_steps * n
            loss = (operator(x) - y).square().mean((1, 2, 3))
            picture = x.detach()
            books.step(picture, loss)
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
            schedule.step()
            operator.project()
        # C
        with torch.no_grad():
            picture = generate(prior, z, settings.sampler_steps)
            books.step(picture, (operator(picture) - y).square().mean((1, 2, 3)))
    except Cancelled:
        why = [f"cancelled at iteration {books.n_done - 1}"] * n
    shift = torch.zeros(n, 2, dtype=torch.long)
    if settings.centre:
        operator, picture, shift = centre_kernel(operator, picture)
    return books.result(
        "invert2restore",
        picture,
        settings,
        draw.seeds,
        why,
        None if observation.operator is None else operator,
        z=z.detach(),
        z_found=found,
        changed=done.changed,
        gamma=done.gamma,
        shift_px=shift,
    )
