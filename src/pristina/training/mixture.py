"""Damage as photographs meet it, drawn at random for training pairs.

A :class:`DegradationMixture` says how often each kind of damage happens and how strong it is;
:func:`degrade` draws what happens to one picture from one generator. The operators of
:mod:`pristina.operators` serve methods and measurements, which need gradients and exact
parameters; here only speed and variety count.

Glossary: x clean picture, y degraded picture, both (3, H, W) in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import SettingError
from pristina.training.damage import (
    demosaic,
    down_up,
    dust,
    eight_bits,
    halftone,
    jpeg,
    log_uniform,
    normal,
    resized,
    smoothed,
    uniform,
)
from pristina.training.kernels import BLURS, Blur, convolve, draw_kernel

Part = Callable[["DegradationMixture", Tensor, np.random.Generator], Tensor]
FILTERS = ("bicubic", "bicubic", "area", "bilinear")
PART_NAMES = ("noise", "camera", "jpeg", "blur", "resample", "print")
"""Names of the single damages."""


@dataclass(frozen=True)
class DegradationMixture:
    """Say what may happen to a picture, how often and how strongly.

    A picture stays as it is, or one of four forms of damage is drawn: a single damage, a camera's
    chain, an old print's chain, or two or three damages in random order.

    Attributes:
        nothing: Probability that nothing happens at all.
        single: Relative weight of one damage alone.
        photo: Relative weight of a camera's chain: lens, reduction, sensor, file, file again.
        scan: Relative weight of an old print's chain: lens, grain or halftone, dust, scanner, file.
        shuffled: Relative weight of two or three damages in random order.
        parts: Relative weights of the single damages, by the names in :data:`PART_NAMES`.
        light: Probability that a damage draws its strength from the light end.
        blurs: Kinds of blur, equally likely.
        spread_px: Least and largest standard deviation of a Gaussian blur in pixels, radius of a
            defocus, or fifth of the length of a shake.
        scale: Least and largest reduction before the picture is brought back to its size.
        sigma: Least and largest standard deviation of noise at mid grey, in [0, 1] units.
        quality: Least and largest JPEG quality.
        float_share: Probability that the result stays unrounded and unclipped.
        replace: Leave nothing of the picture but noise: generation as restoration.
        keep_sharpness: Leave sharpness to the picture, so that a regressor does not learn to
            sharpen: a camera adds its noise alone, files are not reduced in between, and two in
            five clean pictures are softened before anything happens to them.
    """

    nothing: float = 0.125
    single: float = 0.5
    photo: float = 0.25
    scan: float = 0.12
    shuffled: float = 0.13
    parts: tuple[tuple[str, float], ...] = (
        ("noise", 3.0),
        ("camera", 1.5),
        ("jpeg", 2.5),
        ("blur", 2.0),
        ("resample", 2.0),
        ("print", 1.0),
    )
    light: float = 0.5
    blurs: tuple[Blur, ...] = ("gaussian", "gaussian", "anisotropic", "defocus", "motion")
    spread_px: tuple[float, float] = (0.4, 3.5)
    scale: tuple[float, float] = (1.1, 4.2)
    sigma: tuple[float, float] = (0.0, 55 / 255)
    quality: tuple[int, int] = (5, 98)
    float_share: float = 0.0
    replace: bool = False
    keep_sharpness: bool = False

    def __post_init__(self) -> None:
        chances = (self.nothing, self.light, self.float_share)
        if not all(0 <= p <= 1 for p in chances):
            raise SettingError(f"The probabilities of a mixture must lie in [0, 1], not {chances}.")
        weights = (self.single, self.photo, self.scan, self.shuffled)
        if min(weights) < 0 or (sum(weights) <= 0 and self.nothing < 1):
            raise SettingError(
                f"The weights of a mixture must be at least 0, one of them more: {weights}."
            )
        unknown = [name for name, _ in self.parts if name not in PART_NAMES]
        if unknown or not self.parts:
            raise SettingError(
                f"The parts of a mixture are {', '.join(PART_NAMES)}; {unknown} are not among them."
            )
        if any(blur not in BLURS for blur in self.blurs):
            raise SettingError(f"The blurs of a mixture are {', '.join(BLURS)}; not {self.blurs}.")


def degrade(mixture: DegradationMixture, x: Tensor, random: np.random.Generator) -> Tensor:
    """Damage one picture as the mixture says.

    Args:
        mixture: What may happen.
        x: The clean picture, (3, H, W) in [0, 1].
        random: The generator from which everything is drawn.

    Returns:
        The degraded picture, of the same size, clipped and rounded to 8 bits unless
        ``float_share`` says otherwise.
    """
    if mixture.replace:
        return 0.5 + 0.5 * normal(x.shape, random)
    if random.random() < mixture.nothing:
        return x
    forms = (_single, _photo, _scan, _shuffled)
    shares = (mixture.single, mixture.photo, mixture.scan, mixture.shuffled)
    y = forms[_choose(shares, random)](mixture, x, random)
    if random.random() < mixture.float_share:
        return y
    return eight_bits(y)


def _choose(weights: tuple[float, ...], random: np.random.Generator) -> int:
    """Draw an index with probability proportional to its weight."""
    u = random.random() * sum(weights)
    for i, weight in enumerate(weights):
        u -= weight
        if u < 0:
            return i
    return len(weights) - 1


def _single(m: DegradationMixture, x: Tensor, random: np.random.Generator) -> Tensor:
    """Apply one damage."""
    name = m.parts[_choose(tuple(weight for _, weight in m.parts), random)][0]
    return PARTS[name](m, x, random)


def _shuffled(m: DegradationMixture, x: Tensor, random: np.random.Generator) -> Tensor:
    """Apply two or three different parts in random order, each step through 8 bits or not."""
    weights = np.array([weight for _, weight in m.parts])
    n = min(2 + int(random.integers(2)), int((weights > 0).sum()))
    chosen = random.choice(len(weights), n, replace=False, p=weights / weights.sum())
    for i in chosen:
        x = PARTS[m.parts[i][0]](m, x, random)
        if random.random() < 0.5:
            x = eight_bits(x)
    return x


def _photo(m: DegradationMixture, x: Tensor, random: np.random.Generator) -> Tensor:
    """Apply the damage of a camera, and of saving its pictures again."""
    if random.random() < 0.45:
        x = _blur(m, x, random)
    if random.random() < 0.25:
        x = _resample(m, x, random)
    if random.random() < 0.85:
        x = _camera(m, x, random)
    if random.random() < 0.75:
        x = _jpeg(m, x, random)
    return x


def _scan(m: DegradationMixture, x: Tensor, random: np.random.Generator) -> Tensor:
    """Apply the damage of an old print and of its scan."""
    if random.random() < 0.6:
        x = _blur(m, x, random)
    if random.random() < 0.85:
        x = _print(m, x, random)
    if random.random() < 0.35:
        x = dust(x, random)
    if random.random() < 0.3:
        x = convolve(x, draw_kernel("gaussian", uniform(0.4, 1.2, random), random))
    if random.random() < 0.4:
        x = x + log_uniform(0.5, 8, random) / 255 * normal(x.shape, random)
    if random.random() < 0.5:
        x = _jpeg(m, x, random)
    return x


def _blur(m: DegradationMixture, x: Tensor, random: np.random.Generator) -> Tensor:
    """Blur as a soft lens, a defocus or a shake does."""
    low, high = m.spread_px
    if random.random() < m.light:
        high = min(high, max(low, 1.5))
    kind = m.blurs[int(random.integers(len(m.blurs)))]
    return convolve(x, draw_kernel(kind, log_uniform(low, high, random), random))


def _resample(m: DegradationMixture, x: Tensor, random: np.random.Generator) -> Tensor:
    """Reduce by any factor, odd ones included, and bring the picture back to its size."""
    low, high = m.scale
    if random.random() < 0.35:  # The factors that programs use.
        scale = float(np.clip(random.choice((2.0, 3.0, 4.0)), low, high))
    elif random.random() < m.light:
        scale = uniform(low, max(low, min(2.0, high)), random)
    else:
        scale = uniform(low, high, random)
    return down_up(x, scale, FILTERS[int(random.integers(4))], random.random() < 0.8)


def _sigma(m: DegradationMixture, random: np.random.Generator) -> float:
    """Draw a standard deviation: light ones by their logarithm, others uniformly."""
    low, high = m.sigma
    if random.random() < 0.6 * m.light:
        return log_uniform(max(low, 0.5 / 255), max(low, min(high, 15 / 255)), random)
    return uniform(low, high, random)


def _noise(m: DegradationMixture, x: Tensor, random: np.random.Generator) -> Tensor:
    """Add Gaussian noise: mostly white, else grey, unequal in its channels, or smooth."""
    sigma, kind = _sigma(m, random), random.random()
    if kind < 0.7:
        return x + sigma * normal(x.shape, random)
    if kind < 0.78:
        return x + sigma * normal(x.shape[-2:], random)
    if kind < 0.88:
        peak = 0.5 / max(sigma, 1e-3) ** 2  # Poisson of the same deviation at mid grey.
        counts = random.poisson(peak * x.clamp(0, 1).numpy())
        return torch.from_numpy(counts.astype(np.float32)) / peak
    gains = torch.from_numpy(random.uniform(0.4, 1.6, (3, 1, 1)).astype(np.float32))
    field = normal(x.shape, random)
    if kind > 0.94:
        field = smoothed(field, uniform(0.4, 1.0, random), random)
    return x + sigma * gains * field


def _camera(m: DegradationMixture, x: Tensor, random: np.random.Generator) -> Tensor:
    """Pass a picture through a small camera: sensor, demosaicing, tone curve, sharpening.

    Shot and read noise are added to the linear values of the mosaic. At mid grey, after the tone
    curve and before demosaicing smooths it, their deviation is 0.6 of what ``sigma`` gives: in the
    shadows the tone curve makes it several times larger.

    Where the mixture keeps sharpness, what the camera makes of the noise is added to the picture,
    sometimes coarser, as a camera's own noise reduction leaves it.
    """
    gamma = uniform(1.8, 2.4, random)
    balance = torch.tensor([uniform(1.2, 2.2, random), 1.0, uniform(1.2, 2.2, random)])
    linear = x.clamp(0, 1) ** gamma / balance.view(3, 1, 1)
    sigma = 0.6 * _sigma(m, random)
    slope = gamma * 0.5 ** (gamma - 1)  # of the inverse tone curve at mid grey
    share = random.random()
    variance = (slope * sigma) ** 2 * (share * linear / 0.5**gamma + (1 - share))
    raw = linear + variance.sqrt() * normal(x.shape, random)
    settings = random.integers(2**32)
    y = _developed(raw, gamma, balance, np.random.default_rng(settings))
    if not m.keep_sharpness:
        return y
    noise = y - _developed(linear, gamma, balance, np.random.default_rng(settings))
    if random.random() < 0.4:
        noise = convolve(noise, draw_kernel("gaussian", log_uniform(0.4, 1.5, random), random))
    return x + noise


def _developed(raw: Tensor, gamma: float, balance: Tensor, random: np.random.Generator) -> Tensor:
    """Make a picture of the linear values of a sensor, with a camera's settings drawn."""
    if random.random() < 0.8:
        raw = demosaic(raw, random)
    else:  # The camera reduced the picture, so that the mosaic is no longer visible.
        raw = convolve(raw, draw_kernel("gaussian", uniform(0.3, 0.7, random), random))
    y = (raw * balance.view(3, 1, 1)).clamp(0, 1) ** (1 / gamma)
    if random.random() < 0.3:  # The camera smooths colours.
        grey = y.mean(0, keepdim=True)
        colour = convolve(y - grey, draw_kernel("gaussian", uniform(0.6, 2.5, random), random))
        y = grey + colour
    if random.random() < 0.4:
        soft = convolve(y, draw_kernel("gaussian", uniform(0.6, 1.4, random), random))
        y = y + uniform(0.1, 0.8, random) * (y - soft)
    return y


