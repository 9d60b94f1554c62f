"""Compare ways to enlarge photographs two, three and four times with the shipped weights.

    python -m benchmarks.enlarging --photographs DATA

They are measured on the middle of the twelve photographs of DATA that training sets aside, reduced
bicubically and rounded to 8 bits: what ``--scale`` does was chosen by this table.
"""

from __future__ import annotations

from pathlib import Path

import cyclopts
import torch
from benchmarks.common import RESULTS, picture_of, write
from torch import Tensor

from pristina.enlarging import TRAINED
from pristina.image.fit import resize
from pristina.priors.load import load_weights
from pristina.training.data import list_pictures
from pristina.training.validation import held_out_photographs

SCALES = (2, 3, 4)


@torch.no_grad()
def main(photographs: Path, *, size: int = 240, out: Path = RESULTS) -> None:
    """Write ``OUT/enlarging.md``.

    Parameters
    ----------
    photographs
        Folder of the training photographs.
    size
        Side of the middle that is cut out, in pixels, a multiple of 12.
    out
        Folder of the table.
    """
    paths = held_out_photographs(list_pictures(photographs))
    x = torch.cat([picture_of(path, size) for path in paths])
    x4, blind, photos = (load_weights("direct", n) for n in ("x4", "blind", "photos-blind"))
    rows = []
    for scale in SCALES:
        y = (255 * resize(x, size // scale, size // scale)).round() / 255
        plain = resize(y, size, size)
        sharp = x4.predict(resize(y, *(TRAINED * n for n in y.shape[-2:])), 1.0).clamp(0, 1)
        ways = {
            "bicubic": plain,
            "x4 at four times, then reduced": resize(sharp, size, size),
            **{f"x4 at its size, strength {t}": x4.predict(plain, t) for t in (0.25, 0.5, 1.0)},
            "blind": blind.predict(plain, 1.0),
            "photos-blind, strength 0.8": photos.predict(plain, 0.8),
        }
        rows.append({name: _psnr(found, x) for name, found in ways.items()})
    table = [[name, *(f"{row[name]:.2f}" for row in rows)] for name in rows[0]]
    head = ["PSNR (dB)", *(f"{scale} times" for scale in SCALES)]
    write(out, "enlarging", "Enlarging", head, table, f"{len(x)} photographs of {size} px.")


def _psnr(found: Tensor, x: Tensor) -> float:
    error = (found.clamp(0, 1) - x).square().mean((1, 2, 3))
    return float((-10 * error.log10()).mean())


if __name__ == "__main__":
    cyclopts.run(main)
