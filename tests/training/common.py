"""Small pictures and schedules for the tests of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pristina.training.schedule import Schedule


def smooth(seed: int, side: int) -> Image.Image:
    """Make a smooth coloured picture."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def save(picture: Image.Image, path: Path) -> Path:
    """Write a picture, making its folder if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def short(**changes: object) -> Schedule:
    """Make a schedule of a few steps."""
    settings = {
        "images": 32,
        "batch": 4,
        "warmup": 5,
        "compile": False,
        "workers": 0,
        "save_minutes": 60,
        "ema": 0.9,
    }
    return Schedule(**{**settings, **changes})
