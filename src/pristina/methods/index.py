"""The table of methods: one line each, loaded when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

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
        Entry("mmse", "MMSE", "the prior's own estimate in one network call", "never"),
        Entry("diip", "DIIP", "fit through the prior and stop in time, knowing nothing", "never"),
        Entry("bird", "BIRD", "find the noise behind the picture, and the damage along with it", "optional"),
        Entry("invert2restore", "Invert2Restore", "find the noise behind the observation, make it typical, and draw again", "optional"),
        Entry("dip", "DIP", "fit an untrained network, and stop before it learns the damage", "optional", prior="none"),
        Entry("dreamclean", "DreamClean", "embed in noise, and renew part of it on the way back", "never"),
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
        raise SettingError(f"There is no method {name!r}; there are {', '.join(METHODS)}.")
    return METHODS[name]
