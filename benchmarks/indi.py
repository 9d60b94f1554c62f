"""InDI's measurements, each one command that writes a table and a figure.

    python benchmarks/indi.py quality --pictures KODAK --blind photos-blind \
        --specialists jpeg denoise deblur x4 --prior photos
    python benchmarks/indi.py steps --pictures KODAK --indi jpeg \
        --conditional jpeg-conditional.safetensors --recipe jpeg:quality=10
    python benchmarks/indi.py updates --pictures KODAK --indi jpeg --recipe jpeg:quality=10
    python benchmarks/indi.py ablate times --data PHOTOS --pictures KODAK --minutes 5
    python benchmarks/indi.py ablate noise --data PHOTOS --pictures KODAK --minutes 5
    python benchmarks/indi.py generation --indi pure-noise.safetensors      # or --prior faces
    python benchmarks/indi.py speed --indi photos-blind
    python benchmarks/indi.py show --indi photos-blind

Every command writes ``OUT/NAME.md`` and, where there are pictures, ``OUT/NAME.png``. Picture i is
damaged with noise of seed 1000 + i and restored with seed i. Observations are rounded to 8 bits and
clipped, as a file would be. Numbers are means over the pictures; the truth is used to measure,
never inside a method.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).parents[1]))  # For ``python benchmarks/indi.py``.

import cyclopts
import torch
from benchmarks.common import RESULTS, pictures_of, restored, strips, write
from benchmarks.indi_tasks import RECIPES, cases_of, damages
from benchmarks.restorers import (
    CLASSICAL,
    Case,
    OfNoise,
    Restorer,
    by_conditional,
    by_indi,
    by_mmse,
    by_skimage,
    observe,
    with_bm3d,
    with_wavelet,
)
from matplotlib import pyplot as plt
from torch import Tensor

from pristina.image.statistics import blockiness
from pristina.methods.conditional_ddpm import ConditionalDDPM
from pristina.methods.indi import InDI
from pristina.metrics import haarpsi, psnr, ssim
from pristina.operators.recipe import Recipe
from pristina.priors import load_prior, load_weights
from pristina.priors.direct import DirectPrior
from pristina.seeds import generators

app = cyclopts.App(name="indi", help=__doc__)

CALLS = (1, 2, 5, 10, 20, 50, 100)

SPECIALITY = {
    "jpeg": ("JPEG", "clean"),
    "denoise": ("noise", "real", "clean"),
    "deblur": ("defocus", "camera", "clean"),
    "x4": ("x4", "clean"),
}
"""First words of the tasks on which a specialist is measured."""


@app.command
def quality(
    *,
    pictures: Path,
    blind: str = "photos-blind",
    specialists: tuple[str, ...] = (),
    prior: str = "",
    kernels: Path | None = None,
    real: Path | None = None,
    rain: Path | None = None,
    count: int = 24,
    size: int = 0,
    bm3d: bool = False,
    tasks: tuple[str, ...] = (),
    wavelet: bool = False,
    classical: bool = True,
    ensemble: int = 1,
    name: str = "indi-quality",
    out: Path = RESULTS,
) -> None:
    """PSNR of every restorer on every task, at full size.

    Parameters
    ----------
    kernels
        MATLAB file of measured kernels; picture i is blurred with kernel i.
    real
        Folder of NNN_noisy and NNN_clean pictures.
    rain
        Folder of NNN_rain and NNN_clean pictures.
    size
        Side of the middle of each picture that is used, in px; 0 takes the whole.
    specialists
        Weights called jpeg, denoise, deblur or x4: each is measured on its own kind of damage, and
        on clean pictures.
    bm3d
        BM3D too; needs the package bm3d.
    tasks
        Only the tasks whose names begin so; all if empty.
    wavelet
        Wavelet shrinkage too; needs the package PyWavelets.
    ensemble
        Number of mirrored and turned pictures of an ensemble of the blind weights; 1 for none.
    """
    clean = pictures_of(pictures, count, size)
    cases = {
        task: found
        for task, found in damages(clean, kernels, {"real noise": real, "rain": rain}, size)
        if not tasks or task.startswith(tasks)
    }
    restorers: dict[str, Restorer] = {
        f"InDI {Path(w).stem}": by_indi(load_weights("direct", w)) for w in (blind, *specialists)
    }
    if ensemble > 1:
        label = f"InDI {Path(blind).stem}, ensemble of {ensemble}"
        restorers[label] = by_indi(load_weights("direct", blind), InDI(ensemble=ensemble))
    if prior:
        restorers[f"mmse of {prior}"] = by_mmse(prior)
    more = dict(CLASSICAL) if classical else {}
    more |= {"wavelet": with_wavelet} if wavelet else {}
    more |= {"BM3D": with_bm3d} if bm3d else {}
    restorers |= {label: by_skimage(function) for label, function in more.items()}

    rows, shown = [], []
    for task, found in cases.items():
        row, strip = _quality_row(task, found(), restorers)
        rows.append(row)
        shown.append(strip)
        print(" | ".join(row), flush=True)
    head = ["task", "input", *restorers, "Richardson-Lucy, true kernel"]
    notes = (
        f"PSNR in dB over {len(clean)} pictures; in brackets the worst and the best change of a "
        "single picture against its input."
    )
    write(out, name, "InDI on photographs", head, rows, notes)
    strips(out / f"{name}.png", shown)


def _quality_row(
    task: str, cases: Sequence[Case], restorers: Mapping[str, Restorer]
) -> tuple[list[str], list[tuple[str, Tensor]]]:
    """Return the row of a task in the table, and its first picture from every InDI."""
    before = torch.cat([psnr(case.input.clamp(0, 1), case.x) for case in cases])
    row, strip = [task, f"{before.mean():.2f}"], [(f"{task}: input", cases[0].input)]
    for label, restore in restorers.items():
        if not task.startswith(SPECIALITY.get(label.removeprefix("InDI "), (task,))):
            row.append("")
            continue
        images = [restore(case, i) for i, case in enumerate(cases)]
        if label.startswith("InDI"):
            strip.append((label, images[0]))
        after = torch.cat([psnr(x, case.x) for x, case in zip(images, cases, strict=True)])
        change = after - before
        mean = before.mean() + change.mean()
        row.append(f"{mean:.2f} ({change.min():+.1f} to {change.max():+.1f})")
    known = [psnr(c.deconvolve(c, i), c.x) for i, c in enumerate(cases) if c.deconvolve]
    row.append(f"{torch.cat(known).mean():.2f}" if known else "")
    return row, [*strip, ("truth", cases[0].x)]


def curve(cases: Sequence[Case], restore: Restorer) -> list[float]:
    """Return PSNR, SSIM, HaarPSI and blockiness of a restorer, means over the pictures."""
    found = [(restore(case, i), case.x) for i, case in enumerate(cases)]
    figures = [[psnr(p, x), ssim(p, x), haarpsi(p, x), blockiness(p)] for p, x in found]
    return [float(torch.cat(column).mean()) for column in zip(*figures, strict=True)]


HEAD = ["network calls", "PSNR", "SSIM", "HaarPSI", "blockiness"]


def _row(label: str, n: int, figures: Sequence[float]) -> list[str]:
    return [label, str(n), *(f"{value:.4g}" for value in figures)]


def _against_calls(
    rivals: Mapping[str, Callable[[int], Restorer]],
    cases: Sequence[Case],
    calls: Sequence[int],
    out: Path,
    name: str,
    title: str,
) -> None:
    """Write the table and the figure of rivals at several numbers of network calls."""
    rows = [_row("input", 0, curve(cases, lambda case, i: case.input.clamp(0, 1)))]
    lines = {}
    for rival, make in rivals.items():
        lines[rival] = [curve(cases, make(n)) for n in calls]
        rows += [_row(rival, n, found) for n, found in zip(calls, lines[rival], strict=True)]
    write(out, name, title, ["method", *HEAD], rows, f"Means over {len(cases)} pictures.")
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6))
    for rival, values in lines.items():
        db, haar = [v[0] for v in values], [v[2] for v in values]
        axes[0].semilogx(calls, db, "o-", label=rival)
        axes[1].semilogx(calls, haar, "o-", label=rival)
        axes[2].plot(db, haar, "o-", label=rival)
    labels = [("network calls", "PSNR"), ("network calls", "HaarPSI"), ("PSNR", "HaarPSI")]
    for axis, (x, y) in zip(axes, labels, strict=True):
        axis.set(xlabel=x, ylabel=y)
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(out / f"{name}.png", dpi=120)
    plt.close(figure)


@app.command
def steps(
    *,
    pictures: Path,
    recipe: str,
    indi: str = "photos-blind",
    conditional: str = "",
    calls: tuple[int, ...] = CALLS,
    count: int = 24,
    size: int = 256,
    out: Path = RESULTS,
) -> None:
    """Perception against distortion: InDI and the conditional DDPM trained on the same pairs."""
    direct = load_weights("direct", indi)
    rivals: dict[str, Callable[[int], Restorer]] = {
        "InDI": lambda n: by_indi(direct, InDI(steps=n))
    }
    if conditional:
        network = load_weights("conditional", conditional)

        def sampled(eta: float, n: int) -> Restorer:
            return by_conditional(network, ConditionalDDPM(n, eta))

        rivals |= {
            "conditional DDIM": partial(sampled, 0.0),
            "conditional DDPM": partial(sampled, 1.0),
        }
    cases = cases_of(pictures, count, size, recipe)
    _against_calls(rivals, cases, calls, out, "indi-steps", f"Steps: {recipe}")


@app.command
def updates(
    *,
    pictures: Path,
    recipe: str,
    indi: str = "photos-blind",
    calls: tuple[int, ...] = CALLS,
    count: int = 24,
    size: int = 256,
    out: Path = RESULTS,
) -> None:
    """InDI's update against the two of Cold Diffusion, and against other grids; one network."""
    direct = load_weights("direct", indi)

    def variant(update: Any, grid: Any, n: int) -> Restorer:
        return by_indi(direct, InDI(steps=n, update=update, grid=grid))

    rivals = {
        "InDI": partial(variant, "indi", "uniform"),
        "InDI, geometric grid": partial(variant, "indi", "geometric"),
        "Cold Diffusion, naive": partial(variant, "cold_naive", "uniform"),
        "Cold Diffusion, improved": partial(variant, "cold_improved", "uniform"),
    }
    cases = cases_of(pictures, count, size, recipe)
    _against_calls(rivals, cases, calls, out, "indi-updates", f"Updates: {recipe}")


VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "times": {
        "uniform": {"times": "uniform"},
        "linear": {"times": "linear"},
        "quadratic": {"times": "quadratic"},
        **{f"mixture, a = {a:g}": {"times": "mixture", "a": a} for a in (0.5, 1.0, 3.0)},
    },
    "noise": {
        "none": {},
        "brownian, 0.005": {"noise": "brownian", "eps": 0.005},
        **{f"constant, {e:g}": {"noise": "constant", "eps": e} for e in (0.005, 0.02, 0.05)},
    },
}
"""Changes of the settings of training, by the name of the ablation."""


@app.command
def ablate(
    what: Literal["times", "noise"],
    *,
    data: Path,
    pictures: Path,
    minutes: float = 0,
    images: int = 0,
    channels: tuple[int, ...] = (32, 64, 128),
    calls: tuple[int, ...] = (1, 4, 20),
    count: int = 24,
    size: int = 256,
    out: Path = RESULTS,
) -> None:
    """Train one network for each p(t), or each noise on the path, on JPEG 10, and compare them.

    Parameters
    ----------
    data
        Clean pictures to train on; ``pictures`` are measured, and never trained on.
    minutes
        Minutes of training of each network.
    images
        Crops of training of each network, which makes the comparison independent of the machine.
    """
    cases = cases_of(pictures, count, size, "jpeg:quality=10")
    rows = [_row("input", 0, curve(cases, lambda case, i: case.input))]
    for name, changes in VARIANTS[what].items():
        stem = f"{what}-{name.replace(', ', '-').replace(' ', '')}"
        path = out / "networks" / f"{stem}.safetensors"
        prior = _trained(path, data, pictures, channels, images, minutes, changes)
        rows += [_row(name, n, curve(cases, by_indi(prior, InDI(steps=n)))) for n in calls]
    title = {"times": "Density of t in training", "noise": "Noise on the path"}[what]
    effort = f"{images:,} crops" if images else f"{minutes:g} minutes"
    notes = f"JPEG 10, {len(cases)} pictures; each network trained for {effort}."
    write(out, f"indi-{what}", title, [what, *HEAD], rows, notes)


