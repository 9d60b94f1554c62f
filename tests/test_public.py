"""Public names: what is listed can be imported, and importing it costs what it should."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import pristina

PACKAGES = ["pristina", *(f"pristina.{p}" for p in ("image", "operators", "priors", "methods"))]
PACKAGES += [f"pristina.{p}" for p in ("metrics", "work", "bench")]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_listed_name_is_there(package):
    module = importlib.import_module(package)
    assert list(module.__all__) == sorted(set(module.__all__)) and module.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None and name in dir(module)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name


def test_the_public_names_are_these():
    assert pristina.__all__ == [
        "Cancelled", "CheckpointError", "Client", "InputError", "MissingExtra", "Observation",
        "Operator", "OperatorError", "Picture", "PictureError", "Plan", "Prior", "PristinaError",
        "Recipe", "Request", "Restored", "Result", "SettingError", "SizeError", "State", "generate",
        "invert", "load_prior", "plan", "restore", "run",
    ]  # fmt: skip


def test_the_exceptions_are_those_of_the_tree():
    errors = {n for n, v in vars(pristina.errors).items() if isinstance(v, type)}
    assert errors <= set(pristina.__all__)
    assert all(issubclass(getattr(pristina, name), pristina.PristinaError) for name in errors)


def test_importing_a_package_imports_nothing_heavy():
    names = ", ".join(PACKAGES)
    code = f"import sys, {names}; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_are_not_hidden_by_modules_of_the_same_name(package, monkeypatch):
    """The import system sets every module it loads as an attribute of its package; so does this."""
    parent = importlib.import_module(package)
    for info in pkgutil.iter_modules(parent.__path__):
        if info.name in parent.__all__:
            module = importlib.import_module(f"{package}.{info.name}")
            with monkeypatch.context() as patch:
                patch.setattr(parent, info.name, module)
                assert callable(getattr(parent, info.name)), info.name


def test_every_module_has_a_docstring():
    for info in pkgutil.walk_packages(pristina.__path__, "pristina."):
        if info.name != "pristina.__main__":
            assert importlib.import_module(info.name).__doc__, info.name
