"""Degradation of images: operators, their composition, and recipes that describe them.

Public names are imported when they are first used. Each family of operators lists its own in the
``__all__`` of its module.
"""

# ruff: noqa: F403

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pristina.operators.base import *
    from pristina.operators.blur import *
    from pristina.operators.index import *
    from pristina.operators.jpeg import *
    from pristina.operators.kernels import *
    from pristina.operators.learned import *
    from pristina.operators.mask import *
    from pristina.operators.noise import *
    from pristina.operators.radon import *
    from pristina.operators.recipe import *
    from pristina.operators.resample import *
    from pristina.operators.tone import *
    from pristina.operators.warp import *
    from pristina.operators.weather import *

_FAMILIES = (
    "base",
    "blur",
    "index",
    "jpeg",
    "kernels",
    "learned",
    "mask",
    "noise",
    "radon",
    "recipe",
    "resample",
    "tone",
    "warp",
    "weather",
)


def __getattr__(name: str) -> Any:
    """Import a public name, or the list ``__all__`` of them, when it is first used."""
    if name == "__all__":
        value: Any = sorted(n for module in _modules() for n in module.__all__)
    elif name.startswith("_") or name in _FAMILIES:
        raise AttributeError(f"module 'pristina.operators' has no attribute {name!r}")
    else:
        value = _public(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __getattr__("__all__")


def _public(name: str) -> Any:
    for module in _modules():
        if name in module.__all__:
            return getattr(module, name)
    raise AttributeError(f"module 'pristina.operators' has no attribute {name!r}")


def _modules() -> Iterator[Any]:
    return (import_module(f"pristina.operators.{family}") for family in _FAMILIES)
