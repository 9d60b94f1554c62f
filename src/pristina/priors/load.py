"""From a name, a file, a folder or a hub id to a prior.

diffusers takes seconds to import, so that only the weights that need it do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pristina.device import best_device
from pristina.errors import CheckpointError, did_you_mean
from pristina.priors.aware import AwareNetwork, AwarePrior, network_inputs, stack_evidence
from pristina.priors.base import BasePrior, Prior, SizeRule
from pristina.priors.checkpoints.catalogue import CATALOGUE
from pristina.priors.checkpoints.fetch import cached, is_hub_id, not_cached
from pristina.priors.checkpoints.fill import fill
from pristina.priors.checkpoints.format import read_tensors
from pristina.priors.checkpoints.header import (
    NetworkSpec,
    parse_spec,
    printable,
    read_header,
    read_spec,
)
from pristina.priors.checkpoints.limits import check_network
from pristina.priors.checkpoints.options import LoadOptions
from pristina.priors.checkpoints.safe_load import Tensors, explained, sha256_of_parts
from pristina.priors.direct import (
    ConditionalNetwork,
    ConditionalPrior,
    DirectNetwork,
    DirectPrior,
)
from pristina.priors.network import ImageNetwork, build_network, fast_dtype
from pristina.priors.onnx_model import SUFFIX, OnnxRegressor
from pristina.priors.reader import DamageReader, ReaderNetwork
from pristina.priors.residual import ResidualUNet
from pristina.priors.scratches import ScratchFinder
from pristina.priors.unet import flow_prior

Kind = Literal[
    "diffusion", "direct", "conditional", "operator", "kernels", "scratches", "reader", "none"
]
"""Kinds of weights that a method needs."""

WEIGHTS = Path(__file__).parent / "weights"


def shipped() -> dict[str, Path]:
    """List the weights that come with pristina, by name."""
    return {path.stem: path for path in sorted(WEIGHTS.glob("*.safetensors"))}


def find_weights(source: str | Path) -> Path:
    """Find the file or folder that a source means.

    Args:
        source: Shipped name, name of the catalogue or hub id that was fetched, or path.

    Raises:
        CheckpointError: It means nothing, or weights that have not been fetched.
    """
    if not isinstance(source, str | Path):
        raise CheckpointError(
            f"Weights are given by a name, a path or a prior, not by {type(source).__name__}."
        )
    ours = shipped()
    name = str(source)
    if name in ours:
        return ours[name]
    if name not in CATALOGUE and os.path.exists(path := os.path.expanduser(name)):
        return Path(path)
    if name in CATALOGUE or is_hub_id(name):
        here = cached(name)
        if here is None:
            raise not_cached(name)
        return here
    raise CheckpointError(
        f"{printable(name, 300)} is neither a file or folder, nor one of the shipped weights "
        f"({', '.join(ours) or 'none'}), nor a name in the catalogue (see: pristina weights list)."
        f"{did_you_mean(name, [*ours, *CATALOGUE])}"
    )


def _build_diffusion(spec: NetworkSpec, tensors: Tensors, dtype: torch.dtype) -> Prior:
    if "unet2d" in spec.network:
        from pristina.priors.checkpoints.unet2d import build_prior

        return build_prior(spec, tensors, dtype=dtype)
    _need(spec, "flow")
    return flow_prior(
        _fill_network(spec, tensors),
        domain=spec.domain,
        native=spec.size_px,
        fixed=spec.fixed_size,
        dtype=dtype,
    )


def _build_kernels(spec: NetworkSpec, tensors: Tensors, dtype: torch.dtype) -> Prior:
    _need(spec, "flow")
    network = _fill_network(spec, tensors)
    return flow_prior(network, domain=spec.domain, native=spec.size_px, fixed=True, dtype=dtype)


def _build_direct(spec: NetworkSpec, tensors: Tensors, dtype: torch.dtype) -> DirectPrior:
    noise: Any = spec.noise
    network = _fill_network(spec, tensors)
    return DirectNetwork(network, domain=spec.domain, noise=noise, eps=spec.eps, dtype=dtype)


def _build_conditional(spec: NetworkSpec, tensors: Tensors, dtype: torch.dtype) -> ConditionalPrior:
    _need(spec, "x0")
    return ConditionalNetwork(_fill_network(spec, tensors), domain=spec.domain, dtype=dtype)


def _build_operator(spec: NetworkSpec, tensors: Tensors, dtype: torch.dtype) -> AwarePrior:
    _need(spec, "x0")
    network = _fill_network(spec, tensors)
    inputs, outputs = (network.settings.get(name) for name in ("inputs", "outputs"))
    if outputs is None or inputs != network_inputs(outputs):
        raise CheckpointError("This network does not take what an operator-aware regressor takes.")
    return AwareNetwork(network, domain=spec.domain, dtype=dtype)


def _build_scratches(spec: NetworkSpec, tensors: Tensors, dtype: torch.dtype) -> ScratchFinder:
    _need(spec, "mask")
    network = _fill_network(spec, tensors)
    if not isinstance(network, ResidualUNet):
        raise CheckpointError("A finder of scratches is a residual U-Net; this network is another.")
    return ScratchFinder(network, domain=spec.domain, dtype=dtype)


def _build_reader(spec: NetworkSpec, tensors: Tensors, dtype: torch.dtype) -> DamageReader:
    _need(spec, "damage")
    if spec.network.get("architecture") != "reader":
        raise CheckpointError("This network does not read damage.")
    check_network(spec.network, len(tensors))
    with torch.device("meta"):
        network = ReaderNetwork(spec.network)
    fill(network, tensors)
    return DamageReader(network, domain=spec.domain, dtype=dtype)


def _need(spec: NetworkSpec, predicts: str) -> None:
    if spec.predicts != predicts:
        raise CheckpointError(
            f"It predicts {printable(spec.predicts)}; networks of its kind predict {predicts} in "
            "this version: train it again."
        )


def _fill_network(spec: NetworkSpec, tensors: Tensors) -> ImageNetwork:
    """Build a network of ours with the tensors of its file in it."""
    check_network(spec.network, len(tensors))
    with torch.device("meta"):
        network = build_network(spec.network)
    fill(network, tensors)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def try_images(prior: BasePrior, x: Tensor) -> Tensor:
    """Call a prior of any kind once, on images (B, C, H, W), for a trial or a measurement."""
    if isinstance(prior, ScratchFinder):
        return prior.predict(x).expand_as(x)
    if isinstance(prior, DamageReader):
        return prior.predict(x[:, None], x.new_zeros(len(x)))[1][:, :1, None, None].expand_as(x)
    if isinstance(prior, AwarePrior):
        return prior.predict(stack_evidence(x, [x, x, x], torch.zeros_like(x[:, :1])), 0.05)
    t = 0.5 if isinstance(prior, DirectPrior) else 500.5
    condition = (x,) if isinstance(prior, ConditionalPrior) else ()
    found = prior.predict(x, t, *condition)  # type: ignore[operator]
    return found if isinstance(found, Tensor) else found.x0


@dataclass(frozen=True)
class Loader:
    """How weights of one kind are loaded.

    Attributes:
        what: Description of the kind.
        header: ``kind`` in the header of a weight file.
        type: Class of the loaded weights.
        build: Function that builds them from a file's header and tensors.
    """

    what: str
    header: str
    type: type[BasePrior]
    build: Callable[[NetworkSpec, Tensors, torch.dtype], BasePrior]


LOADERS: dict[str, Loader] = {
    "diffusion": Loader("a diffusion prior", "prior", Prior, _build_diffusion),
    "direct": Loader("a regressor", "indi", DirectPrior, _build_direct),
    "conditional": Loader(
        "a conditional diffusion network", "conditional", ConditionalPrior, _build_conditional
    ),
    "operator": Loader("an operator-aware regressor", "operator", AwarePrior, _build_operator),
    "kernels": Loader("a prior of blur kernels", "kernel-prior", Prior, _build_kernels),
    "reader": Loader("a reader of damage", "reader", DamageReader, _build_reader),
    "scratches": Loader("a finder of scratches", "scratches", ScratchFinder, _build_scratches),
}


def kind_of(source: Any) -> Kind:
    """Return the kind of weights that a source means.

    Whatever is not ours is taken for a diffusion prior.

    Raises:
        CheckpointError: It means nothing, or its header is damaged.
    """
    for kind in ("direct", "conditional", "operator", "scratches", "reader"):
        if isinstance(source, LOADERS[kind].type):
            return kind
    if isinstance(source, nn.Module):
        return "diffusion"
    path = find_weights(source)
    if path.suffix.lower() == SUFFIX:
        return "direct"
    spec = describe_file(path)
    kinds: dict[str, Any] = {loader.header: kind for kind, loader in LOADERS.items()}
    return "diffusion" if spec is None else kinds[spec.kind]


def load_weights(
    kind: Kind,
    source: Any,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    options: LoadOptions = LoadOptions(),
) -> Any:
    """Load weights of the kind that a method needs; nothing is downloaded.

    Args:
        kind: Kind of weights: ``diffusion``, ``direct``, ``conditional``, ``operator``,
            ``kernels``, ``scratches``, ``reader`` or ``none``.
        source: Shipped name, path, fetched name, or weights that are loaded already, which are
            passed through.
        device: Device on which they are to compute.
        dtype: Type in which the network computes; None takes the fastest that is safe on the device
            (bfloat16 only where the hardware has it, else float32).
        options: Choices that the checkpoint of another project leaves open.

    Returns:
        The prior; None for ``none``.

    Raises:
        CheckpointError: There is no such file, it holds weights of another kind, or it cannot be
            loaded exactly.
    """
    if kind == "none":
        return None
    loader, device = LOADERS[kind], best_device(str(device))
    if isinstance(source, nn.Module):
        if not isinstance(source, loader.type):
            raise CheckpointError(
                f"{loader.what.capitalize()} is needed here, not a {type(source).__name__}."
            )
        return source.to(device)
    path = find_weights(source)
    if path.suffix.lower() == SUFFIX:
        if kind != "direct" or options != LoadOptions():
            raise CheckpointError(
                f"{path} is a network from image to image: it goes with the method indi, "
                "and with no options."
            )
        with explained(path):
            return OnnxRegressor(path, device).to(device)
    with explained(path):
        prior = _read(path, kind, dtype or fast_dtype(device), options)
        check_runs(prior)
    return prior.to(device)


def _read(path: Path, kind: str, dtype: torch.dtype, options: LoadOptions) -> BasePrior:
    """Read weights from a file or folder."""
    spec, files, prefix = _our_spec(path)
    loader = LOADERS[kind]
    if spec is None and kind == "diffusion":
        from pristina.priors.checkpoints.detect import open_checkpoint

        return open_checkpoint(path, options, dtype)
    if spec is None or spec.kind != loader.header:
        held = "weights of another project" if spec is None else f"weights of kind {spec.kind!r}"
        fitting = [name for name, ours in shipped().items() if _has_kind(ours, loader.header)]
        raise CheckpointError(
            f"{path} holds {held}; {loader.header!r} is needed here, as in "
            f"{', '.join(fitting) or 'none of those shipped'}."
        )
    if options != LoadOptions():
        raise CheckpointError(
            f"{path} was written by pristina and says all about itself; leave the options out."
        )
    tensors = {prefix + k: v for file in files for k, v in read_tensors(file).items()}
    prior = loader.build(spec, tensors, dtype)
    original = {f"original_{k}": v for k, v in spec.source.items() if v}
    digest = sha256_of_parts(files)
    prior.source = {"file": str(path), "sha256": digest, "layout": "pristina", **original}
    prior.spec = spec
    return prior


def describe_file(path: Path) -> NetworkSpec | None:
    """Return the description of a file or folder that pristina wrote; None if another did.

    Raises:
        CheckpointError: The description is damaged.
    """
    return _our_spec(path)[0]


def _has_kind(path: Path, kind: str) -> bool:
    return (read_header(path) or {}).get("kind") == kind


def _our_spec(path: Path) -> tuple[NetworkSpec | None, tuple[Path, ...], str]:
    """Return our own description of a file or an exported folder, and its weight files.

    A folder holds the inner network only; its prefix in the whole one comes last.
    """
    spec = read_spec(path)
    if spec is not None:
        return spec, (path,), ""
    if not path.is_dir() and not (path.parent / "config.json").exists():
        return None, (), ""
    from pristina.priors.checkpoints.diffusers import locate, read_json

    files = locate(path)
    if files is None or files.export is None:
        return None, (), ""
    return parse_spec(read_json(files.export), files.export), files.weights, "unet."


@torch.no_grad()
def check_runs(prior: BasePrior) -> None:
    """Check with one call on a small noise image that a prior runs and gives finite numbers.

    Raises:
        CheckpointError: It gives NaN or infinity, or images of another size.
    """
    rule = prior.size_rule
    if rule.fixed and rule.native:
        rule.check(rule.native, rule.native)
    other = prior.counted()
    other.size_rule = SizeRule()
    px = max(rule.minimum, rule.multiple, 8)
    x = torch.randn(1, prior.channels, px, px, generator=torch.Generator().manual_seed(0))
    found = try_images(other, x / 4 + 0.5)
    if found.shape != x.shape:
        raise CheckpointError(f"Its network makes {tuple(found.shape)} of {tuple(x.shape)}.")
    if not bool(found.isfinite().all()):
        raise CheckpointError(
            "Its network answers with NaN or infinity: the training that wrote it has diverged, or "
            "it is damaged."
        )


def load_prior(
    source: str | Path | nn.Module,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    options: LoadOptions = LoadOptions(),
) -> Prior:
    """Load a diffusion prior; nothing is downloaded.

    Args:
        source: Shipped name (``"faces"``); a file of ours, or a checkpoint of others (ADM, DDPM
            "simple", and all that fits them); a diffusers folder; a name of the catalogue or a hub
            id that was fetched before. A prior is passed through.
        device: Device on which it is to compute.
        dtype: Type in which its network computes; None takes the fastest that is safe on the device
            (bfloat16 only where the hardware has it, else float32).
        options: Choices that the checkpoint of another project leaves open.

    Raises:
        CheckpointError: There is no such file, or it cannot be loaded exactly.
    """
    prior: Prior = load_weights("diffusion", source, device=device, dtype=dtype, options=options)
    return prior
