"""Reports: tables and a page from what the cells of a suite found.

Everything but the last section, seconds and memory, is equal byte for byte whenever the cells are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pristina.bench.cells import Outcome
from pristina.bench.findings import Entry, Findings, table_titles
from pristina.bench.plots import cost_plot, trace_plot
from pristina.bench.suite import Suite
from pristina.errors import MissingExtra
from pristina.files import write_all

Facts = Sequence[tuple[str, str]]
"""What a reader needs to run it again, as names and texts."""


def write_reports(suite: Suite, outcomes: Sequence[Outcome], out: Path, command: str = "") -> Path:
    """Write ``out/report.html`` and ``out/report.md``.

    Args:
        suite: The suite as it was run.
        outcomes: What :func:`pristina.bench.run_suite` returned.
        out: Folder of the report.
        command: Command that produced them, to be shown in the report.

    Returns:
        Path of the page.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
        PictureError: A file cannot be written.
    """
    findings = Findings(suite, outcomes)
    facts = facts_of(findings, command)
    page, tables = out / "report.html", out / "report.md"
    write_all({page: html(findings, facts).encode(), tables: markdown(findings, facts).encode()})
    return page


def facts_of(findings: Findings, command: str = "") -> Facts:
    """Return what a reader needs to run the suite again."""
    suite, first = findings.suite, next(iter(findings.cells.values()), None)
    names: tuple[str, ...] = () if first is None else first.pictures
    crops = {"whole": "largest centred square, reduced", "centre": "cut from the middle"}
    listed = ", ".join(names) if len(names) <= 6 else f"{names[0]} to {names[-1]}"
    size = "?" if first is None else first.size_px
    source = suite.pictures.folder or "scikit-image"
    cut = crops[suite.pictures.crop]
    return [
        ("command", command or "(called from Python)"),
        ("pictures", f"{len(names)} of {source} ({listed}), {size} px, {cut}"),
        ("prior", suite.prior if first is None else first.prior),
        (
            "seeds",
            f"{', '.join(map(str, suite.seeds))}; noise and operators of picture i are seeded "
            "10000000 + 10000 seed + i and as much again, methods 10000 seed + i",
        ),
        ("pristina", "" if first is None else first.pristina),
    ]


def markdown(findings: Findings, facts: Facts) -> str:
    """Return the tables as Markdown, for ``benchmarks/``.

    Args:
        findings: The cells.
        facts: Command, pictures, seeds and the like.
    """
    suite = findings.suite
    out = [f"# {suite.title}", "", suite.about.strip(), ""]
    out += [f"* {name}: {f'`{text}`' if name == 'command' else text}" for name, text in facts]
    out += [
        "* **best** and _second best_ of the rows without an oracle; means over pictures and seeds",
        "",
    ]
    head = ["method", *(task.heading for task in suite.tasks)]
    for metric, title in table_titles(suite).items():
        out += [f"## {title}", "", *_table(head, _metric_rows(findings, metric)), ""]
    if suite.published:
        rows = [[label, *texts] for label, texts in findings.published()]
        out += ["## Published", "", suite.published.source, "", *_table(head, rows), ""]
    if findings.failures:
        out += ["## Not run", "", *(f"* {text}" for text in findings.failures), ""]
    out += ["## Seconds and memory", "", findings.about_times(), ""]
    rows = [[label, *texts] for label, texts in findings.times()]
    out += _table(["seconds for a picture", *head[1:], "peak memory, MB"], rows)
    return "\n".join(out) + "\n"


def _metric_rows(findings: Findings, metric: str) -> Iterator[list[str]]:
    wraps = {"best": "**{}**", "second": "_{}_", "": "{}"}

    def text(entry: Entry) -> str:
        number = wraps[entry.mark].format(entry.text)
        return f"{number} (paper {entry.paper})" if entry.paper else number

    for line, entries in zip(findings.lines, findings.entries(metric), strict=True):
        label = f"{line.label} ({line.knows})" if line.knows else line.label
        yield [label, *(text(entry) for entry in entries)]


def _table(head: Sequence[str], rows: Iterator[list[str]] | list[list[str]]) -> list[str]:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def html(findings: Findings, facts: Facts) -> str:
    """Return one page with tables, pictures and plots, which loads no other file.

    Args:
        findings: The cells.
        facts: Command, pictures, seeds and the like.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader
    except ImportError as error:
        raise MissingExtra(
            "The report needs jinja2 and matplotlib: pip install 'pristina[bench]'."
        ) from error
    suite = findings.suite
    plotted = [metric for metric in suite.metrics if metric in ("psnr", "haarpsi", "lpips")]
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    return environment.get_template("report.html.jinja").render(
        suite=suite,
        facts=facts,
        lines=findings.lines,
        tables=[
            {"title": title, "rows": findings.entries(metric)}
            for metric, title in table_titles(suite).items()
        ],
        tasks=[_task_section(findings, task) for task in suite.tasks],
        published=findings.published(),
        failures=findings.failures,
        cost_plots=[cost_plot(findings, metric, "calls") for metric in plotted],
        stops=findings.stops(),
        about_times=findings.about_times(),
        times=findings.times(),
        time_plot=cost_plot(findings, suite.metrics[0], "seconds"),
    )


def _task_section(findings: Findings, task: Any) -> Mapping[str, Any]:
    """Return what the page shows of a task: recipe, pictures, trace."""
    grid = _grid(findings, task.name)
    recipes = (cell.recipe for cell in findings.cells.values() if cell.task == task.name)
    return {
        "title": task.heading,
        "recipe": next(recipes, task.recipe),
        "grid": grid,
        "n_shown": max((len(pictures) for _, pictures in grid), default=0),
        "trace": trace_plot(findings, task.name),
    }


def _grid(findings: Findings, task: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return captions and pictures of the first seed: truth, then each line, with its kernels."""
    seed = findings.suite.seeds[0]
    grid: list[tuple[str, tuple[str, ...]]] = []
    for line in findings.lines:
        cell = findings.cells.get((task, line.row.name, seed))
        if cell is None:
            continue
        if line.row.method == "input":
            grid.append(("truth", cell.truth))
        grid.append((line.label, (cell.best if line.best and cell.best else cell).shown))
        if cell.kernels and not line.best:
            if "kernel" not in dict(grid):
                grid.append(("kernel", tuple(true for _, true in cell.kernels)))
            estimated = tuple(estimated for estimated, _ in cell.kernels)
            grid.append((f"{line.label}: kernel", estimated))
    return grid
