"""Contract of the table of methods: each entry has the common head, its calls and its battery."""

import ast
import importlib
import inspect
import math
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path

import pytest

import pristina.methods
from pristina.errors import SettingError
from pristina.methods.index import METHODS, method
from pristina.methods.steps.result import Calls
from pristina.settings import Settings, field_types, in_words

TESTS = Path(__file__).parents[1]


def batteries():
    """Find the names of the functions that are given to ``check_method`` in the tests."""
    names = set()
    for file in sorted((TESTS / "methods").glob("test_*.py")):
        for test in ast.parse(file.read_text("utf-8")).body:
            for call in ast.walk(test):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "check_method":
                    # The function itself, the argument of a partial, or a parameter of the test.
                    found = names_in(call.args[0])
                    parameters = {arg.arg for arg in test.args.args}
                    if found & parameters:
                        found |= set().union(*map(names_in, test.decorator_list))
                    names |= found
    return names


def names_in(node):
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}


def test_every_method_has_its_battery():
    lacking = METHODS.keys() - batteries()
    assert not lacking, f"no test calls check_method({', '.join(sorted(lacking))}, ...)"


@pytest.mark.parametrize("entry", METHODS.values(), ids=list(METHODS))
def test_every_method_has_the_common_head(entry):
    parameters = inspect.signature(entry.function).parameters
    extra = list(entry.extra_weights)
    expected = ["observation", "prior", "settings", *extra, "start", "generator", "on_step"]
    assert list(parameters) == expected
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in expected[3:])
    assert all(parameters[name].default is None for name in ("start", "generator", "on_step"))
    assert entry.function.__name__ == entry.name
    assert is_dataclass(entry.settings) and issubclass(entry.settings, Settings)
    assert parameters["settings"].default == entry.settings()


@pytest.mark.parametrize("entry", METHODS.values(), ids=list(METHODS))
def test_every_method_says_its_calls(entry):
    for preset in (None, *entry.presets):
        calls = entry.calls(entry.make_settings(preset))
        assert isinstance(calls, Calls)
        assert (calls.forward > 0) == (entry.prior != "none")
        assert calls.forward >= calls.backward >= 0 and calls.kept >= 1


@pytest.mark.parametrize("entry", METHODS.values(), ids=list(METHODS))
def test_every_method_is_exported(entry):
    for name in (entry.name, entry.settings_name):
        assert name in pristina.methods.__all__
        assert getattr(pristina.methods, name) is getattr(entry.module, name)


@pytest.mark.parametrize("entry", METHODS.values(), ids=list(METHODS))
def test_no_setting_may_be_nan(entry):
    for name, kind in field_types(entry.settings).items():
        if "number" in in_words(kind):
            for value in (math.nan, math.inf, -math.inf):
                with pytest.raises(SettingError):
                    entry.settings().changed({name: value})
                if "finite number" in in_words(kind):
                    with pytest.raises(SettingError):
                        entry.settings(**{name: value})


def test_modules_are_the_methods_of_the_table():
    files = Path(pristina.methods.__file__).parent.glob("*.py")
    assert {file.stem for file in files} == {*METHODS, "__init__", "index"}


def test_all_names_exist():
    for name in pristina.methods.__all__:
        assert getattr(pristina.methods, name) is not None
    assert dir(pristina.methods) == pristina.methods.__all__
    with pytest.raises(AttributeError, match="no attribute 'burd'"):
        pristina.methods.burd  # noqa: B018


def test_a_function_is_never_hidden_by_its_module():
    importlib.import_module("pristina.methods.bird")
    from pristina.methods import bird

    assert bird is METHODS["bird"].function


def test_importing_the_package_loads_nothing_heavy():
    program = "import sys, pristina.methods; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_unknown_names_are_refused():
    with pytest.raises(SettingError, match="no method 'burd'"):
        method("burd")
    with pytest.raises(SettingError, match="no preset 'papre'"):
        method("diip").make_settings("papre")
    with pytest.raises(SettingError, match="no setting 'step'"):
        method("diip").make_settings(None, {"step": 3})
