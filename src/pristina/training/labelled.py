"""Damage drawn together with what there is to read in it, for the damage reader.

The parts are those of :mod:`pristina.training.mixture`; here each tells what it did. The noise in a
picture is what the same part, drawn from the same generator, does beyond its noiseless form.

Glossary: x clean picture, y degraded picture, both (3, H, W) in [0, 1].
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pristina.operators.kernels import spread
from pristina.priors.reader import KINDS, LEVELS
from pristina.training.damage import down_up, eight_bits, jpeg, log_uniform, resized, uniform
from pristina.training.kernels import BLURS, convolve, draw_kernel
from pristina.training.mixture import FILTERS, PARTS, DegradationMixture

Group = Literal["blur", "enlargement", "noise", "file"]
GROUPS: dict[Group, float] = {"blur": 0.4, "enlargement": 0.22, "noise": 0.5, "file": 0.5}
"""The groups of damages in the order in which they happen, each with its probability where several
may happen."""
CLEAN, LIGHT, SINGLE = 0.12, 0.25, 0.33
"""Probability that nothing happens, that the picture only has light noise and perhaps a JPEG file's
light compression, as most photographs have, and that one group of damages alone happens."""
LIGHT_SIGMA, LIGHT_QUALITY, LIGHT_FILE = (0.5 / 255, 10 / 255), (60.0, 97.0), 0.6
"""Range of light noise, range of the quality of light compression, and its probability."""
GREY = 0.1
"""Probability that the picture is grey."""
TOLD = 0.7
"""Probability that a picture that was saved as JPEG at last comes as a JPEG file."""
LEAST = {"noise": 1.0, "width": 0.5, "scale": 1.3}
"""Least noise (in 1/255), width of a blur in pixels, and scale that count as damage."""
BEST_QUALITY = 90
"""Highest JPEG quality that counts as damage."""
OFF_GRID = 0.55
"""Bound of the draw under which a saved picture was cut, so that its grid begins anywhere."""
MIXTURE = DegradationMixture()
LIGHT_MIXTURE = replace(MIXTURE, sigma=LIGHT_SIGMA)
SILENT = replace(MIXTURE, sigma=(0.0, 0.0))


@dataclass
class Labels:
    """Hold what happened to a picture.

    Attributes:
        kinds: The kinds of damage, of :data:`pristina.priors.reader.KINDS`.
        levels: Values by the names in :data:`pristina.priors.reader.LEVELS`, where they mean
            something.
        file_quality: Quality of the JPEG file that the picture came in; 0 for other files.
    """

    kinds: set[str] = field(default_factory=set)
    levels: dict[str, float] = field(default_factory=dict)
    file_quality: int = 0

    def tensor(self) -> Tensor:
        """Return kinds (0 or 1), levels (NaN where they mean nothing) and the file's quality."""
        kinds = [float(kind in self.kinds) for kind in KINDS]
        levels = [self.levels.get(name, math.nan) for name in LEVELS]
        return torch.tensor([*kinds, *levels, self.file_quality / 100])


def draw_labelled(x: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor, Labels]:
    """Damage one picture and say how.

    Args:
        x: A clean picture, (3, H, W) in [0, 1].
        random: The generator from which everything is drawn.

    Returns:
        The clean picture (grey, perhaps), the degraded one rounded to 8 bits, and the labels.
    """
    if random.random() < GREY:
        x = eight_bits(x.mean(0, keepdim=True).expand(3, -1, -1))
    labels, kind = Labels(), random.random()
    names = list(GROUPS)
    light = CLEAN <= kind < CLEAN + LIGHT
    if kind < CLEAN:
        groups: set[Group] = set()
    elif light:
        groups = {"noise", "file"} if random.random() < LIGHT_FILE else {"noise"}
    elif kind < CLEAN + LIGHT + SINGLE:
        share = np.array(list(GROUPS.values()))
        groups = {names[int(random.choice(len(names), p=share / share.sum()))]}
    else:
        groups = {name for name in names if random.random() < GROUPS[name]}
    y = x
    if "blur" in groups:
        y = _blur(y, labels, random)
    if "enlargement" in groups:
        y = _enlarge(y, labels, random)
    if "noise" in groups:
        y = _noise(y, labels, random, LIGHT_MIXTURE if light else MIXTURE)
    if "file" in groups:
        y = _file(y, labels, random, light)
    elif random.random() < 0.3:  # Most photographs are JPEG files of high quality.
        labels.file_quality = int(random.integers(BEST_QUALITY + 1, 99))
        y = jpeg(y, labels.file_quality, int(random.integers(3)))
    return x, eight_bits(y), labels


