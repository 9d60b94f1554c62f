"""The names from inside pristina that the digests depend on, each used in one small function here.

A change that moves or renames one of them corrects it here and nowhere else. Imports stand inside
the functions, so that a name that is gone fails the entries that need it and no others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

import pristina

FAST_DTYPE = "pristina.priors.load.fast_dtype"
"""The function that chooses the dtype of network calls, where it is looked up."""


def build_operator(recipe: str, seed: int) -> Any:
    """Build the operator that a recipe describes, with what is random about it drawn."""
    from pristina.operators.recipe import Recipe

    return Recipe.parse(recipe).build(seed)


def build_form(recipe: str) -> Any:
    """Build the form of unknown damage that a recipe describes."""
    from pristina.operators.recipe import Recipe

    return Recipe.parse(recipe).form()


def random_source(seed: int, n_images: int) -> Any:
    """Make the randomness that ``Operator.degrade`` takes, one generator for each image."""
    from pristina.seeds import generators
    from pristina.types import Draw

    return Draw(generators(seed, n_images), n_images)


def load_weights(name: str) -> Any:
    """Load shipped weights: a diffusion prior, a prior of kernels or a regressor."""
    from pristina.priors.load import kind_of, load_weights

    return load_weights(kind_of(name), name)


def conditional_prior() -> Any:
    """Make a small conditional diffusion network of random weights, for none is shipped."""
    from pristina.priors.direct import ConditionalNetwork
    from pristina.priors.patch_unet import PatchUNet

    network = PatchUNet(
        {
            "channels": [16, 32],
            "layers": 1,
            "attention": False,
            "patch": 2,
            "norm": "pixel",
            "inputs": 6,
            "outputs": 3,
            "labels": 0,
            "head": "norm",
        }
    )
    random = np.random.RandomState(0)
    with torch.no_grad():
        for name, p in sorted(network.named_parameters()):
            scale = 0.02 if "conv_out" in name else 1 / max(1, p[0].numel()) ** 0.5
            p.copy_(torch.from_numpy(scale * random.standard_normal(tuple(p.shape))))
            if p.ndim == 1 and name.endswith("weight"):  # the gain of a norm
                p.add_(1)
    return ConditionalNetwork(network, domain="random weights")


def working_size(done: pristina.Restored) -> tuple[int, int]:
    """Find the height and width at which a method worked, which its operator is for."""
    height, width = done.plan.work_size
    return height, width


def measure_images(restored: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Compute every metric of two batches that needs no download, by name."""
    from pristina.metrics import measure

    return measure(restored, truth)


def measure_kernels(estimated: Tensor, true: Tensor) -> dict[str, Tensor]:
    """Compute every metric of two batches of kernels, by name."""
    from pristina.metrics.kernels import kernel_correlation, kernel_error

    return {
        "correlation": kernel_correlation(estimated, true),
        "error": kernel_error(estimated, true),
    }
