"""Deblur: find the blur of a picture, unless it is known, and undo it in one call of a network.

Glossary:
    y: observation, k * x + noise.
    k: kernel.
    x: clean picture.
    sigma: standard deviation of the noise of y.

Source:
    Ours. The kernel is found as :mod:`pristina.methods.steps.kernel_from_picture` describes; the
    network is that of :mod:`pristina.methods.reconstruct`, which sees Wiener solutions for k and
    was trained with kernels that are slightly wrong.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from annotated_types import Interval
from torch import Tensor

from pristina.errors import Cancelled, InputError, OperatorError, SettingError
from pristina.image.statistics import estimate_noise
from pristina.methods.steps.kernel_from_picture import (
    SHARP_PX,
    FoundKernel,
    kernel_from_picture,
    kernels_from_fields,
)
from pristina.methods.steps.parts import LARGEST_PX, trimmed, undo_blur
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, Stop, StopReason, refuse_start
from pristina.operators.base import Observation, Operator
from pristina.operators.blur import Blur, FreeKernel, KernelBlur, VaryingBlur
from pristina.operators.convolve import Boundary
from pristina.operators.kernels import spread
from pristina.operators.noise import GaussianNoise, Noise, white_noise_sigma
from pristina.operators.spectral import what_matters
from pristina.priors.aware import AwarePrior
from pristina.priors.direct import DirectPrior
from pristina.settings import NotNegative, Settings
from pristina.types import Draw, Generators, Images, OnStep

FOUND_SIGMA = 3 / 255
"""Least noise that y is taken to have where the kernel was found: its errors count as noise."""

INSTEAD = {
    "leave": "It was left as it is.",
    "regress": "It went through the regressor once instead.",
    "deblur": "It was sharpened all the same.",
}
"""What is said of a picture whose kernel is in doubt."""


@dataclass(frozen=True)
class Deblur(Settings):
    """Settings of :func:`deblur`.

    Attributes:
        kernel_px: Side of the kernel that is looked for in the picture, px, odd.
        fields: Number of kernels along the longer side of the picture that are looked for where
            one kernel everywhere is in doubt, as where the camera was turned: each is found in the
            field around its place. 1 for none.
        sigma: Standard deviation of the noise, in [0, 1] units; None to take that of the operator,
            or to estimate it from each image.
        in_doubt: What becomes of a picture if the kernel that was found in it is in doubt: it is
            left alone (``leave``), goes through a blind regressor once (``regress``), or is
            sharpened all the same (``deblur``).
        regressor: Name of the blind regressor: a shipped one or a file; None without one.
    """

    kernel_px: Annotated[int, Interval(ge=5, le=LARGEST_PX)] = 31
    fields: Annotated[int, Interval(ge=1, le=8)] = 1
    sigma: NotNegative | None = None
    in_doubt: Literal["leave", "regress", "deblur"] = "leave"
    regressor: str | None = "blind"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel_px % 2 == 0:
            raise SettingError(f"kernel_px must be odd, not {self.kernel_px}.")
        if self.in_doubt == "regress" and self.regressor is None:
            raise SettingError("in_doubt=regress needs a regressor; name one, as regressor=blind.")


def calls(settings: Deblur) -> Calls:
    """Return the network calls for one image; a picture that is left alone costs none."""
    return Calls(1, may_stop=True, pictures=6)  # in parts; a picture of one part holds 14


@torch.no_grad()
def deblur(
    observation: Observation,
    prior: AwarePrior,
    settings: Deblur = Deblur(),
    *,
    regressor: DirectPrior | None = None,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Sharpen images whose blur is the same everywhere, or varies slowly.

    Args:
        observation: Blurred images, (B, C, h, w), of any size. The operator is one blur with a
            kernel that is known or nearly known, with or without white noise; None, or
            :class:`~pristina.operators.blur.FreeKernel`, to find the kernel, or one for each
            field, in each image.
        prior: Operator-aware regressor.
        settings: Settings, see :class:`Deblur`.
        regressor: Weights that ``settings.regressor`` names, for images whose kernel is in doubt.
        start: None: there is nothing to go on with.
        generator: One generator for each image; nothing is drawn.
        on_step: Progress callback, called once; cancelling changes nothing.

    Returns:
        Images of the size before the blur, the operator with the kernels that were used, and in the
        extras ``sigma``, (B,), and for kernels that were found their ``agreement``, (B,).

    Raises:
        OperatorError: The operator is not one blur of at most :data:`LARGEST_PX` px, or a kernel is
            to be found in an image that is too small.
        InputError: The channels or devices differ, the regressor has not been loaded, or a state to
            start from is given.

    Example:
        >>> import torch
        >>> from pristina.operators.blur import GaussianBlur
        >>> class Middle(AwarePrior):  # The middle solution is right.
        ...     def regress(self, evidence, sigma):
        ...         return evidence[:, 6:9]
        >>> blur = GaussianBlur(1.5, size=9)
        >>> x = torch.zeros(1, 3, 32, 32); x[..., 12:20, 12:20] = 1
        >>> y = blur(x).detach()
        >>> sharper = deblur(Observation(y, blur), Middle(domain="tests")).images
        >>> bool((sharper - x).abs().mean() < 0.6 * (y - x).abs().mean())
        True
    """
    refuse_start("deblur", start)
    blur = blur_of(observation.operator)
    check_observation(observation, prior)
    y = observation.y
    recorder = RunRecorder(prior, 1, on_step)
    prior = recorder.prior
    sigma = _noise_level(observation, settings)

    # A kernel for each image: that of the operator, or the one found in the image.
    unknown = isinstance(blur, FreeKernel)
    boundary: Boundary = "reflect" if blur is None else blur.boundary
    grid = (1, 1)
    if blur is None or unknown:
        if settings.in_doubt == "regress" and regressor is None:
            raise InputError(
                f"The regressor {settings.regressor!r} has not been loaded: pass "
                f"regressor=load_weights('direct', {settings.regressor!r})."
            )
        size = settings.kernel_px if blur is None else blur.size
        grid = _places(y, settings.fields)
        _check_room(y, size, grid)
        found = [_found(image[None], size, grid) for image in y]
        n = max(one.kernel.shape[1] for one in found)
        grid = grid if n > 1 else (1, 1)
        kernels = torch.cat([one.kernel.expand(-1, n, -1, -1) for one in found])
        ways = [settings.in_doubt if one.doubt else "deblur" for one in found]
        recorder.notes += dict.fromkeys(one.sentence(INSTEAD[settings.in_doubt]) for one in found)
        sigma = sigma.clamp(min=FOUND_SIGMA)
        extras: dict[str, Tensor] = {"agreement": torch.tensor([one.agreement for one in found])}
    else:
        kernels = blur.kernel().detach()
        if boundary != "valid":  # There the size of the kernel is that of the border.
            kernels = trimmed(kernels)
        kernels = kernels.expand(len(y), -1, -1, -1)
        ways, extras = ["deblur"] * len(y), {}

    # The images that are not left alone.
    images = observation.initial().clone()
    for i, way in enumerate(ways):
        one = slice(i, i + 1)
        if way == "deblur":
            images[one] = undo_blur(y[one], kernels[one], sigma[one], boundary, prior, grid)
        elif way == "regress" and regressor is not None:
            images[one] = regressor.predict(images[one], 1.0)
            prior.n_calls += 1
    images = images.clamp(0, 1)
    used: Blur
    if grid == (1, 1):
        used = KernelBlur(kernels, boundary)
    else:
        used = VaryingBlur(kernels.unflatten(1, grid), boundary, learnable=False)
    loss = (used(images) - y).square().mean((1, 2, 3))
    with suppress(Cancelled):
        recorder.step(images, loss)
    stopped = [
        Stop(StopReason.LEFT_ALONE if way == "leave" else StopReason.COMPLETED, 1) for way in ways
    ]
    seeds = Draw(generator, len(y), y.device).seeds
    result = recorder.result("deblur", images, settings, seeds, stopped, operator=used, sigma=sigma)
    return replace(result, extras=result.extras | extras)


