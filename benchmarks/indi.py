"""InDI's measurements, each one command that writes a table and a figure.

    python benchmarks/indi.py quality --pictures KODAK --blind photos-blind --specialists jpeg denoise deblur x4 --prior photos
    python benchmarks/indi.py steps --pictures KODAK --indi jpeg --conditional jpeg-conditional.safetensors --recipe jpeg:quality=10
    python benchmarks/indi.py updates --pictures KODAK --indi jpeg --recipe jpeg:quality=10
    python benchmarks/indi.py ablate times --data PHOTOS --pictures KODAK --minutes 5
    python benchmarks/indi.py ablate noise --data PHOTOS --pictures KODAK --minutes 5
    python benchmarks/indi.py generation --indi pure-noise.safetensors      # or --prior faces
    python benchmarks/indi.py speed --indi photos-blind
    python benchmarks/indi.py show --indi photos-blind

Every command writes ``OUT/NAME.md`` and, where there is something to see, ``OUT/NAME.png``. Picture i is damaged with noise of seed 1000 + i
and restored with seed i. Observations are rounded to 8 bits and clipped, as a file would be. Numbers are means over the pictures; the truth is
used to measure, never inside a method.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")

import cyclopts
import numpy as np
import torch
from matplotlib import pyplot as plt
from PIL import Image
from skimage.restoration import denoise_bilateral, denoise_nl_means, denoise_wavelet, richardson_lucy
from torch import Tensor

from pristina.image.fit import pad_to_multiple
from pristina.image.noise_level import estimate_sigma
from pristina.methods.conditional_ddpm import ConditionalDDPM, conditional_ddpm
from pristina.methods.indi import InDI, indi
from pristina.methods.mmse import mmse
from pristina.metrics.fidelity import haarpsi, psnr, ssim
from pristina.metrics.noreference import blockiness
from pristina.operators.base import Observation, Operator
from pristina.operators.blur import Blur, KernelBlur
from pristina.operators.index import parse_recipe
from pristina.operators.kernels import load_kernels
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.priors.direct import DirectPrior
from pristina.priors.load import load_conditional, load_direct, load_prior
from pristina.priors.schedule import timestep_of
from pristina.training.data import list_pictures, to_tensor
from pristina.types import Draw, generators

app = cyclopts.App(name="indi", help=__doc__)

Restorer = Callable[[Observation, int], Tensor]
CALLS = (1, 2, 5, 10, 20, 50, 100)
RECIPES = {
    "JPEG 10": "jpeg:quality=10", "JPEG 20": "jpeg:quality=20", "JPEG 40": "jpeg:quality=40", "JPEG 95": "jpeg:quality=95",
    "noise 15": f"noise:sigma={15 / 255}", "noise 25": f"noise:sigma={25 / 255}", "noise 50": f"noise:sigma={50 / 255}",
    "defocus 2 px": "defocus:radius=2,size=9", "x4 bicubic": "bicubic:factor=4",
    "mixed": f"blur:sigma=1.2,size=9 | noise:sigma={12 / 255} | jpeg:quality=35",
}  # fmt: skip

SPECIALITY = {
    "jpeg": ("JPEG", "clean"),
    "denoise": ("noise", "real", "clean"),
    "deblur": ("defocus", "camera", "clean"),
    "x4": ("x4", "clean"),
}
"""What the tasks begin with on which a specialist is measured."""


def pictures_of(folder: Path, count: int, size: int = 0) -> list[Tensor]:
    """The first ``count`` pictures of a folder, see :func:`picture_of`."""
    return [picture_of(path, size) for path in list_pictures(folder)[:count]]


def picture_of(path: Path, size: int = 0) -> Tensor:
    """A picture, (1, 3, H, W) in [0, 1]; its middle ``size`` px if that is not 0."""
    with Image.open(path) as file:
        x = to_tensor(file.convert("RGB"))[None].float() / 255
    if size:
        top, left = (x.shape[-2] - size) // 16 * 8, (x.shape[-1] - size) // 16 * 8
        x = x[..., top : top + size, left : left + size]
    return x


def pairs_of(folder: Path, ending: str) -> list[tuple[Path, Path]]:
    """The files NNN_clean and NNN_ending of a folder."""
    found = [path for path in list_pictures(folder) if path.stem.endswith(f"_{ending}")]
    return [(path.with_stem(path.stem.removesuffix(ending) + "clean"), path) for path in found]


def observe(x: Tensor, operator: Operator, seed: int) -> Observation:
    """What a file would hold after ``operator``; the operator itself only says how large the picture was."""
    y = operator.degrade(x, Draw(generators(seed, 1), 1)).detach().clamp(0, 1)
    y = (255 * y).round() / 255
    return Observation(y) if y.shape == x.shape else Observation(y, operator)


def by_indi(prior: DirectPrior, settings: InDI = InDI()) -> Restorer:
    return lambda observation, seed: indi(observation, prior, settings, generator=generators(seed, 1)).picture


def by_mmse(source: str) -> Restorer:
    prior = load_prior(source)

    def restore(observation: Observation, seed: int) -> Tensor:
        y = observation.initial()
        padded = pad_to_multiple(y, prior.size_rule.multiple, prior.size_rule.minimum)
        return mmse(Observation(padded), prior).picture[..., : y.shape[-2], : y.shape[-1]]

    return restore


def by_skimage(function: Callable[[np.ndarray], np.ndarray]) -> Restorer:
    """A classical method on an (H, W, 3) array in [0, 1]."""

    def restore(observation: Observation, seed: int) -> Tensor:
        y = observation.initial()[0].permute(1, 2, 0).clamp(0, 1).numpy()
        return torch.from_numpy(np.asarray(function(y), np.float32)).permute(2, 0, 1)[None].clamp(0, 1)

    return restore


def _sigma(y: np.ndarray) -> float:
    return float(estimate_sigma(torch.from_numpy(y).permute(2, 0, 1)[None]))


def _median(y: np.ndarray) -> np.ndarray:
    from skimage.filters import median

    return np.stack([median(y[..., c], np.ones((3, 3))) for c in range(3)], -1)


def _non_local_means(y: np.ndarray) -> np.ndarray:
    sigma = _sigma(y)
    return denoise_nl_means(y, h=0.6 * sigma, sigma=sigma, fast_mode=True, patch_size=5, patch_distance=8, channel_axis=-1)


def _bm3d(y: np.ndarray) -> np.ndarray:
    import bm3d

    return bm3d.bm3d_rgb(y, _sigma(y))


# bilateral filter and non-local means: the best of eight settings on four training photographs
CLASSICAL: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "median 3x3": _median,
    "bilateral": lambda y: denoise_bilateral(y, sigma_color=max(0.02, 2 * _sigma(y)), sigma_spatial=2, channel_axis=-1),
    "non-local means": _non_local_means,
}


def _wavelet(y: np.ndarray) -> np.ndarray:
    sigma = _sigma(y)
    if sigma < 1e-3:  # nothing to take away, which the package answers with NaN
        return y
    return denoise_wavelet(y, sigma=sigma, channel_axis=-1, convert2ycbcr=True, rescale_sigma=True)


def deconvolved(operator: Operator) -> Restorer | None:
    """Richardson-Lucy, 20 rounds, told the true kernel; None where there is no blur."""
    kernels = [p.kernel() for p in operator.parts if isinstance(p, Blur)]
    if not kernels:
        return None
    kernel = kernels[0][0, 0].detach().numpy()

    def restore(y: np.ndarray) -> np.ndarray:
        pad = kernel.shape[0]
        wide = np.pad(y, ((pad, pad), (pad, pad), (0, 0)), mode="reflect").clip(1e-3, 1)
        sharp = np.stack([richardson_lucy(wide[..., c], kernel, num_iter=20) for c in range(3)], -1)
        return sharp[pad:-pad, pad:-pad]

    return by_skimage(restore)


def write(out: Path, name: str, title: str, head: Sequence[str], rows: Sequence[Sequence[str]], notes: str = "") -> None:
    out.mkdir(parents=True, exist_ok=True)
    lines = [f"# {title}", "", notes, "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    text = "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), ""])
    (out / f"{name}.md").write_text(text)
    print(text)


def strips(path: Path, rows: Sequence[Sequence[tuple[str, Tensor]]], side: int = 192, dpi: int = 110) -> None:
    """Crops of (label, picture) side by side, one row for each task."""
    n = max(len(r) for r in rows)
    figure, axes = plt.subplots(len(rows), n, figsize=(2 * n, 2.2 * len(rows)), squeeze=False)
    for row, line in zip(rows, axes, strict=True):
        for axis in line:
            axis.axis("off")
        for (label, x), axis in zip(row, line, strict=False):
            top, left = (x.shape[-2] - side) // 2, (x.shape[-1] - side) // 2
            cut = x[0, :, max(0, top) : max(0, top) + side, max(0, left) : max(0, left) + side]
            axis.imshow(cut.permute(1, 2, 0).clamp(0, 1).numpy())
            axis.set_title(label, fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=dpi)
    plt.close(figure)


@app.command
def quality(
    *, pictures: Path, blind: str = "photos-blind", specialists: tuple[str, ...] = (), prior: str = "", kernels: Path | None = None,
    real: Path | None = None, rain: Path | None = None, count: int = 24, size: int = 0, bm3d: bool = False, tasks: tuple[str, ...] = (),
    wavelet: bool = False, classical: bool = True, ensemble: int = 1, name: str = "indi-quality", out: Path = Path("benchmarks/results"),
) -> None:  # fmt: skip
    """PSNR of every restorer on every task, at full size.

    Parameters
    ----------
    kernels
        A MATLAB file of measured kernels; picture i is blurred with kernel i.
    real
        A folder of NNN_noisy and NNN_clean pictures.
    rain
        A folder of NNN_rain and NNN_clean pictures.
    size
        Only the middle of each picture, in px; 0 takes the whole.
    specialists
        Weights called jpeg, denoise, deblur or x4: each is measured on its own kind of damage, and on clean pictures.
    bm3d
        BM3D too; needs the package bm3d.
    tasks
        Only the tasks whose names begin so; all if empty.
    wavelet
        Wavelet shrinkage too; needs the package PyWavelets.
    ensemble
        The blind weights also as an ensemble of so many mirrored and turned pictures.
    """
    clean = pictures_of(pictures, count, size)

    def wanted(task: str) -> bool:
        return not tasks or task.startswith(tasks)

    operators: dict[str, list[Operator]] = {
        task: [parse_recipe(recipe, 1000 + i) for i in range(len(clean))] for task, recipe in RECIPES.items() if wanted(task)
    }
    if kernels and wanted("camera shake"):
        blurs = [KernelBlur(k) for k in load_kernels(kernels)]
        operators["camera shake"] = [blurs[i % len(blurs)] for i in range(len(clean))]
    cases_of: dict[str, list[tuple[Tensor, Observation, Restorer | None]]] = {
        task: [(x, observe(x, o, 1000 + i), deconvolved(o)) for i, (x, o) in enumerate(zip(clean, found, strict=True))]
        for task, found in operators.items()
    }
    if wanted("clean"):
        cases_of["clean"] = [(x, Observation(x), None) for x in clean]
    for task, folder, ending in (("real noise", real, "noisy"), ("rain", rain, "rain")):
        if folder and wanted(task):
            cases_of[task] = [(picture_of(x, size), Observation(picture_of(y, size)), None) for x, y in pairs_of(folder, ending)]

    restorers: dict[str, Restorer] = {f"InDI {Path(w).stem}": by_indi(load_direct(w)) for w in (blind, *specialists)}
    if ensemble > 1:
        restorers[f"InDI {Path(blind).stem}, ensemble of {ensemble}"] = by_indi(load_direct(blind), InDI(ensemble=ensemble))
    if prior:
        restorers[f"mmse of {prior}"] = by_mmse(prior)
    if classical:
        restorers |= {known: by_skimage(function) for known, function in CLASSICAL.items()}
    if wavelet:
        restorers["wavelet"] = by_skimage(_wavelet)
    if bm3d:
        restorers["BM3D"] = by_skimage(_bm3d)

    rows, shown = [], []
    for task, cases in cases_of.items():
        before = torch.cat([psnr(o.initial().clamp(0, 1), x) for x, o, _ in cases])
        row, strip = [task, f"{before.mean():.2f}"], [(f"{task}: input", cases[0][1].initial())]
        for restorer, restore in restorers.items():
            if not task.startswith(SPECIALITY.get(restorer.removeprefix("InDI "), task)):
                row.append("")
                continue
            after = []
            for i, (x, observation, _) in enumerate(cases):
                picture = restore(observation, i)
                after.append(psnr(picture, x))
                if i == 0 and restorer.startswith("InDI"):
                    strip.append((restorer, picture))
            change = torch.cat(after) - before
            row.append(f"{before.mean() + change.mean():.2f} ({change.min():+.1f} to {change.max():+.1f})")
        told = [(restore(o, i), x) for i, (x, o, restore) in enumerate(cases) if restore]
        row.append(f"{torch.cat([psnr(p, x) for p, x in told]).mean():.2f}" if told else "")
        rows.append(row)
        shown.append([*strip, ("truth", cases[0][0])])
        print(" | ".join(row), flush=True)
    head = ["task", "input", *restorers, "Richardson-Lucy, told the kernel"]
    notes = f"PSNR in dB over {len(clean)} pictures; in brackets the worst and the best change of a single picture against its input."
    write(out, name, "InDI on photographs", head, rows, notes)
    strips(out / f"{name}.png", shown)


def curve(cases: list[tuple[Tensor, Observation]], restore: Restorer) -> list[float]:
    """PSNR, SSIM, HaarPSI and blockiness of a restorer, means over the pictures."""
    found = [(restore(observation, i), x) for i, (x, observation) in enumerate(cases)]
    figures = [[psnr(p, x), ssim(p, x), haarpsi(p, x), blockiness(p)] for p, x in found]
    return [float(torch.cat(column).mean()) for column in zip(*figures, strict=True)]


def _cases(pictures: Path, count: int, size: int, recipe: str) -> list[tuple[Tensor, Observation]]:
    return [(x, observe(x, parse_recipe(recipe, 1000 + i), 1000 + i)) for i, x in enumerate(pictures_of(pictures, count, size))]


def _against_calls(
    rivals: dict[str, Callable[[int], Restorer]], cases: list[Any], calls: Sequence[int], out: Path, name: str, title: str
) -> None:
    rows, lines = [["input", "0", *(f"{v:.4g}" for v in curve(cases, lambda o, i: o.initial().clamp(0, 1)))]], {}
    for rival, make in rivals.items():
        lines[rival] = [curve(cases, make(n)) for n in calls]
        rows += [[rival, str(n), *(f"{v:.4g}" for v in figures)] for n, figures in zip(calls, lines[rival], strict=True)]
    write(
        out, name, title, ["method", "network calls", "PSNR", "SSIM", "HaarPSI", "blockiness"], rows, f"Means over {len(cases)} pictures."
    )
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6))
    for rival, values in lines.items():
        axes[0].semilogx(calls, [v[0] for v in values], "o-", label=rival)
        axes[1].semilogx(calls, [v[2] for v in values], "o-", label=rival)
        axes[2].plot([v[0] for v in values], [v[2] for v in values], "o-", label=rival)
    for axis, (x, y) in zip(axes, [("network calls", "PSNR"), ("network calls", "HaarPSI"), ("PSNR", "HaarPSI")], strict=True):
        axis.set(xlabel=x, ylabel=y)
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(out / f"{name}.png", dpi=120)
    plt.close(figure)


@app.command
def steps(
    *, pictures: Path, recipe: str, indi: str = "photos-blind", conditional: str = "", calls: tuple[int, ...] = CALLS, count: int = 24,
    size: int = 256, out: Path = Path("benchmarks/results"),
) -> None:  # fmt: skip
    """Perception against distortion: InDI, and the conditional DDPM trained on the same pairs, against network calls."""
    direct = load_direct(indi)
    rivals: dict[str, Callable[[int], Restorer]] = {"InDI": lambda n: by_indi(direct, InDI(steps=n))}
    if conditional:
        network = load_conditional(conditional)

        def sampled(n: int, eta: float) -> Restorer:
            return lambda o, i: conditional_ddpm(o, network, ConditionalDDPM(n, eta), generator=generators(i, 1)).picture

        rivals |= {"conditional DDIM": lambda n: sampled(n, 0.0), "conditional DDPM": lambda n: sampled(n, 1.0)}
    _against_calls(rivals, _cases(pictures, count, size, recipe), calls, out, "indi-steps", f"Steps: {recipe}")


@app.command
def updates(
    *, pictures: Path, recipe: str, indi: str = "photos-blind", calls: tuple[int, ...] = CALLS, count: int = 24, size: int = 256,
    out: Path = Path("benchmarks/results"),
) -> None:  # fmt: skip
    """InDI's update against the two of Cold Diffusion, and uniform against other grids, with the same network."""
    direct = load_direct(indi)

    def ways(update: Any, grid: Any) -> Callable[[int], Restorer]:
        return lambda n: by_indi(direct, InDI(steps=n, update=update, grid=grid))

    rivals = {
        "InDI": ways("indi", "uniform"), "InDI, geometric grid": ways("indi", "geometric"),
        "Cold Diffusion, naive": ways("cold_naive", "uniform"), "Cold Diffusion, improved": ways("cold_improved", "uniform"),
    }  # fmt: skip
    _against_calls(rivals, _cases(pictures, count, size, recipe), calls, out, "indi-updates", f"Updates: {recipe}")


