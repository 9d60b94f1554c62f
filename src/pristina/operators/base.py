"""Operators, their composition, and the observation that a method receives."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from pristina.errors import InputError, OperatorError
from pristina.types import Draw, Images, check_dense

__all__ = ["Compose", "Observation", "Operator"]

Observed = Float[Tensor, "batch observed_channel observed_height observed_width"]
"""Observations of a batch of images, whose size and channels may differ from the images'."""

OperatorT = TypeVar("OperatorT", bound="Operator")


class Operator(nn.Module):
    """Degradation ``A``: a map from a clean image to what would be observed without noise.

    Images are (B, C, H, W) in [0, 1]. Every learnable parameter has a leading axis of 1, or of B
    after :meth:`for_batch`, so that each image of a batch can have unknowns of its own. A known
    parameter is a buffer, or does not require a gradient; a persistent buffer has such a leading
    axis too.

    Attributes:
        name: Word in recipes such as ``"blur:sigma=2 | noise:sigma=0.05"``.
        linear: Whether ``A`` is linear in the image.
    """

    name: ClassVar[str] = "identity"
    linear: ClassVar[bool] = True

    @property
    def parts(self) -> list[Operator]:
        """Operators of which this one is composed, first to last; itself if it is not."""
        return [self]

    def forward(self, x: Images) -> Observed:
        """Apply ``A``; differentiable in the images and in the learnable parameters.

        Args:
            x: Images, (B, C, H, W).

        Returns:
            Noise-free observations, (B, C', h, w).
        """
        return x

    def degrade(self, x: Images, draw: Draw) -> Observed:
        """Draw an observation: ``A(x)`` and everything random about the acquisition.

        Args:
            x: Images, (B, C, H, W).
            draw: Source of the noise, with one generator for each image.
        """
        return self(x)

    def picture_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the image behind an observation of this size, in pixels."""
        return height, width

    def initial(self, y: Observed) -> Images:
        """Return a rough reconstruction at image size, from which a method may start."""
        size = self.picture_size(y.shape[-2], y.shape[-1])
        if size == tuple(y.shape[-2:]):
            return y
        return F.interpolate(y, size=size, mode="bicubic", align_corners=False, antialias=True)

    def adjoint(self, y: Observed) -> Images:
        """Apply ``A^T``, exactly: the vector-Jacobian product of a linear operator at any point.

        Raises:
            OperatorError: The operator is not linear.
        """
        if not self.linear:
            raise OperatorError(f"{self.name} is not linear and has no adjoint.")
        shape = (*y.shape[:2], *self.picture_size(*y.shape[-2:]))
        x = torch.zeros(shape, dtype=y.dtype, device=y.device, requires_grad=True)
        with torch.enable_grad():
            (adjoint,) = torch.autograd.grad(self(x), x, y)
        return adjoint

    def estimates(self) -> dict[str, Any]:
        """Return the current parameters by name, as numbers and lists ready for JSON."""
        return {}

    def describe(self) -> str:
        """Describe the operator and its parameters, with units, in one phrase."""
        return "no known degradation"

    def for_batch(self: OperatorT, n: int) -> OperatorT:
        """Return a copy whose learnable parameters are repeated for ``n`` images.

        Raises:
            OperatorError: The parameters already belong to another number of images.
        """
        operator = copy.deepcopy(self)
        for module in operator.modules():
            for name, p in list(module.named_parameters(recurse=False)):
                if p.requires_grad and len(p) != n:
                    if len(p) != 1:
                        raise OperatorError(
                            f"The {self.name} operator has parameters of its own for {len(p)} "
                            f"images, not for {n}."
                        )
                    repeated = p.detach().repeat(n, *(1 for _ in p.shape[1:]))
                    setattr(module, name, nn.Parameter(repeated))
        return operator

    def keep(self: OperatorT, rows: Bool[Tensor, " batch"]) -> OperatorT:
        """Return a copy for the images of a batch that a boolean mask (B,) selects."""
        operator = copy.deepcopy(self)
        for module in operator.modules():
            for name, p in list(module.named_parameters(recurse=False)):
                if p.requires_grad and len(p) == len(rows):
                    setattr(module, name, nn.Parameter(p.detach()[rows]))
        return operator

    def project(self) -> None:
        """Bring the parameters back to admissible values after an optimiser's step."""

    def check(self, y: Observed) -> None:
        """Check that ``y`` can be an observation through this operator.

        Raises:
            OperatorError: It cannot.
        """


