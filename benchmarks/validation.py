"""Split a folder of training pictures into those that train and those that choose.

    python -m benchmarks.validation FACES --kind faces --out runs/faces
    pristina train prior --data runs/faces/training --held-out runs/faces/validation ...
    pristina bench diip --pictures runs/faces/validation ...

Networks and settings are chosen on ``OUT/validation``: 150 faces, or 12 photographs, always the
same ones. The pictures of the tables choose nothing. ``pristina train indi`` sets the same pictures
aside by itself. Both folders hold links to the pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import cyclopts

from pristina.training.data import list_pictures
from pristina.training.validation import held_out_faces, held_out_photographs


def main(folder: Path, *, kind: Literal["faces", "photographs"], out: Path) -> None:
    """Write ``OUT/training`` and ``OUT/validation``."""
    pictures = list_pictures(folder)
    choose = held_out_faces if kind == "faces" else held_out_photographs
    aside = set(choose(pictures))
    for name in ("training", "validation"):
        (out / name).mkdir(parents=True)
    for path in pictures:
        name = "validation" if path in aside else "training"
        (out / name / path.name).symlink_to(path.resolve())
    print(f"{len(pictures) - len(aside)} pictures in {out}/training, {len(aside)} in validation")


if __name__ == "__main__":
    cyclopts.run(main)