def _print(m: DegradationMixture, x: Tensor, random: np.random.Generator) -> Tensor:
    """Add film grain, coloured speckle or a printer's halftone."""
    kind = random.random()
    if kind < 0.55:
        return _grain(m, x, random)
    return _speckle(m, x, random) if kind < 0.75 else halftone(x, random)


def _grain(m: DegradationMixture, x: Tensor, random: np.random.Generator) -> Tensor:
    """Add film grain: smooth, strongest at mid tones, mostly shared by the colours."""
    sigma = _sigma(m, random)
    field = normal(x.shape[-2:], random)[None]
    if random.random() < 0.6:
        tint = uniform(0, 1, random)
        field = math.sqrt(1 - tint**2 / 2) * field + tint / math.sqrt(2) * normal(x.shape, random)
    field = smoothed(field.expand_as(x), uniform(0.35, 1.5, random), random)
    tone = x.clamp(0, 1).mean(0, keepdim=True)
    weight = (4 * tone * (1 - tone)).clamp(min=0.02) ** uniform(0.0, 0.8, random)
    return x + sigma * weight * field


def _speckle(m: DegradationMixture, x: Tensor, random: np.random.Generator) -> Tensor:
    """Add the coloured grains of an early colour plate: cells that let through one colour."""
    height, width = x.shape[-2:]
    cell = uniform(1.0, 2.5, random)
    size = (max(2, round(height / cell)), max(2, round(width / cell)))
    field = F.interpolate(normal((1, 3, *size), random), size=(height, width), mode="bilinear")[0]
    field = field / field.std()
    return x * (1 + 1.2 * _sigma(m, random) * field) + 0.5 * _sigma(m, random) * field


