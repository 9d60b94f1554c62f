"""Every example runs, and says what it should."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
OUTPUT = {
    "restore_a_picture.py": "1 network call",
    "compare_two_methods.py": "diip",
    "own_operator.py": "faded towards white by 0.",
    "own_prior.py": "after",
}


def test_every_example_is_listed_here():
    assert {p.name for p in EXAMPLES.glob("*.py")} == {*OUTPUT, "demo.py"}


@pytest.mark.parametrize("name", OUTPUT)
def test_an_example_runs(name, capsys):
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert OUTPUT[name] in capsys.readouterr().out
