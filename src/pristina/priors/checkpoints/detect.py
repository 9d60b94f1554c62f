"""From any weight file or folder to a recipe and tensors: which layout it is, what it leaves open, or what it looks like instead.

A layout is one line of :data:`LAYOUTS` and one module with five functions: ``infer``, ``native_px``, ``told``, ``readings``, ``convert``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pristina.errors import CheckpointError
from pristina.priors.checkpoints import adm, ddpm, diffusers
from pristina.priors.checkpoints.catalogue import Reading, identify
from pristina.priors.checkpoints.safe_load import Tensors, is_average, load_file, sha256_of, state_dicts
from pristina.priors.checkpoints.unet2d import LINEAR, Network, build_prior, fold_class
from pristina.priors.schedule import alpha_bar_at

LAYOUTS: dict[str, ModuleType] = {"adm": adm, "ddpm": ddpm}

FITS = "ADM (guided diffusion), DDPM 'simple', a diffusers UNet2DModel folder, or pristina's own safetensors would fit"


@dataclass(frozen=True)
class Stranger:
    """A kind of file that is no prior for pictures, and the name that gives it away."""

    pattern: str
    what: str
    absent: str = r"(?!)"
    """It is something else if a name matches this."""


STRANGERS = (
    Stranger(r"lora_(up|down|A|B)|\.lora\.|_lora\.", "a LoRA: a small change to another network, not a network"),
    Stranger(r"transformer_blocks|cond_stage_model|attn2\.to_k", "a text-to-image latent diffusion network (Stable Diffusion)"),
    Stranger(r"first_stage_model|model\.diffusion_model\.", "a latent diffusion model: it makes codes of an autoencoder, not pixels"),
    Stranger(r"^(module\.)?(encoder|decoder)\.(down|up|conv_in|mid)", "an autoencoder (of a latent diffusion model, say)"),
    Stranger(r"all_modules\.\d", "an NCSN++ or DDPM++ score network (Song et al.'s score_sde)"),
    Stranger(r"(enc|dec)\.\d+x\d+_", "a network of NVlabs' EDM code (SongUNet, DhariwalUNet)"),
    Stranger(r"noise_level_mlp", "SR3, a conditional super-resolution network"),
    Stranger(r"cond_embed\.", "Palette, a conditional network"),
    Stranger(r"adaLN_modulation|x_embedder\.proj", "a diffusion transformer (DiT)"),
    Stranger(r"(downs|ups)\.\d+\.\d+\.|init_conv\.weight", "a U-Net of lucidrains' denoising-diffusion code"),
    Stranger(r"input_blocks\.\d+\.0\.in_layers", "an ADM classifier: it names pictures and makes none", r"output_blocks\."),
    Stranger(r"(^|\.)(fc|classifier|head)(\.\d+)?\.weight$", "a classifier", r"conv_out|output_blocks"),
)


def refuse(path: Path, names: list[str]) -> CheckpointError:
    """The sentence for a file that is none of the layouts."""
    for stranger in STRANGERS:
        if any(re.search(stranger.pattern, n) for n in names) and not any(re.search(stranger.absent, n) for n in names):
            return CheckpointError(f"{path} looks like {stranger.what}; {FITS}.")
    some = ", ".join(names[:3]) or "none"
    return CheckpointError(f"{path} holds {len(names)} tensors ({some}, ...) in no layout that is known here; {FITS}.")


def find_network(path: Path, held: Any, weights: str) -> tuple[str, Tensors, str]:
    """The layout of the network in a file, its tensors, and where in the file they lie.

    Raises:
        CheckpointError: There is none, or only averaged or trained weights where the others were asked for.
    """
    candidates = list(state_dicts(held))
    every_name = sorted({name for _, tensors in candidates for name in tensors})
    if any(re.search(s.pattern, n) for s in STRANGERS[:3] for n in every_name):  # these contain what looks like a layout
        raise refuse(path, every_name)
    found = []
    for where, tensors in candidates:
        for name, layout in LAYOUTS.items():
            if all(mark in tensors for mark in layout.MARKS):
                found.append((name, tensors, where))
    if not found:
        longest = max((list(tensors) for _, tensors in candidates), key=len, default=[])
        raise refuse(path, longest)
    if weights != "auto":
        found = [f for f in found if is_average(f[2]) == (weights == "ema")]
        if not found:
            raise CheckpointError(f"{path} holds no {'averaged (EMA)' if weights == 'ema' else 'other than averaged'} weights.")
    return max(found, key=lambda f: is_average(f[2]))


def smooth_pictures() -> Tensor:
    """Two smooth pictures in [-1, 1], (2, 3, 128, 128): what every network should find easy."""
    u = torch.linspace(-1, 1, 128)
    y, x = torch.meshgrid(u, u, indexing="ij")
    blob = torch.exp(-2 * (x**2 + y**2))
    first = torch.stack([blob - 0.3, 0.6 * blob - 0.2, 0.4 * blob - 0.3])
    second = torch.stack([0.5 * x, 0.4 * x + 0.3 * y, 0.5 * y])
    return torch.stack([first, second])


@torch.no_grad()
def denoising_error(recipe: dict[str, Any], network: Network, x0: Tensor) -> float:
    """The mean squared error of the noise that one call finds in ``x0``, at two noise levels."""
    prior = build_prior(recipe, network.tensors, network.names)
    px = max(prior.size_rule.multiple, min(128, recipe["size_px"]))
    x0 = torch.nn.functional.interpolate(x0, size=(px, px), mode="area")[:, : prior.channels]
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([250.0, 600.0])
    alpha_bar = alpha_bar_at(prior.alpha_bar, t).view(-1, 1, 1, 1)
    prior.size_rule = type(prior.size_rule)(multiple=prior.size_rule.multiple)
    found = prior.predict(alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps, t).eps
    return float((found - eps).square().mean())


def settle(choices: list[Reading], hint: Reading, error: Callable[[Reading], float]) -> tuple[Reading, str]:
    """The right one of several readings, and how that was decided: by the error of one denoising call on smooth pictures.

    Raises:
        CheckpointError: The errors do not tell them apart, and the file's name gives no hint.
    """
    if len(choices) == 1:
        return choices[0], "only one way to read it"
    ranked = sorted((error(choice), i) for i, choice in enumerate(choices))
    figures = ", ".join(f"{say(choices[i])}: {e:.3g}" for e, i in ranked)
    best, second = ranked[0][0], ranked[1][0]
    if best < 0.5 and second > 1.1 * best:  # zero answers would err by 1: it does denoise, and one way better than the others
        return choices[ranked[0][1]], f"one-step denoising error ({figures})"
    if second - best < 1e-9:  # attention that does nothing yet
        return choices[0], "all ways to read it give the same picture"
    for choice in choices:
        if hint.attention_order == choice.attention_order and (hint.heads, hint.head_channels) == (choice.heads, choice.head_channels):
            return choice, f"file name; one-step denoising does not tell ({figures})"
    raise CheckpointError(
        f"The order of q, k and v and the number of heads are not in the file, and one denoising step does not tell ({figures}); "
        "set attention_order (OpenAI's, DPS's and P2's files are legacy), and heads or head_channels."
    )


def say(r: Reading) -> str:
    """An attention reading in words."""
    return f"{r.attention_order}, {r.heads} heads" if r.heads else f"{r.attention_order}, {r.head_channels} channels a head"


def open_checkpoint(path: Path, reading: Reading = Reading()) -> tuple[dict[str, Any], Tensors]:
    """The recipe and the tensors, in ``UNet2DModel``'s names, of a foreign checkpoint.

    Args:
        path: A file, or a diffusers folder.
        reading: What the caller knows and the file does not say.

    Raises:
        CheckpointError: It is no network that can be a prior; the sentence says what it looks like and what would fit.
    """
    if path.is_dir():
        return diffusers.open_folder(path, reading)
    held = load_file(path)
    if isinstance(held, dict) and all(mark in held for mark in diffusers.MARKS):
        if (path.parent / "config.json").exists():
            return diffusers.open_folder(path.parent, reading)
        raise CheckpointError(f"{path} is a diffusers network without its config.json; give the folder that has both.")
    layout_name, tensors, where = find_network(path, held, reading.weights)
    layout = LAYOUTS[layout_name]
    try:
        found = layout.infer(tensors)
        if found.outputs not in (found.inputs, 2 * found.inputs) or found.inputs > 3:
            raise CheckpointError(
                f"It takes {found.inputs} channels and gives {found.outputs}: a conditional network (an upsampler, say) or one of codes, "
                "not a prior for pictures."
            )
        sha256 = sha256_of(path)
        known, certain = identify(path.name, sha256, path.stat().st_size)
        hint = known.reading if known else Reading()
        if certain:
            reading = reading.or_else(hint)
        full = reading.or_else(hint).or_else(layout.told(found))
        recipe = {
            "kind": "prior",
            "predicts": "eps" if full.predicts == "auto" else full.predicts,
            "schedule": {"name": "cosine"} if full.schedule == "cosine" else LINEAR,
            "domain": full.domain or f"unknown pictures (a checkpoint called {path.name})",
            "size_px": full.size_px or layout.native_px(found),
            "fixed_size": bool(full.fixed_size),
        }

        def read(choice: Reading) -> tuple[dict[str, Any], Network]:
            network = fold_class(layout.convert(tensors, found, choice), reading.label)
            return {**recipe, "network": network.settings}, network

        x0 = smooth_pictures()
        open_to_check = reading.or_else(layout.told(found))
        choice, decided = settle(layout.readings(found, open_to_check), hint, lambda c: denoising_error(*read(c), x0))
        recipe, network = read(choice)
        build_prior(recipe, network.tensors, network.names)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    recipe["source"] = {
        "file": str(path),
        "sha256": sha256,
        "layout": layout_name,
        "within": where,
        "catalogue": f"{known.name} (by {'hash' if certain else 'name'})" if known else "",
        "attention": say(choice) if layout_name == "adm" else "",
        "decided": "the catalogue" if certain and len(layout.readings(found, open_to_check)) == 1 else decided,
        "label": "" if not found.classes else ("mean of all classes" if reading.label is None else str(reading.label)),
    }
    return recipe, network.tensors
