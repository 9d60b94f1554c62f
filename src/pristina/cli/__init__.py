"""The command line: one module for each command, imported when it is used."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from cyclopts import App, Parameter, Token, convert

from pristina.cli.console import fail
from pristina.errors import PristinaError

MIN_COLUMNS = 20
"""Width below which no help text can be laid out."""


def checked(kind: Any, tokens: Sequence[Token]) -> Any:
    """Convert an option as cyclopts does, but refuse NUL, empty paths and numbers such as 1e3.

    A shell leaves ``--output=~/out.png`` as it is; the home folder is put in here.
    """
    kinds = kind, *get_args(kind)
    for token in tokens:
        if "\0" in token.value:
            raise ValueError("it cannot hold the character NUL.")
        if int in kinds and not re.fullmatch(r"[+-]?\d+", token.value):
            raise ValueError(f"{token.value!r} is not a whole number.")
        if Path in kinds and not token.value:
            raise ValueError("the name of a file or folder cannot be empty.")
    return convert(kind, [token.evolve(value=at_home(token.value)) for token in tokens])


def at_home(text: str) -> str:
    """Return a path that begins with ``~/`` as one that begins with the home folder."""
    return os.path.expanduser(text) if text.startswith("~/") else text


app = App(
    name="pristina",
    help="Restore pictures when nobody knows what happened to them.",
    version_flags=["--version"],
    default_parameter=Parameter(converter=checked, negative_iterable=()),
    suppress_keyboard_interrupt=False,
)
RESTORE = """Restore pictures.

One file is written to the file OUTPUT. Several files, or folders, are written into the folder
OUTPUT under their own names, sub-folders kept. The same command again goes on where an interrupted
one ended, and does again what has changed.

Exit code: 0 if all is done, 2 if nothing can be done, 3 if some pictures failed, 4 if damaged
files were restored as far as they go, 130 after an interruption.
"""
COMMANDS = {
    "restore": ("restore:restore", RESTORE),
    "degrade": ("degrade:degrade", "Damage a picture in a known way."),
    "measure": ("measure:measure", "Measure a picture, against the truth if there is one."),
    "bench": ("bench:bench", "Measure methods on degraded pictures, all in the same way."),
    "train": ("train:app", "Train weights on your own pictures."),
    "serve": ("serve:serve", "Start a page in the browser, and an API, that restore pictures."),
    "weights": ("weights:app", "List, fetch, check and convert weights."),
    "doctor": ("doctor:doctor", "Show what this machine can do, and what a method would cost."),
}
for _name, (_place, _help) in COMMANDS.items():
    app.command(f"pristina.cli.{_place}", name=_name, help=_help)


def main(words: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        words: Arguments; None takes those of the process.

    A mistake in what was asked ends with a sentence and exit code 2, an interruption with 130.
    """
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns) < MIN_COLUMNS:
        os.environ["COLUMNS"] = str(MIN_COLUMNS)
    try:
        app(sys.argv[1:] if words is None else words)
        sys.stdout.flush()
    except PristinaError as error:
        fail(error)
        sys.exit(2)
    except KeyboardInterrupt:
        fail("interrupted.")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of the output has gone, as with "| head"; nothing more can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        fail(f"the output cannot be written: {error.strerror or error}.")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(2)
