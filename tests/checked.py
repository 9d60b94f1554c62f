"""Type checker of the test run: it checks arrays, and leaves all other arguments alone.

What else is wrong with an argument is the business of the package: its tests pass such arguments
on purpose, and expect a sentence.
"""

from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_type_hints

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

F = TypeVar("F", bound=Callable[..., Any])
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def _has_shape(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(map(_has_shape, get_args(hint)))


def checked(function: F) -> F:
    """Check the arguments and the result of a function that have a jaxtyping shape."""
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):  # A name that is imported for type checkers only.
        return function
    function.__annotations__ = {name: hint for name, hint in hints.items() if _has_shape(hint)}
    return _check(function) if function.__annotations__ else function
