"""Degraded pictures of a task, and what a method is given of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pristina.bench.cells import Cell
from pristina.bench.suite import Row, Task
from pristina.errors import PristinaError
from pristina.files import digest
from pristina.operators.base import Observed, Operator
from pristina.operators.recipe import Recipe
from pristina.seeds import benchmark_seeds
from pristina.types import Draw, Images

OPERATORS_APART = 10_000_000
"""Difference between the seed of a picture's noise and that of its operator."""


class NoForm(PristinaError):
    """A row needs the form of a degradation that has none; its cell stays empty."""


@dataclass(frozen=True)
class Degraded:
    """The pictures of one task and seed after the degradation.

    Attributes:
        y: Observations, (N, C, h, w).
        initial: Observations at the size of the pictures, (N, C, H, W): what methods without an
            operator are given, and, clipped, the row ``input``.
        operators: Operator of each picture, with everything that was drawn at random.
        seeds: Seed of the noise of each picture.
    """

    y: Observed
    initial: Images
    operators: tuple[Operator, ...]
    seeds: tuple[int, ...]

    @cached_property
    def same(self) -> bool:
        """Whether the same happened to all pictures."""
        return len({(operator.describe(), digest(operator)) for operator in self.operators}) == 1


@dataclass(frozen=True)
class Handed:
    """What a method is handed of a batch of pictures.

    Attributes:
        rows: Places of the pictures in the set.
        images: Observations, (B, C, h, w).
        operator: Operator that the method is given; None if it is given none.
        sigma: Noise level that it is given; None if it is given none.
    """

    rows: slice
    images: Tensor
    operator: Operator | None = None
    sigma: float | None = None


@torch.no_grad()
def degrade(task: Task, truth: Images, seed: int) -> Degraded:
    """Degrade the clean pictures of a task.

    The observation of picture i depends on ``seed`` and i alone. Noise, operators and methods have
    seeds of their own, so that no method starts from the very noise that is in its observation.

    Args:
        task: The task, without lengths in braces.
        truth: Clean pictures, (N, C, H, W), in [0, 1].
        seed: Seed of the cell.

    Raises:
        OperatorError: The recipe cannot be read.
    """
    seeds = benchmark_seeds(seed, len(truth), "degradation")
    recipe, operators, observations, initial = Recipe.parse(task.recipe), [], [], []
    for x, own_seed in zip(truth, seeds, strict=True):
        drawn = recipe.build(own_seed + OPERATORS_APART)
        operator = drawn.to(truth.device).requires_grad_(False)
        draw = Draw(torch.Generator().manual_seed(own_seed), 1, truth.device)
        y = operator.degrade(x[None], draw)
        operators.append(operator)
        observations.append(y)
        initial.append(operator.initial(y))
    return Degraded(
        torch.cat(observations),
        torch.cat(initial).expand(-1, truth.shape[1], -1, -1),
        tuple(operators),
        tuple(seeds),
    )


def hand_over(degraded: Degraded, cell: Cell, batch: int) -> Iterator[Handed]:
    """Yield what the method of a cell is handed, batch by batch.

    The true operators appear under ``knowledge = "exact"`` and nowhere else. Where they differ
    from picture to picture, such a row takes the pictures one by one.

    Args:
        degraded: The degraded pictures.
        cell: The cell.
        batch: Number of pictures that run together.

    Raises:
        NoForm: The row needs a form, and the task has none.
    """
    knowledge, sigma = cell.given.knowledge, cell.task.sigma if cell.given.sigma else None
    images, form, size = degraded.initial, None, batch
    if knowledge == "form":
        form = form_of(cell.task, cell.row, cell.seed).to(degraded.y.device)
        images = degraded.initial if cell.row.form else degraded.y
    elif knowledge == "exact":
        images, size = degraded.y, batch if degraded.same else 1
    for start in range(0, len(images), size):
        rows = slice(start, start + size)
        operator = degraded.operators[start] if knowledge == "exact" else copy.deepcopy(form)
        yield Handed(rows, images[rows], operator, sigma)


def form_of(task: Task, row: Row, seed: int) -> Operator:
    """Return the form of the degradation that a row is given.

    Raises:
        NoForm: Neither the row nor the task has one.
    """
    form = row.form or task.form
    if form is None:
        raise NoForm(f"the task {task.name} has no form that {row.name} could be given")
    return Recipe.parse(form).form(seed)
