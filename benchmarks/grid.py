"""Draw one picture for each task of a suite: truth, input, every method, and kernels.

    python -m benchmarks.grid bird --methods diip --methods bird --methods invert2restore \
        --out OUT.webp

Runs the suite on one portrait (scikit-image's ``astronaut``, NASA, public domain, never trained on,
cut as ``make demo`` cuts it); finished cells are kept in ``runs/grid/SUITE``.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cyclopts
import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from PIL import Image

from pristina.bench import CellResult, PictureSet, Row, load_suite, run_suite

PORTRAIT = "astronaut@151,43,148"


def main(
    suite: str,
    *,
    out: Path,
    methods: tuple[str, ...] = (),
    tasks: tuple[str, ...] = (),
    prior: str | None = None,
    picture: str = PORTRAIT,
    threads: int = 1,
    compile: bool = False,
) -> None:
    """Draw.

    Parameters
    ----------
    methods
        Only these rows of the suite, beside the input and ``mmse``; all if empty.
    tasks
        Only these; all if empty.
    picture
        Picture of scikit-image, as ``name`` or ``name@left,top,side``.
    compile
        Compile the prior's network first.
    """
    chosen = load_suite(suite).with_changes(prior=prior, tasks=tasks, methods=methods)
    pictures = PictureSet(builtin=(picture,))
    chosen = replace(chosen, pictures=pictures, seeds=(0,), published=None)
    outcomes = run_suite(chosen, Path("runs/grid") / suite, threads=threads, compiled=compile)
    cells = {(c.task, c.row): c for c in outcomes if isinstance(c, CellResult)}
    lines = [(task.heading, _line(task.name, chosen.rows, cells)) for task in chosen.tasks]
    columns = max(len(line) for _, line in lines)
    size = (1.5 * columns + 1.2, 1.75 * len(lines))
    figure, axes = plt.subplots(len(lines), columns, figsize=size, squeeze=False)
    for (title, line), row in zip(lines, axes, strict=True):
        for axis in row:
            axis.set(xticks=[], yticks=[], frame_on=False)
        for (label, pixels), axis in zip(line, row, strict=False):
            axis.imshow(pixels, cmap="gray")
            axis.set_title(label, fontsize=8)
        row[0].set_ylabel(title, fontsize=7)
    figure.tight_layout()
    figure.savefig(out, dpi=90)


def _line(
    task: str, rows: Sequence[Row], cells: Mapping[tuple[str, str], CellResult]
) -> list[tuple[str, Image.Image]]:
    """Return captions and pictures of a task: the truth, then each row, then the kernels."""
    found = {row.label: cells[task, row.name] for row in rows if (task, row.name) in cells}
    line = [("truth", _image(cells[task, "input"].truth[0]))]
    for label, cell in found.items():
        line.append((f"{label}\n{cell.metrics['psnr'][0]:.1f} dB", _image(cell.shown[0])))
    with_kernels = {label: cell for label, cell in found.items() if cell.kernels}
    for label, cell in with_kernels.items():
        estimated, true = cell.kernels[0]
        if "kernel" not in dict(line):
            line.append(("kernel", _image(true)))
        correlation = cell.metrics["kernel_correlation"][0]
        line.append((f"{label}\ncorrelation {correlation:.2f}", _image(estimated)))
    return line


def _image(png: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(png)))


if __name__ == "__main__":
    cyclopts.run(main)
