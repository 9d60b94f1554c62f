"""What was written into a folder and what for, so that an interrupted run can go on."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pristina.errors import PictureError
from pristina.files import json_bytes, sha256_of, sweep, write_all
from pristina.work.store import Store

FOLDER = ".pristina"
"""Name of the folder with the manifest, inside the folder that it is about."""

State = Literal["missing", "done", "outdated", "unknown"]
"""What a file is: not there; the answer to the same question; the answer to an earlier question;
or not written by us, or changed since."""


class Manifest:
    """The files that runs have written into a folder.

    The entry of a file is written before the file, with the digest of its content and of the file
    that it replaces. A run may therefore be killed at any moment, and the next one still knows
    every file that is there.

    Args:
        folder: The folder; it is created when the first file is written.

    Example:
        >>> import tempfile
        >>> manifest = Manifest(Path(tempfile.mkdtemp()))
        >>> manifest.write(Path("a.png"), b"pixels", answers="question 1", record={})
        >>> [manifest.state(Path("a.png"), lambda: f"question {n}") for n in (1, 2)]
        ['done', 'outdated']
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.store: Store[Mapping[str, Any]] = Store(
            folder / FOLDER, json_bytes, _decode, sweeps=False
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of the folder; the lock ends with this process, however it ends.

        Raises:
            PictureError: Another run is at work, or the folder cannot be written to.
        """
        path = self.store.folder / "lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        except OSError as error:
            raise PictureError(f"{path} cannot be written: {error.strerror or error}.") from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise PictureError(
                    f"Another run is writing to {self.folder}; wait until it has ended, or take "
                    "another folder."
                ) from error
            yield
        finally:
            os.close(lock)

    def sweep(self, files: Iterable[Path]) -> None:
        """Delete what killed runs left half written beside ``files``; the lock must be held."""
        sweep(self.store.folder)
        for folder in {file.parent for file in files}:
            sweep(self.folder / folder)

    def state(self, file: Path, answers: Callable[[], str]) -> State:
        """Return what a file is.

        Args:
            file: Path inside the folder.
            answers: Function that returns the digest of everything on which the content of the file
                should depend; it is only called where that has to be known.
        """
        path = self.folder / file
        if not os.path.lexists(path):
            return "missing"
        entry = self._entry(file)
        found = _digest(path)
        if entry is None or not found or found not in (entry["sha256"], entry.get("replaces")):
            return "unknown"
        done = found == entry["sha256"] and entry.get("answers") == answers()
        return "done" if done else "outdated"

    def write(self, file: Path, content: bytes, *, answers: str, record: Mapping[str, Any]) -> None:
        """Write a file and its entry.

        Args:
            file: Path inside the folder.
            content: Content of the file.
            answers: Digest of everything on which the content depends.
            record: Plain values about how it came about, for people.

        Raises:
            PictureError: The file cannot be written.
        """
        path = self.folder / file
        entry = {
            "file": str(file),
            "answers": answers,
            "sha256": hashlib.sha256(content).hexdigest(),
            "replaces": _digest(path),
            "record": record,
        }
        self.store.put(_key(file), entry)
        write_all({path: content})

    def _entry(self, file: Path) -> Mapping[str, Any] | None:
        entry = self.store.get(_key(file))
        return entry if entry is not None and entry.get("file") == str(file) else None


def _key(file: Path) -> str:
    return hashlib.sha256(os.fsencode(file.as_posix())).hexdigest()


def _digest(path: Path) -> str | None:
    """Return the SHA-256 of a file; None if it is not there or is no file."""
    try:
        return sha256_of(path) if path.is_file() else None
    except OSError:
        return None


def _decode(content: bytes) -> Mapping[str, Any]:
    entry = json.loads(content)
    if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
        raise ValueError("not an entry of a manifest")
    return entry
