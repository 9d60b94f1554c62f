"""``pristina degrade``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pristina.errors import SettingError


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
        What happens to it, in order, such as "motion:size=41,intensity=0.5 | noise:sigma=0.05 | jpeg:quality=20".
    seed
        Of everything that is drawn.
    record
        Where to write the true parameters, as JSON; OUTPUT.json unless given.
    """
    from dataclasses import replace

    from pristina.image.picture import Picture, atomic, check_output
    from pristina.operators.index import parse_recipe
    from pristina.types import Draw, generators

    record = output.with_name(output.name + ".json") if record is None else record
    if record.resolve() == output.resolve():
        raise SettingError(f"{record} is to be written twice; give --output and --record different names.")
    check_output(output)
    damage = parse_recipe(operator, seed)
    before = Picture.open(picture)
    check_output(output, alpha=before.alpha is not None)

    y = damage.degrade(before.pixels[None], Draw(generators(seed, 1), 1))[0].detach()
    after = replace(before.with_pixels(y.expand(3, -1, -1)), grey=before.grey or y.shape[0] == 1)
    after.save(output)
    truth = {
        "input": str(picture),
        "output": str(output),
        "recipe": operator,
        "seed": seed,
        "says": damage.describe(),
        "parameters": damage.estimates(),
        "size": {"before": list(before.size), "after": list(after.size)},
        "clipped": round(float(((y < 0) | (y > 1)).float().mean()), 6),
    }
    with atomic(record) as beside:
        beside.write_text(json.dumps(truth, indent=1) + "\n")
    print(f"{output}: {damage.describe()}; the true parameters are in {record}")