class Compose(Operator):
    """Composition of several operators.

    Args:
        operators: Operators in the order in which they are applied, at least one.
    """

    name = "compose"

    def __init__(self, operators: Sequence[Operator]):
        super().__init__()
        if not operators:
            raise OperatorError("A composition needs at least one operator.")
        self.operators = nn.ModuleList(operators)

    @property
    def linear(self) -> bool:  # type: ignore[override]
        """Whether every part is linear."""
        return all(o.linear for o in self.parts)

    @property
    def parts(self) -> list[Operator]:
        """Operators, first to last."""
        return [o for o in self.operators if isinstance(o, Operator)]

    def forward(self, x: Images) -> Observed:
        for operator in self.parts:
            x = operator(x)
        return x

    def degrade(self, x: Images, draw: Draw) -> Observed:
        for operator in self.parts:
            x = operator.degrade(x, draw)
        return x

    def picture_size(self, height: int, width: int) -> tuple[int, int]:
        for operator in reversed(self.parts):
            height, width = operator.picture_size(height, width)
        return height, width

    def initial(self, y: Observed) -> Images:
        for operator in reversed(self.parts):
            y = operator.initial(y)
        return y

    def adjoint(self, y: Observed) -> Images:
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

    def check(self, y: Observed) -> None:
        for operator in reversed(self.parts):
            operator.check(y)
            y = operator.initial(y)


@dataclass(frozen=True)
class Observation:
    """Input of a method: degraded images and what is known about their degradation.

    Attributes:
        y: Degraded images, (B, C, h, w), in [0, 1] except for noise; kept as float32.
        operator: Form of the degradation with first guesses of its parameters; None if nothing at
            all is known (fully blind).
        known_sigma: Standard deviation of the noise in [0, 1] units, for the methods that require
            it; None if unknown.

    Raises:
        InputError: The images or ``known_sigma`` cannot be used.
        OperatorError: The images cannot be an observation through ``operator``.
    """

    y: Tensor
    operator: Operator | None = None
    known_sigma: float | None = None

    def __post_init__(self) -> None:
        check_dense(self.y, "An observation")
        if self.y.ndim != 4 or self.y.shape[1] not in (1, 3) or 0 in self.y.shape:
            raise InputError(
                "An observation is (batch, 3, height, width), or 1 for grey; "
                f"not {tuple(self.y.shape)}."
            )
        if not self.y.is_floating_point() or not torch.isfinite(self.y.float()).all():
            raise InputError(
                "An observation must be finite floating-point numbers; "
                "this one holds NaN, infinity or integers."
            )
        object.__setattr__(self, "y", self.y.detach().float())
        if self.known_sigma is not None and not 0 <= self.known_sigma < math.inf:
            raise InputError(
                f"known_sigma must be finite and not negative, not {self.known_sigma}."
            )
        if self.operator is not None:
            if not isinstance(self.operator, Operator):
                raise InputError(
                    "The operator of an observation is an Operator, such as GaussianBlur(2.0), "
                    f"not {type(self.operator).__name__}."
                )
            self.operator.check(self.y)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image to be restored, in pixels."""
        h, w = self.y.shape[-2:]
        return (h, w) if self.operator is None else self.operator.picture_size(h, w)

    def initial(self) -> Images:
        """Return a rough reconstruction at image size, (B, C, H, W)."""
        return self.y if self.operator is None else self.operator.initial(self.y)
