"""What the documentation lists is what there is."""

import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from pristina.methods import METHODS
from pristina.operators.index import OPERATORS

COMMAND = """
import pristina.cli

def sh(*words):
    try:
        pristina.cli.main(list(words))
    except SystemExit as end:
        assert not end.code, words
"""
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


def test_every_command_and_program_of_the_first_page_runs(tmp_path):
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", (DOCS / "start.md").read_text(), re.M | re.S)
    programs = "".join(code for language, code in blocks if language == "python")
    assert programs.count("import pristina") == 1 and len(blocks) > 6
    # Programs and commands rest upon each other: one program does all, in the order of the page.
    run = COMMAND
    for language, code in blocks:
        if language == "python":
            run += code
            continue
        for line in code.replace("\\\n", "").splitlines():
            name, *words = shlex.split(line)
            assert name == "pristina"
            run += f"sh(*{words})\n"
    program = tmp_path / "page.py"
    program.write_text(run)
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "restored.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    files = "before-after.png", "run.json", "from-python.png", "mmse.png", "sharp.png"
    assert all((tmp_path / name).is_file() for name in files)


def test_every_method_has_a_page_that_says_when_it_fails():
    folder = DOCS / "methods"
    assert {path.stem for path in folder.glob("*.md")} == {*METHODS, "index"}
    listed = (folder / "index.md").read_text().split("```{toctree}")[1].split()
    for name in METHODS:
        page = (folder / f"{name}.md").read_text()
        assert name in listed and f"```{{method-reference}} {name}\n" in page
        assert "\n## When it fails\n" in page and "\n$$\n" in page
