"""The studies of the BIRD, DIIP and Invert2Restore papers, each one command that writes a table and a figure.

    python benchmarks/studies.py regimes --pictures FACES --count 4 --iterations 1500
    python benchmarks/studies.py steps --prior analytic --count 2          # seconds, no weights: shows that it works

Every study writes ``OUT/NAME.md`` and ``OUT/NAME.png``. Picture i is damaged with noise of seed 1000 + i and restored with seed i; PSNR
is the mean over the pictures unless the table says otherwise. The truth is used to measure, never inside a method.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")

import cyclopts
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from pristina.bench.tasks import PictureSet, load_pictures, picture_size
from pristina.methods.base import Result
from pristina.methods.bird import BIRD, bird
from pristina.methods.diip import DIIP, diip, laplacian_fires, sharpness, slope_fires
from pristina.methods.dip import DIP, dip
from pristina.methods.dps import DPS, dps
from pristina.methods.invert2restore import DESIGNED, FULL, Invert2Restore, invert2restore
from pristina.methods.rectify import rectify
from pristina.methods.uncertainty import error_rank_correlation, sampled
from pristina.metrics.fidelity import psnr
from pristina.operators.base import Observation, Operator
from pristina.operators.index import parse_recipe
from pristina.priors.base import Prior, to_unit
from pristina.priors.gaussian import GaussianPrior
from pristina.priors.generate import generate, invert
from pristina.priors.load import load_prior
from pristina.priors.network import compile_network
from pristina.types import Draw, StepEvent, generators

app = cyclopts.App(name="studies", help=__doc__)

BLUR, NOISE = "blur:sigma=1.6,size=13 | noise:sigma=0.02", "noise:sigma=0.1"
BLUR_FORM = "blur:sigma=1,size=13"


@cyclopts.Parameter(name="*")
@dataclass(frozen=True)
class World:
    """What every study is told.

    Attributes:
        prior: A shipped name or a file; ``analytic`` is a Gaussian 1/f prior of 32 px whose pictures are drawn from it.
        pictures: The folder of clean pictures.
        count: How many of them.
        out: Where table and figure go.
        threads: Of the processor.
        compile: Compile the prior's network first.
    """

    prior: str = "faces"
    pictures: Path | None = None
    count: int = 4
    out: Path = Path("benchmarks/studies")
    threads: int = 1
    compile: bool = False

    def load(self) -> tuple[Prior, Tensor]:
        """The prior and the clean pictures, (N, 3, H, W)."""
        torch.set_num_threads(self.threads)
        if self.prior == "analytic":
            f = (torch.fft.fftfreq(32)[:, None].square() + torch.fft.fftfreq(32).square()).sqrt()
            prior = GaussianPrior(0.0, 0.004 / f.clamp(min=1 / 32).square(), spectral=True)
            noise = Draw(generators(500, self.count), self.count).normal(3, 32, 32)
            return prior, to_unit(prior.sample(noise)).clamp(0, 1)
        loaded = load_prior(self.prior)
        if self.compile:
            compile_network(loaded)
        chosen = PictureSet(folder=self.pictures, count=self.count)
        return loaded, load_pictures(chosen, picture_size(chosen, loaded))[1]


DEFAULT = World()


def observe(x: Tensor, recipe: str, form: str | None = None) -> Observation:
    """Damaged pictures, and what the method is told of the form of the damage."""
    draw = Draw(generators(1000, len(x)), len(x))
    y = parse_recipe(recipe).degrade(x, draw).detach() if recipe else x.clone()
    return Observation(y, None if form is None else parse_recipe(form, unknown=True))


def run(function: Callable[..., Result], observation: Observation, prior: Prior | None, settings: Any, **more: Any) -> Result:
    """A method, with seed i for picture i."""
    return function(observation, prior, settings, generator=generators(0, len(observation.y)), **more)


def score(picture: Tensor, x: Tensor) -> float:
    """Mean PSNR, dB."""
    return float(psnr(picture.clamp(0, 1), x).mean())


def write(world: World, name: str, title: str, head: Sequence[str], rows: Sequence[Sequence[Any]], figure: Any, note: str = "") -> None:
    """OUT/name.md and OUT/name.png."""
    world.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(world.out / f"{name}.png", dpi=110, bbox_inches="tight")
    plt.close(figure)

    def cell(value: Any) -> str:
        return (
            f"{value:.2f}" if isinstance(value, float) and abs(value) >= 0.1 else f"{value:.3g}" if isinstance(value, float) else str(value)
        )

    lines = [
        f"## {title}",
        "",
        f"`python benchmarks/studies.py {' '.join(sys.argv[1:])}`; prior `{world.prior}`, {world.count} pictures.",
        "",
    ]
    lines += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    lines += ["", note, ""] if note else [""]
    (world.out / f"{name}.md").write_text("\n".join([*lines, f"![{title}]({name}.png)", ""]))
    print("\n".join(lines))


def pictures_figure(rows: Sequence[tuple[str, Tensor]], columns: int) -> Any:
    """Labelled rows of pictures."""
    columns = min(columns, *(len(x) for _, x in rows))
    figure, axes = plt.subplots(len(rows), columns, figsize=(1.5 * columns + 1.5, 1.5 * len(rows)), squeeze=False)
    for (label, x), line in zip(rows, axes, strict=True):
        for picture, axis in zip(x, line, strict=False):
            shown = picture.detach().clamp(0, 1).permute(1, 2, 0).numpy()
            axis.imshow(shown[..., 0] if shown.shape[-1] == 1 else shown, cmap="gray", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    return figure


@app.command
@torch.no_grad()
def steps(*, world: World = DEFAULT) -> None:
    """Pictures from one z at different numbers of sampler steps."""
    prior, x = world.load()
    z = Draw(generators(0, len(x)), len(x)).normal(*x.shape[1:])
    rows, shown = [], []
    most = generate(prior, z, 100)
    for n in (2, 3, 5, 10, 20, 50, 100):
        begun = time.perf_counter()
        picture = generate(prior, z, n)
        spread = float(picture.std((2, 3)).mean())
        rows.append((n, 1000 // n, score(picture, most), spread, 1e3 * float(sharpness(picture).mean()), time.perf_counter() - begun))
        shown.append((f"{n} steps", picture))
    head = ("steps", "dt", "PSNR to 100 steps", "std of pixels", "1000 x sharpness", "seconds")
    write(world, "steps", "Pictures from one z at different sampler steps", head, rows, pictures_figure(shown, 8))


@app.command
def inversion(*, world: World = DEFAULT, iterations: int = 200, seeds: int = 10) -> None:
    """A clean picture found again: y = x, over several seeds; beside it the exact inverse of the sampler."""
    prior, x = world.load()
    found = sampled(bird, Observation(x), prior, BIRD(iterations=iterations), samples=seeds, generator=generators(0, len(x)))
    each = found.extras["samples"]
    db = torch.stack([psnr(each[:, s], x) for s in range(seeds)])
    with torch.no_grad():
        steps = BIRD().sampler_steps
        z = invert(prior, x, steps)
        direct = generate(prior, z, steps)
    rows = [
        (i, float(db[:, i].mean()), float(db[:, i].std()), float(psnr(direct, x)[i]), float(z[i].square().mean().sqrt()))
        for i in range(len(x))
    ]
    rows.append(("mean", float(db.mean()), float(db.std(0).mean()), score(direct, x), float(z.square().mean((1, 2, 3)).sqrt().mean())))
    head = ("picture", f"PSNR over {seeds} seeds", "its std", "PSNR of the exact inverse", "norm of that z / sqrt(d)")
    std = found.extras["std"].mean(1, keepdim=True)
    rest = [("truth", x), ("seed 0", each[:, 0]), ("seed 1", each[:, 1]), ("mean", found.picture), ("std / max", std / std.amax())]
    write(world, "inversion", "Inversion of a clean picture", head, rows, pictures_figure([*rest, ("exact inverse", direct)], 6))


@app.command
def scale(*, world: World = DEFAULT, iterations: int = 200) -> None:
    """z, 0.96 z and 1.04 z side by side, z drawn and z found for a picture; and what the rectifier makes of them."""
    prior, x = world.load()
    draw = Draw(generators(0, len(x)), len(x))
    drawn, xi = draw.normal(*x.shape[1:]), draw.normal(*x.shape[1:])
    found = run(bird, Observation(x), prior, BIRD(iterations=iterations)).extras["z"]
    rows, shown = [], []
    n = BIRD().sampler_steps
    for origin, z in (("drawn", drawn), ("found", found)):
        with torch.no_grad():
            base = generate(prior, z, n)
            for factor in (0.96, 1.0, 1.04):
                picture = generate(prior, factor * z, n)
                back = generate(prior, rectify(factor * z, xi, "noise").z, n)
                sharp = 1e3 * float(sharpness(picture).mean())
                rows.append((origin, factor, score(picture, base), float(picture.std((2, 3)).mean()), sharp, score(back, base)))
                shown.append((f"{origin}, {factor:g} z", picture))
    head = ("z", "factor", "PSNR to G(z)", "std of pixels", "1000 x sharpness", "PSNR to G(z) after rectification")
    write(world, "scale", "z, 0.96 z and 1.04 z", head, rows, pictures_figure(shown, 8))


@app.command
def regimes(
    *, world: World = DEFAULT, iterations: int = 1500, noise: tuple[float, ...] = (0.1, 0.2, 0.3), blur: float = 1.6,
    methods: tuple[Literal["DIIP", "DIP"], ...] = ("DIIP", "DIP"),
) -> None:  # fmt: skip
    """DIIP and DIP run on and on: PSNR, slope of the loss and sharpness, on noise of several strengths and on blur."""
    prior, x = world.load()
    tasks = [(f"noise {s:g}", f"noise:sigma={s}") for s in noise] + [(f"blur {blur:g} px", f"blur:sigma={blur},size=13")]
    figure, axes = plt.subplots(3, len(tasks), figsize=(3.2 * len(tasks), 7.5), squeeze=False, sharex=True)
    rows = []
    for column, (label, recipe) in zip(axes.T, tasks, strict=True):
        observation = observe(x, recipe)
        cases: list[tuple[str, Callable[..., Result], Any]] = [
            ("DIIP", diip, DIIP(iterations=iterations, rule="none")),
            ("DIP", dip, DIP(iterations=iterations, average=0.0, stop="iterations")),
        ]
        for name, function, settings in cases:
            if name not in methods:
                continue
            db: list[Tensor] = []
            sharp: list[Tensor] = []

            def note(event: StepEvent, db: list[Tensor] = db, sharp: list[Tensor] = sharp) -> None:
                db.append(psnr(event.picture.clamp(0, 1), x))
                sharp.append(sharpness(event.picture))

            loss = run(function, observation, prior, settings, on_step=note).trace["loss"]
            curves = torch.stack(db), torch.stack(sharp)
            mean = curves[0].mean(1)
            best = int(mean.argmax())
            slope, laplacian = stopping(loss, curves[1]) if name == "DIIP" else (None, None)
            missing = ("never" if name == "DIIP" else "-", "")
            at = [missing if k is None else (k, float(mean[k])) for k in (slope, laplacian)]
            rows.append((label, score(observation.y, x), name, float(mean[best]), best, float(mean[-1]), *at[0], *at[1]))
            window = 5
            falling = (loss[:-window] - loss[window:]) / (window * loss[:-window].clamp(min=1e-12))
            for axis, curve in zip(column, (mean, falling.mean(1), curves[1].mean(1)), strict=True):
                (line,) = axis.plot(curve.numpy(), label=name)
                for stop, style in ((slope, ":"), (laplacian, "--")):
                    if stop is not None:
                        axis.axvline(stop, color=line.get_color(), linestyle=style, linewidth=1)
        column[0].set_title(label)
        column[1].set_yscale("symlog", linthresh=1e-4)
        column[1].axhline(DIIP().epsilon, color="gray", linewidth=0.8)
        column[2].set_yscale("log")
        column[2].set_xlabel("iteration")
    for axis, label in zip(axes[:, 0], ("PSNR, dB", "relative fall of the loss", "variance of the Laplacian"), strict=True):
        axis.set_ylabel(label)
    axes[0, 0].legend()
    figure.tight_layout()
    head = ("task", "input", "method", "best PSNR", "at", "last PSNR", "slope rule fires at", "PSNR", "Laplacian rule fires at", "PSNR")
    note_ = "Rules by the default DIIP settings, median picture; dotted lines: slope, dashed: Laplacian."
    write(world, "regimes", "The two regimes of DIIP and DIP", head, rows, figure, note_)


def stopping(loss: Tensor, sharp: Tensor) -> tuple[int | None, int | None]:
    """The iteration at which each of DIIP's rules first holds ``patience`` times in a row, for the median picture that it stops."""
    settings, found = DIIP(), []
    for fires, trace in ((slope_fires, loss), (laplacian_fires, sharp)):
        held = torch.stack([fires(trace[: k + 1], settings) for k in range(len(trace))]).double()
        runs = held.unfold(0, settings.patience, 1).sum(-1) == settings.patience
        firsts = [int(column.nonzero()[0]) for column in runs.T if column.any()]
        found.append(sorted(firsts)[len(firsts) // 2] if firsts else None)
    return found[0], found[1]


@app.command
def sampler(*, world: World = DEFAULT, iterations: int = 150) -> None:
    """BIRD at different numbers of sampler steps: accuracy against time."""
    prior, x = world.load()
    tasks = (("noise", NOISE, None), ("blur", BLUR, BLUR_FORM))
    rows, shown = [], [("truth", x)]
    for label, recipe, form in tasks:
        observation = observe(x, recipe, form)
        shown.append((f"{label}, input", observation.y))
        for n in (2, 3, 5, 10, 20):
            result = run(bird, observation, prior, BIRD(iterations=iterations, sampler_steps=n))
            each = result.cost.network_calls // len(x)
            rows.append((label, n, score(observation.initial(), x), score(result.picture, x), each, result.cost.seconds / len(x)))
            shown.append((f"{label}, {n} steps", result.picture))
    head = ("task", "sampler steps", "input", "PSNR", "network calls a picture", "seconds a picture")
    write(world, "sampler", "Step size of the sampler", head, rows, pictures_figure(shown, 6))


@app.command
def kernel(*, world: World = DEFAULT, iterations: int = 200, true: float = 1.6) -> None:
    """A wrong kernel: blur of another width than the method is told, kept or taken as a first guess, and DPS with the same kernel."""
    prior, x = world.load()
    factors = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
    rows = []
    for factor in factors:
        kept = observe(x, f"blur:sigma={true},size=13 | noise:sigma=0.02", f"blur:sigma={factor * true},size=13,learnable=no")
        free = replace(kept, operator=parse_recipe(f"blur:sigma={factor * true},size=13"))
        blind = run(bird, free, prior, BIRD(iterations=iterations))
        assert isinstance(blind.operator, Operator)
        sigma = torch.tensor(blind.operator.estimates()["sigma"]).mean()
        fixed = score(run(bird, kept, prior, BIRD(iterations=iterations)).picture, x)
        rows.append((factor, fixed, score(blind.picture, x), float(sigma), score(run(dps, kept, prior, DPS()).picture, x)))
    figure, axis = plt.subplots(figsize=(5, 3.5))
    for label, i in (("BIRD, kept", 1), ("BIRD, first guess", 2), ("DPS, kept", 4)):
        axis.plot(factors, [row[i] for row in rows], marker="o", label=label)
    axis.set_xlabel("told width / true width")
    axis.set_ylabel("PSNR, dB")
    axis.legend()
    head = ("told / true width", "BIRD, kept", "BIRD, as a first guess", f"its estimate (true {true:g})", "DPS, kept")
    write(world, "kernel", "A wrong kernel", head, rows, figure, f"Input: {score(kept.y, x):.2f} dB.")


@app.command
def ablation(*, world: World = DEFAULT, iterations: int = 300, full_gradient: bool = True) -> None:
    """DIIP's k_min and epsilon, the gradient's mode, and the projection to the sphere."""
    prior, x = world.load()
    base = DIIP(iterations=iterations)
    cases = [("default", base)]
    cases += [(f"k_min {k}", replace(base, k_min=k)) for k in (50, 150)]
    cases += [(f"epsilon {e:g}", replace(base, epsilon=e)) for e in (0.005, 0.0005)]
    cases += [("no sphere", replace(base, sphere=False)), ("no rule", replace(base, rule="none"))]
    if full_gradient:
        cases.append(("full gradient", replace(base, gradient="checkpointed")))
    rows, shown = [], [("truth", x)]
    for label, recipe in (("noise", NOISE), ("blur", BLUR)):
        observation = observe(x, recipe)
        shown.append((f"{label}, input", observation.y))
        for name, settings in cases:
            result = run(diip, observation, prior, settings)
            calls = (result.cost.network_calls - result.cost.backward_calls) / len(x) / settings.sampler_steps
            rows.append((label, score(observation.y, x), name, score(result.picture, x), calls, result.stopped[0]))
            shown.append((f"{label}, {name}", result.picture))
    head = ("task", "input", "setting", "PSNR", "mean iterations", "why the first picture stopped")
    write(world, "ablation", "Ablations of DIIP", head, rows, pictures_figure(shown, 4))


@app.command
def rectifier(*, world: World = DEFAULT, iterations: int = 100) -> None:
    """The rectifier's ladder, in the first design (invert, rectify, generate) and in the fit that is rectified every ten iterations."""
    prior, x = world.load()
    rows, shown = [], [("truth", x)]
    for label, recipe in (("clean", ""), ("noise", NOISE), ("blur", BLUR)):
        observation = observe(x, recipe)
        before = score(observation.y, x) if recipe else "-"
        for rung in ("none", "norm", "scale", "standardise", "whiten", "noise"):
            designed = run(invert2restore, observation, prior, replace(DESIGNED, rectifier=rung))
            fitted = run(invert2restore, observation, prior, replace(FULL, iterations=iterations + 5, rectifier=rung))
            changed, gamma = (float(designed.extras[k].mean()) for k in ("changed", "gamma"))
            norm = float(designed.extras["z_found"].square().mean((1, 2, 3)).sqrt().mean())
            rows.append((label, before, rung, score(designed.picture, x), norm, changed, gamma, score(fitted.picture, x)))
            shown += [(f"{label}, {rung}", designed.picture), ("fitted", fitted.picture)]
    head = (
        "task",
        "input",
        "rung",
        "as designed",
        "norm of z found / sqrt(d)",
        "share changed",
        "gamma",
        f"fitted, {iterations} + 5 iterations",
    )
    write(world, "rectifier", "The rectifier's ladder", head, rows, pictures_figure(shown, 4))


@app.command
def uncertainty(*, world: World = DEFAULT, iterations: int = 200, samples: int = 8) -> None:
    """Where several seeds disagree, and whether the error is larger there."""
    prior, x = world.load()
    rows, shown = [], [("truth", x)]
    cases: list[tuple[str, Callable[..., Result], Any, str | None]] = [
        ("bird", bird, BIRD(iterations=iterations), BLUR_FORM),
        ("diip", diip, DIIP(iterations=iterations), None),
        ("invert2restore", invert2restore, Invert2Restore(iterations=iterations), None),
    ]
    for name, function, settings, form in cases:
        observation = observe(x, BLUR, form)
        many = sampled(function, observation, prior, settings, samples=samples, generator=generators(0, len(x)))
        std, error = many.extras["std"], (many.picture - x).abs()
        single = sum(score(many.extras["samples"][:, s], x) for s in range(samples)) / samples
        spread = float(many.extras["std_sigma"].mean()) if "std_sigma" in many.extras else "-"
        rank = float(error_rank_correlation(std, error).mean())
        rows.append((name, single, score(many.picture, x), float(std.mean()), float(error.mean()), rank, spread))
        peak = max(float(std.mean(1).amax()), 1e-9)
        shown += [
            (f"{name}, mean", many.picture),
            ("std", std.mean(1, keepdim=True) / peak),
            ("error", error.mean(1, keepdim=True) / (3 * peak)),
        ]
    head = ("method", "one sample", f"mean of {samples}", "mean std", "mean error", "rank correlation", "std of the blur's sigma, px")
    write(world, "uncertainty", "Uncertainty on blur with noise", head, rows, pictures_figure(shown, 6))


if __name__ == "__main__":
    app()
