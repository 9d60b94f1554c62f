"""From a name, a file, a folder or a hub id to a prior."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from pristina.errors import CheckpointError
from pristina.priors.base import Prior
from pristina.priors.checkpoints.catalogue import CATALOGUE, Reading
from pristina.priors.checkpoints.detect import open_checkpoint
from pristina.priors.checkpoints.diffusers import EXPORT, weights_file
from pristina.priors.checkpoints.fetch import cached, is_hub_id, not_cached
from pristina.priors.checkpoints.format import read_tensors
from pristina.priors.checkpoints.header import read_header
from pristina.priors.checkpoints.safe_load import sha256_of
from pristina.priors.checkpoints.unet2d import build_prior
from pristina.priors.direct import ConditionalNetwork, ConditionalPrior, DirectNetwork, DirectPrior
from pristina.priors.network import PatchUNet, fast_dtype
from pristina.priors.unet import UNetPrior, flow_prior

Kind = Literal["diffusion", "direct", "conditional", "none"]
WEIGHTS = Path(__file__).parent / "weights"


def shipped() -> dict[str, Path]:
    """The weights that come with pristina, by name."""
    return {path.stem: path for path in sorted(WEIGHTS.glob("*.safetensors"))}


def find_weights(source: str | Path) -> Path:
    """The file or folder that ``source`` means: a shipped name, a name of the catalogue or a hub id that was fetched, or a path.

    Raises:
        CheckpointError: It means nothing, or weights that have not been fetched.
    """
    ours = shipped()
    name = str(source)
    if name in ours:
        return ours[name]
    path = Path(source).expanduser()
    if path.exists() and name not in CATALOGUE:
        return path
    if name in CATALOGUE or is_hub_id(name):
        here = cached(name)
        if here is None:
            raise not_cached(name)
        return here
    raise CheckpointError(
        f"{source} is neither a file or folder, nor one of the shipped weights ({', '.join(ours) or 'none'}), "
        "nor a name in the catalogue (see: pristina weights list)."
    )


def load_network(path: Path, kind: str) -> tuple[PatchUNet, dict[str, Any]]:
    """The network in one of our own weight files, and the file's header.

    Raises:
        CheckpointError: The file is not ours, of another kind, or its tensors do not fit.
    """
    header = read_header(path)
    if header is None:
        raise CheckpointError(f"{path} is safetensors, but not written by pristina: it holds no settings.")
    if header.get("kind") != kind:
        fitting = [name for name, ours in shipped().items() if (read_header(ours) or {}).get("kind") == kind]
        raise CheckpointError(
            f"{path} holds weights of kind {header.get('kind')!r}; {kind!r} is needed here, as in {', '.join(fitting) or 'none of those shipped'}."
        )
    network = PatchUNet(header["network"])
    found = network.load_state_dict(read_tensors(path), strict=False)
    if found.missing_keys or found.unexpected_keys:
        raise CheckpointError(f"{path} does not fit its own settings: missing {found.missing_keys}, unexpected {found.unexpected_keys}.")
    return network.to(memory_format=torch.channels_last), header  # type: ignore[call-overload]


def load_prior(
    source: str | Path | nn.Module,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    reading: Reading = Reading(),
) -> Prior:
    """A prior, ready to use; nothing is downloaded.

    Args:
        source: A shipped name (``"faces"``); a file of ours, or a foreign checkpoint (ADM, DDPM "simple", and all that fits them); a
            diffusers folder; a name of the catalogue or a hub id that was fetched before. A prior is passed through.
        device: Where to put it.
        dtype: Where its network computes; None takes the fastest that is safe on the device (bfloat16 only where the
            hardware has it, else float32).
        reading: What a foreign checkpoint's tensors cannot say, where it has to be said.

    Raises:
        CheckpointError: There is no such file, or it cannot be loaded exactly.
    """
    if isinstance(source, Prior):
        return source.to(device)
    assert not isinstance(source, nn.Module)
    device = torch.device(device)
    dtype = dtype or fast_dtype(device)
    path = find_weights(source)
    header = read_header(path) if path.suffix == ".safetensors" else None
    prior: UNetPrior
    if header is None and not (path / EXPORT).exists():
        recipe, tensors = open_checkpoint(path, reading)
        prior = build_prior(recipe, tensors, dtype=dtype)
        prior.source = dict(recipe["source"])
        return prior.to(device)
    if reading != Reading():
        raise CheckpointError(f"{path} was written by pristina and says all about itself; leave the reading out.")
    if header is not None and "unet2d" in header.get("network", {}):
        prior = build_prior(header, read_tensors(path), dtype=dtype)
        original = {f"original_{k}": v for k, v in header["source"].items() if v}
    else:
        network, header = load_network(path, "prior") if header is not None else load_export(path)
        native = header["size_px"]
        prior = flow_prior(network, domain=header["domain"], native=native, fixed=header["fixed_size"], dtype=dtype)
        original = {}
    prior.source = {"file": str(path), "sha256": sha256_of(weights_of(path)), "layout": "pristina", **original}
    return prior.to(device)


def load_export(folder: Path) -> tuple[PatchUNet, dict[str, Any]]:
    """The network in a diffusers folder that :func:`pristina.interop.export_diffusers` wrote for a network on folded pixels."""
    header = json.loads((folder / EXPORT).read_text("utf-8"))
    network = PatchUNet(header["network"])
    network.unet.load_state_dict(read_tensors(weights_of(folder)))
    return network.to(memory_format=torch.channels_last), header  # type: ignore[call-overload]


def weights_of(path: Path) -> Path:
    """The weight file itself, of a file or a diffusers folder."""
    return weights_file(next(f for f in (path / "unet", path) if f.exists())) if path.is_dir() else path


def load_kernel_prior(source: str | Path | nn.Module, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Prior:
    """A prior of blur kernels, ready to use: one channel, in which -1 is nothing and 1 the kernel's maximum.

    Args:
        source: A shipped name (``"kernels"``), or a path to a weight file. A prior is passed through.
        device: Where to put it.
        dtype: Where its network computes; None takes the fastest that is safe on the device.

    Raises:
        CheckpointError: There is no such file, or it does not hold a prior of kernels.
    """
    if isinstance(source, Prior):
        return source.to(device)
    assert not isinstance(source, nn.Module)
    device = torch.device(device)
    network, header = load_network(find_weights(source), "kernel-prior")
    prior = flow_prior(network, domain=header["domain"], native=header["size_px"], fixed=True, dtype=dtype or fast_dtype(device))
    return prior.to(device)


def load_direct(source: str | Path | nn.Module, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> DirectPrior:
    """InDI's regressor, ready to use on pictures of any size.

    Args:
        source: A shipped name (``"photos-blind"``), or a path to a file of ours. A regressor is passed through.
        device: Where to put it.
        dtype: Where its network computes; None takes the fastest that is safe on the device.

    Raises:
        CheckpointError: There is no such file, or it does not hold a regressor.
    """
    if isinstance(source, DirectPrior):
        return source.to(device)
    assert not isinstance(source, nn.Module)
    device, path = torch.device(device), find_weights(source)
    network, header = load_network(path, "indi")
    dtype = dtype or fast_dtype(device)
    prior = DirectNetwork(network, domain=header["domain"], noise=header["noise"], eps=header["eps"], dtype=dtype)
    prior.source = {"file": str(path), "sha256": sha256_of(path), "layout": "pristina"}
    return prior.to(device)


def load_conditional(
    source: str | Path | nn.Module, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> ConditionalPrior:
    """The network of :func:`pristina.methods.conditional_ddpm.conditional_ddpm`, ready to use on pictures of any size.

    Args:
        source: A shipped name, or a path to a file of ours. A conditional prior is passed through.
        device: Where to put it.
        dtype: Where its network computes; None takes the fastest that is safe on the device.

    Raises:
        CheckpointError: There is no such file, or it does not hold a conditional diffusion network.
    """
    if isinstance(source, ConditionalPrior):
        return source.to(device)
    assert not isinstance(source, nn.Module)
    device, path = torch.device(device), find_weights(source)
    network, header = load_network(path, "conditional")
    if header["prediction"] != "x0":
        raise CheckpointError(f"{path} predicts {header['prediction']}; conditional networks of this version predict x0: train it again.")
    prior = ConditionalNetwork(network, domain=header["domain"], dtype=dtype or fast_dtype(device))
    prior.source = {"file": str(path), "sha256": sha256_of(path), "layout": "pristina"}
    return prior.to(device)


def kind_of(source: Any) -> Kind:
    """What kind of weights ``source`` means: whatever is neither a regressor nor a conditional network is taken for a diffusion prior.

    Raises:
        CheckpointError: It means nothing.
    """
    if isinstance(source, DirectPrior | ConditionalPrior):
        return "direct" if isinstance(source, DirectPrior) else "conditional"
    if isinstance(source, nn.Module):
        return "diffusion"
    path = find_weights(source)
    header = (read_header(path) if path.suffix == ".safetensors" else None) or {}
    kinds: dict[Any, Kind] = {"indi": "direct", "conditional": "conditional"}
    return kinds.get(header.get("kind"), "diffusion")


def load_weights(kind: Kind, source: Any, *, device: str | torch.device = "cpu") -> Any:
    """What a method draws its knowledge from: by :func:`load_prior`, :func:`load_direct` or :func:`load_conditional`; None for ``none``.

    Args:
        kind: As :class:`pristina.methods.index.Entry` has it.
        source: A shipped name, a path, or what is loaded already.
        device: Where to put it.

    Raises:
        CheckpointError: There is no such file, or it holds weights of another kind.
    """
    loaders: dict[str, Callable[..., Any]] = {"diffusion": load_prior, "direct": load_direct, "conditional": load_conditional}
    return None if kind == "none" else loaders[kind](source, device=device)
