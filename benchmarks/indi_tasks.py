"""InDI's tasks: recipes, measured kernels and pairs of real pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.common import pairs_of, picture_of, pictures_of
from benchmarks.restorers import Case, observe
from torch import Tensor

from pristina.operators.base import Operator
from pristina.operators.blur import KernelBlur
from pristina.operators.kernels import load_kernels
from pristina.operators.recipe import Recipe

RECIPES = {
    "JPEG 10": "jpeg:quality=10",
    "JPEG 20": "jpeg:quality=20",
    "JPEG 40": "jpeg:quality=40",
    "JPEG 95": "jpeg:quality=95",
    "noise 15": f"noise:sigma={15 / 255}",
    "noise 25": f"noise:sigma={25 / 255}",
    "noise 50": f"noise:sigma={50 / 255}",
    "defocus 2 px": "defocus:radius=2,size=9",
    "x4 bicubic": "bicubic:factor=4",
    "mixed": f"blur:sigma=1.2,size=9 | noise:sigma={12 / 255} | jpeg:quality=35",
}


def damages(
    clean: Sequence[Tensor], kernels: Path | None, folders: Mapping[str, Path | None], size: int
) -> Iterator[tuple[str, Callable[[], list[Case]]]]:
    """Yield the name of each task and a function that makes its cases."""
    n = len(clean)

    def cases(operators: Sequence[Operator]) -> list[Case]:
        pairs = enumerate(zip(clean, operators, strict=True))
        return [observe(x, operator, 1000 + i) for i, (x, operator) in pairs]

    def from_recipe(text: str) -> list[Case]:
        return cases([Recipe.parse(text).build(1000 + i) for i in range(n)])

    def from_kernels(path: Path) -> list[Case]:
        blurs = [KernelBlur(kernel) for kernel in load_kernels(path)]
        return cases([blurs[i % len(blurs)] for i in range(n)])

    def from_folder(folder: Path, ending: str) -> list[Case]:
        pairs = pairs_of(folder, ending)
        return [Case(picture_of(x, size), picture_of(y, size)) for x, y in pairs]

    for task, text in RECIPES.items():
        yield task, partial(from_recipe, text)
    if kernels:
        yield "camera shake", partial(from_kernels, kernels)
    yield "clean", lambda: [Case(x, x) for x in clean]
    for task, folder in folders.items():
        if folder:
            yield task, partial(from_folder, folder, {"real noise": "noisy"}.get(task, task))


def cases_of(pictures: Path, count: int, size: int, recipe: str) -> list[Case]:
    parsed = Recipe.parse(recipe)
    clean = enumerate(pictures_of(pictures, count, size))
    return [observe(x, parsed.build(1000 + i), 1000 + i) for i, x in clean]
