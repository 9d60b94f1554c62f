"""What somebody has chosen on the page: method, weights, form of the damage, settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nicegui import ui

from pristina.app.elements import slider
from pristina.app.form import SettingsForm
from pristina.app.recipe_form import RecipeForm
from pristina.app.words import LARGER
from pristina.methods.index import METHODS, MethodEntry
from pristina.priors.load import kind_of, shipped
from pristina.request import Request

MOST_SAMPLES = 8
"""Largest number of samples that the page offers."""


class Choices:
    """The folded part of the page, in which everything can be chosen.

    Args:
        on_change: Called when something changes.
    """

    def __init__(self, on_change: Callable[[], Any]):
        self.on_change = on_change
        self.form: SettingsForm | None = None
        self.prior: Any = None
        self.recipe: Any = None
        self.preset: Any = None
        self.deep: Any = None
        self.kinds = {name: kind_of(name) for name in shipped()}

    def build(self) -> None:
        """Draw it."""
        methods = {"auto": "Automatic"}
        methods |= {name: f"{name}: {entry.title}" for name, entry in METHODS.items()}
        self.method = ui.select(
            methods, label="Method", value="auto", on_change=self._method_changed
        ).classes("w-full")
        self.parts()
        self.grain = slider("Grain kept", 0.0, 0.0, self.on_change)
        ui.label("How much of the fine grain is put back after the restoration.").classes("hint")
        sizes = {1: "as it is", **{n: f"{words} as large" for n, words in LARGER.items()}}
        self.scale = ui.select(
            sizes, label="Size of the result", value=1, on_change=self.on_change
        ).classes("w-full")
        self.samples = ui.number(
            "Number of samples", value=1, min=1, max=MOST_SAMPLES, step=1, on_change=self.on_change
        ).classes("w-full")
        ui.label("Several samples show how sure the method is; their mean is the result.").classes(
            "hint"
        )
        self.seed = ui.number(
            "Random seed", value=0, min=0, step=1, on_change=self.on_change
        ).classes("w-full")

    @ui.refreshable_method
    def parts(self) -> None:
        """Draw what depends on the method."""
        self.form = None
        self.prior = self.recipe = self.preset = self.deep = None
        if self.method.value in ("auto", "indi"):
            self.deep = ui.switch("Take more care (eight times the work)", on_change=self.on_change)
        if self.method.value == "auto":
            return
        entry = METHODS[self.method.value]
        self._weights_of(entry)
        if entry.operator != "never":
            self.recipe = RecipeForm(self.on_change)
        if entry.presets:
            options = {"": "recommended", **{name: name for name in entry.presets}}
            self.preset = ui.select(
                options, label="Preset", value="", on_change=self._preset_changed
            ).classes("w-full")
        with ui.expansion(f"Settings of {entry.name}").classes("w-full"):
            self.settings()

    @ui.refreshable_method
    def settings(self) -> None:
        """Draw the settings of the method."""
        preset = self.preset.value if self.preset is not None else ""
        self.form = SettingsForm(METHODS[self.method.value], preset or None, self.on_change)

    def _weights_of(self, entry: MethodEntry) -> None:
        fitting = [name for name, kind in self.kinds.items() if kind == entry.prior]
        if fitting:
            options = {"": "those that suit the method", **{name: name for name in fitting}}
            self.prior = ui.select(
                options, label="Weights", value="", on_change=self.on_change
            ).classes("w-full")

    def _method_changed(self) -> None:
        self.parts.refresh()
        self.on_change()

    def _preset_changed(self) -> None:
        self.settings.refresh()
        self.on_change()

    def request(self) -> Request:
        """Return what is asked for.

        Raises:
            SettingError: A value is out of range.
        """
        common = Request(
            method=self.method.value,
            seed=int(self.seed.value or 0),
            samples=int(self.samples.value or 1),
            grain=self.grain.value,
            deep=self.deep is not None and self.deep.value,
            scale=self.scale.value,
        )
        if common.method == "auto":
            return common
        return replace(
            common,
            prior=(self.prior.value or None) if self.prior is not None else None,
            recipe=self.recipe.value if self.recipe is not None else None,
            preset=(self.preset.value or None) if self.preset is not None else None,
            settings={} if self.form is None else self.form.changes(),
        )
