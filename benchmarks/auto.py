"""Measure what ``--method auto`` does: how many of each kind of damage it repairs, and how well.

    python -m benchmarks.auto --pictures KODAK --real POLYU

Picture i is damaged with seed 1000 + i and rounded to 8 bits; JPEG damage goes through a file, so
that its tables can be read (@80: quality 80). The truth is used to measure, never inside. Writes
``OUT/auto.md``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import cyclopts
import torch
from benchmarks.common import RESULTS, pairs_of, pictures_of, write
from benchmarks.indi_tasks import RECIPES
from benchmarks.restorers import observe

from pristina import plan, restore
from pristina.auto import ALL_ROUND
from pristina.image.picture import Picture
from pristina.metrics import psnr
from pristina.operators.recipe import Recipe
from pristina.training.reader import BEST_DB

NOISE_AND_JPEG = ((10, 95), (10, 80), (25, 80), (25, 50))
DAMAGE = {
    "clean": "",
    **{f"JPEG {q}": f"@{q}" for q in (95, 80, 60, 40, 20, 10)},
    "off the grid, JPEG 40": "@40cut",
    **{f"noise {s}/255": f"noise:sigma={s / 255}" for s in (3, 5, 10, 25, 50)},
    "Gaussian blur, 1 px": "blur:sigma=1",
    "Gaussian blur, 2 px": "blur:sigma=2",
    "defocus, 2 px": RECIPES["defocus 2 px"],
    "enlarged x2": "bicubic:factor=2",
    "enlarged x4": RECIPES["x4 bicubic"],
    **{f"noise {s}/255, JPEG {q}": f"noise:sigma={s / 255}@{q}" for s, q in NOISE_AND_JPEG},
    "blur, noise and JPEG": RECIPES["mixed"].replace(" | jpeg:quality=", "@"),
}


CUT = (3, 5)
"""Rows and columns that are cut from a JPEG marked with ``cut``; it then comes as another file."""
CLOSE_DB = 0.1
"""Gains under this size, predicted and true, count as having the same sign."""


def damage(x: torch.Tensor, recipe: str, i: int, folder: Path) -> tuple[torch.Tensor, Picture]:
    """Return picture i of (1, 3, H, W), and what a user would have of it."""
    recipe, _, quality = recipe.partition("@")
    picture = Picture.from_pixels(x[0])
    if recipe:
        case = observe(x, Recipe.parse(recipe).build(1000 + i), 1000 + i)
        picture = Picture.from_pixels(case.input[0].clamp(0, 1))
    if quality:
        cut = quality.endswith("cut")
        picture.to_pillow().save(folder / "damaged.jpg", quality=int(quality.removesuffix("cut")))
        picture = Picture.open(folder / "damaged.jpg")
        if cut:
            x = x[..., CUT[0] :, CUT[1] :]
            picture = Picture.from_pixels(picture.pixels[:, CUT[0] :, CUT[1] :])
    return x, picture


def measure(name: str, pairs: Iterable[tuple[torch.Tensor, Picture]]) -> list[str]:
    """Return the row of one kind of damage, of pairs of a clean and a damaged picture.

    What ``auto`` would take is computed for every picture, so that its prediction can be compared.
    """
    changes, repaired, off, right = [], 0, [], 0
    seen: Counter[str] = Counter()
    for x, picture in pairs:
        takes = plan(picture).entry.name != "nothing"
        done = restore(picture, strength=1.0)
        assert done.plan.reading is not None
        before, after = (float(psnr(p.pixels[None], x)) for p in (picture, done.picture))
        changes.append(after - before if takes else 0.0)
        if name == "clean":
            changes[-1] = after if takes else math.inf
        gain = min(BEST_DB, after) - min(BEST_DB, before)
        gains = done.plan.reading.gains
        # Of the weights for white noise no gain is predicted but that of those they replace.
        predicted = gains.get(done.plan.weights_name or "", gains[ALL_ROUND]).value
        off.append(abs(predicted - gain))
        right += (predicted > 0) == (gain > 0) or max(abs(predicted), abs(gain)) < CLOSE_DB
        repaired += takes
        seen.update(list(done.plan.reading.seen))
    n = len(changes)
    figures = [f"{v:+.2f}" for v in (sum(changes) / n, min(changes), max(changes))]
    kinds = ", ".join(f"{kind} {count}" for kind, count in seen.most_common())
    return [name, f"{repaired} of {n}", *figures, f"{sum(off) / n:.2f}", f"{right}", kinds]


def real_pairs(folder: Path) -> Iterator[tuple[torch.Tensor, Picture]]:
    """Yield the clean and the noisy picture of each pair of files."""
    for clean, noisy in pairs_of(folder, "noisy"):
        yield Picture.open(clean).pixels[None], Picture.open(noisy)


def main(
    *,
    pictures: Path,
    real: Path | None = None,
    count: int = 24,
    size: int = 0,
    only: tuple[str, ...] = (),
    out: Path = RESULTS,
) -> None:
    """Measure.

    Parameters
    ----------
    real
        Folder of NNN_noisy and NNN_clean files, taken as they are.
    """
    clean = pictures_of(pictures, count, size)
    rows = []
    with TemporaryDirectory() as folder:
        for name in (*DAMAGE, *(["real noise"] if real else [])):
            if only and not name.startswith(only):
                continue
            if name in DAMAGE:
                pairs = [damage(x, DAMAGE[name], i, Path(folder)) for i, x in enumerate(clean)]
                rows.append(measure(name, pairs))
            elif real:
                rows.append(measure(name, real_pairs(real)))
            print(" | ".join(rows[-1]), flush=True)
    notes = (
        "Change of the PSNR against the damaged picture, in dB: mean over all pictures, worst and "
        "best; a picture left alone counts as 0. For clean pictures: the PSNR, infinite if left "
        "alone. Off: mean difference between the predicted and the true gain of the weights that "
        "the reader thinks best, taken or not; sign: for how many pictures the sign was right."
    )
    head = ["damage", "repaired", "mean", "worst", "best", "off", "sign", "seen"]
    write(out, "auto", "What auto does", head, rows, notes)


if __name__ == "__main__":
    cyclopts.run(main)
