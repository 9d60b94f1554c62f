"""Joint fit of noise and operator: its optimiser, its learning rates, its network calls."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pristina.methods.steps.recorder import RunRecorder
from pristina.methods.steps.result import Calls, Result, State, Stop
from pristina.operators.base import Compose, Operator
from pristina.operators.blur import FreeKernel
from pristina.operators.convolve import centre
from pristina.priors.base import Prior
from pristina.priors.generate import Gradient
from pristina.types import Draw, Images


def fit_calls(
    n_updates: int, sampler_steps: int, gradient: Gradient, *, n_images: int, may_stop: bool = False
) -> Calls:
    """Return the network calls of a fit of noise through the sampler, for one image.

    Args:
        n_updates: Optimiser steps, each of which differentiates the sampler.
        sampler_steps: Network calls of the sampler.
        gradient: Differentiation of the sampler.
        n_images: Number of times that an image is generated.
        may_stop: Whether the method may stop earlier.
    """
    forward, through = n_images * sampler_steps, n_updates * sampler_steps
    if gradient == "checkpointed":  # Each call is made again on the way back.
        forward += through
    backward = 0 if gradient == "detached" else through
    kept = sampler_steps if gradient == "full" else 1
    # What each step of the sampler keeps for its gradient, beside what is there once.
    pictures = 16 + math.ceil((0.25 if gradient == "detached" else 1.25) * sampler_steps)
    return Calls(forward, backward, kept, may_stop, pictures)


@runtime_checkable
class JointSettings(Protocol):
    """Settings of a joint fit."""

    @property
    def learning_rate(self) -> float:
        """Learning rate for the noise."""

    @property
    def operator_learning_rate(self) -> float:
        """Learning rate for the operator's parameters."""

    @property
    def kernel_learning_rate(self) -> float:
        """Learning rate for those among them that are logits of kernels."""

    @property
    def centre(self) -> bool:
        """Whether a free kernel is returned with its centre of mass in the middle."""


def joint_adam(
    z: Tensor, operator: Operator, settings: JointSettings, start: State | None = None
) -> torch.optim.Adam:
    """Make one optimiser for noise and operator, each with its learning rate.

    Args:
        z: Noise.
        operator: Operator, whose learnable parameters are optimised.
        settings: Settings with the learning rates.
        start: State whose ``optimizer`` is continued, if it has one.
    """
    groups = [{"params": [z], "lr": settings.learning_rate}]
    for name, parameter in operator.named_parameters():
        if parameter.requires_grad:
            is_kernel = name.endswith("logits")
            rate = settings.kernel_learning_rate if is_kernel else settings.operator_learning_rate
            groups.append({"params": [parameter], "lr": rate})
    optimizer = torch.optim.Adam([{**group, "initial_lr": group["lr"]} for group in groups])
    if start is not None and start.memory:
        optimizer.load_state_dict(start.recall()["optimizer"])
    return optimizer


def cool(optimizer: torch.optim.Adam, share: float) -> None:
    """Set the learning rates of the operator along half a cosine; that of z stays.

    Args:
        optimizer: Optimiser that :func:`joint_adam` made.
        share: Share of the iterations that is done: the rates fall from their first value at 0 to
            zero at 1.
    """
    for group in optimizer.param_groups[1:]:
        group["lr"] = group["initial_lr"] * (0.5 + 0.5 * math.cos(math.pi * min(share, 1)))


def joint_result(
    recorder: RunRecorder[Prior],
    method: str,
    settings: JointSettings,
    draw: Draw,
    stop: Stop,
    state: State,
    images: Images,
    **extras: Tensor,
) -> Result:
    """Return the result of a joint fit, with the kernel centred if the settings ask for it.

    Args:
        recorder: Recorder of the run.
        method: Name of the method.
        settings: Settings of the method.
        draw: Generators of the run.
        stop: Why and when the work on all images ended.
        state: State from which the run can go on, with the noise and the estimated operator.
        images: Restored images.
        extras: Further tensors of the method; ``z`` and ``shift_px`` are added.
    """
    operator, shift = state.operator, torch.zeros(len(images), 2, dtype=torch.long)
    if settings.centre and operator is not None:
        operator, images, shift = centre_kernel(operator, images)
    if state.noise is not None:
        extras = {"z": state.noise, **extras}
    stops = [stop] * len(images)
    return recorder.result(
        method,
        images,
        settings,
        draw.seeds,
        stops,
        operator=operator,
        state=state,
        shift_px=shift,
        **extras,
    )


def centre_kernel(operator: Operator, images: Images) -> tuple[Operator, Images, Tensor]:
    """Centre a free kernel, and move the images along.

    Only a kernel that acts first can be traded against a shift of the image. What comes in at the
    border repeats the outermost pixels.

    Args:
        operator: Operator; unless its first part is a free kernel, nothing changes.
        images: Images that it degrades.

    Returns:
        The operator, the images, and the shift (dy, dx) of each image in px, (B, 2).
    """
    first = operator.parts[0]
    still = torch.zeros(len(images), 2, dtype=torch.long)
    if not isinstance(first, FreeKernel):
        return operator, images, still
    with torch.no_grad():
        kernel, shift = centre(first.kernel())
    if not shift.any():
        return operator, images, still
    centred: Operator = FreeKernel(first.size, "logits", first.boundary, start=kernel)
    if isinstance(operator, Compose):
        centred = Compose([centred, *operator.parts[1:]])
    moved = [_moved(x, dy, dx) for x, (dy, dx) in zip(images, shift.tolist(), strict=True)]
    return centred, torch.stack(moved), shift.cpu()


def _moved(x: Tensor, dy: int, dx: int) -> Tensor:
    """Shift an image (C, H, W) by whole pixels."""
    height, width = x.shape[-2:]
    rows = (torch.arange(height, device=x.device) - dy).clamp(0, height - 1)
    columns = (torch.arange(width, device=x.device) - dx).clamp(0, width - 1)
    return x[:, rows][:, :, columns]
