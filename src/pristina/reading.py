"""What a small network reads in a picture: damage, and what a repair would gain.

Source:
    The network is our own, see :mod:`pristina.training.reader`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from math import exp2

import torch

from pristina.errors import SizeError
from pristina.image.picture import Picture
from pristina.image.statistics import estimate_noise, noise_coarseness
from pristina.priors.reader import CANDIDATES, CROP_PX, KINDS, LEVELS, DamageReader

SMALLEST_PX = 32
"""Smallest side of a picture in which there is something to read."""
INTERVAL = 1.6
"""Multiple of the spread within which four of five values lie, for Laplace's distribution."""
SURE = 0.5
"""Probability from which a kind of damage counts as seen."""
ISO = ((3, "ISO 400"), (5, "ISO 800"), (8, "ISO 1600"), (13, "ISO 3200"), (22, "ISO 6400"))
"""Largest noise, in 1/255, as at a sensitivity of a compact camera, and its name. A rough rule."""
SOFT = ("blur", "defocus", "shake")
"""Kinds of blur."""
NAMES = {
    "noise": "noise",
    "grain": "grain or a printer's dots",
    "jpeg": "JPEG compression",
    "blur": "blur",
    "defocus": "defocus",
    "shake": "camera shake",
    "enlarged": "enlargement",
}
"""What a user calls the kinds of damage."""


@dataclass(frozen=True)
class Range:
    """An estimate and the interval that holds four of five values.

    Attributes:
        value: The estimate.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def mapped(self, function: Callable[[float], float]) -> Range:
        """Return the range of a rising function of the value."""
        return Range(function(self.value), function(self.low), function(self.high))


@dataclass(frozen=True)
class Reading:
    """What was read in a picture.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        file_quality: Quality of the JPEG file that held the picture; None for other files.
        kinds: Probability of each kind of damage.
        noise: Deviation of noise or grain, in 1/255.
        quality: Lowest JPEG quality at which the picture was saved.
        blur_px: Standard deviation of the blur, in pixels.
        scale: How many times the picture was enlarged.
        gains: Gain in PSNR of each candidate, in dB, by the name of its weights.
        finest: Noise of the finest scale as computed from the pixels, in 1/255.
        coarseness: How much more of the noise spans two pixels than one: 1 for white noise.
    """

    height: int
    width: int
    file_quality: int | None
    kinds: Mapping[str, float]
    noise: Range
    quality: Range
    blur_px: Range
    scale: Range
    gains: Mapping[str, Range]
    finest: float = math.inf
    coarseness: float = math.inf

    @property
    def seen(self) -> dict[str, float]:
        """Probability of the kinds of damage that are more likely there than not.

        Of the kinds of blur only the likeliest is named, with the probability of any.
        """
        likely = {kind: p for kind, p in self.kinds.items() if kind not in SOFT}
        likely[max(SOFT, key=lambda kind: self.kinds.get(kind, 0.0))] = self.blurred
        return {kind: p for kind, p in likely.items() if p >= SURE}

    @property
    def blurred(self) -> float:
        """Probability that there is any kind of blur."""
        return 1 - math.prod(1 - self.kinds.get(kind, 0.0) for kind in SOFT)

    def best(self) -> tuple[str, Range]:
        """Return the candidate with the largest gain, and that gain."""
        return max(self.gains.items(), key=lambda item: item[1].value)

    def sentences(self) -> list[str]:
        """Say what was seen, each kind of damage in a sentence."""
        said = [(self._words(kind), p) for kind, p in self.seen.items()]
        return [f"{text[0].upper()}{text[1:]} ({100 * p:.0f} % sure)." for text, p in said]

    def _words(self, kind: str) -> str:
        noise, width = self.noise, self.blur_px
        match kind:
            case "noise":
                iso = next((name for most, name in ISO if noise.value <= most), "ISO 12800 or more")
                return f"noise of {_span(noise, 0)}/255, as at {iso}"
            case "grain":
                return f"grain or a printer's dots, {_span(noise, 0)}/255"
            case "jpeg":
                again = f", then again at {self.file_quality}" if self._again() else ""
                return f"saved as JPEG at about quality {_span(self.quality, 0)}{again}"
            case "enlarged":
                return f"enlarged {_span(self.scale, 1)} times"
        why = {"defocus": "out of focus", "shake": "camera shake"}.get(kind, "soft as from a lens")
        return f"not sharp: {why}, a blur of {_span(width, 1)} px"

    def _again(self) -> bool:
        return self.file_quality is not None and self.file_quality > self.quality.high


def _span(found: Range, digits: int) -> str:
    """Write an estimate with its interval."""
    low, value, high = (f"{x:.{digits}f}" for x in (found.low, found.value, found.high))
    return value if low == high else f"{value} ({low} to {high})"


def check_readable(height: int, width: int) -> None:
    """Raise :class:`SizeError` unless both sides, in pixels, have :data:`SMALLEST_PX`."""
    if min(height, width) < SMALLEST_PX:
        raise SizeError(f"{width} x {height} px is too small to judge its damage; name a method.")


def crops_of(picture: Picture) -> torch.Tensor:
    """Cut crops of even sides, two by four of them spread over a picture, (1, K, 3, h, w)."""
    pixels = picture.visible
    height, width = picture.size
    h, w = min(CROP_PX, height // 2 * 2), min(CROP_PX, width // 2 * 2)
    rows, columns = (2, 4) if width >= height else (4, 2)
    places = product(_places(height - h, rows), _places(width - w, columns))
    return torch.stack([pixels[:, top : top + h, left : left + w] for top, left in places])[None]


def _places(room: int, count: int) -> list[int]:
    """Return where crops begin along a side, evenly spread, each once, on the grid of a JPEG."""
    return sorted({8 * round((i + 0.5) / count * room / 8 - 0.49) for i in range(count)})


def read_damage(picture: Picture, reader: DamageReader) -> Reading:
    """Read the damage of a picture.

    Args:
        picture: Picture of at least :data:`SMALLEST_PX` a side.
        reader: The weights ``reader``.

    Raises:
        SizeError: A side is under :data:`SMALLEST_PX`.
    """
    height, width = picture.size
    check_readable(height, width)
    told = (picture.jpeg_quality or 0) / 100
    device = reader.device
    with torch.inference_mode():
        crops = crops_of(picture).to(device)
        logits, values, spreads = reader.predict(crops, torch.tensor([told], device=device))
    kinds = dict(zip(KINDS, logits[0].sigmoid().tolist(), strict=True))
    ranges = {
        name: Range(value, value - INTERVAL * spread, value + INTERVAL * spread)
        for name, value, spread in zip(
            (*LEVELS, *CANDIDATES), values[0].tolist(), spreads[0].tolist(), strict=True
        )
    }
    return Reading(
        height=height,
        width=width,
        file_quality=picture.jpeg_quality,
        kinds=kinds,
        noise=ranges["noise"].mapped(exp2),
        quality=ranges["quality"].mapped(lambda x: min(100.0, max(1.0, 10 * x))),
        blur_px=ranges["width"].mapped(exp2),
        scale=ranges["scale"].mapped(exp2),
        gains={name: ranges[name] for name in CANDIDATES},
        finest=255 * float(estimate_noise(picture.visible[None])),
        coarseness=float(noise_coarseness(picture.visible[None])),
    )
