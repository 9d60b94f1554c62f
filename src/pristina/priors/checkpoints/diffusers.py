"""A diffusers folder: ``UNet2DModel`` with its settings and, in a pipeline, its scheduler's."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from diffusers import UNet2DModel

from pristina.errors import CheckpointError
from pristina.priors.checkpoints.catalogue import CATALOGUE, Reading
from pristina.priors.checkpoints.safe_load import Tensors, load_file, sha256_of
from pristina.priors.checkpoints.unet2d import LINEAR, Network, build_prior, fold_class

MARKS = ("conv_in.weight", "time_embedding.linear_1.weight", "down_blocks.0.resnets.0.conv1.weight")
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bin")
BEFORE_2023 = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Attention's old names."""

EXPORT = "pristina.json"
"""In a diffusers folder of our own making: how its network is to be used."""

PREDICTS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


def _json(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not readable as JSON ({error}).") from error
    if not isinstance(held, dict):
        raise CheckpointError(f"{path} should hold settings by name.")
    return held


def open_folder(path: Path, reading: Reading) -> tuple[dict[str, Any], Tensors]:
    """The recipe and tensors of a ``UNet2DModel`` or pipeline folder.

    Raises:
        CheckpointError: It holds another network, or does not fit its settings.
    """
    index = _json(path / "model_index.json") if (path / "model_index.json").exists() else {}
    parts = sorted(k for k in index if k in ("vae", "vqvae", "text_encoder", "transformer"))
    if parts:
        raise CheckpointError(f"{path} is a pipeline with {' and '.join(parts)}: an unconditional UNet2DModel alone would fit.")
    folders = [path / "unet_ema", path / "unet", path] if reading.weights != "raw" else [path / "unet", path]
    folder = next((f for f in folders if (f / "config.json").exists()), None)
    if folder is None:
        raise CheckpointError(f"{path} is a folder without config.json; a diffusers UNet2DModel or pipeline folder would fit.")
    if reading.weights == "ema" and folder.name != "unet_ema":
        raise CheckpointError(f"{path} has no unet_ema folder with averaged weights.")
    config = _json(folder / "config.json")
    kind = config.get("_class_name")
    if kind != "UNet2DModel":
        raise CheckpointError(f"{folder} holds a {kind or 'nameless network'}; only UNet2DModel can be a prior here.")
    network = read_network(folder, config)
    scheduler = next((f for f in (path / "scheduler", path) if (f / "scheduler_config.json").exists()), None)
    predicts, schedule = read_scheduler(_json(scheduler / "scheduler_config.json") if scheduler else {})
    unet2d = network.settings["unet2d"]
    n_in, n_out = unet2d["in_channels"], unet2d["out_channels"]
    if n_out not in (n_in, 2 * n_in) or n_in > 3:
        raise CheckpointError(f"{path} takes {n_in} channels and gives {n_out}: a conditional network or one of codes, not a prior.")
    network = fold_class(network, reading.label)
    known = next((k for k in CATALOGUE.values() if k.hub and k.hub.replace("/", "--") in str(path)), None)
    full = reading.or_else(known.reading) if known else reading
    side = unet2d.get("sample_size") or 8 * 2 ** (len(unet2d["block_out_channels"]) - 1)
    recipe = {
        "kind": "prior",
        "network": network.settings,
        "predicts": predicts if full.predicts == "auto" else full.predicts,
        "schedule": {"linear": LINEAR, "cosine": {"name": "cosine"}}.get(full.schedule, schedule),
        "domain": full.domain or f"unknown pictures (a checkpoint called {path.name})",
        "size_px": full.size_px or (side if isinstance(side, int) else max(side)),
        "fixed_size": bool(full.fixed_size),
        "source": {"file": str(path), "sha256": sha256_of(weights_file(folder)), "layout": "diffusers", "within": folder.name},
    }
    try:
        build_prior(recipe, network.tensors, network.names)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return recipe, network.tensors


def weights_file(folder: Path) -> Path:
    """The weight file of a network's folder.

    Raises:
        CheckpointError: There is none, or several parts.
    """
    for name in WEIGHTS:
        if (folder / name).exists():
            return folder / name
    raise CheckpointError(f"{folder} has settings but no weights ({' or '.join(WEIGHTS)}; weights in several parts are not supported).")


def read_network(folder: Path, config: dict[str, Any]) -> Network:
    """The network, with old attention names replaced.

    Raises:
        CheckpointError: The settings ask for something unknown here.
    """
    known = set(inspect.signature(UNet2DModel.__init__).parameters) - {"self"}
    unknown = [k for k, v in config.items() if k not in known and not k.startswith("_") and v]
    if unknown:
        raise CheckpointError(f"{folder} has settings unknown to this version of diffusers ({', '.join(unknown)}); upgrade it.")
    tensors, names = {}, {}
    for name, tensor in load_file(weights_file(folder)).items():
        place, _, last = name.rpartition(".")
        block, _, leaf = place.rpartition(".")
        old = ".attentions." in name and leaf in BEFORE_2023
        new = f"{block}.{BEFORE_2023[leaf]}.{last}" if old else name
        tensors[new] = (tensor.flatten(1) if old and last == "weight" else tensor).float()
        names[new] = name
    usual = {"in_channels": 3, "out_channels": 3, "block_out_channels": [224, 448, 672, 896]}
    unet2d = {**usual, **{k: v for k, v in config.items() if k in known}}
    return Network({"unet2d": unet2d, "heads": None, "time_channels": None}, tensors, names)


def read_scheduler(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What the network predicts and its schedule's description; noise and the linear schedule where nothing is said, as in diffusers.

    Raises:
        CheckpointError: It is another kind of diffusion.
    """
    kind = config.get("_class_name", "DDPMScheduler")
    if kind == "CMStochasticIterativeScheduler":
        return "consistency", LINEAR
    if "FlowMatch" in kind or "EDM" in kind or "Score" in kind or "KarrasVe" in kind:
        raise CheckpointError(
            f"The scheduler {kind} belongs to another kind of diffusion; those of DDPM, DDIM and consistency models would fit."
        )
    predicts = PREDICTS.get(config.get("prediction_type", "epsilon"))
    if predicts is None:
        raise CheckpointError(f"prediction_type {config['prediction_type']!r} is not understood; {', '.join(PREDICTS)} are.")
    if config.get("num_train_timesteps", 1000) != 1000:
        raise CheckpointError(f"It was trained with {config['num_train_timesteps']} timesteps; 1000 are needed.")
    if config.get("rescale_betas_zero_snr"):
        raise CheckpointError(
            "Its schedule ends in noise alone (rescale_betas_zero_snr), where the clean picture cannot be predicted from noise."
        )
    if config.get("trained_betas"):
        return predicts, {"name": "betas", "betas": config["trained_betas"]}
    name = config.get("beta_schedule", "linear")
    name = "cosine" if name == "squaredcos_cap_v2" else name
    return predicts, {"name": name, "first": config.get("beta_start", 1e-4), "last": config.get("beta_end", 2e-2)}
