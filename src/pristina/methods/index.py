"""Table of methods: one line each; a method's module is imported when it is first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from pristina.errors import SettingError, did_you_mean
from pristina.settings import Settings

if TYPE_CHECKING:
    from pristina.methods.steps.result import Calls, Result
    from pristina.priors.load import Kind


@dataclass(frozen=True)
class MethodEntry:
    """A method and what it needs.

    Attributes:
        name: Name of the method; its module and the function in it are called the same.
        settings_name: Name of its settings class.
        title: One line about it.
        operator: Use of the form of the degradation: ``never``; only to learn the picture's
            ``size``; ``optional``; or ``required``.
        prior: Kind of its weights: a ``diffusion`` prior, a ``direct`` regressor trained on pairs,
            a ``conditional`` diffusion network trained on pairs, a regressor that is told the
            ``operator``, or ``none``.
        oracle: Whether it needs to know what a blind method cannot know; tables mark such rows.
        weights: Shipped weights that it uses when none are named; None for those of their kind.
        extra_weights: Kinds of further weights, by the name that is both the settings field that
            names them and the keyword of the function that takes them.
    """

    name: str
    settings_name: str
    title: str
    operator: Literal["never", "size", "optional", "required"]
    prior: Kind = "diffusion"
    oracle: bool = False
    weights: str | None = None
    extra_weights: Mapping[str, Kind] = field(default_factory=dict)

    @property
    def module(self) -> ModuleType:
        """Module of the method."""
        return import_module(f"pristina.methods.{self.name}")

    @property
    def function(self) -> Callable[..., Result]:
        """The function ``(observation, prior, settings, *, start, generator, on_step)``."""
        function: Callable[..., Result] = getattr(self.module, self.name)
        return function

    @property
    def settings(self) -> type[Settings]:
        """The class of its settings."""
        settings: type[Settings] = getattr(self.module, self.settings_name)
        return settings

    @property
    def presets(self) -> list[str]:
        """Names of its presets: constants of the module in capitals (``paper`` is ``PAPER``)."""
        kind = self.settings
        return [
            name.lower()
            for name, value in vars(self.module).items()
            if name.isupper() and isinstance(value, kind)
        ]

    def make_settings(
        self, preset: str | None = None, changes: Mapping[str, Any] | None = None
    ) -> Settings:
        """Return the settings of a preset, or the defaults, with some fields changed.

        Args:
            preset: Name of the preset; None for the defaults.
            changes: Field names and values; text and JSON lists are converted.

        Raises:
            SettingError: A preset or a field is unknown, or a value is out of range.
        """
        if preset is None:
            settings = self.settings()
        elif preset in self.presets:
            settings = getattr(self.module, preset.upper())
        else:
            known = ", ".join(self.presets) or "none"
            meant = did_you_mean(preset, self.presets)
            raise SettingError(f"{self.name} has no preset {preset!r}; it has {known}.{meant}")
        return settings.changed(changes or {})

    def calls(self, settings: Settings) -> Calls:
        """Return the network calls that ``settings`` imply for one image."""
        calls: Calls = self.module.calls(settings)
        return calls


METHODS = {
    entry.name: entry
    for entry in (
        MethodEntry("nothing", "Nothing", "leave the picture as it is", "never", "none"),
        MethodEntry("mmse", "MMSE", "denoise with one call of a diffusion prior", "size"),
        MethodEntry("diip", "DIIP", "fit through the prior and stop in time", "size"),
        MethodEntry("bird", "BIRD", "optimise noise and degradation together", "optional"),
        MethodEntry("refit", "Refit", "fit picture, damage and noise in each step", "optional"),
        MethodEntry(
            "invert2restore",
            "Invert2Restore",
            "fit noise as bird does, and correct its patches (our variant)",
            "optional",
        ),
        MethodEntry("dip", "DIP", "fit an untrained network and stop in time", "optional", "none"),
        MethodEntry("dreamclean", "DreamClean", "invert to noise and renew part of it", "size"),
        MethodEntry("gdp", "GDP", "sample under the guidance of the observation", "optional"),
        MethodEntry("dps", "DPS", "sample, guided through the network", "required"),
        MethodEntry(
            "diffpir", "DiffPIR", "alternate denoising and data fit", "required", oracle=True
        ),
        MethodEntry(
            "pnp_flow", "PnPFlow", "step down the data term, then denoise", "required", oracle=True
        ),
        MethodEntry(
            "flower", "Flower", "fit where the flow leads, renew the noise", "required", oracle=True
        ),
        MethodEntry(
            "pigdm", "PiGDM", "sample, guided by what the data ask", "required", oracle=True
        ),
        MethodEntry(
            "red_diff", "REDDiff", "descend on the denoiser's error", "required", oracle=True
        ),
        MethodEntry(
            "daps", "DAPS", "sample near a clean image, renew the noise", "required", oracle=True
        ),
        MethodEntry("sitcom", "SITCOM", "optimise the network's input", "required", oracle=True),
        MethodEntry(
            "fast_dips", "FASTDIPS", "correct to within the noise", "required", oracle=True
        ),
        MethodEntry("dmplug", "DMPlug", "optimise the seed of three steps", "required"),
        MethodEntry("na_nhmc", "NANHMC", "sample the seed of two steps", "required"),
        MethodEntry("ddrm", "DDRM", "sample in the operator's spectrum", "optional", oracle=True),
        MethodEntry("ddnm", "DDNM", "fill the operator's null space", "optional", oracle=True),
        MethodEntry(
            "gibbs_ddrm", "GibbsDDRM", "alternate DDRM and Langevin steps", "required", oracle=True
        ),
        MethodEntry(
            "fast_diffusion_em",
            "FastDiffusionEM",
            "fit the kernel in each step of PiGDM",
            "required",
            oracle=True,
        ),
        MethodEntry(
            "blind_dps",
            "BlindDPS",
            "diffuse image and blur kernel together",
            "required",
            extra_weights={"kernel_prior": "kernels"},
        ),
        MethodEntry("indi", "InDI", "regress in small direct steps", "size", "direct"),
        MethodEntry(
            "conditional_ddpm",
            "ConditionalDDPM",
            "sample given the degraded picture",
            "size",
            "conditional",
        ),
        MethodEntry(
            "deblur",
            "Deblur",
            "undo a blur that is known, or found in the picture, in one call",
            "optional",
            "operator",
            extra_weights={"regressor": "direct"},
        ),
        MethodEntry(
            "reconstruct",
            "Reconstruct",
            "undo known linear damage in one call of a network that is told it",
            "required",
            "operator",
            oracle=True,
        ),
    )
}


def check_name(name: str) -> None:
    """Check that there is a method of this name, or that it is ``auto``.

    Raises:
        SettingError: There is none.
    """
    if name != "auto":
        method(name)


def method(name: str) -> MethodEntry:
    """Return the entry of a method.

    Raises:
        SettingError: There is no such method.
    """
    if name not in METHODS:
        raise SettingError(
            f"There is no method {name!r}; there are auto, {', '.join(METHODS)}."
            f"{did_you_mean(name, ['auto', *METHODS])}"
        )
    return METHODS[name]
