"""Seeds and generators: one place in which every random number of a run has its origin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pristina.errors import SettingError

if TYPE_CHECKING:
    import torch

MAX_SEED = 2**64
"""First seed that does not fit into 64 bits."""


def derive(seed: int, *labels: int | str) -> int:
    """Derive a seed that is independent of ``seed`` and of every other list of labels.

    Args:
        seed: Seed of the run, of at most 64 bits.
        labels: Names and numbers that say what the new seed is for.

    Returns:
        A seed of 63 bits.

    Example:
        >>> derive(0, "mask") == derive(0, "mask"), derive(0, "mask") == derive(0, "kernel")
        (True, False)
    """
    import hashlib

    import numpy as np

    text = "/".join(map(str, labels)).encode()
    words = [
        int.from_bytes(hashlib.sha256(text).digest()[i : i + 4], "big") for i in range(0, 32, 4)
    ]
    return int(
        np.random.SeedSequence([seed % MAX_SEED, *words]).generate_state(1, np.uint64)[0] >> 1
    )


def generators(seed: int, n: int) -> list[torch.Generator]:
    """Return ``n`` generators seeded ``seed``, ``seed + 1``, ...

    Raises:
        SettingError: A seed does not fit into 64 bits.
    """
    import torch

    check_seed(seed, n)
    return [torch.Generator().manual_seed(seed + i) for i in range(n)]


def check_seed(seed: int, n: int = 1) -> None:
    """Check that ``seed`` and the ``n - 1`` seeds after it fit into 64 bits.

    Raises:
        SettingError: One of them does not.
    """
    if not -(2**63) <= seed <= MAX_SEED - n:
        raise SettingError(
            f"A seed must fit into 64 bits, and {seed} does not; "
            f"take one between 0 and {MAX_SEED - n}."
        )


def sample_seed(seed: int, sample: int) -> int:
    """Return the seed of one of several samples of an image whose first sample has ``seed``.

    Neighbouring images have neighbouring seeds; samples lie a large prime apart from them.
    """
    return (seed + sample * 1_000_003) % 2**63


def benchmark_seeds(seed: int, n: int, purpose: str) -> list[int]:
    """Return the seed of each of ``n`` images in the cells of ``seed``.

    Args:
        seed: Seed of the cell.
        n: Number of images.
        purpose: ``method``, or ``degradation``: the two are kept apart so that no method starts
            from the very noise that is in its observation.

    The arithmetic is that of version 0.1.0, so that its published tables still reproduce.
    """
    first = {"method": 0, "degradation": 10_000_000}[purpose] + 10_000 * seed
    return [first + i for i in range(n)]
