"""From a recipe and tensors to a prior: where every foreign network ends up.

A recipe is what the header of our own weight files holds: ``network`` (the ``UNet2DModel`` settings and the two things that they cannot
say), ``predicts``, ``schedule``, ``size_px``, ``fixed_size``, ``domain``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from pristina.errors import CheckpointError
from pristina.priors.base import SizeRule
from pristina.priors.checkpoints.safe_load import Tensors, difference
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, cosine_alpha_bar, linear_alpha_bar
from pristina.priors.unet import UNetPrior


@dataclass(frozen=True)
class Network:
    """A foreign network, renamed.

    Attributes:
        settings: ``unet2d`` (the settings of ``UNet2DModel``), ``heads`` (attention heads a layer where that, not their width, is fixed)
            and ``time_channels`` (width of the time embedding where it is not that of the first level), else None.
        tensors: By ``UNet2DModel``'s names, float32.
        names: What each was called in the file.
    """

    settings: dict[str, Any]
    tensors: Tensors
    names: dict[str, str]


def block_types(attention: list[bool], residual: bool) -> dict[str, Any]:
    """The ``UNet2DModel`` settings that say which levels attend and how they resample (by residual blocks or by convolutions)."""
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if residual else ("DownBlock2D", "UpBlock2D")
    resample = "resnet" if residual else "conv"
    return {
        "down_block_types": ["AttnDownBlock2D" if attends else plain[0] for attends in attention],
        "up_block_types": ["AttnUpBlock2D" if attends else plain[1] for attends in reversed(attention)],
        "downsample_type": resample,
        "upsample_type": resample,
    }


def fold_class(network: Network, label: int | None) -> Network:
    """The network for one class, or for the mean of all embeddings: the embedding becomes part of the time embedding's bias.

    Raises:
        CheckpointError: There is no such class.
    """
    if "class_embedding.weight" not in network.tensors:
        if label is not None:
            raise CheckpointError("label is set, but this network knows no classes; leave it out.")
        return network
    tensors = dict(network.tensors)
    table = tensors.pop("class_embedding.weight")
    if label is not None and not 0 <= label < len(table):
        raise CheckpointError(f"label must lie between 0 and {len(table) - 1}, not {label}.")
    vector = table.mean(0) if label is None else table[label]
    tensors["time_embedding.linear_2.bias"] = tensors["time_embedding.linear_2.bias"] + vector
    unet2d = {**network.settings["unet2d"], "num_class_embeds": None}
    return Network({**network.settings, "unet2d": unet2d}, tensors, network.names)


def build(network: Network) -> UNet2DModel:
    """The network with exactly these tensors in it.

    Raises:
        CheckpointError: A name or shape does not fit; says which.
    """
    settings = network.settings
    with torch.device("meta"):
        unet = UNet2DModel(**settings["unet2d"])
        if settings["time_channels"]:
            config = unet.config
            unet.time_proj = Timesteps(settings["time_channels"], config.flip_sin_to_cos, config.freq_shift)
            unet.time_embedding = TimestepEmbedding(settings["time_channels"], unet.time_embedding.linear_2.out_features)
    for module in unet.modules():
        if settings["heads"] and isinstance(module, Attention):
            module.heads = settings["heads"]
            module.scale = (module.inner_dim / module.heads) ** -0.5
    names = network.names
    expected = {names.get(name, name): tuple(t.shape) for name, t in unet.state_dict().items()}
    found = {names.get(name, name): tuple(t.shape) for name, t in network.tensors.items()}
    differs = difference(expected, found)
    if differs:
        raise CheckpointError(f"The tensors do not fit the network that they describe; nothing was loaded.\n  {differs}")
    unet.load_state_dict(network.tensors, assign=True)
    return unet.to(memory_format=torch.channels_last)


class EDM(nn.Module):
    """``E[x0 | x_t]`` from an EDM or consistency network.

    Glossary: sigma noise of ``x_t / sqrt(alpha_bar)``, s deviation of the data (0.5), F the network.

    Args:
        unet: F.
        table: The chain's ``alpha_bar``.
        sigma_min: 0 for EDM; where a consistency model returns its input unchanged (0.002).

    Source:
        Karras et al. 2022, table 1 (``x0 = c_skip x + c_out F(c_in x, c_noise)``) with c_noise = 250 log sigma, as in the code that the
        networks were released with; Song et al. 2023, appendix C, for ``sigma_min``.
    """

    table: Tensor

    def __init__(self, unet: UNet2DModel, table: Tensor, sigma_min: float = 0.0):
        super().__init__()
        self.unet = unet
        self.sigma_min = sigma_min
        self.register_buffer("table", table, persistent=False)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean picture, (B, C, H, W)."""
        alpha_bar = alpha_bar_at(self.table, t).view(-1, 1, 1, 1)
        sigma, x = ((1 - alpha_bar) / alpha_bar).sqrt(), x_t / alpha_bar.sqrt()
        s, off = 0.5, sigma - self.sigma_min
        c_in = (sigma**2 + s**2).rsqrt()
        c_skip, c_out = s**2 / (off**2 + s**2), off * s * c_in
        return c_skip * x + c_out * self.unet(c_in * x, 250 * sigma.flatten().log()).sample


def schedule_table(schedule: dict[str, Any]) -> Tensor:
    """``alpha_bar``, shape (1000,), from its description: ``linear`` or ``scaled_linear`` (with its two betas), ``cosine``, or ``betas``.

    Raises:
        CheckpointError: It is another one, or not of 1000 steps, or ends in noise alone.
    """
    kind = schedule["name"]
    if kind == "linear":
        table = linear_alpha_bar(N_TIMESTEPS, schedule["first"], schedule["last"])
    elif kind == "scaled_linear":
        table = torch.cumprod(1 - torch.linspace(schedule["first"] ** 0.5, schedule["last"] ** 0.5, N_TIMESTEPS) ** 2, dim=0)
    elif kind == "cosine":
        table = cosine_alpha_bar()
    elif kind == "betas":
        table = torch.cumprod(1 - torch.tensor(schedule["betas"], dtype=torch.float64), dim=0).float()
    else:
        raise CheckpointError(f"The noise schedule {kind!r} is not known; linear, scaled_linear, cosine and explicit betas are.")
    if len(table) != N_TIMESTEPS or table.min() <= 0:
        raise CheckpointError(f"A schedule of {N_TIMESTEPS} steps that never reaches noise alone is needed; this one has {len(table)}.")
    return table


LINEAR = {"name": "linear", "first": 1e-4, "last": 2e-2}


def build_prior(
    recipe: dict[str, Any], tensors: Tensors, names: dict[str, str] | None = None, dtype: torch.dtype = torch.float32
) -> UNetPrior:
    """The prior that a recipe and its tensors make.

    Raises:
        CheckpointError: They do not fit each other.
    """
    unet = build(Network(recipe["network"], tensors, names or {}))
    table = schedule_table(recipe["schedule"])
    multiple = 2 ** (len(unet.config.block_out_channels) - 1)
    rule = SizeRule(multiple=multiple, minimum=2 * multiple, native=recipe["size_px"], fixed=recipe["fixed_size"])
    predicts: Any = recipe["predicts"]
    network: nn.Module = unet
    if predicts in ("edm", "consistency"):
        network = EDM(unet, table, 0.002 if predicts == "consistency" else 0.0)
        predicts = "x0"
    return UNetPrior(
        network,
        prediction=predicts,
        domain=recipe["domain"],
        channels=unet.config.in_channels,
        size_rule=rule,
        alpha_bar=table,
        dtype=dtype,
    )
