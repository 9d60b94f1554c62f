"""What is measured: suites, read from small TOML files, and the pictures and degradations they name."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pristina.errors import InputError, MissingExtra, SettingError, SizeError
from pristina.image.picture import Picture
from pristina.methods.index import make_settings, method
from pristina.operators.base import Operator
from pristina.operators.index import parse_recipe
from pristina.priors.base import Prior
from pristina.types import Draw

SUITES = Path(__file__).parent / "suites"
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
Crop = Literal["whole", "centre"]
Told = Literal["", "nothing", "form", "truth"]
Metric = Literal[
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


@dataclass(frozen=True)
class PictureSet:
    """The clean pictures.

    Attributes:
        folder: Where they are; sub-folders included, sorted by path.
        builtin: Or pictures of scikit-image, as ``name`` or ``name@left,top,side``.
        count: How many, from the first; 0 takes all.
        size_px: Their side; 0 takes what the prior was trained at, or 64. A prior of one size has the last word.
        crop: ``whole``: the largest centred square, reduced (aligned faces). ``centre``: that many pixels from the middle, untouched.
    """

    folder: Path | None = None
    builtin: tuple[str, ...] = ()
    count: int = 0
    size_px: int = 0
    crop: Crop = "whole"


@dataclass(frozen=True)
class Task:
    """One degradation.

    Attributes:
        name: A word for files and tables.
        recipe: What happens to the pictures, see :func:`pristina.operators.index.parse_recipe`. Lengths in braces are pixels of a picture
            of 64 px and grow with the pictures: ``{1.6}`` a length, ``{21}`` an odd whole number, ``{size}`` the side itself.
        title: How tables call it.
        form: What the methods that know the form of the degradation are told: a recipe with first guesses. None: there is no such form.
        sigma: The noise in it, in [0, 1] units, for the methods that must be told; None if it has no such number.
    """

    name: str
    recipe: str
    title: str = ""
    form: str | None = None
    sigma: float | None = None

    def at(self, size_px: int) -> Task:
        """The task for pictures of ``size_px``, with nothing in braces left."""
        return replace(self, recipe=scaled(self.recipe, size_px), form=self.form and scaled(self.form, size_px))


def scaled(recipe: str, size_px: int) -> str:
    """A recipe with the lengths in braces at the scale of pictures of ``size_px``."""

    def number(found: re.Match[str]) -> str:
        text = found[1]
        if text == "size":
            return str(size_px)
        length = float(text) * size_px / 64
        return f"{length:.4g}" if "." in text else str(2 * round((length - 1) / 2) + 1)

    return re.sub(r"\{(size|[0-9.]+)\}", number, recipe)


@dataclass(frozen=True)
class Row:
    """One method as it stands in the tables.

    Attributes:
        method: Its name in :data:`pristina.methods.index.METHODS`, or ``input`` for the observation itself.
        name: A word for files, unique in the suite; the method's if empty.
        label: How tables call it; the name if empty.
        preset: Named settings.
        settings: Single settings over those.
        told: What it knows of the degradation: ``nothing``; its ``form``; or the ``truth``, which makes it an oracle. "" takes what the
            method needs at least.
        form: A recipe that it is told instead of the task's form, whatever the task: how the observation, brought to picture size, is
            taken to have come about. For methods that know one form only.
        told_sigma: Whether it is told the true noise level; None: if it must be.
        oracle_stop: Also list its best iterate, chosen by the truth: what a perfect stopping rule would give.
        prior: Its own weights, where the suite's prior is not what it takes.
        tasks: Only these; all if empty.
    """

    method: str
    name: str = ""
    label: str = ""
    preset: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    told: Told = ""
    form: str | None = None
    told_sigma: bool | None = None
    oracle_stop: bool = False
    prior: str | None = None
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """Numbers from papers, shown beside ours and never mixed with them.

    Attributes:
        source: Where they stand and on what data they were measured.
        metrics: What the numbers are.
        values: Row to task to numbers, in the order of ``metrics``.
    """

    source: str
    metrics: tuple[Metric, ...]
    values: Mapping[str, Mapping[str, tuple[float, ...]]]

    def of(self, row: str, task: str, metric: str) -> float | None:
        """One number, if the paper has it."""
        numbers = self.values.get(row, {}).get(task)
        return None if numbers is None or metric not in self.metrics else numbers[self.metrics.index(metric)]


@dataclass(frozen=True)
class Suite:
    """Pictures x degradations x methods x seeds.

    Attributes:
        name: The file's name, unless the file gives another.
        title: One line.
        about: What the tables show and what to read into them.
        pictures: The clean pictures.
        prior: A shipped name or a weight file.
        seeds: One cell is run for each.
        tasks: The columns.
        rows: The rows, ``methods`` in the file; the input and ``mmse`` are always among them.
        metrics: What tables show, of the metrics in each cell.
        batch: Pictures that run together.
        published: Numbers from papers.
    """

    name: str
    title: str
    tasks: tuple[Task, ...]
    rows: tuple[Row, ...] = field(default=(), metadata={"key": "methods"})
    about: str = ""
    pictures: PictureSet = PictureSet()
    prior: str = "faces"
    seeds: tuple[int, ...] = (0,)
    metrics: tuple[Metric, ...] = ("psnr", "ssim", "haarpsi")
    batch: int = 16
    published: Published | None = None

    def with_changes(
        self,
        *,
        pictures: Path | None = None,
        prior: str | None = None,
        count: int | None = None,
        size: int | None = None,
        crop: Crop | None = None,
        tasks: Sequence[str] = (),
        methods: Sequence[str] = (),
    ) -> Suite:
        """The same suite on other pictures, with another prior, number or size of pictures, or way to cut them; or a part of it.

        ``tasks`` and ``methods`` name the tasks and rows to keep, all if empty; the input and ``mmse`` stay in any case.

        Raises:
            SettingError: A number is too small, or the suite has no such task or row.
        """
        chosen = self.pictures
        if pictures is not None:
            chosen = replace(chosen, folder=pictures, builtin=())
        if count is not None:
            if count < 1:
                raise SettingError(f"count must be at least 1, not {count}.")
            chosen = replace(chosen, count=count)
        if size is not None:
            if size < 1:
                raise SettingError(f"size must be at least 1 px, not {size}.")
            chosen = replace(chosen, size_px=size)
        if crop is not None:
            chosen = replace(chosen, crop=crop)
        rows = [row.name for row in self.rows]
        for what, wanted, there in (("task", tasks, [task.name for task in self.tasks]), ("method", methods, rows)):
            if unknown := set(wanted) - set(there):
                raise SettingError(f"{self.name} has no {what} {', '.join(sorted(unknown))}; it has {', '.join(there)}.")
        return replace(
            self,
            pictures=chosen,
            prior=prior or self.prior,
            tasks=tuple(task for task in self.tasks if task.name in tasks or not tasks),
            rows=tuple(row for row in self.rows if row.name in ("input", "mmse", *methods) or not methods),
        )


def suite_names() -> list[str]:
    """The suites that come with pristina."""
    return sorted(path.stem for path in SUITES.glob("*.toml"))


def load_suite(source: str | Path) -> Suite:
    """The suite called ``source``, or in the TOML file ``source``.

    Raises:
        SettingError: There is no such suite, or the file says something that a suite does not have.
    """
    path = SUITES / f"{source}.toml" if str(source) in suite_names() else Path(source)
    if not path.is_file():
        raise SettingError(f"{source} is neither a suite ({', '.join(suite_names())}) nor a TOML file.")
    try:
        said = tomllib.loads(path.read_text("utf-8"))
    except ValueError as error:  # of its bytes, or of its grammar
        raise SettingError(f"{path} is not valid TOML: {error}.") from error
    try:
        suite: Suite = _read({"name": path.stem, **said}, Suite, "")
        folder = suite.pictures.folder and path.parent / suite.pictures.folder
        suite = replace(suite, rows=_complete(suite.rows), pictures=replace(suite.pictures, folder=folder))
        _check(suite)
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from error
    return suite


def _read(said: Any, kind: Any, key: str) -> Any:
    """What a TOML file says under ``key``, as ``kind``: tables become dataclasses and lists tuples.

    Raises:
        SettingError: It is something else.
    """
    origin, inner = get_origin(kind) or kind, [k for k in get_args(kind) if k is not NoneType]
    if is_dataclass(kind) and isinstance(said, dict):
        return _read_table(said, kind, key)
    if origin is UnionType:
        return _read(said, inner[0], key)
    if origin is tuple and isinstance(said, list):
        return tuple(_read(one, inner[0], f"{key}[{i}]") for i, one in enumerate(said))
    if origin is Mapping and isinstance(said, dict):
        return {name: _read(value, inner[1], f"{key}.{name}") for name, value in said.items()}
    if kind is Path and isinstance(said, str):
        return Path(said)
    if kind is Any or type(said) is kind or (kind is float and type(said) is int) or (origin is Literal and said in inner):
        return said
    choices = " or ".join(repr(k) for k in inner) if origin is Literal else "a list" if origin is tuple else "a table"
    raise SettingError(f"{key} must be {_WORDS.get(kind, choices)}, not {said!r}.")


_WORDS = {str: "a text", Path: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def _read_table(said: dict[str, Any], kind: Any, key: str) -> Any:
    kinds, known = get_type_hints(kind), {f.metadata.get("key", f.name): f for f in fields(kind)}
    where = key or "a suite"
    if unknown := [name for name in said if name not in known]:
        raise SettingError(f"{where} has no {unknown[0]!r}; it has {', '.join(known)}.")
    required = [name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in required if name not in said]:
        raise SettingError(f"{where} needs {' and '.join(missing)}.")
    return kind(**{(f := known[name]).name: _read(value, kinds[f.name], f"{key}.{name}".lstrip(".")) for name, value in said.items()})


def _complete(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Rows with names and labels, after the input and the one-call baseline, which every table has."""
    baselines = [Row("input", label="input"), Row("mmse", label="mmse (one call)")]
    missing = [b for b in baselines if b.method not in [r.method for r in rows]]
    named = (replace(r, name=r.name or r.method) for r in (*missing, *rows))
    return tuple(replace(r, label=r.label or r.name) for r in named)


