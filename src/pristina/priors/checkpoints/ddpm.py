"""The "simple" layout of DDPM in PyTorch.

CelebA-HQ and LSUN as used by SDEdit, DDRM, DDNM and BIRD, and Ho et al.'s converted networks.

Source:
    Names and forms after the ``Model`` of pesser/pytorch_diffusion and ermongroup/SDEdit (Ho et
    al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

from pristina.errors import CheckpointError
from pristina.priors.checkpoints.adm import n_blocks
from pristina.priors.checkpoints.options import LoadOptions
from pristina.priors.checkpoints.safe_load import Tensors
from pristina.priors.checkpoints.unet2d import Network, block_types

MARKS = (
    "temb.dense.0.weight",
    "conv_in.weight",
    "down.0.block.0.conv1.weight",
    "up.0.block.0.conv1.weight",
    "mid.block_1.conv1.weight",
)

RESIDUAL = {
    "norm1": "norm1",
    "conv1": "conv1",
    "temb_proj": "time_emb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "nin_shortcut": "conv_shortcut",
}
ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


@dataclass(frozen=True)
class DDPM:
    """Architecture that the tensors of such a file show.

    Attributes:
        widths: Channels of each level, fine to coarse.
        blocks: Residual blocks a level.
        attention: Whether each level attends.
        inputs: Number of input channels.
        outputs: Number of output channels.
        classes: Number of classes: 0.
    """

    widths: list[int]
    blocks: int
    attention: list[bool]
    inputs: int
    outputs: int
    classes: int = 0


def infer(tensors: Tensors) -> DDPM:
    """Infer the architecture from names and shapes.

    Raises:
        CheckpointError: It resamples without weights.
    """
    levels = n_blocks(tensors, "down")
    finest = {n.removeprefix("down.0."): t for n, t in tensors.items() if n.startswith("down.0.")}
    if any(f"down.{i}.downsample.conv.weight" not in tensors for i in range(levels - 1)):
        raise CheckpointError(
            "This DDPM network resamples without weights (resamp_with_conv: False), which is not "
            "supported."
        )
    inputs = tensors["conv_in.weight"].shape[1]
    last = tensors.get("conv_out.weight")
    return DDPM(
        widths=[tensors[f"down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)],
        blocks=n_blocks(finest, "block"),
        attention=[f"down.{i}.attn.0.q.weight" in tensors for i in range(levels)],
        inputs=inputs,
        outputs=inputs if last is None else last.shape[0],
    )


def native_px(found: DDPM) -> int:
    """Return the side of the training images, going by published networks.

    8 px on the coarsest level, 4 px for the four levels of CIFAR-10.
    """
    return int((4 if len(found.widths) <= 4 else 8) * 2 ** (len(found.widths) - 1))


def implied_options(found: DDPM) -> LoadOptions:
    """Return what the form of the file shows beyond the architecture: nothing."""
    return LoadOptions()


def candidates(found: DDPM, options: LoadOptions) -> list[LoadOptions]:
    """List the only way to read the file: q, k and v are apart and there is one head."""
    return [options]


def convert(tensors: Tensors, found: DDPM, options: LoadOptions) -> Network:
    """Rename the tensors to ``UNet2DModel``'s names."""
    levels = len(found.widths)
    places = {
        "temb.dense.0": "time_embedding.linear_1", "temb.dense.1": "time_embedding.linear_2",
        "conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out",
    }  # fmt: skip
    residual = {"mid.block_1": "mid_block.resnets.0", "mid.block_2": "mid_block.resnets.1"}
    attention = {"mid.attn_1": "mid_block.attentions.0"}
    for i in range(levels):
        u = levels - 1 - i  # both count from fine to coarse there, from coarse to fine here
        places |= {
            f"down.{i}.downsample.conv": f"down_blocks.{i}.downsamplers.0.conv",
            f"up.{i}.upsample.conv": f"up_blocks.{u}.upsamplers.0.conv",
        }
        for j in range(found.blocks + 1):
            residual[f"down.{i}.block.{j}"] = f"down_blocks.{i}.resnets.{j}"
            residual[f"up.{i}.block.{j}"] = f"up_blocks.{u}.resnets.{j}"
            attention[f"down.{i}.attn.{j}"] = f"down_blocks.{i}.attentions.{j}"
            attention[f"up.{i}.attn.{j}"] = f"up_blocks.{u}.attentions.{j}"
    for source, target in residual.items():
        places |= {f"{source}.{old}": f"{target}.{new}" for old, new in RESIDUAL.items()}
    for source, target in attention.items():
        places |= {f"{source}.{old}": f"{target}.{new}" for old, new in ATTENTION.items()}

    renamed: Tensors = {}
    names = {
        f"{new}.{kind}": f"{old}.{kind}"
        for old, new in places.items()
        for kind in ("weight", "bias")
    }
    for name, tensor in tensors.items():
        place, _, kind = name.rpartition(".")
        new = f"{places[place]}.{kind}" if place in places else name
        flat = ".attentions." in new and tensor.ndim == 4
        renamed[new] = (tensor.flatten(1) if flat else tensor).float()
    unet2d = {
        "in_channels": found.inputs,
        "out_channels": found.outputs,
        "block_out_channels": found.widths,
        "layers_per_block": found.blocks,
        "time_embedding_type": "positional",
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_num_groups": 32,
        "norm_eps": 1e-6,
        "attention_head_dim": None,
        "downsample_padding": 0,
        **block_types(found.attention, residual=False),
    }
    return Network({"unet2d": unet2d, "heads": None, "time_channels": None}, renamed, names)
