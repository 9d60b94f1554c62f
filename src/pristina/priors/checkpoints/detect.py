"""From any weight file or folder to a prior: its layout, what it leaves open, or why it is none.

A layout is one line of :data:`LAYOUTS` and one module with five functions: ``infer``,
``native_px``, ``implied_options``, ``candidates``, ``convert``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pristina.errors import CheckpointError
from pristina.files import sha256_of
from pristina.priors.base import SizeRule
from pristina.priors.checkpoints import adm, ddpm, diffusers
from pristina.priors.checkpoints.catalogue import CatalogueEntry, identify
from pristina.priors.checkpoints.fill import check_tensors
from pristina.priors.checkpoints.header import NetworkSpec, check_size, printable
from pristina.priors.checkpoints.options import LoadOptions
from pristina.priors.checkpoints.safe_load import (
    Tensors,
    is_average,
    load_file,
    load_parts,
    sha256_of_parts,
    state_dicts,
)
from pristina.priors.checkpoints.unet2d import LINEAR, Network, build_prior, fold_class
from pristina.priors.schedule import alpha_bar_at
from pristina.priors.unet import UNetPrior

LAYOUTS: dict[str, ModuleType] = {"adm": adm, "ddpm": ddpm}

FITS = (
    "ADM (guided diffusion), DDPM 'simple', a diffusers UNet2DModel folder, or pristina's own "
    "safetensors would fit"
)


@dataclass(frozen=True)
class UnsupportedFormat:
    """A kind of file that is no prior for images, and the tensor name by which it is recognised.

    Attributes:
        pattern: Regular expression that one of the names matches.
        what: Description of such a file.
        absent: Regular expression that none of the names matches.
    """

    pattern: str
    what: str
    absent: str = r"(?!)"


UNSUPPORTED = (
    UnsupportedFormat(
        r"lora_(up|down|A|B)|\.lora\.|_lora\.",
        "a LoRA: a small change to another network, not a network",
    ),
    UnsupportedFormat(
        r"transformer_blocks|cond_stage_model|attn2\.to_k",
        "a text-to-image latent diffusion network (Stable Diffusion)",
    ),
    UnsupportedFormat(
        r"first_stage_model|model\.diffusion_model\.",
        "a latent diffusion model: it makes codes of an autoencoder, not pixels",
    ),
    UnsupportedFormat(
        r"^(module\.)?(encoder|decoder)\.(down|up|conv_in|mid)",
        "an autoencoder (of a latent diffusion model, say)",
    ),
    UnsupportedFormat(
        r"all_modules\.\d", "an NCSN++ or DDPM++ score network (Song et al.'s score_sde)"
    ),
    UnsupportedFormat(
        r"(enc|dec)\.\d+x\d+_", "a network of NVlabs' EDM code (SongUNet, DhariwalUNet)"
    ),
    UnsupportedFormat(r"noise_level_mlp", "SR3, a conditional super-resolution network"),
    UnsupportedFormat(r"cond_embed\.", "Palette, a conditional network"),
    UnsupportedFormat(r"adaLN_modulation|x_embedder\.proj", "a diffusion transformer (DiT)"),
    UnsupportedFormat(
        r"(downs|ups)\.\d+\.\d+\.|init_conv\.weight",
        "a U-Net of lucidrains' denoising-diffusion code",
    ),
    UnsupportedFormat(
        r"input_blocks\.\d+\.0\.in_layers",
        "an ADM classifier: it names pictures and makes none",
        r"output_blocks\.",
    ),
    UnsupportedFormat(
        r"(^|\.)(fc|classifier|head)(\.\d+)?\.weight$", "a classifier", r"conv_out|output_blocks"
    ),
)


def unsupported(path: Path, names: list[str]) -> CheckpointError:
    """Make the error for a file in none of the layouts, from the names of its tensors."""
    for form in UNSUPPORTED:
        if any(re.search(form.pattern, n) for n in names) and not any(
            re.search(form.absent, n) for n in names
        ):
            return CheckpointError(f"{path} looks like {form.what}; {FITS}.")
    if not names:
        return CheckpointError(f"{path} holds no tensors by name; {FITS}.")
    some = ", ".join(printable(name, 60) for name in names[:3])
    return CheckpointError(
        f"{path} holds {len(names)} tensors ({some}, ...) in no layout that is known here; {FITS}."
    )


def find_network(path: Path, held: Any, weights: str) -> tuple[str, Tensors, str]:
    """Find the network in a file.

    Args:
        path: The file, for messages.
        held: Its content.
        weights: ``ema`` or ``raw`` for averaged or last trained weights, or ``auto``.

    Returns:
        The name of its layout, its tensors, and where in the file they lie.

    Raises:
        CheckpointError: There is none, or not the kind of weights that was asked for.
    """
    dicts = list(state_dicts(held))
    every_name = sorted({name for _, tensors in dicts for name in tensors})
    # These contain what looks like a layout.
    if any(re.search(form.pattern, n) for form in UNSUPPORTED[:3] for n in every_name):
        raise unsupported(path, every_name)
    marks = {name: layout.MARKS for name, layout in LAYOUTS.items()}
    marks["diffusers"] = diffusers.MARKS
    found = [
        (name, tensors, where)
        for where, tensors in dicts
        for name, needed in marks.items()
        if all(mark in tensors for mark in needed)
    ]
    if not found:
        longest = max((list(tensors) for _, tensors in dicts), key=len, default=[])
        raise unsupported(path, longest)
    if weights != "auto":
        found = [f for f in found if is_average(f[2]) == (weights == "ema")]
        if not found:
            kind = "averaged (EMA)" if weights == "ema" else "other than averaged"
            raise CheckpointError(f"{path} holds no {kind} weights.")
    return max(found, key=lambda f: is_average(f[2]))


def smooth_images() -> Tensor:
    """Draw two smooth images in [-1, 1], (2, 3, 128, 128), that every network finds easy."""
    u = torch.linspace(-1, 1, 128)
    y, x = torch.meshgrid(u, u, indexing="ij")
    blob = torch.exp(-2 * (x**2 + y**2))
    first = torch.stack([blob - 0.3, 0.6 * blob - 0.2, 0.4 * blob - 0.3])
    second = torch.stack([0.5 * x, 0.4 * x + 0.3 * y, 0.5 * y])
    return torch.stack([first, second])


@torch.no_grad()
def denoising_error(prior: UNetPrior, x0: Tensor) -> float:
    """Measure the mean squared error of the noise that one call finds, at two noise levels.

    Args:
        prior: Prior to try.
        x0: Two clean images, (2, 3, H, W), in [-1, 1].
    """
    multiple = prior.size_rule.multiple
    px = max(multiple, min(128, prior.size_rule.native or 128) // multiple * multiple)
    x0 = torch.nn.functional.interpolate(x0, size=(px, px), mode="area")[:, : prior.channels]
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([250.0, 600.0])
    alpha_bar = alpha_bar_at(prior.alpha_bar, t).view(-1, 1, 1, 1)
    any_size = prior.counted()
    any_size.size_rule = SizeRule(multiple=multiple)
    found = any_size.predict(alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps, t).eps
    return float((found - eps).square().mean())


def choose(
    choices: list[LoadOptions], hint: LoadOptions, error: Callable[[LoadOptions], float]
) -> tuple[LoadOptions, str]:
    """Choose one of several ways to read a file by the error of one denoising call.

    Args:
        choices: Ways to read it.
        hint: The way that the file's name in the catalogue suggests.
        error: Error of each.

    Returns:
        The choice, and how it was made.

    Raises:
        CheckpointError: The errors do not decide, and the file's name gives no hint.
    """
    if len(choices) == 1:
        return choices[0], "only one way to read it"
    ranked = sorted((error(choice), i) for i, choice in enumerate(choices))
    figures = ", ".join(f"{describe_attention(choices[i])}: {e:.3g}" for e, i in ranked)
    best, second = ranked[0][0], ranked[1][0]
    # An answer of zeros errs by 1: the best does denoise, and better than every other way.
    if best < 0.5 and second > 1.1 * best:
        return choices[ranked[0][1]], f"one-step denoising error ({figures})"
    if second - best < 1e-9:  # attention that does nothing yet
        return choices[0], "all ways to read it give the same picture"
    for choice in choices:
        same_heads = (hint.heads, hint.head_channels) == (choice.heads, choice.head_channels)
        if same_heads and hint.attention_order == choice.attention_order:
            return choice, f"file name; one-step denoising does not tell ({figures})"
    raise CheckpointError(
        "The order of q, k and v and the number of heads are not in the file, and one denoising "
        f"step does not tell ({figures}); set attention_order (OpenAI's, DPS's and P2's files are "
        "legacy), and heads or head_channels."
    )


def describe_attention(o: LoadOptions) -> str:
    """Describe the order and number of attention heads in words."""
    heads = f"{o.heads} heads" if o.heads else f"{o.head_channels} channels a head"
    return f"{o.attention_order}, {heads}"


def open_checkpoint(
    path: Path, options: LoadOptions = LoadOptions(), dtype: torch.dtype = torch.float32
) -> UNetPrior:
    """Build the prior that a checkpoint of others holds.

    Args:
        path: File, or diffusers folder.
        options: What the caller knows and the file does not say.
        dtype: Type in which the network computes (default float32).

    Returns:
        The prior, its origin in ``source`` and its full description in ``spec``.

    Raises:
        CheckpointError: It is no network that can be a prior; the sentence says what it looks like
            and what would fit.
    """
    if path.is_dir() or path.name.endswith(".index.json"):
        files = diffusers.locate(path, options.weights)
        if files is None:
            raise CheckpointError(f"{path} lists the parts of a network without its config.json.")
        return _open_diffusers(files, load_parts(files.weights), options, dtype)
    held = load_file(path)
    layout, tensors, where = find_network(path, held, options.weights)
    if layout != "diffusers":
        return _open_layout(path, layout, tensors, where, options, dtype)
    files = diffusers.locate(path)
    if files is None:
        raise CheckpointError(
            f"{path} is a diffusers network without its config.json; give the folder that has both."
        )
    return _open_diffusers(files, tensors, options, dtype, where)


def _open_diffusers(
    files: diffusers.Files, held: Any, options: LoadOptions, dtype: torch.dtype, where: str = ""
) -> UNetPrior:
    """Build the prior from the files of diffusers."""
    if not where:
        dicts = list(state_dicts(held))
        marked = [d for d in dicts if all(mark in d[1] for mark in diffusers.MARKS)]
        where, held = next(iter(marked or dicts), ("", {}))
    check_tensors(held)
    spec, network = diffusers.describe_network(files, held, options)
    folder = files.config.parent
    source = {
        "file": str(files.named),
        "sha256": sha256_of_parts(files.weights),
        "layout": "diffusers",
        "within": "/".join(filter(None, (folder.name, where))),
        **spec.source,
    }
    return _finish(replace(spec, source=source), network, dtype)


def _open_layout(
    path: Path, name: str, tensors: Tensors, where: str, options: LoadOptions, dtype: torch.dtype
) -> UNetPrior:
    """Build the prior from tensors in one of :data:`LAYOUTS`."""
    layout = LAYOUTS[name]
    check_tensors(tensors)
    found = layout.infer(tensors)
    if found.outputs not in (found.inputs, 2 * found.inputs) or found.inputs > 3:
        raise CheckpointError(
            f"It takes {found.inputs} channels and gives {found.outputs}: a conditional network "
            "(an upsampler, say) or one of codes, not a prior for pictures."
        )
    sha256 = sha256_of(path)
    known, certain = identify(path.name, sha256, path.stat().st_size)
    hint = known.options if known else LoadOptions()
    if certain:
        options = options.or_else(hint)
    full = options.or_else(hint).or_else(layout.implied_options(found))
    base = NetworkSpec(
        kind="prior",
        network={},
        predicts="eps" if full.predicts == "auto" else full.predicts,
        schedule={"name": "cosine"} if full.schedule == "cosine" else LINEAR,
        domain=full.domain or f"unknown pictures (a checkpoint called {printable(path.name)})",
        size_px=full.size_px or layout.native_px(found),
        fixed_size=bool(full.fixed_size),
    )
    check_size(base.size_px, base.fixed_size)

    def read(choice: LoadOptions) -> tuple[NetworkSpec, Network]:
        network = fold_class(layout.convert(tensors, found, choice), options.label)
        return replace(base, network=network.settings), network

    def error(choice: LoadOptions) -> float:
        spec, network = read(choice)
        return denoising_error(build_prior(spec, network.tensors, network.names), smooth_images())

    choices = layout.candidates(found, options.or_else(layout.implied_options(found)))
    choice, decided = choose(choices, hint, error)
    source = {
        "file": str(path),
        "sha256": sha256,
        "layout": name,
        "within": where,
        "catalogue": _entry_name(known, certain),
        "attention": describe_attention(choice) if name == "adm" else "",
        "decided": "the catalogue" if certain and len(choices) == 1 else decided,
        "label": _describe_label(found.classes, options.label),
    }
    spec, network = read(choice)
    return _finish(replace(spec, source=source), network, dtype)


def _entry_name(entry: CatalogueEntry | None, certain: bool) -> str:
    return f"{entry.name} (by {'hash' if certain else 'name'})" if entry else ""


def _describe_label(n_classes: int, label: int | None) -> str:
    if not n_classes:
        return ""
    return "mean of all classes" if label is None else str(label)


def _finish(spec: NetworkSpec, network: Network, dtype: torch.dtype) -> UNetPrior:
    prior = build_prior(spec, network.tensors, network.names, dtype)
    prior.source = dict(spec.source)
    return prior
