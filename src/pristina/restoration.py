"""From a picture to a restored picture: the one call that does everything in between."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pristina.auto import choose
from pristina.errors import InputError, SettingError, SizeError
from pristina.image.fit import fit
from pristina.image.look import look
from pristina.image.picture import MAX_PIXELS, Picture
from pristina.methods.base import Cost, Result
from pristina.methods.index import Entry, make_settings, method
from pristina.methods.uncertainty import sampled
from pristina.operators.base import Observation, Operator
from pristina.operators.index import parse_recipe
from pristina.operators.noise import GaussianNoise, Noise
from pristina.operators.tone import Grey
from pristina.priors.base import Prior, SizeRule
from pristina.priors.direct import ConditionalPrior, DirectPrior
from pristina.priors.load import kind_of, load_weights
from pristina.types import OnStep, generators

PRIORS = {"diffusion": "faces", "direct": "photos-blind", "none": None}
"""The weights that are taken for a method when none are named."""
MAX_SAMPLES = 1000
"""They are restored side by side, and must fit into the memory together."""


@dataclass(frozen=True)
class Restored:
    """A restored picture and how it came about.

    Attributes:
        picture: The restored picture, with the alpha, the EXIF block and the greyness of the one that came in.
        result: What the method found, at the size at which it worked.
        notes: What the user should know, in sentences.
        inputs: Everything that went in, ready for JSON.
        std: Of several samples, the standard deviation of each pixel, (3, H, W), in [0, 1] units; None if there is one.
    """

    picture: Picture
    result: Result
    notes: list[str] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)
    std: Tensor | None = None

    @property
    def operator(self) -> Operator | None:
        """The estimated degradation, if the method has one."""
        return self.result.operator

    @property
    def cost(self) -> Cost:
        """Network calls, seconds, memory."""
        return self.result.cost

    @property
    def operator_std(self) -> dict[str, Any]:
        """Of several samples, the standard deviation of each number that the operator estimates, by name."""
        return {name.removeprefix("std_"): value[0].tolist() for name, value in self.result.extras.items() if name.startswith("std_")}

    def record(self) -> dict[str, Any]:
        """All that is needed to run it again, and what came out, ready for JSON."""
        return {**self.inputs, "notes": self.notes, "result": self.result.record(), "operator_std": self.operator_std}


def best_device(device: str) -> torch.device:
    """The device that ``auto`` means here, or the one named.

    Raises:
        SettingError: It is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.zeros(1, device=device)
        found.cpu()  # nothing comes back from the device "meta"
    except (RuntimeError, AssertionError) as error:
        raise SettingError(f"device {device!r} cannot be used here; try auto or cpu.") from error
    return found.device


