"""BIRD: find the noise that the prior turns into the image behind the observation, and the damage.

Glossary: y observation, H operator and eta its unknown parameters, k its kernel, z noise, x = G(z),
r = H(G(z)) - y, m number of values in y, d number of values in z.

    min over z, eta of  ||y - H_eta(G(z))||^2   subject to  ||z|| = sqrt(d)

Source:
    Chihaoui, Lemkhenter and Favaro, "Blind Image Restoration via Fast Diffusion Inversion",
    NeurIPS 2024, and its released code, which is the authority for :func:`bird_as_released`.

    Beyond the paper, :func:`bird` takes any operator, composed ones too; has a set of unknowns for
    each image of a batch; offers the ``marginalised`` objective and the ``average`` of estimates;
    keeps kernels centred while they are fitted (logits) or centres them on return; brings the
    operator to rest; and returns G of the final noise. What centring and rest are for stands in
    ``benchmarks/zero_shot.md``. The defaults are for small flow priors of 64 px.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from pristina.errors import Cancelled, SettingError
from pristina.methods.steps.joint import cool, fit_calls, joint_adam, joint_result
from pristina.methods.steps.latent import (
    first_noise,
    first_operator,
    mean_squared,
    put_on_sphere,
)
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, Stop, StopReason
from pristina.operators.base import Observation
from pristina.priors.base import Prior, to_signed
from pristina.priors.generate import Gradient, generate
from pristina.settings import Count, Positive, Settings
from pristina.types import Draw, Generators, OnStep, PerImage

Residual = Literal["squared", "marginalised"]
"""Objective.

