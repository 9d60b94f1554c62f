"""Keys of cells: a digest of everything that the numbers of a cell depend on.

A number depends on the request, on the observation, on the weights, and on the code: on every
module of the package that the computation reaches. Comments and docstrings do not count.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

PACKAGE = "pristina"

ALWAYS = ("pristina.priors.generate", "pristina.metrics.measuring")
"""Modules that count for every cell, with all that they import."""

FRONT_DOOR = (
    "pristina.restoration",
    "pristina.planning",
    "pristina.operators.recipe",
    "pristina.operators.index",
    "pristina.bench.degradation",
    "pristina.bench.measurement",
)
"""Modules between a cell and its method. They import nearly the whole package, most of which no
cell reaches, so that they count without what they import."""


def code_alone(source: str) -> str:
    """Return Python source without comments and docstrings, those of constants too.

    Example:
        >>> code_alone("x = 1  # one")
        'x = 1'
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_text(line)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_text(line: ast.stmt) -> bool:
    return (
        isinstance(line, ast.Expr)
        and isinstance(line.value, ast.Constant)
        and isinstance(line.value.value, str)
    )


def code_behind(modules: Iterable[str]) -> dict[str, str]:
    """Return the digest of the code of each module that ``modules`` reach.

    Imports are followed through the whole package, those inside functions too; an import that is
    for type checkers only is not.

    Args:
        modules: Names of modules of the package.

    Example:
        >>> sorted(code_behind(["pristina.files"]))
        ['pristina.errors', 'pristina.files']
    """
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name], imported = _read(name)
            waiting += imported
    return found


def code_of(modules: Iterable[str]) -> dict[str, str]:
    """Return the digest of the code of each module, without what it imports."""
    return {name: _read(name)[0] for name in modules}


def code_of_cell(modules: Iterable[str]) -> dict[str, str]:
    """Return the digests of all code of a cell, which begins in ``modules``."""
    return {**code_behind(modules), **code_of(FRONT_DOOR)}


def homes_of(*modules: nn.Module | None) -> set[str]:
    """Return the modules of the package in which the classes of networks or operators stand."""
    parts = (part for module in modules if module is not None for part in module.modules())
    homes = {base.__module__ for part in parts for base in type(part).__mro__}
    return {home for home in homes if _is_ours(home)}


def _is_ours(module: str) -> bool:
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")


def _read(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the digest of a module's code, and the modules of the package that it imports."""
    path = source_of(name)
    if path is None:
        return "", ()
    status = path.stat()
    return _read_file(name, path, status.st_mtime_ns, status.st_size)


def source_of(name: str) -> Path | None:
    """Return the file of a module; None if it has none."""
    spec = find_spec(name)
    return None if spec is None or spec.origin is None else Path(spec.origin)


@cache
def _read_file(name: str, path: Path, *_: Any) -> tuple[str, tuple[str, ...]]:
    """Read a module; the last arguments are those by which an edited file is recognised."""
    code = code_alone(path.read_text("utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    imported = {home for home in _imports(ast.parse(code), package) if _is_ours(home)}
    return hashlib.sha256(code.encode()).hexdigest(), tuple(sorted(imported))


def _imports(node: ast.AST, package: str) -> Iterator[str]:
    """Yield the modules that a piece of code imports, but for type checkers."""
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for line in node.orelse:
            yield from _imports(line, package)
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        parts = [*above, *filter(None, [node.module])] if node.level else [node.module or ""]
        module = ".".join(parts)
        if _is_ours(module):
            yield from (_home(module, alias.name) for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, package)


def _home(module: str, name: str) -> str:
    """Return the module in which a name stands that is imported from ``module``."""
    if (origin := source_of(module)) is None or origin.name != "__init__.py":
        return module
    if find_spec(f"{module}.{name}") is not None:
        return f"{module}.{name}"
    # A package resolves its public names when they are first used.
    home = getattr(getattr(import_module(module), name, None), "__module__", module)
    return home if isinstance(home, str) and _is_ours(home) else module
