"""What the studies share: the prior and the pictures, observations, tables and figures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cyclopts
import torch
from benchmarks.common import restored
from matplotlib import pyplot as plt
from torch import Tensor

from pristina.bench import PictureSet
from pristina.bench.pictures import load_pictures, picture_size
from pristina.methods.steps.result import Result
from pristina.metrics import psnr
from pristina.operators.recipe import Recipe
from pristina.priors import GaussianPrior, Prior, load_prior
from pristina.priors.base import to_unit
from pristina.priors.network import compile_network
from pristina.seeds import generators
from pristina.settings import Settings
from pristina.types import Draw


@cyclopts.Parameter(name="*")
@dataclass(frozen=True)
class World:
    """Options of every study.

    Attributes:
        prior: Shipped name or path; ``analytic`` is a Gaussian 1/f prior of 32 px whose pictures
            are drawn from it.
        pictures: Folder of clean pictures.
        count: Number of pictures.
        out: Folder of the table and the figure.
        threads: Processor threads.
        compile: Whether to compile the prior's network first.
    """

    prior: str = "faces"
    pictures: Path | None = None
    count: int = 4
    out: Path = Path("benchmarks/studies")
    threads: int = 1
    compile: bool = False

    def load(self) -> tuple[Prior, Tensor]:
        """Return the prior and the clean pictures, (N, 3, H, W)."""
        torch.set_num_threads(self.threads)
        if self.prior == "analytic":
            f = (torch.fft.fftfreq(32)[:, None].square() + torch.fft.fftfreq(32).square()).sqrt()
            variance = 0.004 / f.clamp(min=1 / 32).square()
            prior = GaussianPrior(0.0, variance, spectral=True)
            noise = Draw(generators(500, self.count), self.count).normal(3, 32, 32)
            return prior, to_unit(prior.sample(noise)).clamp(0, 1)
        loaded = load_prior(self.prior)
        if self.compile:
            compile_network(loaded)
        chosen = PictureSet(folder=self.pictures, count=self.count)
        return loaded, load_pictures(chosen, picture_size(chosen, loaded))[1]


@dataclass(frozen=True)
class Damaged:
    """Damaged pictures, and the form of the damage that the method is given.

    Attributes:
        y: Observations, (B, C, H, W).
        form: Recipe of the form; None if the method is given none.
    """

    y: Tensor
    form: str | None = None

    def restored(self, method: str, prior: Prior | None, settings: Settings, **more: Any) -> Result:
        """Restore with seed i for picture i; ``more`` as for :func:`benchmarks.common.restored`."""
        operator = None if self.form is None else Recipe.parse(self.form).form()
        return restored(method, self.y, prior, settings, **{"operator": operator, **more})


def observe(x: Tensor, recipe: str, form: str | None = None) -> Damaged:
    """Damage pictures with noise of seed 1000 + i."""
    draw = Draw(generators(1000, len(x)), len(x))
    y = Recipe.parse(recipe).build().degrade(x, draw).detach() if recipe else x.clone()
    return Damaged(y, form)


def score(picture: Tensor, x: Tensor) -> float:
    """Return the mean PSNR in dB."""
    return float(psnr(picture.clamp(0, 1), x).mean())


def write(
    world: World,
    name: str,
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    figure: Any,
    note: str = "",
) -> None:
    """Write ``OUT/name.md`` and ``OUT/name.png``, and print the table."""
    world.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(world.out / f"{name}.png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    command = f"python benchmarks/studies.py {' '.join(sys.argv[1:])}"
    lines = [
        f"## {title}",
        "",
        f"`{command}`; prior `{world.prior}`, {world.count} pictures.",
        "",
        f"| {' | '.join(head)} |",
        "|" + " --- |" * len(head),
        *(f"| {' | '.join(map(_text, row))} |" for row in rows),
        "",
        *([note, ""] if note else []),
    ]
    (world.out / f"{name}.md").write_text("\n".join([*lines, f"![{title}]({name}.png)", ""]))
    print("\n".join(lines))


def _text(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3g}"


def pictures_figure(rows: Sequence[tuple[str, Tensor]], columns: int) -> Any:
    """Draw labelled rows of pictures."""
    columns = min(columns, *(len(x) for _, x in rows))
    size = (1.5 * columns + 1.5, 1.5 * len(rows))
    figure, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False)
    for (label, x), line in zip(rows, axes, strict=True):
        for picture, axis in zip(x, line, strict=False):
            shown = picture.detach().clamp(0, 1).permute(1, 2, 0).numpy()
            shown = shown[..., 0] if shown.shape[-1] == 1 else shown
            axis.imshow(shown, cmap="gray", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    return figure
