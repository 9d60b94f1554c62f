"""A request: everything that a user can ask for, as one value."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Interval

from pristina.errors import InputError, SettingError
from pristina.seeds import check_seed
from pristina.settings import Settings, field_types

MAX_SAMPLES = 1000
"""Largest number of samples of one picture."""


@dataclass(frozen=True)
class Request(Settings):
    """What is to be done to a picture.

    The command line, a record, the manifest of a folder, a remote task and a benchmark cell all
    hold this value; it is JSON both ways.

    Attributes:
        method: Name of a method, or ``auto``, which chooses one from what it reads in the picture.
        prior: Shipped name, path or hub id of the weights; None takes those that suit the method.
        recipe: Form of the degradation, as text; None when nothing is known about it.
        preset: Name of a set of settings of the method, such as ``paper``.
        settings: Single settings by name, applied after the preset.
        seed: Random seed.
        samples: Number of restorations to draw; of several the mean is returned.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        threads: Processor threads; 0 leaves the number to torch.
        strength: Share of the change that is made, in [0, 1]; given with ``auto``, a picture is
            repaired even where no damage was found. None makes the whole change.
        grain: Share of the fine grain that is put back, in [0, 1].
        protect: Picture file that is white where the picture is to stay as it is.
        deep: Whether a regressor averages the eight turned and mirrored copies of the picture.
        mask: Picture file that is white where the picture is missing and is to be filled in.
        scratches: Whether scratches, dust, cracks and stains are looked for and filled in.
        levels: Whether faded colours are stretched, each channel by itself.
        scale: Number of times that the picture is enlarged after it was restored.
        memory_bytes: Memory that the run may use, in bytes; None takes half of what is free.

    Example:
        >>> request = Request(method="diip", seed=3)
        >>> Request.from_json(request.to_json()) == request
        True
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    method: str = "auto"
    prior: str | None = None
    recipe: str | None = None
    preset: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    samples: Annotated[int, Interval(ge=1, le=MAX_SAMPLES)] = 1
    device: str = "auto"
    threads: Annotated[int, Ge(0)] = 0
    strength: Annotated[float, Interval(ge=0, le=1)] | None = None
    grain: Annotated[float, Interval(ge=0, le=1)] = 0.0
    protect: str | None = None
    deep: bool = False
    mask: str | None = None
    scratches: bool = False
    levels: bool = False
    scale: Annotated[int, Interval(ge=1, le=4)] = 1
    memory_bytes: Annotated[int, Ge(1)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed(self.seed)
        if not isinstance(self.settings, Mapping):
            raise SettingError(
                f"settings must be values by name, not {type(self.settings).__name__}."
            )
        for name in ("prior", "recipe", "preset", "protect", "mask"):
            value = getattr(self, name)
            if value is not None and (not value or "\0" in value):
                wrong = "hold the character NUL" if value else "be empty"
                raise SettingError(f"{name} cannot {wrong}; name it, or leave it out.")
        if self.method == "auto" and (self.recipe or self.preset or self.settings):
            raise SettingError(
                "An operator, a preset and settings belong to a method: name it too, "
                "for example --method bird."
            )

    @property
    def changes(self) -> dict[str, Any]:
        """Settings of the method by name, with those that other fields stand for."""
        return {**self.settings, **({"ensemble": 8} if self.deep else {})}

    def to_json(self) -> dict[str, Any]:
        """Return the request as plain values, ready for JSON."""
        return {**asdict(self), "settings": plain(dict(self.settings))}

    @classmethod
    def from_json(cls, values: Any) -> Request:
        """Read a request that :meth:`to_json` wrote.

        Raises:
            InputError: It has an unknown field, or a value is of another type or out of range.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(cls).validate_json(json.dumps(values))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "request"
            raise InputError(f"This is not a request: {where}: {first['msg']}.") from error
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"This is not a request: {error}.") from error

    @classmethod
    def from_record(cls, record: Any) -> Request:
        """Read the request in a record of ``restore``, or one that stands by itself.

        Records of version 0.1.0 are read too.

        Raises:
            InputError: It is not a record, or was made with objects that only Python can pass.
        """
        if not isinstance(record, dict):
            raise InputError("a record is a JSON object.")
        if "request" not in record:
            alone = {"method"} <= record.keys() <= field_types(cls).keys()
            return cls.from_json(record) if alone else cls._from_first_record(record)
        request, machine = record["request"], record.get("machine") or {}
        if not isinstance(request, dict) or not isinstance(machine, dict):
            raise InputError("request or machine of a wrong type.")
        if request.get("prior") is None and record.get("weights_name"):
            named = record["weights_name"]
            raise InputError(f"its weights ({named}) were an object in Python, not a name.")
        if request.get("recipe") is None and record.get("operator"):
            raise InputError("its operator was an object in Python, not a recipe.")
        threads = request.get("threads") or machine.get("threads", 0)
        return cls.from_json({**request, "threads": threads})

    @classmethod
    def _from_first_record(cls, record: dict[str, Any]) -> Request:
        """Read a record of version 0.1.0, which had the fields of the request at its top."""
        machine = record.get("machine")
        values = {**record, **(machine if isinstance(machine, dict) else {})}
        kinds = {
            "method": str,
            "prior": str | None,
            "recipe": str | None,
            "settings": dict,
            "seed": int,
            "samples": int,
            "device": str,
            "threads": int,
        }
        wrong = [
            name
            for name, kind in kinds.items()
            if not isinstance(values.get(name, ...), kind) or isinstance(values[name], bool)
        ]
        if wrong:
            raise InputError(f"{', '.join(wrong)} missing or of a wrong type.")
        return cls(**{name: values[name] for name in kinds})

    def digest(self, *more: Any) -> str:
        """Return the SHA-256 of the request and of further plain values."""
        text = json.dumps([self.to_json(), *more], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def parse_bytes(text: str) -> int:
    """Read a size of memory, such as ``4G``, ``800M`` or ``1.5 GiB``.

    Raises:
        SettingError: It is something else.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) ?([KMGT])(?:i?B)?", text.strip(), re.IGNORECASE)
    n_bytes = int(float(found[1]) * 1024 ** (1 + "KMGT".index(found[2].upper()))) if found else 0
    if n_bytes < 1:
        raise SettingError(f"memory must be a size such as 4G or 800M, not {text!r}.")
    return n_bytes


def plain(value: Any) -> Any:
    """Return a value with tuples as lists, ready for JSON."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
