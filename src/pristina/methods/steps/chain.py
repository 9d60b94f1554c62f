"""Beginning and resuming of a sampler's chain."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pristina.methods.steps.result import State
from pristina.types import Draw


def begin(
    start: State | None,
    method: str,
    draw: Draw,
    shape: tuple[int, ...],
    images: Tensor,
    first: Callable[[], Tensor],
) -> tuple[Tensor, Tensor]:
    """Return the diffused images and the current estimate with which a chain begins or goes on.

    A state without progress (``State.fresh()``) begins the usual chain: the noise that it holds is
    that of the end of another chain, which no chain can begin with.

    Args:
        start: State of a cancelled run, or None.
        method: Name of the method.
        draw: Random numbers; a resumed chain goes on with those that the cancelled one left.
        shape: Shape of the diffused images, (B, C, H, W).
        images: First estimate, which a chain cancelled before its first step would return.
        first: Function that draws the first diffused images.

    Raises:
        InputError: The state is that of another method, or of images of another shape.
    """
    if start is not None:
        start.check(method, shape, draw.device)
        start.restore_generators(draw)
        if start.step and start.noise is not None:
            return start.noise.clone(), start.memory["images"].clone()
    return first(), images
