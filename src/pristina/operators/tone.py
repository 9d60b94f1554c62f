"""Changes of brightness and colour, pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import OperatorError, SettingError
from pristina.operators.base import Operator
from pristina.operators.unknown import Unknown, in_words, numbers
from pristina.types import Images

__all__ = ["Exposure", "Gamma", "Grey", "Haze"]

GreyImages = Float[Tensor, "batch 1 height width"]
ColourImages = Float[Tensor, "batch 3 height width"]


class Grey(Operator):
    """Loss of colour: three channels become one.

    Args:
        how: ``mean`` of red, green and blue, as in the literature; or ``luma``, the weighting of
            grey image files.
    """

    name = "grey"

    def __init__(self, how: Literal["mean", "luma"] = "mean"):
        super().__init__()
        if how not in ("mean", "luma"):
            raise SettingError(f"how must be mean or luma, not {how!r}.")
        self.how = how
        weights = [1 / 3] * 3 if how == "mean" else [0.299, 0.587, 0.114]
        self.register_buffer("weights", torch.tensor(weights).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Images) -> GreyImages:
        if x.shape[1] != 3:
            raise OperatorError(
                f"Only images of 3 channels can lose their colour; this one has {x.shape[1]}."
            )
        return (x * self.get_buffer("weights")).sum(1, keepdim=True)

    def initial(self, y: GreyImages) -> ColourImages:
        return y.expand(-1, 3, -1, -1)

    def adjoint(self, y: GreyImages) -> ColourImages:
        return y * self.get_buffer("weights")

    def check(self, y: Images) -> None:
        if y.shape[1] != 1:
            raise OperatorError(
                f"An image that lost its colour has 1 channel, not {y.shape[1]}; take one of them."
            )

    def estimates(self) -> dict[str, Any]:
        return {"how": self.how}

    def describe(self) -> str:
        return f"colour lost ({self.how} of red, green and blue)"


class Exposure(Operator):
    """Wrong exposure: the image times an unknown gain.

    Values are not clipped here; saving an image clips them.

    Args:
        gain: First guess of the factor; below 1 the image is too dark, above 1 too bright.
        learnable: Whether the gain is unknown.
    """

    name = "exposure"

    def __init__(self, gain: float, learnable: bool = True):
        super().__init__()
        self.gain = Unknown("gain", gain, "positive", learnable=learnable)

    def forward(self, x: Images) -> Images:
        return self.gain.over_images() * x

    def estimates(self) -> dict[str, Any]:
        return {"gain": numbers(self.gain())}

    def describe(self) -> str:
        return f"exposure multiplied by {in_words(self.gain())}"


class Gamma(Operator):
    """Wrong tone curve ``x ** gamma``.

    Args:
        gamma: First guess of the exponent; above 1 mid-tones are too dark, below 1 too bright.
        learnable: Whether the exponent is unknown.
    """

    name = "gamma"
    linear = False

    def __init__(self, gamma: float, learnable: bool = True):
        super().__init__()
        self.gamma = Unknown("gamma", gamma, "positive", learnable=learnable)

    def forward(self, x: Images) -> Images:
        # The slope at black is infinite for gamma < 1.
        return x.clamp_min(1e-4) ** self.gamma.over_images()

    def estimates(self) -> dict[str, Any]:
        return {"gamma": numbers(self.gamma())}

    def describe(self) -> str:
        return f"gamma {in_words(self.gamma())}"


class Haze(Operator):
    """Haze ``y = t x + (1 - t) a`` of transmission ``t`` and airlight ``a``.

    Args:
        transmission: First guess of the share of light that comes through, between 0 and 1.
        airlight: First guess of the colour of the scattered light, one number for grey or three,
            between 0 and 1.
        grid: Number of unknowns of ``t`` along each side of the image, interpolated smoothly from
            border to border; 1 for the same haze everywhere.
        learnable: Whether both are unknown.

    Source:
        The scattering model of Koschmieder 1924, with the depth left in ``t``.
    """

    name = "haze"
    linear = False

    def __init__(
        self,
        transmission: float = 0.5,
        airlight: float | Sequence[float] = 0.8,
        grid: int = 1,
        learnable: bool = True,
    ):
        super().__init__()
        if grid < 1:
            raise SettingError(f"grid must be at least 1, not {grid}.")
        single = isinstance(airlight, (int, float))
        colour = [float(airlight)] * 3 if single else list(airlight)  # type: ignore[arg-type]
        if len(colour) != 3:
            raise SettingError(f"airlight takes one number or three, not {len(colour)}.")
        first = torch.as_tensor(transmission, dtype=torch.float32).expand(1, grid, grid)
        self.transmission = Unknown("transmission", first, "share", learnable=learnable)
        self.airlight = Unknown("airlight", colour, "share", learnable=learnable)

    def forward(self, x: Images) -> Images:
        if x.shape[1] != 3:
            raise OperatorError(f"Haze is for images of 3 channels; this one has {x.shape[1]}.")
        t = F.interpolate(
            self.transmission(), size=x.shape[-2:], mode="bilinear", align_corners=True
        )
        return t * x + (1 - t) * self.airlight().view(-1, 3, 1, 1)

    def estimates(self) -> dict[str, Any]:
        return {
            "transmission": numbers(self.transmission()[:, 0]),
            "airlight": numbers(self.airlight()),
        }

    def describe(self) -> str:
        transmission = in_words(self.transmission().mean((1, 2, 3)), "%", 100)
        airlight = in_words(self.airlight().mean(1))
        return f"haze with a transmission of {transmission} and airlight of brightness {airlight}"
