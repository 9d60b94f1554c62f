"""``pristina bench``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pristina.errors import SettingError

if TYPE_CHECKING:
    from pristina.bench.runner import Cell
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
    device: str = "auto",
    threads: int = 0,
    compile: bool = False,
) -> None:
    """Measure methods on degraded pictures, all alike.

    Cells that are done are kept in OUT, so that the same command goes on where it was interrupted. OUT/report.html has tables, pictures and
    plots; OUT/report.md the tables.

    Parameters
    ----------
    suite
        smoke, diip, unstructured, structured, bird, invert2restore, indi, or a TOML file of your own.
    pictures
        Folder of clean pictures, in place of the suite's.
    prior
        Shipped name or weight file, in place of the suite's.
    count
        How many of the pictures, from the first.
    size
        Side of the squares that are measured on, in pixels; a prior of one size has the last word.
    crop
        whole: the largest centred square, reduced. centre: the middle of the picture, untouched.
    tasks
        Only this task of the suite; can be given several times.
    methods
        Only this row, beside the input and mmse; can be given several times.
    out
        Folder for the results; runs/bench/SUITE if not given.
    jobs
        Processes that run cells side by side.
    device
        auto, cpu, cuda or mps.
    threads
        Processor threads of a single process; 0 leaves the choice to torch.
    compile
        Compile the prior's network first: minutes at the start, and several times as fast after.
    """
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from pristina.bench.report import write_reports
    from pristina.bench.runner import run_suite
    from pristina.bench.tasks import load_suite
    from pristina.restoration import best_device

    if jobs < 1 or threads < 0:
        raise SettingError(f"jobs must be at least 1 and threads not negative; they are {jobs} and {threads}.")
    if threads:
        torch.set_num_threads(threads)
    loaded = load_suite(suite).with_changes(pictures=pictures, prior=prior, count=count, size=size, crop=crop, tasks=tasks, methods=methods)
    out = out or Path("runs/bench") / loaded.name
    console = Console(stderr=True)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[step]}"), TimeElapsedColumn()]
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(loaded.name, total=None, step="")

        def on_cell(cell: Cell, done: int, n: int) -> None:
            progress.update(bar, completed=done, total=n, step="")
            console.print(f"{done}/{n}  {cell.title}", highlight=False)

        def on_step(cell: Cell, event: StepEvent) -> None:
            progress.update(bar, step=f"{cell.title}: {event.step}/{event.n_steps}")

        try:
            cells = run_suite(loaded, out, jobs=jobs, device=best_device(device), compiled=compile, on_cell=on_cell, on_step=on_step)
        except KeyboardInterrupt:
            console.print(f"interrupted; what is done is in {out}, and the same command goes on from there")
            sys.exit(130)
    page = write_reports(loaded, cells, out, command=shlex.join(["pristina", *sys.argv[1:]]))
    console.print(f"{page}; {page.with_suffix('.md')}")
    for line in sorted({f"{c['row']} cannot take {c['task']}: {c['error']}" for c in cells if "error" in c}):
        console.print(f"[yellow]note:[/yellow] {line}")
