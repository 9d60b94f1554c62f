"""Suites from TOML files: reading and checking."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from pristina.bench.suite import Row, Suite
from pristina.errors import InputError, SettingError
from pristina.operators.recipe import Recipe
from pristina.work.store import is_plain

SUITES = Path(__file__).parent / "suites"

RENAMED_KEYS = {"told": "knowledge", "told_sigma": "sigma_known"}
RENAMED_VALUES = {"": None, "nothing": "none", "truth": "exact"}
"""Words of version 0.1.0 in ``methods``, whose suites are still read."""


def suite_names() -> list[str]:
    """Return the names of the suites that come with pristina."""
    return sorted(path.stem for path in SUITES.glob("*.toml"))


def load_suite(source: str | Path) -> Suite:
    """Read a suite that comes with pristina, or a TOML file.

    Args:
        source: Name of a suite, or path of a file.

    Raises:
        SettingError: There is no such suite, or the file holds something that a suite does not
            have.

    Example:
        >>> [task.name for task in load_suite("smoke").tasks]
        ['noise25', 'blur']
    """
    path = SUITES / f"{source}.toml" if str(source) in suite_names() else Path(source)
    if not path.is_file():
        names = ", ".join(suite_names())
        raise SettingError(f"{source} is neither a suite ({names}) nor a TOML file.")
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except ValueError as error:  # Of its bytes, or of its grammar.
        raise SettingError(f"{path} is not valid TOML: {error}.") from error
    try:
        suite = _parse({"name": _plain(path.stem), **values})
        folder = suite.pictures.folder and path.parent / suite.pictures.folder
        suite = replace(
            suite, rows=_complete(suite.rows), pictures=replace(suite.pictures, folder=folder)
        )
        _check(suite)
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from error
    return suite


def _plain(stem: str) -> str:
    """Return the name of a file as the name of a suite."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", stem).lstrip(".") or "suite"


def _parse(values: dict[str, Any]) -> Suite:
    """Convert the content of a file; tables become dataclasses and lists tuples."""
    if isinstance(rows := values.get("methods"), list):
        values = {**values, "methods": [_updated(row) for row in rows]}
    try:
        # JSON, because strict types accept lists for tuples and texts for paths only there.
        suite: Suite = TypeAdapter(Suite).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise SettingError(_sentence(error.errors()[0])) from error
    return suite


def _updated(row: Any) -> Any:
    """Return a row of version 0.1.0 in today's words."""
    if not isinstance(row, dict):
        return row
    found = {RENAMED_KEYS.get(key, key): value for key, value in row.items()}
    if isinstance(told := row.get("told"), str):
        found["knowledge"] = RENAMED_VALUES.get(told, told)
    return found


_NOUNS = {
    "string": "a text",
    "path": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple": "a list",
    "dataclass": "a table",
    "dict": "a table",
    "mapping": "a table",
}


def _sentence(error: Any) -> str:
    """Put an error of pydantic into words.

    Args:
        error: One of the items of :meth:`pydantic.ValidationError.errors`.
    """
    *parents, last = error["loc"] or ("",)
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    key = _key(error["loc"])
    if kind == "missing":
        return f"{_key(parents) or 'a suite'} needs {last}."
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        known = ", ".join(_fields(_kind_at(parents)))
        return f"{_key(parents) or 'a suite'} has no {last!r}; it has {known}."
    if kind == "literal_error":
        return f"{key} must be {context['expected'].replace(', ', ' or ')}, not {value!r}."
    if kind == "greater_than_equal":
        return f"{key} must be at least {context['ge']}, not {value!r}."
    if kind == "too_short":
        return f"{key} must not be empty."
    noun = _NOUNS.get(kind.partition("_")[0])
    return f"{key} must be {noun}, not {value!r}." if noun else f"{key}: {error['msg']}."


def _key(loc: Any) -> str:
    """Return the place of a value in a file, such as ``methods[1].settings``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).strip(".")


def _kind_at(loc: Any) -> Any:
    """Return the dataclass at a place in a file."""
    kind: Any = Suite
    for part in loc:
        if is_dataclass(kind):
            names = {_file_name(kind, f.name): f.name for f in fields(kind)}
            kind = get_type_hints(kind)[names[part]]
        else:
            kind = get_args(kind)[0 if isinstance(part, int) else -1]
        if get_origin(kind) is not None and NoneType in get_args(kind):
            kind = get_args(kind)[0]
    return kind


def _fields(kind: Any) -> list[str]:
    """Return the keys of a table in a file, required ones first."""
    ordered = sorted(
        fields(kind), key=lambda f: f.default is not MISSING or f.default_factory is not MISSING
    )
    return [_file_name(kind, f.name) for f in ordered]


def _file_name(kind: Any, name: str) -> str:
    return "methods" if (kind, name) == (Suite, "rows") else name


def _complete(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Give rows names and labels, and put the baselines of every table before them."""
    baselines = [Row("input", label="input"), Row("mmse", label="mmse (one call)")]
    present = {row.method for row in rows}
    missing = [row for row in baselines if row.method not in present]
    named = (replace(row, name=row.name or row.method) for row in (*missing, *rows))
    return tuple(replace(row, label=row.label or row.name) for row in named)


def _check(suite: Suite) -> None:
    """Check what types cannot say.

    Raises:
        SettingError: A name is taken twice or cannot be part of a file's name, or a row names
            something that does not exist.
    """
    tasks = [task.name for task in suite.tasks]
    rows = [row.name for row in suite.rows]
    for what, names in (("tasks", tasks), ("methods", rows)):
        if not names or max(Counter(names).values()) > 1:
            listed = ", ".join(names) or "none"
            raise SettingError(f"{what} need names of their own; these are {listed}.")
    for name in (suite.name, *tasks, *rows):
        if not is_plain(name):
            raise SettingError(
                f"{name!r} cannot name a file; use letters, digits and _ . + -, "
                "and no dot at the beginning."
            )
    for task in suite.tasks:
        _check_recipes(task.name, task.recipe, task.form)
    for row in suite.rows:
        _check_recipes(row.name, row.form)
        try:
            if row.method != "input":
                row.make_settings()
        except SettingError as error:
            raise SettingError(f"{row.name}: {error}") from error
        if unknown := sorted(set(row.tasks) - set(tasks)):
            raise SettingError(
                f"{row.name} names the tasks {', '.join(unknown)}; there are {', '.join(tasks)}."
            )
    _check_published(suite)


def _check_recipes(name: str, *texts: str | None) -> None:
    for text in filter(None, texts):
        try:
            Recipe.parse(text)
        except InputError as error:
            raise SettingError(f"{name} ({text}): {error}") from error


def _check_published(suite: Suite) -> None:
    published = suite.published
    for row, values in published.values.items() if published else ():
        for task, numbers in values.items():
            if len(numbers) != (n := len(published.metrics)):  # type: ignore[union-attr]
                raise SettingError(
                    f"published.values.{row}.{task} holds {len(numbers)} numbers; "
                    f"published.metrics names {n}."
                )
