"""Recording of a run: network calls, time, figures, progress."""

from __future__ import annotations

import copy
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from pristina.errors import InputError
from pristina.methods.steps.result import Cost, Result, State, Stop, StopReason, check_start
from pristina.operators.base import Observation, Operator
from pristina.priors.base import BasePrior
from pristina.types import OnStep, StepEvent

P = TypeVar("P", bound=BasePrior | None)


class RunRecorder(Generic[P]):
    """Count network calls and time, keep the traced figures, and report progress.

    The prior is called through :attr:`prior`, a copy that shares the weights of the one given and
    has a count of its own, so that one prior serves several runs at a time.

    Args:
        prior: Prior that the method calls; None if it has none.
        n_steps: Largest number of steps.
        on_step: Progress callback.
        start: State from which the run goes on; its trace is continued.

    Raises:
        InputError: ``on_step`` cannot be called; the state is damaged, or further on than the run
            will go.

    Example::

        recorder = RunRecorder(prior, n_steps=100, on_step=on_step, start=start)
        prior, stop = recorder.prior, StopReason.COMPLETED
        try:
            for k in range(recorder.first_step, 100):
                ...
                recorder.step(images, loss)
        except Cancelled:
            stop = StopReason.CANCELLED
        return recorder.result("name", images, settings, draw.seeds, stop)
    """

    def __init__(
        self,
        prior: P,
        n_steps: int,
        on_step: OnStep | None = None,
        start: State | None = None,
    ):
        if on_step is not None and not callable(on_step):
            raise InputError(
                f"on_step must be a function of a StepEvent, not {type(on_step).__name__}."
            )
        check_start(start)
        self.prior: P = prior if prior is None else prior.counted()
        self.n_steps, self.on_step = n_steps, on_step
        self.backward_calls = 0
        self.notes: list[str] = []
        self.begun = time.perf_counter()
        self.first_step = 0 if start is None else start.step
        if self.first_step > n_steps:
            raise InputError(
                f"The state is that of step {self.first_step}, and the run has {n_steps} steps; "
                "ask for more, or start from state.fresh()."
            )
        self.n_done = self.first_step
        trace = {} if start is None else start.trace
        self.figures = {name: list(values.unbind(0)) for name, values in trace.items()}

    def step(self, images: Tensor, loss: Tensor, **figures: Tensor) -> None:
        """Record one step: the current estimate (B, C, H, W) and the loss of each image (B,).

        Raises:
            Cancelled: ``on_step`` asked to stop.
        """
        self.n_done += 1
        traced = {"loss": loss, **figures}
        for name, value in traced.items():
            self.figures.setdefault(name, []).append(value.detach().float().cpu().clone())
        if self.on_step:
            # Copies, because methods go on writing into their tensors.
            images, loss, *others = (v.detach().clone() for v in (images, *traced.values()))
            more = dict(zip(figures, others, strict=True))
            self.on_step(StepEvent(self.n_done, self.n_steps, images, loss, more))

    def trace(self, n_steps: int | None = None) -> dict[str, Tensor]:
        """Return the figures of the first ``n_steps`` steps, all by default, each (steps, B)."""
        return {
            name: torch.stack(values[:n_steps])
            for name, values in self.figures.items()
            if values[:n_steps]
        }

    def state(
        self,
        method: str,
        step: int,
        noise: Tensor | None = None,
        operator: Operator | None = None,
        **memory: Any,
    ) -> State:
        """Return the state from which the run can go on at ``step``.

        It keeps the tensors themselves, so that the method must not write into them any more; the
        operator is copied.
        """
        noise = None if noise is None else noise.detach()
        return State(method, step, noise, copy.deepcopy(operator), memory, self.trace(step))

    def result(
        self,
        method: str,
        images: Tensor,
        settings: Any,
        seeds: Sequence[int],
        stopped: StopReason | Sequence[Stop],
        *,
        operator: Operator | None = None,
        state: State | None = None,
        **extras: Tensor,
    ) -> Result:
        """Return the result of the run, with the sentences in :attr:`notes` and of the prior.

        Args:
            method: Name of the method.
            images: Restored images, (B, C, H, W).
            settings: Settings of the method.
            seeds: Seed of each image.
            stopped: Reason for all images, which ended at the last step; or one for each.
            operator: Operator with its estimated parameters.
            state: State from which the method can go on.
            extras: Further tensors of the method, with B rows.
        """
        if isinstance(stopped, StopReason):
            stopped = [Stop(stopped, self.n_done)] * len(images)
        calls = 0 if self.prior is None else self.prior.n_calls
        of_prior = [] if self.prior is None else self.prior.portions.notes
        seconds = time.perf_counter() - self.begun
        cost = Cost(calls, self.backward_calls, seconds, peak_bytes(images.device))
        return Result(
            images.detach(),
            method,
            settings,
            list(seeds),
            list(stopped),
            cost,
            operator,
            self.trace(),
            state,
            {name: value.detach() for name, value in extras.items()},
            (*self.notes, *of_prior),
        )


def peak_bytes(device: torch.device) -> int:
    """Return the largest memory used so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def check_observation(observation: Observation, prior: BasePrior) -> tuple[int, int]:
    """Check that a prior can make the images behind an observation.

    Args:
        observation: Degraded images, and the operator if there is one.
        prior: Prior of the method.

    Returns:
        Height and width of the images to restore.

    Raises:
        InputError: The numbers of channels or the devices differ.
        SizeError: The prior does not accept the size.
    """
    height, width = observation.size
    prior.size_rule.check(height, width)
    y = observation.y
    if y.device != prior.device:
        raise InputError(
            f"The observation is on {y.device}, the prior on {prior.device}; move one of them."
        )
    expected = torch.zeros(len(y), prior.channels, height, width, device=y.device)
    if observation.operator is not None:
        with torch.no_grad():
            expected = observation.operator.for_batch(len(y)).to(y.device)(expected)
    if expected.shape != y.shape:
        raise InputError(
            f"The prior works in {prior.channels} channels, "
            f"of which {tuple(expected.shape[1:])} would be observed; "
            f"the observation is {tuple(y.shape[1:])}: "
            "give one that fits, or the operator that was in between."
        )
    return height, width
