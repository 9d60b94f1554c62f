"""The studies of the BIRD, DIIP and Invert2Restore papers, one command each.

    python benchmarks/studies.py regimes --pictures FACES --count 4 --iterations 1500
    python benchmarks/studies.py steps --prior analytic --count 2      # Seconds, without weights.

Every study writes ``OUT/NAME.md`` and ``OUT/NAME.png``. Picture i is damaged with noise of seed
1000 + i and restored with seed i; PSNR is the mean over the pictures unless the table says
otherwise. The truth is used to measure, never inside a method.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).parents[1]))  # For ``python benchmarks/studies.py``.

import cyclopts
import torch
from benchmarks.study import Damaged, World, observe, pictures_figure, score, write
from matplotlib import pyplot as plt
from torch import Tensor

from pristina.image.statistics import sharpness
from pristina.methods.bird import BIRD
from pristina.methods.diip import DIIP, laplacian_fires, slope_fires
from pristina.methods.dip import DIP
from pristina.methods.dps import DPS
from pristina.methods.invert2restore import DESIGNED, FULL, Invert2Restore
from pristina.methods.steps.rectify import rectify
from pristina.methods.steps.samples import error_rank_correlation
from pristina.metrics import psnr
from pristina.operators.base import Operator
from pristina.operators.recipe import Recipe
from pristina.priors import generate, invert
from pristina.priors.base import Prior
from pristina.seeds import generators
from pristina.settings import Settings
from pristina.types import Draw, OnStep, StepEvent

app = cyclopts.App(name="studies", help=__doc__)

BLUR, NOISE = "blur:sigma=1.6,size=13 | noise:sigma=0.02", "noise:sigma=0.1"
BLUR_FORM = "blur:sigma=1,size=13"
DEFAULT = World()

Run = Callable[[Damaged, OnStep], Tensor]
"""Method of the study of regimes: it reports its images and returns its losses."""


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
        spread, sharp = float(picture.std((2, 3)).mean()), 1e3 * float(sharpness(picture).mean())
        seconds = time.perf_counter() - begun
        rows.append((n, 1000 // n, score(picture, most), spread, sharp, seconds))
        shown.append((f"{n} steps", picture))
    head = ("steps", "dt", "PSNR to 100 steps", "std of pixels", "1000 x sharpness", "seconds")
    title = "Pictures from one z at different sampler steps"
    write(world, "steps", title, head, rows, pictures_figure(shown, 8))


@app.command
def inversion(*, world: World = DEFAULT, iterations: int = 200, seeds: int = 10) -> None:
    """A clean picture found again, over several seeds, and by the exact inverse of the sampler."""
    prior, x = world.load()
    found = Damaged(x).restored("bird", prior, BIRD(iterations=iterations), samples=seeds)
    each = found.extras["samples"]
    db = torch.stack([psnr(each[:, s], x) for s in range(seeds)])
    with torch.no_grad():
        sampler_steps = BIRD().sampler_steps
        z = invert(prior, x, sampler_steps)
        direct = generate(prior, z, sampler_steps)
    means, stds, norms = db.mean(0), db.std(0), z.square().mean((1, 2, 3)).sqrt()
    columns = (means, stds, psnr(direct, x), norms)
    rows: list[tuple[Any, ...]] = [
        (i, *(float(column[i]) for column in columns)) for i in range(len(x))
    ]
    rows.append(
        ("mean", float(db.mean()), float(stds.mean()), score(direct, x), float(norms.mean()))
    )
    head = (
        "picture",
        f"PSNR over {seeds} seeds",
        "its std",
        "PSNR of the exact inverse",
        "norm of that z / sqrt(d)",
    )
    std = found.extras["std"].mean(1, keepdim=True)
    shown = [
        ("truth", x),
        ("seed 0", each[:, 0]),
        ("seed 1", each[:, 1]),
        ("mean", found.images),
        ("std / max", std / std.amax()),
        ("exact inverse", direct),
    ]
    title = "Inversion of a clean picture"
    write(world, "inversion", title, head, rows, pictures_figure(shown, 6))


@app.command
def scale(*, world: World = DEFAULT, iterations: int = 200) -> None:
    """z, 0.96 z and 1.04 z, z drawn and z found for a picture; and what the rectifier does."""
    prior, x = world.load()
    draw = Draw(generators(0, len(x)), len(x))
    drawn, xi = draw.normal(*x.shape[1:]), draw.normal(*x.shape[1:])
    found = Damaged(x).restored("bird", prior, BIRD(iterations=iterations)).extras["z"]
    rows, shown = [], []
    n = BIRD().sampler_steps
    for origin, z in (("drawn", drawn), ("found", found)):
        with torch.no_grad():
            base = generate(prior, z, n)
            for factor in (0.96, 1.0, 1.04):
                picture = generate(prior, factor * z, n)
                back = generate(prior, rectify(factor * z, xi, "noise").z, n)
                sharp = 1e3 * float(sharpness(picture).mean())
                spread = float(picture.std((2, 3)).mean())
                rows.append(
                    (origin, factor, score(picture, base), spread, sharp, score(back, base))
                )
                shown.append((f"{origin}, {factor:g} z", picture))
    head = (
        "z",
        "factor",
        "PSNR to G(z)",
        "std of pixels",
        "1000 x sharpness",
        "PSNR to G(z) after rectification",
    )
    write(world, "scale", "z, 0.96 z and 1.04 z", head, rows, pictures_figure(shown, 8))


@app.command
def regimes(
    *,
    world: World = DEFAULT,
    iterations: int = 1500,
    noise: tuple[float, ...] = (0.1, 0.2, 0.3),
    blur: tuple[float, ...] = (1.6,),
    methods: tuple[Literal["DIIP", "free", "descent", "DIP"], ...] = ("DIIP", "DIP"),
    rate: float = 0.001,
) -> None:
    """DIIP and DIP without end: PSNR, slope of the loss, sharpness, on noise and on blur.

    ``free``: DIIP without the projection to the sphere, as in the slides. ``descent``: the same by
    gradient descent with a constant ``rate`` for the squared error, in place of Adam.
    """
    prior, x = world.load()
    tasks = [(f"noise {s:g}", f"noise:sigma={s}") for s in noise]
    tasks += [(f"blur {s:g} px", f"blur:sigma={s},size=13") for s in blur]
    endless = DIIP(iterations=iterations, rule="none")
    dip = DIP(iterations=iterations, average=0.0, stop="iterations")
    cases: dict[str, tuple[str, Run]] = {
        "DIIP": ("DIIP", partial(_endless, "diip", prior, endless)),
        "free": (
            "DIIP, no sphere",
            partial(_endless, "diip", prior, replace(endless, sphere=False)),
        ),
        "descent": ("descent, no sphere", partial(_descent, prior, iterations, rate)),
        "DIP": ("DIP", partial(_endless, "dip", prior, dip)),
    }
    size = (3.2 * len(tasks), 7.5)
    figure, axes = plt.subplots(3, len(tasks), figsize=size, squeeze=False, sharex=True)
    rows = []
    for column, (label, recipe) in zip(axes.T, tasks, strict=True):
        damaged = observe(x, recipe)
        for name in methods:
            title, run = cases[name]
            row = _regime(title, damaged, x, run, column)
            rows.append((label, score(damaged.y, x), title, *row))
        column[0].set_title(label)
        column[1].set_yscale("symlog", linthresh=1e-4)
        column[1].axhline(DIIP().epsilon, color="gray", linewidth=0.8)
        column[2].set_yscale("log")
        column[2].set_xlabel("iteration")
    labels = ("PSNR, dB", "relative fall of the loss", "variance of the Laplacian")
    for axis, text in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(text)
    axes[0, 0].legend()
    figure.tight_layout()
    head = (
        *("task", "input", "method", "best PSNR", "at", "its sharpness / truth", "last PSNR"),
        *("slope rule fires at", "PSNR", "Laplacian rule fires at", "PSNR"),
    )
    note = (
        "Rules by the default DIIP settings, median picture; "
        "dotted lines: slope, dashed: Laplacian."
    )
    write(world, "regimes", "The two regimes of DIIP and DIP", head, rows, figure, note)


def _endless(
    method: str, prior: Prior, settings: Settings, damaged: Damaged, on_step: OnStep
) -> Tensor:
    """Run a method and return its losses, (iterations, B)."""
    return damaged.restored(method, prior, settings, on_step=on_step).trace["loss"]


def _descent(
    prior: Prior, iterations: int, rate: float, damaged: Damaged, on_step: OnStep
) -> Tensor:
    """Go down the gradient of ``||G(z) - y||^2`` with a constant rate; return the losses."""
    y, losses = damaged.y, []
    z = Draw(generators(0, len(y)), len(y)).normal(*y.shape[1:])
    for step in range(iterations + 1):
        z.requires_grad_()
        x = generate(prior, z, DIIP().sampler_steps)
        error = (x - y).square()
        (gradient,) = torch.autograd.grad(error.sum(), z)
        z = z.detach() - rate * gradient
        losses.append(error.detach().mean((1, 2, 3)))
        on_step(StepEvent(step + 1, iterations + 1, x.detach(), losses[-1]))
    return torch.stack(losses)


def _regime(
    title: str, damaged: Damaged, x: Tensor, run: Run, axes: Sequence[Any]
) -> tuple[Any, ...]:
    """Run a method, draw its curves, and return where it is best and where the rules fire."""
    db: list[Tensor] = []
    sharp: list[Tensor] = []

    def on_step(event: StepEvent) -> None:
        db.append(psnr(event.images.clamp(0, 1), x))
        sharp.append(sharpness(event.images))

    loss = run(damaged, on_step)
    curves = torch.stack(db), torch.stack(sharp)
    mean = curves[0].mean(1)
    best, window = int(mean.argmax()), 5
    stops = (None, None) if title == "DIP" else stopping(loss, curves[1])
    falling = (loss[:-window] - loss[window:]) / (window * loss[:-window].clamp(min=1e-12))
    for axis, curve in zip(axes, (mean, falling.mean(1), curves[1].mean(1)), strict=True):
        (line,) = axis.plot(curve.numpy(), label=title)
        for stop, style in zip(stops, (":", "--"), strict=True):
            if stop is not None:
                axis.axvline(stop, color=line.get_color(), linestyle=style, linewidth=1)
    missing = ("-" if title == "DIP" else "never", "")
    fired = [missing if k is None else (k, float(mean[k])) for k in stops]
    sharp_at_best = float((curves[1][best] / sharpness(x)).mean())
    return float(mean[best]), best, sharp_at_best, float(mean[-1]), *fired[0], *fired[1]


def stopping(loss: Tensor, sharp: Tensor) -> tuple[int | None, int | None]:
    """Return the iteration at which each of DIIP's rules stops the median picture.

    A rule stops a picture when it first holds ``patience`` times in a row.
    """
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
        damaged = observe(x, recipe, form)
        shown.append((f"{label}, input", damaged.y))
        for n in (2, 3, 5, 10, 20):
            result = damaged.restored("bird", prior, BIRD(iterations=iterations, sampler_steps=n))
            calls, seconds = result.cost.network_calls // len(x), result.cost.seconds / len(x)
            rows.append((label, n, score(damaged.y, x), score(result.images, x), calls, seconds))
            shown.append((f"{label}, {n} steps", result.images))
    head = (
        *("task", "sampler steps", "input", "PSNR"),
        *("network calls a picture", "seconds a picture"),
    )
    write(world, "sampler", "Step size of the sampler", head, rows, pictures_figure(shown, 6))


@app.command
def kernel(*, world: World = DEFAULT, iterations: int = 200, true: float = 1.6) -> None:
    """A wrong kernel: another width, kept or as a first guess; and DPS with the same kernel."""
    prior, x = world.load()
    factors = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
    damaged = observe(x, f"blur:sigma={true},size=13 | noise:sigma=0.02")
    settings = BIRD(iterations=iterations)
    rows = []
    for factor in factors:
        word = f"blur:sigma={factor * true},size=13"
        kept = replace(damaged, form=f"{word},learnable=no")
        first_guess = Recipe.parse(word).build()
        blind = damaged.restored("bird", prior, settings, operator=first_guess)
        assert isinstance(blind.operator, Operator)
        sigma = torch.tensor(blind.operator.estimates()["sigma"]).mean()
        fixed = score(kept.restored("bird", prior, settings).images, x)
        by_dps = score(kept.restored("dps", prior, DPS()).images, x)
        rows.append((factor, fixed, score(blind.images, x), float(sigma), by_dps))
    figure, axis = plt.subplots(figsize=(5, 3.5))
    for label, i in (("BIRD, kept", 1), ("BIRD, first guess", 2), ("DPS, kept", 4)):
        axis.plot(factors, [row[i] for row in rows], marker="o", label=label)
    axis.set_xlabel("given width / true width")
    axis.set_ylabel("PSNR, dB")
    axis.legend()
    head = (
        *("given / true width", "BIRD, kept", "BIRD, as a first guess"),
        *(f"its estimate (true {true:g})", "DPS, kept"),
    )
    note = f"Input: {score(damaged.y, x):.2f} dB."
    write(world, "kernel", "A wrong kernel", head, rows, figure, note)


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
        damaged = observe(x, recipe)
        before = score(damaged.y, x)
        shown.append((f"{label}, input", damaged.y))
        for name, settings in cases:
            result = damaged.restored("diip", prior, settings)
            cost = result.cost
            forward = (cost.network_calls - cost.backward_calls) / len(x)
            mean_iterations = forward / settings.sampler_steps
            after = score(result.images, x)
            rows.append((label, before, name, after, mean_iterations, str(result.stopped[0])))
            shown.append((f"{label}, {name}", result.images))
    head = (
        *("task", "input", "setting", "PSNR", "mean iterations"),
        "why the first picture stopped",
    )
    write(world, "ablation", "Ablations of DIIP", head, rows, pictures_figure(shown, 4))


@app.command
def rectifier(*, world: World = DEFAULT, iterations: int = 100) -> None:
    """The rectifier's ladder, in the first design and in the fit that is rectified again."""
    prior, x = world.load()
    rows, shown = [], [("truth", x)]
    full = replace(FULL, iterations=iterations + 5)
    for label, recipe in (("clean", ""), ("noise", NOISE), ("blur", BLUR)):
        damaged = observe(x, recipe)
        before = score(damaged.y, x) if recipe else "-"
        for rung in ("none", "norm", "scale", "standardise", "whiten", "noise"):
            designed = damaged.restored("invert2restore", prior, replace(DESIGNED, rectifier=rung))
            fitted = damaged.restored("invert2restore", prior, replace(full, rectifier=rung))
            changed, gamma = (float(designed.extras[k].mean()) for k in ("changed", "gamma"))
            norm = float(designed.extras["z_found"].square().mean((1, 2, 3)).sqrt().mean())
            scores = score(designed.images, x), score(fitted.images, x)
            rows.append((label, before, rung, scores[0], norm, changed, gamma, scores[1]))
            shown += [(f"{label}, {rung}", designed.images), ("fitted", fitted.images)]
    head = (
        *("task", "input", "rung", "as designed", "norm of z found / sqrt(d)", "share changed"),
        *("gamma", f"fitted, {iterations} + 5 iterations"),
    )
    write(world, "rectifier", "The rectifier's ladder", head, rows, pictures_figure(shown, 4))


