"""One number of an operator that may be unknown: kept where an optimiser can move it freely, read where it has its meaning."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pristina.errors import SettingError

Range = Literal["real", "positive", "share"]


class Unknown(nn.Module):
    """Numbers with a first guess, (1, ...), or (B, ...) once each picture has its own.

    A positive number is kept as its logarithm and a share of ``limit`` as its logit, so that no step of an optimiser can leave the range.

    Args:
        name: What it is called when it is out of range.
        value: The first guess, without the leading axis.
        range: ``real``; ``positive``; or ``share``: strictly between 0 and ``limit``.
        limit: The upper end of ``share``.
        learnable: Whether an optimiser may move it.

    Raises:
        SettingError: The first guess is out of range.

    Example:
        >>> sigma = Unknown("sigma", 2.0, "positive")
        >>> round(sigma().item(), 4)
        2.0
    """

    def __init__(
        self, name: str, value: float | Sequence[float] | Tensor, range: Range = "real", *, limit: float = 1.0, learnable: bool = True
    ):
        super().__init__()
        self.range: Range = range
        self.limit = limit
        check_finite(**{name: value})
        guess = torch.as_tensor(value, dtype=torch.float32).clone()[None]
        if range == "positive" and not (guess > 0).all():
            raise SettingError(f"{name} must be positive, not {say(guess)}.")
        if range == "share" and not ((guess > 0) & (guess < limit)).all():
            raise SettingError(f"{name} must lie between 0 and {limit:g}, without the ends, not {say(guess)}.")
        if range == "positive":
            guess = guess.log()
        elif range == "share":
            guess = (guess.double() / limit).logit().float()
        self.free = nn.Parameter(guess, requires_grad=learnable)

    def forward(self) -> Tensor:
        """The present value, (1 or B, ...)."""
        if self.range == "positive":
            return self.free.exp()
        if self.range == "share":
            return self.limit * self.free.sigmoid()
        return self.free

    def over_pictures(self) -> Tensor:
        """The present value as (1 or B, 1, 1, 1), to go with a batch of pictures; for single numbers."""
        return self().view(-1, 1, 1, 1)


def check_finite(**values: float | Sequence[float] | Tensor) -> None:
    """Raise :class:`SettingError` if one of these is NaN or infinite: comparisons let NaN pass, and infinity is no length or angle."""
    for name, value in values.items():
        given = torch.as_tensor(value, dtype=torch.float32)
        if not torch.isfinite(given).all():
            raise SettingError(f"{name} must be a finite number, not {say(given)}.")


def own_generator(word: str, seed: int) -> torch.Generator:
    """The randomness of one kind of operator, which shares nothing with another's, nor with the noise, at the same seed."""
    return torch.Generator().manual_seed(zlib.crc32(f"{word} {seed}".encode()))


def numbers(value: Tensor, digits: int = 6) -> Any:
    """A tensor (1 or B, ...) for JSON: the numbers of the one picture, or a list with those of each."""
    value = value.detach().double().cpu()
    return _rounded((value[0] if len(value) == 1 else value).tolist(), digits)


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, list):
        return [_rounded(v, digits) for v in value]
    return float(f"{value:.{digits}g}")


def say(value: Tensor, unit: str = "", scale: float = 1.0) -> str:
    """A value (1 or B) in words: ``2.00 px``, or ``2.00, 2.13 px`` for two pictures, or the range for many."""
    values = [scale * v for v in value.detach().flatten().tolist()]
    words = ", ".join(map(_plain, values)) if len(values) <= 4 else f"{_plain(min(values))} to {_plain(max(values))}"
    return f"{words} {unit}".rstrip()


def _plain(value: float) -> str:
    """Three figures, without an exponent."""
    value = float(f"{value:.3g}")
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}" if abs(value) < 100 else f"{value:.0f}"
