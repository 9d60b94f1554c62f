"""One cell: degrade, restore, measure."""

from __future__ import annotations

import base64
import io
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version

import torch
from torch import Tensor

from pristina.bench.cells import (
    BestIterates,
    Cell,
    CellCost,
    CellResult,
    Machine,
    MethodUse,
    rounded,
)
from pristina.bench.degradation import Degraded, degrade, hand_over
from pristina.bench.loaded import LoadedSuite
from pristina.bench.observer import Observer, peak, reset_peak, trace_of
from pristina.files import digest
from pristina.image.picture import Picture
from pristina.methods.steps.result import Result
from pristina.metrics.measuring import measure, measure_kernels
from pristina.operators.base import Operator
from pristina.operators.blur import Blur
from pristina.planning import Plan
from pristina.request import plain
from pristina.restoration import run
from pristina.seeds import benchmark_seeds
from pristina.types import OnStep


@dataclass(frozen=True)
class Batch:
    """Result and cost of one batch of a cell.

    Attributes:
        result: Result of the method.
        observer: Observer of the run.
        seconds: Wall time of the method.
        peak_bytes: Peak memory.
        peak_is_own: Whether the peak is that of this batch, or of the process so far.
    """

    result: Result
    observer: Observer
    seconds: float
    peak_bytes: int
    peak_is_own: bool


def run_cell(loaded: LoadedSuite, cell: Cell, on_step: OnStep | None = None) -> CellResult:
    """Run a cell.

    Args:
        loaded: The suite with its pictures and its prior.
        cell: The cell.
        on_step: Progress callback.

    Raises:
        PristinaError: The method cannot take the task.
    """
    degraded = degrade(cell.task, loaded.truth, cell.seed)
    if cell.settings is None:
        return _input_result(loaded, cell, degraded)
    seeds = benchmark_seeds(cell.seed, len(loaded.truth), "method")
    given, settings = cell.given, plain(asdict(cell.settings))
    batches = []
    for handed in hand_over(degraded, cell, loaded.suite.batch):
        observer = Observer(loaded.truth[handed.rows], cell.row.oracle_stop, on_step)
        plan = loaded.plan(cell, handed)
        batches.append(_run_batch(plan, handed.images, seeds[handed.rows], observer))
    restored = torch.cat([batch.result.images for batch in batches])
    observers = [batch.observer for batch in batches]
    shown = loaded.shown(cell)
    kernels = list(_kernel_pairs(degraded.operators, batches))
    found = replace(
        _result(loaded, cell, degraded, restored),
        method=MethodUse(cell.row.method, settings, given.knowledge, given.sigma, tuple(seeds)),
        stopped=tuple(str(stop) for batch in batches for stop in batch.result.stopped),
        trace=trace_of(observers),
        cost=_cost(batches, len(restored)),
        best=_best(loaded, observers, shown) if cell.row.oracle_stop else None,
        operator=tuple(
            batch.result.operator.describe()
            for batch in batches
            if batch.result.operator is not None
        ),
    )
    if len(kernels) < len(restored):
        return found
    each = [measure_kernels(estimated, true) for estimated, true in kernels]
    numbers = {name: tuple(rounded(m[name].item()) for m in each) for name in each[0]}
    pictures = tuple((_png(a / a.max()), _png(b / b.max())) for a, b in kernels[:shown])
    return replace(found, metrics={**found.metrics, **numbers}, kernels=pictures)


def _run_batch(plan: Plan, images: Tensor, seeds: Sequence[int], observer: Observer) -> Batch:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    is_own = reset_peak(images.device)
    begun = time.perf_counter()
    result = run(plan, images, generator=generators, on_step=observer)
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)
    seconds = time.perf_counter() - begun - observer.seconds
    return Batch(result, observer, seconds, peak(images.device), is_own)


def _result(loaded: LoadedSuite, cell: Cell, degraded: Degraded, restored: Tensor) -> CellResult:
    """Return what every cell has, whatever its row."""
    shown = loaded.shown(cell)
    return CellResult(
        task=cell.task.name,
        row=cell.row.name,
        seed=cell.seed,
        key=cell.key,
        pictures=tuple(loaded.names),
        size_px=loaded.truth.shape[-1],
        recipe=cell.task.recipe,
        degradation=degraded.operators[0].describe(),
        degradation_seeds=degraded.seeds,
        prior=loaded.prior_in_words,
        pristina=version("pristina"),
        metrics=_numbers(loaded, restored),
        stopped=(),
        sha256=tuple(digest(x) for x in restored),
        shown=tuple(_png(x) for x in restored[:shown]),
        cost=CellCost(0.0, 0.0, 0.0, 0),
        machine=machine(loaded.truth.device),
    )


def _input_result(loaded: LoadedSuite, cell: Cell, degraded: Degraded) -> CellResult:
    """Return the result of the row ``input``: the observation itself."""
    observed = degraded.initial.clamp(0, 1)
    return replace(
        _result(loaded, cell, degraded, observed),
        stopped=("nothing was done",) * len(observed),
        truth=tuple(_png(x) for x in loaded.truth[: loaded.shown(cell)]),
    )


def _cost(batches: Sequence[Batch], n: int) -> CellCost:
    costs = [batch.result.cost for batch in batches]
    return CellCost(
        network_calls=sum(cost.network_calls for cost in costs) / n,
        backward_calls=sum(cost.backward_calls for cost in costs) / n,
        seconds=sum(batch.seconds for batch in batches) / n,
        peak_bytes=max(batch.peak_bytes for batch in batches),
        peak_of="the cell" if all(b.peak_is_own for b in batches) else "the process so far",
    )


def _best(loaded: LoadedSuite, observers: Sequence[Observer], shown: int) -> BestIterates:
    best = torch.cat([observer.best for observer in observers])
    return BestIterates(
        metrics=_numbers(loaded, best),
        steps=tuple(int(step) for observer in observers for step in observer.best_step),
        shown=tuple(_png(x) for x in best[:shown]),
    )


def blur_kernel(operator: Operator | None, row: int) -> Tensor | None:
    """Return the kernel of the first blur in an operator.

    Args:
        operator: The operator.
        row: Place of the picture in the batch.

    Returns:
        Kernel, (1, K, K); None if there is no blur.
    """
    for part in [] if operator is None else operator.parts:
        if isinstance(part, Blur):
            kernels = part.kernel().detach()[:, 0]
            return kernels[row : row + 1] if len(kernels) > 1 else kernels
    return None


def _kernel_pairs(
    true_operators: Sequence[Operator], batches: Sequence[Batch]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the estimated and the true kernel of each picture that has both."""
    remaining = iter(true_operators)
    for batch in batches:
        for row in range(len(batch.result.images)):
            true = blur_kernel(next(remaining), 0)
            estimated = blur_kernel(batch.result.operator, row)
            if true is not None and estimated is not None:
                yield estimated, true


def _numbers(loaded: LoadedSuite, restored: Tensor) -> dict[str, tuple[float, ...]]:
    perceptual = "lpips" in loaded.suite.metrics
    found = measure(restored.clamp(0, 1), loaded.truth, perceptual=perceptual)
    return {name: tuple(rounded(v) for v in each.tolist()) for name, each in found.items()}


def _png(x: Tensor) -> str:
    """Return pixels, (C, H, W) in [0, 1], as base64 PNG."""
    file = io.BytesIO()
    Picture.from_pixels(x.clamp(0, 1)).to_pillow().save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def machine(device: torch.device) -> Machine:
    """Return the machine and the versions with which a cell runs."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return Machine(name, torch.get_num_threads(), torch.__version__, platform.python_version())
