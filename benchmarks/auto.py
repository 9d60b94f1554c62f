"""What ``--method auto`` does to pictures: how many of each kind of damage it repairs, and what that does to them.

    python -m benchmarks.auto --pictures KODAK --real POLYU

Picture i is damaged with seed 1000 + i and rounded to 8 bits; JPEG damage goes through a file, so that its tables can be seen (@80: quality 80).
The truth is used to measure, never inside. Writes ``OUT/auto.md``.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import cyclopts
import torch
from benchmarks.indi import RECIPES, observe, pairs_of, pictures_of, write

from pristina import restore
from pristina.image.picture import Picture
from pristina.metrics.fidelity import psnr
from pristina.operators.index import parse_recipe

DAMAGE = {
    "clean": "", **{f"JPEG {q}": f"@{q}" for q in (95, 80, 60, 40, 20, 10)},
    **{f"noise {s}/255": f"noise:sigma={s / 255}" for s in (3, 5, 10, 25, 50)},
    "Gaussian blur, 1 px": "blur:sigma=1", "Gaussian blur, 2 px": "blur:sigma=2", "defocus, 2 px": RECIPES["defocus 2 px"],
    "enlarged x2": "bicubic:factor=2", "enlarged x4": RECIPES["x4 bicubic"],
    **{f"noise {s}/255, JPEG {q}": f"noise:sigma={s / 255}@{q}" for s, q in ((10, 95), (10, 80), (25, 80), (25, 50))},
    "blur, noise and JPEG": RECIPES["mixed"].replace(" | jpeg:quality=", "@"),
}  # fmt: skip


def damaged(x: torch.Tensor, recipe: str, i: int, folder: Path) -> Picture:
    """Picture i of (1, 3, H, W) as a user would have it."""
    recipe, _, quality = recipe.partition("@")
    picture = Picture.from_pixels(x[0])
    if recipe:
        picture = Picture.from_pixels(observe(x, parse_recipe(recipe, 1000 + i), 1000 + i).initial()[0].clamp(0, 1))
    if quality:
        picture.to_pillow().save(folder / "damaged.jpg", quality=int(quality))
        picture = Picture.open(folder / "damaged.jpg")
    return picture


def main(
    *, pictures: Path, real: Path | None = None, count: int = 24, size: int = 0, only: tuple[str, ...] = (),
    out: Path = Path("benchmarks/results"),
) -> None:  # fmt: skip
    """Measure.

    Parameters
    ----------
    real
        A folder of NNN_noisy and NNN_clean files, taken as they are.
    """
    clean = pictures_of(pictures, count, size)
    rows = []
    with TemporaryDirectory() as folder:
        for name in (*DAMAGE, *(["real noise"] if real else [])):
            if only and not name.startswith(only):
                continue
            pairs = (
                ((x, damaged(x, DAMAGE[name], i, Path(folder))) for i, x in enumerate(clean))
                if name in DAMAGE
                else ((Picture.open(x).pixels[None], Picture.open(y)) for x, y in pairs_of(real, "noisy"))
            )
            changes, repaired, seconds = [], 0, 0.0
            for x, picture in pairs:
                done = restore(picture)
                repaired += done.result.method != "nothing"
                seconds += done.cost.seconds
                same = torch.equal(done.picture.pixels, picture.pixels)
                changes.append(0.0 if same else float(psnr(done.picture.pixels[None], x) - psnr(picture.pixels[None], x)))
            mean = sum(changes) / len(changes)
            rows.append(
                [
                    name,
                    f"{repaired} of {len(changes)}",
                    f"{mean:+.2f}",
                    f"{min(changes):+.2f}",
                    f"{max(changes):+.2f}",
                    f"{seconds / len(changes):.1f}",
                ]
            )
            print(" | ".join(rows[-1]), flush=True)
    notes = (
        "Change of the PSNR against the damaged picture, in dB: mean over all pictures, worst and best; a picture left alone counts as 0."
    )
    write(out, "auto", "What auto does", ["damage", "repaired", "mean", "worst", "best", "seconds a picture"], rows, notes)


if __name__ == "__main__":
    cyclopts.run(main)
