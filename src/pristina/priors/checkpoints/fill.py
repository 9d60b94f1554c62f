"""Putting tensors into a network that was built without memory, after all checks."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor, nn

from pristina.errors import CheckpointError
from pristina.priors.checkpoints.header import printable
from pristina.priors.checkpoints.limits import MAX_TENSORS


def fill(
    module: nn.Module, tensors: Mapping[str, Tensor], names: Mapping[str, str] | None = None
) -> None:
    """Put tensors into a network that was built on the device ``meta`` and holds none.

    Shapes are compared before anything is allocated.

    Args:
        module: Network on ``meta``.
        tensors: Mapping[str, Tensor] by name.
        names: Names in the file where they differ, for messages.

    Raises:
        CheckpointError: Names or shapes do not fit, or a number is not finite.
    """
    names = names or {}
    check_tensors(tensors)
    expected = {names.get(k, k): tuple(t.shape) for k, t in module.state_dict().items()}
    found = {names.get(k, k): tuple(t.shape) for k, t in tensors.items()}
    differs = difference(expected, found)
    if differs:
        raise CheckpointError(
            "The tensors do not fit the network that they describe; nothing was loaded.\n  "
            + differs
        )
    tensors = {k: t.detach().float() for k, t in tensors.items()}
    for name, t in tensors.items():
        if not bool(t.isfinite().all()):
            raise CheckpointError(
                f"The tensor {printable(names.get(name, name))} holds NaN or infinity: the "
                "training that wrote it has diverged."
            )
    module.load_state_dict(tensors, assign=True)
    if any(t.is_meta for t in chain(module.parameters(), module.buffers())):
        raise CheckpointError("The network has parts that no weight file fills.")


def check_tensors(tensors: Mapping[str, Tensor]) -> None:
    """Check that tensors are plain: dense, floating, on the CPU, and as large as their storage.

    Raises:
        CheckpointError: One of them is not, or there are too many.
    """
    if len(tensors) > MAX_TENSORS:
        raise CheckpointError(
            f"It holds {len(tensors)} tensors; no network that is known here has more than "
            f"{MAX_TENSORS}."
        )
    for name, t in tensors.items():
        wrong = ""
        if type(t) not in (Tensor, nn.Parameter):
            wrong = f"a {type(t).__name__}"
        elif t.layout != torch.strided:
            wrong = f"stored as {str(t.layout).removeprefix('torch.')}"
        elif t.device.type != "cpu":
            wrong = f"on the device {t.device.type}"
        elif not t.is_floating_point():
            wrong = f"of type {str(t.dtype).removeprefix('torch.')}"
        elif t.numel() * t.element_size() > t.untyped_storage().nbytes():
            wrong = "larger than what is stored of it"
        if wrong:
            raise CheckpointError(
                f"The tensor {printable(name)} is {wrong}; dense tensors of floating numbers are "
                "needed."
            )


def difference(
    expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], most: int = 4
) -> str:
    """Describe in a few lines how two sets of named shapes differ; empty if they do not."""
    kinds = {
        "missing": [f"{n} {list(s)}" for n, s in expected.items() if n not in found],
        "unexpected": [f"{n} {list(s)}" for n, s in found.items() if n not in expected],
        "of another shape": [
            f"{n} {list(found[n])} for {list(s)}"
            for n, s in expected.items()
            if n in found and found[n] != s
        ],
    }
    lines = []
    for kind, names in kinds.items():
        if names:
            more = f", and {len(names) - most} more" if len(names) > most else ""
            lines.append(f"{kind}: {', '.join(printable(n) for n in names[:most])}{more}")
    return "\n  ".join(lines)
