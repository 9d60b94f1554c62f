"""The few shapes and small types that every layer shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from pristina.errors import InputError, SettingError

Pictures = Float[Tensor, "batch channel height width"]
"""A batch of pictures: float32 RGB in [0, 1] everywhere but inside ``priors``."""

PerPicture = Float[Tensor, " batch"]
"""One number for each picture of a batch."""


class Draw:
    """Randomness with one generator for each picture, so that no picture's result depends on its neighbours.

    Args:
        generator: One generator for each of the ``n`` pictures; a single one will do for a single picture. None seeds
            picture ``i`` with ``i``.
        n: How many pictures.
        device: Where the numbers are wanted. They are always drawn on the CPU, so that every device gets the same.
    """

    def __init__(self, generator: torch.Generator | Sequence[torch.Generator] | None, n: int, device: torch.device | str = "cpu"):
        if generator is None:
            generator = generators(0, n)
        self.generators = [generator] if isinstance(generator, torch.Generator) else list(generator)
        if len(self.generators) != n:
            raise InputError(f"A batch of {n} needs {n} generators, one for each picture; {len(self.generators)} came.")
        self.device = torch.device(device)

    @property
    def seeds(self) -> list[int]:
        """What each picture's generator was seeded with."""
        return [g.initial_seed() for g in self.generators]

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, (n, *shape)."""
        return torch.stack([torch.randn(shape, generator=g) for g in self.generators]).to(self.device)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers uniform on [0, 1), (n, *shape)."""
        return torch.stack([torch.rand(shape, generator=g) for g in self.generators]).to(self.device)


def generators(seed: int, n: int) -> list[torch.Generator]:
    """``n`` generators, seeded ``seed``, ``seed + 1``, ...

    Raises:
        SettingError: A seed does not fit into 64 bits.
    """
    if not -(2**63) <= seed <= 2**64 - n:
        raise SettingError(f"A seed must fit into 64 bits, and {seed} does not; take one between 0 and {2**64 - n}.")
    return [torch.Generator().manual_seed(seed + i) for i in range(n)]


@dataclass(frozen=True)
class StepEvent:
    """What a method reports after each step.

    Attributes:
        step: Steps done, from 1.
        n_steps: Steps it may take at most.
        picture: The present estimate, (B, C, H, W) in [0, 1], detached; pictures that have stopped keep their last one.
        loss: The present loss of each picture, (B,).
        figures: Whatever else the method traces.
    """

    step: int
    n_steps: int
    picture: Tensor
    loss: Tensor
    figures: dict[str, Tensor] = field(default_factory=dict)


OnStep = Callable[[StepEvent], None]
"""May raise :class:`pristina.errors.Cancelled` to stop the method, which then returns its best result so far."""
