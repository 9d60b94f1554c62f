"""From a specification and tensors to a prior: where every checkpoint of others ends up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from pristina.errors import CheckpointError
from pristina.priors.base import SizeRule
from pristina.priors.checkpoints.fill import fill
from pristina.priors.checkpoints.header import NetworkSpec, printable
from pristina.priors.checkpoints.limits import check_network
from pristina.priors.checkpoints.safe_load import Tensors
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, cosine_alpha_bar, linear_alpha_bar
from pristina.priors.unet import UNetPrior


@dataclass(frozen=True)
class Network:
    """Network of others, its tensors renamed.

    Attributes:
        settings: ``network`` of a :class:`pristina.priors.checkpoints.header.NetworkSpec`.
        tensors: Tensors by ``UNet2DModel``'s names, float32.
        names: Name of each in the file.
    """

    settings: dict[str, Any]
    tensors: Tensors
    names: dict[str, str]


def block_types(attention: list[bool], residual: bool) -> dict[str, Any]:
    """Return the ``UNet2DModel`` settings of its levels.

    Args:
        attention: Whether each level attends, from fine to coarse.
        residual: Whether it resamples by residual blocks, not by convolutions.
    """
    plain = (
        ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
        if residual
        else ("DownBlock2D", "UpBlock2D")
    )
    resample = "resnet" if residual else "conv"
    return {
        "down_block_types": ["AttnDownBlock2D" if attends else plain[0] for attends in attention],
        "up_block_types": ["AttnUpBlock2D" if attends else plain[1] for attends in attention[::-1]],
        "downsample_type": resample,
        "upsample_type": resample,
    }


def fold_class(network: Network, label: int | None) -> Network:
    """Fix the class of a network: the embedding becomes part of the time embedding's bias.

    Args:
        network: Network with or without classes.
        label: Class; None takes the mean of all embeddings.

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
    bias = tensors["time_embedding.linear_2.bias"]
    if vector.shape != bias.shape:
        raise CheckpointError("The class embedding has another width than the time embedding.")
    tensors["time_embedding.linear_2.bias"] = bias + vector
    unet2d = {**network.settings["unet2d"], "num_class_embeds": None}
    return Network({**network.settings, "unet2d": unet2d}, tensors, network.names)


def build(network: Network) -> UNet2DModel:
    """Build the network with exactly these tensors in it.

    Raises:
        CheckpointError: A setting is impossible, or a name or shape does not fit; says which.
    """
    settings = network.settings
    check_network(settings, len(network.tensors))
    with torch.device("meta"):
        unet = UNet2DModel(**settings["unet2d"])
        if settings["time_channels"]:
            config = unet.config
            width = settings["time_channels"]
            unet.time_proj = Timesteps(width, config.flip_sin_to_cos, config.freq_shift)
            unet.time_embedding = TimestepEmbedding(
                width, unet.time_embedding.linear_2.out_features
            )
    for module in unet.modules():
        if settings["heads"] and isinstance(module, Attention):
            module.heads = settings["heads"]
    fill(unet, network.tensors, network.names)
    return unet.to(memory_format=torch.channels_last)


