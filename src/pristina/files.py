"""Reading and writing files: whole or not at all, and checked before any work."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pristina.errors import PictureError

if TYPE_CHECKING:
    import torch

MAX_FILE_BYTES = 2**31
"""Size of the largest file that is read: more than any picture that is accepted needs."""
VIDEO_SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"}
"""Endings of the names of video files."""
TEMPORARY_PREFIX = ".pristina-"
"""First letters of the name of every temporary file, by which leftovers are found."""


class DiskFull(PictureError):
    """A file cannot be written because there is no room for it, or for any other."""


def is_video(path: Path) -> bool:
    """Return whether a file is a video by its name."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def json_bytes(values: Mapping[str, Any]) -> bytes:
    """Return plain values as the content of a JSON file."""
    return (json.dumps(values, indent=1, allow_nan=False) + "\n").encode()


def write_all(files: Mapping[Path, bytes]) -> None:
    """Write all files or none: each beside its place first, then all are renamed.

    Raises:
        PictureError: A place cannot be written to, or the disk is full.
    """
    with ExitStack() as stack:
        for path, content in files.items():
            stack.enter_context(atomic(path)).write_bytes(content)


def check_name(path: Path | str) -> None:
    """Raise :class:`PictureError` if no file can have this name."""
    if "\0" in str(path):
        raise PictureError("The name of a file cannot hold the character NUL.")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a file beside ``path`` that is renamed to it if the block succeeds, else deleted.

    Raises:
        PictureError: The place cannot be written to, or the disk is full.
    """
    check_name(path)
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = _temporary(path)
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())  # Some file systems report only now that they are full.
        os.replace(beside, path)
        _sync(path.parent)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        kind = DiskFull if full else PictureError
        raise kind(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """Create an empty file in the folder of ``path``, with the usual rights of a new file."""
    handle, name = tempfile.mkstemp(
        prefix=TEMPORARY_PREFIX, suffix=path.suffix[:16], dir=path.parent
    )
    os.close(handle)
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(name, 0o666 & ~umask)
    return Path(name)


def _sync(folder: Path) -> None:
    """Make the names in ``folder`` survive a power cut, where the file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sweep(folder: Path) -> None:
    """Delete temporary files that an interrupted run left in ``folder``."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        path.unlink(missing_ok=True)


def check_outputs(
    pictures: Iterable[Path | None],
    others: Iterable[Path | None] = (),
    *,
    inputs: Iterable[Path | None] = (),
) -> None:
    """Check before any work that results can be written where they should be.

    Args:
        pictures: Paths of pictures to be written; None is ignored, here and below.
        others: Paths of other files to be written.
        inputs: Paths that are read, and so must not be written to.

    Raises:
        PictureError: A result cannot be written, or would overwrite an input or another result.
    """
    outputs = [path for paths in (pictures, others) for path in paths if path is not None]
    read = {os.path.realpath(path) for path in inputs if path is not None}
    written: set[str] = set()
    for path in outputs:
        place = os.path.realpath(path)
        if os.path.exists(path) and not os.path.isfile(path):
            raise PictureError(f"{path} is a folder or a device; give the name of a file.")
        # Folders that are missing below this one are made later.
        folder = next(parent for parent in path.absolute().parents if os.path.exists(parent))
        if not folder.is_dir():
            raise PictureError(f"{path} cannot be written: {folder} is a file, not a folder.")
        if place in read:
            raise PictureError(
                f"{path} is an input and would be overwritten; give the result another name."
            )
        if place in written:
            raise PictureError(
                f"Two results would be written to the same file {path}; give them different names."
            )
        written.add(place)
        try:
            _temporary(folder / path.name).unlink()
            name_max = os.pathconf(folder, "PC_NAME_MAX")
        except OSError as error:
            raise PictureError(f"{path} cannot be written: {error.strerror or error}.") from error
        if len(os.fsencode(path.name)) > name_max:
            raise PictureError(
                f"{path} cannot be written: its name is longer than {name_max} bytes."
            )


def read_bytes(path: Path) -> bytes:
    """Read a regular file, or a pipe such as ``/dev/stdin`` to its end, exactly once.

    Raises:
        PictureError: The file is missing, absurdly large, a folder, a named pipe or a device, or
            cannot be read.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise PictureError(f"{path} is a folder; give the path of a file in it.")
        pipe = stat.S_ISFIFO(found.st_mode)
        if pipe and not os.path.abspath(path).startswith(("/dev/", "/proc/")):
            raise PictureError(f"{path} is a named pipe, not a file; give it as /dev/stdin.")
        if not (stat.S_ISREG(found.st_mode) or pipe):
            raise PictureError(f"{path} is a device or a socket, not a file; give a file.")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(content) > MAX_FILE_BYTES:
        limit = MAX_FILE_BYTES // 2**30
        raise PictureError(f"{path}: files of more than {limit} GiB are not read.")
    return content


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(*things: torch.Tensor | torch.nn.Module) -> str:
    """Return the SHA-256 of tensors, or of all weights of modules, as 64 hexadecimal digits."""
    import torch

    found = hashlib.sha256()
    for thing in things:
        if isinstance(thing, torch.Tensor):
            named = {"": thing}
        else:
            named = {
                type(thing).__name__: torch.zeros(0),
                **dict(sorted(thing.state_dict().items())),
            }
        for name, tensor in named.items():
            found.update(f"{name} {tuple(tensor.shape)}".encode())
            found.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
