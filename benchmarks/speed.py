"""Measure seconds and memory: side by side, in one process, on one thread.

    python -m benchmarks.speed released --pictures runs/faces/validation
    python -m benchmarks.speed formats --pictures runs/faces/validation
    python -m benchmarks.speed network
    python -m benchmarks.speed size
    python -m benchmarks.speed gradient

Seconds are those that the processor worked for this process, so that other programs on the machine
change them little; with one thread they are what a clock shows on an idle machine.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cyclopts
import torch
from benchmarks.common import RESULTS, restored, write
from benchmarks.throughput import status

from pristina.bench import PictureSet
from pristina.bench.pictures import load_pictures, picture_size
from pristina.methods.index import METHODS
from pristina.metrics import haarpsi, psnr
from pristina.operators.base import Operator
from pristina.operators.blur import FreeKernel
from pristina.operators.recipe import Recipe
from pristina.priors import load_prior
from pristina.priors.generate import generate
from pristina.priors.network import compile_network, fast_dtype
from pristina.seeds import benchmark_seeds
from pristina.types import Draw

app = cyclopts.App(help=__doc__)

RELEASED = {
    "gaussian": (
        "blur:sigma=1.2,size=15 | noise:sigma=0.02",
        "",
        "kernel:size=15,sigma=2 | noise:sigma=0.02",
        "as_released",
    ),
    "inpaint": (
        "speckle:lam=0.12,sigma=0.05,clip=yes | mask:box=21",
        "mask:box=21",
        "mask:box=21 | noise:sigma=0.05",
        "as_released_inpainting",
    ),
    "denoise": (
        "speckle:lam=0.4,sigma=0.15,clip=yes",
        "noise:sigma=0.16",
        "noise:sigma=0.16",
        "as_released_denoising",
    ),
}
"""Damage, what released BIRD is told (nothing: its network of a kernel), what the others are told,
and its preset."""

CELEBA_HQ: dict[str, Any] = {
    "sample_size": 256,
    "block_out_channels": (128, 128, 256, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": (*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4),
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
"""The network of google/ddpm-ema-celebahq-256."""


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor's seconds of this process, and what ``work`` returns."""
    begun = time.process_time()
    done = work()
    return time.process_time() - begun, done


@app.command
def released(
    *,
    pictures: Path,
    count: int = 2,
    tasks: tuple[str, ...] = tuple(RELEASED),
    prior: str = "faces",
    out: Path = RESULTS,
) -> None:
    """Compare BIRD as released (float32, eager, one by one) with ``bird`` and ``refit`` in a batch.

    Parameters
    ----------
    pictures
        Folder of faces.
    count
        Number of faces, from the first.
    """
    torch.set_num_threads(1)
    exact, fast = load_prior(prior, dtype=torch.float32), load_prior(prior)
    chosen = PictureSet(folder=pictures, count=count)
    truth = load_pictures(chosen, picture_size(chosen, fast))[1]
    seeds = benchmark_seeds(0, count, "degradation")
    rows = []
    for task in tasks:
        recipe, told_released, told, preset = RELEASED[task]
        operator = Recipe.parse(recipe).build(0).requires_grad_(False)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        y = operator.degrade(truth, Draw(generators, count))
        ways: list[tuple[str, str, Any, str, Any, bool]] = [
            ("BIRD as released, one by one", "bird", exact, told_released, preset, True)
        ]
        for n in (5, 10, 20, 30):
            ways.append((f"`refit`, {n} steps", "refit", fast, told, {"steps": n}, False))
        first = None
        for label, method, weights, form, how, alone in ways:
            settings = (
                METHODS[method].make_settings(how)
                if isinstance(how, str)
                else METHODS[method].make_settings(changes=how)
            )
            parts = y.split(1) if alone else [y]

            seconds, results = timed(
                lambda parts=parts, method=method, weights=weights, form=form, settings=settings: [
                    restored(method, part, weights, settings, operator=form_of(form), seed=i)
                    for i, part in enumerate(parts)
                ]
            )
            x = torch.cat([result.images for result in results])
            first = first or seconds
            rows.append(
                [
                    task,
                    label,
                    f"{sum(result.cost.network_calls for result in results) / count:.0f}",
                    f"{float(psnr(x, truth).mean()):.2f} / {float(haarpsi(x, truth).mean()):.3f}",
                    f"{seconds / count:.2f}",
                    f"{first / seconds:.1f}",
                ]
            )
            print(rows[-1], flush=True)
    head = ["task", "method", "calls", "PSNR / HaarPSI", "seconds for a picture", "times faster"]
    write(out, "speed-released", "BIRD as released, and the fast way", head, rows)


def form_of(recipe: str) -> Operator:
    """Return what a method is told."""
    return Recipe.parse(recipe).build(0) if recipe else FreeKernel(15, "network", "zero")


