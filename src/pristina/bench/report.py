"""Tables and pages from what the cells of a suite found.

Everything but the last section, seconds and memory, is the same byte for byte whenever the cells are.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pristina.bench.runner import knows
from pristina.bench.tasks import Row, Suite
from pristina.errors import MissingExtra
from pristina.image.picture import atomic
from pristina.methods.index import method

TITLES = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "haarpsi": "HaarPSI",
    "gmsd": "GMSD (less is better)",
    "lpips": "LPIPS, AlexNet (less is better)",
    "psnr_after_shift": "PSNR after the best shift, dB",
    "kernel_correlation": "kernel: cross-correlation",
    "kernel_error": "kernel: relative error (less is better)",
    "sharpness": "sharpness (variance of the Laplacian)",
    "noise": "noise (estimated standard deviation)",
    "blockiness": "blockiness",
}
LESS_IS_BETTER = {"gmsd", "lpips", "kernel_error"}
NEITHER = {"sharpness", "noise", "blockiness"}
CALLS = "network_calls"
DASH = "-"  # nothing to show
Numbers = dict[str, list[float]]


@dataclass(frozen=True)
class Line:
    """A row of the tables: a suite's row, or the best iterates of one.

    Attributes:
        row: The suite's row.
        label: How tables call it.
        told: In words, what it knows that a blind method does not.
        oracle: Whether it was told what a blind method cannot know, or chosen by the truth.
        best: Whether it stands for the best iterates.
    """

    row: Row
    label: str
    told: str
    oracle: bool
    best: bool = False


class Findings:
    """The cells of a suite, ready for tables.

    Args:
        suite: The suite as it was run.
        cells: What :func:`pristina.bench.runner.run_suite` returned.
    """

    def __init__(self, suite: Suite, cells: Sequence[Mapping[str, Any]]):
        self.suite = suite
        self.cells = {(c["task"], c["row"], c["seed"]): c for c in cells if "error" not in c}
        self.failures = sorted({(c["row"], c["task"], c["error"]) for c in cells if "error" in c})

    @property
    def lines(self) -> list[Line]:
        """The rows of every table."""
        lines = []
        for row in self.suite.rows:
            told, told_sigma = ("nothing", False) if row.method == "input" else knows(method(row.method), row)
            known = [{"form": "knows the form", "truth": "knows the degradation"}.get(told, ""), "knows the noise" if told_sigma else ""]
            lines.append(Line(row, row.label, ", ".join(k for k in known if k), told == "truth" or told_sigma))
            if row.oracle_stop:
                lines.append(Line(row, f"{row.label}, stopped by the truth", "oracle stop", True, best=True))
        return lines

    def of(self, line: Line, task: str) -> list[Mapping[str, Any]]:
        """The cells of a line and a task, one for each seed that ran."""
        found = (self.cells.get((task, line.row.name, seed)) for seed in self.suite.seeds)
        return [cell for cell in found if cell is not None]

    def mean(self, line: Line, task: str, metric: str) -> tuple[float, float] | None:
        """The mean over pictures and seeds, and its standard error over pictures; None if there is nothing."""
        cells = self.of(line, task)
        if not cells:
            return None
        if metric == CALLS:
            return (sum(c["cost"][CALLS] for c in cells) / len(cells), 0.0) if not line.best else None
        runs = [(c["oracle_stop"] if line.best else c)["metrics"].get(metric) for c in cells]
        if any(numbers is None for numbers in runs):
            return None
        pictures = [sum(numbers) / len(numbers) for numbers in zip(*runs, strict=True)]
        n, mean = len(pictures), sum(pictures) / len(pictures)
        variance = sum((p - mean) ** 2 for p in pictures) / max(1, n - 1)
        return mean, (variance / n) ** 0.5

    def seconds(self, line: Line, task: str) -> float | None:
        """For a picture: the median over seeds, which one disturbed cell does not spoil; None if there is nothing."""
        cells = self.of(line, task)
        return median(c["cost"]["seconds"] for c in cells) if cells else None

    def marks(self, task: str, metric: str) -> dict[str, str]:
        """The labels of the best and the second best line without an oracle; none where it cannot be said which is better."""
        if metric in NEITHER or metric == CALLS:
            return {}
        shown = [
            (round(found[0], digits(metric)), line.label)
            for line in self.lines
            if not line.oracle and (found := self.mean(line, task, metric))
        ]
        levels = sorted({value for value, _ in shown}, reverse=metric not in LESS_IS_BETTER)[:2]
        return {label: ("best", "second")[levels.index(value)] for value, label in shown if value in levels}


def digits(metric: str) -> int:
    """Decimals that tables show."""
    return {"psnr": 2, "psnr_after_shift": 2, CALLS: 0}.get(metric, 3)


def table_titles(suite: Suite) -> dict[str, str]:
    """The metrics of a suite and what tables call them; network calls come last."""
    return {**{m: TITLES[m] for m in suite.metrics}, CALLS: "Network calls for a picture"}


def write_markdown(findings: Findings, path: Path, facts: Sequence[tuple[str, str]]) -> None:
    """The tables as Markdown, for ``benchmarks/``.

    Args:
        findings: The cells.
        path: The file.
        facts: Command, data, count, seeds and the like, as name and text.
    """
    suite = findings.suite
    out = [f"# {suite.title}", "", suite.about.strip(), ""]
    out += [f"* {name}: {f'`{text}`' if name == 'command' else text}" for name, text in facts]
    out += ["* **best** and _second best_ of the rows without an oracle; means over pictures and seeds", ""]
    head = ["method", *(t.title or t.name for t in suite.tasks)]
    for metric, title in table_titles(suite).items():
        marks = {t.name: findings.marks(t.name, metric) for t in suite.tasks}
        lines = []
        for line in findings.lines:
            texts = [_entry(findings, line, t.name, metric, marks[t.name]) for t in suite.tasks]
            wrap = {"best": "**{}**", "second": "_{}_", "": "{}"}
            numbers = [wrap[e["mark"]].format(e["text"]) + (f" (paper {e['paper']})" if e["paper"] else "") for e in texts]
            lines.append([line.label + (f" ({line.told})" if line.told else ""), *numbers])
        out += [f"## {title}", "", *_markdown(head, lines), ""]
    if suite.published:
        out += [
            "## Published",
            "",
            suite.published.source,
            "",
            *_markdown(head, [[label, *texts] for label, texts in _published(findings)]),
            "",
        ]
    if findings.failures:
        out += ["## Not run", "", *(f"* {text}" for text in _failures(findings)), ""]
    out += ["## Seconds and memory", "", _times_about(findings), ""]
    out += _markdown(["seconds for a picture", *head[1:], "peak memory, MB"], [[label, *texts] for label, texts in _times(findings)])
    _write(path, "\n".join(out) + "\n")


def write_html(findings: Findings, path: Path, facts: Sequence[tuple[str, str]]) -> None:
    """One page with tables, pictures, traces and plots, that asks nothing of any other file or host.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader
    except ImportError as error:
        raise MissingExtra("The report needs jinja2 and matplotlib: pip install 'pristina[bench]'.") from error
    suite = findings.suite
    tables = []
    for metric, title in table_titles(suite).items():
        marks = {t.name: findings.marks(t.name, metric) for t in suite.tasks}
        lines = [
            {
                "label": line.label,
                "told": line.told,
                "oracle": line.oracle,
                "entries": [_entry(findings, line, t.name, metric, marks[t.name]) for t in suite.tasks],
            }
            for line in findings.lines
        ]
        tables.append({"title": title, "lines": lines})
    tasks = []
    for task in suite.tasks:
        grid = _grid(findings, task.name)
        tasks.append(
            {
                "title": task.title or task.name,
                "recipe": next((c["recipe"] for c in findings.cells.values() if c["task"] == task.name), task.recipe),
                "grid": grid,
                "n_shown": max((len(pictures) for _, pictures in grid), default=0),
                "trace": _trace_plot(findings, task.name),
            }
        )
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = environment.get_template("report.html.jinja").render(
        suite=suite,
        facts=facts,
        tables=tables,
        tasks=tasks,
        published={"source": suite.published.source, "lines": _published(findings)} if suite.published else None,
        failures=_failures(findings),
        cost_plots=[_cost_plot(findings, metric, "calls") for metric in suite.metrics if metric in ("psnr", "haarpsi", "lpips")],
        stops=_stops(findings),
        times={"about": _times_about(findings), "lines": _times(findings), "plot": _cost_plot(findings, suite.metrics[0], "seconds")},
    )
    _write(path, page)


