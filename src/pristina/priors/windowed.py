"""Priors of any size from a prior of one size: overlapping windows, blended inside a prediction."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import TypeGuard

import torch
from torch import Tensor

from pristina.errors import SettingError, SizeError
from pristina.image.tile import lean
from pristina.priors.base import BasePrior, Prior, SizeRule

DOWN, ACROSS = 0.7548776662466927, 0.5698402909980532
"""Steps of an even sequence in the square, by which windows move from timestep to timestep, so that
their borders lie elsewhere each time."""


def window_starts(side: int, window: int, overlap: float) -> list[int]:
    """Return the first pixels of evenly spaced windows that cover a side.

    Args:
        side: Length to cover in pixels, at least ``window``.
        window: Length of a window in pixels.
        overlap: Least share of a window that the next one shares with it, in [0, 1).

    Example:
        >>> window_starts(150, 64, 0.5)
        [0, 29, 57, 86]
    """
    step = max(1, math.floor(window * (1 - overlap)))
    n_windows = 1 + math.ceil((side - window) / step)
    if n_windows == 1:
        return [0]
    return [round(i * (side - window) / (n_windows - 1)) for i in range(n_windows)]


def blend_weight(window: int) -> Tensor:
    """Return the weight of a window's pixels, (window, window), falling smoothly to its edge."""
    profile = torch.sin(math.pi * (torch.arange(window) + 0.5) / window).square()
    return profile[:, None] * profile


