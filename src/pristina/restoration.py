"""From a picture to a restored picture: the one call that does everything in between."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from pristina.errors import InputError, SettingError
from pristina.image.fit import fit
from pristina.image.picture import Picture
from pristina.methods.base import Cost, Result
from pristina.methods.index import Entry, method
from pristina.operators.base import Observation, Operator
from pristina.operators.index import parse_recipe
from pristina.priors.base import Prior
from pristina.priors.load import load_prior
from pristina.types import OnStep, generators


@dataclass(frozen=True)
class Restored:
    """A restored picture and how it came about.

    Attributes:
        picture: The restored picture, with the alpha, the EXIF block and the greyness of the one that came in.
        result: What the method found, at the size at which it worked.
        notes: What the user should know, in sentences.
        inputs: Everything that went in, ready for JSON.
    """

    picture: Picture
    result: Result
    notes: list[str] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)

    @property
    def operator(self) -> Operator | None:
        """The estimated degradation, if the method has one."""
        return self.result.operator

    @property
    def cost(self) -> Cost:
        """Network calls, seconds, memory."""
        return self.result.cost

    def record(self) -> dict[str, Any]:
        """All that is needed to run it again, and what came out, ready for JSON."""
        return {**self.inputs, "notes": self.notes, "result": self.result.record()}


def make_settings(entry: Entry, preset: str | None = None, changes: Mapping[str, Any] | None = None) -> Any:
    """The settings of a method: a preset (or the defaults) with some fields changed.

    Args:
        entry: The method.
        preset: The preset's name; None for the defaults.
        changes: Field to value; text is converted to the field's type.

    Raises:
        SettingError: There is no such preset or field, or a value is out of range.
    """
    settings = entry.preset(preset)
    kinds = get_type_hints(type(settings))
    names = [f.name for f in dataclasses.fields(settings)]
    converted = {}
    for name, value in (changes or {}).items():
        if name not in names:
            raise SettingError(f"{entry.name} has no setting {name!r}; it has {', '.join(names)}.")
        converted[name] = _convert(name, value, kinds[name]) if isinstance(value, str) else value
    return dataclasses.replace(settings, **converted)


def _convert(name: str, text: str, kind: Any) -> Any:
    options = get_args(kind)
    if type(None) in options and text.lower() == "none":
        return None
    if get_origin(kind) is tuple:
        return tuple(_convert(name, part, options[0]) for part in text.split(","))
    if bool in (kind, *options) and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        if number in (kind, *options):
            try:
                return number(text)
            except ValueError:
                continue
    if kind is str or str in options or text in options:
        return text
    wanted = " or ".join(str(getattr(o, "__name__", o)) for o in (options or (kind,)))
    raise SettingError(f"{name} must be {wanted}; {text!r} is not.")


def best_device(device: str) -> torch.device:
    """The device that ``auto`` means here, or the one named.

    Raises:
        SettingError: It is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise SettingError(f"device {device!r} cannot be used here; try auto or cpu.") from error
    return found


def restore(
    picture: str | Path | Picture | Tensor,
    *,
    method: str = "diip",
    prior: str | Path | Prior = "faces",
    operator: Operator | str | None = None,
    preset: str | None = None,
    settings: Mapping[str, Any] | Any | None = None,
    seed: int = 0,
    device: str = "auto",
    on_step: OnStep | None = None,
) -> Restored:
    """A restored picture.

    Args:
        picture: A file, a :class:`Picture`, or pixels (3, H, W) in [0, 1].
        method: One of :data:`pristina.methods.index.METHODS`.
        prior: A shipped name, a weight file, or a prior.
        operator: The form of the damage for methods that use it, as an operator or a recipe; None when nothing is known.
        preset: Named settings of the method, such as ``paper``.
        settings: A settings object, or single settings by name, over those of the preset.
        seed: Of everything that is drawn.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        on_step: Called after each step; may raise :class:`pristina.errors.Cancelled`, which keeps the best result so far.

    Returns:
        The picture at the size it came in (or at the size the operator implies), the method's result, and a record.

    Raises:
        PictureError: The file cannot be read.
        SettingError: A name or a value is wrong.
        SizeError: The prior cannot take a picture of this shape.

    Example:
        >>> import torch
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> done = restore(torch.rand(3, 20, 12), method="mmse", prior=GaussianPrior(variance=0.2))
        >>> done.picture.size, done.cost.network_calls
        ((20, 12), 1)
    """
    where = best_device(device)
    entry = _method(method, operator)
    chosen = settings if isinstance(settings, entry.settings) else make_settings(entry, preset, settings)
    source: dict[str, Any] = {}
    if isinstance(picture, (str, Path)):
        source = {"file": str(picture), "sha256": hashlib.sha256(Path(picture).read_bytes()).hexdigest()} if Path(picture).is_file() else {}
        picture = Picture.open(picture)
    elif isinstance(picture, Tensor):
        picture = Picture.from_pixels(picture)
    recipe = operator if isinstance(operator, str) or operator is None else operator.describe()
    form = parse_recipe(operator, seed, unknown=True) if isinstance(operator, str) else operator
    loaded = load_prior(prior, device=where)
    notes = list(picture.notes)

    y = picture.pixels[None].to(where)
    rule = loaded.size_rule
    if form is None:
        y, back, note = fit(y, multiple=rule.multiple, minimum=rule.minimum, native=rule.native, fixed=rule.fixed)
        notes += [note] if note else []
    else:
        form = form.to(where)

        def back(x: Tensor) -> Tensor:
            return x

    if loaded.channels == 1:
        y = y.mean(1, keepdim=True)
    result = entry.function(Observation(y, form), loaded, chosen, generator=generators(seed, 1), on_step=on_step)
    restored = back(result.picture)[0]
    inputs = {
        "pristina": version("pristina"),
        "input": {**source, "size": list(picture.size)},
        "method": method,
        "prior": str(prior) if isinstance(prior, (str, Path)) else type(prior).__name__,
        "prior_source": dict(getattr(loaded, "source", {})),
        "domain": loaded.domain,
        "recipe": recipe,
        "preset": preset,
        "settings": dataclasses.asdict(chosen),
        "seed": seed,
        "machine": {
            "device": str(where),
            "dtype": str(getattr(loaded, "dtype", torch.float32)).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "processor": platform.machine(),
        },
    }
    return Restored(picture.with_pixels(restored), result, notes, inputs)


def _method(name: str, operator: Operator | str | None) -> Entry:
    entry = method(name)
    if entry.operator == "required" and operator is None:
        raise InputError(f"{name} must be told the form of the damage: give an operator, for example 'blur:sigma=2 | noise:sigma=0.05'.")
    if entry.operator == "never" and operator is not None:
        raise InputError(f"{name} does not use the form of the damage; leave the operator out, or take a method that does.")
    return entry
