"""Results of methods: what was found, what it cost, why it stopped, and where to go on from."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from pristina.errors import InputError
from pristina.operators.base import Operator
from pristina.types import Draw, Images


class StopReason(Enum):
    """Why a method stopped."""

    COMPLETED = "all steps done"
    SLOPE = "the loss hardly falls any more (slope rule)"
    LAPLACIAN = "sharpness has passed its peak (Laplacian rule)"
    VARIANCE = "the variance of the outputs has passed its minimum (moving-variance rule)"
    LEFT_ALONE = "left as it is"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Stop:
    """Why and when the work on one image ended.

    Attributes:
        reason: Why it ended.
        step: Number of the step whose image was kept, from 1 as in ``StepEvent``.
    """

    reason: StopReason
    step: int

    def __str__(self) -> str:
        if self.reason in (StopReason.COMPLETED, StopReason.LEFT_ALONE):
            return self.reason.value
        return f"{self.reason.value} at step {self.step}"


@dataclass(frozen=True)
class Calls:
    """Network calls that the settings of a method imply for one image.

    Attributes:
        forward: All calls; the most there can be if ``may_stop``.
        backward: Calls that are differentiated.
        kept: Calls whose activations are in memory at the same time.
        may_stop: Whether the method may stop earlier.
        pictures: Largest number of images of the size of the picture that the run holds beside the
            memory of the network, counted with ``benchmarks/held_pictures.py``; 30 suffice for
            every method.
    """

    forward: int
    backward: int = 0
    kept: int = 1
    may_stop: bool = False
    pictures: int = field(default=30, compare=False)


@dataclass(frozen=True)
class Cost:
    """Cost of a run, for the whole batch.

    Attributes:
        network_calls: Forward passes of the prior's network, counted once for each image.
        backward_calls: Forward passes that were differentiated.
        seconds: Wall time.
        peak_bytes: Peak memory of the device, or of the process on the CPU (which may have been
            reached before the run).
    """

    network_calls: int
    backward_calls: int
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class State:
    """Everything from which a method can go on where it stopped.

    A state is that of the beginning of the last step, or of the end of the run where the last step
    has nothing left to repeat. A run that goes on from it gives the same bits as one that was never
    interrupted. It may be used any number of times.

    Attributes:
        method: Name of the method.
        step: Number of the next step, from 0.
        noise: Noise or diffused images, (B, C, H, W); None if the method has none.
        operator: Operator with its current parameters; None if the method has none.
        memory: Further variables of the loop: moments of the optimiser, states of the generators.
            Empty in a state without progress.
        trace: Figures of the steps before ``step``, each (steps, B).
    """

    method: str
    step: int
    noise: Tensor | None = None
    operator: Operator | None = None
    memory: Mapping[str, Any] = field(default_factory=dict)
    trace: Mapping[str, Tensor] = field(default_factory=dict)

    def fresh(self) -> State:
        """Return the noise and the operator as a new start, without any progress.

        The next frame of a video starts from the last one in this way.
        """
        return replace(self, step=0, memory={}, trace={})

    def check(self, method: str, shape: tuple[int, ...], device: torch.device) -> None:
        """Check that ``method`` can go on from this state.

        Args:
            method: Name of the method.
            shape: Shape of the noise that it needs, (B, C, H, W).
            device: Device on which it computes.

        Raises:
            InputError: The state is that of another method, of images of another shape, or on
                another device.
        """
        if self.method != method:
            raise InputError(f"{method} cannot start from a state of {self.method}.")
        if self.noise is not None and tuple(self.noise.shape) != tuple(shape):
            raise InputError(
                f"The state belongs to images of shape {tuple(self.noise.shape)}, "
                f"and these need {tuple(shape)}; start without it."
            )
        if self.noise is not None and self.noise.device != device:
            raise InputError(
                f"The state is on {self.noise.device}, and the images are on {device}; "
                "start without it, or on its device."
            )

    def recall(self) -> dict[str, Any]:
        """Return a copy of the memory, which the method may write into."""
        return copy.deepcopy(dict(self.memory))

    def restore_generators(self, draw: Draw) -> None:
        """Bring the generators to where they were; a state without progress leaves them."""
        if "generators" in self.memory:
            draw.set_states(self.memory["generators"])


def check_start(start: Any) -> None:
    """Check that ``start`` is a whole :class:`State`, whatever method it belongs to, or None.

    Raises:
        InputError: It is something else, it is empty, or its parts do not belong together.
    """
    if start is None:
        return
    if not isinstance(start, State):
        raise InputError(
            f"start must be the state of an earlier result (result.state), "
            f"not {type(start).__name__}."
        )
    if start.noise is None and start.operator is None and not start.memory:
        raise InputError("The state to start from is empty; start without it.")
    wrong = ""
    if not isinstance(start.step, int) or start.step < 0:
        wrong = f"step {start.step!r}"
    elif start.operator is not None and not isinstance(start.operator, Operator):
        wrong = f"operator {start.operator!r}"
    elif not _is_finite(start.noise):
        wrong = "noise with NaN or infinity, or that is no tensor of floating-point numbers"
    elif not isinstance(start.memory, Mapping) or not isinstance(start.trace, Mapping):
        wrong = "memory or trace that is no mapping"
    elif (start.step or start.memory) and "generators" not in start.memory:
        wrong = f"step {start.step} without the memory of that step"
    elif any(len(values) != start.step for values in start.trace.values()):
        wrong = f"step {start.step} with the trace of another"
    if wrong:
        raise InputError(
            f"The state to start from has {wrong}; start from result.state as it came, "
            "from result.state.fresh(), or without one."
        )


def refuse_start(method: str, start: Any) -> None:
    """Refuse a state to start from, for a method that makes a single step.

    Raises:
        InputError: There is one.
    """
    if start is not None:
        raise InputError(
            f"{method} makes a single step and has no state to go on from; leave start out."
        )


def _is_finite(noise: Any) -> bool:
    if not isinstance(noise, Tensor):
        return noise is None
    return noise.is_floating_point() and (noise.is_meta or bool(noise.isfinite().all()))


@dataclass(frozen=True)
class Result:
    """What a method found.

    Attributes:
        images: Restored images, (B, C, H, W), in [0, 1].
        method: Name of the method.
        settings: Its settings.
        seeds: Seed of each image.
        stopped: Why and when the work on each image ended.
        cost: Network calls, seconds, memory.
        operator: Operator with its estimated parameters; None if the method has none.
        trace: Figures by name, each (steps, B); an iterative method always has ``loss``.
        state: State from which the method can go on; None if there is nothing to go on with.
        extras: Further tensors of this method, with B rows.
        notes: What the user should know about the run, in sentences.
    """

    images: Images
    method: str
    settings: Any
    seeds: list[int]
    stopped: list[Stop]
    cost: Cost
    operator: Operator | None = None
    trace: dict[str, Tensor] = field(default_factory=dict)
    state: State | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return everything but the images, ready for JSON."""
        operator = self.operator
        return {
            "method": self.method,
            "settings": asdict(self.settings),
            "seeds": self.seeds,
            "stopped": [str(stop) for stop in self.stopped],
            "cost": asdict(self.cost),
            "operator": None
            if operator is None
            else {"description": operator.describe(), **operator.estimates()},
            "trace": {name: _rounded(values) for name, values in self.trace.items()},
        }


def _rounded(values: torch.Tensor) -> list[list[float]]:
    return [[float(f"{value:.6g}") for value in row] for row in values.tolist()]
