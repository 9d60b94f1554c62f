"""Cells of a suite: one task, one row, one seed; and what they found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from pristina.bench.suite import STRICT, Given, Row, Task
from pristina.settings import Settings
from pristina.work.store import Store

Numbers = Mapping[str, tuple[float, ...]]
"""One number for each picture, by the name of the metric."""


@dataclass(frozen=True)
class Cell:
    """One task, one row, one seed: what is to be run.

    Attributes:
        task: The task, without lengths in braces.
        row: The row, without lengths in braces.
        seed: Random seed.
        given: What the method is given of the degradation.
        settings: Settings of the method; None for the observation itself.
        key: Digest of everything that the numbers depend on.
    """

    task: Task
    row: Row
    seed: int
    given: Given
    settings: Settings | None
    key: str = ""

    @property
    def title(self) -> str:
        """Name for people."""
        return f"{self.task.name} / {self.row.name} / seed {self.seed}"

    @property
    def label(self) -> str:
        """First part of the name of its file."""
        return f"{self.task.name}.{self.row.name}.{self.seed}"


@dataclass(frozen=True)
class Trace:
    """Loss and PSNR against steps, mean over pictures; empty for a method without steps."""

    __pydantic_config__ = STRICT

    step: tuple[int, ...] = ()
    loss: tuple[float, ...] = ()
    psnr: tuple[float, ...] = ()


@dataclass(frozen=True)
class CellCost:
    """Cost of one picture.

    Attributes:
        network_calls: Network calls.
        backward_calls: Network calls that were differentiated.
        seconds: Wall time; that of the harness is left out.
        peak_bytes: Peak memory, program and weights included.
        peak_of: Whether the peak is that of the cell, or of the process so far.
    """

    __pydantic_config__ = STRICT

    network_calls: float
    backward_calls: float
    seconds: float
    peak_bytes: int
    peak_of: Literal["the cell", "the process so far"] = "the cell"


@dataclass(frozen=True)
class Machine:
    """The machine and the versions with which a cell ran."""

    __pydantic_config__ = STRICT

    device: str
    threads: int
    torch: str
    python: str


@dataclass(frozen=True)
class BestIterates:
    """The iterates of highest PSNR, chosen by the clean pictures.

    Attributes:
        metrics: Their metrics.
        steps: Their steps.
        shown: The first of them as base64 PNG.
    """

    __pydantic_config__ = STRICT

    metrics: Numbers
    steps: tuple[int, ...]
    shown: tuple[str, ...] = ()


@dataclass(frozen=True)
class MethodUse:
    """How a method was used in a cell.

    Attributes:
        name: Name of the method.
        settings: Its settings.
        knowledge: What it was given of the degradation.
        sigma_known: Whether it was given the true noise level.
        seeds: Seed of each picture.
    """

    __pydantic_config__ = STRICT

    name: str
    settings: Mapping[str, Any]
    knowledge: Literal["none", "form", "exact"]
    sigma_known: bool
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class CellResult:
    """What a cell found.

    Attributes:
        task: Name of the task.
        row: Name of the row.
        seed: Random seed.
        key: Digest of everything that the numbers depend on.
        pictures: Names of the pictures.
        size_px: Their side in pixels.
        recipe: Recipe of the degradation.
        degradation: The degradation of the first picture in words.
        degradation_seeds: Seed of the noise of each picture.
        prior: The suite's prior in words.
        pristina: Version of pristina.
        method: How the method was used; None for the observation itself.
        metrics: Metrics of the restored pictures.
        stopped: Why the work on each picture ended.
        sha256: Digest of each restored picture.
        shown: The first restored pictures as base64 PNG, for the first seed.
        truth: The clean pictures beside them, in the cells of the row ``input``.
        kernels: Estimated and true kernel of the same pictures, as base64 PNG.
        operator: Estimated operator of each batch in words.
        best: Best iterates, if the row asks for them.
        trace: Loss and PSNR against steps.
        cost: Cost of one picture.
        machine: The machine.
    """

    __pydantic_config__ = STRICT

    task: str
    row: str
    seed: int
    key: str
    pictures: tuple[str, ...]
    size_px: int
    recipe: str
    degradation: str
    degradation_seeds: tuple[int, ...]
    prior: str
    pristina: str
    metrics: Numbers
    stopped: tuple[str, ...]
    sha256: tuple[str, ...]
    cost: CellCost
    machine: Machine
    method: MethodUse | None = None
    shown: tuple[str, ...] = ()
    truth: tuple[str, ...] = ()
    kernels: tuple[tuple[str, str], ...] = ()
    operator: tuple[str, ...] = ()
    best: BestIterates | None = None
    trace: Trace = field(default_factory=Trace)


@dataclass(frozen=True)
class CellFailure:
    """A cell whose method cannot take its task; it is tried again in the next run.

    Attributes:
        task: Name of the task.
        row: Name of the row.
        seed: Random seed.
        key: Digest of everything that the numbers depend on.
        error: Reason, as a sentence.
    """

    __pydantic_config__ = STRICT

    task: str
    row: str
    seed: int
    key: str
    error: str


Outcome = CellResult | CellFailure


def failure(cell: Cell, error: Exception) -> CellFailure:
    """Return the failure of a cell for the reason that an exception gives."""
    return CellFailure(cell.task.name, cell.row.name, cell.seed, cell.key, str(error))


def encode(outcome: Outcome) -> bytes:
    """Return an outcome as the content of its file."""
    return f"{json.dumps(asdict(outcome), indent=1)}\n".encode()


def decode(content: bytes) -> Outcome:
    """Read the content of a cell's file, of version 0.1.0 too.

    Raises:
        ValueError: The content is damaged.
    """
    values = json.loads(content)
    if not isinstance(values, dict):
        raise ValueError("A cell is a table.")
    kind: Any = CellFailure if "error" in values else CellResult
    try:
        outcome: Outcome = TypeAdapter(kind).validate_json(json.dumps(_updated(values)))
    except ValidationError as error:
        raise ValueError(str(error)) from error
    return outcome


def _updated(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a cell of version 0.1.0 in today's words."""
    if "told" not in values:
        return values
    found = {name: value for name, value in values.items() if name not in ("settings", "told")}
    knowledge = {"nothing": "none", "truth": "exact"}.get(values["told"], values["told"])
    found["method"] = {
        "name": values.get("method"),
        "settings": values.get("settings"),
        "knowledge": knowledge,
        "sigma_known": found.pop("told_sigma", None),
        "seeds": found.pop("method_seeds", None),
    }
    if "oracle_stop" in found:
        found["best"] = found.pop("oracle_stop")
    return found


def cell_store(folder: Path) -> Store[Outcome]:
    """Return the store of the cells of a result folder."""
    return Store(folder / "cells", encode, decode)


def rounded(value: float) -> float:
    """Round to six digits, which is what a cell keeps of a number."""
    return float(f"{value:.6g}")
