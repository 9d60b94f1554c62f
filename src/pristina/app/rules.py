"""Rules of a server: what it accepts, and what it keeps for itself to decide."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from torch import nn

from pristina.errors import InputError, PictureError, PristinaError, SizeError
from pristina.methods.index import method
from pristina.operators.recipe import Recipe
from pristina.priors.checkpoints.catalogue import CATALOGUE
from pristina.priors.load import load_weights, shipped
from pristina.settings import Count, Positive, Settings

if TYPE_CHECKING:
    from pristina.planning import Plan
    from pristina.request import Request

MAX_UPLOAD_BYTES = 64 * 2**20
"""Size of the largest file that is accepted."""
MAX_REQUEST_BYTES = 2**16
"""Size of the longest request that is read, as JSON text."""
MAX_NAME = 100
"""Length to which the names of files are cut."""


class Busy(PristinaError):
    """Raised when a server has as much to do as it takes.

    Args:
        message: The reason.
        retry_s: Time after which it is worth asking again, in seconds.
    """

    def __init__(self, message: str, retry_s: int = 2):
        super().__init__(message)
        self.retry_s = retry_s


@dataclass(frozen=True)
class Limits(Settings):
    """Limits of a server.

    Attributes:
        megapixels: Largest picture, before and after, in millions of pixels; several samples
            together count as one picture.
        queue: Largest number of pictures that wait.
        minutes: Time after which a restoration is stopped; the best so far is kept.
    """

    megapixels: Positive = 40.0
    queue: Count = 16
    minutes: Positive = 30.0

    @property
    def pixels(self) -> int:
        """Largest number of pixels."""
        return int(1e6 * self.megapixels)


def check_request(request: Request) -> None:
    """Check that a request reads no file here, and leaves to the server what is the server's.

    Raises:
        InputError: It names a file, or chooses device, threads or memory.
    """
    for name, default in (("device", "auto"), ("threads", 0), ("memory_bytes", None)):
        if getattr(request, name) != default:
            raise InputError(f"{name} is chosen by the server; leave it out of the request.")
    named = [request.prior]
    if request.method != "auto":
        entry = method(request.method)
        settings = entry.make_settings(request.preset, request.settings)
        named += [getattr(settings, name) for name in entry.extra_weights]
    for weights in named:
        if weights is not None and weights not in shipped() and weights not in CATALOGUE:
            raise InputError(
                f"A server takes weights by name, one of {', '.join(shipped())}; not {weights!r}."
            )
    if request.protect is not None:
        raise InputError("A server reads no files that a request names; leave protect out.")
    if request.recipe is not None and Recipe.parse(request.recipe).files:
        raise InputError("A server reads no files that an operator names; leave the file out.")


def check_plan(plan: Plan, limits: Limits) -> None:
    """Check that a plan stays within the limits.

    Raises:
        SizeError: The restored picture, or all samples of it, would be too large.
    """
    for size in (plan.output_size, plan.work_size):
        pixels = size[0] * size[1] * plan.request.samples
        if pixels > limits.pixels:
            several = f"{plan.request.samples} samples of " if plan.request.samples > 1 else ""
            raise SizeError(
                f"{several}{size[1]} x {size[0]} px are more than the "
                f"{limits.megapixels:g} million pixels that this server takes."
            )


def safe_name(name: str | None) -> str:
    """Return the last part of a file name that somebody sent, short and printable."""
    last = PurePosixPath((name or "").replace("\\", "/")).name
    kept = "".join(c for c in last if c.isprintable() and c not in '<>:"|?*').strip(". ")
    stem, dot, suffix = kept.rpartition(".")
    if len(kept) > MAX_NAME:
        kept = f"{stem[: MAX_NAME - 10]}{dot}{suffix[:8]}" if dot else kept[:MAX_NAME]
    return kept or "picture"


def check_pixels(size: tuple[int, int], limits: Limits) -> None:
    """Raise :class:`PictureError` for a picture with too many pixels, (height, width)."""
    if size[0] * size[1] > limits.pixels:
        raise PictureError(
            f"The picture has {size[1]} x {size[0]} px; this server takes at most "
            f"{limits.megapixels:g} million pixels."
        )


class ResidentWeights:
    """Load weights once, and give the same ones to every job.

    Its call is that of :func:`pristina.priors.load.load_weights`.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, ...], Any] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def __call__(self, kind: Any, source: Any, *, device: Any = "cpu") -> Any:
        if kind == "none" or not isinstance(source, str):
            return load_weights(kind, source, device=device)
        key = (kind, source, str(device))
        with self._lock:
            if key not in self._held:
                self._held[key] = load_weights(kind, source, device=device)
            return self._held[key]


class Abandoned(Exception):
    """Raised in the middle of a computation whose result nobody wants any more."""


_here = threading.local()


def _stop_if_abandoned(_module: nn.Module, _arguments: Any) -> None:
    if getattr(_here, "abandoned", None) is not None and _here.abandoned():
        raise Abandoned


@contextmanager
def abandonable(abandoned: Callable[[], bool]) -> Iterator[None]:
    """End a computation in this thread at its next layer once ``abandoned`` returns true.

    Methods ask their progress callback after whole steps only, which can take minutes each.
    """
    hook = nn.modules.module.register_module_forward_pre_hook(_stop_if_abandoned)
    _here.abandoned = abandoned
    try:
        yield
    finally:
        _here.abandoned = None
        hook.remove()
