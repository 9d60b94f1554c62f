"""Nothing: the picture as it came, for those that a restorer would only harm.

Source:
    None; every table needs it, and so does anyone who is handed a clean picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pristina.methods.base import Books, Result
from pristina.operators.base import Observation
from pristina.types import Draw, OnStep


@dataclass(frozen=True)
class Nothing:
    """Settings of :func:`nothing`: there are none."""


def nothing(
    observation: Observation,
    prior: None = None,
    settings: Nothing = Nothing(),
    *,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """The observation itself, at picture size.

    Args:
        observation: The pictures.
        prior: None is needed.
        settings: There are none.
        generator: One for each picture; nothing is drawn.
        on_step: Called once.

    Raises:
        Cancelled: ``on_step`` asked to stop.

    Example:
        >>> import torch
        >>> y = torch.full((1, 3, 4, 4), 0.5)
        >>> bool((nothing(Observation(y)).picture == y).all())
        True
    """
    y = observation.initial()
    books = Books(None, 1, on_step)
    books.step(y, torch.zeros(len(y)))
    return books.result("nothing", y, settings, Draw(generator, len(y), y.device).seeds, ["left as it is"] * len(y))
