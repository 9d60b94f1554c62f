"""Deblur: undo a blur, known or found in the picture, between calls of a denoiser.

Glossary:
    y: observation, k * x + noise.
    k: kernel.
    x: picture that agrees with y.
    z: picture without noise, near x.
    sigma: standard deviation of the noise of y; sigma_i: that which x is taken to have in step i.

Source:
    Half-quadratic splitting with a denoiser, as in Zhang et al., "Plug-and-play image restoration
    with deep denoiser prior" (DPIR), TPAMI 2021: ``z = D(x)``, then
    ``x = argmin ||y - k * x||^2 + rho ||x - z||^2`` with ``rho = lam sigma^2 / sigma_i^2``.
    Deliberate differences: the denoiser is a regressor that is not told the noise level; the first
    x is a Wiener solution, so that four steps are enough; what lies beyond the border is unknown,
    and is filled with what z predicts there; the result is a z. The blind form is described in
    :mod:`pristina.methods.steps.kernel_from_picture`.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Interval
from torch import Tensor

from pristina.errors import Cancelled, OperatorError, SettingError
from pristina.image.statistics import estimate_noise
from pristina.methods.steps.kernel_from_picture import kernel_from_picture
from pristina.methods.steps.parts import LARGEST_PX, in_parts, trimmed
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, Stop, StopReason, refuse_start
from pristina.operators.base import Observation, Operator
from pristina.operators.blur import Blur, FreeKernel, KernelBlur, VaryingBlur
from pristina.operators.convolve import Boundary
from pristina.operators.noise import GaussianNoise, Noise, white_noise_sigma
from pristina.operators.spectral import what_matters
from pristina.operators.wiener import Canvas, noise_penalty
from pristina.priors.direct import DirectPrior
from pristina.settings import Count, NotNegative, Positive, Settings
from pristina.types import Draw, Generators, Images, OnStep

FIRST_SIGMA = 40 / 255
"""Noise that the first x is taken to have, in [0, 1] units."""

LEAST_SIGMA = 0.5 / 255
"""Least noise that y is taken to have."""

WIENER = 3.0
"""Regularisation of the first x, as a multiple of Wiener's."""

FOUND_SIGMA = 4 / 255
"""Least noise that y is taken to have where the kernel was found: its errors count as noise."""

FILLINGS = 6
"""Number of times that the border is filled before the first step."""

INSTEAD = {
    "leave": "It was left as it is.",
    "regress": "It went through the network once instead.",
    "deblur": "",
}
"""What is said of a picture whose kernel is in doubt."""


@dataclass(frozen=True)
class Deblur(Settings):
    """Settings of :func:`deblur`.

    Attributes:
        steps: Number of network calls.
        lam: Weight of the denoised picture against the data.
        kernel_px: Side of the kernel that is looked for in the picture, px, odd.
        sigma: Standard deviation of the noise, in [0, 1] units; None to take that of the operator,
            or to estimate it from each image.
        in_doubt: What becomes of a picture if the kernel that was found in it is in doubt: it is
            left alone (``leave``), goes through the regressor once (``regress``), or is sharpened
            all the same (``deblur``).
    """

    steps: Count = 4
    lam: Positive = 0.25
    kernel_px: Annotated[int, Interval(ge=5, le=LARGEST_PX)] = 31
    sigma: NotNegative | None = None
    in_doubt: Literal["leave", "regress", "deblur"] = "leave"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel_px % 2 == 0:
            raise SettingError(f"kernel_px must be odd, not {self.kernel_px}.")


def calls(settings: Deblur) -> Calls:
    """Return the network calls for one image; a picture that is left alone costs none."""
    return Calls(settings.steps, may_stop=True)


