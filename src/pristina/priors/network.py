"""What networks on images have in common, how they are built, compiled, and in which type."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class ImageNetwork(nn.Module):
    """A network of ours.

    ``network(x, time)`` takes images, (B, inputs, H, W), and the time of each, (B,), in [0, 1], and
    returns (B, outputs, H, W).

    Attributes:
        settings: All that is needed to build it again, kept in the metadata of the weights.
    """

    settings: dict[str, Any]

    @property
    @abstractmethod
    def multiple(self) -> int:
        """Number of pixels of which both sides of an image must be a multiple."""

    @property
    @abstractmethod
    def radius(self) -> int | None:
        """Distance in pixels beyond which no input changes an output; None if there is none."""


def build_network(settings: Mapping[str, Any]) -> ImageNetwork:
    """Build the network that ``settings`` describe, its weights random."""
    if settings.get("architecture") == "residual":
        from pristina.priors.residual import ResidualUNet

        return ResidualUNet(dict(settings))
    from pristina.priors.patch_unet import PatchUNet

    return PatchUNet(dict(settings))


def complete(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a network, with defaults for what older files leave out."""
    return {"head": "norm"} | settings


BATCHES = (16, 4, 1)
"""Batch sizes for which a compiled network is compiled.

One program for any batch takes nearly twice as long on a processor.
"""


def compile_network(prior: nn.Module) -> None:
    """Compile the network of a prior in place, at its first call for each of :data:`BATCHES`.

    Each takes most of a minute, so that it pays in runs of an hour. Where nothing is differentiated
    the weights become constants of the program, already in the type in which it computes; numbers
    differ from the uncompiled ones by as much as bfloat16 does. Other batches are split, and filled
    up with images whose results are dropped. A prior without a network stays as it is.

    Args:
        prior: Prior with an attribute ``network``, or a wrapper of one in ``prior``.
    """
    while isinstance(inner := getattr(prior, "prior", None), nn.Module):
        prior = inner
    network = getattr(prior, "network", None)
    if not isinstance(network, nn.Module):
        return
    # torch remarks on what it cannot trace in diffusers.
    warnings.filterwarnings("ignore", category=UserWarning, module="torch._dynamo")
    compiled = torch.compile(network.forward, dynamic=False, options={"freezing": True})

    def in_batches(x: Tensor, time: Tensor) -> Tensor:
        done = []
        for some, at in zip(x.split(BATCHES[0]), time.split(BATCHES[0]), strict=True):
            n = len(some)
            rows = torch.arange(min(size for size in BATCHES if size >= n)).clamp(max=n - 1)
            out = compiled(some[rows], at[rows])
            done.append((out if isinstance(out, Tensor) else out.sample)[:n])
        return torch.cat(done)

    network.forward = in_batches


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return the fastest type that is safe for network calls on ``device``.

    bfloat16 on a GPU and on processors with matrix tiles (AMX) or AVX512-BF16; elsewhere it is
    emulated, some ten times slower than float32, which is then returned.
    """
    if device.type == "cuda":
        return torch.bfloat16
    if device.type == "cpu" and (
        torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    ):
        return torch.bfloat16
    return torch.float32
