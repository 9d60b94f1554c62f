"""The layout of OpenAI's guided diffusion (ADM) and all that grew from its code: DPS, P2, improved diffusion, EDM, consistency models.

The tensors say all about the network but the order of q, k and v and the number of attention heads.

Source:
    Names and forms after the ``UNetModel`` of openai/guided-diffusion and openai/consistency_models (Dhariwal and Nichol 2021).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pristina.errors import CheckpointError
from pristina.priors.checkpoints.catalogue import AttentionOrder, Reading
from pristina.priors.checkpoints.safe_load import Tensors
from pristina.priors.checkpoints.unet2d import Network, block_types

MARKS = ("time_embed.0.weight", "input_blocks.0.0.weight", "input_blocks.1.0.in_layers.2.weight", "output_blocks.0.0.in_layers.2.weight")

RESIDUAL = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip


@dataclass(frozen=True)
class ADM:
    """What the tensors of an ADM file say.

    Attributes:
        widths: Channels of each level, fine to coarse.
        blocks: Residual blocks a level.
        attention: Whether each level attends.
        residual: Whether it resamples by residual blocks, not by convolutions.
        scale_shift: Whether the time embedding scales and shifts, not only adds.
        inputs: Channels in.
        outputs: Channels out; twice ``inputs`` when variances are learned.
        time_channels: Width of the time embedding's input.
        classes: Classes; 0 for an unconditional network.
        two_d: Whether attention is kept as 2-D convolutions, as only the code of EDM and consistency models does.
    """

    widths: list[int]
    blocks: int
    attention: list[bool]
    residual: bool
    scale_shift: bool
    inputs: int
    outputs: int
    time_channels: int
    classes: int
    two_d: bool

    @property
    def attending(self) -> set[int]:
        """Widths at which there is attention."""
        return {w for w, attends in zip(self.widths, self.attention, strict=True) if attends} | {self.widths[-1]}


def infer(tensors: Tensors) -> ADM:
    """The architecture.

    Raises:
        CheckpointError: The blocks do not add up to a U-Net.
    """
    n_in, n_out = _count(tensors, "input_blocks"), _count(tensors, "output_blocks")
    gapless = len({name.split(".")[1] for name in tensors if name.startswith("input_blocks.")}) == n_in
    ends = [n for n in range(n_out) if _upsampler(tensors, n)]
    blocks = (ends[0] if ends else n_out - 1) or 1
    levels = n_out // (blocks + 1)
    starts = [1 + i * (blocks + 1) for i in range(levels)]
    if (
        not gapless
        or n_in != n_out
        or levels * (blocks + 1) != n_out
        or any(f"input_blocks.{n}.0.in_layers.2.weight" not in tensors for n in starts)
    ):
        raise CheckpointError(
            f"It has the names of an ADM network, but its {n_in} input and {n_out} output blocks do not make a U-Net; "
            "networks that resample without weights (conv_resample=False) are not supported."
        )
    first = tensors["input_blocks.0.0.weight"]
    width = tensors["input_blocks.1.0.in_layers.2.weight"].shape[0]
    qkv = tensors.get("middle_block.1.qkv.weight")
    return ADM(
        widths=[tensors[f"input_blocks.{n}.0.in_layers.2.weight"].shape[0] for n in starts],
        blocks=blocks,
        attention=[f"input_blocks.{n}.1.qkv.weight" in tensors for n in starts],
        residual=levels == 1 or f"input_blocks.{1 + blocks}.0.op.weight" not in tensors,
        scale_shift=tensors["input_blocks.1.0.emb_layers.1.weight"].shape[0] == 2 * width,
        inputs=first.shape[1],
        outputs=tensors["out.2.weight"].shape[0] if "out.2.weight" in tensors else first.shape[1],
        time_channels=tensors["time_embed.0.weight"].shape[1],
        classes=len(tensors["label_emb.weight"]) if "label_emb.weight" in tensors else 0,
        two_d=qkv is not None and qkv.ndim == 4,
    )


def _count(tensors: Tensors, kind: str) -> int:
    return 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith(f"{kind}."))


def _upsampler(tensors: Tensors, n: int) -> str | None:
    """Where output block ``n`` upsamples: after its residual block, and after its attention if it has one."""
    for place in (f"output_blocks.{n}.1", f"output_blocks.{n}.2"):
        if f"{place}.conv.weight" in tensors or f"{place}.in_layers.2.weight" in tensors:
            return place
    return None


def native_px(found: ADM) -> int:
    """The side it was trained at, going by the published networks: 8 px on the coarsest level."""
    return int(8 * 2 ** (len(found.widths) - 1))


def told(found: ADM) -> Reading:
    """What the file gives away beyond the architecture: EDM's code keeps its attention as 2-D convolutions, in the new order."""
    return Reading("new", head_channels=64, predicts="edm") if found.two_d else Reading()


