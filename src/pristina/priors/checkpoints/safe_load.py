"""Reading a weight file without running anything in it, and finding the state dict that it wraps."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pristina.errors import CheckpointError
from pristina.priors.checkpoints.format import read_tensors

Tensors = dict[str, Tensor]

PREFIXES = ("module.", "model.", "denoise_fn.", "ema_model.", "online_model.", "unet.", "network.", "net.")
"""What training scripts put before the names of a network."""


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_file(path: Path) -> Any:
    """What a weight file holds: a dictionary of tensors, or whatever plain containers wrap it. No code in it is run.

    Raises:
        CheckpointError: It is truncated, holds Python objects, or is no weight file at all.
    """
    if path.suffix == ".safetensors":
        return read_tensors(path)
    with path.open("rb") as file:
        start = file.read(256)
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise CheckpointError(f"{path} is a web page, not weights: the download went wrong; fetch the file again.")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a Git LFS pointer, not weights; fetch the file it points to (git lfs pull).")
    if not start.startswith((b"PK", b"\x80")):
        raise CheckpointError(f"{path} is neither safetensors nor a file written by torch.save; one of these two is needed.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "truncated" in str(error):
            raise CheckpointError(f"{path} ends too early: it is truncated; fetch it again.") from error
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise CheckpointError(
            f"{path} holds Python objects{what}, which could run any code when read, and is refused; "
            "save its state_dict alone with torch.save or as safetensors, where you trust it."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise CheckpointError(f"{path} cannot be read to its end ({str(error).splitlines()[0]}): it is truncated or damaged.") from error


def state_dicts(held: Any, where: str = "") -> Iterator[tuple[str, Tensors]]:
    """Every dictionary of tensors in a file, at any depth and without prefixes too, with where it lies (``[4]``, ``ema/module.``)."""
    if isinstance(held, list | tuple):
        for i, item in enumerate(held):
            if isinstance(item, dict):
                yield from state_dicts(item, f"{where}[{i}]")
    if isinstance(held, dict):
        tensors = {str(k): v for k, v in held.items() if isinstance(v, Tensor)}
        if tensors:
            yield from _without_prefixes(tensors, where)
        for key, item in held.items():
            if isinstance(item, dict | list | tuple):
                yield from state_dicts(item, f"{where}{key}/")


def _without_prefixes(tensors: Tensors, where: str) -> Iterator[tuple[str, Tensors]]:
    yield where, tensors
    for prefix in PREFIXES:
        inner = {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
        if inner:
            yield from _without_prefixes(inner, where + prefix)


def is_average(where: str) -> bool:
    """Whether a state dict at ``where`` holds averaged (EMA) weights: so named, or later in a list than the trained ones."""
    return "ema" in where.lower() or bool(re.match(r"\[[1-9]", where))


def difference(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], most: int = 4) -> str:
    """In a few lines, how two sets of named shapes differ; empty if they do not."""
    kinds = {
        "missing": [f"{n} {list(s)}" for n, s in expected.items() if n not in found],
        "unexpected": [f"{n} {list(s)}" for n, s in found.items() if n not in expected],
        "of another shape": [f"{n} {list(found[n])} for {list(s)}" for n, s in expected.items() if n in found and found[n] != s],
    }
    lines = []
    for kind, names in kinds.items():
        if names:
            more = f", and {len(names) - most} more" if len(names) > most else ""
            lines.append(f"{kind}: {', '.join(names[:most])}{more}")
    return "\n  ".join(lines)
