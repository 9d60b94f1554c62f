"""What all methods share: what they give back, and the books they keep while they run.

A method is one function with one head::

    def name(observation, prior, settings=Name(), *, generator=None, on_step=None) -> Result

It sees the observation and the prior, never the truth.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from pristina.errors import InputError
from pristina.operators.base import Observation, Operator
from pristina.priors.base import Prior, SizeRule
from pristina.types import OnStep, Pictures, StepEvent


class Learned(Protocol):
    """What the books need of a prior, whatever kind it is: diffusion, direct or conditional."""

    channels: int
    size_rule: SizeRule
    n_calls: int

    @property
    def device(self) -> torch.device:
        """Where it computes."""


@dataclass(frozen=True)
class Cost:
    """What a run took, for the whole batch.

    Attributes:
        network_calls: Forward passes of the prior's network, counted once for each picture.
        backward_calls: How many of them were differentiated through.
        seconds: Wall time.
        peak_bytes: Peak memory of the device, or of the process on the CPU (which may have been reached earlier).
    """

    network_calls: int
    backward_calls: int
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Result:
    """What a method found.

    Attributes:
        picture: The restored pictures, (B, C, H, W), in [0, 1].
        method: The method's name.
        settings: Its settings.
        seeds: The seed of each picture.
        stopped: For each picture, why the method stopped, in words.
        cost: What it took.
        operator: The operator with its estimated parameters; None if the method has none.
        trace: Figures by name, each (steps, B); ``loss`` is always there for an iterative method.
        extras: What only this method has (its final noise ``z``, say), tensors with B rows.
    """

    picture: Pictures
    method: str
    settings: Any
    seeds: list[int]
    stopped: list[str]
    cost: Cost
    operator: Operator | None = None
    trace: dict[str, Tensor] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON."""
        return {
            "method": self.method,
            "settings": {k: v.domain if isinstance(v, Prior) else v for k, v in asdict(self.settings).items()},
            "seeds": self.seeds,
            "stopped": self.stopped,
            "cost": asdict(self.cost),
            "operator": None if self.operator is None else {"says": self.operator.describe(), **self.operator.estimates()},
            "trace": {name: [[float(f"{v:.6g}") for v in row] for row in t.tolist()] for name, t in self.trace.items()},
        }


class Books:
    """Counts network calls and time, keeps the traces, and calls ``on_step``.

    Example::

        books = Books(prior, n_steps=100, on_step=on_step)
        try:
            for k in range(100):
                ...
                books.step(picture, loss)
        except Cancelled:
            why = "cancelled"
        return books.result("name", picture, settings, draw.seeds, [why] * n)
    """

    def __init__(self, prior: Learned | None, n_steps: int, on_step: OnStep | None = None):
        self.prior, self.n_steps, self.on_step = prior, n_steps, on_step
        self.calls_before = 0 if prior is None else prior.n_calls
        self.backward_calls = 0
        self.begun = time.perf_counter()
        self.figures: dict[str, list[Tensor]] = {}
        self.n_done = 0

    def step(self, picture: Tensor, loss: Tensor, **figures: Tensor) -> None:
        """Note one step: the present estimate (B, C, H, W) and the loss of each picture (B,).

        Raises:
            Cancelled: ``on_step`` asked to stop.
        """
        self.n_done += 1
        noted = {"loss": loss, **figures}
        for name, value in noted.items():
            self.figures.setdefault(name, []).append(value.detach().float().cpu().clone())
        if self.on_step:
            picture, loss, *others = (value.detach().clone() for value in (picture, *noted.values()))  # methods go on writing into theirs
            self.on_step(StepEvent(self.n_done, self.n_steps, picture, loss, dict(zip(figures, others, strict=True))))

    def result(
        self,
        method: str,
        picture: Tensor,
        settings: Any,
        seeds: Sequence[int],
        stopped: Sequence[str],
        operator: Operator | None = None,
        **extras: Tensor,
    ) -> Result:
        """Close the books."""
        calls = 0 if self.prior is None else self.prior.n_calls - self.calls_before
        cost = Cost(calls, self.backward_calls, time.perf_counter() - self.begun, peak_bytes(picture.device))
        trace = {name: torch.stack(values) for name, values in self.figures.items()}
        extras = {name: value.detach() for name, value in extras.items()}
        return Result(picture.detach(), method, settings, list(seeds), list(stopped), cost, operator, trace, extras)


def peak_bytes(device: torch.device) -> int:
    """The most memory in use so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def to_sphere(z: Tensor) -> Tensor:
    """``z`` scaled to norm ``sqrt(d)``, d = C H W, picture by picture: where normal noise lives.

    Source:
        BIRD's released code, applied after each optimiser step; its 1e-9 under the root is kept.
    """
    squared = z.square().sum((1, 2, 3), keepdim=True)
    return z * (z[0].numel() / (squared + 1e-9)).sqrt()


def keep_rows(optimizer: torch.optim.Optimizer, rows: Tensor) -> None:
    """Drop the pictures that have stopped from an optimiser: parameters and their moments keep only ``rows`` (B,) of axis 0."""
    for group in optimizer.param_groups:
        kept = []
        for p in group["params"]:
            state = optimizer.state.pop(p, {})
            p_kept = torch.nn.Parameter(p.detach()[rows])
            optimizer.state[p_kept] = {k: v[rows] if v.shape == p.shape else v for k, v in state.items()}
            kept.append(p_kept)
        group["params"] = kept


def check_observation(observation: Observation, prior: Learned, *, in_windows: bool = False) -> tuple[int, int]:
    """The size (H, W) of the picture to restore, once it is sure that the prior can make it, and the operator the observation from it.

    Args:
        observation: What the method was given.
        prior: And with what.
        in_windows: The prior is laid over the picture in windows, so that its size does not matter.

    Raises:
        InputError: The channels differ, or the devices.
        SizeError: The prior does not accept the size.
    """
    height, width = observation.size
    if not in_windows:
        prior.size_rule.check(height, width)
    y = observation.y
    if y.device != prior.device:
        raise InputError(f"The observation is on {y.device}, the prior on {prior.device}; move one of them.")
    seen = torch.zeros(len(y), prior.channels, height, width, device=y.device)
    if observation.operator is not None:
        with torch.no_grad():
            seen = observation.operator.for_batch(len(y)).to(y.device)(seen)
    if seen.shape != y.shape:
        raise InputError(
            f"The prior works in {prior.channels} channels, of which {tuple(seen.shape[1:])} would be observed; "
            f"the observation is {tuple(y.shape[1:])}: give one that fits, or the operator that was in between."
        )
    return height, width