def _entry(findings: Findings, line: Line, task: str, metric: str, marks: Mapping[str, str]) -> dict[str, str]:
    """One number as tables show it."""
    found, decimals, published = findings.mean(line, task, metric), digits(metric), findings.suite.published
    paper = published.of(line.row.name, task, metric) if published and not line.best else None
    return {
        "text": DASH if found is None else f"{found[0]:.{decimals}f}",
        "title": f"± {found[1]:.{decimals + 1}f}" if found and metric != CALLS else "",
        "mark": marks.get(line.label, "") if not line.oracle else "",
        "paper": "" if paper is None else f"{paper:.{decimals}f}",
    }


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    rows = [head, ["---", *("---:" for _ in head[1:])], *lines]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _published(findings: Findings) -> list[tuple[str, list[str]]]:
    published = findings.suite.published
    assert published is not None
    labels = {row.name: row.label for row in findings.suite.rows}
    lines = []
    for row, tasks in published.values.items():
        numbers = [tasks.get(t.name) for t in findings.suite.tasks]
        texts = [
            DASH if n is None else " / ".join(f"{v:.{digits(m)}f}" for v, m in zip(n, published.metrics, strict=True)) for n in numbers
        ]
        lines.append((labels.get(row, row), texts))
    return lines


def _failures(findings: Findings) -> list[str]:
    return [f"{row}, {task}: {error}" for row, task, error in findings.failures]