def _jpeg(m: DegradationMixture, x: Tensor, random: np.random.Generator) -> Tensor:
    """Save as JPEG, often twice: with a moved grid, or resized between, then at high quality."""
    again = random.random()
    if again < 0.12:  # The grid moved by a cut.
        down, right = (int(k) for k in random.integers(0, 8, 2))
        x = jpeg(x.roll((down, right), (1, 2)), _quality(m, random), _subsampling(random))
        x = x.roll((-down, -right), (1, 2))
    elif again < 0.24:  # Resized between.
        height, width = x.shape[-2:]
        scale = uniform(1.0 if m.keep_sharpness else 0.6, 1.7, random)
        x = resized(x, (round(scale * height), round(scale * width)))
        x = jpeg(x, _quality(m, random), _subsampling(random))
        x = resized(x, (height, width), FILTERS[int(random.integers(4))])
    quality = _quality(m, random)
    if again < 0.24 and random.random() < 0.6:
        quality = min(m.quality[1], max(quality, int(random.integers(80, 99))))
    return jpeg(x, quality, _subsampling(random))


def _quality(m: DegradationMixture, random: np.random.Generator) -> int:
    """Draw a JPEG quality: light ones uniformly, others by their logarithm."""
    low, high = m.quality
    if random.random() < m.light:
        return round(uniform(max(low, min(30, high)), high, random))
    return round(log_uniform(low, min(high, max(low, 60)), random))


