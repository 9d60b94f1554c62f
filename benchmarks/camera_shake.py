"""Camera shake and defocus: `deblur` told the blur and blind, beside classical deconvolution.

    python -m benchmarks.camera_shake PHOTOS --kernels Levin09.mat --count 24

Picture i is blurred with kernel i (of eight), gets white noise of 1/255 and is rounded to 8 bits.
The border rule is ``reflect``, which no row is told but Richardson-Lucy, whose picture is mirrored.
"""

from __future__ import annotations

import time
from pathlib import Path

import cyclopts
import torch
from benchmarks.common import RESULTS, pictures_of, restored
from benchmarks.restorers import Case, observe
from torch import Tensor
from torch.nn import functional as F

from pristina.methods.deblur import Deblur
from pristina.methods.index import METHODS
from pristina.methods.steps.kernel_from_picture import similarity
from pristina.methods.steps.result import Result, StopReason
from pristina.metrics.fidelity import psnr, psnr_after_shift
from pristina.operators.base import Compose, Operator
from pristina.operators.blur import Defocus, FreeKernel, KernelBlur
from pristina.operators.kernels import load_kernels, motion_kernel
from pristina.operators.noise import GaussianNoise
from pristina.operators.wiener import wiener
from pristina.priors.load import load_prior, load_weights

NOISE = 1 / 255
SIDES = (15, 17, 19, 21, 23, 25, 27, 29)


def own_kernels(seed: int) -> list[Tensor]:
    """Draw eight kernels of 15 to 29 px."""
    generator = torch.Generator().manual_seed(seed)
    return [motion_kernel(side, 0.5, generator) for side in SIDES]