@app.command
def uncertainty(*, world: World = DEFAULT, iterations: int = 200, samples: int = 8) -> None:
    """Where several seeds disagree, and whether the error is larger there."""
    prior, x = world.load()
    rows, shown = [], [("truth", x)]
    cases: list[tuple[str, Settings, str | None]] = [
        ("bird", BIRD(iterations=iterations), BLUR_FORM),
        ("diip", DIIP(iterations=iterations), None),
        ("invert2restore", Invert2Restore(iterations=iterations), None),
    ]
    for name, settings, form in cases:
        many = observe(x, BLUR, form).restored(name, prior, settings, samples=samples)
        std, error = many.extras["std"], (many.images - x).abs()
        single = sum(score(many.extras["samples"][:, s], x) for s in range(samples)) / samples
        spread = float(many.extras["std_sigma"].mean()) if "std_sigma" in many.extras else "-"
        rank = float(error_rank_correlation(std, error).mean())
        means = float(std.mean()), float(error.mean())
        rows.append((name, single, score(many.images, x), *means, rank, spread))
        peak = max(float(std.mean(1).amax()), 1e-9)
        shown += [
            (f"{name}, mean", many.images),
            ("std", std.mean(1, keepdim=True) / peak),
            ("error", error.mean(1, keepdim=True) / (3 * peak)),
        ]
    head = (
        *("method", "one sample", f"mean of {samples}", "mean std", "mean error"),
        *("rank correlation", "std of the blur's sigma, px"),
    )
    title = "Uncertainty on blur with noise"
    write(world, "uncertainty", title, head, rows, pictures_figure(shown, 6))


if __name__ == "__main__":
    app()
