"""Fetching weights that are asked for by name: the cache folder and resumed, checked downloads."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pristina.errors import CheckpointError
from pristina.priors.checkpoints.catalogue import CATALOGUE, CatalogueEntry
from pristina.priors.checkpoints.options import LoadOptions

OnBytes = Callable[[int, int | None], None]
"""Progress callback: bytes so far, and bytes in all (None if unknown)."""

HUB_FILES = ["*.json", "*.safetensors", "*.bin"]


def cache_dir() -> Path:
    """Return the folder of fetched weights: ``PRISTINA_CACHE``, or the platform's cache folder."""
    if chosen := os.environ.get("PRISTINA_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pristina"
    if sys.platform == "win32":
        local = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
        return local / "pristina" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pristina"


def offline() -> bool:
    """Tell whether ``PRISTINA_OFFLINE`` or ``HF_HUB_OFFLINE`` forbids every connection."""
    switches = (os.environ.get(name, "") for name in ("PRISTINA_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.lower() in ("1", "true", "yes", "on") for value in switches)


def is_hub_id(source: str) -> bool:
    """Tell whether ``source`` has the form of a Hugging Face hub id, ``owner/name``."""
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source, re.ASCII))


def cached(source: str) -> Path | None:
    """Find the weights of a catalogue name or hub id in the cache, without any connection.

    Returns:
        Their file or folder; None if they are not there.
    """
    entry = CATALOGUE.get(source)
    hub = entry.hub if entry else source if is_hub_id(source) else None
    if hub:
        return _hub_folder(hub, local=True)
    path = None if entry is None else cache_dir() / entry.name / entry.file
    return path if path and path.exists() else None


def not_cached(source: str) -> CheckpointError:
    """Make the error for weights that are known but not on this machine."""
    entry = CATALOGUE.get(source)
    if entry and not (entry.url or entry.hub):
        return CheckpointError(
            f"{entry.title} cannot be fetched by name: download it from {entry.page} and give the "
            "file."
        )
    return CheckpointError(
        f"The weights {source!r} are not on this machine; fetch them with: "
        f"pristina weights fetch {source}"
    )


def fetch(
    source: str,
    *,
    sha256: str | None = None,
    forbid: bool = False,
    on_bytes: OnBytes | None = None,
) -> Path:
    """Fetch the weights that a source names, unless they are in the cache.

    Args:
        source: Name of the catalogue, hub id ``owner/name``, or http(s) address.
        sha256: Hash that the file must have, for an address.
        forbid: Whether connections are forbidden; what is not in the cache is then an error.
        on_bytes: Progress callback.

    Returns:
        Their file or folder.

    Raises:
        CheckpointError: They are not known, cannot be reached, or do not have the right hash.
    """
    entry = CATALOGUE.get(source)
    forbid = forbid or offline()
    if entry is None and urlsplit(source).scheme in ("http", "https"):
        name = Path(urlsplit(source).path).name or "weights"
        place = cache_dir() / "urls" / hashlib.sha256(source.encode()).hexdigest()[:12] / name
        entry = CatalogueEntry(
            source, source, name, "not stated", LoadOptions(), source, source, sha256=sha256
        )
    elif entry is None and not is_hub_id(source):
        raise CheckpointError(
            f"{source!r} is neither in the catalogue (pristina weights list) nor a hub id "
            "(owner/name) nor an address."
        )
    elif entry is None or entry.hub:
        folder = _hub_folder(source if entry is None else str(entry.hub), local=forbid)
        if folder is None:
            raise _offline(source) if forbid else not_cached(source)
        return folder
    elif entry.url is None:
        raise not_cached(source)
    else:
        place = cache_dir() / entry.name / entry.file
    if place.exists():
        verify(place, entry)
        return place
    if forbid:
        raise _offline(source)
    assert entry.url is not None
    return download(entry.url, place, entry, on_bytes)


def _offline(source: str) -> CheckpointError:
    return CheckpointError(
        f"The weights {source!r} are not in the cache ({cache_dir()}), and connections are "
        "switched off (--offline, PRISTINA_OFFLINE or HF_HUB_OFFLINE); allow them, or give a local "
        "file."
    )


def _hub_folder(hub: str, local: bool) -> Path | None:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    local = local or offline()
    try:
        folder = huggingface_hub.snapshot_download(
            hub, cache_dir=cache_dir() / "hub", allow_patterns=HUB_FILES, local_files_only=local
        )
    except LocalEntryNotFoundError as error:
        if local:
            return None
        raise CheckpointError(
            f"huggingface.co cannot be reached for {hub}; connect, or give a local folder."
        ) from error
    except HFValidationError as error:
        raise CheckpointError(
            f"{hub} is neither a file or folder nor a possible hub id."
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise CheckpointError(
            f"{hub} could not be fetched from huggingface.co ({str(error).splitlines()[0]})."
        ) from error
    return Path(folder)


def download(url: str, place: Path, entry: CatalogueEntry, on_bytes: OnBytes | None = None) -> Path:
    """Download a file; an interrupted download goes on, and only a checked file gets its name.

    Args:
        url: Address.
        place: File to write.
        entry: What is known about the file.
        on_bytes: Progress callback.

    Raises:
        CheckpointError: The address does not answer, the file ends early, or its hash is wrong.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{place.name}.partial")
    try:
        have, total = _receive(url, partial, on_bytes)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing is left to send
            raise CheckpointError(
                f"{url} answers {error.code} {error.reason}; see {entry.page} for another way to "
                "it."
            ) from error
        have, total = 0, None
    except OSError as error:  # URLError of urllib, time-outs and broken connections
        reason = getattr(error, "reason", error)
        raise CheckpointError(
            f"{urlsplit(url).hostname} cannot be reached ({reason}); what has arrived is kept: run "
            "it again."
        ) from error
    if total is not None and have < total:
        raise CheckpointError(
            f"{url} ended after {have} of {total} bytes; what has arrived is kept: run it again."
        )
    try:
        verify(partial, entry)
    except CheckpointError:
        partial.unlink()
        raise
    os.replace(partial, place)
    return place


def _receive(url: str, partial: Path, on_bytes: OnBytes | None) -> tuple[int, int | None]:
    """Append what is missing of a file; return the bytes there are and the bytes in all."""
    have = partial.stat().st_size if partial.exists() else 0
    wanted = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(url, headers={"User-Agent": "pristina", **wanted})
    with urllib.request.urlopen(request, timeout=60) as answer:
        have = have if answer.status == 206 else 0  # Some servers ignore Range and begin again.
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with partial.open("ab" if have else "wb") as file:
            while block := answer.read(1 << 20):
                file.write(block)
                have += len(block)
                if on_bytes:
                    on_bytes(have, total)
    return have, total


def verify(path: Path, entry: CatalogueEntry) -> bool:
    """Compare a file with its published hash.

    Returns:
        Whether there was a hash to compare with.

    Raises:
        CheckpointError: The hashes differ.
    """
    expected = ("sha256", entry.sha256) if entry.sha256 else ("md5", entry.md5)
    if expected[1] is None:
        return False
    with path.open("rb") as file:
        found = hashlib.file_digest(
            file, lambda: hashlib.new(expected[0], usedforsecurity=False)
        ).hexdigest()
    if found != expected[1]:
        raise CheckpointError(
            f"{path.name} has {expected[0]} {found}, not {expected[1]} as published for "
            f"{entry.name}: it is damaged or another file."
        )
    return True


def describe(entry: CatalogueEntry) -> dict[str, Any]:
    """Describe an entry of the catalogue in words, ready for JSON."""
    options = entry.options
    schedule, predicts = options.schedule, options.predicts
    if schedule == "auto":
        continuous = predicts in ("edm", "consistency")
        schedule_words = "continuous" if continuous else "from its folder"
    else:
        schedule_words = schedule
    checksum = f"sha256 {entry.sha256}" if entry.sha256 else f"md5 {entry.md5}"
    here = cached(entry.name)
    return {
        "name": entry.name,
        "title": entry.title,
        "domain": options.domain,
        "size_px": options.size_px,
        "schedule": schedule_words,
        "predicts": predicts if predicts != "auto" else "from its folder",
        "value_range": "[-1, 1]",
        "licence": entry.licence,
        "source": entry.url or (f"hub: {entry.hub}" if entry.hub else entry.page),
        "bytes": entry.size_bytes,
        "checksum": checksum if entry.sha256 or entry.md5 else None,
        "note": entry.note,
        "here": None if here is None else str(here),
    }
