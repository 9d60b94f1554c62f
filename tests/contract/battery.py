"""Battery of checks for methods, called by ``tests/methods/test_NAME.py`` with a tiny case."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor

from pristina.errors import Cancelled, InputError
from pristina.methods.index import METHODS
from pristina.methods.steps.result import Result, State, StopReason
from pristina.operators.base import Observation
from pristina.seeds import generators
from pristina.types import StepEvent

SEED = 3


def check_method(
    function: Callable[..., Result],
    observation: Observation,
    prior: Any,
    settings: Any,
    *,
    calls: int | None,
    backward: int = 0,
    random: bool = True,
    tolerance: float = 1e-5,
) -> Result:
    """Run the battery on a batch.

    Args:
        function: Method, or a ``functools.partial`` of one that takes more than the common head.
        observation: Batch of two or more degraded images.
        prior: Prior of the method.
        settings: Settings under which a run takes a second at most: there are some ten runs.
        calls: Network calls that each image must cost; None where images stop one by one.
        backward: Number of them that are differentiated.
        random: Whether another seed gives another image.
        tolerance: Largest difference between an image restored alone and in a batch.
    """
    name = (function.func if isinstance(function, partial) else function).__name__
    case = _Case(name, function, observation, prior, settings)
    before = _contents(observation, prior)
    n_calls = None if prior is None else prior.n_calls

    events: list[StepEvent] = []
    reported: list[list[Tensor]] = []

    def note(event: StepEvent) -> None:
        events.append(event)
        reported.append([value.clone() for value in _tensors(event)])

    result = case.run(on_step=note)
    _check_result(case, result)
    _check_cost(case, result, calls, backward)
    _check_progress(result, events, reported)
    _check_randomness(case, result, random)
    _check_neighbours(case, result, tolerance)
    _check_threads(case, result)
    _check_cancelling(case, result, len(events))
    _check_fresh_start(case, result)
    _check_refusals(case, result)

    # Nothing that came in has changed, and the count of the prior that was given stands still.
    after = _contents(observation, prior)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert prior is None or prior.n_calls == n_calls, "call the prior through recorder.prior"
    return result


@dataclass(frozen=True)
class _Case:
    name: str
    function: Callable[..., Result]
    observation: Observation
    prior: Any
    settings: Any

    @property
    def n(self) -> int:
        return len(self.observation.y)

    def run(self, seed: int | None = SEED, **keywords: Any) -> Result:
        generator = None if seed is None else generators(seed, self.n)
        return self.function(
            self.observation, self.prior, self.settings, generator=generator, **keywords
        )


def _check_result(case: _Case, result: Result) -> None:
    y, n = case.observation.initial(), case.n
    assert n >= 2
    assert result.images.shape == (n, y.shape[1], *case.observation.size)
    assert result.images.dtype == torch.float32 and torch.isfinite(result.images).all()
    assert result.images.min() >= 0 and result.images.max() <= 1
    assert not result.images.requires_grad
    assert result.seeds == list(range(SEED, SEED + n))
    assert result.settings == case.settings and result.record()["method"] == case.name
    assert len(result.trace["loss"][0]) == n
    assert len(result.stopped) == n
    for stop in result.stopped:
        assert 1 <= stop.step <= len(result.trace["loss"])
        assert stop.reason is not StopReason.CANCELLED


def _check_cost(case: _Case, result: Result, calls: int | None, backward: int) -> None:
    cost, n = result.cost, case.n
    if calls is not None:
        one = cost.network_calls / n
        assert one == calls, f"{one} calls an image, not {calls}"
        assert cost.backward_calls == backward * n
    planned = METHODS[case.name].calls(case.settings)
    if planned.may_stop:
        assert cost.network_calls <= planned.forward * n
        assert cost.backward_calls <= planned.backward * n
    else:
        assert cost.network_calls == planned.forward * n
        assert cost.backward_calls == planned.backward * n
    assert 1 <= planned.kept <= max(1, planned.forward)


def _check_progress(result: Result, events: list[StepEvent], reported: list[list[Tensor]]) -> None:
    assert events and [event.step for event in events] == list(range(1, len(events) + 1))
    for event, values in zip(events, reported, strict=True):
        assert event.step <= event.n_steps
        assert event.images.shape == result.images.shape
        assert event.loss.shape == (len(result.images),)
        # What was reported stays as it was.
        assert all(torch.equal(a, b) for a, b in zip(_tensors(event), values, strict=True))


def _check_randomness(case: _Case, result: Result, random: bool) -> None:
    assert_same(case.run(), result)
    assert torch.equal(case.run(seed=SEED + 100).images, result.images) != random


def _check_neighbours(case: _Case, result: Result, tolerance: float) -> None:
    one = Observation(
        case.observation.y[1:2], case.observation.operator, case.observation.known_sigma
    )
    alone = case.function(one, case.prior, case.settings, generator=generators(SEED + 1, 1))
    assert (alone.images - result.images[1:2]).abs().max() <= tolerance


def _check_threads(case: _Case, result: Result) -> None:
    """Run twice at the same time with one prior: the counts and the images are those of one run."""
    barrier = Barrier(2, timeout=60)

    def meet(event: StepEvent) -> None:
        if event.step == 1:
            barrier.wait()

    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(case.run, on_step=meet) for _ in range(2)]
        for run in runs:
            assert run.result().cost.network_calls == result.cost.network_calls
            assert_same(run.result(), result)


def _check_cancelling(case: _Case, result: Result, n_steps: int) -> None:
    """Cancel in the first, a middle and the last step; go on from there to the same result."""
    for at in sorted({1, (n_steps + 1) // 2, n_steps}):

        def cancel(event: StepEvent, at: int = at) -> None:
            if event.step == at:
                raise Cancelled

        cancelled = case.run(on_step=cancel)
        assert cancelled.images.shape == result.images.shape
        assert cancelled.images.min() >= 0 and cancelled.images.max() <= 1
        assert cancelled.cost.network_calls <= result.cost.network_calls
        if cancelled.state is None:
            # There is nothing to go on with: the one step was all.
            assert n_steps == 1
            assert_same(cancelled, result)
            continue
        reasons = {stop.reason for stop in cancelled.stopped}
        assert StopReason.CANCELLED in reasons and StopReason.COMPLETED not in reasons
        # The generators' states are in the state; it can be used twice.
        for _ in range(2):
            assert_same(case.run(seed=None, start=cancelled.state), result)
    if result.state is not None:
        assert_same(case.run(seed=None, start=result.state), result)


def _check_fresh_start(case: _Case, result: Result) -> None:
    """Begin a new run from the noise and the operator of a finished one."""
    if result.state is None:
        return
    fresh = result.state.fresh()
    again = case.run(start=fresh)
    assert again.images.shape == result.images.shape and torch.isfinite(again.images).all()
    assert again.seeds == result.seeds
    if not METHODS[case.name].calls(case.settings).may_stop:
        assert len(again.trace["loss"]) == len(result.trace["loss"])
        assert again.cost.network_calls <= result.cost.network_calls
    assert_same(case.run(start=fresh), again)


def _check_refusals(case: _Case, result: Result) -> None:
    """Give what cannot be used in place of the state, the generators and the callback."""
    state = State("other", 0, case.observation.y) if result.state is None else result.state
    damaged: list[Any] = [3, {}, State(state.method, 0), replace(state, method="other")]
    damaged += [replace(state, step=step) for step in (-1, 1.0, 10**9)]
    if state.noise is not None:
        wrong = [state.noise * math.nan, state.noise[..., 1:], state.noise.to("meta"), 3]
        damaged += [replace(state, noise=noise) for noise in wrong]
    if state.memory:
        damaged += [replace(state, memory={"x": 3})]
        damaged += [replace(state, trace={"loss": torch.zeros(state.step + 1, case.n)})]
    for start in damaged:
        with pytest.raises(InputError):
            case.run(start=start)
    for keywords in ({"on_step": 3}, {"generator": 3}, {"generator": [3] * case.n}):
        with pytest.raises(InputError):
            case.function(case.observation, case.prior, case.settings, **keywords)


def assert_same(a: Result, b: Result) -> None:
    """Assert that two results agree to the bit: images, traces, extras, estimates, reasons."""
    assert torch.equal(a.images, b.images)
    for mine, yours in ((a.trace, b.trace), (a.extras, b.extras)):
        assert mine.keys() == yours.keys()
        for key, value in mine.items():
            torch.testing.assert_close(value, yours[key], rtol=0, atol=0, equal_nan=True)
    assert a.stopped == b.stopped and a.seeds == b.seeds
    assert (a.operator is None) == (b.operator is None)
    if a.operator is not None and b.operator is not None:
        for p, q in zip(a.operator.parameters(), b.operator.parameters(), strict=True):
            assert torch.equal(p, q)


def _contents(observation: Observation, prior: Any) -> list[Tensor]:
    """Return copies of everything that a method is given."""
    contents = [observation.y]
    if prior is not None:
        contents += prior.state_dict().values()
    if observation.operator is not None:
        contents += observation.operator.state_dict().values()
    return [value.detach().clone() for value in contents]


def _tensors(event: StepEvent) -> list[Tensor]:
    return [event.images, event.loss, *event.figures.values()]
