"""Every example runs, and says what it should."""

import os
import subprocess
import sys
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
def test_an_example_runs(name):
    command = [sys.executable, "-W", "error", str(EXAMPLES / name)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert OUTPUT[name] in done.stdout
