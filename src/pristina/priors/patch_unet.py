"""diffusers' ``UNet2DModel`` on pixel-unshuffled images.

It is a module of its own because diffusers takes seconds to import, and many networks are others.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as F

from pristina.errors import SettingError
from pristina.priors.network import ImageNetwork, complete

HEAD = 32
"""Channels of an attention head."""


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


class PatchUNet(ImageNetwork):
    """``UNet2DModel`` that sees ``patch`` x ``patch`` pixels as channels.

    Args:
        settings: All that is needed to build it again, kept in the metadata of the weights:
            ``channels`` (widths from fine to coarse), ``layers`` (residual blocks a level),
            ``attention`` (self-attention in the middle), ``patch``, ``norm`` ("group" or "pixel"),
            ``inputs`` and ``outputs`` (colour channels), ``labels`` (0, or the number of classes),
            ``head`` ("linear" for a last layer without norm and non-linearity and residual blocks
            that start as the identity, which learns small corrections of its input much sooner;
            "norm", the default, is that of diffusers).

    Raises:
        SettingError: The network cannot have these widths.
    """

    def __init__(self, settings: dict[str, Any]):
        super().__init__()
        self.settings = complete(settings)
        self.patch = settings["patch"]
        widths = tuple(settings["channels"])
        groups = 32 if widths[0] % 32 == 0 else 16
        if any(width % groups for width in widths):
            raise SettingError(f"channels must be multiples of {groups}, not {list(widths)}.")
        if settings["attention"] and widths[-1] < HEAD:
            raise SettingError(
                f"With attention the last of channels must be at least {HEAD}, not {widths[-1]}."
            )
        self.unet = UNet2DModel(
            in_channels=settings["inputs"] * self.patch**2,
            out_channels=settings["outputs"] * self.patch**2,
            block_out_channels=widths,
            layers_per_block=settings["layers"],
            down_block_types=("DownBlock2D",) * len(widths),
            up_block_types=("UpBlock2D",) * len(widths),
            add_attention=settings["attention"],
            attention_head_dim=HEAD,
            norm_num_groups=groups,
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


def _replace_group_norm(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, PixelNorm(child.num_channels, child.eps))
        else:
            _replace_group_norm(child)
