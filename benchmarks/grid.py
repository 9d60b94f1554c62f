"""One picture for each task of a suite: truth, input, what the methods make of it, and kernels where there are some.

    python -m benchmarks.grid bird --methods diip --methods bird --methods invert2restore --out OUT.webp

Runs the suite on one portrait (scikit-image's ``astronaut``, NASA, public domain, never trained on, cut as ``make demo`` cuts it); cells are
kept in ``runs/grid/SUITE`` and not run twice.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cyclopts
import matplotlib

matplotlib.use("Agg")

import torch
from matplotlib import pyplot as plt
from PIL import Image

from pristina.bench.runner import run_suite
from pristina.bench.tasks import PictureSet, load_suite

PORTRAIT = "astronaut@151,43,148"


def main(
    suite: str, *, out: Path, methods: tuple[str, ...] = (), tasks: tuple[str, ...] = (), prior: str | None = None, picture: str = PORTRAIT,
    threads: int = 1, compile: bool = False,
) -> None:  # fmt: skip
    """Draw.

    Parameters
    ----------
    methods
        Only these rows of the suite, beside the input and ``mmse``; all if empty.
    tasks
        Only these; all if empty.
    picture
        Of scikit-image, as ``name`` or ``name@left,top,side``.
    compile
        Compile the prior's network first.
    """
    torch.set_num_threads(threads)
    chosen = load_suite(suite).with_changes(prior=prior, tasks=tasks, methods=methods)
    chosen = replace(chosen, pictures=PictureSet(builtin=(picture,)), seeds=(0,), published=None)
    cells = {(c["task"], c["row"]): c for c in run_suite(chosen, Path("runs/grid") / suite, compiled=compile) if "error" not in c}
    lines = [(task.title or task.name, _line(task.name, chosen.rows, cells)) for task in chosen.tasks]
    columns = max(len(line) for _, line in lines)
    figure, axes = plt.subplots(len(lines), columns, figsize=(1.5 * columns + 1.2, 1.75 * len(lines)), squeeze=False)
    for (title, line), row in zip(lines, axes, strict=True):
        for axis in row:
            axis.set(xticks=[], yticks=[], frame_on=False)
        for (label, pixels), axis in zip(line, row, strict=False):
            axis.imshow(pixels, cmap="gray")
            axis.set_title(label, fontsize=8)
        row[0].set_ylabel(title, fontsize=7)
    figure.tight_layout()
    figure.savefig(out, dpi=90)


def _line(task: str, rows: Any, cells: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[tuple[str, Image.Image]]:
    """Captions and pictures of a task: the truth, then row by row, then the kernels."""
    found = {row.name: cells[task, row.name] for row in rows if (task, row.name) in cells}
    line = [("truth", _image(found["input"]["truth"][0]))]
    labels = {row.name: row.label for row in rows}
    line += [(f"{labels[name]}\n{c['metrics']['psnr'][0]:.1f} dB", _image(c["shown"][0])) for name, c in found.items()]
    kernels = [(labels[name], c["kernels"][0], c["metrics"]["kernel_correlation"][0]) for name, c in found.items() if c.get("kernels")]
    if kernels:
        line.append(("kernel", _image(kernels[0][1][1])))
    return line + [(f"{label}\ncorrelation {r:.2f}", _image(pair[0])) for label, pair, r in kernels]


def _image(png: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(png)))


if __name__ == "__main__":
    cyclopts.run(main)
