"""Rules of a server: what it accepts, and what it keeps for itself to decide."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from torch import nn

from pristina.errors import InputError, PictureError, PristinaError, SizeError
from pristina.files import digest
from pristina.methods.index import method
from pristina.operators.recipe import Recipe
from pristina.priors.checkpoints.catalogue import CATALOGUE
from pristina.priors.load import load_weights, shipped
from pristina.settings import Count, Positive, Settings

if TYPE_CHECKING:
    from pristina.image.picture import Picture
    from pristina.planning import Plan
    from pristina.request import Request

MAX_UPLOAD_BYTES = 64 * 2**20
"""Size of the largest file that is accepted."""
MAX_REQUEST_BYTES = 2**16
"""Size of the longest request that is read, as JSON text."""
MAX_NAME = 100
"""Length to which the names of files are cut."""
MAX_LOOKS = 24
"""Number of things computed of pictures that are remembered."""


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


def check_request(request: Request, sent: Mapping[str, str]) -> None:
    """Check that a request reads no file here, and leaves to the server what is the server's.

    Args:
        request: The request.
        sent: Names of the files that were sent beside the picture, by field of the request; it may
            repeat them.

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
    for name in ("protect", "mask"):
        if getattr(request, name) not in (None, sent.get(name)):
            raise InputError(
                f"A server reads no files that a request names; leave {name} out, and send the "
                "file itself beside the picture."
            )
    if request.recipe is not None and Recipe.parse(request.recipe).files:
        raise InputError("A server reads no files that an operator names; leave the file out.")


def check_plan(plan: Plan, limits: Limits) -> None:
    """Check that a plan stays within the limits.

    Raises:
        SizeError: The restored picture, or all samples of it, would be too large.
    """
    large = tuple(plan.request.scale * n for n in plan.output_size)
    for size in (large, plan.work_size):
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


class RememberedLooks:
    """Compute once what is asked of a picture again whenever it is planned.

    Its call is that of :data:`pristina.auto.Look`.
    """

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[str | None, ...], Any] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, name: str, picture: Picture, compute: Callable[[], Any]) -> Any:
        key = (name, picture.sha256, digest(picture.pixels))
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        found = compute()
        with self._lock:
            self._held[key] = found
            while len(self._held) > MAX_LOOKS:
                self._held.popitem(last=False)
        return found


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