def _mirrored(side: int, window: int) -> Tensor:
    """Return for each of ``window`` pixels the one of ``side`` that mirrors put in its place."""
    place = (torch.arange(window) - (window - side) // 2) % max(1, 2 * side - 2)
    return torch.minimum(place, max(1, 2 * side - 2) - place) if side > 1 else 0 * place


def needs_windows(
    prior: BasePrior | None, size: tuple[int, int], *, has_operator: bool
) -> TypeGuard[Prior]:
    """Return whether a diffusion prior has one size only, and images another.

    A prior of aligned pictures is not applied in windows, none of which would be one: images are
    brought to its size instead.

    Args:
        prior: The weights.
        size: Height and width of the images in pixels.
        has_operator: Whether there is an operator, which acts at the images' own size.

    Raises:
        SizeError: There is an operator, and the prior knows aligned pictures.
    """
    if not isinstance(prior, Prior) or not prior.size_rule.fixed:
        return False
    native = prior.size_rule.native
    if native is None or size == (native, native):
        return False
    if "aligned" in prior.domain and has_operator:
        raise SizeError(
            f"This prior knows {prior.domain}, and with an operator it takes {native} x {native} "
            f"px only, not {size[1]} x {size[0]}: bring the picture to that size, or use a prior "
            "for any picture, such as photos."
        )
    return "aligned" not in prior.domain


class Windowed(Prior):
    """Prior of any size from a prior of one size.

    Every prediction is made in overlapping windows of the size that the prior was trained at, and
    their clean images are averaged with weights that fall smoothly to the edges of a window. As the
    step of every sampler is linear in the clean image, each method then sees one prior that knows
    images of any size. An image of the window's size is predicted by the bare prior. A side that is
    shorter than a window is continued by mirrors.

    Windows know nothing of each other but where they overlap, so that the prior has no idea of what
    lies farther apart than a window.

    Args:
        prior: Prior of one size.
        overlap: Least share of its side that a window shares with the next, in [0, 1) (default
            0.5).
        batch: Largest number of windows that are predicted at once (default 16); fewer where the
            memory of the run allows no more.
        window_px: Side of a window; the size that the prior was trained at by default.

    Raises:
        SettingError: A number is out of range, or the prior names no size.
        SizeError: The prior does not accept windows of that size.

    Example:
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> prior = Windowed(GaussianPrior(variance=0.1), window_px=32)
        >>> prior.predict(torch.zeros(1, 3, 48, 80), 500).x0.shape, prior.n_calls
        (torch.Size([1, 3, 48, 80]), 8)
    """

    weight: Tensor

    def __init__(
        self, prior: Prior, overlap: float = 0.5, batch: int = 16, window_px: int | None = None
    ):
        if not isinstance(prior, Prior):
            raise SettingError(f"Windows need a diffusion prior, not {type(prior).__name__}.")
        if not 0 <= overlap < 1:
            raise SettingError(f"overlap must be at least 0 and below 1, not {overlap}.")
        if batch < 1:
            raise SettingError(f"batch must be at least 1, not {batch}.")
        window = window_px or prior.size_rule.native
        if window is None:
            raise SettingError("This prior was not trained at one size; give window_px.")
        try:
            prior.size_rule.check(window, window)
        except SizeError as error:
            raise SizeError(f"Windows of {window} px do not fit: {error}") from error
        super().__init__(
            domain=prior.domain,
            channels=prior.channels,
            size_rule=SizeRule(native=window),
            alpha_bar=prior.alpha_bar,
        )
        self.prior, self.overlap, self.batch, self.window_px = prior, overlap, batch, window
        self.spec = prior.spec
        self.source = {**prior.source, "windows": f"{window} px, overlapping by {overlap:g}"}
        self.register_buffer("weight", blend_weight(window), persistent=False)

    def calls_per_image(self, height: int, width: int) -> int:
        """Return the number of network calls for one image: those of a window for each window."""
        window = self.window_px
        rows, columns = (
            len(window_starts(max(side, window), window, self.overlap)) for side in (height, width)
        )
        return rows * columns * self.prior.calls_per_image(window, window)

    def predict_x0(self, x_t: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
        window = self.window_px
        height, width = x_t.shape[-2:]
        if (height, width) == (window, window):
            return self.prior.predict_x0(x_t, t, alpha_bar)
        # Sides that are shorter than a window are continued by mirrors, the image in the middle.
        rows, columns = (
            _mirrored(side, window) if side < window else torch.arange(side)
            for side in (height, width)
        )
        x = x_t[..., rows.to(x_t.device)[:, None], columns.to(x_t.device)]
        x0 = self._blend(x, t, alpha_bar)
        top, left = max(0, window - height) // 2, max(0, window - width) // 2
        return x0[..., top : top + height, left : left + width]

    def _starts(self, side: int, time: float, turn: float) -> list[int]:
        """Return the first pixels of windows at a timestep; those inside lie elsewhere at each."""
        starts = window_starts(side, self.window_px, self.overlap)
        if len(starts) < 3:
            return starts
        step = max(b - a for a, b in pairwise(starts))
        room = min(step / 2, 2 * (self.window_px - step))  # so that all pixels stay well inside
        shift = math.trunc((time * turn % 1 - 0.5) * room)
        return [0, *(start + shift for start in starts[1:-1]), starts[-1]]

    def _blend(self, x: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
        """Average the predictions of all windows."""
        window, weight = self.window_px, self.weight.to(x.dtype)
        spots = [
            (i, top, left)
            for i, time in enumerate(t.tolist())
            for top in self._starts(x.shape[-2], time, DOWN)
            for left in self._starts(x.shape[-1], time, ACROSS)
        ]
        total, sum_of_weights = torch.zeros_like(x), torch.zeros_like(x[:, :1])
        batch = max(1, min(self.batch, self.portions.pixels // window**2))
        for first in range(0, len(spots), batch):
            some = spots[first : first + batch]
            cut = [(i, ..., slice(a, a + window), slice(b, b + window)) for i, a, b in some]
            images = torch.tensor([i for i, _, _ in some], device=x.device)
            predict = partial(self.prior.predict_x0, t=t[images], alpha_bar=alpha_bar[images])
            several = len(spots) * window**2 > self.portions.pixels
            x0 = lean(predict, several=several)(torch.stack([x[place] for place in cut]))
            for place, clean in zip(cut, x0, strict=True):
                total[place] += weight * clean
                sum_of_weights[place] += weight
        return total / sum_of_weights
