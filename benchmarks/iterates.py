"""Draw what BIRD and BlindDPS look like on the way, on one shaken portrait.

    python -m benchmarks.iterates --out benchmarks/iterates.webp

The portrait is scikit-image's ``astronaut`` (NASA, public domain), never trained on and cut as
``benchmarks.grid`` cuts it. Both methods are told that the blur is some kernel. An iterate is what
the method reports after a step: of BIRD the image G(z) of its noise; of BlindDPS the clean image
that the prior predicts from the diffused one, and at the end the sample.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cyclopts
import matplotlib

matplotlib.use("Agg")

import torch
from benchmarks.common import restored
from benchmarks.grid import PORTRAIT
from matplotlib import pyplot as plt
from torch import Tensor

from pristina.bench import PictureSet, Task
from pristina.bench.degradation import degrade
from pristina.bench.pictures import load_pictures
from pristina.methods.bird import BIRD
from pristina.methods.blind_dps import BlindDPS
from pristina.metrics import psnr
from pristina.operators import Recipe
from pristina.priors.load import load_weights
from pristina.types import StepEvent

MOMENTS = (0.0, 0.03, 0.1, 0.25, 0.5, 1.0)
"""Shares of a run whose iterates are drawn, the first step included."""

SHAKE = Task("motion", "motion:size=15,intensity=0.5 | noise:sigma=0.02")
FORM = "kernel:size=15,sigma=2 | noise:sigma=0.02"
RUNS = {"BIRD": ("bird", BIRD()), "BlindDPS": ("blind_dps", BlindDPS())}


def main(*, out: Path, prior: str = "faces", threads: int = 1) -> None:
    """Restore, draw, and print the PSNR of every iterate that is drawn.

    Parameters
    ----------
    prior
        Shipped name or weight file of the prior of images.
    """
    torch.set_num_threads(threads)
    weights = load_weights("diffusion", prior)
    truth = load_pictures(PictureSet(builtin=(PORTRAIT,)), 64)[1]
    y = degrade(SHAKE, truth, 0).y
    columns = len(MOMENTS) + 2
    size = (1.5 * columns, 1.8 * len(RUNS))
    figure, axes = plt.subplots(len(RUNS), columns, figsize=size, squeeze=False)
    for (label, (method, settings)), row in zip(RUNS.items(), axes, strict=True):
        iterates = iterates_of(method, y, weights, settings)
        shown = [("input", y.clamp(0, 1)), *iterates]
        row[0].set_ylabel(label, fontsize=9)
        for (caption, x), axis in zip(shown, row, strict=False):
            decibel = f"{float(psnr(x, truth)):.1f} dB"
            print(f"{label}, {caption}: {decibel}", flush=True)
            _draw(axis, x, f"{caption}\n{decibel}")
        _draw(row[-1], truth, "truth")
    figure.tight_layout()
    figure.savefig(out, dpi=100)
    plt.close(figure)


def iterates_of(method: str, y: Tensor, weights: Any, settings: Any) -> list[tuple[str, Tensor]]:
    """Return captions and iterates of a run at :data:`MOMENTS`."""
    kept: dict[int, Tensor] = {}
    n_steps = 0

    def keep(event: StepEvent) -> None:
        nonlocal n_steps
        n_steps = event.n_steps
        if event.step in {max(1, round(share * n_steps)) for share in MOMENTS}:
            kept[event.step] = event.images.clone()

    form = Recipe.parse(FORM).form()
    restored(method, y, weights, settings, operator=form, on_step=keep)
    return [(f"step {step} of {n_steps}", x) for step, x in sorted(kept.items())]


def _draw(axis: Any, x: Tensor, caption: str) -> None:
    axis.set(xticks=[], yticks=[], frame_on=False)
    axis.imshow(x[0].permute(1, 2, 0).clamp(0, 1).numpy())
    axis.set_title(caption, fontsize=8)


if __name__ == "__main__":
    cyclopts.run(main)
