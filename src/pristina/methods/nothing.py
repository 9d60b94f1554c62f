"""Nothing: leave the image as it is, because a restorer would only harm it.

Source:
    None. Every table needs it for comparison, and it is the best method for a clean image.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import torch

from pristina.errors import Cancelled
from pristina.methods.steps.recorder import RunRecorder
from pristina.methods.steps.result import Calls, Result, State, Stop, StopReason, refuse_start
from pristina.operators.base import Observation
from pristina.settings import Settings
from pristina.types import Draw, Generators, OnStep


@dataclass(frozen=True)
class Nothing(Settings):
    """Settings of :func:`nothing`: there are none."""


def calls(settings: Nothing) -> Calls:
    """Return the network calls that ``settings`` imply for one image."""
    return Calls(0)


def nothing(
    observation: Observation,
    prior: None = None,
    settings: Nothing = Nothing(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Return the observation at image size, clipped to [0, 1].

    Args:
        observation: Degraded images, (B, C, h, w); an operator only gives the size to restore.
        prior: Unused.
        settings: Settings; there are none.
        start: None: there is nothing to go on with.
        generator: One generator for each image; nothing is drawn.
        on_step: Progress callback, called once; cancelling changes nothing.

    Returns:
        The images.

    Raises:
        InputError: A state to start from is given.

    Example:
        >>> import torch
        >>> y = torch.full((1, 3, 4, 4), 0.5)
        >>> bool((nothing(Observation(y)).images == y).all())
        True
    """
    refuse_start("nothing", start)
    y = observation.initial().clamp(0, 1)
    recorder = RunRecorder(None, 1, on_step)
    with suppress(Cancelled):
        recorder.step(y, torch.zeros(len(y)))
    seeds = Draw(generator, len(y), y.device).seeds
    stopped = [Stop(StopReason.LEFT_ALONE, 1)] * len(y)
    return recorder.result("nothing", y, settings, seeds, stopped)