def _blur(x: Tensor, labels: Labels, random: np.random.Generator) -> Tensor:
    """Blur as a soft lens, a defocus or a shake does."""
    blur = BLURS[int(random.choice(4, p=(0.45, 0.1, 0.2, 0.25)))]
    kernel = draw_kernel(
        blur, log_uniform(0.4, 2.0 if random.random() < 0.6 else 4.0, random), random
    )
    width = float(spread(kernel[None, None]))
    if width >= LEAST["width"]:
        labels.kinds.add({"defocus": "defocus", "motion": "shake"}.get(blur, "blur"))
        labels.levels["width"] = math.log2(width)
    return convolve(x, kernel)


def _enlarge(x: Tensor, labels: Labels, random: np.random.Generator) -> Tensor:
    """Reduce by any factor and bring the picture back to its size."""
    usual = random.random() < 0.5
    scale = float(random.choice((2.0, 3.0, 4.0))) if usual else uniform(1.1, 4.2, random)
    if scale >= LEAST["scale"]:
        labels.kinds.add("enlarged")
        labels.levels["scale"] = math.log2(scale)
    return down_up(x, scale, FILTERS[int(random.integers(4))], random.random() < 0.85)


def _noise(
    x: Tensor, labels: Labels, random: np.random.Generator, mixture: DegradationMixture
) -> Tensor:
    """Add noise, a camera's noise, or grain, and measure how much."""
    name = ("noise", "camera", "print")[int(random.choice(3, p=(0.55, 0.2, 0.25)))]
    same = deepcopy(random)
    y, silent = PARTS[name](mixture, x, random), PARTS[name](SILENT, x, same)
    sigma = 255 * float((eight_bits(y) - eight_bits(silent)).square().mean().sqrt())
    if name == "print":
        sigma = 255 * float((eight_bits(y) - x).square().mean().sqrt())
    if sigma >= LEAST["noise"]:
        labels.kinds.add("grain" if name == "print" else "noise")
        labels.levels["noise"] = math.log2(sigma)
    return y


def _file(x: Tensor, labels: Labels, random: np.random.Generator, light: bool = False) -> Tensor:
    """Save as JPEG once or twice, with a cut or a resize between; cut some results off the grid."""
    again, subsampling = random.random(), int(random.choice((0, 1, 2), p=(0.35, 0.1, 0.55)))
    qualities = [round(uniform(*LIGHT_QUALITY, random)) if light else _quality(random)]
    height, width = x.shape[-2:]
    down, right = (int(k) for k in random.integers(0, 8, 2))
    if again < 0.12 or 0.3 <= again < OFF_GRID:  # The picture is cut after it was saved.
        x = x.roll((down, right), (1, 2))
        x = jpeg(x, qualities[0], subsampling).roll((-down, -right), (1, 2))
    else:
        x = jpeg(x, qualities[0], subsampling)
    if 0.12 <= again < 0.2:
        scale = uniform(0.6, 1.7, random)
        x = resized(x, (round(scale * height), round(scale * width)))
        x = resized(x, (height, width), FILTERS[int(random.integers(4))])
    if again < 0.3:
        mild = light or random.random() < 0.6
        second = int(random.integers(80, 99)) if mild else _quality(random)
        x = jpeg(x, second, subsampling)
        qualities.append(second)
        if random.random() < TOLD:
            labels.file_quality = second
    elif again >= OFF_GRID and random.random() < TOLD:
        labels.file_quality = qualities[0]
    if min(qualities) <= BEST_QUALITY:
        labels.kinds.add("jpeg")
        labels.levels["quality"] = min(qualities) / 10
    return x


def _quality(random: np.random.Generator) -> int:
    """Draw a JPEG quality: half of them light."""
    return round(uniform(40, 97, random) if random.random() < 0.5 else log_uniform(5, 60, random))
