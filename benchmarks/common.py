"""What the benchmark scripts share: pictures, one way to restore them, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from torch import Tensor

from pristina.image.picture import Picture
from pristina.methods.steps.result import Result
from pristina.operators.base import Operator
from pristina.planning import make_plan
from pristina.request import Request
from pristina.restoration import run
from pristina.seeds import generators
from pristina.settings import Settings
from pristina.training.data import list_pictures
from pristina.types import Draw, OnStep

RESULTS = Path("benchmarks/results")


def restored(
    method: str,
    y: Tensor,
    prior: Any,
    settings: Settings,
    *,
    operator: Operator | None = None,
    known_sigma: float | None = None,
    seed: int = 0,
    samples: int = 1,
    on_step: OnStep | None = None,
) -> Result:
    """Restore observations with a method, as the command line does.

    Args:
        method: Name of the method.
        y: Observations, (B, C, h, w).
        prior: Loaded weights.
        settings: Settings of the method.
        operator: Form of the degradation.
        known_sigma: Noise level that the method is given.
        seed: Random seed of the first image; the next ones have ``seed + 1``, ...
        samples: Number of restorations of each image.
        on_step: Progress callback.
    """
    plan = make_plan(
        Request(method, samples=samples, device=str(y.device)),
        (y.shape[-2], y.shape[-1]),
        weights=prior,
        operator=operator,
        settings=settings,
        known_sigma=known_sigma,
    )
    return run(plan, y, generator=generators(seed, len(y)), on_step=on_step)


def pictures_of(folder: Path, count: int, size: int = 0) -> list[Tensor]:
    """Return the first ``count`` pictures of a folder, see :func:`picture_of`."""
    return [picture_of(path, size) for path in list_pictures(folder)[:count]]


def picture_of(path: Path, size: int = 0) -> Tensor:
    """Return a picture, (1, 3, H, W) in [0, 1]; its middle ``size`` px if that is not 0."""
    x = Picture.open(path).pixels[None]
    if size:
        top, left = (x.shape[-2] - size) // 16 * 8, (x.shape[-1] - size) // 16 * 8
        x = x[..., top : top + size, left : left + size]
    return x


def pairs_of(folder: Path, ending: str) -> list[tuple[Path, Path]]:
    """Return the files NNN_clean and NNN_ending of a folder."""
    found = [path for path in list_pictures(folder) if path.stem.endswith(f"_{ending}")]
    return [(path.with_stem(path.stem.removesuffix(ending) + "clean"), path) for path in found]


def damaged(x: Tensor, operator: Operator, seed: int) -> Tensor:
    """Return what a file of 8 bits would hold after ``operator``."""
    y = operator.degrade(x, Draw(generators(seed, 1), 1)).detach().clamp(0, 1)
    return (255 * y).round() / 255


def write(
    out: Path,
    name: str,
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: str = "",
) -> None:
    """Write and print ``OUT/name.md``: a table with a title and notes."""
    out.mkdir(parents=True, exist_ok=True)
    lines = [f"# {title}", "", notes, "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    text = "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows), ""])
    (out / f"{name}.md").write_text(text)
    print(text)


def strips(
    path: Path, rows: Sequence[Sequence[tuple[str, Tensor]]], side: int = 192, dpi: int = 110
) -> None:
    """Draw the middle of (label, picture) side by side, one row for each task."""
    n = max(len(row) for row in rows)
    figure, axes = plt.subplots(len(rows), n, figsize=(2 * n, 2.2 * len(rows)), squeeze=False)
    for row, line in zip(rows, axes, strict=True):
        for axis in line:
            axis.axis("off")
        for (label, x), axis in zip(row, line, strict=False):
            top, left = (max(0, (n - side) // 2) for n in x.shape[-2:])
            cut = x[0, :, top : top + side, left : left + side]
            axis.imshow(cut.permute(1, 2, 0).clamp(0, 1).numpy())
            axis.set_title(label, fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=dpi)
    plt.close(figure)
