"""Our own weight files: safetensors with every setting in the metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pristina.errors import CheckpointError, InputError
from pristina.image.picture import atomic, check_outputs
from pristina.priors.checkpoints.header import KEY


def save_weights(path: Path, tensors: dict[str, Tensor], header: dict[str, Any], dtype: torch.dtype = torch.float16) -> None:
    """Write ``tensors`` (floating ones as ``dtype``) and ``header`` (JSON) to ``path``, whole or not at all."""
    cast = {k: v.detach().cpu().to(dtype if v.is_floating_point() else v.dtype).contiguous() for k, v in tensors.items()}
    with atomic(path) as beside:
        save_file(cast, beside, metadata={KEY: json.dumps(header, sort_keys=True)})


def check_weights_output(out: Path, *others: Path, inputs: Iterable[Path | None] = ()) -> None:
    """Raise :class:`InputError` now, rather than after hours of training, if weights cannot be written to ``out``, or ``others`` beside them.

    Args:
        out: Where :func:`save_weights` is to write.
        others: What else is.
        inputs: What is read, and so must not be written to.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"The output is written as safetensors; call it {out.with_suffix('.safetensors').name}, not {out.name}.")
    check_outputs([], [out, *others], inputs=inputs)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a weight file, floating ones as float32."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}); it may be truncated.") from error
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