def random_network() -> Any:
    """Return the network of ``celebahq`` with random weights, in evaluation mode."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    return UNet2DModel(**CELEBA_HQ).eval().requires_grad_(False)


@app.command
def network(*, steps: int = 10, compiled: bool = False, out: Path = RESULTS) -> None:
    """Time G with the layout of CelebA-HQ 256 and random weights, one picture.

    Parameters
    ----------
    steps
        Number of network calls.
    compiled
        Whether to measure the compiled network too.
    """
    import copy

    from diffusers import DDIMPipeline, DDIMScheduler
    from torch.utils.flop_counter import FlopCounterMode

    from pristina.priors.unet import UNetPrior

    torch.set_num_threads(1)
    plain = random_network()
    pipeline = DDIMPipeline(unet=copy.deepcopy(plain), scheduler=DDIMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    dtype = fast_dtype(torch.device("cpu"))

    def prior(unet: Any, dtype: torch.dtype) -> UNetPrior:
        return UNetPrior(unet, prediction="eps", domain="nothing", dtype=dtype)

    ours = prior(copy.deepcopy(plain).to(memory_format=torch.channels_last), dtype)
    eager = prior(plain, torch.float32)
    z = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        plain(z, torch.tensor([1.0]))
    flops = counter.get_total_flops()

    ways: dict[str, Callable[[], Any]] = {
        "plain, float32, eager": lambda: generate(eager, z, steps),
        "diffusers' DDIM pipeline": lambda: pipeline(
            num_inference_steps=steps, generator=torch.Generator().manual_seed(0)
        ),
        f"ours, {str(dtype).removeprefix('torch.')}, channels last": lambda: generate(
            ours, z, steps
        ),
    }
    if compiled:
        quick = prior(copy.deepcopy(plain).to(memory_format=torch.channels_last), dtype)
        compile_network(quick)
        generate(quick, z, 1)
        ways["ours, compiled"] = lambda: generate(quick, z, steps)
    with torch.no_grad():
        for unet in (eager, ours):
            generate(unet, z, 1)  # Warm.
        rate = matrix_rate()
        rows, first = [], None
        for label, work in ways.items():
            seconds, _ = timed(work)
            first = first or seconds
            share = steps * flops / seconds / rate
            rows.append([label, f"{seconds:.1f}", f"{first / seconds:.2f}", f"{100 * share:.0f} %"])
            print(rows[-1], flush=True)
        agree = (generate(eager, z, 1) - generate(ours, z, 1)).abs().max()
    notes = (
        f"{steps} steps; {flops / 1e9:.0f} GFLOP a call; matrix products of like shapes run at "
        f"{rate / 1e9:.0f} GFLOP/s; plain and ours differ by at most {float(agree):.1e}."
    )
    head = ["way", "seconds", "times faster", "of the matrix rate"]
    write(out, "speed-network", "G, one picture of 256 px", head, rows, notes)
    with torch.no_grad():
        where(lambda: generate(ours, z, 1), out)


def matrix_rate() -> float:
    """Return the operations a second of float32 products as large as the network's largest."""
    best = 0.0
    for rows, inner, columns in ((65536, 1152, 128), (16384, 2304, 256), (1024, 4608, 512)):
        a, b = torch.randn(rows, inner), torch.randn(inner, columns)
        seconds = min(timed(lambda a=a, b=b: a @ b)[0] for _ in range(3))
        best = max(best, 2 * rows * inner * columns / seconds)
    return best


