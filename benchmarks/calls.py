"""Measure quality against network calls: every method that is told the damage, at 5 to 200 calls.

    python -m benchmarks.validation FACES --kind faces --out runs/faces
    python -m benchmarks.calls --pictures runs/faces/validation

Each method of the table that can be told an operator gets as many steps as a number of network
calls allows, and its other settings are the defaults but for :data:`CHANGES`. It is told the
operator and the noise level. The faces go through in one batch, with seed 0. Cells are computed in
the order of their calls and kept in ``OUT/calls.json``, so that an interrupted run goes on; after
each number of calls a table of each task and one figure are written from the cells so far.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cyclopts
import torch
from benchmarks.common import RESULTS, restored, write
from matplotlib import pyplot as plt

from pristina.bench import PictureSet
from pristina.bench.pictures import load_pictures, picture_size
from pristina.errors import InputError, SettingError
from pristina.files import json_bytes, write_all
from pristina.methods.index import METHODS, MethodEntry
from pristina.metrics import haarpsi, psnr
from pristina.operators.recipe import Recipe
from pristina.priors import load_prior
from pristina.seeds import benchmark_seeds
from pristina.settings import Settings
from pristina.types import Draw, Images

SIGMA = 0.025
"""Noise level in [0, 1] units; it is 0.05 in [-1, 1] units."""

TASKS = {
    "deblurring": f"blur:sigma=1.2,size=15 | noise:sigma={SIGMA}",
    "x2": f"area:factor=2 | noise:sigma={SIGMA}",
    "inpainting": f"mask:box=21 | noise:sigma={SIGMA}",
}
BUDGETS = 5, 10, 20, 50, 100, 200
LEFT_OUT = "gibbs_ddrm", "blind_dps", "fast_diffusion_em", "invert2restore"
"""Three that find a kernel themselves, and one that makes the pictures of ``bird`` if told all."""

CHANGES: dict[str, dict[str, Any]] = {
    "pnp_flow": {"draws": 1},
    "sitcom": {"iterations": 5, "learning_rate": 0.1},
    "na_nhmc": {"leapfrog": 5},
}
"""Settings of methods whose defaults spend many calls on each step."""

TASK_CHANGES = {
    ("pnp_flow", "deblurring"): {"alpha": 0.01},
    ("pnp_flow", "x2"): {"alpha": 0.3},
    ("pnp_flow", "inpainting"): {"alpha": 0.5},
}
"""Settings that the paper has for each task."""

Cells = dict[str, dict[str, Any]]


def main(
    *,
    pictures: Path,
    count: int = 4,
    prior: str = "faces",
    methods: tuple[str, ...] = (),
    budgets: tuple[int, ...] = BUDGETS,
    out: Path = RESULTS,
) -> None:
    """Measure, and write the tables and the figure.

    Parameters
    ----------
    pictures
        Folder of faces.
    count
        Number of faces, from the first.
    methods
        Only these; all if empty.
    budgets
        Numbers of network calls.
    """
    torch.set_num_threads(1)
    loaded, chosen = load_prior(prior), PictureSet(folder=pictures, count=count)
    truth = load_pictures(chosen, picture_size(chosen, loaded))[1]
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "calls.json"
    cells: Cells = json.loads(kept.read_text()) if kept.exists() else {}
    for budget in sorted(budgets):
        for task in TASKS:
            for entry in told():
                settings = within(entry, task, budget)
                if settings is None or (methods and entry.name not in methods):
                    continue
                key = f"{entry.name} {task} {budget}"
                made_by = {"settings": asdict(settings), "count": count, "prior": prior}
                if cells.get(key, {}).get("made_by") != made_by:
                    cells[key] = {
                        "made_by": made_by,
                        **measure(entry, task, settings, loaded, truth),
                    }
                    write_all({kept: json_bytes(cells)})
                    print(key, cells[key].get("psnr", cells[key].get("failed")), flush=True)
        report(cells, out)


def measure(
    entry: MethodEntry, task: str, settings: Settings, prior: Any, truth: Images
) -> dict[str, Any]:
    """Restore the faces after the damage of a task, and measure."""
    n = len(truth)
    operator = Recipe.parse(TASKS[task]).build(0).requires_grad_(False)
    seeds = benchmark_seeds(0, n, "degradation")
    y = operator.degrade(truth, Draw([torch.Generator().manual_seed(seed) for seed in seeds], n))
    try:
        result = restored(entry.name, y, prior, settings, operator=operator, known_sigma=SIGMA)
    except InputError as error:  # The method diverged.
        return {"failed": str(error)}
    return {
        "calls": result.cost.network_calls / n,
        "differentiated": result.cost.backward_calls > 0,
        "seconds": result.cost.seconds / n,
        "psnr": psnr(result.images, truth).tolist(),
        "haarpsi": haarpsi(result.images, truth).tolist(),
    }


def told() -> Iterator[MethodEntry]:
    """List the methods that can be told an operator and use a diffusion prior."""
    for entry in METHODS.values():
        takes_one = entry.operator in ("optional", "required") and entry.name not in LEFT_OUT
        if takes_one and entry.prior == "diffusion":
            yield entry


def within(entry: MethodEntry, task: str, budget: int) -> Settings | None:
    """Return the settings with the most steps that ``budget`` network calls allow, if any."""
    changes = CHANGES.get(entry.name, {}) | TASK_CHANGES.get((entry.name, task), {})
    names = ("steps", "iterations", "trajectories")
    field = next(name for name in names if hasattr(entry.settings(), name))
    for n in range(budget, 0, -1):
        try:
            settings = entry.make_settings(changes={**changes, field: n})
        except SettingError:
            continue
        if entry.calls(settings).forward <= budget:
            return settings
    return None


def mean(values: list[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def report(cells: Cells, out: Path) -> None:
    """Write a table of each task, and the figure."""
    names = [entry.name for entry in told()]
    done = {tuple(key.split(" ")): cell for key, cell in cells.items() if key.split()[0] in names}
    budgets = sorted({int(budget) for *_, budget in done})
    head = ["method", *(f"{budget} calls" for budget in budgets)]
    for task, recipe in TASKS.items():
        rows = []
        for name in names:
            found = [done.get((name, task, str(budget))) for budget in budgets]
            if any(found):
                rows.append([f"`{name}`", *map(in_words, found)])
        write(out, f"calls-{task}", task, head, rows, f"`{recipe}`; PSNR (dB) / HaarPSI.")
    measured = {key: cell for key, cell in done.items() if "psnr" in cell}
    plot(measured, budgets, out / "calls.png")


def in_words(cell: dict[str, Any] | None) -> str:
    """Return the figures of a cell; a dash if the budget is too small for a step."""
    if cell is None:
        return "-"
    if "failed" in cell:
        return "failed"
    return f"{mean(cell['psnr']):.2f} / {mean(cell['haarpsi']):.3f}"


def plot(done: dict[tuple[str, ...], dict[str, Any]], budgets: list[int], path: Path) -> None:
    """Draw PSNR and HaarPSI against the calls that were made, one column for each task.

    Lines of methods that differentiate through the network are dashed.
    """
    names = [name for name in METHODS if any(key[0] == name for key in done)]
    colours = plt.get_cmap("tab20").colors
    figure, axes = plt.subplots(2, len(TASKS), figsize=(13, 8), sharex=True, squeeze=False)
    for column, task in enumerate(TASKS):
        for row, (metric, title) in enumerate((("psnr", "PSNR, dB"), ("haarpsi", "HaarPSI"))):
            axis, best = axes[row][column], 0.0
            for i, name in enumerate(names):
                found = [done.get((name, task, str(budget))) for budget in budgets]
                points = [(c["calls"], mean(c[metric])) for c in found if c]
                if not points:
                    continue
                best = max(best, *(value for _, value in points))
                style = "--" if any(c["differentiated"] for c in found if c) else "-"
                marker = "osv^D"[i // 4 % 5]
                colour = colours[i % 20]
                axis.plot(
                    *zip(*points, strict=True),
                    style,
                    marker=marker,
                    ms=4,
                    lw=1,
                    color=colour,
                    label=name,
                )
            axis.set_xscale("log")
            axis.set_xticks(budgets, [str(budget) for budget in budgets])
            axis.minorticks_off()
            axis.set_ylim(*((best - 10, best + 0.5) if row == 0 else (best - 0.35, best + 0.02)))
            axis.set_title(f"{task}: {title}", fontsize=9)
            axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("network calls for a picture")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="center right", fontsize=8)
    figure.tight_layout(rect=(0, 0, 0.87, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    cyclopts.run(main)
