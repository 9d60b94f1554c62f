"""From a name, a file, a folder or a hub id to a prior."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from pristina.errors import CheckpointError
from pristina.priors.base import Prior
from pristina.priors.checkpoints.format import read_header, read_tensors
from pristina.priors.network import PatchUNet, fast_dtype
from pristina.priors.unet import flow_prior

WEIGHTS = Path(__file__).parent / "weights"


def shipped() -> dict[str, Path]:
    """The weights that come with pristina, by name."""
    return {path.stem: path for path in sorted(WEIGHTS.glob("*.safetensors"))}


def find_weights(source: str | Path) -> Path:
    """The file or folder that ``source`` means: a shipped name, or a path.

    Raises:
        CheckpointError: It means nothing.
    """
    ours = shipped()
    if str(source) in ours:
        return ours[str(source)]
    path = Path(source).expanduser()
    if not path.exists():
        raise CheckpointError(f"{source} is neither a file nor one of the shipped weights ({', '.join(ours) or 'none'}).")
    return path


def load_network(path: Path, kind: str) -> tuple[PatchUNet, dict[str, Any]]:
    """The network in one of our own weight files, and the file's header.

    Raises:
        CheckpointError: The file is not ours, of another kind, or its tensors do not fit.
    """
    header = read_header(path)
    if header is None:
        raise CheckpointError(f"{path} is safetensors, but not written by pristina: it holds no settings.")
    if header.get("kind") != kind:
        raise CheckpointError(f"{path} holds weights of kind {header.get('kind')!r}; {kind!r} is needed here.")
    network = PatchUNet(header["network"])
    found = network.load_state_dict(read_tensors(path), strict=False)
    if found.missing_keys or found.unexpected_keys:
        raise CheckpointError(f"{path} does not fit its own settings: missing {found.missing_keys}, unexpected {found.unexpected_keys}.")
    return network.to(memory_format=torch.channels_last), header  # type: ignore[call-overload]


def load_prior(source: str | Path | nn.Module, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Prior:
    """A prior, ready to use.

    Args:
        source: A shipped name (``"faces"``), or a path to a weight file. A prior is passed through.
        device: Where to put it.
        dtype: Where its network computes; None takes the fastest that is safe on the device (bfloat16 only where the
            hardware has it, else float32).

    Raises:
        CheckpointError: There is no such file, or it cannot be loaded exactly.
    """
    if isinstance(source, Prior):
        return source.to(device)
    assert not isinstance(source, nn.Module)
    device = torch.device(device)
    network, header = load_network(find_weights(source), "prior")
    native = header["size_px"]
    prior = flow_prior(network, domain=header["domain"], native=native, fixed=header["fixed_size"], dtype=dtype or fast_dtype(device))
    return prior.to(device)