def restore(
    picture: str | Path | Picture | Tensor,
    *,
    method: str = "auto",
    prior: str | Path | Prior | DirectPrior | ConditionalPrior | None = None,
    operator: Operator | str | None = None,
    preset: str | None = None,
    settings: Mapping[str, Any] | Any | None = None,
    seed: int = 0,
    samples: int = 1,
    device: str = "auto",
    on_step: OnStep | None = None,
) -> Restored:
    """A restored picture.

    Args:
        picture: A file, a :class:`Picture`, or pixels (3, H, W) in [0, 1].
        method: One of :data:`pristina.methods.index.METHODS`; or ``auto``, which looks at the picture and chooses, see
            :func:`pristina.auto.choose`.
        prior: A shipped name, a weight file, or a prior; None takes :data:`PRIORS`.
        operator: The form of the damage for methods that use it, as an operator or a recipe; None when nothing is known. Methods that must
            be told the strength of the noise take it from the white noise at its end. Where it takes the colour (``grey``), a picture
            without colour is restored in colour.
        preset: Named settings of the method, such as ``paper``.
        settings: A settings object, or single settings by name, over those of the preset.
        seed: Of everything that is drawn.
        samples: How many restorations to draw, at most :data:`MAX_SAMPLES`; of several the picture is the mean, and :attr:`Restored.std`
            says how far they lie apart, see :func:`pristina.methods.uncertainty.sampled`.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        on_step: Called after each step; may raise :class:`pristina.errors.Cancelled`, which keeps the best result so far.

    Returns:
        The picture at the size it came in (or at the size the operator implies), the method's result, and a record.

    Raises:
        PictureError: The file cannot be read.
        SettingError: A name or a value is wrong.
        SizeError: The prior cannot take a picture of this shape.
        InputError: The operator does not suit the method, or the method ran out of bounds.

    Example:
        >>> import torch
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> done = restore(torch.rand(3, 20, 12), method="mmse", prior=GaussianPrior(variance=0.2))
        >>> done.picture.size, done.cost.network_calls
        ((20, 12), 1)
    """
    if not 1 <= samples <= MAX_SAMPLES:
        raise SettingError(f"samples must lie between 1 and {MAX_SAMPLES}, not at {samples}.")
    random, where = generators(seed, 1), best_device(device)
    source: dict[str, Any] = {}
    if isinstance(picture, (str, Path)):
        source = {"file": str(picture), "sha256": hashlib.sha256(Path(picture).read_bytes()).hexdigest()} if Path(picture).is_file() else {}
        picture = Picture.open(picture)
    elif isinstance(picture, Tensor):
        picture = Picture.from_pixels(picture)
    notes, seen = list(picture.notes), None
    if method == "auto":
        if operator is not None or preset is not None or settings:
            raise SettingError("An operator, a preset and settings belong to a method: name it too, for example --method bird.")
        seen = look(picture)
        choice = choose(seen) if prior is None else choose(seen, kind_of(prior), _name(prior))
        method, settings = choice.method, choice.settings
        if prior is None or method == "nothing":
            prior = choice.prior
        notes.append(choice.why)
    entry = _method(method, operator)
    if settings is not None and not isinstance(settings, Mapping):
        if preset is not None or not isinstance(settings, entry.settings):
            raise SettingError(f"{method} takes settings by name, or a {entry.settings.__name__} without a preset beside it.")
        settings = vars(settings)
    chosen = make_settings(entry, preset, settings)
    if prior is None and entry.prior not in PRIORS:
        raise SettingError(
            f"No weights for {method} come with pristina: train some (pristina train conditional) and name them with --prior."
        )
    prior = PRIORS[entry.prior] if prior is None or entry.prior == "none" else prior
    recipe = operator if isinstance(operator, str) or operator is None else operator.describe()
    form = _form(operator, seed) if isinstance(operator, str) else operator
    loaded = load_weights(entry.prior, prior, device=where)

    y = picture.pixels[None].to(where)
    if form is not None:
        form = form.to(where)
        size = form.picture_size(*y.shape[-2:])
        if size[0] * size[1] > MAX_PIXELS:
            raise SizeError(f"The restored picture would have {size[1]} x {size[0]} px, more than {MAX_PIXELS:,}; take a smaller factor.")
        if entry.operator == "size":
            if size == y.shape[-2:]:
                raise InputError(
                    f"{method} uses an operator only to learn the picture's size, as with bicubic:factor=4, and {form.describe()!r} does not "
                    "change it; leave it out, or take a method that uses it."
                )
            y, form = Observation(y, form).initial(), None
    rule = SizeRule() if loaded is None else loaded.size_rule
    if form is not None and any(isinstance(part, Grey) for part in form.modules()) and (y == y[:, :1]).all():
        y, picture = y[:, :1], dataclasses.replace(picture, grey=False)
    if form is None:
        y, back, note = fit(y, multiple=rule.multiple, minimum=rule.minimum, native=rule.native, fixed=rule.fixed)
        notes += [note] if note else []
    else:

        def back(x: Tensor) -> Tensor:
            return x

    if loaded is not None and loaded.channels == 1:
        y = y.mean(1, keepdim=True)
    observation = Observation(y, form, _known_sigma(entry, chosen, form))
    if samples == 1:
        result = entry.function(observation, loaded, chosen, generator=random, on_step=on_step)
    else:
        result = sampled(entry.function, observation, loaded, chosen, samples=samples, generator=random, on_step=on_step)
    restored = back(result.picture)[0].expand(3, -1, -1)
    if not restored.isfinite().all():
        raise InputError(f"{method} ran out of bounds, and its picture holds NaN or infinity; take smaller steps, or the default settings.")
    std = back(result.extras["std"])[0].expand(3, -1, -1).cpu() if samples > 1 else None
    if std is not None and not std.any():
        notes.append(f"Nothing is drawn with these settings: all {samples} samples are the same, and do not say how sure {method} is.")
    inputs = {
        "pristina": version("pristina"),
        "input": {**source, "size": list(picture.size)},
        "method": method,
        "prior": None if prior is None else _name(prior),
        "prior_source": dict(getattr(loaded, "source", {})),
        "domain": "" if loaded is None else loaded.domain,
        "seen": None if seen is None else dataclasses.asdict(seen),
        "recipe": recipe,
        "preset": preset,
        "settings": result.record()["settings"],
        "seed": seed,
        "samples": samples,
        "machine": {
            "device": str(where),
            "dtype": str(getattr(loaded, "dtype", torch.float32)).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "processor": platform.machine(),
        },
    }
    return Restored(picture.with_pixels(restored), result, notes, inputs, std)


def _name(prior: Any) -> str:
    return str(prior) if isinstance(prior, str | Path) else type(prior).__name__


def _method(name: str, operator: Operator | str | None) -> Entry:
    entry = method(name)
    if entry.operator == "required" and operator is None:
        raise InputError(f"{name} must be told the form of the damage: give an operator, for example 'blur:sigma=2 | noise:sigma=0.05'.")
    if entry.operator == "never" and operator is not None:
        raise InputError(f"{name} does not use the form of the damage; leave the operator out, or take a method that does.")
    return entry


def _form(recipe: str, seed: int) -> Operator:
    """The form of the damage; a mask's holes are no part of what this run draws."""
    form = parse_recipe(recipe, seed, unknown=True)
    if re.search(r"mask\s*:(?![^|]*\bseed\s*=)[^|]*\bdrop\s*=", recipe):
        raise InputError("Which pixels are lost must be known: give mask the seed with which they were drawn, as in mask:drop=0.5,seed=0.")
    return form


def _known_sigma(entry: Entry, settings: Any, form: Operator | None) -> float | None:
    """The strength of the noise, for the methods that must be told it: of white noise at the end of the damage, if there is no other."""
    if not entry.oracle or getattr(settings, "sigma", "") == "estimated":
        return None
    *others, last = [None] if form is None else form.parts
    if not isinstance(last, GaussianNoise) or any(isinstance(part, Noise) for part in others):
        raise InputError(
            f"{entry.name} must be told how strong the noise is: end the operator with it, once, as in 'blur:sigma=2 | noise:sigma=0.05'."
        )
    return float(last.sigma())
