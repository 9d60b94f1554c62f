"""What can be said of a picture without knowing the truth. None of these is a measure of quality: noise is sharp."""

from __future__ import annotations

from pristina.image.look import blockiness
from pristina.image.noise_level import estimate_sigma
from pristina.methods.diip import sharpness
from pristina.types import PerPicture, Pictures

__all__ = ["blockiness", "noise", "sharpness"]


def noise(x: Pictures) -> PerPicture:
    """The standard deviation of white noise, in [0, 1] units, (B,); see :func:`pristina.image.noise_level.estimate_sigma`."""
    return estimate_sigma(x)
