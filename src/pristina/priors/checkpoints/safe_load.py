"""Reading weight files without running anything in them, and finding the network that they hold."""

from __future__ import annotations

import json
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from pristina.errors import CheckpointError, PristinaError
from pristina.files import sha256_of
from pristina.priors.checkpoints.format import read_tensors
from pristina.priors.checkpoints.header import first_bytes, is_safetensors, printable
from pristina.priors.checkpoints.limits import MAX_NESTING, MAX_RECORDS

Tensors = dict[str, Tensor]

PREFIXES = (
    "_orig_mod.", "module.", "model.", "denoise_fn.", "ema_model.", "online_model.", "unet.",
    "network.", "net.",
)  # fmt: skip
"""What training scripts and PyTorch put before the names of a network."""

MAX_PREFIXES = 6
MAX_OPCODES = 3_000_000
MAX_TUPLE = 100_000
"""Parts of a tuple, counted through all that it contains, above which a file is refused."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong in reading a checkpoint into a :class:`CheckpointError`.

    It names the file, and says in one sentence what was wrong. Only this function does so.
    """
    try:
        yield
    except PristinaError as error:
        if str(path) in str(error):
            raise
        raise CheckpointError(f"{path}: {error}") from error
    except MemoryError as error:
        raise CheckpointError(f"{path} needs more memory than there is to be loaded.") from error
    except Exception as error:
        lines = str(error).splitlines() or [""]
        reason = printable(f"{type(error).__name__}: {lines[0]}", 160)
        raise CheckpointError(
            f"{path} cannot be read as a network: its tensors or settings do not go together "
            f"({reason})."
        ) from error


def load_file(path: Path) -> Any:
    """Read a weight file, whose format is recognised from its content. No code in it is run.

    Returns:
        A dictionary of tensors by name, or whatever plain containers wrap it.

    Raises:
        CheckpointError: It is truncated, holds Python objects, or is no weight file at all.
    """
    start = first_bytes(path)
    if is_safetensors(start):
        return read_tensors(path)
    _refuse_by_start(path, start)
    try:
        _check_pickles(path, start)
        # A file, not its path: torch goes by the ending of a name.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about kinds of tensors that are refused
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "truncated" in str(error):
            raise CheckpointError(
                f"{path} ends too early: it is truncated; fetch it again."
            ) from error
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise CheckpointError(
            f"{path} holds Python objects{what}, which could run any code when read, and is "
            "refused; save its state_dict alone with torch.save or as safetensors, where you trust "
            "it."
        ) from error
    except CheckpointError:
        raise
    except Exception as error:
        reason = printable((str(error).splitlines() or [type(error).__name__])[0])
        raise CheckpointError(
            f"{path} cannot be read to its end ({reason}): it is truncated or damaged."
        ) from error


def _refuse_by_start(path: Path, start: bytes) -> None:
    """Raise :class:`CheckpointError` for a file whose first bytes are not those of torch.save."""
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise CheckpointError(
            f"{path} is a web page, not weights: the download went wrong; fetch the file again."
        )
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not weights; fetch the file it points to (git lfs pull)."
        )
    if not start.startswith((b"PK", b"\x80")):
        raise CheckpointError(
            f"{path} is neither safetensors nor a file written by torch.save, or its start is "
            "damaged; one of these two is needed."
        )


def _check_pickles(path: Path, start: bytes) -> None:
    """Refuse a file of torch.save that would take unbounded time or memory to be read."""
    if not start.startswith(b"PK"):
        with path.open("rb") as file:
            for _ in range(5):  # magic number, version, machine, content, list of storages
                _check_pickle(path, file)
        return
    with zipfile.ZipFile(path) as held:
        records = held.infolist()
        if len(records) > MAX_RECORDS:
            raise CheckpointError(
                f"{path} holds {len(records)} records; no network that is known here has more than "
                f"{MAX_RECORDS}."
            )
        if sum(r.file_size for r in records) > 2 * path.stat().st_size + (1 << 20):
            raise CheckpointError(
                f"{path} is compressed, which torch.save does not do; unpack it and save it again."
            )
        for record in records:
            if record.filename.endswith("data.pkl"):
                with held.open(record) as file:
                    _check_pickle(path, file)