def _check(suite: Suite) -> None:
    for what, names in (("tasks", [t.name for t in suite.tasks]), ("methods", [r.name for r in suite.rows])):
        if len(names) != len(set(names)) or not names:
            raise SettingError(f"{what} need names of their own; these are {', '.join(names) or 'none'}.")
        for name in names:
            if not re.fullmatch(r"[A-Za-z0-9_.+-]+", name):
                raise SettingError(f"{name!r} cannot name a file; use letters, digits and _ . + -")
    tasks = [t.name for t in suite.tasks]
    for row in suite.rows:
        if row.method != "input":
            try:
                make_settings(method(row.method), row.preset, row.settings)
            except SettingError as error:
                raise SettingError(f"{row.name}: {error}") from error
        if unknown := set(row.tasks) - set(tasks):
            raise SettingError(f"{row.name} names the tasks {', '.join(sorted(unknown))}; there are {', '.join(tasks)}.")
    if not suite.seeds or not suite.metrics or suite.batch < 1 or min(suite.pictures.count, suite.pictures.size_px) < 0:
        raise SettingError("a suite needs a seed, a metric, a batch of at least one picture, and no count or size below 0.")
    if suite.published:
        for name, found in suite.published.values.items():
            for task, numbers in found.items():
                if len(numbers) != (n := len(suite.published.metrics)):
                    raise SettingError(f"published.values.{name}.{task} holds {len(numbers)} numbers; published.metrics names {n}.")


