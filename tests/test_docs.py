"""What the documentation lists is what there is."""

import inspect
import re
from pathlib import Path

from pristina.operators.index import OPERATORS

DOCS = Path(__file__).parents[1] / "docs"


def as_written(name, default):
    """An argument of a recipe with its default, as the table has it."""
    if default is None or default is inspect.Parameter.empty:
        return name
    if isinstance(default, bool):
        return f"{name}={'yes' if default else 'no'}"
    return f"{name}={default if isinstance(default, str) else format(default, 'g')}"


def test_the_table_of_operators_has_every_word_and_argument_and_nothing_else():
    rows = re.findall(
        r"^\| `(\w+)` \|[^|]*\|([^|]*)\|", (DOCS / "operators.md").read_text(), re.MULTILINE
    )
    written = {word: re.findall(r"`([^`]+)`", arguments) for word, arguments in rows}
    parameters = {
        word: inspect.signature(entry.build).parameters.values()
        for word, entry in OPERATORS.items()
    }
    assert written == {
        word: [as_written(p.name, p.default) for p in of] for word, of in parameters.items()
    }
    assert [word for word, _ in rows] == list(OPERATORS)
