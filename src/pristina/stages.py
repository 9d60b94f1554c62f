"""What is done around the method: holes are filled before it, the picture is enlarged after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from pristina.auto import Look
from pristina.device import best_device
from pristina.enlarging import ENLARGER, Enlarging, enlarges, plan_enlarging
from pristina.errors import SettingError
from pristina.filling import Filling, can_fill, holes_of
from pristina.image.picture import Picture
from pristina.methods.index import method
from pristina.operators.base import Operator
from pristina.request import Request
from pristina.settings import Settings


@dataclass(frozen=True)
class Stages:
    """A request taken apart into what comes before, in and after the method.

    Attributes:
        picture: The picture as the method sees it, its holes filled smoothly.
        request: What is left for the method.
        weights: Loaded weights for the method; None for those of its request.
        settings: Settings object for the method.
        filling: The holes and what fills them; None if there are none.
        enlarging: What enlarges the picture; None if it keeps its size.
        kept: Fields of the request that the method does not see, for records.
        notes: What the user should know, in sentences.
    """

    picture: Picture
    request: Request
    weights: Any = None
    settings: Settings | None = None
    filling: Filling | None = None
    enlarging: Enlarging | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def around(self, request: Request, notes: tuple[str, ...]) -> dict[str, Any]:
        """Return the fields of a plan that say what is done around the method.

        Args:
            request: The request of the method, completed.
            notes: What the plan of the method says.
        """
        alone = "the picture is left as it is"
        if self.filling is not None:
            notes = tuple(note.replace(alone, "the rest is left as it is") for note in notes)
        elif self.enlarging is not None or request.levels:
            notes = tuple(note.replace(alone, "nothing is repaired") for note in notes)
        return {
            "request": replace(request, **self.kept),
            "filling": self.filling,
            "enlarging": self.enlarging,
            "notes": (*self.notes, *notes),
        }


def take_apart(
    picture: Picture,
    request: Request,
    weights: Any,
    operator: Operator | None,
    settings: Settings | None,
    load: Callable[..., Any],
    look: Look,
) -> Stages:
    """Take a request apart into what comes before, in and after the method.

    Args:
        picture: The picture.
        request: The request.
        weights: Loaded weights in place of those that the request names.
        operator: Operator in place of the recipe of the request.
        settings: Settings object in place of the settings of the request.
        load: Function that loads weights.
        look: Function that computes what is asked of the picture.

    Raises:
        SettingError: An option does not go with another.
        PictureError: The mask cannot be read, or has another size.
    """
    stages = Stages(picture, request, weights, settings)
    if request.mask is not None or request.scratches:
        stages = _with_filling(stages, load, look, best_device(request.device))
    source = request.prior if weights is None else weights
    same_size = request.recipe is None and operator is None
    if source is not None and request.method in ("auto", "indi") and same_size:
        stages = _with_enlarger(stages, source)
    if request.scale > 1 and not same_size and method(request.method).operator == "size":
        raise SettingError("A scale and an operator would both enlarge; leave one of them out.")
    if request.scale > 1:
        return _with_enlarging(stages, request, load)
    return stages


def _with_enlarger(stages: Stages, source: Any) -> Stages:
    """Take weights that enlarge away from the method: there they are of no use.

    Raises:
        SettingError: The picture is to keep its size.
    """
    most = enlarges(source)
    if most == 1:
        return stages
    request = stages.request
    named = f" --prior {source}" if isinstance(source, str) and source != ENLARGER else ""
    if request.scale == 1:
        raise SettingError(
            f"{source if isinstance(source, str) else 'This prior'} is for pictures that are to "
            "become larger, and would harm one that keeps its size; enlarge with it: "
            f"pristina restore IN -o OUT{named} --scale {most}."
        )
    kept = {**stages.kept, "prior": request.prior, "method": request.method}
    alone = "auto" if request.method == "auto" else "nothing"
    rest = replace(request, method=alone, prior=None, settings={}, preset=None, deep=False)
    enlarging = Enlarging(request.scale, None, "")
    return replace(
        stages, request=rest, weights=None, settings=None, kept=kept, enlarging=enlarging
    )


def _with_enlarging(stages: Stages, request: Request, load: Callable[..., Any]) -> Stages:
    """Load what enlarges the picture in the end."""
    source = None if stages.enlarging is None else request.prior
    enlarging = plan_enlarging(request, source, stages.picture, load, best_device(request.device))
    return replace(
        stages,
        request=replace(stages.request, scale=1),
        enlarging=enlarging,
        kept={**stages.kept, "scale": request.scale},
        notes=(*stages.notes, enlarging.note),
    )


def _with_filling(
    stages: Stages, load: Callable[..., Any], look: Look, device: torch.device
) -> Stages:
    """Find the holes, and decide what fills them."""
    picture, request = stages.picture, stages.request
    kept = {"mask": request.mask, "scratches": request.scratches}
    rest = replace(request, mask=None, scratches=False)
    stages = replace(stages, request=rest, kept=kept)
    holes = holes_of(request, picture, load, look, device)
    if not holes.any():
        nothing = "No scratches were found" if request.scratches else "The mask marks nothing"
        return replace(stages, notes=(f"{nothing}: no hole is filled.",))
    if request.method == "auto" or not can_fill(method(request.method)):
        filling = Filling(holes)
    else:
        filling = _by_method(stages, request, holes, load, device)
        kept |= {name: getattr(request, name) for name in _OF_THE_METHOD}
        kept["prior"] = filling.weights_name if stages.weights is None else request.prior
        stages = replace(stages, request=_without_method(rest), weights=None, settings=None)
    filling = replace(filling, found=request.scratches and request.mask is None)
    return replace(
        stages, picture=filling.smooth(picture), filling=filling, kept=kept, notes=(filling.note,)
    )


_OF_THE_METHOD = ("method", "prior", "preset", "settings", "samples")


def _without_method(request: Request) -> Request:
    return replace(request, method="nothing", prior=None, preset=None, settings={}, samples=1)


def _by_method(
    stages: Stages, request: Request, holes: torch.Tensor, load: Callable[..., Any], device: Any
) -> Filling:
    """Let a named method fill the holes."""
    entry, settings = method(request.method), stages.settings
    if request.recipe is not None:
        raise SettingError(
            f"With a mask {entry.name} fills the holes and nothing else; leave the operator out, "
            "or the mask."
        )
    if request.samples > 1:
        raise SettingError("Holes are filled once; take one sample.")
    if settings is None:
        settings = entry.make_settings(request.preset, request.changes)
    source = stages.weights if stages.weights is not None else request.prior or "photos"
    extra = {
        key: load(kind, getattr(settings, key), device=device)
        for key, kind in entry.extra_weights.items()
        if getattr(settings, key) is not None
    }
    prior = None if entry.prior == "none" else load(entry.prior, source, device=device)
    named = None if prior is None else weights_name(source)
    return Filling(holes, entry, prior, named, settings, extra, request.seed)


def weights_name(source: Any) -> str | None:
    """Return a name for weights in records: the name or path, or the type of an object."""
    if source is None or isinstance(source, str | Path):
        return None if source is None else str(source)
    return type(source).__name__