@app.command
def ablate(
    what: Literal["times", "noise"], *, data: Path, pictures: Path, minutes: float = 0, images: int = 0, channels: tuple[int, ...] = (32, 64, 128),
    calls: tuple[int, ...] = (1, 4, 20), count: int = 24, size: int = 256, out: Path = Path("benchmarks/results"),
) -> None:  # fmt: skip
    """Train one network for each p(t), or for each noise on the path, on JPEG 10, and compare them.

    Parameters
    ----------
    data
        Clean pictures to train on; ``pictures`` are measured on, and never trained on.
    minutes
        Of training, for each network; ``images`` instead makes the comparison independent of the machine.
    """
    from pristina.training.indi import InDITraining, train_indi
    from pristina.training.loop import Schedule

    variants: dict[str, dict[str, Any]] = (
        {"uniform": {"times": "uniform"}, "linear": {"times": "linear"}, "quadratic": {"times": "quadratic"}}
        | {f"mixture, a = {a:g}": {"times": "mixture", "a": a} for a in (0.5, 1.0, 3.0)}
        if what == "times"
        else {"none": {}, "brownian, 0.005": {"noise": "brownian", "eps": 0.005}}
        | {f"constant, {eps:g}": {"noise": "constant", "eps": eps} for eps in (0.005, 0.02, 0.05)}
    )
    cases = _cases(pictures, count, size, "jpeg:quality=10")
    rows = [["input", "0", *(f"{v:.4g}" for v in curve(cases, lambda o, i: o.initial()))]]
    for name, changes in variants.items():
        path = out / "networks" / f"{what}-{name.replace(', ', '-').replace(' ', '')}.safetensors"
        settings = InDITraining("photographs compressed by JPEG of quality 10", recipe="jpeg10", channels=channels, **changes)
        schedule = Schedule(images=images, minutes=minutes, batch=8, learning_rate=1.5e-3, warmup=100, compile=False, save_minutes=60)
        prior = load_direct(train_indi(data, path, settings, schedule, held_out=pictures))
        rows += [[name, str(n), *(f"{v:.4g}" for v in curve(cases, by_indi(prior, InDI(steps=n))))] for n in calls]
    title = {"times": "Density of t in training", "noise": "Noise on the path"}[what]
    notes = f"JPEG 10, {len(cases)} pictures; each network trained for {f'{images:,} crops' if images else f'{minutes:g} minutes'}."
    write(out, f"indi-{what}", title, [what, "network calls", "PSNR", "SSIM", "HaarPSI", "blockiness"], rows, notes)


