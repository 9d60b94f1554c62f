"""Restoring pictures when nobody knows what happened to them."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pristina.image.picture import Picture
    from pristina.operators.base import Observation
    from pristina.priors.generate import generate, invert
    from pristina.priors.load import load_prior
    from pristina.restoration import Restored, restore

__version__ = _version("pristina")

_WHERE = {
    "Observation": "pristina.operators.base",
    "Picture": "pristina.image.picture",
    "Restored": "pristina.restoration",
    "generate": "pristina.priors.generate",
    "invert": "pristina.priors.generate",
    "load_prior": "pristina.priors.load",
    "restore": "pristina.restoration",
}

__all__ = ["Observation", "Picture", "Restored", "generate", "invert", "load_prior", "restore"]


def __getattr__(name: str) -> Any:
    """Public names, loaded when first asked for: ``import pristina`` alone loads nothing heavy."""
    if name not in _WHERE:
        raise AttributeError(f"module 'pristina' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value  # before the submodule of the same name can stand in its place
    return value


def __dir__() -> list[str]:
    return __all__
