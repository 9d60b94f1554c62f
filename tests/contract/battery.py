"""What every method must do, whatever it is: called by ``tests/methods/test_NAME.py`` with a tiny case."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pristina.errors import Cancelled
from pristina.methods.base import Result
from pristina.operators.base import Observation
from pristina.types import StepEvent, generators


def check_method(
    function: Callable[..., Result],
    observation: Observation,
    prior: Any,
    settings: Any,
    *,
    calls: int,
    backward: int = 0,
    random: bool = True,
    tolerance: float = 1e-5,
) -> Result:
    """Run the battery on a batch of two or more pictures.

    Args:
        calls: Network calls that each picture must cost with these settings.
        backward: How many of them are differentiated through.
        random: Whether another seed gives another picture.
        tolerance: Between a picture restored alone and in a batch.
    """
    n = len(observation.y)
    assert n >= 2
    before = observation.y.clone()
    weights = None if prior is None else [v.clone() for v in prior.state_dict().values()]
    parameters = [] if observation.operator is None else [p.detach().clone() for p in observation.operator.parameters()]

    events: list[StepEvent] = []
    values: list[tuple[Tensor, ...]] = []

    def note(event: StepEvent) -> None:
        events.append(event)
        values.append(tuple(v.clone() for v in (event.picture, event.loss, *event.figures.values())))

    result = function(observation, prior, settings, generator=generators(3, n), on_step=note)

    height, width = observation.size
    assert result.picture.shape == (n, observation.initial().shape[1], height, width)
    assert result.picture.dtype == torch.float32 and torch.isfinite(result.picture).all()
    assert result.picture.min() >= 0 and result.picture.max() <= 1
    assert result.seeds == list(range(3, 3 + n)) and len(result.stopped) == n
    assert result.settings == settings and result.record()["method"] == function.__name__
    assert result.cost.network_calls == calls * n, f"{result.cost.network_calls / n} calls a picture, not {calls}"
    assert result.cost.backward_calls == backward * n
    assert len(result.trace["loss"][0]) == n

    # progress
    assert events and [e.step for e in events] == list(range(1, len(events) + 1))
    assert all(e.step <= e.n_steps and e.picture.shape == result.picture.shape and e.loss.shape == (n,) for e in events)
    for event, then in zip(events, values, strict=True):  # what was reported stays as it was
        assert all(torch.equal(a, b) for a, b in zip((event.picture, event.loss, *event.figures.values()), then, strict=True))

    # the same seed gives the same picture; another gives its own, if anything is drawn
    again = function(observation, prior, settings, generator=generators(3, n))
    assert torch.equal(again.picture, result.picture)
    other = function(observation, prior, settings, generator=generators(103, n))
    assert torch.equal(other.picture, result.picture) != random

    # neighbours do not matter
    operator = observation.operator
    alone = function(Observation(observation.y[1:2], operator, observation.known_sigma), prior, settings, generator=generators(4, 1))
    assert (alone.picture - result.picture[1:2]).abs().max() <= tolerance

    # nothing that came in is changed
    assert torch.equal(observation.y, before)
    if prior is not None:
        assert all(torch.equal(a, b) for a, b in zip(prior.state_dict().values(), weights, strict=True))
    if observation.operator is not None:
        assert all(torch.equal(a, b) for a, b in zip(observation.operator.parameters(), parameters, strict=True))

    # cancelling gives what there is
    def cancel(event: StepEvent) -> None:
        raise Cancelled

    stopped = function(observation, prior, settings, generator=generators(3, n), on_step=cancel)
    assert stopped.picture.shape == result.picture.shape and torch.isfinite(stopped.picture).all()
    if len(events) > 1:
        assert all("cancel" in why for why in stopped.stopped)
        assert stopped.cost.network_calls <= result.cost.network_calls
    return result
