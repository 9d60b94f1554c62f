"""Runs a suite cell by cell: one task, one method, one seed, all pictures. A cell is done when its JSON file is there, whole.

Ground truth stays on this side: a method gets the observation, the prior and a callback that listens and says nothing back.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import inspect
import io
import json
import multiprocessing
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pristina.bench.tasks import Degraded, Row, Suite, Task, degrade, fingerprint, load_pictures, method_seeds, picture_size, scaled
from pristina.bench.watch import Part, Watch, peak, reset_peak, rounded, traces
from pristina.errors import CheckpointError, InputError, MissingExtra, PristinaError
from pristina.image.picture import Picture, atomic
from pristina.methods.base import Result
from pristina.methods.index import Entry, make_settings, method
from pristina.metrics.kernels import kernel_correlation, kernel_error
from pristina.metrics.measure import measure
from pristina.metrics.perceptual import lpips
from pristina.operators.base import Observation, Operator
from pristina.operators.blur import Blur
from pristina.operators.index import parse_recipe
from pristina.priors.base import Prior
from pristina.priors.checkpoints.safe_load import sha256_of
from pristina.priors.load import load_prior, load_weights, shipped
from pristina.priors.network import BATCHES, compile_network
from pristina.types import StepEvent

SHOWN = 4  # pictures kept in a cell of the first seed, for the report to show
OnCell = Callable[["Cell", int, int], None]


@dataclass(frozen=True)
class Cell:
    """One task, one row, one seed."""

    task: Task
    row: Row
    seed: int
    key: str = ""

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.task.name} / {self.row.name} / seed {self.seed}"

    @property
    def file(self) -> str:
        """Its JSON file; the key in it changes with anything that the numbers depend on."""
        return f"{self.task.name}.{self.row.name}.{self.seed}.{self.key[:12]}.json"


@dataclass
class Bench:
    """A suite with its pictures and its prior at hand."""

    suite: Suite
    prior: Prior
    prior_name: str
    names: list[str]
    truth: Tensor
    loaded: dict[tuple[str, str], Any] = field(default_factory=dict)
    digests: dict[int, str] = field(default_factory=dict)
    compiled: bool = False

    @classmethod
    def open(cls, suite: Suite, prior: Prior | None = None, device: str | torch.device = "cpu", *, compiled: bool = False) -> Bench:
        """Load what a suite names; ``prior`` stands in for the suite's. With ``compiled`` its network will be compiled."""
        name = suite.prior if prior is None else type(prior).__name__
        prior = load_prior(suite.prior if prior is None else prior, device=device)
        size_px = picture_size(suite.pictures, prior)
        names, truth = load_pictures(suite.pictures, size_px)
        suite = replace(suite, tasks=tuple(task.at(size_px) for task in suite.tasks))
        suite = replace(suite, rows=tuple(replace(row, form=row.form and scaled(row.form, size_px)) for row in suite.rows))
        if prior.channels == 1:
            truth = truth.mean(1, keepdim=True)
        return cls(suite, prior, name, names, truth.to(prior.device), compiled=compiled)

    def compile(self) -> None:
        """Compile the prior's network if asked for, and call it for every batch once, so that no cell's seconds hold the compiler's."""
        if self.compiled:
            compile_network(self.prior)
            with torch.no_grad():
                for batch in BATCHES:
                    self.prior.predict(torch.zeros(batch, *self.truth.shape[1:], device=self.prior.device), 500)

    def cells(self) -> list[Cell]:
        """Every cell, with its key.

        Raises:
            SettingError: A method or a setting of it is unknown.
            InputError: A task's damage cannot be done to these pictures.
        """
        found = []
        for seed in self.suite.seeds:
            for task in self.suite.tasks:
                try:
                    y = fingerprint(degrade(task, self.truth, seed).y)
                    for form in filter(None, (task.form, *(row.form for row in self.suite.rows))):
                        parse_recipe(form, seed, unknown=True)
                except InputError as error:
                    raise InputError(f"{self.suite.name} cannot do {task.name} ({task.recipe}): {error}") from error
                for row in self.suite.rows:
                    if row.tasks and task.name not in row.tasks:
                        continue
                    found.append(Cell(task, row, seed, self.key(task, row, seed, y)))
        return found

    def key(self, task: Task, row: Row, seed: int, y: str) -> str:
        """A digest of everything that a cell's numbers depend on, but for the machine; the version stands for the code below the methods."""
        said: dict[str, Any] = {
            "y": y,
            "truth": self.digest(self.truth),
            "seed": seed,
            "batch": self.suite.batch,
            "pristina": version("pristina"),
        }
        said["metrics"], said["shown"] = "lpips" in self.suite.metrics, seed == self.suite.seeds[0]
        if row.method != "input":
            entry = method(row.method)
            settings = make_settings(entry, row.preset, row.settings)
            said |= {"method": row.method, "settings": asdict(settings), "source": code_behind(entry.function.__module__)}
            said["weights"] = [sha256_of(path) for name, path in shipped().items() if name in asdict(settings).values()]
            told, told_sigma = knows(entry, row)
            said |= {
                "told": told,
                "form": (row.form or task.form) if told == "form" else None,
                "recipe": task.recipe if told == "truth" else None,
            }
            said |= {"sigma": task.sigma if told_sigma else None, "oracle_stop": row.oracle_stop}
            try:
                prior = self.prior_of(entry, row)
                said["prior"] = None if prior is None else [self.digest(prior), str(getattr(prior, "dtype", torch.float32))]
                if self.compiled and prior is not None:
                    said["compiled"] = True
            except CheckpointError as error:  # the cell will say so; the other rows go on
                said["prior"] = str(error)
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()

    def digest(self, thing: Tensor | torch.nn.Module) -> str:
        """The fingerprint of weights or pictures that are held here, taken once."""
        if id(thing) not in self.digests:
            self.digests[id(thing)] = fingerprint(thing)
        return self.digests[id(thing)]

    def about_prior(self) -> str:
        """The suite's prior in words."""
        return f"{self.prior_name}: {self.prior.domain} (sha256 {self.digest(self.prior)[:12]})"

    def prior_of(self, entry: Entry, row: Row) -> Any:
        """What the method draws its knowledge from."""
        if entry.prior == "diffusion" and row.prior is None:
            return self.prior
        wanted = (entry.prior, row.prior or self.suite.prior)
        if wanted not in self.loaded:
            self.loaded[wanted] = load_weights(*wanted, device=self.prior.device)
        return self.loaded[wanted]


