"""What the documentation lists is what there is."""

import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.data import chelsea

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


def blocks_of(page):
    """Return the language and text of each block that can be run."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.M | re.S)
    return [(language, code) for language, code in found if language in ("python", "sh")]


def run_page(blocks, folder):
    """Run the programs and commands of a page, in its order, as one program; return its output."""
    run = COMMAND
    for language, code in blocks:
        if language == "python":
            run += code
            continue
        for line in code.replace("\\\n", "").splitlines():
            name, *words = shlex.split(line, comments=True)
            assert name == "pristina"
            run += f"sh(*{words})\n"
    program = folder / "page.py"
    program.write_text(run)
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_command_and_program_of_the_first_page_runs(tmp_path):
    blocks = blocks_of(DOCS / "start.md")
    programs = "".join(code for language, code in blocks if language == "python")
    assert programs.count("import pristina") == 1 and len(blocks) > 6
    run_page(blocks, tmp_path)
    assert (tmp_path / "restored.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    files = "before-after.png", "run.json", "from-python.png", "mmse.png", "sharp.png"
    assert all((tmp_path / name).is_file() for name in files)


def test_every_command_and_program_of_the_readme_runs(tmp_path):
    readme = DOCS.parent / "README.md"
    blocks = blocks_of(readme)
    assert len(blocks) == 2
    noise = np.random.default_rng(0).normal(0, 25.5, (64, 64, 3))
    noisy = Image.fromarray(np.clip(chelsea()[60:124, 130:194] + noise, 0, 255).astype(np.uint8))
    (tmp_path / "photos").mkdir()
    for name in ("in", "print", "torn", "scan", "photos/1"):
        noisy.save(tmp_path / f"{name}.png")
    for name, box in (("sky", (0, 0, 64, 20)), ("holes", (40, 40, 46, 44))):
        mask = Image.new("L", (64, 64))
        mask.paste(255, box)
        mask.save(tmp_path / f"{name}.png")
    for name in ("torn", "holes"):
        with Image.open(tmp_path / f"{name}.png") as whole:
            whole.crop((20, 20, 52, 52)).save(tmp_path / f"{name}.png")
    lines = run_page(blocks, tmp_path).splitlines()
    said = re.search(r"^```text\n(.*?)^```", readme.read_text(), re.M | re.S)[1].splitlines()
    for words in ("Noise of ", "% sure). indi with denoise was chosen; predicted gain +"):
        assert words in lines[0] and words in said[0]
    assert lines[1] == said[1]
    assert (tmp_path / "named.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    files = "out", "new", "mild", "part", "repaired", "whole", "restored/1", "restored/scan"
    assert all((tmp_path / f"{name}.png").is_file() for name in files)
    assert not (tmp_path / "other.png").exists()
    with Image.open(tmp_path / "whole.png") as whole:
        assert whole.size == (64, 64)


def test_every_method_has_a_page_that_says_when_it_fails():
    folder = DOCS / "methods"
    assert {path.stem for path in folder.glob("*.md")} == {*METHODS, "index"}
    listed = (folder / "index.md").read_text().split("```{toctree}")[1].split()
    readme = (DOCS.parent / "README.md").read_text()
    for name in METHODS:
        page = (folder / f"{name}.md").read_text()
        assert name in listed, f"docs/methods/index.md needs {name} in the list at its end"
        assert name == "nothing" or f"`{name}`" in readme, f"README.md needs {name} in its table"
        assert f"```{{method-reference}} {name}\n" in page
        assert "\n## When it fails\n" in page and "\n$$\n" in page