def readings(found: ADM, reading: Reading) -> list[Reading]:
    """Every way to read the file that ``reading`` leaves open, the likeliest first.

    Raises:
        CheckpointError: The heads asked for do not divide the channels, or no usual number of heads does.
    """
    if reading.heads and reading.head_channels:
        raise CheckpointError("Say either heads or head_channels, not both.")
    if reading.heads or reading.head_channels:
        splits = [replace(reading)]
    else:  # 64 channels a head in guided diffusion, four heads in improved diffusion
        splits = [replace(reading, head_channels=64), replace(reading, heads=4)]
        splits = splits if found.residual else splits[::-1]
    fitting = [r for r in splits if all(width % (r.heads or r.head_channels or 1) == 0 for width in found.attending)]
    if not fitting:
        raise CheckpointError(
            f"The number of attention heads is not in the file, and neither the usual choices nor what was asked for divides its channels "
            f"({', '.join(map(str, sorted(found.attending)))}); set heads or head_channels."
        )
    orders: tuple[AttentionOrder, ...] = ("legacy", "new") if reading.attention_order == "auto" else (reading.attention_order,)
    choices: list[Reading] = []
    for r in fitting:
        for order in orders:
            one_head = all((r.heads or width // (r.head_channels or width)) == 1 for width in found.attending)
            if not (one_head and order == "new" and len(orders) == 2):  # one head: the two orders are one
                choices.append(replace(r, attention_order=order))
    return [r for i, r in enumerate(choices) if _heads(found, r) not in [_heads(found, c) for c in choices[:i]]]


def _heads(found: ADM, r: Reading) -> tuple[str, tuple[int, ...]]:
    return r.attention_order, tuple(r.heads or width // (r.head_channels or width) for width in sorted(found.attending))


def convert(tensors: Tensors, found: ADM, reading: Reading) -> Network:
    """The network in ``UNet2DModel``'s names, its attention put in order."""
    levels, blocks = len(found.widths), found.blocks
    places = {
        "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2", "label_emb": "class_embedding",
        "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
    }  # fmt: skip
    residual = {"middle_block.0": "mid_block.resnets.0", "middle_block.2": "mid_block.resnets.1"}
    attention = {"middle_block.1": "mid_block.attentions.0"}
    for i in range(levels):
        for j in range(blocks + 1):
            n = 1 + i * (blocks + 1) + j
            if j < blocks:
                residual[f"input_blocks.{n}.0"] = f"down_blocks.{i}.resnets.{j}"
                attention[f"input_blocks.{n}.1"] = f"down_blocks.{i}.attentions.{j}"
            elif found.residual:
                residual[f"input_blocks.{n}.0"] = f"down_blocks.{i}.downsamplers.0"
            else:
                places[f"input_blocks.{n}.0.op"] = f"down_blocks.{i}.downsamplers.0.conv"
            m = n - 1
            residual[f"output_blocks.{m}.0"] = f"up_blocks.{i}.resnets.{j}"
            attention[f"output_blocks.{m}.1"] = f"up_blocks.{i}.attentions.{j}"
            up = _upsampler(tensors, m)
            if up and found.residual:
                residual[up] = f"up_blocks.{i}.upsamplers.0"
            elif up:
                places[f"{up}.conv"] = f"up_blocks.{i}.upsamplers.0.conv"
    for source, target in residual.items():
        places |= {f"{source}.{old}": f"{target}.{new}" for old, new in RESIDUAL.items()}
    for source, target in attention.items():
        places |= {f"{source}.norm": f"{target}.group_norm", f"{source}.proj_out": f"{target}.to_out.0"}

    parts = {f"{source}.qkv ({letter})": f"{target}.to_{letter}" for source, target in attention.items() for letter in "qkv"}
    names = {f"{new}.{kind}": f"{old}.{kind}" for old, new in (places | parts).items() for kind in ("weight", "bias")}
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        place, _, kind = name.rpartition(".")
        block, _, leaf = place.rpartition(".")
        if leaf == "qkv" and block in attention:
            heads = reading.heads or tensor.shape[0] // 3 // (reading.head_channels or 1)
            rows = tensor.reshape(tensor.shape[0], -1) if kind == "weight" else tensor
            three = (
                rows.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(1, 2).unbind(0)
                if reading.attention_order == "legacy"
                else rows.chunk(3)
            )
            for letter, part in zip("qkv", three, strict=True):
                renamed[f"{attention[block]}.to_{letter}.{kind}"] = part.float().contiguous()
            continue
        new = f"{places[place]}.{kind}" if place in places else name
        flat = leaf == "proj_out" and kind == "weight"
        renamed[new] = (tensor.flatten(1) if flat else tensor).float()
    unet2d = {
        "in_channels": found.inputs, "out_channels": found.outputs, "block_out_channels": found.widths, "layers_per_block": blocks,
        "time_embedding_type": "positional", "flip_sin_to_cos": True, "freq_shift": 0, "time_embedding_dim": _time_width(tensors),
        "resnet_time_scale_shift": "scale_shift" if found.scale_shift else "default", "norm_num_groups": 32, "attn_norm_num_groups": 32,
        "norm_eps": 1e-5, "attention_head_dim": None if reading.heads else reading.head_channels,
        "num_class_embeds": found.classes or None, **block_types(found.attention, found.residual),
    }  # fmt: skip
    time_channels = found.time_channels if found.time_channels != found.widths[0] else None
    return Network({"unet2d": unet2d, "heads": reading.heads, "time_channels": time_channels}, renamed, names)


def _time_width(tensors: Tensors) -> int:
    return int(tensors["time_embed.0.weight"].shape[0])
