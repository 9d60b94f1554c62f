"""Automatic levels: stretch faded colours, each channel by itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SHARE = 0.005
"""Share of the pixels that may become black, and that may become white, in each channel."""
LEAST_GAIN, MOST_GAIN = 1.02, 4.0
"""Gains below which a channel is left as it is, and up to which it is stretched."""
FADED_BLACK, FADED_GAIN = 0.12, 1.4
"""Least black and least gain of all channels from which a picture counts as strongly faded: 5 of
157 clean training photographs (fog, haze) reach both. A cast is not looked for: coloured light
looks the same."""


@dataclass(frozen=True)
class Levels:
    """What becomes black and white in each channel.

    Attributes:
        black: Value that becomes 0, one for each channel.
        white: Value that becomes 1, one for each channel.
    """

    black: tuple[float, ...]
    white: tuple[float, ...]

    @classmethod
    def of(cls, pixels: Tensor) -> Levels:
        """Measure the levels of a picture, (3, H, W), in [0, 1].

        The share :data:`SHARE` of the pixels at each end is left out; a channel is stretched around
        its middle by :data:`MOST_GAIN` at most.
        """
        black, white = [], []
        for channel in pixels:
            values = channel.flatten()
            values = values[:: max(1, len(values) // 2_000_000)].sort().values
            at = int(SHARE * (len(values) - 1))
            low, high = float(values[at]), float(values[len(values) - 1 - at])
            if high - low < 1 / MOST_GAIN:
                middle = (low + high) / 2
                low = min(max(0.0, middle - 0.5 / MOST_GAIN), 1 - 1 / MOST_GAIN)
                high = low + 1 / MOST_GAIN
            small = 1 / (high - low) < LEAST_GAIN
            black.append(0.0 if small else low)
            white.append(1.0 if small else high)
        return cls(tuple(black), tuple(white))

    @property
    def gains(self) -> tuple[float, ...]:
        """Factor by which the contrast of each channel grows."""
        return tuple(1 / (high - low) for low, high in zip(self.black, self.white, strict=True))

    @property
    def faded(self) -> bool:
        """Whether the picture is strongly faded."""
        return min(self.black) > FADED_BLACK and min(self.gains) > FADED_GAIN

    @property
    def note(self) -> str:
        """A sentence about what is done."""
        if max(self.gains) == 1:
            return "The colours already reach from black to white: no level was changed."
        grown = ", ".join(f"{100 * (gain - 1):.0f} %" for gain in self.gains)
        return (
            f"The levels were stretched: the contrast of red, green and blue grew by {grown}; at "
            f"either end at most {100 * SHARE:g} % of the pixels of a channel were clipped."
        )

    def apply(self, pixels: Tensor) -> Tensor:
        """Return the pixels, (3, H, W), with levels from 0 to 1."""
        black, white = (
            torch.tensor(side, dtype=pixels.dtype, device=pixels.device).view(3, 1, 1)
            for side in (self.black, self.white)
        )
        return ((pixels - black) / (white - black)).clamp(0, 1)


HINT = (
    "Its colours seem faded: --levels stretches them from black to white (levels=True in Python)."
)
"""What a user is told of a picture whose colours are strongly faded."""
