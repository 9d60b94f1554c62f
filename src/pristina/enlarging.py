"""Enlarging a picture two, three or four times, after everything else.

The shipped network knows pictures that are four times too small. For two and three times the
picture is enlarged four times with it and then reduced: on the twelve held-out photographs that is
2.6 and 2.0 dB better than bicubic enlargement, and the network at the final size is not
(benchmarks/enlarging.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pristina.errors import SettingError
from pristina.image.fit import resize
from pristina.image.picture import MAX_PIXELS, Picture
from pristina.priors.load import describe_file, find_weights
from pristina.priors.onnx_model import SUFFIX, OnnxRegressor
from pristina.request import Request

ENLARGER, TRAINED = "x4", 4
"""Shipped weights that enlarge, and how many times."""
MEASURED_PX = 96
"""Side of the part from which the time is estimated, in pixels."""


@dataclass(frozen=True)
class Enlarging:
    """What enlarges a picture.

    Attributes:
        scale: Number of times that both sides become longer.
        prior: Loaded weights: a regressor of pictures that were enlarged bicubically, or an
            :class:`~pristina.priors.onnx_model.OnnxRegressor` that enlarges by itself.
        weights_name: Name of the weights for records.
    """

    scale: int
    prior: Any
    weights_name: str

    @property
    def note(self) -> str:
        """A sentence about what is done."""
        return f"The picture is enlarged {self.scale} times with {self.weights_name}, at the end."

    def seconds(self, size: tuple[int, int]) -> float:
        """Estimate the time for pixels of a size, height and width, from a small part of them."""
        height, width = (min(MEASURED_PX, n) for n in size)
        begun = time.perf_counter()
        self.run(torch.full((3, height, width), 0.5))
        return (time.perf_counter() - begun) * size[0] * size[1] / (height * width)

    @torch.no_grad()
    def run(self, pixels: Tensor) -> Tensor:
        """Enlarge pixels, (3, H, W), in [0, 1]."""
        height, width = pixels.shape[-2:]
        x = pixels[None].to(self.prior.device)
        if isinstance(self.prior, OnnxRegressor):
            large = self.prior.enlarged(x)
        else:
            large = self.prior.predict(resize(x, TRAINED * height, TRAINED * width), 1.0)
        return resize(large.clamp(0, 1), self.scale * height, self.scale * width)[0]


def enlarges(source: Any) -> int:
    """Return how many times weights, or what names them, enlarge; 1 for those that do not."""
    if isinstance(source, OnnxRegressor):
        return source.scale
    if not isinstance(source, str | Path):
        return 1
    path = find_weights(source)
    if path.suffix.lower() == SUFFIX:
        return OnnxRegressor(path).scale
    spec = describe_file(path)
    trained = spec is not None and ENLARGER in (spec.rest.get("recipe"), spec.rest.get("mixture"))
    return TRAINED if trained else 1


def plan_enlarging(
    request: Request, source: Any, picture: Picture, load: Callable[..., Any], device: torch.device
) -> Enlarging:
    """Load what enlarges a picture as a request asks.

    Args:
        request: The request, with a scale above 1.
        source: Weights that enlarge, or what names them; None for the shipped ones.
        picture: The picture.
        load: Function that loads weights.
        device: Device of the computation.

    Raises:
        SettingError: The picture would be too large, or the network enlarges less than asked.
    """
    scale, pixels = request.scale, picture.size[0] * picture.size[1]
    prior = load("direct", ENLARGER if source is None else source, device=device)
    own = getattr(prior, "scale", TRAINED)
    if own < scale:
        raise SettingError(f"This network enlarges {own} times; take --scale {own}.")
    check_pixels(pixels, own)
    name = ENLARGER if source is None else str(source)
    return Enlarging(scale, prior, name if isinstance(source, str | None) else type(prior).__name__)


def check_pixels(pixels: int, scale: int) -> None:
    """Raise :class:`SettingError` unless a picture stays readable after it was enlarged."""
    if pixels * scale**2 > MAX_PIXELS:
        raise SettingError(
            f"Enlarged {scale} times it would have {pixels * scale**2:,} pixels, more than "
            f"{MAX_PIXELS:,}; cut it into pieces."
        )
