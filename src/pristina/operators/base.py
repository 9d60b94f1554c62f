"""What happened to a picture: operators, their composition, and what was observed."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pristina.errors import InputError, OperatorError
from pristina.types import Draw, Pictures


class Operator(nn.Module):
    """``A``: from a clean picture to what would be observed without noise.

    Pictures are (B, C, H, W) in [0, 1]. Every learnable parameter has a leading axis of 1, or of B after :meth:`for_batch`, so that each
    picture of a batch can have its own unknowns. A parameter that is known is a buffer, or does not require a gradient; a buffer that is
    saved has such a leading axis too.

    Attributes:
        name: Its word in recipes such as ``"blur:sigma=2 | noise:sigma=0.05"``.
        linear: Whether ``A`` is linear in the picture.
    """

    name: ClassVar[str] = "identity"
    linear: ClassVar[bool] = True

    @property
    def parts(self) -> list[Operator]:
        """What it is composed of, first to last: of itself alone, unless it is a :class:`Compose`."""
        return [self]

    def forward(self, x: Tensor) -> Tensor:
        """``A(x)``, differentiable in the picture and in the learnable parameters."""
        return x

    def degrade(self, x: Tensor, draw: Draw) -> Tensor:
        """An observation of ``x``: ``A(x)`` and whatever is random about the acquisition."""
        return self(x)

    def picture_size(self, height: int, width: int) -> tuple[int, int]:
        """The size of the picture behind an observation of this size."""
        return height, width

    def initial(self, y: Tensor) -> Tensor:
        """The observation brought to picture size by the plainest means: where a method may start."""
        size = self.picture_size(y.shape[-2], y.shape[-1])
        if size == tuple(y.shape[-2:]):
            return y
        return F.interpolate(y, size=size, mode="bicubic", align_corners=False, antialias=True)

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T(y)``, exact for every linear operator: the vector-Jacobian product at any point.

        Raises:
            OperatorError: The operator is not linear.
        """
        if not self.linear:
            raise OperatorError(f"{self.name} is not linear and has no adjoint.")
        x = torch.zeros(*y.shape[:2], *self.picture_size(*y.shape[-2:]), dtype=y.dtype, device=y.device, requires_grad=True)
        with torch.enable_grad():
            (adjoint,) = torch.autograd.grad(self(x), x, y)
        return adjoint

    def estimates(self) -> dict[str, Any]:
        """The present parameters by name, as numbers and lists ready for JSON."""
        return {}

    def describe(self) -> str:
        """One sentence: what this operator is and what its parameters are, with units."""
        return "nothing is known to have happened"

    def for_batch(self, n: int) -> Self:
        """A copy whose learnable parameters are repeated for ``n`` pictures; this operator stays as it is.

        Raises:
            OperatorError: The parameters are those of another number of pictures already.
        """
        operator = copy.deepcopy(self)
        for module in operator.modules():
            for name, p in list(module.named_parameters(recurse=False)):
                if p.requires_grad and len(p) != n:
                    if len(p) != 1:
                        raise OperatorError(f"The {self.name} operator has parameters of its own for {len(p)} pictures, not for {n}.")
                    repeated = p.detach().repeat(n, *(1 for _ in p.shape[1:]))
                    setattr(module, name, nn.Parameter(repeated))
        return operator

    def keep(self, rows: Tensor) -> Self:
        """A copy for a part of the batch; ``rows`` is a boolean mask (B,)."""
        operator = copy.deepcopy(self)
        for module in operator.modules():
            for name, p in list(module.named_parameters(recurse=False)):
                if p.requires_grad and len(p) == len(rows):
                    setattr(module, name, nn.Parameter(p.detach()[rows]))
        return operator

    def project(self) -> None:
        """Bring the parameters back to where they mean something, after an optimiser's step (default: nothing to do)."""

    def check(self, y: Tensor) -> None:
        """Raise :class:`OperatorError` if ``y`` cannot be an observation through this operator."""


class Compose(Operator):
    """Several operators one after the other: real damage is mixed."""

    name = "compose"

    def __init__(self, operators: Sequence[Operator]):
        super().__init__()
        if not operators:
            raise OperatorError("A composition needs at least one operator.")
        self.operators = nn.ModuleList(operators)

    @property
    def linear(self) -> bool:  # type: ignore[override]
        """Whether every part is."""
        return all(o.linear for o in self.parts)

    @property
    def parts(self) -> list[Operator]:
        """The operators, first to last."""
        return [o for o in self.operators if isinstance(o, Operator)]

    def forward(self, x: Tensor) -> Tensor:
        for operator in self.parts:
            x = operator(x)
        return x

    def degrade(self, x: Tensor, draw: Draw) -> Tensor:
        for operator in self.parts:
            x = operator.degrade(x, draw)
        return x

    def picture_size(self, height: int, width: int) -> tuple[int, int]:
        for operator in reversed(self.parts):
            height, width = operator.picture_size(height, width)
        return height, width

    def initial(self, y: Tensor) -> Tensor:
        for operator in reversed(self.parts):
            y = operator.initial(y)
        return y

    def adjoint(self, y: Tensor) -> Tensor:
        for operator in reversed(self.parts):
            y = operator.adjoint(y)
        return y

    def estimates(self) -> dict[str, Any]:
        return {f"{i}.{o.name}": o.estimates() for i, o in enumerate(self.parts)}

    def describe(self) -> str:
        return ", then ".join(o.describe() for o in self.parts)

    def project(self) -> None:
        for operator in self.parts:
            operator.project()

    def check(self, y: Tensor) -> None:
        for operator in reversed(self.parts):
            operator.check(y)
            y = operator.initial(y)


@dataclass(frozen=True)
class Observation:
    """What a method gets to see.

    Attributes:
        y: The degraded pictures, (B, C, h, w); in [0, 1] but for noise. They are kept as float32.
        operator: The form of the degradation with a first guess of its parameters; None when nothing at all is known (fully blind).
        known_sigma: The standard deviation of the noise in [0, 1] units, for the methods that must be told; None if unknown.
    """

    y: Pictures
    operator: Operator | None = None
    known_sigma: float | None = None

    def __post_init__(self) -> None:
        if self.y.ndim != 4 or self.y.shape[1] not in (1, 3):
            raise InputError(f"An observation is (batch, 3, height, width), or 1 for grey; not {tuple(self.y.shape)}.")
        if not self.y.is_floating_point() or not torch.isfinite(self.y).all():
            raise InputError("An observation must be finite floating-point numbers; this one holds NaN, infinity or integers.")
        object.__setattr__(self, "y", self.y.float())
        if self.known_sigma is not None and not 0 <= self.known_sigma < math.inf:
            raise InputError(f"known_sigma must be finite and not negative, not {self.known_sigma}.")
        if self.operator is not None:
            self.operator.check(self.y)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture to be restored."""
        h, w = self.y.shape[-2:]
        return (h, w) if self.operator is None else self.operator.picture_size(h, w)

    def initial(self) -> Tensor:
        """The observation at picture size, (B, C, H, W)."""
        return self.y if self.operator is None else self.operator.initial(self.y)
