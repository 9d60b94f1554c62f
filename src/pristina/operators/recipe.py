"""Recipes: what happened to an image, written in one line and read once into a value."""

from __future__ import annotations

import inspect
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pristina.errors import OperatorError, SettingError, did_you_mean
from pristina.operators.base import Compose, Operator
from pristina.operators.index import OPERATORS, OperatorEntry
from pristina.operators.noise import Noise, white_noise_sigma

__all__ = ["Recipe"]

MAX_WHOLE_NUMBER = 10_000
"""Largest whole number in a recipe, except for a ``seed``: larger sizes exhaust the memory."""

REFERENCE_PX = 64
"""Side of the images for which lengths in braces are written."""

_LENGTH = re.compile(r"\{(size|[0-9.]+)\}")
_REPEAT = (
    1_000_003  # between the seeds of a word and of its next occurrence; images take 0, 1, 2 ...
)


@dataclass(frozen=True)
class Word:
    """One operator of a recipe, as it is written.

    Attributes:
        name: Key in :data:`pristina.operators.index.OPERATORS`.
        arguments: Names and values of its arguments, in the order in which they are written.
    """

    name: str
    arguments: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Word:
        """Read one word with its arguments, such as ``blur:sigma=2,size=21``.

        Raises:
            OperatorError: There is no such word or argument, or one is missing or unreadable.
            SettingError: An argument is not among its choices.
        """
        name, _, rest = (piece.strip() for piece in text.partition(":"))
        if not name:
            raise OperatorError(
                "A recipe has a word between its bars, such as blur:sigma=2; "
                f"the words are {', '.join(OPERATORS)}."
            )
        if name not in OPERATORS:
            raise OperatorError(
                f"There is no operator {name!r}; the words are {', '.join(OPERATORS)}."
                f"{did_you_mean(name, OPERATORS)}"
            )
        word = cls(name, tuple(_arguments(name, rest)))
        given = dict(word.arguments)
        if missing := [a for a, p in word.parameters.items() if p.required and a not in given]:
            raise OperatorError(
                f"{name} needs {' and '.join(missing)}, for example {name}:{word.entry.example}."
            )
        word.at(REFERENCE_PX).values()  # to refuse at once what cannot be read
        return word

    @property
    def entry(self) -> OperatorEntry:
        """Line of the table that defines the word."""
        return OPERATORS[self.name]

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Arguments that this word takes, by name."""
        return parameters(self.entry.build)

    def __str__(self) -> str:
        rest = ",".join(f"{name}={value}" for name, value in self.arguments)
        return f"{self.name}:{rest}" if rest else self.name

    def at(self, size_px: int) -> Word:
        """Replace the lengths in braces by those for images of ``size_px``."""
        scaled = (
            (name, value if self.parameters[name].type is Path else _scaled(value, size_px))
            for name, value in self.arguments
        )
        return type(self)(self.name, tuple(scaled))

    def values(self) -> dict[str, Any]:
        """Return the arguments by name, each in the type of its annotation."""
        return {
            name: _converted(self.name, name, value, self.parameters[name].type)
            for name, value in self.arguments
        }

    def build(self, seed: int) -> Operator:
        """Build the operator; ``seed`` is used unless the word gives its own."""
        given = self.values()
        if "seed" in self.parameters:
            given.setdefault("seed", seed)
        return self.entry.build(**given)

    def form(self, seed: int) -> Operator:
        """Build the operator with a neutral start in place of what is drawn at random."""
        entry, given = self.entry, dict(self.arguments)
        if entry.places:
            raise OperatorError(
                f"The places of {entry.places} cannot be estimated; "
                f"leave {self.name} out of the form of unknown damage."
            )
        operator = self.build(seed)  # also where only its checks are needed
        if entry.drawn and entry.drawn[0] in given and "seed" not in given:
            argument, what = entry.drawn
            raise OperatorError(
                f"{what} must be known: give {self.name} the seed with which they were drawn, "
                f"as in {self.name}:{argument}={given[argument]},seed=0."
            )
        if isinstance(operator, Noise) and self.values().get("learnable"):
            raise OperatorError(
                "No method fits the strength of noise: it is what remains unexplained; "
                f"leave learnable=yes out of {self.name}."
            )
        if entry.form is None:
            return operator
        values = self.values()
        if "seed" in self.parameters:
            values.setdefault("seed", seed)
        accepted = inspect.signature(entry.form).parameters
        return entry.form(**{name: value for name, value in values.items() if name in accepted})


@dataclass(frozen=True)
class Recipe:
    """Degradation of an image as a value: words in the order in which they happened.

    The text of a recipe has words of :data:`pristina.operators.index.OPERATORS` separated by
    ``|``; after a colon, the arguments of that word. Two recipes are equal if they have the same
    words with the same arguments, whatever their spaces; ``str(recipe)`` gives the text back.

    A number in braces is a length in pixels of an image of 64 px and grows with the image, see
    :meth:`at`: ``{1.6}`` is a length, ``{21}`` an odd whole number, ``{size}`` the side itself.

    Attributes:
        words: Words, first to last.

    Example:
        >>> recipe = Recipe.parse("blur:sigma=2,size=21 | noise:sigma=0.1")
        >>> recipe.build().describe()
        'Gaussian blur with sigma 2.00 px, then Gaussian noise with sigma 0.100 (25.5 of 255)'
        >>> str(Recipe.parse("blur:sigma={1.6} | jpeg:quality=20").at(256))
        'blur:sigma=6.4 | jpeg:quality=20'
    """

    words: tuple[Word, ...]

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """Read the text of a recipe.

        Args:
            text: Recipe, such as ``"motion:size=41 | noise:sigma=0.05 | jpeg:quality=20"``.

        Raises:
            OperatorError: The text cannot be read.
            SettingError: An argument is not among its choices.
        """
        return cls(tuple(Word.parse(part) for part in text.split("|")))

    def __str__(self) -> str:
        return " | ".join(map(str, self.words))

    def build(self, seed: int = 0) -> Operator:
        """Build the operator that the recipe describes.

        What can be unknown is learnable unless the recipe has ``learnable=no``; noise is
        learnable only if it has ``learnable=yes``.

        Args:
            seed: Seed of everything that is drawn now, such as a motion kernel or the places of
                rain, for the words without a ``seed`` of their own. A word that comes again
                draws something else.

        Returns:
            An operator; a :class:`Compose` if there are several words.

        Raises:
            OperatorError: A length in braces has not been replaced, see :meth:`at`.
            PictureError: A file that the recipe names cannot be read.
            SettingError: A number is out of range.
        """
        return self._composed(Word.build, seed)

    def form(self, seed: int = 0) -> Operator:
        """Build the form of damage whose parameters are to be estimated.

        Numbers are first guesses. What :meth:`build` draws at random is replaced by a neutral
        start (a free kernel, no displacement), and the strength of noise is never learnable:
        methods find it in what they leave unexplained.

        Args:
            seed: Seed of what has to start at random (the weights of a network).

        Returns:
            An operator; a :class:`Compose` if there are several words.

        Raises:
            OperatorError: The recipe draws something that a method must know, or that nothing
                can estimate; or as for :meth:`build`.
            PictureError: A file that the recipe names cannot be read.
            SettingError: A number is out of range.
        """
        return self._composed(Word.form, seed)

    def at(self, size_px: int) -> Recipe:
        """Replace the lengths in braces by those for images with sides of ``size_px``."""
        return type(self)(tuple(word.at(size_px) for word in self.words))

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that the recipe reads when it is built."""
        return tuple(
            Path(value)
            for word in self.words
            for name, value in word.arguments
            if word.parameters[name].type is Path
        )

    @property
    def noise(self) -> float | None:
        """Standard deviation of the noise in [0, 1] units, or None.

        None unless white Gaussian noise is the last word and no other word is noise.
        """
        noises = [word for word in self.words if word.entry.is_noise]
        if len(noises) != 1 or noises[0] is not self.words[-1]:
            return None
        return white_noise_sigma(noises[0].build(0))

    def _composed(self, make: Callable[[Word, int], Operator], seed: int) -> Operator:
        operators: list[Operator] = []
        seen: Counter[str] = Counter()
        for word in self.words:
            operators.append(make(word, seed + _REPEAT * seen[word.name]))
            seen[word.name] += 1
        return operators[0] if len(operators) == 1 else Compose(operators)