def picture_size(pictures: PictureSet, prior: Prior) -> int:
    """The side at which a suite runs, in pixels."""
    rule = prior.size_rule
    if rule.fixed and rule.native:
        return rule.native
    return pictures.size_px or rule.native or 64


def load_pictures(pictures: PictureSet, size_px: int) -> tuple[list[str], Tensor]:
    """The names of the clean pictures and their pixels, (N, 3, size_px, size_px), in [0, 1].

    Raises:
        InputError: The folder holds no pictures, or fewer than asked for.
        PictureError: A file cannot be read.
        SizeError: A picture is smaller than the crop.
    """
    named: list[tuple[str, Any]]
    if pictures.folder is not None:
        if not pictures.folder.is_dir():
            raise InputError(f"{pictures.folder} is not a folder of pictures.")
        named = [(str(p.relative_to(pictures.folder)), p) for p in sorted(pictures.folder.rglob("*")) if p.suffix.lower() in SUFFIXES]
    elif pictures.builtin:
        named = [(name, name) for name in pictures.builtin]
    else:
        raise InputError("This suite brings no pictures of its own, for they must suit the prior; give --pictures FOLDER.")
    if not named or len(named) < pictures.count:
        raise InputError(f"{pictures.folder or 'The suite'} holds {len(named)} pictures; {pictures.count or 'at least 1'} are needed.")
    named = named[: pictures.count or None]
    cut = [_square(name, _builtin(source) if isinstance(source, str) else _open(source), pictures.crop, size_px) for name, source in named]
    return [name for name, _ in named], torch.stack(cut)


