"""Our own weight files: safetensors with every setting in the metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pristina.errors import CheckpointError, InputError
from pristina.files import atomic, check_outputs
from pristina.priors.checkpoints.header import KEY


def save_weights(
    path: Path,
    tensors: Mapping[str, Tensor],
    header: dict[str, Any],
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write weights to a file, whole or not at all.

    Args:
        path: File to write.
        tensors: Tensors by name.
        header: Settings of the network, ready for JSON.
        dtype: Type in which floating tensors are stored.
    """
    cast = {
        k: v.detach().cpu().to(dtype if v.is_floating_point() else v.dtype).contiguous()
        for k, v in tensors.items()
    }
    with atomic(path) as beside:
        save_file(cast, beside, metadata={KEY: json.dumps(header, sort_keys=True)})


def check_weights_output(out: Path, *others: Path, inputs: Iterable[Path | None] = ()) -> None:
    """Check before hours of training that weights can be written where they should be.

    Args:
        out: File that :func:`save_weights` is to write.
        others: Further files that are written.
        inputs: Files that are read, and so must not be written to.

    Raises:
        InputError: A file cannot be written, or ``out`` has another ending than ``.safetensors``.
    """
    if out.suffix != ".safetensors":
        raise InputError(
            "The output is written as safetensors; call it "
            f"{out.with_suffix('.safetensors').name}, not {out.name}."
        )
    check_outputs([], [out, *others], inputs=inputs)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file, floating ones as float32.

    Raises:
        CheckpointError: The file cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors ({error}); it may be truncated."
        ) from error
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
