"""The "simple" layout of DDPM in PyTorch: CelebA-HQ and LSUN as used by SDEdit, DDRM, DDNM and BIRD, and Ho et al.'s converted networks.

Source:
    Names and forms after the ``Model`` of pesser/pytorch_diffusion and ermongroup/SDEdit (Ho et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

from pristina.errors import CheckpointError
from pristina.priors.checkpoints.catalogue import Reading
from pristina.priors.checkpoints.safe_load import Tensors
from pristina.priors.checkpoints.unet2d import Network, block_types

MARKS = ("temb.dense.0.weight", "conv_in.weight", "down.0.block.0.conv1.weight", "up.0.block.0.conv1.weight", "mid.block_1.conv1.weight")

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
    """What the tensors of such a file say: see :class:`pristina.priors.checkpoints.adm.ADM`."""

    widths: list[int]
    blocks: int
    attention: list[bool]
    inputs: int
    outputs: int
    classes: int = 0


def infer(tensors: Tensors) -> DDPM:
    """The architecture.

    Raises:
        CheckpointError: It resamples without weights.
    """
    levels = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("down."))
    blocks = len({name.split(".")[3] for name in tensors if name.startswith("down.0.block.")})
    if any(f"down.{i}.downsample.conv.weight" not in tensors for i in range(levels - 1)):
        raise CheckpointError("This DDPM network resamples without weights (resamp_with_conv: False), which is not supported.")
    return DDPM(
        widths=[tensors[f"down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)],
        blocks=blocks,
        attention=[f"down.{i}.attn.0.q.weight" in tensors for i in range(levels)],
        inputs=tensors["conv_in.weight"].shape[1],
        outputs=tensors["conv_out.weight"].shape[0] if "conv_out.weight" in tensors else tensors["conv_in.weight"].shape[1],
    )


def native_px(found: DDPM) -> int:
    """The side it was trained at, going by the published networks: 8 px on the coarsest level, 4 for the four levels of CIFAR-10."""
    return int((4 if len(found.widths) <= 4 else 8) * 2 ** (len(found.widths) - 1))


def told(found: DDPM) -> Reading:
    """Nothing is left open."""
    return Reading()


def readings(found: DDPM, reading: Reading) -> list[Reading]:
    """The one way to read it: q, k and v are apart and there is one head."""
    return [reading]


def convert(tensors: Tensors, found: DDPM, reading: Reading) -> Network:
    """The network in ``UNet2DModel``'s names."""
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
            residual |= {f"down.{i}.block.{j}": f"down_blocks.{i}.resnets.{j}", f"up.{i}.block.{j}": f"up_blocks.{u}.resnets.{j}"}
            attention |= {f"down.{i}.attn.{j}": f"down_blocks.{i}.attentions.{j}", f"up.{i}.attn.{j}": f"up_blocks.{u}.attentions.{j}"}
    for source, target in residual.items():
        places |= {f"{source}.{old}": f"{target}.{new}" for old, new in RESIDUAL.items()}
    for source, target in attention.items():
        places |= {f"{source}.{old}": f"{target}.{new}" for old, new in ATTENTION.items()}

    renamed: Tensors = {}
    names = {f"{new}.{kind}": f"{old}.{kind}" for old, new in places.items() for kind in ("weight", "bias")}
    for name, tensor in tensors.items():
        place, _, kind = name.rpartition(".")
        new = f"{places[place]}.{kind}" if place in places else name
        flat = ".attentions." in new and tensor.ndim == 4
        renamed[new] = (tensor.flatten(1) if flat else tensor).float()
    unet2d = {
        "in_channels": found.inputs, "out_channels": found.outputs, "block_out_channels": found.widths, "layers_per_block": found.blocks,
        "time_embedding_type": "positional", "flip_sin_to_cos": False, "freq_shift": 1, "norm_num_groups": 32, "norm_eps": 1e-6,
        "attention_head_dim": None, "downsample_padding": 0, **block_types(found.attention, residual=False),
    }  # fmt: skip
    return Network({"unet2d": unet2d, "heads": None, "time_channels": None}, renamed, names)
