"""Priors that are told the degradation: they see an observation beside solutions for it.

Glossary:
    evidence: all that is known about images, at their size: the observation, solutions from little
        to much regularisation, and which pixels were lost.
    sigma: noise level of the observation.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pristina.errors import InputError
from pristina.priors.base import BasePrior, to_signed, to_unit
from pristina.priors.direct import Padded
from pristina.priors.network import ImageNetwork
from pristina.types import Images

N_SOLUTIONS = 3
"""Number of solutions that a network sees."""

SIGMA_SCALE = 10.0
"""Factor with which the noise level, in [0, 1] units, enters the network as a constant image."""

MIDDLE_SCALE = 0.25
"""Factor with which the middle solution enters the network; the other images enter as their
differences from it. What the four images have in common is ten times as large as what differs."""

LIMIT = 2.0
"""Largest value of a solution on [-1, 1]; what exceeds it is noise."""

Evidence = Float[Tensor, "batch evidence height width"]
"""Observation and solutions, (1 + N_SOLUTIONS) C channels in [0, 1] units and not clipped, and the
share of each pixel that was not observed."""


def evidence_channels(channels: int) -> int:
    """Return the number of channels of the evidence about images with this many."""
    return (1 + N_SOLUTIONS) * channels + 1


def network_inputs(channels: int) -> int:
    """Return the number of channels that the network takes: the evidence and the noise level."""
    return evidence_channels(channels) + 1


def stack_evidence(observed: Tensor, solutions: list[Tensor], lost: Tensor) -> Evidence:
    """Stack what is known about images.

    Args:
        observed: Observation brought to their size, (B, C, H, W).
        solutions: ``N_SOLUTIONS`` solutions, from little to much regularisation, (B, C, H, W) each.
        lost: Share of each pixel that was not observed, (B, 1, H, W), in [0, 1].
    """
    return torch.cat([observed, *solutions, lost], 1)


def reconstructed(
    network: Callable[[Tensor, Tensor], Tensor], evidence: Evidence, sigma: Tensor
) -> Tensor:
    """Compute ``w + network([w, evidence, sigma], 1)`` with w the middle solution.

    Training starts at w, or at the estimate of a regressor that denoises it.

    Args:
        network: Network on images and times.
        evidence: What is known, (B, D, H, W).
        sigma: Noise level of each, (B,), in [0, 1] units.

    Returns:
        Clean images, (B, C, H, W), pixels in [-1, 1].
    """
    n_images = 1 + N_SOLUTIONS
    seen = to_signed(evidence[:, :-1]).clamp(-LIMIT, LIMIT).unflatten(1, (n_images, -1))
    middle = seen[:, 1 + N_SOLUTIONS // 2]
    others = [seen[:, i] - middle for i in range(n_images) if i != 1 + N_SOLUTIONS // 2]
    lost = evidence[:, -1:]
    level = (SIGMA_SCALE * sigma.to(lost)).view(-1, 1, 1, 1).expand_as(lost)
    stacked = torch.cat([MIDDLE_SCALE * middle, *others, lost, level], 1)
    stacked = stacked.contiguous(memory_format=torch.channels_last)
    return middle + network(stacked, torch.ones_like(sigma))


class AwarePrior(BasePrior):
    """Operator-aware regressor: predicts clean images from evidence and a noise level.

    A subclass implements :meth:`regress`. Images of any size are accepted.
    """

    @abstractmethod
    def regress(self, evidence: Tensor, sigma: Tensor) -> Tensor:
        """Predict the clean images; the arguments are those of :meth:`predict`, sigma (B,)."""

    def predict(self, evidence: Evidence, sigma: Tensor | float) -> Images:
        """Predict the clean images behind an observation.

        Args:
            evidence: What is known about them, (B, D, H, W), see :func:`stack_evidence`.
            sigma: Noise level in [0, 1] units; one number, or one for each image.

        Returns:
            Clean images, (B, C, H, W), in [0, 1] and not clipped.

        Raises:
            InputError: The number of channels is wrong.
        """
        wanted = evidence_channels(self.channels)
        if evidence.ndim != 4 or evidence.shape[1] != wanted:
            raise InputError(
                f"The regressor takes (batch, {wanted}, height, width), not "
                f"{tuple(evidence.shape)}."
            )
        sigma = torch.as_tensor(sigma, dtype=torch.float32, device=evidence.device)
        self._count(evidence)
        return self.regress(evidence, sigma.expand(len(evidence)))


class AwareNetwork(AwarePrior):
    """Trained network as operator-aware regressor, see :func:`reconstructed`.

    Args:
        network: Network as trained by :mod:`pristina.training.operator`; frozen and put in
            evaluation mode.
        domain: Description of the damage and images that it was trained on, in one sentence.
        dtype: Type in which the network computes (default float32).
    """

    def __init__(self, network: ImageNetwork, *, domain: str, dtype: torch.dtype = torch.float32):
        super().__init__(domain=domain, channels=network.settings["outputs"])
        self.network = network.eval().requires_grad_(False)
        self.dtype = dtype

    def regress(self, evidence: Tensor, sigma: Tensor) -> Tensor:
        padded = Padded(evidence, self.network.multiple)

        def clean(x: Tensor, rows: slice) -> Tensor:
            with torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32):
                out = reconstructed(self.call, x, sigma[rows])
            return to_unit(out.to(x.dtype))

        return padded.crop(self.portioned(clean, padded(evidence)))
