"""Layout of OpenAI's guided diffusion (ADM) and of what grew from its code.

DPS, P2, improved diffusion, EDM in ADM's names and consistency models. The tensors show the whole
network except for the order of q, k and v and the number of attention heads.

Source:
    Names and forms after the ``UNetModel`` of openai/guided-diffusion and
    openai/consistency_models (Dhariwal and Nichol 2021).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pristina.errors import CheckpointError
from pristina.priors.checkpoints.options import AttentionOrder, LoadOptions
from pristina.priors.checkpoints.safe_load import Tensors
from pristina.priors.checkpoints.unet2d import Network, block_types

MARKS = (
    "time_embed.0.weight",
    "input_blocks.0.0.weight",
    "input_blocks.1.0.in_layers.2.weight",
    "output_blocks.0.0.in_layers.2.weight",
)

RESIDUAL = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip


@dataclass(frozen=True)
class ADM:
    """Architecture that the tensors of an ADM file show.

    Attributes:
        widths: Channels of each level, fine to coarse.
        blocks: Residual blocks a level.
        attention: Whether each level attends.
        residual: Whether it resamples by residual blocks, not by convolutions.
        scale_shift: Whether the time embedding scales and shifts, not only adds.
        inputs: Number of input channels.
        outputs: Number of output channels; twice ``inputs`` when variances are learned.
        time_channels: Width of the time embedding's input.
        classes: Number of classes; 0 for an unconditional network.
        two_d: Whether attention is kept as 2-D convolutions, as only the code of EDM and
            consistency models does.
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
        levels = zip(self.widths, self.attention, strict=True)
        return {width for width, attends in levels if attends} | {self.widths[-1]}


def infer(tensors: Tensors) -> ADM:
    """Infer the architecture from names and shapes.

    Raises:
        CheckpointError: The blocks do not add up to a U-Net.
    """
    n_in, n_out = n_blocks(tensors, "input_blocks"), n_blocks(tensors, "output_blocks")
    ends = [n for n in range(n_out) if _upsampler(tensors, n)]
    blocks = (ends[0] if ends else n_out - 1) or 1
    levels = n_out // (blocks + 1)
    starts = [1 + i * (blocks + 1) for i in range(levels)]
    if (
        not levels
        or n_in != n_out
        or levels * (blocks + 1) != n_out
        or any(f"input_blocks.{n}.0.in_layers.2.weight" not in tensors for n in starts)
    ):
        raise CheckpointError(
            f"It has the names of an ADM network, but its {n_in} input and {n_out} output blocks "
            "do not make a U-Net; networks that resample without weights (conv_resample=False) "
            "are not supported."
        )
    first = tensors["input_blocks.0.0.weight"]
    width = tensors["input_blocks.1.0.in_layers.2.weight"].shape[0]
    qkv, last = tensors.get("middle_block.1.qkv.weight"), tensors.get("out.2.weight")
    return ADM(
        widths=[tensors[f"input_blocks.{n}.0.in_layers.2.weight"].shape[0] for n in starts],
        blocks=blocks,
        attention=[f"input_blocks.{n}.1.qkv.weight" in tensors for n in starts],
        residual=levels == 1 or f"input_blocks.{1 + blocks}.0.op.weight" not in tensors,
        scale_shift=tensors["input_blocks.1.0.emb_layers.1.weight"].shape[0] == 2 * width,
        inputs=first.shape[1],
        outputs=first.shape[1] if last is None else last.shape[0],
        time_channels=tensors["time_embed.0.weight"].shape[1],
        classes=len(tensors["label_emb.weight"]) if "label_emb.weight" in tensors else 0,
        two_d=qkv is not None and qkv.ndim == 4,
    )


def n_blocks(tensors: Tensors, prefix: str) -> int:
    """Count the blocks ``prefix.0``, ``prefix.1``, ... up to the first that is missing."""
    present = {name.split(".")[1] for name in tensors if name.startswith(f"{prefix}.")}
    n = 0
    while str(n) in present:
        n += 1
    return n


def _upsampler(tensors: Tensors, n: int) -> str | None:
    """Return where output block ``n`` upsamples: after its residual block and its attention."""
    for place in (f"output_blocks.{n}.1", f"output_blocks.{n}.2"):
        if f"{place}.conv.weight" in tensors or f"{place}.in_layers.2.weight" in tensors:
            return place
    return None


def native_px(found: ADM) -> int:
    """Return the side of the training images, going by published networks: 8 px when coarsest."""
    return int(8 * 2 ** (len(found.widths) - 1))


def implied_options(found: ADM) -> LoadOptions:
    """Return what the form of the file shows beyond the architecture.

    Only EDM's code keeps its attention as 2-D convolutions, and in the new order.
    """
    if found.two_d:
        return LoadOptions("new", head_channels=64, predicts="edm")
    return LoadOptions()