def where(work: Callable[[], Any], out: Path) -> None:
    """Write a table of where the time of ``work`` goes."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work()
    events = [event for event in profiler.key_averages() if event.self_cpu_time_total > 0]
    total = sum(event.self_cpu_time_total for event in events)
    events.sort(key=lambda event: -event.self_cpu_time_total)
    rows = [
        [f"`{event.key}`", str(event.count), f"{100 * event.self_cpu_time_total / total:.1f} %"]
        for event in events[:10]
    ]
    head = ["operation", "times", "share of the time"]
    write(out, "speed-where", "Where the time of one call goes", head, rows)


@app.command
def formats(
    *, pictures: Path, count: int = 4, prior: str = "faces", batch: int = 16, out: Path = RESULTS
) -> None:
    """Time one call in each type and memory format, and compare what ``mmse`` makes with it.

    Parameters
    ----------
    pictures
        Folder of faces.
    count
        Number of faces, from the first; the noise is 25/255.
    batch
        Number of faces in the batch that is timed beside a single one.
    """
    torch.set_num_threads(1)
    chosen = PictureSet(folder=pictures, count=count)
    rows, first = [], None
    for dtype in (torch.float32, torch.bfloat16):
        for layout in (torch.contiguous_format, torch.channels_last):
            weights = load_prior(prior, dtype=dtype)
            weights.network.to(memory_format=layout)
            truth = load_pictures(chosen, picture_size(chosen, weights))[1]
            noise = Draw([torch.Generator().manual_seed(i) for i in range(count)], count)
            y = truth + 25 / 255 * noise.normal(*truth.shape[1:])
            seconds = []
            for n in (1, batch):
                x = torch.randn(n, *truth.shape[1:]).contiguous(memory_format=layout)
                with torch.no_grad():
                    work = partial(weights.predict, x, 100)
                    work()
                    seconds.append(min(timed(work)[0] for _ in range(3)))
            found = restored("mmse", y, weights, METHODS["mmse"].make_settings()).images
            quality = float(psnr(found, truth).mean())
            first = first or quality
            words = str(dtype).removeprefix("torch."), str(layout).removeprefix("torch.")
            rows.append(
                [", ".join(words), *(f"{s:.3f}" for s in seconds), f"{quality - first:+.3f}"]
            )
            print(rows[-1], flush=True)
    head = ["network", "seconds, 1 face", f"seconds, {batch} faces", "PSNR, difference"]
    notes = f"`fast_dtype` takes {fast_dtype(torch.device('cpu'))} here."
    write(out, "speed-formats", f"One call of `{prior}` by type and format", head, rows, notes)


@app.command
def size(
    *,
    sides: tuple[int, ...] = (64, 128, 256, 512, 1024),
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64),
    out: Path = RESULTS,
) -> None:
    """Time one network call against the side of a picture, and against the number of faces.

    Parameters
    ----------
    sides
        Sides in pixels, with the prior ``photos``.
    batches
        Numbers of faces of 64 px, with the prior ``faces``.
    """
    torch.set_num_threads(1)

    def call(name: str, shapes: Sequence[tuple[int, int]]) -> list[float]:
        prior, found = load_prior(name), []
        for n, side in shapes:
            x = torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                prior.predict(x, 100)
                repeats = max(1, round(64 * 64 * 32 / x[:, 0].numel()))
                found.append(
                    statistics.median(
                        timed(lambda x=x: prior.predict(x, 100))[0] for _ in range(max(3, repeats))
                    )
                )
            print(name, n, side, found[-1], flush=True)
        return found

    seconds = call("photos", [(1, side) for side in sides])
    rows = [
        [f"1 of {side} px", f"{s:.3f}", f"{1e6 * s / side**2:.2f}"]
        for side, s in zip(sides, seconds, strict=True)
    ]
    by_size = exponent([side**2 for side in sides], seconds)
    seconds = call("faces", [(n, 64) for n in batches])
    rows += [
        [f"{n} of 64 px (`faces`)", f"{s:.3f}", f"{1e6 * s / n / 64**2:.2f}"]
        for n, s in zip(batches, seconds, strict=True)
    ]
    by_batch = exponent(batches, seconds)
    notes = f"Exponents: {by_size:.3f} of the pixels, {by_batch:.3f} of the batch."
    head = ["pictures", "seconds for a call", "seconds a megapixel"]
    write(out, "speed-size", "One network call against size and batch", head, rows, notes)


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return the power of x with which y grows, by least squares of the logarithms."""
    return statistics.linear_regression([*map(math.log, xs)], [*map(math.log, ys)]).slope


@app.command
def gradient(*, batch: int = 4, out: Path = RESULTS) -> None:
    """Measure the peak memory of the exact gradient of G, each in a process of its own.

    Parameters
    ----------
    batch
        Number of faces.
    """
    rows, first = [], None
    for label, steps, how in (
        ("one forward and backward", 1, "full"),
        ("10 steps, checkpointed", 10, "checkpointed"),
        ("50 steps, checkpointed", 50, "checkpointed"),
        ("10 steps, full", 10, "full"),
    ):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peak, seconds = pool.apply(peak_of_gradient, (batch, steps, how))
        first = first or peak
        rows.append([label, f"{peak / 2**20:.0f}", f"{peak / first:.2f}", f"{seconds:.1f}"])
        print(rows[-1], flush=True)
    head = ["gradient", "peak above start, MiB", "of one call's", "seconds"]
    write(out, "speed-gradient", f"Exact gradient of G, {batch} faces", head, rows)


def peak_of_gradient(batch: int, steps: int, how: Any) -> tuple[int, float]:
    """Return the most memory, in bytes, that a gradient of G takes beside what was there."""
    torch.set_num_threads(1)
    prior = load_prior("faces")
    z = torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def work(z: torch.Tensor, steps: int) -> None:
        z = z.clone().requires_grad_()
        generate(prior, z, steps, gradient=how).square().sum().backward()

    work(z[:1, :, :, :], 1)  # What is allocated once.
    Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew.
    before = status("VmRSS")
    seconds, _ = timed(lambda: work(z, steps))
    return status("VmHWM") - before, seconds


if __name__ == "__main__":
    app()
