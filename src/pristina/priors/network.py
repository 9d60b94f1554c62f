"""Networks on images: diffusers' ``UNet2DModel`` on pixel-unshuffled images, and its relatives."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import UNet2DModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as F

from pristina.priors.residual import ResidualUNet


class PixelNorm(nn.Module):
    """Normalisation over the channels of each pixel, in place of GroupNorm.

    No layer then depends on the size of the image, so that a network gives the same output for a
    crop and for the whole image.

    Args:
        channels: Number of channels.
        eps: Constant that is added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise features, (B, channels, H, W), or (B, channels, N) in an attention."""
        end = x.ndim - 1  # The export to ONNX takes no negative axis.
        last = x.movedim(1, end)  # contiguous for channels-last images
        return F.layer_norm(last, self.weight.shape, self.weight, self.bias, self.eps).movedim(
            end, 1
        )


class PatchUNet(nn.Module):
    """``UNet2DModel`` that sees ``patch`` x ``patch`` pixels as channels.

    Args:
        settings: All that is needed to build it again, kept in the metadata of the weights:
            ``channels`` (widths from fine to coarse), ``layers`` (residual blocks a level),
            ``attention`` (self-attention in the middle), ``patch``, ``norm`` ("group" or "pixel"),
            ``inputs`` and ``outputs`` (colour channels), ``labels`` (0, or the number of classes),
            ``head`` ("linear" for a last layer without norm and non-linearity and residual blocks
            that start as the identity, which learns small corrections of its input much sooner;
            "norm", the default, is that of diffusers).
    """

    def __init__(self, settings: dict[str, Any]):
        super().__init__()
        self.settings = complete(settings)
        self.patch = settings["patch"]
        widths = tuple(settings["channels"])
        self.unet = UNet2DModel(
            in_channels=settings["inputs"] * self.patch**2,
            out_channels=settings["outputs"] * self.patch**2,
            block_out_channels=widths,
            layers_per_block=settings["layers"],
            down_block_types=("DownBlock2D",) * len(widths),
            up_block_types=("UpBlock2D",) * len(widths),
            add_attention=settings["attention"],
            attention_head_dim=32,
            norm_num_groups=32 if widths[0] % 32 == 0 else 16,
            num_class_embeds=settings["labels"] or None,
        )
        if settings["norm"] == "pixel":
            _replace_group_norm(self.unet)
        if self.settings["head"] == "linear":
            self.unet.conv_norm_out, self.unet.conv_act = nn.Identity(), nn.Identity()
            for module in self.unet.modules():
                if isinstance(module, ResnetBlock2D):
                    nn.init.zeros_(module.conv2.weight)
                    nn.init.zeros_(module.conv2.bias)
        nn.init.zeros_(self.unet.conv_out.weight)
        nn.init.zeros_(self.unet.conv_out.bias)

    @property
    def multiple(self) -> int:
        """Number of pixels of which both sides of an image must be a multiple."""
        return int(self.patch * 2 ** (len(self.settings["channels"]) - 1))

    @property
    def radius(self) -> int | None:
        """Distance in pixels beyond which no input changes an output; None if there is none."""
        if self.settings["attention"] or self.settings["norm"] != "pixel":
            return None
        levels, blocks = len(self.settings["channels"]), self.settings["layers"]
        # On level i a step is 2^i cells: two convolutions a block, down and up, and four for the
        # middle or for the change of level; then the first and the last convolution, and one cell
        # for the place of a pixel in it.
        return int(self.patch * ((2**levels - 1) * (4 * blocks + 6) + 3))

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """Compute the output of the network.

        Args:
            x: Images, (B, inputs, H, W).
            time: Time of each, (B,), in [0, 1].
            label: Class of each, (B,); 0 by default.

        Returns:
            Output, (B, outputs, H, W).
        """
        if label is None and self.settings["labels"]:
            label = torch.zeros(len(x), dtype=torch.long, device=x.device)
        x = F.pixel_unshuffle(x, self.patch)
        return F.pixel_shuffle(self.unet(x, 1000 * time, class_labels=label).sample, self.patch)


ImageNetwork = PatchUNet | ResidualUNet
"""A network of ours: ``network(x, time)``, with ``settings``, ``multiple`` and ``radius``."""


def build_network(settings: Mapping[str, Any]) -> ImageNetwork:
    """Build the network that ``settings`` describe, its weights random."""
    if settings.get("architecture") == "residual":
        return ResidualUNet(dict(settings))
    return PatchUNet(dict(settings))


def complete(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a network, with defaults for what older files leave out."""
    return {"head": "norm"} | settings


def _replace_group_norm(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, PixelNorm(child.num_channels, child.eps))
        else:
            _replace_group_norm(child)


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