``squared``: the mean of r^2. ``marginalised``: ``0.5 ||z||^2 + 0.5 m log ||r||^2``, the negative
log posterior of z when the noise level is unknown and integrated out (as in NA-NHMC, 2026); on the
sphere its first term is constant.
"""


@dataclass(frozen=True)
class BIRD(Settings):
    """Settings of :func:`bird`.

    Attributes:
        iterations: Number of optimiser steps.
        learning_rate: Learning rate of Adam for z.
        operator_learning_rate: Learning rate of Adam for the operator's unknowns, in the units in
            which the operator keeps them (mostly logarithms of positive numbers). It is larger than
            that of z, so that the operator moves before z has fitted the damage. A kernel *network*
            needs far less: 2e-4.
        kernel_learning_rate: Learning rate of Adam for kernels that are kept as logits. Both rates
            of the operator fall to zero along half a cosine: in the end z fits some noise, and an
            operator that still moved would return to the identity, which needs no prior to explain
            noise.
        sampler_steps: Network calls of G in each iteration.
        gradient: Differentiation of G, see :data:`pristina.priors.generate.Gradient`.
        sphere: Whether z returns to the sphere of typical noise after each step.
        residual: Objective, see :data:`Residual`.
        average: Number of last estimates whose mean is returned; 1 for G of the final noise.
        centre: Whether a free kernel is returned with its centre of mass in the middle, and the
            image moved along.
        as_released: Whether to run :func:`bird_as_released`, which has no other ``sphere``,
            ``residual`` and ``average`` than the defaults.
    """

    iterations: Count = 300
    learning_rate: Positive = 0.02
    operator_learning_rate: Positive = 0.05
    kernel_learning_rate: Positive = 0.07
    sampler_steps: Count = 5
    gradient: Gradient = "detached"
    sphere: bool = True
    residual: Residual = "squared"
    average: Count = 1
    centre: bool = True
    as_released: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.as_released and (self.sphere, self.residual, self.average) != (True, "squared", 1):
            raise SettingError(
                "BIRD as released has no other sphere, residual and average than the defaults; "
                "leave them, or as_released, out."
            )


_released: dict[str, Any] = {"sampler_steps": 10, "centre": False, "as_released": True}
# Blind deblurring, with FreeKernel(41, "network", "zero").
AS_RELEASED = BIRD(100, learning_rate=0.003, operator_learning_rate=2e-4, **_released)
AS_RELEASED_DENOISING = BIRD(200, learning_rate=0.01, **_released)
# With Mask: the squared error of the known pixels, averaged over all.
AS_RELEASED_INPAINTING = AS_RELEASED_DENOISING
AS_RELEASED_SUPER_RESOLUTION = BIRD(100, learning_rate=0.001, **_released)
AS_RELEASED_NON_UNIFORM = BIRD(25, learning_rate=0.002, **_released)  # Without operator.


def calls(settings: BIRD) -> Calls:
    """Return the network calls that ``settings`` imply for one image."""
    n = settings.iterations
    n_images = n if settings.as_released else n + 1
    fit = fit_calls(n, settings.sampler_steps, settings.gradient, n_images=n_images)
    return replace(fit, pictures=fit.pictures + 2 * (settings.average - 1))


def objective(r: Tensor, z: Tensor, residual: Residual) -> PerImage:
    """Compute what is minimised, for each image, (B,); see :data:`Residual`."""
    if residual == "squared":
        return mean_squared(r)
    log_energy = r.square().sum((1, 2, 3)).clamp(min=1e-12).log()
    return 0.5 * z.square().sum((1, 2, 3)) + 0.5 * r[0].numel() * log_energy


def bird(
    observation: Observation,
    prior: Prior,
    settings: BIRD = BIRD(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Restore images by finding their noise and the unknowns of the damage together.

    Args:
        observation: Degraded images, (B, C, h, w), and the form of the damage, whose unknowns are
            learnable and start from a first guess. Without an operator the images themselves are
            compared with the observation (denoising).
        prior: Diffusion prior.
        settings: Settings, see :class:`BIRD`.
        start: State of an earlier run to go on from.
        generator: One generator for each image.
        on_step: Progress callback, called after each iteration.

    Returns:
        Images of the observation's size; the estimated operator; the mean squared residual as trace
        ``loss``; in the extras the final noise ``z``, the standard deviation ``sigma`` of what
        remains unexplained, (B,), in [0, 1] units, and ``shift_px``, (B, 2), by which a kernel was
        off its middle and the image has been moved.

    Raises:
        SizeError: The prior does not accept the size.
        InputError: The channels or devices differ, or the state does not fit.
        OperatorError: The operator has parameters for another number of images.

    Source:
        See the module.

    Example:
        >>> import torch
        >>> from pristina.operators.blur import GaussianBlur
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> y = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> observation = Observation(y, GaussianBlur(1.0, size=9))
        >>> result = bird(observation, GaussianPrior(variance=0.1), BIRD(iterations=5))
        >>> result.images.shape, result.cost.network_calls
        (torch.Size([1, 3, 16, 16]), 30)
    """
    if settings.as_released:
        return bird_as_released(
            observation, prior, settings, start=start, generator=generator, on_step=on_step
        )
    y, n = observation.y, len(observation.y)
    size = check_observation(observation, prior)
    draw = Draw(generator, n, y.device)
    recorder = RunRecorder(prior, settings.iterations + 1, on_step, start)
    prior = recorder.prior
    z = torch.nn.Parameter(first_noise("bird", (n, prior.channels, *size), draw, start))
    operator = first_operator(observation, start)
    optimizer = joint_adam(z, operator, settings, start)
    memory = {} if start is None else start.recall()
    # Images of the iterations before, as far as they enter the average.
    earlier: list[Tensor] = memory.get("earlier", [])
    estimates, mean_square = earlier, memory.get("mean_square", y.new_zeros(n))
    reason, step = StopReason.COMPLETED, recorder.first_step
    try:
        for step in range(recorder.first_step, settings.iterations + 1):
            # Evaluation: the residual of the current noise and operator.
            x = generate(prior, z, settings.sampler_steps, gradient=settings.gradient)
            r = operator(x) - y
            mean_square = r.detach().square().mean((1, 2, 3))
            estimates = [*earlier, x.detach()][-settings.average :]
            recorder.step(x, mean_square)
            if step == settings.iterations:
                break

            # Joint step of noise and operator.
            if settings.gradient != "detached":
                recorder.backward_calls += settings.sampler_steps * n
            cool(optimizer, step / settings.iterations)
            total = objective(r, z, settings.residual).sum()
            del x, r
            total.backward()
            optimizer.step()
            optimizer.zero_grad()

            # Projection: unknowns that mean something, and noise of typical norm.
            operator.project()
            if settings.sphere:
                put_on_sphere(z)
            earlier = estimates
    except Cancelled:
        reason = StopReason.CANCELLED
    # A run that goes on repeats the last iteration.
    known = None if observation.operator is None else operator
    adam, random = optimizer.state_dict(), draw.get_states()
    loop = {"earlier": earlier, "mean_square": mean_square, "optimizer": adam, "generators": random}
    state = recorder.state("bird", step, z, known, **loop)
    images = estimates[0] if len(estimates) == 1 else torch.stack(estimates).mean(0)
    stop = Stop(reason, recorder.n_done)
    sigma = mean_square.sqrt()
    return joint_result(recorder, "bird", settings, draw, stop, state, images, sigma=sigma)


