"""The command ``pristina bench``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pristina.errors import SettingError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from pristina.bench.cells import Cell, Outcome
    from pristina.bench.suite import Suite
    from pristina.types import StepEvent


def bench(
    suite: str,
    *,
    pictures: Path | None = None,
    prior: str | None = None,
    count: int | None = None,
    size: int | None = None,
    crop: Literal["whole", "centre"] | None = None,
    tasks: tuple[str, ...] = (),
    methods: tuple[str, ...] = (),
    out: Path | None = None,
    jobs: int = 1,
    ray: str | None = None,
    device: str = "auto",
    threads: int = 0,
    compile: bool = False,
) -> None:
    """Measure methods on degraded pictures, all alike.

    Finished cells are kept in OUT, so that the same command goes on where it was interrupted.
    OUT/report.html has tables, pictures and plots; OUT/report.md has the tables.

    Parameters
    ----------
    suite
        smoke, diip, unstructured, structured, bird, invert2restore, indi, or a TOML file.
    pictures
        Folder of clean pictures, in place of the suite's.
    prior
        Shipped name or weight file, in place of the suite's.
    count
        Number of pictures, from the first.
    size
        Side of the squares that are measured, in pixels; a prior of one size overrides it.
    crop
        whole: the largest centred square, reduced. centre: the middle, not resampled.
    tasks
        Only this task of the suite; can be given several times.
    methods
        Only this row, beside the input and mmse; can be given several times.
    out
        Folder for the results; runs/bench/SUITE if not given.
    jobs
        Number of processes that run cells side by side.
    ray
        Address of a Ray cluster that runs the cells: HOST:PORT, auto for the one that this machine
        belongs to, or local for this machine alone; --jobs is the number of workers then.
    device
        auto, cpu, cuda or mps.
    threads
        Processor threads of each process; 0 gives each of several processes an equal share, and
        leaves the choice to torch for a single one.
    compile
        Compile the prior's network first: minutes at the start, and several times as fast after.
    """
    from rich.console import Console

    from pristina.bench.report import write_reports
    from pristina.bench.runner import unused_results
    from pristina.bench.suite_file import load_suite
    from pristina.device import best_device

    if jobs < 1 or threads < 0:
        raise SettingError(
            f"jobs must be at least 1 and threads not negative; they are {jobs} and {threads}."
        )
    chosen = load_suite(suite).with_changes(
        pictures=pictures,
        prior=prior,
        count=count,
        size=size,
        crop=crop,
        tasks=tasks,
        methods=methods,
    )
    out = out or Path("runs/bench") / chosen.name
    console = Console(stderr=True)
    options = {
        "jobs": jobs,
        "threads": threads,
        "device": best_device(device),
        "compiled": compile,
        "cluster": ray,
    }
    outcomes = _run(chosen, out, console, options)
    page = write_reports(chosen, outcomes, out, command=shlex.join(["pristina", *sys.argv[1:]]))
    console.print(f"{page}; {page.with_suffix('.md')}", markup=False)
    _print_notes(console, outcomes, unused_results(out, outcomes))


def _run(suite: Suite, out: Path, console: Console, options: dict[str, Any]) -> list[Outcome]:
    """Run a suite with a progress bar; an interruption ends the program with its usual status."""
    from pristina.bench.runner import run_suite

    with _progress(console) as progress:
        bar = progress.add_task(suite.name, total=None, step="")

        def on_cell(cell: Cell, done: int, n: int) -> None:
            progress.update(bar, completed=done, total=n, step="")
            console.print(f"{done}/{n}  {cell.title}", highlight=False, markup=False)

        def on_step(cell: Cell, event: StepEvent) -> None:
            progress.update(bar, step=f"{cell.title}: {event.step}/{event.n_steps}")

        try:
            return run_suite(suite, out, on_cell=on_cell, on_step=on_step, **options)
        except KeyboardInterrupt:
            console.print(
                f"interrupted; finished cells are in {out}, and the same command continues",
                markup=False,
            )
            sys.exit(130)


def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[step]}", markup=False),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def _print_notes(console: Console, outcomes: list[Outcome], n_unused: int) -> None:
    """Print which rows could not take which tasks, and how many kept results were not used."""
    from rich.markup import escape

    from pristina.bench.cells import CellFailure

    failures = [outcome for outcome in outcomes if isinstance(outcome, CellFailure)]
    notes = sorted({f"{f.row} cannot take {f.task}: {f.error}" for f in failures})
    if n_unused:
        notes.append(
            f"{n_unused} earlier results in the same folder were not used: they come from other "
            "code, settings, weights or pictures. They are kept; delete them if you like."
        )
    for note in notes:
        console.print(f"[yellow]note:[/yellow] {escape(note)}")
