"""Command ``pristina restore`` for several files and folders."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pristina.cli.console import duration, fail, printable
from pristina.errors import CheckpointError, MissingExtra, PictureError, PristinaError, SettingError
from pristina.files import DiskFull, read_bytes
from pristina.folder import (
    PICTURE_SUFFIXES,
    FolderJob,
    Item,
    Listing,
    Outcome,
    Worker,
    collect,
    plan_item,
    restore_items,
    survey,
)

if TYPE_CHECKING:
    from pristina.picture_files import FileOptions
    from pristina.request import Request
    from pristina.types import StepEvent

FAILED, DAMAGED, INTERRUPTED = 3, 4, 130
"""Exit codes: some pictures failed; all are done, some from damaged files; interrupted."""
AT_FAULT = (SettingError, CheckpointError, MissingExtra)
"""What is raised where it is not the picture's fault: no other one can be restored either."""


def restore_folder(
    inputs: Sequence[Path],
    out: Path,
    request: Request,
    options: FileOptions,
    console: Any,
    *,
    jobs: int,
    cluster: str | None = None,
    force: bool,
    dry_run: bool,
) -> int:
    """Restore several files and folders; return the exit code."""
    if out.exists() and not out.is_dir():
        raise PictureError(f"{out} is a file; several pictures are written into a folder.")
    if not out.exists() and out.suffix.lower() in PICTURE_SUFFIXES:
        raise PictureError(
            f"{out} looks like a file; several pictures are written into a folder: give its name."
        )
    if jobs < 1:
        raise SettingError(f"--jobs must be at least 1, not {jobs}.")
    job = FolderJob(out, request, options)
    job.check(here=cluster is None)
    listing = collect(inputs, out, list(job.mask_folders.values()))
    todo = survey(job, listing.items, force=force)
    report = Report(console, listing, out, len(todo))
    if dry_run:
        return _print_plans(job, todo, report)
    try:
        with job.manifest.locked(), report.bar:
            _restore(job, todo, jobs, cluster, report)
    except KeyboardInterrupt:
        report.interrupted = True
    return report.summary()


def _restore(
    job: FolderJob, todo: Sequence[Item], jobs: int, cluster: str | None, report: Report
) -> None:
    """Restore pictures until all are done or the disk is full."""
    outcomes = restore_items(job, todo, jobs=jobs, cluster=cluster, on_step=report.on_step)
    for item, outcome in outcomes:
        if isinstance(outcome, Outcome):
            report.done(outcome)
            continue
        if isinstance(outcome, AT_FAULT) and not report.outcomes:
            raise outcome
        report.failed(item, outcome)
        if isinstance(outcome, DiskFull):
            report.full = True
            break


def _print_plans(job: FolderJob, todo: Sequence[Item], report: Report) -> int:
    """Print what would be done and what it would take; return the exit code."""
    worker, seconds, costs, n = Worker(), 0.0, dict[Any, float](), 0
    for item in todo:
        try:
            *_, plan = plan_item(job, worker, item, read_bytes(item.source))
        except AT_FAULT:
            raise
        except Exception as error:
            report.failures.append(_why(item, error))
            continue
        n += 1
        kind = (plan.entry.name, plan.weights_name, str(plan.settings), plan.work_size)
        if kind not in costs:
            costs[kind] = plan.estimate().seconds
        seconds += costs[kind]
        what = _what(plan.entry.name, plan.weights_name, left_alone=plan.leaves_alone)
        print(printable(f"{item.source} -> {job.out / item.output}: {what}"))
    for text in report.failures:
        print(printable(f"not possible: {text}"))
    counts = {
        f"to restore in about {duration(seconds)}": n,
        "done before": len(report.listing.items) - len(todo),
        "that cannot be restored": len(report.failures),
    }
    print(", ".join(f"{n} {what}" for what, n in counts.items() if n))
    return FAILED if report.failures else 0


def _why(item: Item, error: Exception) -> str:
    """Return why a picture cannot be restored, in a sentence with its name."""
    known = isinstance(error, PristinaError)
    text = str(error) if known else f"{type(error).__name__}: {error}"
    return text if str(item.source) in text else f"{item.source}: {text}"


def _what(method: str, weights: str | None, *, left_alone: bool) -> str:
    if left_alone:
        return "left as it is"
    if method == "nothing":
        return "only its holes, levels or size"
    return method if weights is None else f"{method} with {weights}"


class Report:
    """What a user sees of a run.

    Args:
        console: Console for messages.
        listing: What was found.
        out: Folder of the results.
        n: Number of pictures to be done.
    """

    def __init__(self, console: Any, listing: Listing, out: Path, n: int):
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        self.console, self.listing, self.out, self.n = console, listing, out, n
        self.outcomes: list[Outcome] = []
        self.failures: list[str] = list(listing.bad)
        self.notes = Counter[str]()
        self.full = self.interrupted = False
        self.begun, self.first, self.ended = time.perf_counter(), 0.0, 0
        self.terminal = sys.stderr is not None and sys.stderr.isatty()
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, transient=True, disable=not self.terminal)
        self._task = self.bar.add_task("", total=n)

    def on_step(self, event: StepEvent) -> None:
        """Show how far the present picture is."""
        self.bar.update(self._task, completed=self.ended + event.step / event.n_steps)

    def done(self, outcome: Outcome) -> None:
        """Tell of a picture that was written, and of what its user should know."""
        self.outcomes.append(outcome)
        what = _what(outcome.method, outcome.weights, left_alone=outcome.left_alone)
        self._end(f"{self.out / outcome.item.output}: {what}, {outcome.seconds:.1f} s")
        for note in outcome.notes:
            self.notes[note] += 1
            if self.notes[note] == 1:
                self.console.print(f"note: {printable(note)}")

    def failed(self, item: Item, error: Exception) -> None:
        """Tell of a picture that could not be done."""
        self.failures.append(_why(item, error))
        self._end(f"failed: {item.source}")

    def _end(self, text: str) -> None:
        self.ended += 1
        self.bar.update(self._task, completed=self.ended)
        now, ahead = time.perf_counter(), ""
        self.first = self.first or now  # Before it, the processes and the weights were loaded.
        if self.ended > 1 and not self.terminal:
            left = (now - self.first) / (self.ended - 1) * (self.n - self.ended)
            ahead = f" (about {duration(left)} left)" if left >= 1 else ""
        self.console.print(f"{self.ended}/{self.n} {printable(text)}{ahead}")

    def summary(self) -> int:
        """Print what was done and what was not; return the exit code."""
        alone = sum(outcome.left_alone for outcome in self.outcomes)
        damaged = [outcome for outcome in self.outcomes if outcome.damaged]
        counts = {
            "restored": len(self.outcomes) - alone,
            "left alone": alone,
            "done before": len(self.listing.items) - self.n,
            "failed": len(self.failures),
            "not begun or not finished": self.n - self.ended,
            "other files left out": self.listing.others,
            "links to folders not followed": len(self.listing.links),
        }
        told = [f"{n} {what}" for what, n in counts.items() if n or what == "restored"]
        seconds = time.perf_counter() - self.begun
        self.console.print(f"{printable(self.out)}: {', '.join(told)}; {duration(seconds)}")
        for note, n in self.notes.items():
            if n > 1:
                self.console.print(f"note on {n} pictures: {printable(note)}")
        for text in self.failures:
            fail(text)
        if self.full:
            fail("The disk is full. Make room and give the same command again: it goes on here.")
        if self.interrupted:
            fail("interrupted. The same command goes on from here.")
            return INTERRUPTED
        return FAILED if self.failures else DAMAGED if damaged else 0
