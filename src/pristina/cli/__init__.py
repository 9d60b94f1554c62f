"""The command line: one module a command, each loaded only when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, get_args

from cyclopts import App, Parameter, Token, convert

from pristina.errors import PristinaError


def whole(kind: Any, tokens: Sequence[Token]) -> Any:
    """Options as cyclopts converts them, but for whole numbers with a point, which it would round."""
    if int in (kind, *get_args(kind)) and any("." in token.value for token in tokens):
        raise ValueError(f"{tokens[0].value} is not a whole number.")
    return convert(kind, tokens)


app = App(
    name="pristina",
    help="Restore pictures when nobody knows what happened to them.",
    version_flags=["--version"],
    default_parameter=Parameter(converter=whole, negative_iterable=()),
    suppress_keyboard_interrupt=False,
)
app.command("pristina.cli.restore:restore", name="restore", help="Restore a picture.")
app.command("pristina.cli.degrade:degrade", name="degrade", help="Damage a picture in a known way.")
app.command("pristina.cli.measure:measure", name="measure", help="Measure a picture, against the truth if there is one.")
app.command("pristina.cli.bench:bench", name="bench", help="Measure methods on degraded pictures, all alike.")
app.command("pristina.cli.train:app", name="train", help="Train weights on your own pictures.")
app.command("pristina.cli.weights:app", name="weights", help="List, fetch, check and convert weights.")
app.command("pristina.cli.doctor:doctor", name="doctor", help="Say what runs on this machine, how long, and in how much memory.")


def main(words: list[str] | None = None) -> None:
    """Run the command line (``words`` instead of those of the process); a mistake in what was asked ends with a sentence and status 2."""
    try:
        app(sys.argv[1:] if words is None else words)
    except PristinaError as error:
        print(f"pristina: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("pristina: interrupted.", file=sys.stderr)
        sys.exit(130)