def _trained(
    path: Path,
    data: Path,
    held_out: Path,
    channels: tuple[int, ...],
    images: int,
    minutes: float,
    changes: Mapping[str, Any],
) -> DirectPrior:
    """Train a small network on JPEG 10 and load it."""
    from pristina.training.indi import InDITraining, train_indi
    from pristina.training.loop import Schedule
    from pristina.training.pairs import PairFiles

    domain = "photographs compressed by JPEG of quality 10"
    settings = InDITraining(domain, mixture="jpeg10", channels=channels, **changes)
    schedule = Schedule(
        images=images,
        minutes=minutes,
        batch=8,
        learning_rate=1.5e-3,
        warmup=100,
        compile=False,
        save_minutes=60,
    )
    files = PairFiles((data,), held_out=held_out)
    found: DirectPrior = load_weights("direct", train_indi(files, path, settings, schedule))
    return found


@app.command
def generation(
    *,
    indi: str = "",
    prior: str = "faces",
    calls: tuple[int, ...] = (1, 5, 20, 100),
    count: int = 8,
    size: int = 64,
    out: Path = RESULTS,
) -> None:
    """Pictures from pure noise: a network trained on ``pure-noise``, or a diffusion prior."""
    direct = load_weights("direct", indi) if indi else OfNoise(load_prior(prior))
    drawn = [torch.randn(1, 3, size, size, generator=g) for g in generators(0, count)]
    noise = 0.5 + 0.5 * torch.cat(drawn)
    cases = [Case(z[None], z[None]) for z in noise]
    rows = []
    for n in calls:
        restore = by_indi(direct, InDI(steps=n))
        rows.append([(f"{n} steps", restore(case, i)) for i, case in enumerate(cases)])
    out.mkdir(parents=True, exist_ok=True)
    strips(out / "indi-generation.png", rows, size)


