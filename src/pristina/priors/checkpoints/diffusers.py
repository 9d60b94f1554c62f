"""Networks of diffusers: ``UNet2DModel`` with its settings and, in a pipeline, its scheduler's."""

from __future__ import annotations

import inspect
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
from diffusers import UNet2DModel

from pristina.errors import CheckpointError
from pristina.priors.checkpoints.catalogue import CATALOGUE
from pristina.priors.checkpoints.header import NetworkSpec, check_size, printable
from pristina.priors.checkpoints.limits import UNET2D, check_settings
from pristina.priors.checkpoints.options import LoadOptions
from pristina.priors.checkpoints.safe_load import Tensors
from pristina.priors.checkpoints.unet2d import LINEAR, Network, fold_class

MARKS = (
    "conv_in.weight",
    "time_embedding.linear_1.weight",
    "down_blocks.0.resnets.0.conv1.weight",
)

WEIGHTS = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
)
INDICES = tuple(f"{name}.index.json" for name in WEIGHTS)
"""Names of the lists of a network's parts, where it is saved in several."""

BEFORE_2023 = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Old names of attention's tensors."""

AVERAGING = {
    "decay", "min_decay", "optimization_step", "update_after_step", "use_ema_warmup", "inv_gamma",
    "power",
}  # fmt: skip
"""Settings that diffusers' training adds to those of averaged weights."""

EXPORT = "pristina.json"
"""File in a diffusers folder of our own making that says how its network is to be used."""

MAX_JSON_BYTES = 16 << 20

PREDICTS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}

SCHEDULERS = {
    f"{name}Scheduler"
    for name in (
        "DDPM", "DDPMParallel", "DDIM", "DDIMParallel", "DDIMInverse", "PNDM", "LMSDiscrete",
        "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete",
        "KDPM2AncestralDiscrete", "DPMSolverMultistep", "DPMSolverMultistepInverse",
        "DPMSolverSinglestep", "DPMSolverSDE", "DEISMultistep", "UniPCMultistep", "RePaint",
        "SASolver", "LCM", "TCD",
    )
}  # fmt: skip
"""Samplers of diffusers for networks trained with DDPM's variance-preserving noise."""


@dataclass(frozen=True)
class Files:
    """Files of one network of diffusers.

    Attributes:
        named: Path by which it was asked for.
        config: Settings of the network.
        weights: Weight file, or all parts of it.
        index: Settings of the pipeline; None if it stands alone.
        scheduler: Settings of the scheduler; None if there are none.
        export: Our own description, in a folder that we wrote; else None.
    """

    named: Path
    config: Path
    weights: tuple[Path, ...]
    index: Path | None
    scheduler: Path | None
    export: Path | None