def main(
    pictures: Path,
    *,
    kernels: Path | None = None,
    count: int = 24,
    size: int = 0,
    weights: str = "reconstruct",
    kernel_px: int = 31,
    seed: int = 7,
    rivals: tuple[str, ...] = (),
    out: Path = RESULTS,
) -> None:
    """PSNR of deblurring, told and blind.

    Parameters
    ----------
    pictures
        Folder of clean pictures.
    kernels
        MATLAB file of measured kernels; otherwise eight are drawn from ``seed``.
    count
        Number of pictures.
    size
        Side of the middle of each picture that is used, in px; 0 takes the whole.
    weights
        Weights of the operator-aware regressor.
    kernel_px
        Side of the kernel that the blind form looks for.
    seed
        Seed of the kernels that are drawn.
    rivals
        Methods with the prior photos to be measured instead, with shake: diffpir or ddrm, told the
        kernel and the noise, or bird, told that there is some kernel.
    out
        Folder of the table.
    """
    prior = load_weights("operator", weights)
    clean = pictures_of(pictures, count, size)
    blurs: dict[str, list[Operator]] = {
        "camera shake": [
            KernelBlur(k) for k in (load_kernels(kernels) if kernels else own_kernels(seed))
        ],
        "defocus 3 px": [Defocus(3.0, size=9)],
    }
    if rivals:
        for name in rivals:
            print(_rival(name, clean, blurs["camera shake"], kernel_px), flush=True)
        return
    lines = [
        "| damage | input | Wiener, told | Richardson-Lucy, told | deblur, told | deblur, blind "
        "| kernel: correlation | s a picture, told and blind |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, operators in blurs.items():
        lines.append(_row(name, clean, operators, prior, kernel_px))
        print(lines[-1], flush=True)
    lines += ["", "Picture after picture on a clean one, blind: " + _clean(clean, prior, kernel_px)]
    print(lines[-1])
    out.mkdir(parents=True, exist_ok=True)
    (out / "camera_shake.md").write_text("\n".join(lines) + "\n")


def _row(
    name: str, clean: list[Tensor], operators: list[Operator], prior: object, kernel_px: int
) -> str:
    columns: dict[str, list[float]] = {}
    similar, alone, seconds = [], 0, [0.0, 0.0]
    for i, x in enumerate(clean):
        blur = operators[i % len(operators)]
        whole = Compose([blur, GaussianNoise(NOISE)])
        case = observe(x, whole, 1000 + i)
        told, seconds[0] = _timed(case, prior, whole, seconds[0])
        blind, seconds[1] = _timed(case, prior, None, seconds[1], kernel_px)
        true = blur.kernel().detach()
        if blind.operator is not None:
            similar.append(_similarity(blind.operator.kernel(), true))
        alone += blind.stopped[0].reason is StopReason.LEFT_ALONE
        half = true.shape[-1] // 2
        classical = wiener(case.y, true, torch.tensor([NOISE]))[:, 1, :, half:-half, half:-half]
        found = {
            "input": case.y,
            "wiener": classical.clamp(0, 1),
            "lucy": case.deconvolve(case, i),
            "told": told.images,
            "blind": blind.images,
        }
        for key, image in found.items():
            columns.setdefault(key, []).append(float(psnr(image, x)))
        for key in ("input", "blind"):
            best = float(psnr_after_shift(found[key], x))
            columns.setdefault(f"{key}, best shift", []).append(best)
        print(name, i, {k: round(v[-1], 2) for k, v in columns.items()}, round(similar[-1], 3))
    means = {key: sum(values) / len(values) for key, values in columns.items()}
    changes = [
        after - before for after, before in zip(columns["blind"], columns["input"], strict=True)
    ]
    each = [total / len(clean) for total in seconds]
    shifted = [f"{means[f'{key}, best shift']:.2f}" for key in ("input", "blind")]
    worst = (
        f"{min(changes):+.1f} to {max(changes):+.1f}; {alone} of {len(clean)} left alone; "
        f"at the best shift {' to '.join(shifted)}"
    )
    return (
        f"| {name} | {means['input']:.2f} | {means['wiener']:.2f} | {means['lucy']:.2f} "
        f"| {means['told']:.2f} | {means['blind']:.2f} ({worst}) "
        f"| {sum(similar) / len(similar):.3f} "
        f"({min(similar):.2f} to {max(similar):.2f}) | {each[0]:.1f}, {each[1]:.1f} |"
    )


def _rival(name: str, clean: list[Tensor], operators: list[Operator], kernel_px: int) -> str:
    """Return a row: mean PSNR of the input and of another method, and those at the best shift."""
    prior, settings = load_prior("photos"), METHODS[name].settings()
    rows, begun = [], time.perf_counter()
    for i, x in enumerate(clean):
        blur = operators[i % len(operators)]
        case = observe(x, Compose([blur, GaussianNoise(NOISE)]), 1000 + i)
        told = name != "bird"
        form = blur if told else FreeKernel.gaussian(kernel_px)
        result = restored(
            name, case.y, prior, settings, operator=form, known_sigma=NOISE if told else None
        )
        pairs = (
            (measure, image)
            for measure in (psnr, psnr_after_shift)
            for image in (case.y, result.images)
        )
        rows.append([float(measure(image, x)) for measure, image in pairs])
        print(name, i, [round(value, 2) for value in rows[-1]], flush=True)
    means = torch.tensor(rows).mean(0).tolist()
    seconds = (time.perf_counter() - begun) / len(clean)
    figures = " | ".join(f"{value:.2f}" for value in means)
    return f"| {name} | {figures} | {seconds:.0f} s |"


def _timed(
    case: Case, prior: object, operator: Operator | None, seconds: float, kernel_px: int = 31
) -> tuple[Result, float]:
    """Return the result of `deblur`, and the seconds so far with those that it took."""
    begun = time.perf_counter()
    settings = Deblur(kernel_px=kernel_px)
    result = restored("deblur", case.y, prior, settings, operator=operator)
    return result, seconds + time.perf_counter() - begun


def _similarity(a: Tensor, b: Tensor) -> float:
    """Return the correlation of two kernels of any sizes at the best shift."""
    side = max(a.shape[-1], b.shape[-1])
    a, b = (F.pad(k, ((side - k.shape[-1]) // 2,) * 4) for k in (a, b))
    return similarity(a, b)


def _clean(clean: list[Tensor], prior: object, kernel_px: int) -> str:
    """Return in words what the blind form does to sharp pictures."""
    found = [
        restored("deblur", x, prior, Deblur(kernel_px=kernel_px), operator=None) for x in clean
    ]
    changed = [
        float(psnr(result.images, x))
        for result, x in zip(found, clean, strict=True)
        if result.stopped[0].reason is not StopReason.LEFT_ALONE
    ]
    least = f"; PSNR of the others to themselves at least {min(changed):.1f} dB" if changed else ""
    return f"{len(clean) - len(changed)} of {len(clean)} left alone{least}."


if __name__ == "__main__":
    cyclopts.run(main)
