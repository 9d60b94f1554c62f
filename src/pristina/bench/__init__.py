"""Benchmarks: suites of pictures, degradations, methods and seeds, and reports about them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pristina.bench.cells import Cell, CellFailure, CellResult
    from pristina.bench.report import write_reports
    from pristina.bench.runner import run_suite
    from pristina.bench.suite import PictureSet, Published, Row, Suite, Task
    from pristina.bench.suite_file import load_suite, suite_names

_HOMES = {
    "Cell": "cells",
    "CellFailure": "cells",
    "CellResult": "cells",
    "PictureSet": "suite",
    "Published": "suite",
    "Row": "suite",
    "Suite": "suite",
    "Task": "suite",
    "load_suite": "suite_file",
    "run_suite": "runner",
    "suite_names": "suite_file",
    "write_reports": "report",
}

__all__ = [
    "Cell",
    "CellFailure",
    "CellResult",
    "PictureSet",
    "Published",
    "Row",
    "Suite",
    "Task",
    "load_suite",
    "run_suite",
    "suite_names",
    "write_reports",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
