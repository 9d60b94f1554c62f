"""Settings of methods: frozen dataclasses whose types state the range of every value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from annotated_types import Ge, Gt, Interval, Le, Lt

from pristina.errors import SettingError, did_you_mean

Count = Annotated[int, Ge(1)]
"""A number of steps, iterations or samples: at least 1."""
Positive = Annotated[float, Gt(0)]
"""A positive number."""
NotNegative = Annotated[float, Ge(0)]
"""A number that is at least 0."""
Share = Annotated[float, Interval(ge=0, le=1)]
"""A number between 0 and 1, both included."""


S = TypeVar("S", bound="Settings")


@dataclass(frozen=True)
class Settings:
    """Check every field against its type when an object is made.

    A subclass is a frozen dataclass. Its field types are plain, ``Literal``, or ``Annotated`` with
    bounds of ``annotated_types``; a check that involves several fields goes into its own
    ``__post_init__``, which calls this one first.

    Example:
        >>> @dataclass(frozen=True)
        ... class Example(Settings):
        ...     steps: Count = 10
        >>> Example(steps=0)
        Traceback (most recent call last):
            ...
        pristina.errors.SettingError: steps must be at least 1, not 0.
    """

    _field_types: ClassVar[dict[str, Any]]

    def __post_init__(self) -> None:
        for name, kind in field_types(type(self)).items():
            value = _without_numpy(getattr(self, name))
            object.__setattr__(self, name, value)
            _check(name, value, kind)

    def changed(self: S, changes: Mapping[str, Any]) -> S:
        """Return a copy with some fields changed.

        Args:
            changes: Field names and values; text and JSON lists are converted to the field's type.

        Raises:
            SettingError: A field is unknown, or a value is of another type or out of range.
        """
        kinds = field_types(type(self))
        converted = {}
        for name, value in changes.items():
            if name not in kinds:
                known = ", ".join(kinds) or "none"
                raise SettingError(
                    f"{type(self).__name__} has no setting {name!r}; it has {known}."
                    f"{did_you_mean(name, kinds)}"
                )
            try:
                converted[name] = convert(_without_numpy(value), kinds[name])
            except ValueError as error:
                words = in_words(kinds[name])
                raise SettingError(f"{name} must be {words}; {value!r} is not.") from error
        return dataclasses.replace(self, **converted)


def field_types(kind: type[Settings]) -> dict[str, Any]:
    """Return the type of each field of a dataclass, with its bounds."""
    if "_field_types" not in vars(kind):
        hints = get_type_hints(kind, include_extras=True)
        kind._field_types = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    return kind._field_types


def _without_numpy(value: Any) -> Any:
    """Return a single number of NumPy as one of Python, and all else as it is."""
    is_numpy = type(value).__module__ == "numpy" and getattr(value, "shape", None) == ()
    return value.item() if is_numpy else value


def convert(value: Any, kind: Any) -> Any:
    """Convert text or a JSON value to ``kind``.

    Raises:
        ValueError: It cannot be converted without loss.
    """
    options = get_args(kind)
    origin = get_origin(kind)
    if origin is Annotated:
        return convert(value, options[0])
    if origin in (Union, UnionType):
        # Any text is text: this option comes last.
        for option in sorted(options, key=lambda option: option is str):
            with suppress(ValueError):
                return convert(value, option)
    elif origin is Literal:
        if value in options:
            return value
    elif origin is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        if isinstance(parts, list | tuple):
            return tuple(convert(part, options[0]) for part in parts)
    else:
        return _convert_plain(value, kind)
    raise ValueError


def _convert_plain(value: Any, kind: Any) -> Any:
    if isinstance(value, str) and kind is not str:
        if "_" in value:  # Python would read 1_0 as 10.
            raise ValueError
        words = {"none": None, "true": True, "false": False}
        value = kind(value) if kind in (int, float) else words.get(value.lower(), value)
    accepted = (int, float) if kind is float else kind
    if isinstance(value, accepted) and isinstance(value, bool) == (kind is bool) and _finite(value):
        return value
    raise ValueError


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def in_words(kind: Any) -> str:
    """Describe the values of a type, for error messages."""
    options = get_args(kind)
    origin = get_origin(kind)
    if origin is Annotated:
        return in_words(options[0])
    if origin is tuple:
        return "a row of numbers with commas between"
    if origin is Literal:
        return " or ".join(map(str, options))
    if options:
        return " or ".join(map(in_words, options))
    named = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}
    if kind is type(None):
        return "none"
    return named.get(kind, str(getattr(kind, "__name__", kind)))


def _check(name: str, value: Any, kind: Any) -> None:
    options = get_args(kind)
    origin = get_origin(kind)
    if origin is Annotated:
        _check(name, value, options[0])
        _check_bounds(name, value, options[1:])
    elif origin in (Union, UnionType):
        _check_union(name, value, options)
    elif origin is Literal:
        if value not in options:
            *others, last = map(str, options)
            one_of = f"{', '.join(others)} or {last}" if others else last
            raise SettingError(f"{name} must be {one_of}, not {value!r}.")
    elif origin is tuple:
        if not isinstance(value, tuple):
            raise SettingError(f"{name} must be a tuple, not {value!r}.")
        for item in value:
            _check(name, item, options[0])
    elif kind in (int, float, bool, str):
        accepted = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or isinstance(value, bool) != (kind is bool):
            raise SettingError(f"{name} must be {in_words(kind)}, not {value!r}.")
        if not _finite(value):
            raise SettingError(f"{name} must be a finite number, not {value}.")


def _check_union(name: str, value: Any, options: tuple[Any, ...]) -> None:
    failures = []
    for option in options:
        try:
            if option is type(None) and value is not None:
                continue
            return _check(name, value, option)
        except SettingError as error:
            failures.append(error)
    raise failures[-1] if failures else SettingError(f"{name} cannot be {value!r}.")


def _check_bounds(name: str, value: Any, constraints: tuple[Any, ...]) -> None:
    low, high, low_open, high_open = _bounds(constraints)
    above = low is None or (value > low if low_open else value >= low)
    below = high is None or (value < high if high_open else value <= high)
    if above and below:
        return
    if high is None:
        if low == 0:
            least = "be positive" if low_open else "not be negative"
        else:
            least = f"be greater than {low}" if low_open else f"be at least {low}"
        raise SettingError(f"{name} must {least}, not {value}.")
    if low is None:
        raise SettingError(
            f"{name} must be {'less than' if high_open else 'at most'} {high}, not {value}."
        )
    if low_open or high_open:
        interval = f"{'(' if low_open else '['}{low}, {high}{')' if high_open else ']'}"
        raise SettingError(f"{name} must lie in {interval}, not at {value}.")
    raise SettingError(f"{name} must lie between {low} and {high}, not at {value}.")


class Bounds(NamedTuple):
    """The least and the largest value; None where there is none. An open end is not included."""

    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False


def bounds_of(kind: Any) -> Bounds:
    """Return the bounds that a type states."""
    return _bounds(get_args(kind)[1:] if get_origin(kind) is Annotated else ())


def _bounds(constraints: tuple[Any, ...]) -> Bounds:
    found = Bounds()
    for item in constraints:
        for one in item if isinstance(item, Interval) else [item]:
            if isinstance(one, Ge | Gt):
                open_end = isinstance(one, Gt)
                low: Any = one.gt if isinstance(one, Gt) else one.ge
                found = found._replace(low=low, low_open=open_end)
            elif isinstance(one, Le | Lt):
                open_end = isinstance(one, Lt)
                high: Any = one.lt if isinstance(one, Lt) else one.le
                found = found._replace(high=high, high_open=open_end)
    return found


def range_in_words(kind: Any) -> str:
    """Return the range of the numbers of a type in a sentence; empty if it has none.

    Example:
        >>> range_in_words(Share), range_in_words(Positive), range_in_words(Count | None)
        ('From 0 to 1.', 'More than 0.', 'At least 1.')
    """
    options, origin = get_args(kind), get_origin(kind)
    if origin in (Union, UnionType, tuple):
        return next(filter(None, map(range_in_words, options)), "")
    low, high, low_open, high_open = bounds_of(kind)
    least = None if low is None else f"{'more than' if low_open else 'at least'} {low}"
    most = None if high is None else f"{'less than' if high_open else 'at most'} {high}"
    if least and most and not (low_open or high_open):
        return f"From {low} to {high}."
    words = " and ".join(filter(None, (least, most)))
    return f"{words[0].upper()}{words[1:]}." if words else ""
