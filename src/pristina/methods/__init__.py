"""Methods that restore images: for each entry of the table, its function and its settings.

The public names are loaded when they are first used. Those of the methods follow from the table.

Example:
    >>> from pristina.methods import DIIP, diip
    >>> DIIP.__module__ == diip.__module__ == "pristina.methods.diip"
    True
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from pristina._exports import Package

_SHARED = {
    "METHODS": "index",
    "MethodEntry": "index",
    "method": "index",
    "Calls": "steps.result",
    "Cost": "steps.result",
    "Result": "steps.result",
    "State": "steps.result",
    "Stop": "steps.result",
    "StopReason": "steps.result",
    "sampled": "steps.samples",
}


def _modules() -> dict[str, str]:
    """Return the module of each public name."""
    from pristina.methods.index import METHODS

    functions = {name: name for name in METHODS}
    settings = {entry.settings_name: name for name, entry in METHODS.items()}
    return functions | settings | _SHARED


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted(_modules())
    module = None if name.startswith("_") else _modules().get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_modules())


sys.modules[__name__].__class__ = Package
