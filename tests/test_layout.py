"""Sizes of modules and functions: what can be read at one sitting."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "pristina"
MODULES = sorted(SOURCE.rglob("*.py"))
MAX_MODULE_LINES = 450
MAX_FUNCTION_LINES = 60
MAX_EXCUSED_LINES = 90
EXCUSE = "# Long because"
"""Comment in a function of more than 60 lines that says why it is not divided."""


def lines_without_docstring(node):
    lines = node.end_lineno - node.body[0].lineno + 1
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        lines -= first.end_lineno - first.lineno + 1
    return lines


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_modules_and_functions_are_short(path):
    text = path.read_text("utf-8")
    lines = text.splitlines()
    assert len(lines) <= MAX_MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            excused = EXCUSE in "\n".join(lines[node.lineno - 1 : node.end_lineno])
            most = MAX_EXCUSED_LINES if excused else MAX_FUNCTION_LINES
            assert lines_without_docstring(node) <= most, node.name
