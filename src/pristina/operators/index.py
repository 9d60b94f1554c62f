"""The table of operators, and recipes: degradations written in one line."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pristina.errors import OperatorError, SettingError
from pristina.operators.base import Compose, Operator
from pristina.operators.blur import AnisotropicBlur, Defocus, FreeKernel, GaussianBlur, MotionBlur, VaryingBlur
from pristina.operators.convolve import Boundary
from pristina.operators.jpeg import JPEG
from pristina.operators.learned import LearnedOperator
from pristina.operators.mask import Mask
from pristina.operators.noise import GaussianNoise, Noise, PoissonNoise, SpeckleNoise
from pristina.operators.radon import Radon
from pristina.operators.resample import Downsample
from pristina.operators.tone import Exposure, Gamma, Grey, Haze
from pristina.operators.warp import Elastic, Turbulence
from pristina.operators.weather import Rain, WaterDrops

MOST = 10_000
"""No whole number in a recipe is larger, but for a ``seed``: sizes beyond that of a large picture only exhaust the memory."""


@dataclass(frozen=True)
class Entry:
    """A word of the recipe language.

    Attributes:
        title: One line about it.
        build: Makes the operator; its arguments are those of the recipe.
        example: The arguments that must be given, as an example.
        unknown: Makes the same form with what is drawn at random replaced by a plain start, from those arguments that matter to it; None
            when ``build`` does that already.
        places: What ``build`` draws that nothing can estimate; a recipe with such a word cannot be the form of something unknown.
    """

    title: str
    build: Callable[..., Operator]
    example: str = ""
    unknown: Callable[..., Operator] | None = None
    places: str = ""


def _area(factor: int) -> Operator:
    return Downsample(factor, "area")


def _bicubic(factor: int) -> Operator:
    return Downsample(factor, "bicubic")


def _antialias(factor: int, size: int | None = None, boundary: Boundary = "reflect") -> Operator:
    return Downsample(factor, "kernel", size, boundary)


def _mask(box: int | None = None, drop: float | None = None, file: str | None = None, seed: int = 0) -> Operator:
    if sum(given is not None for given in (box, drop, file)) != 1:
        raise SettingError("A mask needs exactly one of: box (px), drop (share of the pixels), file (bright is kept).")
    return Mask.from_file(file) if file is not None else Mask(box=box, drop=drop, seed=seed)


def _haze(transmission: float = 0.5, airlight: float = 0.8, grid: int = 1, learnable: bool = True) -> Operator:
    return Haze(transmission, airlight, grid, learnable)


def _free(size: int = 41, boundary: Boundary = "reflect") -> Operator:
    return FreeKernel(size, "logits", boundary, sigma=size / 8)


def _kernel(
    size: int = 41,
    parametrisation: Literal["logits", "network"] = "logits",
    boundary: Boundary = "reflect",
    sigma: float | None = None,
    seed: int = 0,
) -> Operator:
    if parametrisation == "logits" and sigma is None:
        return _free(size, boundary)
    return FreeKernel(size, parametrisation, boundary, sigma, seed)


def _free_varying(size: int = 21, rows: int = 2, columns: int = 2, boundary: Boundary = "reflect") -> Operator:
    return VaryingBlur.free(size, rows, columns, boundary, sigma=size / 8)


def _flat_elastic(scale_px: float = 32.0, extent_px: int = 256, learnable: bool = True) -> Operator:
    return Elastic(0.0, scale_px, extent_px, learnable=learnable)


def _flat_turbulence(scale_px: float = 6.0, sigma: float = 2.0, size: int = 41, extent_px: int = 256, learnable: bool = True) -> Operator:
    return Turbulence(0.0, scale_px, sigma, size, extent_px, learnable=learnable)


OPERATORS = {
    "blur": Entry("isotropic Gaussian blur", GaussianBlur, "sigma=2"),
    "anisotropic": Entry("Gaussian blur with two widths and a direction", AnisotropicBlur, "sigma_x=3,sigma_y=1"),
    "defocus": Entry("disc blur", Defocus, "radius=3"),
    "motion": Entry("blur with a random motion kernel", MotionBlur, unknown=_free),
    "kernel": Entry("blur with an unknown kernel", _kernel),
    "varying": Entry("motion blur that varies over the picture", VaryingBlur.drawn, unknown=_free_varying),
    "area": Entry("reduction by block means", _area, "factor=4"),
    "bicubic": Entry("anti-aliased bicubic reduction", _bicubic, "factor=4"),
    "antialias": Entry("reduction through an unknown kernel", _antialias, "factor=4"),
    "noise": Entry("white Gaussian noise", GaussianNoise, "sigma=0.05"),
    "poisson": Entry("shot noise", PoissonNoise, "peak=50"),
    "speckle": Entry("mixture of multiplicative and additive noise", SpeckleNoise),
    "jpeg": Entry("JPEG compression", JPEG, "quality=20"),
    "mask": Entry("missing pixels", _mask),
    "grey": Entry("lost colour", Grey),
    "exposure": Entry("wrong exposure", Exposure, "gain=0.5"),
    "gamma": Entry("wrong gamma", Gamma, "gamma=2"),
    "haze": Entry("haze", _haze),
    "elastic": Entry("elastic deformation", Elastic, unknown=_flat_elastic),
    "turbulence": Entry("hot air: tilt and blur", Turbulence, unknown=_flat_turbulence),
    "rain": Entry("rain streaks", Rain, places="streaks"),
    "drops": Entry("water drops on the lens", WaterDrops, places="drops"),
    "radon": Entry("sparse-view tomography", Radon, "n_angles=30,size=64"),
    "learned": Entry("a small network, for damage of unknown form", LearnedOperator),
}


def parse_recipe(recipe: str, seed: int = 0, *, unknown: bool = False) -> Operator:
    """The operator that a recipe describes, such as ``"motion:size=41,intensity=0.5 | noise:sigma=0.05 | jpeg:quality=20"``.

    Args:
        recipe: Words of :data:`OPERATORS` in the order in which things happened, separated by ``|``; after a colon, arguments of that word.
        seed: Of what a word draws when it is built (a motion kernel, places of rain), unless the recipe gives that word a ``seed``. A word
            that comes again draws something else.
        unknown: Read the recipe as the *form* of damage to be estimated: numbers are first guesses as ever, and what would be drawn at
            random is replaced by a plain start (a free kernel, no displacement), for nobody knows it.

    Returns:
        An operator; a :class:`Compose` when there are several. What can be unknown is learnable, unless the recipe says ``learnable=no``
        (noise: unless it says ``learnable=yes``, and not in a form: methods find its strength in what they leave unexplained).

    Raises:
        OperatorError: The recipe cannot be read.
        SettingError: A number in it is out of range.

    Example:
        >>> parse_recipe("blur:sigma=2,size=21 | noise:sigma=0.1").describe()
        'Gaussian blur with sigma 2.00 px, then Gaussian noise with sigma 0.100 (25.5 of 255)'
    """
    operators: list[Operator] = []
    seen: Counter[str] = Counter()
    for part in recipe.split("|"):
        word, _, arguments = (piece.strip() for piece in part.partition(":"))
        # far from the seeds of neighbouring pictures, which usually follow one another
        operators.append(_parse_word(word, arguments, seed + 1_000_003 * seen[word], unknown))
        seen[word] += 1
    return operators[0] if len(operators) == 1 else Compose(operators)


def _parse_word(word: str, arguments: str, seed: int, unknown: bool) -> Operator:
    if not word:
        raise OperatorError(f"A recipe has a word between its bars, such as blur:sigma=2; the words are {', '.join(OPERATORS)}.")
    if word not in OPERATORS:
        raise OperatorError(f"There is no operator {word!r}; the words are {', '.join(OPERATORS)}.")
    entry = OPERATORS[word]
    if unknown and entry.places:
        raise OperatorError(f"The places of {entry.places} cannot be estimated; leave {word} out of the form of unknown damage.")
    known = inspect.signature(entry.build, eval_str=True).parameters
    given: dict[str, Any] = {}
    for piece in filter(None, (p.strip() for p in arguments.split(","))):
        name, equals, value = (p.strip() for p in piece.partition("="))
        if not equals or not value:
            raise OperatorError(f"{word}:{piece} is not of the form name=value.")
        if name not in known:
            raise OperatorError(f"{word} has no {name!r}; it takes {', '.join(known) or 'nothing'}.")
        if name in given:
            raise OperatorError(f"{word} gives {name} twice.")
        given[name] = _read(word, name, value, known[name].annotation)
    missing = [name for name, p in known.items() if p.default is p.empty and name not in given]
    if missing:
        raise OperatorError(f"{word} needs {' and '.join(missing)}, for example {word}:{entry.example}.")
    if "seed" in known:
        given.setdefault("seed", seed)
    operator = entry.build(**given)  # even if it is only to check the numbers that the unknown form does without
    if unknown and isinstance(operator, Noise) and given.get("learnable"):
        raise OperatorError(f"No method fits the strength of noise: it is what remains unexplained; leave learnable=yes out of {word}.")
    if not unknown or entry.unknown is None:
        return operator
    accepted = inspect.signature(entry.unknown).parameters
    return entry.unknown(**{name: value for name, value in given.items() if name in accepted})


def _read(word: str, name: str, value: str, annotation: Any) -> Any:
    """``value`` as the type that the argument is annotated with."""
    whole, number = "int" in str(annotation), "float" in str(annotation)
    if annotation is bool:
        if value.lower() in ("yes", "true", "1", "no", "false", "0"):
            return value.lower() in ("yes", "true", "1")
        raise OperatorError(f"{word} takes {name}=yes or {name}=no, not {value!r}.")
    if not whole and not number:
        return value
    try:
        read = int(value) if whole else float(value)
    except ValueError as error:
        raise OperatorError(f"{word} takes {'a whole number' if whole else 'a number'} for {name}, not {value!r}.") from error
    if not math.isfinite(read):
        raise OperatorError(f"{word} takes a finite number for {name}, not {value!r}.")
    if whole and name != "seed" and read > MOST:
        raise OperatorError(f"{word} takes at most {MOST} for {name}, not {value}.")
    return read
