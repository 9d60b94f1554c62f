"""Memory: how much a run may use, and how much of a picture goes through a network at once for it.

This is the one place that decides about it. A plan carries the decision, and
:class:`~pristina.image.tile.Portions` obeys it.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pristina.image.tile import LEAST_SIDE, MANY_PIXELS, least_tile
from pristina.methods.steps.recorder import peak_bytes
from pristina.methods.steps.result import Calls
from pristina.priors.base import BasePrior
from pristina.priors.load import try_images
from pristina.priors.windowed import Windowed

P = TypeVar("P", bound=BasePrior)

OVERHEAD = 1.5
"""Memory of a network call as a multiple of that of its tensors: room for what convolutions and
the allocator need beside them."""
MEASURED_PX = 128
"""Side of the image with which the memory of a network call is measured, if it may have any."""
CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free: of the GPU, or of this machine or container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = [int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(1024 * next(int(x.split()[1]) for x in lines if x.startswith("MemAvailable")))
    with suppress(OSError, ValueError):  # The limit of a container.
        most, used = ((CGROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        free.append(int(most) - int(used))
    return max(0, min(free))


def used_bytes(device: torch.device) -> int:
    """Return the memory that is used now: of the GPU, or by this process."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return int(os.sysconf("SC_PAGE_SIZE")) * pages
    return peak_bytes(device)


def within_memory(
    prior: P, calls: Calls, size: tuple[int, int], n_images: int, limit: int | None
) -> tuple[P, tuple[str, ...]]:
    """Return a prior through which no more goes at once than the memory allows.

    Args:
        prior: The weights.
        calls: Network calls of the method.
        size: Height and width at which the prior works, in pixels.
        n_images: Number of images that are restored together.
        limit: Memory that the run may use, in bytes; None for half of what is free.

    Returns:
        The prior, and a sentence if the limit cannot be kept.
    """
    budget = free_bytes(prior.device) // 2 if limit is None else limit
    pixels = pixels_at_once(prior, calls, size, n_images, budget)
    needed = run_bytes(prior, calls, size, n_images, pixels)
    if limit is None or needed <= budget:
        return prior.limited(pixels), ()
    return prior.limited(pixels), (
        f"It will take about {needed / 2**30:.1f} GiB of memory, more than the "
        f"{budget / 2**30:.1f} GiB that it may: less is not possible for a picture of this size.",
    )


def pixels_at_once(
    prior: BasePrior, calls: Calls, size: tuple[int, int], n_images: int, budget: int
) -> int:
    """Return how many pixels may go through a network at once.

    Args:
        prior: The weights.
        calls: Network calls of the method.
        size: Height and width at which the prior works, in pixels.
        n_images: Number of images that are restored together.
        budget: Memory that the run may use, in bytes.

    Returns:
        A power of two, so that a little more or less free memory changes no numbers; at most 8
        million.
    """
    left = budget - picture_bytes(calls, size, n_images)
    pixels = left / call_bytes(prior, size, differentiate=calls.backward > 0)
    return min(MANY_PIXELS, 2 ** math.floor(math.log2(max(pixels, LEAST_SIDE**2))))


def run_bytes(
    prior: BasePrior, calls: Calls, size: tuple[int, int], n_images: int, pixels: int
) -> int:
    """Return the memory that a run will use, in bytes; the arguments are as above."""
    inner = _network_prior(prior)
    rule, network = inner.size_rule, getattr(inner, "network", None)
    radius, multiple = (getattr(network, name, None) for name in ("radius", "multiple"))
    area = n_images * size[0] * size[1]
    least = size[0] * size[1] if radius is None else least_tile(radius, multiple or 1)
    if rule.fixed:
        least = (rule.native or 1) ** 2
    at_once = min(area, max(pixels, least))
    if isinstance(prior, Windowed):
        at_once = min(max(pixels, least), prior.batch * least)
    kept = calls.kept if area <= at_once else 1
    one = call_bytes(prior, size, differentiate=calls.backward > 0)
    return picture_bytes(calls, size, n_images) + int(kept * at_once * one)


def picture_bytes(calls: Calls, size: tuple[int, int], n_images: int) -> int:
    """Return the memory of what a run holds at the size of the picture, in bytes."""
    return calls.pictures * n_images * 3 * 4 * size[0] * size[1]


_measured: weakref.WeakKeyDictionary[Any, dict[bool, float]] = weakref.WeakKeyDictionary()


def call_bytes(prior: BasePrior, size: tuple[int, int], *, differentiate: bool) -> float:
    """Measure the memory of a network call in bytes for each pixel, with one small call.

    Args:
        prior: The weights.
        size: Height and width at which the prior works, in pixels; nothing larger is measured.
        differentiate: Whether the call is to be differentiated.
    """
    prior = _network_prior(prior).counted()
    known = _measured.setdefault(getattr(prior, "network", prior), {})
    if differentiate not in known:
        rule = prior.size_rule
        sides = [max(rule.minimum, min(side, MEASURED_PX)) for side in size]
        if rule.fixed and rule.native:
            sides = [rule.native] * 2
        sides = [-(-side // rule.multiple) * rule.multiple for side in sides]
        x = torch.full((1, prior.channels, *sides), 0.5, device=prior.device)
        x.requires_grad_(differentiate)
        with torch.set_grad_enabled(differentiate), _Tracker(prior) as tracker:
            try_images(prior, x)
        known[differentiate] = OVERHEAD * tracker.peak / math.prod(sides)
    return known[differentiate]


def _network_prior(prior: BasePrior) -> BasePrior:
    """Return the prior inside of windows and channels."""
    while isinstance(inner := getattr(prior, "prior", None), BasePrior):
        prior = inner
    return prior


class _Tracker(TorchDispatchMode):
    """Count the bytes of all tensors that are made and still alive, and their largest number.

    Args:
        prior: Prior whose weights are not counted.
    """

    def __init__(self, prior: BasePrior) -> None:
        super().__init__()
        self.now = self.peak = 0
        weights = [*prior.parameters(), *prior.buffers()]
        self._alive = {id(storage) for storage in self._storages(weights)}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for storage in self._storages(out):
            key, n_bytes = id(storage), storage.nbytes()
            if key not in self._alive:
                self._alive.add(key)
                self.now += n_bytes
                weakref.finalize(storage, self._free, key, n_bytes)
        self.peak = max(self.peak, self.now)
        return out

    def _storages(self, out: Any) -> Iterator[Any]:
        return (x.untyped_storage() for x in tree_leaves(out) if isinstance(x, Tensor))

    def _free(self, key: int, n_bytes: int) -> None:
        self._alive.discard(key)
        self.now -= n_bytes
