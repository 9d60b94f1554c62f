"""What a prior is to a method: one call that splits a diffused picture into noise and clean picture."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pristina.errors import InputError, SizeError
from pristina.priors.schedule import alpha_bar_at, linear_alpha_bar


class Prediction(NamedTuple):
    """What a prior sees in ``x_t``; ``x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps`` holds exactly.

    Attributes:
        eps: The noise, (B, C, H, W), unit variance.
        x0: The clean picture, ``E[x0 | x_t]``, (B, C, H, W), in [-1, 1] and not clipped.
    """

    eps: Tensor
    x0: Tensor


@dataclass(frozen=True)
class SizeRule:
    """Which picture sizes a prior accepts, in pixels.

    Attributes:
        multiple: Both sides must be a multiple of this.
        minimum: Neither side may be smaller.
        native: The side it was trained at, used when a picture has to be fitted; None if any size is as good.
        fixed: Whether only ``native`` x ``native`` pictures make sense (aligned faces, say).
    """

    multiple: int = 1
    minimum: int = 1
    native: int | None = None
    fixed: bool = False

    def check(self, height: int, width: int) -> None:
        """Raise :class:`SizeError` unless (height, width) is accepted."""
        if self.fixed and (height, width) != (self.native, self.native):
            raise SizeError(
                f"This prior takes pictures of exactly {self.native} x {self.native} px, not {width} x {height}; "
                "crop it or bring it to that size, or take a prior for pictures of any size, such as photos."
            )
        if min(height, width) < self.minimum:
            raise SizeError(f"The picture is {width} x {height} px; this prior needs at least {self.minimum} px a side.")
        if height % self.multiple or width % self.multiple:
            raise SizeError(f"The picture is {width} x {height} px; this prior needs multiples of {self.multiple} px.")


class Prior(nn.Module):
    """A frozen model of clean pictures.

    A subclass implements :meth:`predict_x0`; everything else follows from it. Pixels are in [-1, 1] inside a
    prior and nowhere else: :func:`pristina.priors.generate.generate` and the methods bring them back to [0, 1].

    Attributes:
        domain: One sentence: what kind of picture it knows.
        size_rule: Which sizes it accepts.
        channels: Colour channels it works in.
        alpha_bar: The schedule's table, shape (1000,).
        n_calls: Network calls so far, one for each picture of each batch.
        source: Where its weights came from (file, sha256, layout), for records; empty if it has none.
    """

    alpha_bar: Tensor

    def __init__(self, *, domain: str, channels: int = 3, size_rule: SizeRule | None = None, alpha_bar: Tensor | None = None):
        super().__init__()
        self.domain = domain
        self.channels = channels
        self.size_rule = size_rule or SizeRule()
        self.register_buffer("alpha_bar", linear_alpha_bar() if alpha_bar is None else alpha_bar, persistent=False)
        self.n_calls = 0
        self.source: dict[str, str] = {}

    @property
    def device(self) -> torch.device:
        """Where the prior computes."""
        return self.alpha_bar.device

    @abstractmethod
    def predict_x0(self, x_t: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
        """``E[x0 | x_t]`` in [-1, 1] for ``x_t`` (B, C, H, W), ``t`` (B,) and its ``alpha_bar`` (B, 1, 1, 1)."""

    def predict(self, x_t: Tensor, t: Tensor | float) -> Prediction:
        """Noise and clean picture in ``x_t``.

        Args:
            x_t: Diffused pictures, (B, C, H, W), variance preserving.
            t: Timestep in [0, 999], fractions allowed; a number, or one for each picture.

        Raises:
            SizeError: The size is not one this prior accepts.
            InputError: The number of channels is wrong.
        """
        if x_t.ndim != 4 or x_t.shape[1] != self.channels:
            raise InputError(f"The prior takes (batch, {self.channels}, height, width), not {tuple(x_t.shape)}.")
        self.size_rule.check(x_t.shape[-2], x_t.shape[-1])
        t = torch.as_tensor(t, dtype=torch.float32, device=x_t.device).expand(len(x_t))
        alpha_bar = alpha_bar_at(self.alpha_bar, t).to(x_t.dtype).view(-1, 1, 1, 1)
        self.n_calls += len(x_t)
        x0 = self.predict_x0(x_t, t, alpha_bar)
        return Prediction((x_t - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt(), x0)


LoadPrior = Callable[[str], Prior]


def to_signed(x: Tensor) -> Tensor:
    """[0, 1] pixels to the prior's [-1, 1]."""
    return 2 * x - 1


def to_unit(x: Tensor) -> Tensor:
    """The prior's [-1, 1] pixels to [0, 1]."""
    return (x + 1) / 2
