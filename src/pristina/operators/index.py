"""The table of operators, and recipes: degradations written in one line."""

from __future__ import annotations

import inspect
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
from pristina.operators.noise import GaussianNoise, PoissonNoise, SpeckleNoise
from pristina.operators.radon import Radon
from pristina.operators.resample import Downsample
from pristina.operators.tone import Exposure, Gamma, Grey, Haze
from pristina.operators.warp import Elastic, Turbulence
from pristina.operators.weather import Rain, WaterDrops


@dataclass(frozen=True)
class Entry:
    """A word of the recipe language.

    Attributes:
        title: One line about it.
        build: Makes the operator; its arguments are those of the recipe.
        unknown: Makes the same form with what is drawn at random replaced by a plain start; None when ``build`` does that already.
        places: What ``build`` draws that nothing can estimate; a recipe with such a word cannot be the form of something unknown.
    """

    title: str
    build: Callable[..., Operator]
    unknown: Callable[..., Operator] | None = None
    places: str = ""


def _area(factor: int) -> Operator:
    return Downsample(factor, "area")


def _bicubic(factor: int) -> Operator:
    return Downsample(factor, "bicubic")


def _antialias(factor: int, size: int | None = None, boundary: Boundary = "reflect") -> Operator:
    return Downsample(factor, "kernel", size, boundary)


def _mask(box: int | None = None, drop: float | None = None, file: str | None = None, seed: int = 0) -> Operator:
    if file is not None:
        if box is not None or drop is not None:
            raise SettingError("A mask needs exactly one of: box (px), drop (share of the pixels), file.")
        return Mask.from_file(file)
    return Mask(box=box, drop=drop, seed=seed)


def _haze(transmission: float = 0.5, airlight: float = 0.8, grid: int = 1, learnable: bool = True) -> Operator:
    return Haze(transmission, airlight, grid, learnable)


def _free(size: int = 41, intensity: float = 0.5, boundary: Boundary = "reflect", seed: int = 0) -> Operator:
    return FreeKernel(size, "logits", boundary, sigma=size / 8)


def _kernel(
    size: int = 41,
    parametrisation: Literal["logits", "network"] = "logits",
    boundary: Boundary = "reflect",
    sigma: float | None = None,
    seed: int = 0,
) -> Operator:
    return FreeKernel(size, parametrisation, boundary, sigma, seed)


def _free_varying(
    size: int = 21, rows: int = 2, columns: int = 2, intensity: float = 0.5, boundary: Boundary = "reflect", seed: int = 0
) -> Operator:
    return VaryingBlur.free(size, rows, columns, boundary, sigma=size / 8)


def _flat_elastic(amplitude_px: float = 3.0, scale_px: float = 32.0, extent_px: int = 256, seed: int = 0) -> Operator:
    return Elastic(0.0, scale_px, extent_px)


def _flat_turbulence(
    tilt_px: float = 1.0, scale_px: float = 6.0, sigma: float = 2.0, size: int = 41, extent_px: int = 256, seed: int = 0
) -> Operator:
    return Turbulence(0.0, scale_px, sigma, size, extent_px)


OPERATORS = {
    "blur": Entry("isotropic Gaussian blur", GaussianBlur),
    "anisotropic": Entry("Gaussian blur with two widths and a direction", AnisotropicBlur),
    "defocus": Entry("disc blur", Defocus),
    "motion": Entry("blur with a random motion kernel", MotionBlur, unknown=_free),
    "kernel": Entry("blur with an unknown kernel", _kernel),
    "varying": Entry("motion blur that varies over the picture", VaryingBlur.drawn, unknown=_free_varying),
    "area": Entry("reduction by block means", _area),
    "bicubic": Entry("anti-aliased bicubic reduction", _bicubic),
    "antialias": Entry("reduction through an unknown kernel", _antialias),
    "noise": Entry("white Gaussian noise", GaussianNoise),
    "poisson": Entry("shot noise", PoissonNoise),
    "speckle": Entry("mixture of multiplicative and additive noise", SpeckleNoise),
    "jpeg": Entry("JPEG compression", JPEG),
    "mask": Entry("missing pixels", _mask),
    "grey": Entry("lost colour", Grey),
    "exposure": Entry("wrong exposure", Exposure),
    "gamma": Entry("wrong gamma", Gamma),
    "haze": Entry("haze", _haze),
    "elastic": Entry("elastic deformation", Elastic, unknown=_flat_elastic),
    "turbulence": Entry("hot air: tilt and blur", Turbulence, unknown=_flat_turbulence),
    "rain": Entry("rain streaks", Rain, places="streaks"),
    "drops": Entry("water drops on the lens", WaterDrops, places="drops"),
    "radon": Entry("sparse-view tomography", Radon),
    "learned": Entry("a small network, for damage of unknown form", LearnedOperator),
}


