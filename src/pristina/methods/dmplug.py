"""DMPlug: find the seed whose image, made by a few DDIM steps, explains the observation.

Glossary:
    y: observation.
    A: operator; eta: its unknowns, such as the logits of a blur kernel.
    z: seed, the noise at which the sampler begins.
    G: sampler of ``sampler_steps`` DDIM steps without fresh noise; x = G(z).

    min over z, eta of  ||y - A_eta(G(z))||^2

Source:
    Wang, Zhang, Li, Wan, Chen and Sun, "DMPlug: A plug-in method for solving inverse problems with
    diffusion models", NeurIPS 2024, whose text was not available to us, and its released code
    (``sr_inp_nonlinear.py``, ``bid.py``): three steps, differentiated in full; Adam without any
    constraint on z; a kernel that is the softmax of free numbers, with a rate of its own. It is
    BIRD with the true gradient and without the sphere. Deliberate differences:

    * The released scripts print the best PSNR, SSIM and LPIPS of the whole run, each chosen with
      the truth. Here the last image is returned; or, with a ``window``, the image at whose
      iteration the moving variance of the outputs was least (as in :mod:`pristina.methods.dip`).
      The run is not shortened by that.
    * A kernel starts from the operator's first guess, not from random logits, and is returned with
      its centre of mass in the middle, the image moved along.
    * The defaults are for few iterations; the published ones are presets.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from pristina.errors import Cancelled
from pristina.methods.steps.joint import fit_calls, joint_adam, joint_result
from pristina.methods.steps.latent import first_noise, first_operator
from pristina.methods.steps.linear import known_operator
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, Stop, StopReason
from pristina.operators.base import Observation
from pristina.priors.base import Prior
from pristina.priors.generate import generate
from pristina.settings import Count, Positive, Settings
from pristina.types import Draw, Generators, OnStep


@dataclass(frozen=True)
class DMPlug(Settings):
    """Settings of :func:`dmplug`.

    Attributes:
        iterations: Number of optimiser steps.
        learning_rate: Learning rate of Adam for z.
        operator_learning_rate: Learning rate of Adam for the operator's unknowns, in the units in
            which the operator keeps them.
        kernel_learning_rate: Learning rate of Adam for kernels that are kept as logits.
        sampler_steps: Network calls of G in each iteration, all of them differentiated.
        window: Number of outputs whose variance chooses the image; 0 for the last image.
        centre: Whether a free kernel is returned with its centre of mass in the middle, and the
            image moved along.
    """

    iterations: Count = 100
    learning_rate: Positive = 0.05
    operator_learning_rate: Positive = 0.05
    kernel_learning_rate: Positive = 0.1
    sampler_steps: Count = 3
    window: Annotated[int, Ge(0)] = 0
    centre: bool = True


PAPER = DMPlug(iterations=5000, learning_rate=0.01)
"""Settings of the released scripts for enlarging and inpainting."""
PAPER_BLIND = DMPlug(iterations=10_000, learning_rate=0.01)
"""Settings of the released scripts for an unknown blur and for operators that are not linear."""


def calls(settings: DMPlug) -> Calls:
    """Return the network calls for one image."""
    n = settings.iterations
    return fit_calls(n, settings.sampler_steps, "full", n_images=n)


@dataclass(frozen=True)
class Choice:
    """Image of each run that is returned if it ends now.

    Attributes:
        images: The images, (B, C, H, W).
        step: Number of the iteration of each, from 1, (B,).
        least: Least variance of a window so far, (B,).
        recent: Last outputs, at most as many as the window is long.
    """

    images: Tensor
    step: Tensor
    least: Tensor
    recent: tuple[Tensor, ...] = field(default=())

    def after(self, x: Tensor, step: int, window: int) -> Choice:
        """Return the choice after the outputs of one more iteration, (B, C, H, W)."""
        recent = (*self.recent, x)[-window:] if window else ()
        if len(recent) < window or not window:
            return replace(self, images=x, step=torch.full_like(self.step, step), recent=recent)
        variance = torch.stack(recent).var(0, unbiased=False).mean((1, 2, 3))
        lower = variance < self.least
        return Choice(
            torch.where(lower[:, None, None, None], x, self.images),
            torch.where(lower, step, self.step),
            torch.minimum(variance, self.least),
            recent,
        )


def dmplug(
    observation: Observation,
    prior: Prior,
    settings: DMPlug = DMPlug(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Restore images by finding their seed, and with it the unknowns of the operator.

    Args:
        observation: Degraded images, and the operator, which need not be linear. Its learnable
            parameters are unknowns and start from a first guess; what is not learnable is known.
        prior: Diffusion prior.
        settings: Settings, see :class:`DMPlug`.
        start: State of an earlier run to go on from.
        generator: Random generators, one for each image.
        on_step: Function called after each iteration.

    Returns:
        Result with the images and the operator of the last iteration; trace ``loss``, the mean
        squared residual in [0, 1] units; extras ``z``, the seed, and ``shift_px``, (B, 2), by which
        a kernel was off its middle and the image has been moved.

    Raises:
        OperatorError: There is no operator, or it belongs to another number of images.
        InputError: The observation does not fit the prior, or the state to the observation.
        SizeError: The prior does not accept the size.

    Source:
        See the module.

    Example:
        >>> from pristina.operators.blur import GaussianBlur
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> y = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> observation = Observation(y, GaussianBlur(1.0, size=9))
        >>> result = dmplug(observation, GaussianPrior(variance=0.1), DMPlug(iterations=5))
        >>> result.images.shape, result.cost.network_calls, result.cost.backward_calls
        (torch.Size([1, 3, 16, 16]), 15, 15)
    """
    known_operator("DMPlug", observation)
    size = check_observation(observation, prior)
    y, n = observation.y, len(observation.y)
    draw = Draw(generator, n, y.device)
    recorder = RunRecorder(prior, settings.iterations, on_step, start)
    prior = recorder.prior
    z = torch.nn.Parameter(first_noise("dmplug", (n, prior.channels, *size), draw, start))
    operator = first_operator(observation, start)
    optimizer = joint_adam(z, operator, settings, start)
    memory = {} if start is None else start.recall()
    nothing = Choice(z.detach(), torch.ones(n).long(), y.new_full((n,), torch.inf))
    choice = earlier = memory.get("choice", nothing)
    reason, step = StopReason.COMPLETED, recorder.first_step
    try:
        while step < settings.iterations:
            # Image of the current seed, and its residual.
            x = generate(prior, z, settings.sampler_steps, gradient="full")
            loss = (operator(x) - y).square().mean((1, 2, 3))
            choice = earlier.after(x.detach(), step + 1, settings.window)
            recorder.step(choice.images, loss)

            # Joint step of seed and operator.
            optimizer.zero_grad()
            loss.sum().backward()
            recorder.backward_calls += settings.sampler_steps * n
            optimizer.step()
            operator.project()
            step, earlier = step + 1, choice
    except Cancelled:
        reason = StopReason.CANCELLED
    # A run that goes on repeats the last iteration.
    adam, random = optimizer.state_dict(), draw.get_states()
    state = recorder.state(
        "dmplug", step, z, operator, choice=earlier, optimizer=adam, generators=random
    )
    result = joint_result(
        recorder, "dmplug", settings, draw, Stop(reason, recorder.n_done), state, choice.images
    )
    if not settings.window or reason is StopReason.CANCELLED:
        return result
    stopped = [Stop(StopReason.VARIANCE, step) for step in choice.step.tolist()]
    return replace(result, stopped=stopped)