def _check_pickle(path: Path, file: IO[bytes]) -> None:
    """Follow a pickle without making anything, and refuse tuples that contain each other too often.

    A tuple of two references to a tuple of two references, and so on, takes a few bytes a level
    to write and twice the time a level to hash.
    """
    stack: list[int | None] = []  # how many parts each object on the stack has; None is a mark
    memo: dict[int, int] = {}

    def pop_to_mark() -> int:
        parts = 1
        while (top := stack.pop()) is not None:
            parts += top
        return parts

    for n, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        name = opcode.name
        if n > MAX_OPCODES:
            raise CheckpointError(f"{path} holds more objects than any network that is known here.")
        if name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1] or 1
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument or 0)])
        elif name == "MARK":
            stack.append(None)
        elif name == "TUPLE":
            stack.append(pop_to_mark())
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(1 + sum(stack.pop() or 1 for _ in range(int(name[-1]))))
        elif name in ("APPENDS", "SETITEMS", "ADDITEMS"):
            pop_to_mark()
        elif name in ("APPEND", "BUILD", "POP"):
            stack.pop()
        elif name == "SETITEM":
            del stack[-2:]
        elif name in ("REDUCE", "NEWOBJ", "STACK_GLOBAL"):
            del stack[-2:]
            stack.append(1)
        elif name == "BINPERSID":
            stack[-1] = 1
        elif name not in ("PROTO", "FRAME", "STOP"):
            stack.append(1)
        if stack and (stack[-1] or 0) > MAX_TUPLE:
            raise CheckpointError(f"{path} holds tuples that contain each other too many times.")


def load_parts(files: tuple[Path, ...]) -> Any:
    """Read a network that is one weight file, or several of which each holds other tensors.

    Raises:
        CheckpointError: A file cannot be read, or two of them hold the same tensor.
    """
    if len(files) == 1:
        return load_file(files[0])
    tensors: dict[str, Any] = {}
    for file in files:
        held = load_file(file)
        if not isinstance(held, dict) or tensors.keys() & held.keys():
            raise CheckpointError(f"{file} is no part of a network beside the other parts.")
        tensors |= held
    return tensors


def sha256_of_parts(files: tuple[Path, ...]) -> str:
    """Return the SHA-256 of a weight file; of several, that of the list of theirs."""
    if len(files) == 1:
        return sha256_of(files[0])
    import hashlib

    each = {file.name: sha256_of(file) for file in files}
    return hashlib.sha256(json.dumps(each, sort_keys=True).encode()).hexdigest()


def state_dicts(held: Any) -> Iterator[tuple[str, Tensors]]:
    """Find every dictionary of tensors in a file, with and without the prefixes of its names.

    Yields:
        Where it lies (``[4]``, ``ema/module.``) and the tensors. What lies deeper than
        ``MAX_NESTING`` levels is passed over; what is contained twice comes once.
    """
    waiting, seen = [("", held, 0)], {id(held)}
    while waiting:
        where, item, depth = waiting.pop(0)
        inner: list[tuple[str, Any]] = []
        if isinstance(item, list | tuple):
            inner = [(f"{where}[{i}]", part) for i, part in enumerate(item)]
        elif isinstance(item, dict):
            tensors = {
                k: v for k, v in item.items() if isinstance(k, str) and isinstance(v, Tensor)
            }
            if tensors:
                yield from _without_prefixes(tensors, where, MAX_PREFIXES)
            inner = [(f"{where}{k}/", v) for k, v in item.items() if isinstance(k, str | int)]
        for place, part in inner:
            new = isinstance(part, dict | list | tuple) and id(part) not in seen
            if new and depth < MAX_NESTING:
                seen.add(id(part))
                waiting.append((place, part, depth + 1))


def _without_prefixes(tensors: Tensors, where: str, most: int) -> Iterator[tuple[str, Tensors]]:
    yield where, tensors
    for prefix in PREFIXES if most else ():
        inner = {
            name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)
        }
        if inner:
            yield from _without_prefixes(inner, where + prefix, most - 1)


def is_average(where: str) -> bool:
    """Tell whether a state dict holds averaged (EMA) weights, from where it lies in its file.

    It does if it is so named, or comes later in a list than the trained ones.
    """
    return "ema" in where.lower() or bool(re.match(r"\[[1-9]", where))
