"""Results on disk: one file an item, whole or absent."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from pristina.errors import InputError
from pristina.files import atomic, sweep

T = TypeVar("T")

PLAIN_NAME = re.compile(r"(?!\.)[A-Za-z0-9_.+-]+", re.ASCII)
"""Names that are safe in a path: no separator, no leading dot, nothing but ASCII."""

SHOWN_DIGITS = 12
"""Digits of the digest in the name of a file."""


def is_plain(name: str) -> bool:
    """Return whether a name can be part of a file's name and stays inside its folder."""
    return PLAIN_NAME.fullmatch(name) is not None


class Store(Generic[T]):
    """A folder with one file for each finished item.

    An item is found by the digest of the request that it answers, so that a changed request never
    meets an old result. Files are written whole or not at all, and what killed runs left half
    written is deleted when a store is opened. A file that cannot be read counts as absent: its
    item is computed and written again.

    Args:
        folder: Folder of the files; it is created when the first item is written.
        encode: Function that turns a value into the content of a file.
        decode: Inverse of ``encode``; it raises :class:`ValueError` if the content is damaged.
        suffix: Ending of the files' names, with its dot.
        sweeps: Whether to delete now what killed runs left (default yes).

    Example:
        >>> import json, tempfile
        >>> store = Store(
        ...     Path(tempfile.mkdtemp()), encode=lambda v: json.dumps(v).encode(), decode=json.loads
        ... )
        >>> store.put("5f1e", [1, 2], label="pair")
        >>> store.get("5f1e", label="pair"), store.get("0000", label="pair")
        ([1, 2], None)
    """

    def __init__(
        self,
        folder: Path,
        encode: Callable[[T], bytes],
        decode: Callable[[bytes], T],
        suffix: str = ".json",
        *,
        sweeps: bool = True,
    ):
        self.folder, self.encode, self.decode, self.suffix = folder, encode, decode, suffix
        if sweeps:
            sweep(folder)

    def path(self, digest: str, label: str = "") -> Path:
        """Return the file of an item.

        Args:
            digest: Hexadecimal digest of the request; its first digits stand in the name.
            label: Words before the digest, for people.

        Raises:
            InputError: The label could lead out of the folder.
        """
        if label and not is_plain(label):
            raise InputError(
                f"{label!r} cannot name a file; use letters, digits and _ . + -, "
                "and no dot at the beginning."
            )
        name = f"{label}.{digest[:SHOWN_DIGITS]}" if label else digest[:SHOWN_DIGITS]
        return self.folder / f"{name}{self.suffix}"

    def get(self, digest: str, label: str = "") -> T | None:
        """Return the value of an item; None if it is absent or its file is damaged."""
        try:
            return self.decode(self.path(digest, label).read_bytes())
        except (OSError, ValueError):
            return None

    def put(self, digest: str, value: T, label: str = "") -> None:
        """Write the value of an item, in place of the file that is there.

        Raises:
            PictureError: The file cannot be written.
        """
        content = self.encode(value)
        with atomic(self.path(digest, label)) as beside:
            beside.write_bytes(content)