def _subsampling(random: np.random.Generator) -> int:
    """Draw the subsampling of colours, as Pillow numbers it."""
    return int(random.choice((0, 1, 2), p=(0.35, 0.1, 0.55)))


PARTS: dict[str, Part] = {
    "noise": _noise,
    "camera": _camera,
    "jpeg": _jpeg,
    "blur": _blur,
    "resample": _resample,
    "print": _print,
}
"""Functions of the single damages that a mixture may name."""


def _only(part: str, **changes: Any) -> DegradationMixture:
    """Return the mixture of a specialist: one damage alone."""
    settings: dict[str, Any] = {"nothing": 0.02, "single": 1, "photo": 0, "scan": 0, "shuffled": 0}
    return DegradationMixture(parts=((part, 1.0),), **settings | changes)


MIXTURES: dict[str, DegradationMixture] = {
    "photographs": DegradationMixture(),
    "noise": _only("noise"),
    "grain": DegradationMixture(
        nothing=0.03,
        single=1.0,
        photo=0.0,
        scan=0.0,
        shuffled=0.5,
        parts=(("camera", 3.0), ("noise", 3.0), ("print", 1.0), ("jpeg", 1.5)),
        keep_sharpness=True,
    ),
    "jpeg": _only("jpeg"),
    "jpeg10": _only("jpeg", nothing=0.0, quality=(10, 10)),
    "blur": _only("blur"),
    "motion": _only("blur", blurs=("motion",)),
    "x4": _only("resample", nothing=0.0, scale=(4.0, 4.0)),
    "pure-noise": DegradationMixture(replace=True),
}
"""The mixtures that a training may name: the blind one, specialists, all noise that sharp pictures
have (that of cameras, grain and compression), the tasks of InDI's paper, and generation from
noise."""


def mixture(name: str) -> DegradationMixture:
    """Return the mixture called ``name``.

    Raises:
        SettingError: There is none.
    """
    if name not in MIXTURES:
        raise SettingError(f"There is no mixture {name!r}; there are {', '.join(MIXTURES)}.")
    return MIXTURES[name]
