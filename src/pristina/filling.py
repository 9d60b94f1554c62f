"""Holes in a picture: where they are, and filling them before anything else is done.

White marks the holes in the file of a mask. They are filled smoothly from around, or by a method
that is named and uses the form of the degradation; nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.auto import Look
from pristina.errors import Cancelled, InputError
from pristina.estimates import estimate_calls
from pristina.image.blend import read_mask
from pristina.image.cells import Cell, cells_with_holes, from_the_edge
from pristina.image.holes import fill_smoothly
from pristina.image.picture import Picture
from pristina.methods.index import MethodEntry
from pristina.methods.steps.result import StopReason
from pristina.operators.base import Observation
from pristina.operators.mask import Mask
from pristina.priors.base import SizeRule
from pristina.request import Request
from pristina.seeds import generators
from pristina.settings import Settings
from pristina.types import OnStep

FINDER = "scratches"
"""Shipped weights that find scratches."""
SURE, LIKELY = 0.95, 0.7
"""Probability from which a pixel begins a scratch, and from which a neighbour continues it. On the
twelve held-out photographs they find 0.76 of drawn marks at a precision of 0.90 (0.69 at 0.91 for
marks of another kind, whose pictures gain 5.8 dB when filled; 4.8 with the more careful 0.995)."""
LEAST_PX = 4
"""Number of connected pixels from which something is taken for a scratch."""
WIDER_PX = 1
"""Number of pixels by which found scratches are widened, for their soft edges."""
SIGMA = 0.002
"""Noise level, in [0, 1] units, that methods are told of what lies around a hole."""
CELL_PX, MARGIN_PX = 64, 32
"""Side of the parts in which a method fills holes, and how far it looks around them, in pixels."""


@dataclass(frozen=True)
class Filling:
    """Holes, and what fills them.

    Attributes:
        holes: Holes of the picture, (1, H, W), 0 or 1.
        entry: Entry of the method; None to fill smoothly.
        prior: Loaded weights of the method.
        weights_name: Name of the weights for records.
        settings: Settings of the method.
        extra_weights: Further loaded weights of the method.
        seed: Random seed of the method.
        found: Whether the holes are scratches that were looked for.
    """

    holes: Tensor
    entry: MethodEntry | None = None
    prior: Any = None
    weights_name: str | None = None
    settings: Settings | None = None
    extra_weights: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    found: bool = False

    @property
    def note(self) -> str:
        """A sentence about what is filled and by what."""
        n, share = int(self.holes.sum()), 100 * float(self.holes.mean())
        how = "smoothly"
        if self.entry is not None:
            how = f"by {self.entry.name}"
            how += "" if self.weights_name is None else f" with {self.weights_name}"
        what = "of scratches " if self.found else ""
        return f"{n:,} pixels {what}({share:.2g} % of the picture) are filled in {how}."

    def seconds(self) -> float:
        """Estimate the time, with a single network call; smooth filling takes next to none."""
        if self.entry is None or self.prior is None or self.settings is None:
            return 0.0
        rule, side = self.prior.size_rule, CELL_PX + 2 * MARGIN_PX
        side = rule.native if rule.fixed else -(-side // rule.multiple) * rule.multiple
        cells = self._cells(self.holes[0], rule)
        one = estimate_calls(self.prior, self.entry.calls(self.settings), (side, side))
        return len(cells) * one.seconds

    def smooth(self, picture: Picture) -> Picture:
        """Return the picture with smoothly filled holes, to choose a method from."""
        visible = fill_smoothly(picture.visible[None], self.holes[None])[0]
        return picture.with_pixels(visible)

    @torch.no_grad()
    def run(self, images: Tensor, on_step: OnStep | None = None) -> tuple[Tensor, int]:
        """Fill the holes of images, (B, 3, H, W), in [0, 1].

        Args:
            images: The images.
            on_step: Progress callback of the method; if it cancels, what is left is filled
                smoothly.

        Returns:
            The images, the same to the bit where there are no holes; the number of network calls.
        """
        holes = self.holes[None].to(images)
        if self.entry is None:
            return fill_smoothly(images, holes), 0
        return self._by_method(images, holes, on_step)

    def _by_method(
        self, images: Tensor, holes: Tensor, on_step: OnStep | None
    ) -> tuple[Tensor, int]:
        """Fill the holes cell by cell, from the edges of large holes inwards."""
        assert self.entry is not None
        rule = SizeRule() if self.prior is None else self.prior.size_rule
        unknown, filled, n_calls = holes[0, 0].clone(), images.clone(), 0
        cells = self._cells(unknown, rule)
        try:
            for cell in from_the_edge(cells, unknown):
                found, calls = self._one(filled[(..., *cell.crop)], unknown[cell.crop], on_step)
                core, n_calls = (..., *cell.core), n_calls + calls
                inner = found[(..., *cell.inside)].to(images)
                filled[core] = torch.where(holes[core] > 0, inner, images[core])
        except Cancelled:
            filled = fill_smoothly(filled, unknown[None, None])
        return filled, n_calls

    def _cells(self, unknown: Tensor, rule: SizeRule) -> list[Cell]:
        """Return the cells, as the prior takes them.

        Raises:
            SizeError: The prior takes one size only, and the picture has another.
        """
        height, width = unknown.shape
        if rule.fixed:
            rule.check(height, width)
            return [Cell(0, height, 0, width, (0, height, 0, width))]
        return cells_with_holes(unknown, side=CELL_PX, margin=MARGIN_PX, multiple=rule.multiple)

    def _one(self, part: Tensor, unknown: Tensor, on_step: OnStep | None) -> tuple[Tensor, int]:
        """Fill the holes of one part, (B, 3, h, w), by the method."""
        assert self.entry is not None
        rule = SizeRule() if self.prior is None else self.prior.size_rule
        height, width = unknown.shape
        multiple = 1 if rule.fixed else rule.multiple
        beyond = (0, -width % multiple, 0, -height % multiple)
        known = F.pad(1 - unknown, beyond)[None, None]
        if not known.any():
            raise InputError("The mask marks the whole picture; nothing is left to fill it from.")
        y = F.pad(part, beyond) * known
        function: Callable[..., Any] = self.entry.function
        result = function(
            Observation(y, Mask(known), SIGMA if self.entry.oracle else None),
            self.prior,
            self.settings,
            generator=generators(self.seed, len(y)),
            on_step=on_step,
            **self.extra_weights,
        )
        if str(result.stopped[0]).startswith(StopReason.CANCELLED.value):
            raise Cancelled
        return result.images[..., :height, :width], result.cost.network_calls


def can_fill(entry: MethodEntry) -> bool:
    """Return whether a method can fill holes: whether it uses the form of the degradation."""
    return entry.operator in ("optional", "required")


def holes_of(
    request: Request, picture: Picture, load: Callable[..., Any], look: Look, device: Any
) -> Tensor:
    """Return the holes that a request marks or asks to be found, (1, H, W), 0 or 1.

    Args:
        request: The request.
        picture: The picture.
        load: Function that loads weights.
        look: Function that looks for scratches in the picture.
        device: Device of the computation.

    Raises:
        PictureError: The mask cannot be read, or has another size.
        InputError: The mask marks the whole picture.
    """
    holes = torch.zeros(1, *picture.size)
    if request.mask is not None:
        holes = (read_mask(request.mask, picture.size) > 0.5).float()
    if request.scratches:
        finder = load("scratches", FINDER, device=device)
        found = look("scratches", picture, lambda: find_scratches(finder, picture.visible))
        holes = torch.maximum(holes, found.float())
    if request.protect is not None:
        holes = holes * (read_mask(request.protect, picture.size) <= 0.5)
    if holes.all():
        raise InputError("The mask marks the whole picture; nothing is left to fill it from.")
    return holes


@torch.no_grad()
def find_scratches(finder: Any, pixels: Tensor) -> Tensor:
    """Return where a finder is sure of scratches, (1, H, W), true or false.

    Args:
        finder: A :class:`~pristina.priors.scratches.ScratchFinder`.
        pixels: The picture, (3, H, W), in [0, 1].
    """
    likely = finder.predict(pixels[None].to(finder.device))[0].cpu()
    kept = _without_small(likely[0] > SURE)
    grown = torch.zeros_like(kept)
    while not torch.equal(kept, grown):
        grown = kept
        near = F.max_pool2d(grown[None].float(), 3, 1, 1)[0] > 0
        kept = grown | (near & (likely[0] > LIKELY))
    wider = F.max_pool2d(kept[None].float(), 2 * WIDER_PX + 1, 1, WIDER_PX)
    return wider > 0


def _without_small(marks: Tensor) -> Tensor:
    """Remove what has fewer than :data:`LEAST_PX` pixels in its 5 x 5 neighbourhood."""
    near = F.avg_pool2d(marks[None].float(), 5, 1, 2, divisor_override=1)[0]
    return marks & (near >= LEAST_PX)