@app.command
def show(
    *,
    indi: str = "photos-blind",
    tasks: tuple[str, ...] = ("JPEG 10", "noise 25", "defocus 2 px", "mixed"),
    side: int = 160,
    out: Path = RESULTS,
) -> None:
    """Input, output and truth on pictures of scikit-image: what a model card shows."""
    from skimage import data

    restore, rows = by_indi(load_weights("direct", indi)), []
    crops = [
        data.coffee()[100 : 100 + side, 200 : 200 + side],
        data.astronaut()[30 : 30 + side, 130 : 130 + side],
    ]
    for task in tasks:
        row = []
        for i, crop in enumerate(crops):
            x = torch.tensor(crop).permute(2, 0, 1)[None] / 255
            case = observe(x, Recipe.parse(RECIPES[task]).build(i), i)
            picture = restore(case, i).clamp(0, 1)
            gain = float(psnr(picture, x) - psnr(case.input, x))
            row += [(task, case.input), (f"{gain:+.1f} dB", picture), ("truth", x)]
        rows.append(row)
    out.mkdir(parents=True, exist_ok=True)
    strips(out / "indi-show.png", rows, side, dpi=75)


@app.command
def speed(
    *,
    indi: str = "photos-blind",
    width: int = 768,
    height: int = 512,
    calls: tuple[int, ...] = (1, 4, 10),
    threads: int = 2,
    out: Path = RESULTS,
) -> None:
    """Seconds and peak memory of one picture on the processor."""
    torch.set_num_threads(threads)
    prior = load_weights("direct", indi)
    y = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    rows = []
    for n in sorted(calls):  # Rising, because the peak is that of the whole process.
        begun = time.perf_counter()
        result = restored("indi", y, prior, InDI(steps=n))
        seconds = time.perf_counter() - begun
        rows.append([str(n), f"{seconds:.1f}", f"{result.cost.peak_bytes / 2**20:.0f}"])
    head = ["network calls", "seconds", "peak MiB of the process"]
    write(out, "indi-speed", f"{width} x {height} px on {threads} threads", head, rows)


if __name__ == "__main__":
    app()