class EDM(nn.Module):
    """``E[x0 | x_t]`` from an EDM or consistency network.

    Glossary: sigma noise of ``x_t / sqrt(alpha_bar)``, s deviation of the data (0.5), F the
    network.

    Args:
        unet: F.
        table: ``alpha_bar`` of the chain, (1000,).
        sigma_min: Noise at which a consistency model returns its input unchanged (0.002); 0 for
            EDM.

    Source:
        Karras et al. 2022, table 1 (``x0 = c_skip x + c_out F(c_in x, c_noise)``) with c_noise =
        250 log sigma, as in the code that the networks were released with; Song et al. 2023,
        appendix C, for ``sigma_min``.
    """

    table: Tensor

    def __init__(self, unet: UNet2DModel, table: Tensor, sigma_min: float = 0.0):
        super().__init__()
        self.unet = unet
        self.sigma_min = sigma_min
        self.register_buffer("table", table, persistent=False)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Predict the clean images, (B, C, H, W), in diffused images at timesteps ``t``, (B,)."""
        alpha_bar = alpha_bar_at(self.table, t).view(-1, 1, 1, 1)
        sigma, x = ((1 - alpha_bar) / alpha_bar).sqrt(), x_t / alpha_bar.sqrt()
        s, off = 0.5, sigma - self.sigma_min
        c_in = (sigma**2 + s**2).rsqrt()
        c_skip, c_out = s**2 / (off**2 + s**2), off * s * c_in
        return c_skip * x + c_out * self.unet(c_in * x, 250 * sigma.flatten().log()).sample


LINEAR = {"name": "linear", "first": 1e-4, "last": 2e-2}


def schedule_table(schedule: Mapping[str, Any]) -> Tensor:
    """Compute ``alpha_bar``, (1000,), from the description of a noise schedule.

    Args:
        schedule: ``name``: ``linear`` or ``scaled_linear`` (with ``first`` and ``last`` beta),
            ``cosine``, or ``betas`` (with all of them).

    Raises:
        CheckpointError: It is another one, not of 1000 steps, or no noise schedule.
    """
    kind = schedule["name"]
    if kind == "linear":
        table = linear_alpha_bar(N_TIMESTEPS, schedule["first"], schedule["last"])
    elif kind == "scaled_linear":
        root = torch.linspace(schedule["first"] ** 0.5, schedule["last"] ** 0.5, N_TIMESTEPS)
        table = torch.cumprod(1 - root**2, dim=0)
    elif kind == "cosine":
        table = cosine_alpha_bar()
    elif kind == "betas":
        betas = torch.tensor(schedule["betas"], dtype=torch.float64)
        table = torch.cumprod(1 - betas, dim=0).float()
    else:
        raise CheckpointError(
            f"The noise schedule {printable(repr(kind))} is not known; linear, scaled_linear, "
            "cosine and explicit betas are."
        )
    falls = len(table) == N_TIMESTEPS and bool((table.diff() < 0).all())
    if not (falls and float(table.min()) > 0 and float(table.max()) < 1):
        raise CheckpointError(
            f"A schedule of {N_TIMESTEPS} steps is needed, whose noise grows and never is all; "
            f"this one of {len(table)} steps is not."
        )
    return table


def build_prior(
    spec: NetworkSpec,
    tensors: Tensors,
    names: dict[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> UNetPrior:
    """Build the prior that a specification and its tensors describe.

    Args:
        spec: Specification with ``unet2d`` settings.
        tensors: Tensors by ``UNet2DModel``'s names.
        names: Names in the file where they differ, for messages.
        dtype: Type in which the network computes (default float32).

    Raises:
        CheckpointError: They do not fit each other.
    """
    unet = build(Network(dict(spec.network), tensors, names or {}))
    table = schedule_table(spec.schedule or LINEAR)
    multiple = 2 ** (len(unet.config.block_out_channels) - 1)
    network: nn.Module = unet
    predicts: Any = spec.predicts
    if predicts in ("edm", "consistency"):
        network = EDM(unet, table, 0.002 if predicts == "consistency" else 0.0)
        predicts = "x0"
    if predicts not in ("eps", "v", "x0"):
        raise CheckpointError(
            f"It predicts {printable(predicts)}; eps, v, x0, edm and consistency are known."
        )
    prior = UNetPrior(
        network,
        prediction=predicts,
        domain=spec.domain,
        channels=unet.config.in_channels,
        size_rule=SizeRule(
            multiple=multiple, minimum=2 * multiple, native=spec.size_px, fixed=spec.fixed_size
        ),
        alpha_bar=table,
        dtype=dtype,
    )
    prior.spec = spec
    return prior