def candidates(found: ADM, options: LoadOptions) -> list[LoadOptions]:
    """List every way to read the file that ``options`` leave open, the likeliest first.

    Raises:
        CheckpointError: The heads asked for do not divide the channels, or no usual number does.
    """
    if options.heads and options.head_channels:
        raise CheckpointError("Give either heads or head_channels, not both.")
    if options.heads or options.head_channels:
        splits = [replace(options)]
    else:  # 64 channels a head in guided diffusion, four heads in improved diffusion
        splits = [replace(options, head_channels=64), replace(options, heads=4)]
        splits = splits if found.residual else splits[::-1]
    fitting = [o for o in splits if all(_divides(o, width) for width in found.attending)]
    if not fitting:
        widths = ", ".join(map(str, sorted(found.attending)))
        raise CheckpointError(
            "The number of attention heads is not in the file, and neither the usual choices nor "
            f"what was asked for divides its channels ({widths}); set heads or head_channels."
        )
    orders: tuple[AttentionOrder, ...] = (
        ("legacy", "new") if options.attention_order == "auto" else (options.attention_order,)
    )
    choices: list[LoadOptions] = []
    for o in fitting:
        for order in orders:
            one_head = all(n == 1 for n in _heads(found, o)[1])
            # With one head the two orders are one.
            if not (one_head and order == "new" and len(orders) == 2):
                choices.append(replace(o, attention_order=order))
    distinct = {_heads(found, o): o for o in reversed(choices)}
    return [o for o in choices if distinct[_heads(found, o)] is o]


def _divides(options: LoadOptions, width: int) -> bool:
    return width % (options.heads or options.head_channels or 1) == 0


def _heads(found: ADM, o: LoadOptions) -> tuple[str, tuple[int, ...]]:
    heads = (o.heads or width // (o.head_channels or width) for width in sorted(found.attending))
    return o.attention_order, tuple(heads)


def _places(tensors: Tensors, found: ADM) -> tuple[dict[str, str], dict[str, str]]:
    """Map the places of the file to those of ``UNet2DModel``; and those of attention."""
    places = {
        "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
        "label_emb": "class_embedding", "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out",
        "out.2": "conv_out",
    }  # fmt: skip
    residual = {"middle_block.0": "mid_block.resnets.0", "middle_block.2": "mid_block.resnets.1"}
    attention = {"middle_block.1": "mid_block.attentions.0"}
    blocks = found.blocks
    for i in range(len(found.widths)):
        for j in range(blocks + 1):
            m = i * (blocks + 1) + j
            n = m + 1
            if j < blocks:
                residual[f"input_blocks.{n}.0"] = f"down_blocks.{i}.resnets.{j}"
                attention[f"input_blocks.{n}.1"] = f"down_blocks.{i}.attentions.{j}"
            elif found.residual:
                residual[f"input_blocks.{n}.0"] = f"down_blocks.{i}.downsamplers.0"
            else:
                places[f"input_blocks.{n}.0.op"] = f"down_blocks.{i}.downsamplers.0.conv"
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
        places |= {
            f"{source}.norm": f"{target}.group_norm",
            f"{source}.proj_out": f"{target}.to_out.0",
        }
    return places, attention


def _split(tensors: Tensors, name: str, options: LoadOptions) -> Tensors:
    """Split the rows of q, k and v in one tensor of attention, by letter."""
    tensor = tensors[name]
    heads = options.heads or tensor.shape[0] // 3 // (options.head_channels or 1)
    rows = tensor.reshape(tensor.shape[0], -1) if name.endswith(".weight") else tensor
    if options.attention_order == "legacy":
        three = rows.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(1, 2).unbind(0)
    else:
        three = rows.chunk(3)
    return {letter: part.float().contiguous() for letter, part in zip("qkv", three, strict=True)}


def convert(tensors: Tensors, found: ADM, options: LoadOptions) -> Network:
    """Rename the tensors to ``UNet2DModel``'s names, with the attention in its order."""
    places, attention = _places(tensors, found)
    parts = {
        f"{source}.qkv ({letter})": f"{target}.to_{letter}"
        for source, target in attention.items()
        for letter in "qkv"
    }
    names = {
        f"{new}.{kind}": f"{old}.{kind}"
        for old, new in (places | parts).items()
        for kind in ("weight", "bias")
    }
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        place, _, kind = name.rpartition(".")
        block, _, leaf = place.rpartition(".")
        if leaf == "qkv" and block in attention:
            for letter, part in _split(tensors, name, options).items():
                renamed[f"{attention[block]}.to_{letter}.{kind}"] = part
            continue
        new = f"{places[place]}.{kind}" if place in places else name
        flat = leaf == "proj_out" and kind == "weight"
        renamed[new] = (tensor.flatten(1) if flat else tensor).float()
    unet2d = {
        "in_channels": found.inputs,
        "out_channels": found.outputs,
        "block_out_channels": found.widths,
        "layers_per_block": found.blocks,
        "time_embedding_type": "positional",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "time_embedding_dim": int(tensors["time_embed.0.weight"].shape[0]),
        "resnet_time_scale_shift": "scale_shift" if found.scale_shift else "default",
        "norm_num_groups": 32,
        "attn_norm_num_groups": 32,
        "norm_eps": 1e-5,
        "attention_head_dim": None if options.heads else options.head_channels,
        "num_class_embeds": found.classes or None,
        **block_types(found.attention, found.residual),
    }
    time_channels = found.time_channels if found.time_channels != found.widths[0] else None
    settings = {"unet2d": unet2d, "heads": options.heads, "time_channels": time_channels}
    return Network(settings, renamed, names)
