"""Keep the state of a training on disk, written whole, refused when damaged, used by one run."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pristina.errors import CheckpointError, InputError
from pristina.files import atomic

KEYS = ("network", "optimizer", "ema", "settings", "step", "seconds")


@dataclass(frozen=True)
class Position:
    """Say how far a training has come.

    Attributes:
        step: Number of steps done.
        seconds: Training time so far, without interruptions.
    """

    step: int = 0
    seconds: float = 0.0


def write_state(
    path: Path, network: nn.Module, optimizer: Any, ema: Any, settings: Any, position: Position
) -> None:
    """Write all that is needed to go on with a training, whole or not at all.

    Args:
        path: The file.
        network: The network with its current weights.
        optimizer: Its optimiser.
        ema: The averaged weights.
        settings: Settings of the network, compared when the state is read.
        position: How far the training has come.

    Raises:
        PictureError: The file cannot be written.
    """
    state = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "ema": ema.state_dict(),
        "settings": settings,
        "step": position.step,
        "seconds": position.seconds,
    }
    with atomic(path) as beside:
        torch.save(state, beside)


def read_state(
    path: Path, network: nn.Module, optimizer: Any, ema: Any, settings: dict[str, Any]
) -> Position:
    """Read the state of a training into a network, its optimiser and its averaged weights.

    Args:
        path: The file that :func:`write_state` wrote.
        network: The network, changed in place, as are ``optimizer`` and ``ema``.
        optimizer: Its optimiser.
        ema: Its averaged weights.
        settings: Settings of the network.

    Returns:
        How far the training had come.

    Raises:
        CheckpointError: The file is missing, damaged, or belongs to another network or optimiser.
    """
    if not path.is_file():
        raise CheckpointError(
            f"There is nothing to resume: {path} does not exist. Leave out --resume to start anew."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise _damaged(path) from error
    if not isinstance(state, dict) or any(key not in state for key in KEYS):
        raise _damaged(path)
    found = state["settings"]
    if not isinstance(found, dict) or {**settings, **found} != settings:
        raise CheckpointError(f"{path} belongs to another network ({found}, not {settings}).")
    try:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load_state_dict(state["ema"])
        return Position(int(state["step"]), float(state["seconds"]))
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} does not fit this training ({type(error).__name__}: {error}); "
            "resume with the network and the optimiser with which it was begun."
        ) from error


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged or is no state of a training; resume from another state with "
        "--resume-from, begin with the weights by --start, or leave out --resume to start anew."
    )


@contextmanager
def only_training(log: Path) -> Iterator[None]:
    """Lock the log of an output while it is trained, so that no second training writes to it.

    The system releases the lock when the process ends, however it ends. Where the system has no
    such locks (Windows) nothing is locked.

    Args:
        log: Path of the log, which is made if it does not exist.

    Raises:
        InputError: Another training holds the lock.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"Another training is writing to {log}; stop it, or give this one another --out."
            ) from error
        yield
