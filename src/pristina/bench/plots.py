"""Plots of a report, as SVG without dates or random names in it."""

from __future__ import annotations

import base64
import io
from typing import Any

from pristina.bench.findings import NETWORK_CALLS, Findings
from pristina.errors import MissingExtra
from pristina.metrics.index import METRICS

MARKERS = "o^sDvP*X"


def cost_plot(findings: Findings, metric: str, cost: str) -> str:
    """Plot quality against network calls or seconds, one panel for each task.

    Args:
        findings: The cells.
        metric: Name of the metric.
        cost: ``calls`` or ``seconds``.

    Returns:
        The plot as base64 SVG.
    """
    tasks = findings.suite.tasks
    columns, rows = min(4, len(tasks)), -(-len(tasks) // 4)
    figure = _figure(width=3.4 * columns, height=3.0 * rows)
    for place, task in enumerate(tasks):
        axes = figure.add_subplot(rows, columns, place + 1)
        _draw_costs(axes, findings, task.name, metric, cost)
        _log(axes.xaxis, axes.set_xscale)
        axes.set_title(task.heading, fontsize=9)
        x_label = "network calls" if cost == "calls" else "seconds"
        _label(axes, x_label, METRICS[metric].heading)
    return _svg(figure)


def _draw_costs(axes: Any, findings: Findings, task: str, metric: str, cost: str) -> None:
    """Draw a point for each line, and the input as a horizontal one."""
    lines = [line for line in findings.lines if not line.best]
    for i, line in enumerate(lines):
        found, calls = findings.mean(line, task, metric), findings.mean(line, task, NETWORK_CALLS)
        seconds = findings.seconds(line, task)
        if found is None or calls is None or seconds is None:
            continue
        if line.row.method == "input":
            style = {"color": "0.6", "linestyle": "--", "linewidth": 1}
            axes.axhline(found.value, label=line.label, **style)
            continue
        spent = max(calls.value, 0.5) if cost == "calls" else max(seconds, 1e-3)
        marker = "x" if line.oracle else MARKERS[i // 10 % len(MARKERS)]
        axes.plot([spent], [found.value], marker, color=f"C{i % 10}", label=line.label)


def trace_plot(findings: Findings, task: str) -> str:
    """Plot loss and PSNR against steps, mean over pictures, of the first seed.

    Returns:
        The plot as base64 SVG; empty if no method takes steps.
    """
    seed = findings.suite.seeds[0]
    lines = [line for line in findings.lines if not line.best]
    traced = [
        (i, line, cell.trace)
        for i, line in enumerate(lines)
        if (cell := findings.cells.get((task, line.row.name, seed))) and cell.trace.step
    ]
    if not traced:
        return ""
    figure = _figure(width=10, height=3)
    for place, name in enumerate(("loss", "psnr")):
        axes = figure.add_subplot(1, 2, place + 1)
        for i, line, trace in traced:
            style = {"color": f"C{i % 10}", "linewidth": 1.3, "label": line.label}
            axes.plot(trace.step, getattr(trace, name), **style)
        if name == "loss":
            _log(axes.yaxis, axes.set_yscale)
        _label(axes, "step", "loss" if name == "loss" else "PSNR to the truth, dB")
    return _svg(figure)


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra(
            "The report needs jinja2 and matplotlib: pip install 'pristina[bench]'."
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def _label(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(which="both", labelsize=7)
    axes.grid(alpha=0.3)


def _log(axis: Any, set_scale: Any) -> None:
    """Make an axis logarithmic, with plain numbers on it."""

    def minor(value: float, _: Any) -> str:
        return f"{value:g}" if f"{value:.0e}"[0] in "25" and axis.axis_name == "y" else ""

    set_scale("log")
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(minor)


def _svg(figure: Any) -> str:
    """Return a figure with one legend for all its panels, as base64 SVG."""
    from matplotlib import rc_context

    handles = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if handles:
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside lower center",
            ncols=min(6, len(handles)),
            fontsize=8,
            frameon=False,
        )
    file = io.BytesIO()
    with rc_context({"svg.hashsalt": "pristina"}):
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=False)
    return base64.b64encode(file.getvalue()).decode()
