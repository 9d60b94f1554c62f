"""The private folder of a server: all its files, and none of them after it has ended."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "pristina-serve-"
"""First letters of the names of such folders, by which leftovers are found."""


class PrivateFolder:
    """Make a folder that only this user can read, and remove those of servers that were killed.

    A lock that the system releases when a process ends tells the folders in use from leftovers.

    Args:
        parent: Folder in which it is made; None takes the system's folder of temporary files.
    """

    def __init__(self, parent: Path | None = None):
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        sweep(parent)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self._lock = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def n_bytes(self) -> int:
        """Return the size of all files in the folder."""
        total = 0
        for path in self.path.rglob("*"):
            with suppress(OSError):
                total += path.lstat().st_size
        return total

    def close(self) -> None:
        """Remove the folder with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def sweep(parent: Path) -> None:
    """Remove the folders of servers that no longer run."""
    for path in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            lock = os.open(path / "lock", os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def atomically(path: Path, content: bytes) -> None:
    """Write a file that others may read meanwhile: they find all of it or none."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    beside.write_bytes(content)
    beside.replace(path)
