"""``pristina degrade``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pristina.errors import OperatorError

if TYPE_CHECKING:
    from torch import Tensor


def degrade(
    picture: Path,
    *,
    output: Annotated[Path, Parameter(alias="-o")],
    operator: str,
    seed: int = 0,
    record: Path | None = None,
) -> None:
    """Damage a picture in a known way, and write down how.

    Parameters
    ----------
    picture
        The picture to damage.
    output
        Where to write it; PNG keeps it as it is, JPEG and WebP damage it a little more.
    operator
        What happens to it, in order, such as "motion:size=41,intensity=0.5 | noise:sigma=0.05 | jpeg:quality=20"; docs/operators.md lists
        every word with its arguments.
    seed
        Of everything that is drawn.
    record
        Where to write the true parameters, as JSON; OUTPUT.json unless given.
    """
    from dataclasses import replace

    from pristina.image.picture import Picture, check_format, check_outputs, write
    from pristina.operators.index import parse_recipe
    from pristina.types import Draw, generators

    record = Path(f"{output}.json") if record is None else record
    check_outputs([output], [record], inputs=[picture, *recipe_files(operator)])
    damage = parse_recipe(operator, seed)
    before = Picture.open(picture)
    check_format(output, alpha=before.alpha is not None)

    def degraded(channels: int) -> tuple[Tensor, list[float]]:
        """What becomes of so many channels of the picture, and the share of values outside [0, 1] after each operator."""
        y, out_of_range, draw = before.pixels[None, :channels], [], Draw(generators(seed, 1), 1)
        for part in damage.parts:
            y = part.degrade(y, draw).detach()
            out_of_range.append(float(f"{((y < 0) | (y > 1)).float().mean().item():.4g}"))
        return y[0], out_of_range

    try:
        y, out_of_range = degraded(1 if before.grey else 3)
    except OperatorError:
        y, out_of_range = degraded(3)  # what happens to colour makes a colour picture of a grey one
    after = replace(before.with_pixels(y.expand(3, -1, -1)), grey=y.shape[0] == 1)
    truth = {
        "input": str(picture),
        "output": str(output),
        "recipe": operator,
        "seed": seed,
        "says": damage.describe(),
        "parameters": damage.estimates(),
        "size": {"before": list(before.size), "after": list(after.size)},
        "out_of_range": out_of_range,
        "notes": list(before.notes),
    }
    write({output: after.encode(output), record: (json.dumps(truth, indent=1, allow_nan=False) + "\n").encode()})
    print(f"{output}: {damage.describe()}; the true parameters are in {record}")
    for note in before.notes:
        print(f"note: {note}")


def recipe_files(recipe: str | None) -> list[Path]:
    """The files that a recipe reads."""
    return [Path(name) for name in re.findall(r"\bfile\s*=\s*([^,|]*[^,|\s])", recipe or "")]
