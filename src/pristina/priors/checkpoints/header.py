"""What our own weight files say of themselves: read without their tensors, and without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pristina.errors import CheckpointError

KEY = "pristina"


def read_header(path: Path) -> dict[str, Any] | None:
    """The settings in a weight file's metadata, without reading its tensors; None if it is not one of ours.

    Raises:
        CheckpointError: The file is not readable as safetensors.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}); it may be truncated.") from error
    header: dict[str, Any] | None = json.loads(metadata[KEY]) if KEY in metadata else None
    return header
