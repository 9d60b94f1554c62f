"""Limits of what a checkpoint may ask for, checked before anything is built.

A network is only described by a file; whoever wrote the file may have meant harm. The limits are
far beyond every published network, and a number of blocks must be borne out by a number of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from pristina.errors import CheckpointError
from pristina.priors.checkpoints.header import MAX_SIDE_PX, printable

MAX_TENSORS = 5_000
MAX_RECORDS = 50_000
MAX_LEVELS = 8
MAX_WIDTH = 16_384
MAX_NESTING = 16

TENSORS_PER_BLOCK = 10
"""Tensors of a residual block of ``UNet2DModel``: two norms, two convolutions, one projection."""


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda v: (
        isinstance(v, int | float)
        and not isinstance(v, bool)
        and math.isfinite(v)
        and low <= v <= high
    )


def _one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda v: not isinstance(v, list | dict) and v in values


def _row(each: Callable[[Any], bool], least: int, most: int) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, list | tuple) and least <= len(v) <= most and all(map(each, v))


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda v: v is None or check(v)


_FLAG = _one_of(True, False)
_WIDTHS = _row(_whole(1, MAX_WIDTH), 1, MAX_LEVELS)
_BLOCKS = _row(lambda v: isinstance(v, str) and len(v) < 60, 1, MAX_LEVELS)
_SIDE = _whole(1, MAX_SIDE_PX)

UNET2D: dict[str, Callable[[Any], bool]] = {
    "sample_size": lambda v: v is None or _SIDE(v) or _row(_SIDE, 2, 2)(v),
    "in_channels": _whole(1, 4096),
    "out_channels": _whole(1, 4096),
    "center_input_sample": _one_of(False, None),
    "time_embedding_type": _one_of("positional"),
    "time_embedding_dim": _or_none(_whole(1, 4 * MAX_WIDTH)),
    "freq_shift": _number(0, 10),
    "flip_sin_to_cos": _FLAG,
    "down_block_types": _BLOCKS,
    "mid_block_type": _one_of("UNetMidBlock2D", None),
    "up_block_types": _BLOCKS,
    "block_out_channels": _WIDTHS,
    "layers_per_block": _whole(1, 1000),
    "mid_block_scale_factor": _number(1e-3, 1e3),
    "downsample_padding": _whole(0, 1),
    "downsample_type": _one_of("conv", "resnet"),
    "upsample_type": _one_of("conv", "resnet"),
    "dropout": _number(0, 1),
    "act_fn": lambda v: isinstance(v, str) and len(v) < 40,
    "attention_head_dim": _or_none(_whole(1, MAX_WIDTH)),
    "norm_num_groups": _whole(1, MAX_WIDTH),
    "attn_norm_num_groups": _or_none(_whole(1, MAX_WIDTH)),
    "norm_eps": _number(0, 1),
    "resnet_time_scale_shift": _one_of("default", "scale_shift"),
    "add_attention": _FLAG,
    "class_embed_type": _one_of(None),
    "num_class_embeds": _or_none(_whole(1, 1_000_000)),
    "num_train_timesteps": lambda v: v is None or _whole(1, 1_000_000)(v),
}
"""Possible values of the settings of ``UNet2DModel``."""

WHY = {
    "center_input_sample": "it expects pixels in [0, 1], priors are given them in [-1, 1]",
    "time_embedding_type": "its noise grows without bound (variance exploding) or its timesteps "
    "are whole numbers; a positional embedding would fit",
    "class_embed_type": "it needs a second time or vector beside the image, which no method has",
}
"""Reasons for which a setting that diffusers allows is refused."""

PATCH: dict[str, Callable[[Any], bool]] = {
    "architecture": _one_of("unet"),
    "channels": _WIDTHS,
    "layers": _whole(1, 1000),
    "attention": _FLAG,
    "patch": _whole(1, 16),
    "norm": _one_of("group", "pixel"),
    "head": _one_of("norm", "linear"),
    "inputs": _whole(1, 16),
    "outputs": _whole(1, 16),
    "labels": _whole(0, 10_000),
}
"""Possible values of the settings of :class:`pristina.priors.patch_unet.PatchUNet`."""

RESIDUAL: dict[str, Callable[[Any], bool]] = {
    "architecture": _one_of("residual"),
    **{name: PATCH[name] for name in ("channels", "layers", "patch", "inputs", "outputs")},
}
"""Possible values of the settings of :class:`pristina.priors.residual.ResidualUNet`."""

READER: dict[str, Callable[[Any], bool]] = {
    "architecture": _one_of("reader"),
    "channels": _WIDTHS,
    "hidden": _whole(1, MAX_WIDTH),
}
"""Possible values of the settings of :class:`pristina.priors.reader.ReaderNetwork`."""

NEEDED = ("channels", "layers", "attention", "patch", "norm", "inputs", "outputs", "labels")


def check_settings(
    settings: Mapping[str, Any], possible: Mapping[str, Callable[[Any], bool]], strict: bool = True
) -> None:
    """Raise :class:`CheckpointError` unless every setting has a possible value.

    Args:
        settings: Settings of a network by name.
        possible: Test of each known setting.
        strict: Whether unknown settings are refused.
    """
    for name, value in settings.items():
        if name not in possible:
            if strict:
                raise CheckpointError(f"The network has a setting unknown here, {printable(name)}.")
            continue
        if not possible[name](value):
            shown = printable(repr(value)[:200], 60)
            why = WHY.get(name, "no network that is known here is built so")
            raise CheckpointError(f"The network has {name} = {shown}: {why}.")


def check_network(settings: Mapping[str, Any], n_tensors: int) -> None:
    """Raise :class:`CheckpointError` unless settings are possible and borne out by the tensors.

    Args:
        settings: ``network`` of a :class:`pristina.priors.checkpoints.header.NetworkSpec`.
        n_tensors: Number of tensors that the file holds for the network.
    """
    if "unet2d" in settings:
        check_settings(
            settings,
            {
                "unet2d": lambda v: isinstance(v, dict),
                "heads": _or_none(_whole(1, MAX_WIDTH)),
                "time_channels": _or_none(_whole(2, MAX_WIDTH)),
            },
        )
        unet2d = settings["unet2d"]
        check_settings(unet2d, UNET2D, strict=False)
        levels, layers = len(unet2d["block_out_channels"]), unet2d.get("layers_per_block", 2)
        n_blocks, each = layers * levels + (layers + 1) * levels, TENSORS_PER_BLOCK
    elif settings.get("architecture") == "residual":
        check_settings(settings, RESIDUAL, strict=False)
        levels, layers = len(settings.get("channels", [0, 0, 0])), settings.get("layers", 2)
        n_blocks, each = layers * (2 * levels - 1), 2
    elif settings.get("architecture") == "reader":
        check_settings(settings, READER)
        if len(settings) < len(READER):
            raise CheckpointError("The network's settings lack its widths.")
        n_blocks, each = len(settings["channels"]), 2
    else:
        check_settings(settings, PATCH)
        missing = [name for name in NEEDED if name not in settings]
        if missing:
            raise CheckpointError(f"The network's settings lack {', '.join(missing)}.")
        levels, layers = len(settings["channels"]), settings["layers"]
        n_blocks, each = layers * levels + (layers + 1) * levels, TENSORS_PER_BLOCK
    if n_blocks * each > 2 * n_tensors + 1000:  # Less is said better by the names that differ.
        raise CheckpointError(
            f"The settings ask for {n_blocks} residual blocks of {each} tensors each; the file "
            f"holds {n_tensors} tensors."
        )
