"""Command ``pristina measure``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pristina.cli.console import make_console

if TYPE_CHECKING:
    from pristina.image.picture import Picture

MIN_COLUMNS = 60
"""Width of the table in narrower terminals, which wrap its lines."""


def measure(restored: Path, truth: Path | None = None, *, perceptual: bool = False) -> None:
    """Measure a picture, alone or against the truth.

    Parameters
    ----------
    restored
        Picture to measure.
    truth
        Picture that it should be; without it, only what can be said of a picture alone.
    perceptual
        Whether to include LPIPS, which needs pristina[perceptual] and its weights.
    """
    from rich.table import Table
    from rich.text import Text

    from pristina.image.picture import Picture
    from pristina.metrics import METRICS
    from pristina.metrics import measure as all_metrics

    pictures = [Picture.open(path) for path in (restored, truth) if path is not None]
    pixels = [picture.pixels[None] for picture in pictures]
    figures = all_metrics(*pixels, perceptual=perceptual)
    names = [_shown(path.name) for path in (restored, truth) if path is not None]
    table = Table(title=Text(" against ".join(names)))
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("")
    for name, value in figures.items():
        metric = METRICS[name]
        about = ", ".join(filter(None, (metric.unit, metric.note)))
        table.add_row(name, f"{value.item():.5g}", about)
    console = make_console(output=True)
    console.width = max(MIN_COLUMNS, console.width)
    console.print(table)
    for note in _notes(names, pictures):
        print(f"note: {note}")


def _notes(names: list[str], pictures: list[Picture]) -> list[str]:
    """Collect what the reader of the figures should know about how the pictures were read."""
    notes = [
        f"{name}: {note}"
        for name, picture in zip(names, pictures, strict=True)
        for note in picture.notes
    ]
    deep = [name for name, picture in zip(names, pictures, strict=True) if picture.depth > 8]
    if deep:
        notes.append(f"{' and '.join(deep)}: read with 16 bits a channel.")
    if len({picture.alpha is None for picture in pictures}) > 1:
        notes.append("One picture has opacity and the other has none; only colours are compared.")
    elif any(picture.alpha is not None for picture in pictures):
        notes.append("Only colours are measured, not the opacity.")
    return notes


def _shown(name: str) -> str:
    """Return a file's name with control characters escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