def locate(path: Path, weights: str = "auto") -> Files | None:
    """Find the files of the network that a folder, or a weight file in one, means.

    Args:
        path: Folder of a pipeline, a network or a training run's checkpoint, or a weight file.
        weights: Averaged (``ema``) or last trained (``raw``) weights; ``auto`` prefers the first.

    Returns:
        Its files; None for a file without settings beside it.

    Raises:
        CheckpointError: A folder holds no network, or not the weights that were asked for.
    """
    place = Path(os.path.abspath(path))  # Links stay, for in the hub's cache files are links.
    if place.is_dir():
        names = ["unet_ema", "unet", "."] if weights != "raw" else ["unet", "."]
        folder = next((place / n for n in names if (place / n / "config.json").exists()), None)
        if folder is None:
            raise CheckpointError(
                f"{path} is a folder without config.json; a diffusers UNet2DModel or pipeline "
                "folder would fit."
            )
        if weights == "ema" and folder.name != "unet_ema":
            raise CheckpointError(f"{path} has no unet_ema folder with averaged weights.")
        files = weight_files(folder)
    else:
        folder = place.parent
        if not (folder / "config.json").exists():
            return None
        files = _parts(place) if place.name.endswith(".index.json") else (place,)
    around = [folder]
    if folder.name.startswith("unet"):
        around.append(folder.parent)
    if re.fullmatch(r"checkpoint-\d+", around[-1].name):  # in the folder of a training run
        around.append(around[-1].parent)

    def find(*names: str) -> Path | None:
        return next((f / n for f in around for n in names if (f / n).exists()), None)

    return Files(
        named=path,
        config=folder / "config.json",
        weights=files,
        index=find("model_index.json"),
        scheduler=find("scheduler_config.json", "scheduler/scheduler_config.json"),
        export=find(EXPORT),
    )


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Find the weight file of a network's folder, or all parts of it.

    Raises:
        CheckpointError: There is none, or a part is missing.
    """
    for name in WEIGHTS:
        if (folder / name).exists():
            return (folder / name,)
    for name in INDICES:
        if (folder / name).exists():
            return _parts(folder / name)
    raise CheckpointError(f"{folder} has settings but no weights ({' or '.join(WEIGHTS)}).")


def _parts(index: Path) -> tuple[Path, ...]:
    """Return the files that a list of parts names."""
    held = read_json(index).get("weight_map")
    names = sorted(set(held.values())) if isinstance(held, dict) and held else [""]
    if not all(isinstance(n, str) and n == Path(n).name and n not in ("", "..") for n in names):
        raise CheckpointError(f"{index} should name a file of its folder for each tensor.")
    missing = [name for name in names if not (index.parent / name).exists()]
    if missing:
        raise CheckpointError(
            f"{index} names {len(names)} parts; {printable(missing[0])} is not there."
        )
    return tuple(index.parent / name for name in names)


def read_json(path: Path) -> dict[str, Any]:
    """Read settings by name.

    Raises:
        CheckpointError: They cannot be read.
    """
    if not path.is_file() or path.stat().st_size > MAX_JSON_BYTES:
        raise CheckpointError(f"{path} is no file of settings.")
    try:
        held = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable as JSON.") from error
    if not isinstance(held, dict):
        raise CheckpointError(f"{path} should hold settings by name.")
    return held


def read_network(files: Files, held: Tensors) -> Network:
    """Read a network's settings, and rename its tensors where they have old names.

    Raises:
        CheckpointError: The settings ask for something unknown, or for another network.
    """
    config, folder = read_json(files.config), files.config.parent
    kind = config.get("_class_name")
    if kind != "UNet2DModel":
        shown = printable(str(kind)) if kind else "nameless network"
        raise CheckpointError(f"{folder} holds a {shown}; only UNet2DModel can be a prior here.")
    known = set(inspect.signature(UNet2DModel.__init__).parameters) - {"self"}
    passed = {k: v for k, v in config.items() if not k.startswith("_") and k not in AVERAGING}
    unknown = [printable(k) for k, v in passed.items() if k not in known and v]
    if unknown:
        raise CheckpointError(
            f"{folder} has settings that UNet2DModel of diffusers {diffusers.__version__} does not "
            f"know ({', '.join(unknown)})."
        )
    defaults = {"in_channels": 3, "out_channels": 3, "block_out_channels": [224, 448, 672, 896]}
    unet2d = {**defaults, **{k: v for k, v in passed.items() if k in known}}
    check_settings(unet2d, UNET2D)
    n_in, n_out = unet2d["in_channels"], unet2d["out_channels"]
    if n_out not in (n_in, 2 * n_in) or n_in > 3:
        raise CheckpointError(
            f"{files.named} takes {n_in} channels and gives {n_out}: a conditional network or one "
            "of codes, not a prior."
        )
    tensors, names = {}, {}
    for name, tensor in held.items():
        place, _, last = name.rpartition(".")
        block, _, leaf = place.rpartition(".")
        old = ".attentions." in name and leaf in BEFORE_2023
        new = f"{block}.{BEFORE_2023[leaf]}.{last}" if old else name
        tensors[new] = (tensor.flatten(1) if old and last == "weight" else tensor).float()
        names[new] = name
    return Network({"unet2d": unet2d, "heads": None, "time_channels": None}, tensors, names)


def describe_network(
    files: Files, held: Tensors, options: LoadOptions
) -> tuple[NetworkSpec, Network]:
    """Describe a network by its settings, its scheduler's and what the caller knows.

    Args:
        files: Files of the network.
        held: Its tensors.
        options: What the caller knows and the files do not say.

    Raises:
        CheckpointError: It is another network, or belongs to another kind of diffusion.
    """
    index = read_json(files.index) if files.index else {}
    parts = sorted(k for k in index if k in ("vae", "vqvae", "text_encoder", "transformer"))
    if parts:
        raise CheckpointError(
            f"{files.named} belongs to a pipeline with {' and '.join(parts)}: an unconditional "
            "UNet2DModel alone would fit."
        )
    network = fold_class(read_network(files, held), options.label)
    predicts, schedule = read_scheduler(read_json(files.scheduler) if files.scheduler else {})
    unet2d = network.settings["unet2d"]
    hub = next((e for e in CATALOGUE.values() if _is_cached(e.hub, files.config)), None)
    options = options.or_else(hub.options) if hub else options
    levels = len(unet2d["block_out_channels"])
    side = unet2d.get("sample_size") or 8 * 2 ** (levels - 1)
    size_px = options.size_px or (side if isinstance(side, int) else max(side))
    check_size(size_px, bool(options.fixed_size))
    named: dict[str, dict[str, Any]] = {"linear": LINEAR, "cosine": {"name": "cosine"}}
    stated = files.scheduler is not None or "auto" not in (options.predicts, options.schedule)
    spec = NetworkSpec(
        kind="prior",
        network=network.settings,
        predicts=predicts if options.predicts == "auto" else options.predicts,
        schedule=named.get(options.schedule, schedule),
        domain=options.domain
        or f"unknown pictures (a checkpoint called {printable(files.named.name)})",
        size_px=size_px,
        fixed_size=bool(options.fixed_size),
        source={} if stated else {"schedule": "not stated; linear, and noise predicted"},
    )
    return spec, network


def _is_cached(hub: str | None, config: Path) -> bool:
    return hub is not None and hub.replace("/", "--") in str(config)


def read_scheduler(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Read what a network predicts and its noise schedule from the settings of its scheduler.

    Noise and the linear schedule where nothing is said, as in diffusers.

    Raises:
        CheckpointError: It belongs to another kind of diffusion.
    """
    kind = config.get("_class_name", "DDPMScheduler")
    if kind == "CMStochasticIterativeScheduler":
        return "consistency", LINEAR
    moved = config.get("use_flow_sigmas") or config.get("timestep_type") == "continuous"
    if kind not in SCHEDULERS or moved:
        raise CheckpointError(
            f"The scheduler {printable(str(kind))} belongs to another kind of diffusion (variance "
            "exploding or flow, say); those of DDPM, DDIM and consistency models would fit."
        )
    asked = config.get("prediction_type", "epsilon")
    predicts = PREDICTS.get(asked) if isinstance(asked, str) else None
    if predicts is None:
        raise CheckpointError(
            f"prediction_type {printable(repr(asked))} is not understood; "
            f"{', '.join(PREDICTS)} are."
        )
    steps = config.get("num_train_timesteps", 1000)
    if steps != 1000:
        raise CheckpointError(
            f"It was trained with {printable(str(steps))} timesteps; 1000 are needed."
        )
    if config.get("rescale_betas_zero_snr"):
        raise CheckpointError(
            "Its schedule ends in noise alone (rescale_betas_zero_snr), where the clean picture "
            "cannot be predicted from noise."
        )
    if config.get("trained_betas"):
        return predicts, {"name": "betas", "betas": config["trained_betas"]}
    name = config.get("beta_schedule", "linear")
    return predicts, {
        "name": "cosine" if name == "squaredcos_cap_v2" else name,
        "first": config.get("beta_start", 1e-4),
        "last": config.get("beta_end", 2e-2),
    }