def bird_as_released(
    observation: Observation,
    prior: Prior,
    settings: BIRD = AS_RELEASED,
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Restore images as the released scripts of BIRD do; see :func:`bird` for the parameters.

    Source:
        The released code: the network's noise is a constant to the gradient; z and the kernel's
        network take one joint step of Adam, at rates that stay; z then returns to the sphere. The
        operator acts on [-1, 1] pixels, so that a zero border is middle grey. The image of every
        tenth iteration is saved, counted from 0, and the last one saved is the result: G after 90
        of 100 steps.

        Deliberate differences: its kernel is applied as correlation, ours is a point spread
        function, so the two are turned by 180 degrees to each other; a batch has unknowns for each
        image; the losses are reported in [0, 1] units.
    """
    y, n = observation.y, len(observation.y)
    size = check_observation(observation, prior)
    draw = Draw(generator, n, y.device)
    recorder = RunRecorder(prior, settings.iterations, on_step, start)
    prior = recorder.prior
    shape = (n, prior.channels, *size)
    z = torch.nn.Parameter(first_noise("bird_as_released", shape, draw, start))
    operator = first_operator(observation, start)
    optimizer = joint_adam(z, operator, settings, start)
    memory = {} if start is None else start.recall()
    with torch.no_grad():
        # A hole is 0 in what the operator makes of [-1, 1] pixels, and not black.
        seen = first_operator(observation, None)(torch.ones_like(z)) != 0
        target = to_signed(y) * seen

    saved, mean_square = memory.get("saved", z), memory.get("mean_square", y.new_zeros(n))
    reason, step = StopReason.COMPLETED, recorder.first_step
    try:
        while step < settings.iterations:
            # Evaluation, on [-1, 1] pixels.
            x = generate(prior, z, settings.sampler_steps, gradient=settings.gradient)
            r = operator(to_signed(x)) - target
            mean_square = r.detach().square().mean((1, 2, 3)) / 4
            if step % 10 == 0:
                saved = x.detach()
            recorder.step(saved, mean_square)

            # Joint step of noise and operator, and projection.
            if settings.gradient != "detached":
                recorder.backward_calls += settings.sampler_steps * n
            objective(r, z, "squared").sum().backward()
            del x, r
            optimizer.step()
            optimizer.zero_grad()
            operator.project()
            put_on_sphere(z)
            step += 1
    except Cancelled:
        reason = StopReason.CANCELLED
    known = None if observation.operator is None else operator
    adam, random = optimizer.state_dict(), draw.get_states()
    loop = {"saved": saved, "mean_square": mean_square, "optimizer": adam, "generators": random}
    state = recorder.state("bird_as_released", step, z, known, **loop)
    stop = Stop(reason, (recorder.n_done - 1) // 10 * 10 + 1)
    sigma = mean_square.sqrt()
    return joint_result(recorder, "bird", settings, draw, stop, state, saved, sigma=sigma)