class OfNoise(DirectPrior):
    """A diffusion prior as InDI's regressor: where the degraded picture is noise, (1 - t) x + t noise is the prior's own path."""

    def __init__(self, prior: Prior):
        super().__init__(domain=prior.domain)
        self.prior = prior

    def regress(self, x_t: Tensor, t: Tensor) -> Tensor:
        scale = ((1 - t).square() + t.square()).sqrt().view(-1, 1, 1, 1)
        alpha_bar = ((1 - t) / scale.flatten()).square()
        return to_unit(self.prior.predict(to_signed(x_t) / scale, timestep_of(self.prior.alpha_bar, alpha_bar)).x0)


@app.command
def generation(
    *, indi: str = "", prior: str = "faces", calls: tuple[int, ...] = (1, 5, 20, 100), count: int = 8, size: int = 64,
    out: Path = Path("benchmarks/results"),
) -> None:  # fmt: skip
    """Pictures from pure noise, by a network trained with the recipe ``pure-noise``, or by a diffusion prior, which has learned the same."""
    direct = load_direct(indi) if indi else OfNoise(load_prior(prior))
    noise = 0.5 + 0.5 * torch.cat([torch.randn(1, 3, size, size, generator=g) for g in generators(0, count)])
    rows = [[(f"{n} steps", by_indi(direct, InDI(steps=n))(Observation(z[None]), i)) for i, z in enumerate(noise)] for n in calls]
    out.mkdir(parents=True, exist_ok=True)
    strips(out / "indi-generation.png", rows, size)


