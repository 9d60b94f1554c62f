"""Array shapes and small types that every layer shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pristina.errors import InputError
from pristina.seeds import generators

Images = Float[Tensor, "batch channel height width"]
"""A batch of images: float32 RGB in [0, 1] everywhere but inside ``priors``."""

PerImage = Float[Tensor, " batch"]
"""One number for each image of a batch."""

Generators = torch.Generator | Sequence[torch.Generator]
"""One generator for each image of a batch; a single one suffices for a single image."""


def check_dense(x: Any, what: str, error: type[InputError] = InputError) -> None:
    """Check that ``x`` is a tensor whose numbers can be read one by one.

    Args:
        x: What was given as a tensor.
        what: Beginning of the sentence, such as "Pixels".
        error: Error to raise.

    Raises:
        InputError: It is no tensor, or one that is sparse, nested, or on the device "meta".
    """
    if not isinstance(x, Tensor):
        raise error(f"{what} must be a torch tensor, not {type(x).__name__}.")
    if x.layout != torch.strided or x.is_nested:
        raise error(f"{what} must be a dense tensor, not a sparse or nested one.")
    if x.is_meta:
        raise error(f'{what} must hold numbers, and a tensor on the device "meta" has none.')


class Draw:
    """Draw random numbers from one generator for each image.

    An image's result therefore never depends on its neighbours in the batch.

    Args:
        generator: One generator for each of the ``n`` images; a single one suffices for one image.
            None seeds image ``i`` with ``i``.
        n: Number of images.
        device: Device on which the numbers are needed. They are always drawn on the CPU, so that
            every device gets the same ones.
    """

    def __init__(
        self,
        generator: Generators | None,
        n: int,
        device: torch.device | str = "cpu",
    ):
        if generator is None:
            generator = generators(0, n)
        one = generator if isinstance(generator, Sequence) else [generator]
        if not all(isinstance(g, torch.Generator) and g.device.type == "cpu" for g in one):
            raise InputError(
                "generator must be a torch.Generator on the CPU, or a list of one for each image."
            )
        self.generators: list[torch.Generator] = list(one)
        if len(self.generators) != n:
            raise InputError(
                f"A batch of {n} needs {n} generators, one for each image; "
                f"{len(self.generators)} were given."
            )
        self.device = torch.device(device)

    @property
    def seeds(self) -> list[int]:
        """Seeds with which the generators began."""
        return [g.initial_seed() for g in self.generators]

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers, (n, *shape)."""
        return self._stacked([torch.randn(shape, generator=g) for g in self.generators])

    def uniform(self, *shape: int) -> Tensor:
        """Draw numbers uniform on [0, 1), (n, *shape)."""
        return self._stacked([torch.rand(shape, generator=g) for g in self.generators])

    def _stacked(self, drawn: list[Tensor]) -> Tensor:
        together = drawn[0][None] if len(drawn) == 1 else torch.stack(drawn)
        return together.to(self.device)

    def get_states(self) -> list[Tensor]:
        """Return the state of each generator."""
        return [g.get_state() for g in self.generators]

    def set_states(self, states: Sequence[Tensor]) -> None:
        """Set the state of each generator to one that :meth:`get_states` returned."""
        for g, state in zip(self.generators, states, strict=True):
            g.set_state(state)


@dataclass(frozen=True)
class StepEvent:
    """Progress that a method reports after each step.

    Attributes:
        step: Number of finished steps, from 1.
        n_steps: Largest number of steps the method may take.
        images: Current estimate, (B, C, H, W) in [0, 1], detached; images that have stopped keep
            their last one.
        loss: Current loss of each image, (B,).
        figures: Further figures that the method traces, by name.
    """

    step: int
    n_steps: int
    images: Tensor
    loss: Tensor
    figures: dict[str, Tensor] = field(default_factory=dict)


OnStep = Callable[[StepEvent], None]
"""May raise :class:`pristina.errors.Cancelled`; the method then returns its best result so far."""
