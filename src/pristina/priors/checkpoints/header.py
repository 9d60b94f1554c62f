"""Headers of weight files: the settings of a network, read without its tensors or torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pristina.errors import CheckpointError

KEY = "pristina"
"""Name under which the header stands in the metadata of a safetensors file."""

KINDS = ("prior", "kernel-prior", "indi", "conditional", "operator", "scratches", "reader")

MAX_SIDE_PX = 4096
"""Largest side of training images that is believed."""

START = 1 << 16
"""Bytes at the start of a file by which its format is recognised."""


@dataclass(frozen=True)
class NetworkSpec:
    """Description of a network and its use, as the header of a weight file holds it.

    Attributes:
        kind: Kind of weights: ``prior``, ``kernel-prior``, ``indi``, ``conditional``,
            ``operator``, ``scratches`` or ``reader``.
        network: Settings of the network: those of :class:`pristina.priors.patch_unet.PatchUNet` or
            :class:`pristina.priors.residual.ResidualUNet`; those of
            :class:`pristina.priors.reader.ReaderNetwork`; or ``unet2d`` (settings of
            ``UNet2DModel``), ``heads`` (attention heads a layer where their number is fixed, else
            None) and ``time_channels`` (width of the time embedding where it is not that of the
            first level, else None).
        domain: Description of the training images in one sentence.
        predicts: Quantity that the network predicts.
        size_px: Side of the training images in pixels.
        fixed_size: Whether only that size is accepted.
        schedule: Noise schedule: its ``name`` and numbers; None for the linear one.
        noise: Noise on InDI's path in training.
        eps: Scale of that noise.
        source: Origin of a converted network.
        rest: Whatever else the header holds (how it was trained, say).
    """

    kind: str
    network: Mapping[str, Any]
    domain: str
    predicts: str = "flow"
    size_px: int | None = None
    fixed_size: bool = False
    schedule: Mapping[str, Any] | None = None
    noise: str = "none"
    eps: float = 0.0
    source: Mapping[str, str] = field(default_factory=dict)
    rest: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, header: Any) -> NetworkSpec:
        """Read a header.

        Raises:
            CheckpointError: Something is missing, of another type or out of range.
        """
        if not isinstance(header, dict):
            raise CheckpointError("its header should hold settings by name")
        held = dict(header)

        def take(name: str, kind: type[Any] | tuple[type[Any], ...], *default: Any) -> Any:
            if name not in held and default:
                return default[0]
            if name not in held:
                raise CheckpointError(f"its header holds no {name}")
            value = held.pop(name)
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise CheckpointError(f"its header holds an impossible {name} ({_short(value)})")
            return value

        kind = take("kind", str)
        if kind not in KINDS:
            raise CheckpointError(
                f"its header holds the kind {_short(kind)}; {', '.join(KINDS)} are known"
            )
        predicts = take("predicts", str, None) or take(
            "prediction", str, "x0" if kind == "indi" else "flow"
        )
        size_px = take("size_px", (int, type(None)), None)
        fixed = take("fixed_size", bool, False)
        check_size(size_px, fixed)
        noise, eps = take("noise", str, "none"), float(take("eps", (int, float), 0.0))
        if noise not in ("none", "constant", "brownian") or not 0 <= eps <= 10:
            raise CheckpointError(f"its header holds an impossible noise ({_short(noise)}, {eps})")
        return cls(
            kind=kind,
            network=take("network", dict),
            domain=printable(take("domain", str), 500),
            predicts=predicts,
            size_px=size_px,
            fixed_size=fixed,
            schedule=take("schedule", dict, None),
            noise=noise,
            eps=eps,
            source={
                printable(str(k)): printable(str(v), 500)
                for k, v in take("source", dict, {}).items()
                if isinstance(v, str | int | float)
            },
            rest=held,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the header of a converted network, for :func:`format.save_weights`."""
        return {
            "kind": self.kind,
            "network": dict(self.network),
            "domain": self.domain,
            "predicts": self.predicts,
            "schedule": None if self.schedule is None else dict(self.schedule),
            "size_px": self.size_px,
            "fixed_size": self.fixed_size,
            "source": dict(self.source),
        }


def printable(text: str, most: int = 120) -> str:
    """Return text with control characters escaped, cut to ``most`` characters."""
    text = text if len(text) <= most else text[: most - 3] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def check_size(size_px: int | None, fixed: bool) -> None:
    """Raise :class:`CheckpointError` unless the side of the training images is a possible one."""
    if size_px is not None and not 1 <= size_px <= MAX_SIDE_PX:
        raise CheckpointError(
            f"it says that it was trained on pictures of {size_px} px a side; from 1 to "
            f"{MAX_SIDE_PX} px are possible"
        )
    if fixed and size_px is None:
        raise CheckpointError("it says that it takes one size only, but not which")


def _short(value: Any) -> str:
    """Return a value in at most 40 printable characters."""
    return printable(
        repr(value) if isinstance(value, str | int | float) else type(value).__name__, 40
    )


def first_bytes(path: Path) -> bytes:
    """Read the start of a weight file.

    Raises:
        CheckpointError: It cannot be read, or is no file.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file that can be read more than once.")
    try:
        with path.open("rb") as file:
            return file.read(START)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error


def is_safetensors(start: bytes) -> bool:
    """Tell from its first bytes whether a file is safetensors, whatever its name."""
    return len(start) > 8 and start[8:9] == b"{" and start[:2] not in (b"PK", b"\x80\x02")


def read_header(path: Path) -> dict[str, Any] | None:
    """Read the settings in a weight file's metadata; None if it is not one of ours.

    Raises:
        CheckpointError: The file cannot be read, or its header is damaged.
    """
    if path.is_dir() or not is_safetensors(first_bytes(path)):
        return None
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors ({error}); it may be truncated."
        ) from error
    return _from_text(metadata[KEY], path) if KEY in metadata else None


def _from_text(text: str, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} has a damaged header: it is not readable as JSON."
        ) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} has a damaged header: it should hold settings by name.")
    return header


def read_spec(path: Path) -> NetworkSpec | None:
    """Read the description of the network in a weight file of ours; None if it is another's.

    Raises:
        CheckpointError: The file cannot be read, or its header is damaged.
    """
    header = read_header(path)
    return None if header is None else parse_spec(header, path)


def parse_spec(header: Mapping[str, Any], path: Path) -> NetworkSpec:
    """Read a header, with the file's name in every complaint."""
    try:
        return NetworkSpec.from_json(header)
    except CheckpointError as error:
        raise CheckpointError(
            f"{path} cannot be used: {error}. It is damaged, or of another version."
        ) from error
