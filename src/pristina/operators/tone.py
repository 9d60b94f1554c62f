"""What happens to brightness and colour, pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import OperatorError, SettingError
from pristina.operators.base import Operator
from pristina.operators.unknown import Unknown, numbers, say


class Grey(Operator):
    """Colour lost: one channel is left of three.

    Args:
        how: ``mean`` of red, green and blue, as in the literature; or ``luma``, as grey files are made.
    """

    name = "grey"

    def __init__(self, how: Literal["mean", "luma"] = "mean"):
        super().__init__()
        if how not in ("mean", "luma"):
            raise SettingError(f"how must be mean or luma, not {how!r}.")
        self.how = how
        weights = [1 / 3] * 3 if how == "mean" else [0.299, 0.587, 0.114]
        self.register_buffer("weights", torch.tensor(weights).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 3:
            raise OperatorError(f"Only pictures of 3 channels can lose their colour; this one has {x.shape[1]}.")
        return (x * self.get_buffer("weights")).sum(1, keepdim=True)

    def initial(self, y: Tensor) -> Tensor:
        return y.expand(-1, 3, -1, -1)

    def adjoint(self, y: Tensor) -> Tensor:
        return y * self.get_buffer("weights")

    def check(self, y: Tensor) -> None:
        if y.shape[1] != 1:
            raise OperatorError(f"A picture that lost its colour has 1 channel, not {y.shape[1]}; take one of them.")

    def estimates(self) -> dict[str, Any]:
        return {"how": self.how}

    def describe(self) -> str:
        return f"colour lost ({self.how} of red, green and blue)"


class Exposure(Operator):
    """All light times an unknown ``gain``: below 1 too dark, above 1 too bright. Nothing is clipped here; saving a picture clips.

    Args:
        gain: First guess.
        learnable: Whether it is unknown.
    """

    name = "exposure"

    def __init__(self, gain: float, learnable: bool = True):
        super().__init__()
        self.gain = Unknown("gain", gain, "positive", learnable=learnable)

    def forward(self, x: Tensor) -> Tensor:
        return self.gain.over_pictures() * x

    def estimates(self) -> dict[str, Any]:
        return {"gain": numbers(self.gain())}

    def describe(self) -> str:
        return f"exposure times {say(self.gain())}"


class Gamma(Operator):
    """``x ** gamma``: mid-tones too dark above 1, too bright below.

    Args:
        gamma: First guess.
        learnable: Whether it is unknown.
    """

    name = "gamma"
    linear = False

    def __init__(self, gamma: float, learnable: bool = True):
        super().__init__()
        self.gamma = Unknown("gamma", gamma, "positive", learnable=learnable)

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp_min(1e-4) ** self.gamma.over_pictures()  # the slope at black is infinite for gamma < 1

    def estimates(self) -> dict[str, Any]:
        return {"gamma": numbers(self.gamma())}

    def describe(self) -> str:
        return f"gamma {say(self.gamma())}"


class Haze(Operator):
    """Haze: ``y = t x + (1 - t) a``, with transmission ``t`` and the colour ``a`` of the light that the air scatters.

    Args:
        transmission: First guess of the share of light that comes through, between 0 and 1.
        airlight: First guess of the air's colour, one number for grey or three; between 0 and 1.
        grid: ``t`` is a smooth map with grid x grid unknowns, spread from border to border; 1 for the same haze everywhere.
        learnable: Whether both are unknown.

    Source:
        The scattering model of Koschmieder 1924, with the depth left in ``t``.
    """

    name = "haze"
    linear = False

    def __init__(self, transmission: float = 0.5, airlight: float | Sequence[float] = 0.8, grid: int = 1, learnable: bool = True):
        super().__init__()
        if grid < 1:
            raise SettingError(f"grid must be at least 1, not {grid}.")
        colour = [float(airlight)] * 3 if isinstance(airlight, (int, float)) else list(airlight)
        if len(colour) != 3:
            raise SettingError(f"airlight takes one number or three, not {len(colour)}.")
        first = torch.as_tensor(transmission, dtype=torch.float32).expand(1, grid, grid)
        self.transmission = Unknown("transmission", first, "share", learnable=learnable)
        self.airlight = Unknown("airlight", colour, "share", learnable=learnable)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 3:
            raise OperatorError(f"Haze is for pictures of 3 channels; this one has {x.shape[1]}.")
        t = F.interpolate(self.transmission(), size=x.shape[-2:], mode="bilinear", align_corners=True)
        return t * x + (1 - t) * self.airlight().view(-1, 3, 1, 1)

    def estimates(self) -> dict[str, Any]:
        return {"transmission": numbers(self.transmission()[:, 0]), "airlight": numbers(self.airlight())}

    def describe(self) -> str:
        mean = self.transmission().mean((1, 2, 3))
        return f"haze that lets through {say(mean, '%', 100)}, with air of brightness {say(self.airlight().mean(1))}"