@dataclass(frozen=True)
class Parameter:
    """One argument of a word.

    Attributes:
        type: One of bool, int, float, str, Path or a ``Literal``.
        required: Whether it has no default.
    """

    type: Any
    required: bool


@lru_cache
def parameters(build: Callable[..., Operator]) -> dict[str, Parameter]:
    """Read the arguments of an operator's constructor from its signature and annotations.

    Raises:
        TypeError: An argument is of a type that cannot be written in a recipe.
    """
    hints = get_type_hints(build.__init__ if inspect.isclass(build) else build)
    return {
        name: Parameter(_readable(build, name, hints[name]), p.default is p.empty)
        for name, p in inspect.signature(build).parameters.items()
    }


def _readable(build: Callable[..., Operator], name: str, hint: Any) -> Any:
    """Return the type of an annotation that a recipe can write: of a union, the first such."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for member in members:
        if member in (bool, int, float, str, Path) or get_origin(member) is Literal:
            return member
    raise TypeError(f"{build.__qualname__}: {name} is {hint}, which no recipe can write.")


def _arguments(word: str, text: str) -> Iterator[tuple[str, str]]:
    """Split ``name=value,name=value`` and check the names."""
    known = parameters(OPERATORS[word].build)
    seen: set[str] = set()
    for piece in filter(None, (p.strip() for p in text.split(","))):
        name, equals, value = (p.strip() for p in piece.partition("="))
        if not equals or not value:
            raise OperatorError(f"{word}:{piece} is not of the form name=value.")
        if name not in known:
            raise OperatorError(
                f"{word} has no {name!r}; it takes {', '.join(known) or 'nothing'}."
            )
        if name in seen:
            raise OperatorError(f"{word} gives {name} twice.")
        seen.add(name)
        yield name, value


def _scaled(value: str, size_px: int) -> str:
    """Replace the lengths in braces in the text of one argument."""

    def number(found: re.Match[str]) -> str:
        text = found[1]
        if text == "size":
            return str(size_px)
        try:
            length = float(text) * size_px / REFERENCE_PX
        except ValueError:
            raise OperatorError(f"{found[0]} holds no number; write a length as {{1.6}}.") from None
        return f"{length:.4g}" if "." in text else str(2 * round((length - 1) / 2) + 1)

    return _LENGTH.sub(number, value)


def _converted(word: str, name: str, text: str, kind: Any) -> Any:
    """Convert the text of an argument into its type."""
    if get_origin(kind) is Literal:
        return _chosen(name, text, get_args(kind))
    if kind is bool:
        if text.lower() in ("yes", "true", "1", "no", "false", "0"):
            return text.lower() in ("yes", "true", "1")
        raise OperatorError(f"{word} takes {name}=yes or {name}=no, not {text!r}.")
    if kind not in (int, float):
        return kind(text)
    try:
        number = kind(text)
    except ValueError as error:
        what = "a whole number" if kind is int else "a number"
        raise OperatorError(f"{word} takes {what} for {name}, not {text!r}.") from error
    if not math.isfinite(number):
        raise OperatorError(f"{word} takes a finite number for {name}, not {text!r}.")
    if kind is int and name != "seed" and number > MAX_WHOLE_NUMBER:
        raise OperatorError(f"{word} takes at most {MAX_WHOLE_NUMBER} for {name}, not {text}.")
    return number


def _chosen(name: str, text: str, choices: tuple[Any, ...]) -> Any:
    """Find the choice that ``text`` names."""
    for choice in choices:
        if str(choice) == text:
            return choice
    allowed = ", ".join(map(str, choices))
    if len(choices) == 2:
        raise SettingError(f"{name} must be {' or '.join(map(str, choices))}, not {text!r}.")
    raise SettingError(f"{name} must be one of {allowed}; not {text!r}.")
