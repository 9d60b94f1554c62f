"""The device of a computation."""

from __future__ import annotations

import torch

from pristina.errors import SettingError


def best_device(device: str) -> torch.device:
    """Return the device that ``auto`` means here, or the one named.

    Raises:
        SettingError: The device is not available.
    """
    if device == "auto":
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        found = torch.zeros(1, device=device)
        found.cpu()  # Nothing comes back from the device "meta".
    except (RuntimeError, AssertionError) as error:
        raise SettingError(f"device {device!r} cannot be used here; try auto or cpu.") from error
    return found.device
