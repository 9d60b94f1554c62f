"""Suites as values: clean pictures, degradations, methods and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, MinLen
from pydantic import Field

from pristina.errors import SettingError
from pristina.methods.index import MethodEntry, method
from pristina.operators.recipe import Recipe
from pristina.settings import Settings

Framing = Literal["whole", "centre"]
Knowledge = Literal["none", "form", "exact"]
"""What a method is given of the degradation: nothing; its form; or the operator itself, which makes
the row an oracle."""
MetricName = Literal[
    "psnr",
    "ssim",
    "haarpsi",
    "gmsd",
    "lpips",
    "psnr_after_shift",
    "kernel_correlation",
    "kernel_error",
    "sharpness",
    "noise",
    "blockiness",
]
"""Keys of :data:`pristina.metrics.METRICS`."""

STRICT: Any = {"extra": "forbid", "strict": True}
"""How pydantic reads the classes below from a file: no unknown keys, no guessed types."""


@dataclass(frozen=True)
class PictureSet:
    """The clean pictures.

    Attributes:
        folder: Folder of pictures; sub-folders are included, in the order of their paths.
        builtin: Pictures of scikit-image instead, each as ``name`` or ``name@left,top,side``.
        count: Number of pictures, from the first; 0 takes all.
        size_px: Side of the squares in pixels; 0 takes the size at which the prior was trained, or
            64. A prior of one size overrides it.
        crop: How the squares are cut. ``whole``: the largest centred square, reduced (aligned
            faces). ``centre``: that many pixels from the middle, not resampled.
    """

    __pydantic_config__ = STRICT

    folder: Path | None = None
    builtin: tuple[str, ...] = ()
    count: Annotated[int, Ge(0)] = 0
    size_px: Annotated[int, Ge(0)] = 0
    crop: Framing = "whole"


@dataclass(frozen=True)
class Task:
    """One degradation.

    Attributes:
        name: Word for files and tables.
        recipe: What happens to the pictures, see :class:`pristina.operators.Recipe`. Lengths in
            braces grow with the pictures.
        title: Name in the tables.
        form: Recipe with first guesses, for methods that are given the form of the degradation;
            None if there is no such form.
        sigma: Noise level in [0, 1] units, for methods that are given it; None if there is no
            such number.
    """

    __pydantic_config__ = STRICT

    name: str
    recipe: str
    title: str = ""
    form: str | None = None
    sigma: float | None = None

    @property
    def heading(self) -> str:
        """Title, or the name if there is none."""
        return self.title or self.name

    def at(self, size_px: int) -> Task:
        """Return the task for pictures of ``size_px``, without lengths in braces."""
        return replace(
            self, recipe=_recipe_at(self.recipe, size_px), form=_recipe_at(self.form, size_px)
        )


@dataclass(frozen=True)
class Row:
    """One method as a row of the tables.

    Attributes:
        method: Key of :data:`pristina.methods.index.METHODS`, or ``input`` for the observation.
        name: Word for files, unique in the suite; the method's if empty.
        label: Name in the tables; ``name`` if empty.
        preset: Preset of the method.
        settings: Single settings by name, applied after the preset.
        knowledge: What the method is given of the degradation; None takes the least that it needs.
        form: Recipe of the form that it is given in place of the task's, whatever the task: how
            the observation, brought to the size of the picture, is assumed to have come about. It
            is for methods that know one form only.
        sigma_known: Whether it is given the true noise level; None if it must be.
        oracle_stop: Whether the tables also list its best iterate, chosen by the clean pictures:
            what a perfect stopping rule would give.
        prior: Weights of this row in place of the suite's.
        tasks: Names of the tasks of this row; all if empty.
    """

    __pydantic_config__ = STRICT

    method: str
    name: str = ""
    label: str = ""
    preset: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    knowledge: Knowledge | None = None
    form: str | None = None
    sigma_known: bool | None = None
    oracle_stop: bool = False
    prior: str | None = None
    tasks: tuple[str, ...] = ()

    @property
    def entry(self) -> MethodEntry | None:
        """Entry of the method; None for the observation itself."""
        return None if self.method == "input" else method(self.method)

    def make_settings(self) -> Settings:
        """Return the settings of the method.

        Raises:
            SettingError: There is no such method, preset or setting, or a value is out of range.
        """
        return method(self.method).make_settings(self.preset, self.settings)

    def given(self) -> Given:
        """Return what the method is given beside the observation."""
        entry = self.entry
        if entry is None:
            return Given()
        least: Knowledge = (
            "exact" if entry.oracle else "form" if entry.operator == "required" else "none"
        )
        knowledge = self.knowledge or least
        return Given(
            "none" if entry.operator in ("never", "size") else knowledge,
            entry.oracle if self.sigma_known is None else self.sigma_known,
        )

    def at(self, size_px: int) -> Row:
        """Return the row for pictures of ``size_px``, without lengths in braces."""
        return replace(self, form=_recipe_at(self.form, size_px))


@dataclass(frozen=True)
class Given:
    """What a method is given of the degradation beside the observation.

    Attributes:
        knowledge: Whether it is given nothing, the form, or the operator itself.
        sigma: Whether it is given the true noise level.
    """

    knowledge: Knowledge = "none"
    sigma: bool = False

    @property
    def is_oracle(self) -> bool:
        """Whether a blind method could not know it."""
        return self.knowledge == "exact" or self.sigma

    def __str__(self) -> str:
        words = {"none": "", "form": "knows the form", "exact": "knows the degradation"}
        known = (words[self.knowledge], "knows the noise" if self.sigma else "")
        return ", ".join(word for word in known if word)


@dataclass(frozen=True)
class Published:
    """Numbers from papers, which stand beside ours and are never mixed with them.

    Attributes:
        source: Paper, and the data on which the numbers were measured.
        metrics: Names of the metrics of the numbers.
        values: Row to task to numbers, in the order of ``metrics``.
    """

    __pydantic_config__ = STRICT

    source: str
    metrics: tuple[MetricName, ...]
    values: Mapping[str, Mapping[str, tuple[float, ...]]]

    def value(self, row: str, task: str, metric: str) -> float | None:
        """Return one number; None if the paper does not have it."""
        numbers = self.values.get(row, {}).get(task)
        if numbers is None or metric not in self.metrics:
            return None
        return numbers[self.metrics.index(metric)]


@dataclass(frozen=True)
class Suite:
    """Pictures x degradations x methods x seeds.

    Attributes:
        name: Word for files; the file's name, unless the file gives another.
        title: One line about it.
        tasks: Columns of the tables.
        rows: Rows of the tables, ``methods`` in the file; the input and ``mmse`` are always there.
        about: What the tables show and how to read them.
        pictures: The clean pictures.
        prior: Shipped name or path of the weights.
        seeds: Random seeds; each gives a cell of its own.
        metrics: Metrics that the tables show, of those in each cell.
        batch: Number of pictures that run together.
        published: Numbers from papers.
    """

    __pydantic_config__ = STRICT

    name: str
    title: str
    tasks: tuple[Task, ...]
    rows: Annotated[tuple[Row, ...], Field(alias="methods")] = ()
    about: str = ""
    pictures: PictureSet = PictureSet()
    prior: str = "faces"
    seeds: Annotated[tuple[int, ...], MinLen(1)] = (0,)
    metrics: Annotated[tuple[MetricName, ...], MinLen(1)] = ("psnr", "ssim", "haarpsi")
    batch: Annotated[int, Ge(1)] = 16
    published: Published | None = None

    def at(self, size_px: int) -> Suite:
        """Return the suite for pictures of ``size_px``, without lengths in braces.

        Raises:
            OperatorError: A recipe cannot be read.
        """
        return replace(
            self,
            tasks=tuple(task.at(size_px) for task in self.tasks),
            rows=tuple(row.at(size_px) for row in self.rows),
        )

    def with_changes(
        self,
        *,
        pictures: Path | None = None,
        prior: str | None = None,
        count: int | None = None,
        size: int | None = None,
        crop: Framing | None = None,
        tasks: Sequence[str] = (),
        methods: Sequence[str] = (),
    ) -> Suite:
        """Return the suite with other pictures or another prior, or a part of it.

        Args:
            pictures: Folder of pictures in place of the suite's.
            prior: Weights in place of the suite's.
            count: Number of pictures.
            size: Side of the squares in pixels.
            crop: How the squares are cut.
            tasks: Names of the tasks to keep; all if empty.
            methods: Names of the rows to keep beside the input and ``mmse``; all if empty.

        Raises:
            SettingError: A number is too small, or the suite has no such task or row.
        """
        changes: dict[str, Any] = {}
        for name, value in (("count", count), ("size", size)):
            if value is not None and value < 1:
                raise SettingError(f"{name} must be at least 1, not {value}.")
        if pictures is not None:
            changes |= {"folder": pictures, "builtin": ()}
        more = {"count": count, "size_px": size, "crop": crop}
        changes |= {name: value for name, value in more.items() if value is not None}
        self._check_names("task", tasks, [task.name for task in self.tasks])
        self._check_names("method", methods, [row.name for row in self.rows])
        kept = ("input", "mmse", *methods)
        return replace(
            self,
            pictures=replace(self.pictures, **changes),
            prior=prior or self.prior,
            tasks=tuple(task for task in self.tasks if task.name in tasks or not tasks),
            rows=tuple(row for row in self.rows if row.name in kept or not methods),
        )

    def _check_names(self, what: str, wanted: Sequence[str], existing: Sequence[str]) -> None:
        if unknown := sorted(set(wanted) - set(existing)):
            raise SettingError(
                f"{self.name} has no {what} {', '.join(unknown)}; it has {', '.join(existing)}."
            )


def _recipe_at(text: str | None, size_px: int) -> Any:
    """Return a recipe with its lengths in braces replaced; None stays None."""
    return None if text is None else str(Recipe.parse(text).at(size_px))
