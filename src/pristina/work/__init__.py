"""Work in many items: results kept on disk and computed in several processes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pristina.work.manifest import Manifest
    from pristina.work.pool import Pool, WorkerDied
    from pristina.work.store import Store

_HOMES = {"Manifest": "manifest", "Pool": "pool", "Store": "store", "WorkerDied": "pool"}

__all__ = ["Manifest", "Pool", "Store", "WorkerDied"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