def code_alone(source: str) -> str:
    """Python source without comments and docstrings, those of constants too: what can change a number.

    Example:
        >>> code_alone("x = 1  # one")
        'x = 1'
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            said = [line for line in node.body if isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)]
            node.body = [line for line in node.body if line not in said] or [ast.Pass()]
    return ast.unparse(tree)


@cache
def code_behind(module: str) -> dict[str, str]:
    """Digests of the code of a module, and of the modules beside it that it imports, and of those that they import."""
    found: dict[str, str] = {}
    package, waiting = module.rpartition(".")[0], [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            code = code_alone(inspect.getsource(import_module(name)))
            found[name] = hashlib.sha256(code.encode()).hexdigest()
            imports = [node.module or "" for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
            waiting += [other for other in imports if package and other.rpartition(".")[0] == package]
    return found


def knows(entry: Entry, row: Row) -> tuple[str, bool]:
    """What a method is told about the degradation, and whether about the noise too."""
    told_sigma = entry.oracle if row.told_sigma is None else row.told_sigma
    needs = "truth" if entry.oracle else "form" if entry.operator == "required" else "nothing"
    return ("nothing" if entry.operator in ("never", "size") else row.told or needs), told_sigma


def run_cell(bench: Bench, cell: Cell, on_step: Callable[[StepEvent], None] | None = None) -> dict[str, Any]:
    """What a cell finds, ready for JSON.

    Raises:
        PristinaError: The method cannot take the task.
    """
    degraded = degrade(cell.task, bench.truth, cell.seed)
    n, perceptual = len(bench.truth), "lpips" in bench.suite.metrics
    head = {"task": cell.task.name, "row": cell.row.name, "seed": cell.seed, "key": cell.key, "pictures": bench.names}
    head |= {"recipe": cell.task.recipe, "degradation_seeds": degraded.seeds, "degradation": degraded.operators[0].describe()}
    head |= {"size_px": bench.truth.shape[-1], "prior": bench.about_prior(), "pristina": version("pristina")}
    shown = SHOWN if cell.seed == bench.suite.seeds[0] else 0
    if cell.row.method == "input":
        parts = [Part(degraded.initial.clamp(0, 1), ["nothing was done"] * n)]
    else:
        entry = method(cell.row.method)
        told, told_sigma = knows(entry, cell.row)
        settings = make_settings(entry, cell.row.preset, cell.row.settings)
        head |= {
            "method": entry.name,
            "settings": asdict(settings),
            "told": told,
            "told_sigma": told_sigma,
            "method_seeds": method_seeds(cell.seed, n),
        }
        parts = [
            _run(entry, bench.prior_of(entry, cell.row), settings, observation, bench.truth[rows], seeds, cell.row.oracle_stop, on_step)
            for rows, seeds, observation in _batches(bench, cell, degraded, told, told_sigma)
        ]
    restored = torch.cat([p.picture for p in parts])
    found: dict[str, Any] = {
        **head,
        "metrics": _numbers(restored, bench.truth, perceptual),
        "stopped": [why for p in parts for why in p.stopped],
        "sha256": [fingerprint(x) for x in restored],
        "shown": [_png(x) for x in restored[:shown]],
        "truth": [_png(x) for x in bench.truth[:shown]] if cell.row.method == "input" else [],
        "trace": traces(parts),
        "cost": {
            "network_calls": sum(p.network_calls for p in parts) / n,
            "backward_calls": sum(p.backward_calls for p in parts) / n,
            "seconds": sum(p.seconds for p in parts) / n,
            "peak_bytes": max(p.peak_bytes for p in parts),
            "peak_of": "the cell" if all(p.peak_is_own for p in parts) else "the process so far",
        },
    }
    if cell.row.oracle_stop and cell.row.method != "input":
        watches = [p.watch for p in parts if p.watch is not None]
        best, steps = torch.cat([w.best for w in watches]), [step for w in watches for step in w.best_step.tolist()]
        found["oracle_stop"] = {
            "metrics": _numbers(best, bench.truth, perceptual),
            "steps": steps,
            "shown": [_png(x) for x in best[:shown]],
        }
    _add_kernels(found, degraded.operators, parts, shown)
    if any(p.operator is not None for p in parts):
        found["operator"] = [p.operator.describe() for p in parts if p.operator is not None]
    return found


def _batches(bench: Bench, cell: Cell, degraded: Degraded, told: str, told_sigma: bool) -> Iterator[tuple[slice, list[int], Observation]]:
    """Rows, seeds and observation of each batch. A method that is told the truth gets each picture alone where the truths differ."""
    size = 1 if told == "truth" and not degraded.same else bench.suite.batch
    sigma = cell.task.sigma if told_sigma else None
    seeds = method_seeds(cell.seed, len(bench.truth))
    for start in range(0, len(bench.truth), size):
        rows = slice(start, start + size)
        if told == "nothing":
            observation = Observation(degraded.initial[rows], known_sigma=sigma)
        elif told == "truth":
            observation = Observation(degraded.y[rows], degraded.operators[start], sigma)
        elif cell.row.form is not None:
            observation = Observation(
                degraded.initial[rows], parse_recipe(cell.row.form, cell.seed, unknown=True).to(degraded.y.device), sigma
            )
        elif cell.task.form is None:
            raise _NotForIt(f"the task {cell.task.name} has no form that {cell.row.name} could be told")
        else:
            observation = Observation(degraded.y[rows], parse_recipe(cell.task.form, cell.seed, unknown=True).to(degraded.y.device), sigma)
        yield rows, seeds[rows], observation


class _NotForIt(PristinaError):
    """A method and a task that do not go together; the table shows a dash."""


def _run(
    entry: Entry,
    prior: Any,
    settings: Any,
    observation: Observation,
    truth: Tensor,
    seeds: Sequence[int],
    keep_best: bool,
    on_step: Callable[[StepEvent], None] | None,
) -> Part:
    watch = Watch(truth, keep_best, on_step)
    own = reset_peak(truth.device)
    begun = time.perf_counter()
    result: Result = entry.function(
        observation, prior, settings, generator=[torch.Generator().manual_seed(s) for s in seeds], on_step=watch
    )
    if truth.device.type == "cuda":
        torch.cuda.synchronize(truth.device)
    seconds = time.perf_counter() - begun - watch.seconds
    return Part(
        picture=result.picture,
        stopped=result.stopped,
        operator=result.operator,
        watch=watch,
        network_calls=result.cost.network_calls,
        backward_calls=result.cost.backward_calls,
        seconds=seconds,
        peak_bytes=peak(truth.device),
        peak_is_own=own,
    )


def blur_kernel(operator: Operator | None, row: int) -> Tensor | None:
    """The kernel (1, K, K) of the first blur in an operator, for picture ``row``; None if there is no blur."""
    for part in [] if operator is None else operator.parts:
        if isinstance(part, Blur):
            kernels = part.kernel().detach()[:, 0]
            return kernels[row : row + 1] if len(kernels) > 1 else kernels
    return None


def _add_kernels(found: dict[str, Any], truths: Sequence[Operator], parts: Sequence[Part], shown: int) -> None:
    """Kernel metrics, and pictures of the kernels, where both sides have one."""
    pairs: list[tuple[Tensor, Tensor]] = []
    for part in parts:
        for row in range(len(part.picture)):
            true, estimated = blur_kernel(truths[len(pairs)], 0), blur_kernel(part.operator, row)
            if true is None or estimated is None:
                return
            pairs.append((estimated, true))
    for name, metric in (("kernel_correlation", kernel_correlation), ("kernel_error", kernel_error)):
        found["metrics"][name] = [rounded(metric(estimated, true).item()) for estimated, true in pairs]
    found["kernels"] = [[_png(k / k.max()) for k in pair] for pair in pairs[:shown]]


def _numbers(restored: Tensor, truth: Tensor, perceptual: bool) -> dict[str, list[float]]:
    found = measure(restored.clamp(0, 1), truth, perceptual=perceptual)
    return {name: [rounded(v) for v in values.tolist()] for name, values in found.items()}


def _png(x: Tensor) -> str:
    file = io.BytesIO()
    Picture.from_pixels(x.clamp(0, 1)).to_pillow().save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def run_suite(
    suite: Suite,
    out: Path,
    *,
    prior: Prior | None = None,
    jobs: int = 1,
    device: str | torch.device = "cpu",
    compiled: bool = False,
    on_cell: OnCell | None = None,
    on_step: Callable[[Cell, StepEvent], None] | None = None,
) -> list[dict[str, Any]]:
    """Everything that the cells of a suite found; cells that were done before are read, not run.

    Args:
        suite: See :func:`pristina.bench.tasks.load_suite`.
        out: The cells are kept in ``out/cells``, one JSON file each.
        prior: Stands in for the suite's prior.
        jobs: Processes; each has its share of the processor's threads.
        device: Where the methods run.
        compiled: Compile the suite's prior first, in each process; see :func:`pristina.priors.network.compile_network`.
        on_cell: Called with a cell, the number done and the number of all, when a cell is done.
        on_step: Called at each step of a method, when there is one process.

    Returns:
        One dictionary for each cell, in the suite's order. A method that cannot take a task has the reason under ``error`` instead of
        numbers, and is tried again next time.
    """
    bench = Bench.open(suite, prior, device, compiled=compiled)
    if "lpips" in suite.metrics:
        lpips(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))  # a missing package is told before hours of work
    cells, folder = bench.cells(), out / "cells"
    done = {cell.file: found for cell in cells if (found := _read(folder / cell.file)) is not None}
    waiting = [cell for cell in cells if cell.file not in done]
    count = len(cells) - len(waiting)
    finished = _in_processes(bench, waiting, jobs, device) if jobs > 1 and len(waiting) > 1 else _here(bench, waiting, on_step)
    for cell, found in finished:
        with atomic(folder / cell.file) as beside:
            beside.write_text(json.dumps(found, indent=1) + "\n")
        done[cell.file] = found
        count += 1
        if on_cell:
            on_cell(cell, count, len(cells))
    return [done[cell.file] for cell in cells]


def _read(path: Path) -> dict[str, Any] | None:
    """A cell that is done and did not fail."""
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return None if "error" in found else found


def _try(bench: Bench, cell: Cell, on_step: Callable[[StepEvent], None] | None = None) -> dict[str, Any]:
    try:
        return run_cell(bench, cell, on_step) | {"machine": machine(bench.truth.device)}
    except MissingExtra:
        raise
    except PristinaError as error:
        return {"task": cell.task.name, "row": cell.row.name, "seed": cell.seed, "key": cell.key, "error": str(error)}


def _here(bench: Bench, cells: Sequence[Cell], on_step: Callable[[Cell, StepEvent], None] | None) -> Iterator[tuple[Cell, dict[str, Any]]]:
    if cells:
        bench.compile()
    for cell in cells:
        listen = None if on_step is None else lambda event, cell=cell: on_step(cell, event)
        yield cell, _try(bench, cell, listen)


_bench: Bench | None = None  # of a worker process


def _begin(suite: Suite, prior: Prior, prior_name: str, device: str, threads: int, compiled: bool) -> None:
    global _bench
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _bench = replace(Bench.open(suite, prior, device, compiled=compiled), prior_name=prior_name)
    _bench.compile()


def _end_with_parent() -> None:
    """Leave when the run that began this process is gone: killed, it can tell nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(cell: Cell) -> dict[str, Any]:
    assert _bench is not None
    return _try(_bench, cell)


def _in_processes(bench: Bench, cells: Sequence[Cell], jobs: int, device: str | torch.device) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Cells as they come, from processes of their own, which load nothing but what they are handed."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    begin = (bench.suite, bench.prior.to("cpu"), bench.prior_name, str(device), threads, bench.compiled)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin, begin) as pool:
        running = {pool.submit(_work, cell): cell for cell in cells}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def machine(device: torch.device) -> dict[str, Any]:
    """Where a cell ran."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version()}
