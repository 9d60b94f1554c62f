"""Command ``pristina degrade``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from torch import Tensor

    from pristina.image.picture import Picture
    from pristina.operators.base import Operator


def degrade(
    picture: Path,
    *,
    output: Annotated[Path, Parameter(alias="-o")],
    operator: str,
    seed: int = 0,
    quality: int | None = None,
    record: Path | None = None,
) -> None:
    """Damage a picture in a known way, and write down how.

    Parameters
    ----------
    picture
        Picture to damage.
    output
        File to write the damaged picture to; PNG keeps it as it is, JPEG and WebP damage it a
        little more.
    operator
        Damage, in the order in which it happens, such as
        "motion:size=41,intensity=0.5 | noise:sigma=0.05 | jpeg:quality=20"; docs/operators.md lists
        every word with its arguments.
    seed
        Random seed of the damage.
    quality
        Quality of a JPEG, WebP or AVIF output, 1 to 100; without it that of a JPEG
        input of at least 90, else 95.
    record
        File to write the true parameters to, as JSON; OUTPUT.json unless given.
    """
    from pristina.files import check_outputs, json_bytes, write_all
    from pristina.image.encoding import check_format, check_quality
    from pristina.image.picture import Picture
    from pristina.operators.recipe import Recipe

    # Everything that can be refused is refused before any work.
    record = Path(f"{output}.json") if record is None else record
    check_quality(quality)
    recipe = Recipe.parse(operator)
    check_outputs([output], [record], inputs=[picture, *recipe.files])
    check_format(output)
    damage = recipe.build(seed)
    before = Picture.open(picture)
    notes = [*before.notes, *before.check_encodable(output, quality=quality)]

    after, out_of_range = _degraded(before, damage, seed)
    truth = {
        "input": str(picture),
        "sha256": before.sha256,
        "output": str(output),
        "recipe": operator,
        "seed": seed,
        **_outcome(before, after, damage),
        "out_of_range": out_of_range,
        "notes": notes,
    }
    write_all({output: after.encode(output, quality), record: json_bytes(truth)})
    print(f"{output}: {damage.describe()}; the true parameters are in {record}")
    for note in notes:
        print(f"note: {note}")


def _outcome(before: Picture, after: Picture, damage: Operator) -> dict[str, Any]:
    """Return what was done, for the record."""
    return {
        "description": damage.describe(),
        "parameters": damage.estimates(),
        "size": {"before": list(before.size), "after": list(after.size)},
    }


def _degraded(before: Picture, damage: Operator, seed: int) -> tuple[Picture, list[float]]:
    """Damage a picture, in one channel if it is grey and the damage leaves it so.

    Returns:
        The damaged picture, and the share of values outside [0, 1] after each operator.
    """
    from dataclasses import replace

    from pristina.errors import OperatorError

    try:
        y, out_of_range = _applied(before.pixels[: 1 if before.grey else 3], damage, seed)
    except OperatorError:
        # Damage of colours makes a colour picture of a grey one.
        y, out_of_range = _applied(before.pixels, damage, seed)
    after: Any = before.with_pixels(y.expand(3, -1, -1))
    return replace(after, grey=y.shape[0] == 1, beyond=None), out_of_range


def _applied(pixels: Tensor, damage: Operator, seed: int) -> tuple[Tensor, list[float]]:
    from pristina.seeds import generators
    from pristina.types import Draw

    y, out_of_range, draw = pixels[None], [], Draw(generators(seed, 1), 1)
    for part in damage.parts:
        y = part.degrade(y, draw).detach()
        share = ((y < 0) | (y > 1)).float().mean().item()
        out_of_range.append(float(f"{share:.4g}"))
    return y[0], out_of_range
