"""Time and memory of a run, estimated from a small part of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pristina.errors import Cancelled
from pristina.memory import run_bytes, used_bytes
from pristina.methods.steps.recorder import peak_bytes
from pristina.methods.steps.result import Calls, Result
from pristina.operators.base import Observation
from pristina.priors.base import BasePrior
from pristina.priors.load import try_images
from pristina.priors.windowed import Windowed
from pristina.settings import Settings
from pristina.types import StepEvent

MEASURED_PX = 512
"""Largest side at which the time of a network call is measured; larger ones follow by area."""
MEASURED_STEPS = 3
"""Steps that are run of a method without a network."""


@dataclass(frozen=True)
class Estimate:
    """What a plan will take on this machine, measured with a single network call or a few steps.

    Attributes:
        seconds: Wall time for one picture.
        peak_bytes: Peak memory of the device, or of this process on the CPU.
        call_seconds: Time of one network call; 0 for a method without a network.
    """

    seconds: float
    peak_bytes: int
    call_seconds: float


def estimate_calls(
    prior: BasePrior, calls: Calls, size: tuple[int, int], n_images: int = 1
) -> Estimate:
    """Measure one network call, and estimate time and memory of all calls.

    Args:
        prior: The weights.
        calls: Network calls for all images, all windows counted.
        size: Height and width at which the prior works, in pixels.
        n_images: Number of images that are restored together (default 1).
    """
    prior = prior.counted()
    rule = prior.size_rule
    height, width = size
    if not rule.fixed:
        most = max(rule.minimum, MEASURED_PX // rule.multiple * rule.multiple)
        if isinstance(prior, Windowed):
            most = 2 * prior.window_px  # Nine windows, or as many as their overlap makes.
        height, width = min(height, most), min(width, most)
    whole = prior.calls_per_image(*size)
    share = whole / prior.calls_per_image(height, width)
    if not isinstance(prior, Windowed):
        share *= size[0] * size[1] / (height * width)
    _one_call(prior, height, width, differentiate=False)  # Warm-up.
    forward_s = _one_call(prior, height, width, differentiate=False)
    both_s = _one_call(prior, height, width, differentiate=True) if calls.backward else 0.0
    seconds = (calls.forward - calls.backward) * forward_s + calls.backward * both_s
    n_bytes = used_bytes(prior.device) + run_bytes(
        prior, calls, size, n_images, prior.portions.pixels
    )
    return Estimate(seconds * share / whole, n_bytes, forward_s * share / whole)


def _one_call(prior: BasePrior, height: int, width: int, *, differentiate: bool) -> float:
    """Return the seconds of one network call on an image of the given size."""
    x = torch.full((1, prior.channels, height, width), 0.5, device=prior.device)
    x.requires_grad_(differentiate)
    begun = time.perf_counter()
    with torch.set_grad_enabled(differentiate):
        out = try_images(prior, x)
        if differentiate:
            torch.autograd.grad(out.sum(), x)
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - begun


def estimate_steps(
    function: Callable[..., Result], observation: Observation, settings: Settings
) -> Estimate:
    """Run the first steps of a method without a network, and estimate the time of all.

    Args:
        function: The method.
        observation: One image of the size in question.
        settings: Settings of the method.
    """
    times: list[float] = [time.perf_counter()]
    n_steps = 1

    def on_step(event: StepEvent) -> None:
        nonlocal n_steps
        times.append(time.perf_counter())
        n_steps = event.n_steps
        if event.step == MEASURED_STEPS:
            raise Cancelled

    function(observation, None, settings, on_step=on_step)
    seconds = n_steps * (times[-1] - times[0]) / max(1, len(times) - 1)
    return Estimate(seconds, peak_bytes(observation.y.device), 0.0)
