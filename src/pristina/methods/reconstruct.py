"""Reconstruct: undo any linear damage that is known, in one call of a network that is told it.

Glossary:
    y: observation, A x + noise.
    A: linear operator.
    w: solutions, from little to much regularisation.
    sigma: standard deviation of the noise of y.

Source:
    Ours. The network sees y beside three solutions of least squares, and adds to the middle one.
    Relatives: Dong et al., "Deep Wiener deconvolution", NeurIPS 2020 (Wiener solutions of features
    as the input of a network); Terris et al., "Reconstruct anything model" (RAM), 2025 (one network
    for many operators, told operator and noise); unrolled networks such as Adler and Oktem,
    "Learned primal-dual reconstruction", 2018 (which apply the operator within the network, as this
    one does not).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from pristina.errors import Cancelled, OperatorError
from pristina.methods.steps.evidence import evidence_of
from pristina.methods.steps.linear import known_and_linear
from pristina.methods.steps.parts import LARGEST_PX, trimmed, undo_blur
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason, refuse_start
from pristina.operators.base import Observation, Operator
from pristina.operators.blur import Blur, FreeKernel, VaryingBlur
from pristina.operators.convolve import Boundary
from pristina.operators.spectral import what_matters
from pristina.priors.aware import AwarePrior
from pristina.settings import Settings
from pristina.types import Draw, Generators, OnStep


@dataclass(frozen=True)
class Reconstruct(Settings):
    """Settings of :func:`reconstruct`: there are none."""


def calls(settings: Reconstruct) -> Calls:
    """Return the network calls for one image."""
    return Calls(1, pictures=15)


@torch.no_grad()
def reconstruct(
    observation: Observation,
    prior: AwarePrior,
    settings: Reconstruct = Reconstruct(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Restore images with an operator that is known, or nearly known, and the noise level.

    Args:
        observation: Degraded images of any size, (B, C, h, w), a linear operator and
            ``known_sigma``.
        prior: Operator-aware regressor.
        settings: Settings; there are none.
        start: None: there is nothing to go on with.
        generator: One generator for each image; nothing is drawn.
        on_step: Progress callback, called once; cancelling changes nothing.

    Returns:
        Result with the images; trace ``loss``, the mean squared residual in [0, 1] units.

    Raises:
        OperatorError: There is no operator, it is not linear, or its kernel is unknown.
        InputError: ``known_sigma`` is missing, the channels or devices differ, or a state to start
            from is given.

    Example:
        >>> import torch
        >>> from pristina.operators.blur import GaussianBlur
        >>> class Middle(AwarePrior):  # The middle solution is right.
        ...     def regress(self, evidence, sigma):
        ...         return evidence[:, 6:9]
        >>> blur = GaussianBlur(1.5, size=9)
        >>> x = torch.zeros(1, 3, 32, 32); x[..., 12:20, 12:20] = 1
        >>> y = blur(x).detach()
        >>> sharper = reconstruct(Observation(y, blur, 0.001), Middle(domain="tests")).images
        >>> bool((sharper - x).abs().mean() < 0.6 * (y - x).abs().mean())
        True
    """
    refuse_start("reconstruct", start)
    known, sigma = known_and_linear("reconstruct", observation)
    check_observation(observation, prior)
    y = observation.y
    operator = known.for_batch(len(y)).requires_grad_(False).to(y.device)
    recorder = RunRecorder(prior, 1, on_step)
    prior = recorder.prior
    levels = torch.full((len(y),), sigma, device=y.device)

    blur = _one_kernel(operator)
    if blur is None:
        # Solutions by conjugate gradients.
        images = prior.predict(evidence_of(y, operator, levels), levels)
    else:
        # Solutions by the Fourier transform, in parts of a large image.
        kernel, boundary = blur
        kernels = kernel.expand(len(y), -1, -1, -1)
        images = undo_blur(y, kernels, levels, boundary, prior)
    images = images.clamp(0, 1)
    loss = (operator(images) - y).square().mean((1, 2, 3))
    with suppress(Cancelled):
        recorder.step(images, loss)
    seeds = Draw(generator, len(y), y.device).seeds
    return recorder.result("reconstruct", images, settings, seeds, StopReason.COMPLETED)


def _one_kernel(operator: Operator) -> tuple[Tensor, Boundary] | None:
    """Return the kernel and the border of an operator that is one blur; None of any other.

    Raises:
        OperatorError: The kernel is unknown.
    """
    parts = what_matters(operator)
    if any(isinstance(part, FreeKernel) for part in parts):
        raise OperatorError(
            "reconstruct must know the kernel of a blur, and this one is unknown; "
            "take deblur, which finds it in the picture."
        )
    blur = parts[0] if len(parts) == 1 else None
    if not isinstance(blur, Blur) or isinstance(blur, VaryingBlur):
        return None
    kernel = blur.kernel()
    if (kernel.sum((1, 2, 3)) - 1).abs().max() > 1e-3:
        return None
    if blur.boundary != "valid":  # There the size of the kernel is that of the border.
        kernel = trimmed(kernel)
    return (kernel, blur.boundary) if kernel.shape[-1] <= LARGEST_PX else None
