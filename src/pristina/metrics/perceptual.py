"""Metrics that use a trained network: LPIPS and FID, of the extra ``perceptual``.

The packages need torchvision, and the networks need weights. Nothing is downloaded here: an error
names the missing file and the place where it belongs.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pristina.errors import InputError, MissingExtra
from pristina.types import PerImage

LPIPSNet = Literal["alex", "vgg", "squeeze"]

# Files that torchvision and torch-fidelity expect.
_BACKBONES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
_INCEPTION = "weights-inception-2015-12-05-6726825d.pth"


def lpips(restored: Tensor, truth: Tensor, net: LPIPSNet = "alex") -> PerImage:
    """Compute the learned perceptual distance of each pair of images.

    Args:
        restored: Restored images, (B, 3, H, W), in [0, 1].
        truth: Clean images of the same shape.
        net: Backbone. Papers use ``alex`` and ``vgg``; their numbers cannot be compared, so name
            the backbone beside the number.

    Returns:
        Distance of each pair, (B,); 0 for equal images.

    Raises:
        MissingExtra: The package, torchvision or the weights of the backbone are missing.
        InputError: The shapes differ, or these are not colour images.

    Source:
        Zhang, Isola, Efros, Shechtman and Wang 2018, version 0.1 of their weights, through the
        package ``lpips``.
    """
    if net not in _BACKBONES:
        raise InputError(f"LPIPS has the backbones {', '.join(_BACKBONES)}; not {net!r}.")
    if restored.shape != truth.shape or restored.ndim != 4 or restored.shape[1] != 3:
        raise InputError(
            "LPIPS compares colour pictures of one size: "
            f"{tuple(restored.shape)} does not go with {tuple(truth.shape)}."
        )
    network = _lpips_network(net).to(restored.device)
    with torch.no_grad():
        distance: Tensor = network(2 * restored - 1, 2 * truth - 1)
    return distance.flatten().float()


def fid(restored: Tensor, truth: Tensor) -> float:
    """Compute the Fréchet distance between the Inception features of two sets of images.

    It is biased for small sets: below some thousand images, compare only sets of the same count,
    if at all.

    Args:
        restored: First set, (N, 3, H, W), in [0, 1].
        truth: Second set, (M, 3, h, w), in [0, 1].

    Returns:
        Distance; smaller is better.

    Raises:
        MissingExtra: The package, torchvision or the weights of the network are missing.
        InputError: These are not colour images.

    Source:
        Heusel et al. 2017, with the original Inception weights, through the package
        ``torch-fidelity``.
    """
    for x in (restored, truth):
        if x.ndim != 4 or x.shape[1] != 3:
            raise InputError(
                "FID compares two sets of colour pictures, (N, 3, height, width) each; "
                f"not {tuple(x.shape)}."
            )
    package = _package("torch_fidelity", "torch-fidelity", "FID")
    weights = _weights(_INCEPTION, "FID")
    found: dict[str, float] = package.calculate_metrics(
        input1=_Levels(restored),
        input2=_Levels(truth),
        fid=True,
        cuda=False,
        verbose=False,
        cache=False,
        save_cpu_ram=True,
        feature_extractor_weights_path=str(weights),
    )
    return float(found["frechet_inception_distance"])


class _Levels(Dataset[Tensor]):
    """Images as torch-fidelity expects them: uint8, (3, H, W)."""

    def __init__(self, images: Tensor):
        self.images = (images.detach().cpu().clamp(0, 1) * 255).round().byte()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def _package(module: str, name: str, metric: str) -> Any:
    """Import the module of an optional package."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{metric} needs the package {name} and, for it, torchvision ({error}); "
            "install them with: pip install 'pristina[perceptual]'. HaarPSI and GMSD need neither."
        ) from error


def _weights(file: str, metric: str) -> Path:
    """Return the path of weights where the packages expect them."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / file
    if not path.is_file():
        raise MissingExtra(
            f"{metric} needs the weights {file}, which are not fetched unasked; put them at {path}."
        )
    return path


@cache
def _lpips_network(net: str) -> Any:
    package = _package("lpips", "lpips", "LPIPS")
    _weights(_BACKBONES[net], "LPIPS")
    return package.LPIPS(net=net, verbose=False).eval().requires_grad_(False)
