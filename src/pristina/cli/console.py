"""Output of the command line: text as it is, whatever a file name holds."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def make_console(*, quiet: bool = False) -> Console:
    """Return a console on standard error that takes no text for markup."""
    from rich.console import Console

    return Console(
        quiet=quiet, stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False
    )


def printable(text: object) -> str:
    """Return text in one line without control characters, which a file name may hold."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def duration(seconds: float) -> str:
    """Write a time in words: ``12 s``, ``3.5 min``, ``4.2 h``."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.2g} min" if seconds < 6000 else f"{seconds / 3600:.2g} h"


def fail(error: object) -> None:
    """Print an error message, if standard error is still there."""
    with suppress(OSError, ValueError):
        print(f"pristina: {printable(error)}", file=sys.stderr)
