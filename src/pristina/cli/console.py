"""Output of the command line: text as it is, whatever a file name holds."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from rich.console import Console


def make_console(*, quiet: bool = False, output: bool = False) -> Console:
    """Return a console that takes no text for markup.

    Args:
        quiet: Whether it prints nothing (default no).
        output: Whether it prints results on standard output, rather than messages on standard
            error, which are dropped when nobody can receive them.
    """
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise  # Rich calls it in the handler of a BrokenPipeError, which main ends with 141.

    file = None if output or sys.stderr is None else cast("IO[str]", _Messages())
    return Plain(
        quiet=quiet,
        file=file,
        stderr=not output,
        soft_wrap=not output,
        highlight=False,
        markup=False,
        emoji=False,
    )


class _Messages:
    """Standard error, as long as somebody receives what is written there."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)

    def write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())

    def flush(self) -> None:
        """Do nothing: every text is written at once."""


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