def _grid(findings: Findings, task: str) -> list[tuple[str, list[str]]]:
    """Captions and pictures of the first seed, truth first."""
    seed, grid = findings.suite.seeds[0], []
    for line in findings.lines:
        cell = findings.cells.get((task, line.row.name, seed))
        if cell is None:
            continue
        if line.row.method == "input":
            grid.append(("truth", list(cell["truth"])))
        grid.append((line.label, list((cell["oracle_stop"] if line.best else cell)["shown"])))
        if cell.get("kernels") and not line.best:
            grid += [("kernel", [k[1] for k in cell["kernels"]]), (f"{line.label}: kernel", [k[0] for k in cell["kernels"]])]
    captions = [caption for caption, _ in grid]
    return [(caption, pictures) for i, (caption, pictures) in enumerate(grid) if caption != "kernel" or captions.index("kernel") == i]


def _stops(findings: Findings) -> list[tuple[str, str, str]]:
    """Why methods stopped, with how often, iteration numbers left out."""
    lines = []
    for line in findings.lines:
        if line.best or line.row.method in ("input", "mmse"):
            continue
        for task in findings.suite.tasks:
            reasons = Counter(why.split(" at iteration")[0] for cell in findings.of(line, task.name) for why in cell["stopped"])
            if reasons:
                lines.append((line.label, task.title or task.name, "; ".join(f"{why}: {n}" for why, n in sorted(reasons.items()))))
    return lines


def _times_about(findings: Findings) -> str:
    machines = sorted(
        {f"{c['machine']['device']}, {c['machine']['threads']} threads, torch {c['machine']['torch']}" for c in findings.cells.values()}
    )
    peaks = sorted({c["cost"]["peak_of"] for c in findings.cells.values() if c["row"] != "input" and "peak_of" in c["cost"]})
    whose = " or ".join(peaks) or "the cell"
    return f"Machine: {'; '.join(machines)}. Seconds: the median over seeds. The peak is that of {whose}, program and weights included."


def _times(findings: Findings) -> list[tuple[str, list[str]]]:
    lines = []
    for line in findings.lines:
        if line.best or line.row.method == "input":
            continue
        texts, peak = [], 0
        for task in findings.suite.tasks:
            seconds = findings.seconds(line, task.name)
            texts.append(DASH if seconds is None else f"{seconds:.2f}")
            peak = max([peak, *(c["cost"]["peak_bytes"] for c in findings.of(line, task.name))])
        lines.append((line.label, [*texts, f"{peak / 1e6:.0f}"]))
    return lines


