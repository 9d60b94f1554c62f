"""Our own weight files: safetensors with every setting in the metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pristina.errors import CheckpointError
from pristina.image.picture import atomic
from pristina.priors.checkpoints.header import KEY


def save_weights(path: Path, tensors: dict[str, Tensor], header: dict[str, Any], dtype: torch.dtype = torch.float16) -> None:
    """Write ``tensors`` (floating ones as ``dtype``) and ``header`` (JSON) to ``path``, whole or not at all."""
    cast = {k: v.detach().cpu().to(dtype if v.is_floating_point() else v.dtype).contiguous() for k, v in tensors.items()}
    with atomic(path) as beside:
        save_file(cast, beside, metadata={KEY: json.dumps(header, sort_keys=True)})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a weight file, floating ones as float32."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}); it may be truncated.") from error
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
