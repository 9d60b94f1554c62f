"""Findings: the cells of a suite as lines of tables, with means and marks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from pristina.bench.cells import CellFailure, CellResult, Outcome
from pristina.bench.suite import Row, Suite
from pristina.metrics.index import METRICS

NETWORK_CALLS = "network_calls"
DASH = "-"
"""Text of an entry without a number."""


@dataclass(frozen=True)
class Line:
    """A line of the tables: a row of the suite, or the best iterates of one.

    Attributes:
        row: Row of the suite.
        label: Name in the tables.
        knows: What it knows that a blind method does not, in words.
        oracle: Whether a blind method could not know it, or the clean pictures chose it.
        best: Whether it stands for the best iterates.
    """

    row: Row
    label: str
    knows: str
    oracle: bool
    best: bool = False


@dataclass(frozen=True)
class Mean:
    """A mean over pictures and seeds.

    Attributes:
        value: The mean.
        error: Its standard error over pictures.
    """

    value: float
    error: float = 0.0


@dataclass(frozen=True)
class Entry:
    """A number as tables show it.

    Attributes:
        text: The number, or a dash.
        error: Its standard error; empty if there is none.
        mark: ``best``, ``second`` or empty.
        paper: The paper's number; empty if it has none.
    """

    text: str
    error: str = ""
    mark: str = ""
    paper: str = ""


@dataclass(frozen=True)
class Findings:
    """The cells of a suite, ready for tables.

    Attributes:
        suite: The suite as it was run.
        outcomes: What :func:`pristina.bench.run_suite` returned.
    """

    suite: Suite
    outcomes: Sequence[Outcome]

    @cached_property
    def cells(self) -> dict[tuple[str, str, int], CellResult]:
        """Cells that ran, by task, row and seed."""
        return {(c.task, c.row, c.seed): c for c in self.outcomes if isinstance(c, CellResult)}

    @cached_property
    def failures(self) -> list[str]:
        """Reasons of the cells that could not run, each once, in order."""
        failed = [c for c in self.outcomes if isinstance(c, CellFailure)]
        reasons = sorted({(c.row, c.task, c.error) for c in failed})
        return [f"{row}, {task}: {error}" for row, task, error in reasons]

    @cached_property
    def lines(self) -> list[Line]:
        """Lines of every table."""
        lines = []
        for row in self.suite.rows:
            given = row.given()
            lines.append(Line(row, row.label, str(given), given.is_oracle))
            if row.oracle_stop:
                label = f"{row.label}, stopped by the truth"
                lines.append(Line(row, label, "oracle stop", True, best=True))
        return lines

    def of(self, line: Line, task: str) -> list[CellResult]:
        """Return the cells of a line and a task, one for each seed that ran."""
        found = (self.cells.get((task, line.row.name, seed)) for seed in self.suite.seeds)
        return [cell for cell in found if cell is not None]

    def mean(self, line: Line, task: str, metric: str) -> Mean | None:
        """Return the mean of a metric over pictures and seeds; None if there is nothing."""
        cells = self.of(line, task)
        if not cells:
            return None
        if metric == NETWORK_CALLS:
            calls = [cell.cost.network_calls for cell in cells]
            return None if line.best else Mean(sum(calls) / len(calls))
        runs = [(cell.best if line.best and cell.best else cell).metrics for cell in cells]
        if any(metric not in run for run in runs):
            return None
        each = zip(*(run[metric] for run in runs), strict=True)
        pictures = [sum(values) / len(values) for values in each]
        n, value = len(pictures), sum(pictures) / len(pictures)
        variance = sum((p - value) ** 2 for p in pictures) / max(1, n - 1)
        return Mean(value, (variance / n) ** 0.5)

    def seconds(self, line: Line, task: str) -> float | None:
        """Return the seconds for a picture: the median over seeds; None if there is nothing.

        A median is not spoilt by one cell during which the machine had other work.
        """
        cells = self.of(line, task)
        return median(cell.cost.seconds for cell in cells) if cells else None

    def marks(self, task: str, metric: str) -> dict[str, str]:
        """Return the labels of the best and the second best line that is no oracle.

        Empty if neither direction of the metric is better.
        """
        if metric == NETWORK_CALLS:
            return {}
        shown: dict[str, float] = {}
        for line in self.lines:
            found = None if line.oracle else self.mean(line, task, metric)
            if found is not None:
                shown[line.label] = round(found.value, digits(metric))
        places = dict(
            zip(METRICS[metric].best(list(shown.values())), ("best", "second"), strict=False)
        )
        return {label: places[value] for label, value in shown.items() if value in places}

    def entries(self, metric: str) -> list[list[Entry]]:
        """Return the table of a metric: an entry for each line and task."""
        columns = []
        for task in self.suite.tasks:
            marks = self.marks(task.name, metric)
            columns.append([self._entry(line, task.name, metric, marks) for line in self.lines])
        return [list(row) for row in zip(*columns, strict=True)]

    def _entry(self, line: Line, task: str, metric: str, marks: dict[str, str]) -> Entry:
        found, decimals, published = (
            self.mean(line, task, metric),
            digits(metric),
            self.suite.published,
        )
        paper = None
        if published is not None and not line.best:
            paper = published.value(line.row.name, task, metric)
        if found is None:
            return Entry(DASH, paper="" if paper is None else f"{paper:.{decimals}f}")
        return Entry(
            f"{found.value:.{decimals}f}",
            "" if metric == NETWORK_CALLS else f"± {found.error:.{decimals + 1}f}",
            "" if line.oracle else marks.get(line.label, ""),
            "" if paper is None else f"{paper:.{decimals}f}",
        )

    def published(self) -> list[tuple[str, list[str]]]:
        """Return the label and the entries of each row of a paper."""
        published = self.suite.published
        if published is None:
            return []
        labels = {row.name: row.label for row in self.suite.rows}

        def text(numbers: tuple[float, ...] | None) -> str:
            if numbers is None:
                return DASH
            pairs = zip(numbers, published.metrics, strict=True)
            return " / ".join(f"{value:.{digits(metric)}f}" for value, metric in pairs)

        return [
            (labels.get(row, row), [text(values.get(task.name)) for task in self.suite.tasks])
            for row, values in published.values.items()
        ]

    def stops(self) -> list[tuple[str, str, str]]:
        """Return label, task and reasons why methods stopped, with how often, without steps."""
        found = []
        for line in self.lines:
            if line.best or line.row.method in ("input", "mmse"):
                continue
            for task in self.suite.tasks:
                reasons = Counter(
                    reason.partition(" at step")[0].partition(" at iteration")[0]
                    for cell in self.of(line, task.name)
                    for reason in cell.stopped
                )
                if reasons:
                    text = "; ".join(f"{reason}: {n}" for reason, n in sorted(reasons.items()))
                    found.append((line.label, task.heading, text))
        return found

    def times(self) -> list[tuple[str, list[str]]]:
        """Return label, seconds for a picture in each task, and peak memory in MB."""
        found = []
        for line in self.lines:
            if line.best or line.row.method == "input":
                continue
            texts, peak = [], 0
            for task in self.suite.tasks:
                seconds = self.seconds(line, task.name)
                texts.append(DASH if seconds is None else f"{seconds:.2f}")
                peak = max([peak, *(cell.cost.peak_bytes for cell in self.of(line, task.name))])
            found.append((line.label, [*texts, f"{peak / 1e6:.0f}"]))
        return found

    def about_times(self) -> str:
        """Return what the seconds and the memory are, in sentences."""
        cells = self.cells.values()
        machines = {
            f"{c.machine.device}, {c.machine.threads} threads, torch {c.machine.torch}"
            for c in cells
        }
        peaks = {c.cost.peak_of for c in cells if c.row != "input"}
        whose = " or ".join(sorted(peaks)) or "the cell"
        return (
            f"Machine: {'; '.join(sorted(machines))}. Seconds: the median over seeds. "
            f"The peak is that of {whose}, program and weights included."
        )


def digits(metric: str) -> int:
    """Return the decimals that tables show."""
    return 0 if metric == NETWORK_CALLS else METRICS[metric].digits


def table_titles(suite: Suite) -> dict[str, str]:
    """Return the metrics of a suite with their titles; network calls come last."""
    titles: dict[str, str] = {name: METRICS[name].heading for name in suite.metrics}
    return {**titles, NETWORK_CALLS: "Network calls for a picture"}
