"""Plans: what will be done to a picture and what it will cost, before anything is computed.

A :class:`~pristina.request.Request` says what a user asks for. :func:`plan` completes it for one
picture: method, settings, weights, size. :func:`pristina.restoration.run` carries the plan out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pristina.auto import READER, Look, choose, look_afresh
from pristina.device import best_device
from pristina.enlarging import Enlarging
from pristina.errors import InputError, SettingError
from pristina.estimates import Estimate, estimate_calls, estimate_steps
from pristina.filling import Filling
from pristina.image.blend import read_mask
from pristina.image.fit import Fit
from pristina.image.picture import Picture
from pristina.memory import within_memory
from pristina.methods.index import MethodEntry, method
from pristina.methods.steps.result import Calls
from pristina.operator_use import check_operator_use, check_output, known_sigma, takes_colour
from pristina.operators.base import Observation, Operator
from pristina.operators.recipe import Recipe
from pristina.priors.base import Prior, SizeRule
from pristina.priors.compose import PerChannel
from pristina.priors.load import kind_of, load_weights
from pristina.priors.windowed import Windowed, needs_windows
from pristina.reading import Reading, read_damage
from pristina.request import Request, plain
from pristina.settings import Settings
from pristina.stages import take_apart, weights_name

DEFAULT_WEIGHTS = {"diffusion": "photos", "direct": "blind", "operator": "reconstruct"}
"""Shipped weights that a method uses when none are named, by kind."""
SMALL_FACES = ("faces", (64, 64))
"""Shipped weights that take the place of ``photos``, and the only size of pictures for which."""


@dataclass(frozen=True)
class Plan:
    """What will be done to images of one size.

    Attributes:
        request: The request, with method and weights filled in.
        entry: Entry of the method.
        settings: Settings of the method.
        size: Height and width of the images as they come, in pixels.
        output_size: Height and width of the restored images.
        fit: How images are brought to the size at which the prior works.
        device: Device of the computation.
        prior: Loaded weights, with how much may go through their network at once; None if the
            method has none.
        weights_name: Name of the weights for records.
        extra_weights: Further loaded weights, by the keyword of the method that takes them.
        operator: Form of the degradation that the method is given; None if it is given none.
        enlarge: Operator from which only the size of the restored images is taken.
        known_sigma: Noise level that the method is given, in [0, 1] units.
        first_channel: Whether the method sees one channel only of a grey picture.
        reading: What was read in the picture, from which the method was chosen.
        reason: The note that says why the method was chosen; empty if it was named.
        protected: How far each pixel stays as it is, (1, H, W), in [0, 1]; None for not at all.
        filling: Holes that are filled before the method begins; None if there are none.
        enlarging: What enlarges the picture after the method; None if it keeps its size.
        notes: What the user should know, in sentences.
    """

    request: Request
    entry: MethodEntry
    settings: Settings
    size: tuple[int, int]
    output_size: tuple[int, int]
    fit: Fit
    device: torch.device
    prior: Any = None
    weights_name: str | None = None
    extra_weights: Mapping[str, Any] = field(default_factory=dict)
    operator: Operator | None = None
    enlarge: Operator | None = None
    known_sigma: float | None = None
    first_channel: bool = False
    reading: Reading | None = None
    reason: str = ""
    protected: Tensor | None = None
    filling: Filling | None = None
    enlarging: Enlarging | None = None
    notes: tuple[str, ...] = ()

    @property
    def leaves_alone(self) -> bool:
        """Whether the picture stays as it is."""
        return self.entry.name == "nothing" and self.only_method

    @property
    def only_method(self) -> bool:
        """Whether nothing is done around the method."""
        return self.filling is None and self.enlarging is None and not self.request.levels

    @property
    def work_size(self) -> tuple[int, int]:
        """Height and width at which the prior works."""
        return self.fit.work_height, self.fit.work_width

    @property
    def windows(self) -> int:
        """Number of windows in which the prior takes one image."""
        return 1 if self.prior is None else int(self.prior.calls_per_image(*self.work_size))

    @property
    def calls(self) -> Calls:
        """Network calls for one picture, with all windows and samples."""
        calls, n = self.entry.calls(self.settings), self.windows * self.request.samples
        return replace(calls, forward=n * calls.forward, backward=n * calls.backward)

    @property
    def pixels_at_once(self) -> int | None:
        """Number of pixels that may go through the network at once; None without a network."""
        return None if self.prior is None else self.prior.portions.pixels

    def estimate(self) -> Estimate:
        """Measure one network call, and estimate time and memory for one picture.

        A method without a network is run for three steps instead.
        """
        one = self._estimate_method()
        more = 0.0 if self.filling is None else self.filling.seconds()
        more += 0.0 if self.enlarging is None else self.enlarging.seconds(self.output_size)
        return replace(one, seconds=one.seconds + more)

    def _estimate_method(self) -> Estimate:
        if self.prior is not None:
            return estimate_calls(self.prior, self.calls, self.work_size, self.request.samples)
        y = torch.full((1, 3, *self.work_size), 0.5, device=self.device)
        one = estimate_steps(self.entry.function, Observation(y), self.settings)
        return replace(one, seconds=self.request.samples * one.seconds)

    def record(self) -> dict[str, Any]:
        """Return the plan ready for JSON."""
        form = self.enlarge if self.operator is None else self.operator
        return {
            "request": self.request.to_json(),
            "settings": asdict(self.settings),
            "weights": dict(getattr(self.prior, "source", {})),
            "domain": getattr(self.prior, "domain", ""),
            "operator": None if form is None else form.describe(),
            "size": list(self.size),
            "output_size": list(self.output_size),
            "work_size": list(self.work_size),
            "windows": self.windows,
            "pixels_at_once": self.pixels_at_once,
            "calls": asdict(self.calls),
            "reading": None if self.reading is None else asdict(self.reading),
        }


def plan(
    picture: Any,
    *,
    method: str = "auto",
    prior: Any = None,
    operator: Operator | Recipe | str | None = None,
    preset: str | None = None,
    settings: Mapping[str, Any] | Settings | None = None,
    seed: int = 0,
    samples: int = 1,
    device: str | torch.device = "auto",
    strength: float | None = None,
    grain: float = 0.0,
    protect: str | Path | None = None,
    deep: bool = False,
    mask: str | Path | None = None,
    scratches: bool = False,
    levels: bool = False,
    scale: int = 1,
    memory_bytes: int | None = None,
) -> Plan:
    """Plan the restoration of a picture.

    Args:
        picture: File, :class:`~pristina.image.picture.Picture`, or pixels, (3, H, W) in [0, 1].
        method: Name of a method, or ``auto``; see :data:`pristina.methods.index.METHODS`.
        prior: Shipped name, path, hub id, or loaded weights; None takes those that suit the method.
        operator: Form of the degradation, as an operator or a recipe; None when nothing is known.
        preset: Name of a preset of the method.
        settings: Settings object, or single settings by name, applied after the preset.
        seed: Random seed.
        samples: Number of restorations to draw.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        strength: Share of the change that is made, in [0, 1]; with it ``auto`` repairs a picture
            even where it sees no damage.
        grain: Share of the removed grain that is put back, in [0, 1].
        protect: Picture file, white where the picture is to stay as it is.
        deep: Whether a regressor averages over eight turned and mirrored copies.
        mask: Picture file, white where the picture is missing and is to be filled in.
        scratches: Whether scratches, dust, cracks and stains are looked for and filled in.
        levels: Whether faded colours are stretched, each channel by itself.
        scale: Number of times that the picture is enlarged after it was restored, 1 to 4.
        memory_bytes: Memory that the run may use; None takes half of what is free.

    Returns:
        The plan; nothing has been computed but what ``auto`` reads in the picture.

    Raises:
        PictureError: The file cannot be read.
        SettingError: A name or a value is wrong.
        SizeError: The prior cannot take a picture of this shape.
        InputError: The operator does not suit the method.

    Example:
        >>> import torch
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> made = plan(torch.rand(3, 20, 12), method="mmse", prior=GaussianPrior(variance=0.2))
        >>> made.entry.name, made.calls.forward, made.output_size
        ('mmse', 1, (20, 12))
    """
    picture = Picture.of(picture)
    operator = str(operator) if isinstance(operator, Recipe) else operator
    if operator is not None and not isinstance(operator, Operator | str):
        form = "an Operator, such as GaussianBlur(2.0), or a recipe, such as 'blur:sigma=2'"
        raise InputError(f"An operator is {form}, not {type(operator).__name__}.")
    request = Request(
        method=method,
        prior=str(prior) if isinstance(prior, str | Path) else None,
        recipe=operator if isinstance(operator, str) else None,
        preset=preset,
        settings=dict(settings) if isinstance(settings, Mapping) else {},
        seed=seed,
        samples=samples,
        device=str(device) if isinstance(device, torch.device) else device,
        strength=strength,
        grain=grain,
        protect=None if protect is None else str(protect),
        deep=deep,
        mask=None if mask is None else str(mask),
        scratches=scratches,
        levels=levels,
        scale=scale,
        memory_bytes=memory_bytes,
    )
    return plan_request(
        picture,
        request,
        weights=None if isinstance(prior, str | Path) else prior,
        operator=None if isinstance(operator, str) else operator,
        settings=None if isinstance(settings, Mapping) else settings,
    )


def plan_request(
    picture: Picture,
    request: Request,
    *,
    weights: Any = None,
    operator: Operator | None = None,
    settings: Settings | None = None,
    load: Callable[..., Any] = load_weights,
    look: Look = look_afresh,
) -> Plan:
    """Plan what a request asks for; the arguments are as in :func:`_plan_method`."""
    parts = take_apart(picture, request, weights, operator, settings, load, look)
    of_method = parts.picture, parts.request, parts.weights, operator, parts.settings
    made = _plan_method(*of_method, load, look)
    return replace(made, **parts.around(made.request, made.notes))


def _plan_method(
    picture: Picture,
    request: Request,
    weights: Any,
    operator: Operator | None,
    settings: Settings | None,
    load: Callable[..., Any],
    look: Look,
) -> Plan:
    """Plan what comes between filling and enlarging; the arguments are as in :func:`plan`.

    Args:
        picture: The picture.
        request: The request.
        weights: Loaded weights in place of those that the request names.
        operator: Operator in place of the recipe of the request.
        settings: Settings object in place of the settings of the request.
        load: Function that loads weights, as :func:`~pristina.priors.load.load_weights` does.
        look: Function that computes what is asked of the picture; a server remembers it.
    """
    notes, reading, why, pixels = list[str](), None, "", picture.visible
    grey = all(torch.equal(pixels[0], channel) for channel in pixels[1:])
    if request.method == "auto":
        if operator is not None or settings is not None:
            raise SettingError(
                "An operator and settings belong to a method: name it too, for example bird."
            )
        device = best_device(request.device)
        reading = look(
            "reading", picture, lambda: read_damage(picture, load("reader", READER, device=device))
        )
        source = request.prior if weights is None else weights
        kind = "direct" if source is None else kind_of(source)
        request, why = choose(reading, replace(request, prior=weights_name(source)), kind)
        weights = weights if request.method != "nothing" else None
        notes.append(why)
    entry = method(request.method)
    if entry.prior == "none" and (weights is not None or request.prior is not None):
        raise SettingError(f"{entry.name} uses no weights; leave the prior out.")
    if request.deep and entry.name != "indi":
        raise SettingError(f"deep is for regressors (indi), not for {entry.name}; leave it out.")
    if settings is None:
        settings = entry.make_settings(request.preset, request.changes)
    elif request.preset is not None or not isinstance(settings, entry.settings):
        kind_name = entry.settings.__name__
        raise SettingError(
            f"{entry.name} takes settings by name, or a {kind_name} without a preset beside it."
        )
    else:
        request = replace(request, settings=plain(asdict(settings)))
    if operator is None and request.recipe is not None:
        operator = Recipe.parse(request.recipe).form(request.seed)
    check_operator_use(entry, operator)
    protected = None if request.protect is None else read_mask(request.protect, picture.size)
    made = make_plan(
        request,
        picture.size,
        weights=weights,
        operator=operator,
        settings=settings,
        known_sigma=known_sigma(entry, settings, operator),
        load=load,
    )
    one_channel = made.prior is not None and made.prior.channels == 1
    if one_channel and not grey and isinstance(made.prior, Prior):
        made = replace(made, prior=PerChannel(made.prior))
        notes.append("The prior knows grey pictures: each colour channel was restored by itself.")
    return replace(
        made,
        first_channel=grey and (one_channel or takes_colour(made.operator)),
        reading=reading,
        reason=why,
        protected=protected,
        notes=(*notes, *made.notes),
    )


def make_plan(
    request: Request,
    size: tuple[int, int],
    *,
    weights: Any = None,
    operator: Operator | None = None,
    settings: Settings | None = None,
    known_sigma: float | None = None,
    load: Callable[..., Any] = load_weights,
) -> Plan:
    """Make the plan for images of one size, whose method is named.

    Args:
        request: The request; its method is not ``auto``.
        size: Height and width of the images in pixels.
        weights: Loaded weights; None loads those that the request names.
        operator: Operator that the method is given, or from which the size is taken.
        settings: Settings of the method; None takes those of the request.
        known_sigma: Noise level that the method is given, in [0, 1] units.
        load: Function that loads weights.

    Raises:
        SettingError: A name or a value is wrong.
        CheckpointError: The weights cannot be loaded.
        SizeError: The prior cannot take images of this size.
        InputError: The operator does not suit the method.
    """
    entry, device = method(request.method), best_device(request.device)
    if settings is None:
        settings = entry.make_settings(request.preset, request.settings)
    output_size, enlarge = size, None
    if operator is not None:
        operator = operator.to(device)
        output_size = operator.picture_size(*size)
    check_output(entry, operator, size, output_size)
    if entry.operator == "size":
        operator, enlarge = None, operator
    source = request.prior if weights is None else weights
    if source is None:
        source = _default_weights(entry, output_size)
    prior = load(entry.prior, source, device=device)
    if isinstance(source, str):
        request = replace(request, prior=source)
    extra = {
        name: load(kind, getattr(settings, name), device=device)
        for name, kind in entry.extra_weights.items()
        if getattr(settings, name) is not None
    }
    rule = SizeRule() if prior is None else prior.size_rule
    notes: tuple[str, ...] = ()
    if needs_windows(prior, output_size, has_operator=operator is not None):
        prior = Windowed(prior)
        notes += (
            f"The prior knows pictures of {rule.native} x {rule.native} px: "
            "it is applied in overlapping windows.",
        )
        rule = prior.size_rule
    if operator is not None:
        fit = Fit(*output_size, *output_size)
    else:
        fit = Fit.to(
            *output_size,
            multiple=rule.multiple,
            minimum=rule.minimum,
            native=rule.native,
            fixed=rule.fixed,
        )
    if prior is not None:
        what = entry.calls(settings), (fit.work_height, fit.work_width), request.samples
        prior, note = within_memory(prior, *what, limit=request.memory_bytes)
        notes += note
    return Plan(
        request=request,
        entry=entry,
        settings=settings,
        size=size,
        output_size=output_size,
        fit=fit,
        device=device,
        prior=prior,
        weights_name=weights_name(source) if prior is not None else None,
        extra_weights=extra,
        operator=operator,
        enlarge=enlarge,
        known_sigma=known_sigma,
        notes=(*notes, fit.note) if fit.note else notes,
    )


def _default_weights(entry: MethodEntry, size: tuple[int, int]) -> str | None:
    if entry.prior != "none" and entry.prior not in DEFAULT_WEIGHTS:
        raise SettingError(
            f"No weights for {entry.name} come with pristina: train some "
            f"(pristina train {entry.prior}) and name them with --prior."
        )
    if entry.weights is not None:
        return entry.weights
    if entry.prior == "diffusion" and size == SMALL_FACES[1]:
        return SMALL_FACES[0]
    return DEFAULT_WEIGHTS.get(entry.prior)
