"""Parameters of operators that may be unknown, and helpers that all operators share."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pristina.errors import SettingError

Range = Literal["real", "positive", "share"]


class Unknown(nn.Module):
    """Parameter with a first guess, (1, ...), or (B, ...) once each image has its own.

    A positive number is stored as its logarithm and a share of ``limit`` as its logit, so that no
    step of an optimiser can leave the range.

    Args:
        name: Name in error messages.
        value: First guess, without the leading axis.
        range: ``real``; ``positive``; or ``share``: strictly between 0 and ``limit``.
        limit: Upper end of ``share``.
        learnable: Whether an optimiser may change it.

    Raises:
        SettingError: The first guess is out of range.

    Example:
        >>> sigma = Unknown("sigma", 2.0, "positive")
        >>> round(sigma().item(), 4)
        2.0
    """

    def __init__(
        self,
        name: str,
        value: float | Sequence[float] | Tensor,
        range: Range = "real",
        *,
        limit: float = 1.0,
        learnable: bool = True,
    ):
        super().__init__()
        self.range: Range = range
        self.limit = limit
        check_finite(**{name: value})
        guess = torch.as_tensor(value, dtype=torch.float32).clone()[None]
        if range == "positive" and not (guess > 0).all():
            raise SettingError(f"{name} must be positive, not {in_words(guess)}.")
        if range == "share" and not ((guess > 0) & (guess < limit)).all():
            raise SettingError(
                f"{name} must lie between 0 and {limit:g}, without the ends, not {in_words(guess)}."
            )
        if range == "positive":
            guess = guess.log()
        elif range == "share":
            guess = (guess.double() / limit).logit().float()
        self.free = nn.Parameter(guess, requires_grad=learnable)

    def forward(self) -> Tensor:
        """Return the current value, (1 or B, ...)."""
        if self.range == "positive":
            return self.free.exp()
        if self.range == "share":
            return self.limit * self.free.sigmoid()
        return self.free

    def over_images(self) -> Float[Tensor, "parameters 1 1 1"]:
        """Return the current value of a single number in a shape that broadcasts over images."""
        return self().view(-1, 1, 1, 1)


def check_finite(**values: float | Sequence[float] | Tensor) -> None:
    """Raise :class:`SettingError` if one of the values is NaN or infinite.

    Range checks alone let NaN pass, because every comparison with it is false.
    """
    for name, value in values.items():
        given = torch.as_tensor(value, dtype=torch.float32)
        if not torch.isfinite(given).all():
            raise SettingError(f"{name} must be a finite number, not {in_words(given)}.")


def own_generator(word: str, seed: int) -> torch.Generator:
    """Return a generator of one kind of operator.

    At equal seeds it is independent of the generators of other kinds and of those of the noise.
    """
    return torch.Generator().manual_seed(zlib.crc32(f"{word} {seed}".encode()))


def linear_layer(
    n_in: int, n_out: int, generator: torch.Generator
) -> tuple[nn.Parameter, nn.Parameter]:
    """Draw a weight (1, n_out, n_in) and a bias (1, n_out), uniform within 1 / sqrt(n_in)."""
    bound = 1 / math.sqrt(n_in)
    weight = bound * (2 * torch.rand(1, n_out, n_in, generator=generator) - 1)
    bias = bound * (2 * torch.rand(1, n_out, generator=generator) - 1)
    return nn.Parameter(weight), nn.Parameter(bias)


def numbers(value: Tensor, digits: int = 6) -> Any:
    """Convert a parameter (1 or B, ...) for JSON.

    Args:
        value: Tensor with a leading axis of 1, or of B for the images of a batch.
        digits: Number of significant digits.

    Returns:
        Number or nested list of the one image, or a list with one entry for each image.
    """
    value = value.detach().double().cpu()
    return _rounded((value[0] if len(value) == 1 else value).tolist(), digits)


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, list):
        return [_rounded(v, digits) for v in value]
    return float(f"{value:.{digits}g}")


def in_words(value: Tensor, unit: str = "", scale: float = 1.0) -> str:
    """Write a parameter (1 or B) for a sentence.

    Args:
        value: Numbers, one for each image.
        unit: Unit to write after them.
        scale: Factor that converts the numbers into that unit.

    Returns:
        ``2.00 px``; ``2.00, 2.13 px`` for up to four images; the range for more.
    """
    values = [scale * v for v in value.detach().flatten().tolist()]
    if len(values) <= 4:
        words = ", ".join(map(_plain, values))
    else:
        words = f"{_plain(min(values))} to {_plain(max(values))}"
    return f"{words} {unit}".rstrip()


def _plain(value: float) -> str:
    """Write a number with three significant digits and without an exponent."""
    value = float(f"{value:.3g}")
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