def deblur(
    observation: Observation,
    prior: DirectPrior,
    settings: Deblur = Deblur(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Sharpen images whose blur is the same everywhere.

    Args:
        observation: Blurred images, (B, C, h, w), of any size. The operator is one blur with a
            kernel that is known or nearly known, with or without white noise; None, or
            :class:`~pristina.operators.blur.FreeKernel`, to find the kernel in each image.
        prior: Regressor that removes noise.
        settings: Settings, see :class:`Deblur`.
        start: None: there is nothing to go on with.
        generator: One generator for each image; nothing is drawn.
        on_step: Progress callback, called once; cancelling changes nothing.

    Returns:
        Images of the size before the blur, the operator with the kernels that were used, and in the
        extras ``sigma``, (B,), and for kernels that were found their ``agreement``, (B,).

    Raises:
        OperatorError: The operator is not one blur of at most :data:`LARGEST_PX` px, or a kernel is
            to be found in an image that is too small.
        InputError: The channels or devices differ, or a state to start from is given.

    Example:
        >>> import torch
        >>> from pristina.operators.blur import GaussianBlur
        >>> class Same(DirectPrior):  # Nothing is noise.
        ...     def regress(self, x_t, t):
        ...         return x_t
        >>> blur = GaussianBlur(1.5, size=9)
        >>> x = torch.zeros(1, 3, 32, 32); x[..., 12:20, 12:20] = 1
        >>> y = blur(x).detach()
        >>> sharper = deblur(Observation(y, blur), Same(domain="tests")).images
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
    if blur is None or unknown:
        size = settings.kernel_px if blur is None else blur.size
        _check_room(y, size)
        found = [kernel_from_picture(image[None], size) for image in y]
        kernels = torch.cat([one.kernel for one in found])
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
    with torch.no_grad():
        for i in range(len(y)):
            one = slice(i, i + 1)
            if ways[i] == "deblur":
                work = partial(sharpened, sigma=sigma[one], prior=prior, settings=settings)
                before = prior.n_calls
                images[one] = in_parts(work, y[one], kernels[one], boundary)
                prior.n_calls = before + settings.steps  # Parts of one image count once.
            elif ways[i] == "regress":
                images[one] = prior.predict(images[one], 1.0)
        images = images.clamp(0, 1)
        used = KernelBlur(kernels, boundary)
        loss = (used(images) - y).square().mean((1, 2, 3))
    with suppress(Cancelled):
        recorder.step(images, loss)
    stopped = [
        Stop(StopReason.LEFT_ALONE if way == "leave" else StopReason.COMPLETED, 1) for way in ways
    ]
    seeds = Draw(generator, len(y), y.device).seeds
    result = recorder.result("deblur", images, settings, seeds, stopped, operator=used, sigma=sigma)
    return replace(result, extras=result.extras | extras)


def sharpened(
    y: Tensor,
    kernel: Tensor,
    boundary: Boundary,
    *,
    sigma: Tensor,
    prior: DirectPrior,
    settings: Deblur,
) -> Tensor:
    """Alternate the denoiser and the fit to the data, for one image.

    Args:
        y: Observation, (1, C, h, w).
        kernel: Kernel, (1, 1, K, K).
        boundary: Rule beyond the border.
        sigma: Noise level, (1,).
        prior: The denoiser.
        settings: Settings of the method.

    Returns:
        The canvas, (1, C, h + K - 1, w + K - 1); of the size of y for ``circular``.
    """
    canvas = Canvas(y, kernel, boundary)
    penalty = noise_penalty(sigma, canvas.size)
    for _ in range(FILLINGS):
        canvas.fill(canvas.solve(penalty))
    x = canvas.image(canvas.solve(WIENER * penalty))
    noise = float(sigma.clamp(min=LEAST_SIGMA))
    last = max(noise, 3 * LEAST_SIGMA)
    sigmas = torch.logspace(math.log10(max(FIRST_SIGMA, last)), math.log10(last), settings.steps)
    z = prior.predict(x, 1.0)
    for sigma_i in sigmas[1:].tolist():
        near = torch.fft.rfft2(z)
        canvas.fill(near)
        x = canvas.image(canvas.solve(settings.lam * (noise / sigma_i) ** 2, near))
        z = prior.predict(x, 1.0)
    return canvas.picture(z)


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
            "Take diffpir or dps for other operators."
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


def _check_room(y: Images, size: int) -> None:
    """Raise :class:`OperatorError` if an image is too small to find a kernel in it."""
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


def _noise_level(observation: Observation, settings: Deblur) -> Tensor:
    """Return the noise level of each image: as set, known, of the operator, or estimated."""
    estimated = estimate_noise(observation.y)
    told = settings.sigma if settings.sigma is not None else observation.known_sigma
    if told is None and observation.operator is not None:
        told = white_noise_sigma(observation.operator)
    return estimated if told is None else torch.full_like(estimated, told)
