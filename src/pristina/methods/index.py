"""The table of methods: one line each, loaded when asked for; and their settings, by name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pristina.errors import SettingError
from pristina.methods.base import Result
from pristina.priors.load import Kind


@dataclass(frozen=True)
class Entry:
    """A method and what it needs.

    Attributes:
        name: Its name; the module, and the function in it, are called the same.
        settings_name: Its settings class.
        title: One line about it.
        operator: Whether it uses the form of the degradation: never, only to learn the picture's ``size``, if given (``optional``), or
            only then (``required``).
        prior: What it draws its knowledge from: a ``diffusion`` prior, a ``direct`` regressor trained on pairs, a ``conditional``
            diffusion network trained on pairs, or ``none``.
        oracle: Whether it must be told what a blind method cannot know: rows marked so in tables.
    """

    name: str
    settings_name: str
    title: str
    operator: Literal["never", "size", "optional", "required"]
    prior: Kind = "diffusion"
    oracle: bool = False

    @property
    def function(self) -> Callable[..., Result]:
        """``function(observation, prior, settings, *, generator, on_step)``."""
        function: Callable[..., Result] = getattr(import_module(f"pristina.methods.{self.name}"), self.name)
        return function

    @property
    def settings(self) -> type[Any]:
        """The frozen dataclass of its settings."""
        settings: type[Any] = getattr(import_module(f"pristina.methods.{self.name}"), self.settings_name)
        return settings

    def preset(self, name: str | None) -> Any:
        """The settings called ``name``: a constant of the method's module in capitals (``paper`` is ``PAPER``); the defaults for None."""
        if name is None:
            return self.settings()
        module = import_module(f"pristina.methods.{self.name}")
        known = [k.lower() for k, v in vars(module).items() if k.isupper() and isinstance(v, self.settings)]
        if name not in known:
            raise SettingError(f"{self.name} has no preset {name!r}; it has {', '.join(known) or 'none'}.")
        return getattr(module, name.upper())


METHODS = {
    entry.name: entry
    for entry in (
        Entry("nothing", "Nothing", "leave the picture as it is", "never", prior="none"),
        Entry("mmse", "MMSE", "the prior's own estimate in one network call", "size"),
        Entry("diip", "DIIP", "fit through the prior and stop in time, knowing nothing", "size"),
        Entry("bird", "BIRD", "find the noise behind the picture, and the damage along with it", "optional"),
        Entry("invert2restore", "Invert2Restore", "find the noise behind the observation, make it typical, and draw again", "optional"),
        Entry("dip", "DIP", "fit an untrained network, and stop before it learns the damage", "optional", prior="none"),
        Entry("dreamclean", "DreamClean", "embed in noise, and renew part of it on the way back", "size"),
        Entry("gdp", "GDP", "sample under the observation's guidance; without an operator, for light alone", "optional"),
        Entry("dps", "DPS", "sample, each step corrected through the network for a known operator", "required"),
        Entry("diffpir", "DiffPIR", "denoise and fit the data in turn, given operator and noise", "required", oracle=True),
        Entry("ddrm", "DDRM", "sample where a known operator only scales, given operator and noise", "optional", oracle=True),
        Entry("gibbs_ddrm", "GibbsDDRM", "picture by DDRM and blur kernel by Langevin steps, in turns", "required", oracle=True),
        Entry("blind_dps", "BlindDPS", "diffuse picture and blur kernel side by side", "required"),
        Entry("indi", "InDI", "step from the degraded picture to the clean one, learned from pairs", "size", prior="direct"),
        Entry("conditional_ddpm", "ConditionalDDPM", "sample beside the degraded picture, learned from pairs", "size", prior="conditional"),
    )
}


def method(name: str) -> Entry:
    """The entry called ``name``.

    Raises:
        SettingError: There is none.
    """
    if name not in METHODS:
        raise SettingError(f"There is no method {name!r}; there are auto, {', '.join(METHODS)}.")
    return METHODS[name]


def make_settings(entry: Entry, preset: str | None = None, changes: Mapping[str, Any] | None = None) -> Any:
    """The settings of a method: a preset (or the defaults) with some fields changed.

    Args:
        entry: The method.
        preset: The preset's name; None for the defaults.
        changes: Field to value; text, and the lists of JSON and TOML, are converted to the field's type.

    Raises:
        SettingError: There is no such preset or field, or a value is of another type or out of range.
    """
    settings = entry.preset(preset)
    kinds = get_type_hints(type(settings))
    names = [f.name for f in dataclasses.fields(settings)]
    converted = {}
    for name, value in (changes or {}).items():
        if name not in names:
            raise SettingError(f"{entry.name} has no setting {name!r}; it has {', '.join(names)}.")
        try:
            converted[name] = _convert(value, kinds[name])
        except ValueError as error:
            raise SettingError(f"{name} must be {_words(kinds[name])}; {value!r} is not.") from error
    return dataclasses.replace(settings, **converted)


def _convert(value: Any, kind: Any) -> Any:
    """``value`` as a setting of type ``kind``; ValueError if it cannot be one."""
    options = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        for option in sorted(options, key=lambda option: option is str):  # any text is text: that is tried last
            with suppress(ValueError):
                return _convert(value, option)
    elif get_origin(kind) is Literal:
        if value in options:
            return value
    elif get_origin(kind) is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        if isinstance(parts, list | tuple):
            return tuple(_convert(part, options[0]) for part in parts)
    else:
        if isinstance(value, str) and kind is not str:
            value = kind(value) if kind in (int, float) else {"none": None, "true": True, "false": False}.get(value.lower(), value)
        fits = isinstance(value, int | float if kind is float else kind) and isinstance(value, bool) == (kind is bool)
        if fits and not (isinstance(value, float) and not math.isfinite(value)):
            return value
    raise ValueError


def _words(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return "a row of numbers with commas between"
    named = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text", type(None): "none"}
    return " or ".join(map(_words, get_args(kind))) or named.get(kind, str(getattr(kind, "__name__", kind)))
