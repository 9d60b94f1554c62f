"""A form for the damage that a method is told: its text, and an input for each of its numbers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from nicegui import ui

from pristina.errors import PristinaError
from pristina.operators.index import OPERATORS
from pristina.operators.recipe import Recipe, Word


class RecipeForm:
    """Show the text of a recipe, a list from which words are added, and their numbers.

    The text is what counts; the inputs below it change numbers in it.

    Args:
        on_change: Called when it changes.
    """

    def __init__(self, on_change: Callable[[], Any]):
        titles = {name: f"{name}: {entry.title}" for name, entry in OPERATORS.items()}
        self.text = ui.input("What happened to it, if you know", on_change=on_change)
        self.text.on("blur", self._typed)
        self.text.classes("w-full").props('placeholder="blur:sigma=2 | noise:sigma=0.05"')
        self.more = ui.select(titles, label="Add a kind of damage", on_change=self._add)
        self.more.classes("w-full")
        self.numbers()

    @property
    def value(self) -> str | None:
        """Text of the recipe; None if there is none."""
        return (self.text.value or "").strip() or None

    def recipe(self) -> Recipe | None:
        """Return the recipe; None if there is none, or it cannot be read."""
        with suppress(PristinaError):
            return None if self.value is None else Recipe.parse(self.value)
        return None

    @ui.refreshable_method
    def numbers(self) -> None:
        """Draw an input for each number in the text."""
        recipe = self.recipe()
        self.drawn = self.value
        for place, word in enumerate(() if recipe is None else recipe.words):
            for name, value in word.values().items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    self._number(place, word, name, value)

    def _number(self, place: int, word: Word, name: str, value: float) -> None:
        def changed() -> None:
            recipe = self.recipe()
            if recipe is not None and number.value is not None:
                given = {**dict(recipe.words[place].arguments), name: f"{number.value:g}"}
                words = list(recipe.words)
                words[place] = replace(words[place], arguments=tuple(given.items()))
                self.text.value = self.drawn = str(Recipe(tuple(words)))

        step = 1 if isinstance(value, int) else 0.01
        label = f"{word.name}: {name.replace('_', ' ')}"
        number = ui.number(label, value=value, step=step, on_change=changed).classes("w-full")

    def _typed(self) -> None:
        if self.value != self.drawn:
            self.numbers.refresh()

    def _add(self) -> None:
        name = self.more.value
        if name is None:
            return
        example = OPERATORS[name].example
        word = f"{name}:{example}" if example else name
        self.more.value = None
        self.text.value = f"{self.value} | {word}" if self.value else word
        self.numbers.refresh()