def parse_recipe(recipe: str, seed: int = 0, *, unknown: bool = False) -> Operator:
    """The operator that a recipe describes, such as ``"motion:size=41,intensity=0.5 | noise:sigma=0.05 | jpeg:quality=20"``.

    Args:
        recipe: Words of :data:`OPERATORS` in the order in which things happened, separated by ``|``; after a colon, arguments of that word.
        seed: Of what a word draws when it is built (a motion kernel, places of rain), unless the recipe gives that word a ``seed``.
        unknown: Read the recipe as the *form* of damage to be estimated: numbers are first guesses as ever, and what would be drawn at
            random is replaced by a plain start (a free kernel, no displacement), for nobody knows it.

    Returns:
        An operator; a :class:`Compose` when there are several. What can be unknown is learnable, unless the recipe says ``learnable=no``
        (noise: unless it says ``learnable=yes``).

    Raises:
        OperatorError: The recipe cannot be read.
        SettingError: A number in it is out of range.

    Example:
        >>> parse_recipe("blur:sigma=2,size=21 | noise:sigma=0.1").describe()
        'Gaussian blur with sigma 2.00 px, then Gaussian noise with sigma 0.100 (25.5 of 255)'
    """
    operators = [_parse_word(part.strip(), seed, unknown) for part in recipe.split("|")]
    return operators[0] if len(operators) == 1 else Compose(operators)


def _parse_word(text: str, seed: int, unknown: bool) -> Operator:
    word, _, rest = (piece.strip() for piece in text.partition(":"))
    if not word:
        raise OperatorError(f"A recipe has a word between its bars, such as blur:sigma=2; the words are {', '.join(OPERATORS)}.")
    if word not in OPERATORS:
        raise OperatorError(f"There is no operator {word!r}; the words are {', '.join(OPERATORS)}.")
    entry = OPERATORS[word]
    if unknown and entry.places:
        raise OperatorError(f"The places of {entry.places} cannot be estimated; leave {word} out of the form of unknown damage.")
    known = inspect.signature(entry.build, eval_str=True).parameters
    given: dict[str, Any] = {}
    for piece in filter(None, (p.strip() for p in rest.split(","))):
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
        raise OperatorError(f"{word} needs {' and '.join(missing)}, for example {word}:{','.join(f'{m}=2' for m in missing)}.")
    if "seed" in known:
        given.setdefault("seed", seed)
    build = entry.unknown if unknown and entry.unknown else entry.build
    accepted = inspect.signature(build).parameters
    return build(**{name: value for name, value in given.items() if name in accepted})


def _read(word: str, name: str, value: str, annotation: Any) -> Any:
    """``value`` as the type that the argument is annotated with."""
    expected = str(annotation)
    if annotation is bool:
        if value.lower() in ("yes", "true", "1", "no", "false", "0"):
            return value.lower() in ("yes", "true", "1")
        raise OperatorError(f"{word} takes {name}=yes or {name}=no, not {value!r}.")
    try:
        if "int" in expected:
            return int(value)
        if "float" in expected:
            return float(value)
    except ValueError as error:
        kind = "a whole number" if "int" in expected else "a number"
        raise OperatorError(f"{word} takes {kind} for {name}, not {value!r}.") from error
    return value
