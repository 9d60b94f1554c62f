"""DDNM: replace what the observation says of the clean image, and let the prior fill in the rest.

The operator and the noise level must be known: an upper bound for blind methods, not one of them.

Glossary:
    y: observation; sigma_y its noise in [-1, 1] units.
    A: operator; ``A^+`` its pseudo-inverse; s its singular values.
    x_t: diffused image, variance exploding: x0 + sigma_t noise.
    x0, eps: clean image and noise that the prior predicts from it.
    eta: share of fresh noise in a step.
    travel: going back some steps by adding noise, and making them again.

Source:
    Wang, Yu and Zhang, "Zero-shot image restoration using denoising diffusion null-space model",
    ICLR 2023, whose text was not available to us, and its released code: DDNM+, with
    ``x0 <- x0 + Sigma A^+ (y - A x0)``, where Sigma keeps the noise of y, as it enters the next
    image, below the noise that the next image must have. Decisions and deliberate differences:

    * Where the project has a singular value decomposition (blur, reduction by area, masks), Sigma
      has an entry for each singular value, as there. The released update is then that of DDRM with
      ``eta_b = 1``, and is computed by :func:`pristina.methods.ddrm.advance`; what distinguishes
      DDNM is that it begins with pure noise, and travels.
    * For other linear operators Sigma is a number, as in the paper's simplified form, the
      pseudo-inverse is found by conjugate gradients, and all that is observed counts as observed
      with the largest singular value.
    * A travel adds noise to the diffused image, not to the clean one that the prior last predicted.
      All steps of a travel back are made at once, for the sum of their noise is what counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from pristina.errors import Cancelled, OperatorError
from pristina.methods.ddrm import Etas, advance, sigma_at
from pristina.methods.steps.chain import begin
from pristina.methods.steps.linear import known_and_linear, largest_eigenvalue, pseudo_inverse_step
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation, Operator
from pristina.operators.spectral import spectrum
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, step_pairs
from pristina.settings import Count, Settings, Share
from pristina.types import Draw, Generators, OnStep

Update = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Function of clean image, noise and the next noise level, that returns the next image."""


@dataclass(frozen=True)
class DDNM(Settings):
    """Settings of :func:`ddnm`.

    Attributes:
        steps: Number of noise levels, 1 to 1000.
        eta: Share of fresh noise in each step, in [0, 1].
        threshold: Singular values below this share of the largest count as zero, in [0, 1].
        travel_length: Number of steps that a travel goes back.
        travel_repeat: How often each step that lies in a travel is made; 1 travels nowhere.
    """

    steps: Annotated[int, Interval(ge=1, le=N_TIMESTEPS)] = 100
    eta: Share = 0.85
    threshold: Share = 0.03
    travel_length: Count = 1
    travel_repeat: Count = 1


PAPER_INPAINTING = DDNM(travel_length=10, travel_repeat=3)
"""Time travel, which makes what is filled in agree with its surroundings."""


def calls(settings: DDNM) -> Calls:
    """Return the network calls for one image."""
    return Calls(len(route(settings)))


def route(settings: DDNM) -> list[int]:
    """Return the steps in the order in which they are made; where they do not rise, is a travel.

    All but the last step, counted from the end, are made in groups of ``travel_length``.

    Example:
        >>> route(DDNM(steps=6, travel_length=2, travel_repeat=2))
        [0, 1, 2, 1, 2, 3, 4, 3, 4, 5]
    """
    last, length = settings.steps - 1, settings.travel_length
    steps = list(range(last % length))
    for first in range(last % length, last, length):
        steps += [*range(first, first + length)] * settings.travel_repeat
    return [*steps, last]
