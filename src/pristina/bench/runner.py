"""Run a suite cell by cell; what is done is kept, and is not run again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from pristina.bench.cells import Cell, CellResult, Outcome, cell_store, failure
from pristina.bench.loaded import LoadedSuite
from pristina.bench.measurement import run_cell
from pristina.bench.suite import Suite
from pristina.errors import MissingExtra, PristinaError
from pristina.metrics.perceptual import lpips
from pristina.priors.base import Prior
from pristina.types import StepEvent
from pristina.work.pool import Pool
from pristina.work.ray_pool import RayPool

OnCell = Callable[[Cell, int, int], None]
"""Called with a cell, the number of finished cells and the number of all cells."""
OnCellStep = Callable[[Cell, StepEvent], None]
"""Called with a cell and the progress of its method."""


def run_suite(
    suite: Suite,
    out: Path,
    *,
    prior: Prior | None = None,
    jobs: int = 1,
    threads: int = 0,
    device: str | torch.device = "cpu",
    compiled: bool = False,
    cluster: str | None = None,
    on_cell: OnCell | None = None,
    on_step: OnCellStep | None = None,
) -> list[Outcome]:
    """Run the cells of a suite that have not been run before.

    Args:
        suite: The suite, see :func:`pristina.bench.load_suite`.
        out: Folder of the results; each cell is a file in ``out/cells``.
        prior: Prior in place of the suite's.
        jobs: Number of processes.
        threads: Processor threads of each process; 0 gives each of several an equal share.
        device: Device of the computation.
        compiled: Whether to compile the network of the prior first, in each process.
        cluster: Address of a Ray cluster that runs the cells; None for this machine.
        on_cell: Called when a cell is finished.
        on_step: Called at each step of a method, if there is one process.

    Returns:
        What each cell found, in the order of the suite. A cell whose method cannot take its task
        holds the reason, and is tried again in the next run.

    Raises:
        PristinaError: The suite cannot be run at all.
    """
    if threads:
        torch.set_num_threads(threads)
    if "lpips" in suite.metrics:
        lpips(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))  # What is missing, at once.
    loaded = LoadedSuite.load(suite, prior, device, compiled=compiled)
    cells, store = loaded.cells(), cell_store(out)
    done: dict[str, Outcome] = {}
    for cell in cells:
        kept = store.get(cell.key, cell.label)
        if isinstance(kept, CellResult) and kept.key == cell.key:
            done[cell.label] = kept
    waiting = [cell for cell in cells if cell.label not in done]
    pool = _pool(loaded, len(waiting), jobs, threads, cluster)
    seen = on_step if jobs == 1 and cluster is None else None
    for cell, output in pool.map(partial(_run, on_step=seen), waiting):
        done[cell.label] = _outcome(cell, output)
        store.put(cell.key, done[cell.label], cell.label)
        if on_cell:
            on_cell(cell, len(done), len(cells))
    return [done[cell.label] for cell in cells]


def _pool(
    loaded: LoadedSuite, n_waiting: int, jobs: int, threads: int, cluster: str | None
) -> Pool[LoadedSuite] | RayPool[LoadedSuite]:
    """Return a pool for the waiting cells, whose context is the loaded suite."""
    if cluster is not None:
        name = str(loaded.prior.device)
        setup = partial(_ready, loaded.to("cpu"), name)
        n = None if jobs == 1 else jobs
        return RayPool(cluster, n, setup, threads=threads, gpus=0 if name == "cpu" else 1)
    workers = max(1, min(jobs, n_waiting))
    if workers == 1:
        return Pool(1, partial(_ready, loaded, None), threads)
    # Weights travel through the CPU's memory.
    device = loaded.prior.device
    return Pool(workers, partial(_ready, loaded.to("cpu"), str(device)), threads)


def _ready(loaded: LoadedSuite, device: str | None) -> LoadedSuite:
    """Bring the suite to its device and compile it, once in each process."""
    loaded = loaded if device is None else loaded.to(device)
    loaded.compile()
    return loaded


def _run(loaded: LoadedSuite, cell: Cell, on_step: OnCellStep | None) -> CellResult:
    return run_cell(loaded, cell, None if on_step is None else partial(on_step, cell))


def _outcome(cell: Cell, output: CellResult | Exception) -> Outcome:
    """Return what a cell found, or why it failed; raise what is no property of the cell."""
    if isinstance(output, PristinaError) and not isinstance(output, MissingExtra):
        return failure(cell, output)
    if isinstance(output, Exception):
        raise output
    return output


def unused_results(out: Path, outcomes: list[Outcome]) -> int:
    """Count the results in a folder that belong to the same cells but to an earlier state.

    Their code, settings, weights or pictures were others; they are kept and not used.

    Args:
        out: Folder of the results.
        outcomes: What :func:`run_suite` returned.
    """
    store = cell_store(out)
    used = {store.path(o.key, f"{o.task}.{o.row}.{o.seed}").name for o in outcomes}
    labels = {name.rpartition(".")[0].rpartition(".")[0] for name in used}
    files = {path.name for path in store.folder.glob("*.json")} - used
    return sum(name.rpartition(".")[0].rpartition(".")[0] in labels for name in files)