def blur_of(operator: Operator | None) -> Blur | None:
    """Return the one blur that an operator consists of besides white noise; None without one.

    Raises:
        OperatorError: It is another operator.
    """
    if operator is None:
        return None
    parts = what_matters(operator)
    noises = [p for p in operator.parts if isinstance(p, Noise)]
    known_noise = all(isinstance(p, GaussianNoise) for p in noises)
    one = parts[0] if len(parts) == 1 else None
    if not isinstance(one, Blur) or isinstance(one, VaryingBlur) or not known_noise:
        raise OperatorError(
            f"deblur undoes one blur, with or without white noise, not: {operator.describe()}. "
            "Take diffpir or dps for other operators, reconstruct for a varying blur that is "
            "known, and deblur with fields=3 and no operator for one that is not."
        )
    if isinstance(one, FreeKernel):
        return one
    kernel = one.kernel().detach()
    if (kernel.sum((1, 2, 3)) - 1).abs().max() > 1e-3:
        raise OperatorError("The kernel's sum is not 1; divide the kernel by its sum.")
    size = trimmed(kernel).shape[-1]
    if size > LARGEST_PX:
        raise OperatorError(
            f"deblur undoes blurs of up to {LARGEST_PX} px, and this one is {size} px wide; "
            "reduce the picture first, or take diffpir."
        )
    return one


def _places(y: Images, fields: int) -> tuple[int, int]:
    """Return the rows and columns of places with kernels of their own, near to square."""
    height, width = y.shape[-2:]
    shorter = max(1, round(fields * min(height, width) / max(height, width)))
    return (shorter, fields) if width >= height else (fields, shorter)


def _found(y: Images, size: int, grid: tuple[int, int]) -> FoundKernel:
    """Find the kernel of one image, or where that is in doubt those of its places."""
    one = kernel_from_picture(y, size)
    if grid != (1, 1) and one.doubt and float(spread(one.kernel)) >= SHARP_PX:
        return kernels_from_fields(y, size, grid)
    return one


def _check_room(y: Images, size: int, grid: tuple[int, int]) -> None:
    """Raise :class:`OperatorError` if an image, or a field of it, is too small for a kernel."""
    if size > LARGEST_PX or size < 5:
        raise OperatorError(
            f"deblur finds kernels of 5 to {LARGEST_PX} px, not of {size} px; take another size."
        )
    height, width = y.shape[-2:]
    least = min(max(height, width) // 2, min(height, width))
    if least < 2 * size:
        raise OperatorError(
            f"A kernel of {size} px cannot be found in a picture of {width} x {height} px; "
            f"take kernel_px={max(5, least // 4 * 2 - 1)} or less, or name the blur."
        )
    if grid != (1, 1) and min(height // grid[0], width // grid[1]) < 2 * size:
        raise OperatorError(
            f"A picture of {width} x {height} px is too small for {grid[0]} x {grid[1]} kernels "
            f"of {size} px; take fewer fields or a smaller kernel_px."
        )


def _noise_level(observation: Observation, settings: Deblur) -> Tensor:
    """Return the noise level of each image: as set, known, of the operator, or estimated."""
    estimated = estimate_noise(observation.y)
    told = settings.sigma if settings.sigma is not None else observation.known_sigma
    if told is None and observation.operator is not None:
        told = white_noise_sigma(observation.operator)
    return estimated if told is None else torch.full_like(estimated, told)
