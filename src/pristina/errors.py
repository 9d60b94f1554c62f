"""Exceptions that pristina raises on purpose.

    PristinaError
    ├── InputError              an argument cannot be used
    │   ├── PictureError        a picture cannot be read or written
    │   ├── SizeError           a prior or an operator does not accept the size
    │   ├── SettingError        a setting is out of range, or unknown
    │   └── OperatorError       an operator does not fit its observation
    ├── CheckpointError         weights cannot be loaded as asked
    ├── MissingExtra            an optional package is not installed
    └── Cancelled               a progress callback stops a method

A message says what was wrong, what was expected and what to do about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class PristinaError(Exception):
    """Base class of every deliberate error."""


class InputError(PristinaError):
    """An argument cannot be used."""


class PictureError(InputError):
    """A picture or another result cannot be read or written."""


class SizeError(InputError):
    """A prior or an operator does not accept the size of a picture."""


class SettingError(InputError):
    """A setting is out of range, or its name is unknown."""


class OperatorError(InputError):
    """An operator does not fit its observation, or its recipe cannot be read."""


class CheckpointError(PristinaError):
    """Weights cannot be loaded as asked."""


class MissingExtra(PristinaError):
    """An optional package is needed and is not installed."""


class Cancelled(PristinaError):
    """Raised in ``on_step`` to stop a method, which then returns its best result so far."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question with the name that was meant, to follow a sentence; empty if none is near.

    Example:
        >>> did_you_mean("blurr", ["noise", "blur"])
        ' Did you mean blur?'
        >>> did_you_mean("jazz", ["noise", "blur"])
        ''
    """
    from difflib import get_close_matches

    near = get_close_matches(str(name), list(known), 1, cutoff=0.65)
    return f" Did you mean {near[0]}?" if near else ""
