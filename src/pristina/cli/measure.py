"""``pristina measure``."""

from __future__ import annotations

from pathlib import Path

ABOUT = {
    "psnr": "dB, more is better",
    "ssim": "up to 1, more is better",
    "haarpsi": "up to 1, more is better",
    "gmsd": "from 0, less is better",
    "psnr_after_shift": "dB, at the best shift of up to 8 px",
    "lpips": "AlexNet, less is better",
    "sharpness": "variance of the Laplacian; noise is sharp too",
    "noise": "standard deviation, [0, 1] units",
    "blockiness": "1 without 8 x 8 blocks, more with",
}


def measure(restored: Path, truth: Path | None = None, *, perceptual: bool = False) -> None:
    """Measure a picture, alone or against the truth.

    Parameters
    ----------
    restored
        The picture to measure.
    truth
        What it should be; without it, only what can be said of a picture alone.
    perceptual
        LPIPS too, which needs pristina[perceptual] and its weights.
    """
    from rich.console import Console
    from rich.table import Table

    from pristina.image.picture import Picture
    from pristina.metrics.measure import measure as all_metrics

    pixels = Picture.open(restored).pixels[None]
    against = None if truth is None else Picture.open(truth).pixels[None]
    table = Table(title=restored.name if truth is None else f"{restored.name} against {truth.name}")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("")
    for name, value in all_metrics(pixels, against, perceptual=perceptual).items():
        table.add_row(name, f"{value.item():.5g}", ABOUT[name])
    Console().print(table)
