"""A camera that moves and turns: blur that varies, one kernel against a kernel for each field.

    python -m benchmarks.turned_camera PHOTOS --count 8

Picture i is blurred with the trace of a camera that moves by up to 4 px and turns, so that its
corners move by up to TURN px more (random paths with inertia, seed i); the kernels of 5 x 7 places
are blended in between. Noise 1/255, rounded to 8 bits. ``deblur`` is told nothing; the last column
is told the kernels and the noise.
"""

from __future__ import annotations

import math
from pathlib import Path

import cyclopts
import torch
from benchmarks.camera_shake import NOISE
from benchmarks.common import RESULTS, pictures_of, restored, write
from benchmarks.restorers import observe
from torch import Tensor

from pristina.methods.deblur import Deblur
from pristina.methods.steps.parts import undo_blur
from pristina.methods.steps.result import StopReason
from pristina.metrics.fidelity import psnr_after_shift
from pristina.operators.base import Compose
from pristina.operators.blur import VaryingBlur
from pristina.operators.noise import GaussianNoise
from pristina.priors.load import load_weights

GRID = 5, 7
SIDE = 31
MOVE_PX = 4.0
MOMENTS = 400


def turned(size: tuple[int, int], turn_px: float, seed: int) -> Tensor:
    """Draw the kernels of a camera that moves and turns, (rows, columns, K, K).

    Args:
        size: Height and width of the picture.
        turn_px: Largest movement of the corners by the turn, px.
        seed: Seed of the path.
    """
    generator = torch.Generator().manual_seed(seed)

    def path() -> Tensor:
        walk = torch.randn(MOMENTS, generator=generator).cumsum(0).cumsum(0)
        walk = walk - walk.mean()
        return walk / walk.abs().max()

    across, down, turn = MOVE_PX * path(), MOVE_PX * path(), turn_px * path()
    corner = math.hypot(*size) / 2
    kernels = torch.zeros(*GRID, SIDE, SIDE)
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            v = (row / (GRID[0] - 1) - 0.5) * size[0] / corner
            u = (column / (GRID[1] - 1) - 0.5) * size[1] / corner
            places = torch.stack([down + turn * u, across - turn * v])
            places = (places + SIDE // 2).clamp(0, SIDE - 1.001)
            first, share = places.floor().long(), places.frac()
            for i in (0, 1):
                for j in (0, 1):
                    weight = (share[0] if i else 1 - share[0]) * (share[1] if j else 1 - share[1])
                    where = (first[0] + i, first[1] + j)
                    kernels[row, column].index_put_(where, weight, accumulate=True)
    return kernels / MOMENTS


def main(
    pictures: Path,
    *,
    count: int = 8,
    turn_px: float = 2.0,
    fields: int = 3,
    out: Path = RESULTS,
) -> None:
    """PSNR (dB, at the best shift) with one kernel and with one for each field.

    Parameters
    ----------
    pictures
        Folder of clean pictures.
    count
        Number of pictures.
    turn_px
        Largest movement of the corners by the turn, in px.
    fields
        Number of fields along the longer side.
    out
        Folder of the table.
    """
    prior = load_weights("operator", "reconstruct")
    clean = pictures_of(pictures, count)
    rows: list[list[str]] = []
    sums = torch.zeros(4)
    for i, x in enumerate(clean):
        kernels = turned((x.shape[-2], x.shape[-1]), turn_px, i)
        case = observe(x, Compose([VaryingBlur(kernels), GaussianNoise(NOISE)]), 1000 + i)
        found = [
            restored("deblur", case.y, prior, Deblur(fields=n, kernel_px=SIDE)) for n in (1, fields)
        ]
        with torch.no_grad():
            told = undo_blur(
                case.y,
                kernels.flatten(0, 1)[None],
                torch.tensor([NOISE]),
                "reflect",
                prior,
                GRID,
            )
        images = [case.y, *(result.images for result in found), told.clamp(0, 1)]
        values = torch.tensor([float(psnr_after_shift(image, x)) for image in images])
        alone = [
            " (left alone)" if result.stopped[0].reason is StopReason.LEFT_ALONE else ""
            for result in found
        ]
        notes = ["", *alone, ""]
        rows.append([str(i), *(f"{v:.2f}{n}" for v, n in zip(values.tolist(), notes, strict=True))])
        print(rows[-1], flush=True)
        sums += values
    rows.append(["mean", *(f"{v:.2f}" for v in (sums / len(clean)).tolist())])
    head = ["picture", "input", "one kernel", f"fields={fields}", "told the kernels"]
    write(out, "turned_camera", f"turn of {turn_px:g} px at the corners", head, rows, "")


if __name__ == "__main__":
    cyclopts.run(main)
