"""Benchmarks: suites of pictures, degradations, methods and seeds, and reports about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pristina._exports import lazy

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

__getattr__, __dir__ = lazy(__name__, _HOMES)