@app.command
def show(
    *, indi: str = "photos-blind", tasks: tuple[str, ...] = ("JPEG 10", "noise 25", "defocus 2 px", "mixed"), side: int = 160,
    out: Path = Path("benchmarks/results"),
) -> None:  # fmt: skip
    """Input, output and truth on pictures that come with scikit-image: what a model card shows."""
    from skimage import data

    prior, rows = load_direct(indi), []
    crops = [data.coffee()[100 : 100 + side, 200 : 200 + side], data.astronaut()[30 : 30 + side, 130 : 130 + side]]
    for task in tasks:
        row = []
        for i, crop in enumerate(crops):
            x = torch.tensor(crop).permute(2, 0, 1)[None] / 255
            observation = observe(x, parse_recipe(RECIPES[task], i), i)
            y, picture = observation.initial(), by_indi(prior)(observation, i).clamp(0, 1)
            row += [(task, y), (f"{float(psnr(picture, x) - psnr(y, x)):+.1f} dB", picture), ("truth", x)]
        rows.append(row)
    out.mkdir(parents=True, exist_ok=True)
    strips(out / "indi-show.png", rows, side, dpi=75)


@app.command
def speed(
    *, indi: str = "photos-blind", width: int = 768, height: int = 512, calls: tuple[int, ...] = (1, 4, 10), threads: int = 2,
    out: Path = Path("benchmarks/results"),
) -> None:  # fmt: skip
    """Seconds and peak memory of one picture on the processor."""
    from pristina.methods.indi import indi as run

    torch.set_num_threads(threads)
    prior, y = load_direct(indi), torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    rows = []
    for n in sorted(calls):  # rising, for the peak is that of the whole process
        begun = time.perf_counter()
        result = run(Observation(y), prior, InDI(steps=n))
        rows.append([str(n), f"{time.perf_counter() - begun:.1f}", f"{result.cost.peak_bytes / 2**20:.0f}"])
    write(out, "indi-speed", f"{width} x {height} px on {threads} threads", ["network calls", "seconds", "peak MiB of the process"], rows)


if __name__ == "__main__":
    app()
