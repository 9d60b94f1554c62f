"""A form for the settings of a method, built from their types."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from nicegui import ui

from pristina.methods.index import MethodEntry
from pristina.settings import Settings, bounds_of, field_types, range_in_words

STEPS = 100
"""Number of steps of a slider for a number."""


class SettingsForm:
    """Show one input for each setting: a slider where both ends of its range are known.

    Args:
        entry: Entry of the method.
        preset: Name of the preset with which the form begins; None for the defaults.
        on_change: Called when a value changes.
    """

    def __init__(self, entry: MethodEntry, preset: str | None, on_change: Callable[[], Any]):
        self.base = entry.make_settings(preset)
        self.inputs: dict[str, Any] = {}
        descriptions = attribute_words(entry.settings)
        for name, kind in field_types(entry.settings).items():
            if name not in entry.extra_weights:
                value = getattr(self.base, name)
                self.inputs[name] = _input(name, kind, value, descriptions.get(name), on_change)

    def changes(self) -> dict[str, Any]:
        """Return the settings that differ from those with which the form began."""
        found = {}
        for name, widget in self.inputs.items():
            before, value = getattr(self.base, name), widget.value
            if isinstance(before, int) and isinstance(value, float) and value == int(value):
                value = int(value)
            value = None if value == "" else value
            same = value == before or value == _text(before)
            if not same and (value is not None or _allows_none(type(self.base), name)):
                found[name] = value
        return found


def attribute_words(kind: type[Settings]) -> dict[str, str]:
    """Return what the docstring of a settings class says about each of its fields."""
    section = (kind.__doc__ or "").partition("Attributes:\n")[2]
    found = re.findall(r"^ {8}(\w+): (.*(?:\n {9,}.*)*)", section, re.MULTILINE)
    return {name: _without_markup(" ".join(text.split())) for name, text in found}


def _input(name: str, kind: Any, value: Any, words: str | None, on_change: Any) -> Any:
    label = name.replace("_", " ").capitalize()
    with ui.column().classes("w-full gap-0"):
        widget = _widget(label, kind, value, on_change)
        hint = " ".join(filter(None, (words, range_in_words(kind))))
        if hint:
            ui.label(hint).classes("hint")
    return widget


def _widget(label: str, kind: Any, value: Any, on_change: Any) -> Any:
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    low, high = bounds_of(kind)[:2]
    if get_origin(plain) is Literal:
        options = list(get_args(plain))
        return ui.select(options, label=label, value=value, on_change=on_change).classes("w-full")
    if plain is bool:
        return ui.switch(label, value=value, on_change=on_change)
    if plain in (int, float) and low is not None and high is not None:
        with ui.row().classes("w-full items-center no-wrap"):
            ui.label(label).classes("whitespace-nowrap")
            step = 1 if plain is int else (high - low) / STEPS
            slider = ui.slider(min=low, max=high, step=step, value=value, on_change=on_change)
            slider.props(f'aria-label="{label}"').classes("grow")
            ui.label().bind_text_from(slider, "value", lambda v: f"{v:g}").classes("w-10")
        return slider
    if plain in (int, float) or _number_or_none(plain):
        number = ui.number(label, value=value, min=low, on_change=on_change).classes("w-full")
        if plain is int:
            number.props("step=1")
        elif plain is not float:
            number.props('clearable placeholder="automatic" stack-label')
        return number
    return ui.input(label, value=_text(value), on_change=on_change).classes("w-full")


def _number_or_none(kind: Any) -> bool:
    if get_origin(kind) not in (Union, UnionType):
        return False
    parts = [get_args(k)[0] if get_origin(k) is Annotated else k for k in get_args(kind)]
    return set(parts) <= {int, float, type(None)}


def _allows_none(kind: type[Settings], name: str) -> bool:
    return type(None) in get_args(field_types(kind)[name])


def _text(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def _without_markup(text: str) -> str:
    return re.sub(r"``?|:\w+:|~?pristina\.[\w.]*\.", "", text)