def _cost_plot(findings: Findings, metric: str, cost: str) -> str:
    """Quality against network calls, or against seconds: one panel for each task, as base64 SVG."""
    tasks = findings.suite.tasks
    figure = _figure(width=3.4 * min(4, len(tasks)), height=3.0 * -(-len(tasks) // 4))
    lines = [line for line in findings.lines if not line.best]
    for place, task in enumerate(tasks):
        axes = figure.add_subplot(-(-len(tasks) // 4), min(4, len(tasks)), place + 1)
        for i, line in enumerate(lines):
            found, calls = findings.mean(line, task.name, metric), findings.mean(line, task.name, CALLS)
            seconds = findings.seconds(line, task.name)
            if found is None or calls is None or seconds is None:
                continue
            if line.row.method == "input":
                axes.axhline(found[0], color="0.6", linestyle="--", linewidth=1, label=line.label)
                continue
            spent = calls[0] if cost == "calls" else seconds
            marker = "x" if line.oracle else "o^sDvP*X"[i // 10 % 8]
            axes.plot([max(spent, 0.5 if cost == "calls" else 1e-3)], [found[0]], marker, color=f"C{i % 10}", label=line.label)
        _log(axes.xaxis, axes.set_xscale)
        axes.set_title(task.title or task.name, fontsize=9)
        axes.set_xlabel("network calls" if cost == "calls" else "seconds", fontsize=8)
        axes.set_ylabel(TITLES.get(metric, metric), fontsize=8)
        axes.tick_params(which="both", labelsize=7)
        axes.grid(alpha=0.3)
    return _svg(figure)


def _trace_plot(findings: Findings, task: str) -> str:
    """Loss and PSNR against steps, mean over pictures, of the first seed, as base64 SVG; "" if no method takes steps."""
    seed, names = findings.suite.seeds[0], [line for line in findings.lines if not line.best]
    traced = [(i, line, c) for i, line in enumerate(names) if (c := findings.cells.get((task, line.row.name, seed))) and c["trace"]]
    if not traced:
        return ""
    figure = _figure(width=10, height=3)
    for place, name in enumerate(("loss", "psnr")):
        axes = figure.add_subplot(1, 2, place + 1)
        for i, line, cell in traced:
            axes.plot(cell["trace"]["step"], cell["trace"][name], color=f"C{i % 10}", linewidth=1.3, label=line.label)
        if name == "loss":
            _log(axes.yaxis, axes.set_yscale)
        axes.set_xlabel("step", fontsize=8)
        axes.set_ylabel("loss" if name == "loss" else "PSNR to the truth, dB", fontsize=8)
        axes.tick_params(which="both", labelsize=7)
        axes.grid(alpha=0.3)
    return _svg(figure)


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("The report needs jinja2 and matplotlib: pip install 'pristina[bench]'.") from error
    return Figure(figsize=(width, height), layout="constrained")


def _log(axis: Any, set_scale: Any) -> None:
    """A logarithmic axis with plain numbers on it."""
    set_scale("log")
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" and axis.axis_name == "y" else "")


def _svg(figure: Any) -> str:
    """A figure with one legend for all its panels, without date or random names in it."""
    from matplotlib import rc_context

    handles = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(6, len(handles)), fontsize=8, frameon=False)
    file = io.BytesIO()
    with rc_context({"svg.hashsalt": "pristina"}):
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=False)
    return base64.b64encode(file.getvalue()).decode()


def _write(path: Path, text: str) -> None:
    with atomic(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_reports(suite: Suite, cells: Sequence[Mapping[str, Any]], out: Path, command: str = "") -> Path:
    """``out/report.html`` and ``out/report.md`` from the cells of a suite.

    Args:
        suite: The suite as it was run.
        cells: What :func:`pristina.bench.runner.run_suite` returned.
        out: The folder.
        command: What produced them, to be printed in them.

    Returns:
        The path of the page.
    """
    findings = Findings(suite, cells)
    facts = _facts(findings, command)
    write_html(findings, out / "report.html", facts)
    write_markdown(findings, out / "report.md", facts)
    return out / "report.html"


def _facts(findings: Findings, command: str) -> list[tuple[str, str]]:
    """What a reader needs to do it again."""
    suite = findings.suite
    first: Mapping[str, Any] = next(iter(findings.cells.values()), {})
    names, folder = first.get("pictures", []), suite.pictures.folder
    source = str(folder) if folder else "scikit-image"
    cut = {"whole": "largest centred square, reduced", "centre": "cut from the middle"}[suite.pictures.crop]
    listed = ", ".join(names) if len(names) <= 6 else f"{names[0]} to {names[-1]}"
    seeds = ", ".join(str(s) for s in suite.seeds)
    return [
        ("command", command or "(called from Python)"),
        ("pictures", f"{len(names)} of {source} ({listed}), {first.get('size_px', '?')} px, {cut}"),
        ("prior", f"{first.get('prior', suite.prior)}"),
        (
            "seeds",
            f"{seeds}; noise and operators of picture i are seeded 10000000 + 10000 seed + i and as much again, methods 10000 seed + i",
        ),
        ("pristina", str(first.get("pristina", ""))),
    ]