def _open(path: Path) -> Image.Image:
    return replace(Picture.open(path), alpha=None, grey=False).to_pillow()


def _builtin(text: str) -> Image.Image:
    """A picture that comes with scikit-image, or a square of it."""
    try:
        from skimage import data
    except ImportError as error:
        raise MissingExtra("Built-in pictures come with scikit-image: pip install 'pristina[bench]'; or give --pictures FOLDER.") from error
    name, _, box = text.partition("@")
    if not hasattr(data, name):
        raise SettingError(f"scikit-image has no picture {name!r}.")
    image = Image.fromarray(getattr(data, name)()).convert("RGB")
    if not box:
        return image
    try:
        left, top, side = (int(n) for n in box.split(","))
    except ValueError:
        raise SettingError(f"{text!r}: a square of a picture is written name@left,top,side in pixels.") from None
    return image.crop((left, top, left + side, top + side))


def _square(name: str, image: Image.Image, crop: Crop, size_px: int) -> Tensor:
    side = min(image.size) if crop == "whole" else size_px
    if min(image.size) < size_px:
        raise SizeError(f"{name} is {image.width} x {image.height} px, too small for squares of {size_px} px; nothing is enlarged.")
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    image = image.crop(box) if side == size_px else image.resize((size_px, size_px), Image.Resampling.LANCZOS, box)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


@dataclass(frozen=True)
class Degraded:
    """The pictures of one task and seed after the damage.

    Attributes:
        y: The observations, (N, C, h, w).
        initial: The observations at picture size and in colour, (N, 3, H, W): what methods that know nothing are given, and, clipped, the
            row ``input``.
        operators: What happened to each picture.
        same: Whether that was the same for all.
        seeds: Of the noise of each picture.
    """

    y: Tensor
    initial: Tensor
    operators: list[Operator]
    same: bool
    seeds: list[int]


def method_seeds(seed: int, n: int) -> list[int]:
    """The seed of each picture's method in cells of ``seed``."""
    return [10_000 * seed + i for i in range(n)]


@torch.no_grad()
def degrade(task: Task, truth: Tensor, seed: int) -> Degraded:
    """The observations of a task; picture i depends on ``seed`` and i alone.

    Noise, operators and methods are seeded apart, so that no method starts from the very noise that is in its observation.

    Raises:
        OperatorError: The recipe cannot be read.
    """
    n = len(truth)
    seeds = [10_000_000 + s for s in method_seeds(seed, n)]
    operators = [parse_recipe(task.recipe, 10_000_000 + s).to(truth.device).requires_grad_(False) for s in seeds]
    draws = [Draw(torch.Generator().manual_seed(s), 1, truth.device) for s in seeds]
    each = [o.degrade(x[None], draw) for o, x, draw in zip(operators, truth, draws, strict=True)]
    initial = torch.cat([o.initial(y) for o, y in zip(operators, each, strict=True)]).expand(-1, truth.shape[1], -1, -1)
    states = [(o.describe(), fingerprint(o)) for o in operators]
    return Degraded(torch.cat(each), initial, operators, len(set(states)) == 1, seeds)


def fingerprint(*things: Tensor | torch.nn.Module) -> str:
    """The sha256 of tensors, or of all weights of modules, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for thing in things:
        named = (
            {"": thing} if isinstance(thing, Tensor) else {type(thing).__name__: torch.zeros(0), **dict(sorted(thing.state_dict().items()))}
        )
        for name, tensor in named.items():
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
