"""Type checker of the test run: it checks arrays, and leaves all other arguments alone.

What else is wrong with an argument is the business of the package: its tests pass such arguments
on purpose, and expect a sentence.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar, get_args, get_type_hints

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, jaxtyped

F = TypeVar("F", bound=Callable[..., Any])
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def _has_shape(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(map(_has_shape, get_args(hint)))


def where_shapes_are_named(item: Any = None, *, typechecker: Any) -> Any:
    """Decorate as ``jaxtyping.jaxtyped`` does, but leave functions alone that name no shape.

    Most do, and binding the arguments of each of their calls takes a fifth of the test run.
    """

    def decorate(item: Any) -> Any:
        named = isinstance(item, type) or not isinstance(item, FunctionType) or _names_shape(item)
        return jaxtyped(item, typechecker=typechecker) if named else item

    return decorate if item is None else decorate(item)


def _names_shape(function: FunctionType) -> bool:
    for hint in function.__annotations__.values():
        try:
            hint = eval(hint, function.__globals__) if isinstance(hint, str) else hint
        except (NameError, TypeError):  # A name that is imported for type checkers only.
            continue
        if _has_shape(hint):
            return True
    return False


def checked(function: F) -> F:
    """Check the arguments and the result of a function that have a jaxtyping shape."""
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):  # A name that is imported for type checkers only.
        return function
    function.__annotations__ = {name: hint for name, hint in hints.items() if _has_shape(hint)}
    return _check(function) if function.__annotations__ else function
