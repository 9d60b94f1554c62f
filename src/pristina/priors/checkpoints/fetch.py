"""Getting weights that are asked for by name: the cache folder, resumed and checked downloads, and the offline switch."""

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
from pristina.priors.checkpoints.catalogue import CATALOGUE, Known

OnBytes = Callable[[int, int | None], None]
"""Told of progress: bytes so far and in all (None if unknown)."""

HUB_FILES = ["*.json", "*.safetensors", "*.bin"]


def cache_dir() -> Path:
    """Where fetched weights are kept: ``PRISTINA_CACHE``, or the platform's folder for such things."""
    if chosen := os.environ.get("PRISTINA_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pristina"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "pristina" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pristina"


def offline() -> bool:
    """Whether ``PRISTINA_OFFLINE`` or ``HF_HUB_OFFLINE`` forbids every connection."""
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in ("PRISTINA_OFFLINE", "HF_HUB_OFFLINE"))


def is_hub_id(source: str) -> bool:
    """Whether ``source`` has the form of a Hugging Face hub id, ``owner/name``."""
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source))


def cached(source: str) -> Path | None:
    """Where the weights of a catalogue name or hub id lie in the cache; None if they are not there. Makes no connection."""
    known = CATALOGUE.get(source)
    hub = known.hub if known else source if is_hub_id(source) else None
    if hub:
        return _hub_folder(hub, local=True)
    path = None if known is None else cache_dir() / known.name / known.file
    return path if path and path.exists() else None


def not_cached(source: str) -> CheckpointError:
    """The sentence for weights that are known but not here."""
    known = CATALOGUE.get(source)
    if known and not (known.url or known.hub):
        return CheckpointError(f"{known.title} can only be had by hand, from {known.page}; give load_prior the file.")
    return CheckpointError(f"The weights {source!r} are not on this machine; fetch them with: pristina weights fetch {source}")


def fetch(source: str, *, sha256: str | None = None, forbid: bool = False, on_bytes: OnBytes | None = None) -> Path:
    """The file or folder of weights that ``source`` names, downloaded unless it is already in the cache.

    Args:
        source: A name of the catalogue, a hub id ``owner/name``, or an http(s) address.
        sha256: What the file must hash to, for an address.
        forbid: Make no connection; what is not in the cache is an error.
        on_bytes: Told of progress.

    Raises:
        CheckpointError: It is not known, cannot be reached, or does not have the right hash.
    """
    known = CATALOGUE.get(source)
    forbid = forbid or offline()
    if known is None and urlsplit(source).scheme in ("http", "https"):
        name = Path(urlsplit(source).path).name or "weights"
        place = cache_dir() / "urls" / hashlib.sha256(source.encode()).hexdigest()[:12] / name
        known = Known(source, source, name, "not stated", page=source, url=source, sha256=sha256, reading=CATALOGUE["ffhq"].reading)
    elif known is None and is_hub_id(source):
        return _hub_folder(source, local=forbid) or _raise(_offline(source) if forbid else not_cached(source))
    elif known is None:
        raise CheckpointError(f"{source!r} is neither in the catalogue (pristina weights list) nor a hub id (owner/name) nor an address.")
    elif known.hub:
        return _hub_folder(known.hub, local=forbid) or _raise(_offline(source) if forbid else not_cached(source))
    elif known.url is None:
        raise not_cached(source)
    else:
        place = cache_dir() / known.name / known.file
    if place.exists():
        verify(place, known)
        return place
    if forbid:
        raise _offline(source)
    assert known.url is not None
    return download(known.url, place, known, on_bytes)


def _raise(error: CheckpointError) -> Path:
    raise error


def _offline(source: str) -> CheckpointError:
    return CheckpointError(
        f"The weights {source!r} are not in the cache ({cache_dir()}), and connections are switched off "
        "(--offline, PRISTINA_OFFLINE or HF_HUB_OFFLINE); allow them, or give a local file."
    )


def _hub_folder(hub: str, local: bool) -> Path | None:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = huggingface_hub.snapshot_download(
            hub, cache_dir=cache_dir() / "hub", allow_patterns=HUB_FILES, local_files_only=local or offline()
        )
    except LocalEntryNotFoundError as error:
        if local or offline():
            return None
        raise CheckpointError(f"huggingface.co cannot be reached for {hub}; connect, or give a local folder.") from error
    except (HfHubHTTPError, OSError) as error:
        raise CheckpointError(f"{hub} could not be fetched from huggingface.co ({str(error).splitlines()[0]}).") from error
    return Path(folder)


def download(url: str, place: Path, known: Known, on_bytes: OnBytes | None = None) -> Path:
    """``url`` in the file ``place``: what an interrupted download left is gone on with, and only a checked file gets its name.

    Raises:
        CheckpointError: The address does not answer, the file ends early, or its hash is wrong.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{place.name}.partial")
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "pristina", **({"Range": f"bytes={have}-"} if have else {})})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            have = have if answer.status == 206 else 0  # some servers ignore Range and begin again
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else None
            with partial.open("ab" if have else "wb") as file:
                while block := answer.read(1 << 20):
                    file.write(block)
                    have += len(block)
                    if on_bytes:
                        on_bytes(have, total)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing is left to send
            raise CheckpointError(f"{url} answers {error.code} {error.reason}; see {known.page} for another way to it.") from error
        total = None
    except OSError as error:  # urllib's URLError, time-outs and broken connections
        reason = getattr(error, "reason", error)
        raise CheckpointError(f"{urlsplit(url).hostname} cannot be reached ({reason}); what has arrived is kept: run it again.") from error
    if total is not None and have < total:
        raise CheckpointError(f"{url} ended after {have} of {total} bytes; what has arrived is kept: run it again.")
    try:
        verify(partial, known)
    except CheckpointError:
        partial.unlink()
        raise
    os.replace(partial, place)
    return place


def verify(path: Path, known: Known) -> bool:
    """Whether there was a hash to compare with; returns only if it agrees.

    Raises:
        CheckpointError: It does not.
    """
    expected = ("sha256", known.sha256) if known.sha256 else ("md5", known.md5)
    if expected[1] is None:
        return False
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(expected[0], usedforsecurity=False)).hexdigest()
    if found != expected[1]:
        raise CheckpointError(
            f"{path.name} has {expected[0]} {found}, not {expected[1]} as published for {known.name}: it is damaged or another file."
        )
    return True


def describe(known: Known) -> dict[str, Any]:
    """What the catalogue says about an entry, in words."""
    r = known.reading
    return {
        "name": known.name,
        "title": known.title,
        "knows": r.domain,
        "size_px": r.size_px,
        "schedule": r.schedule if r.schedule != "auto" else ("continuous" if r.predicts in ("edm", "consistency") else "from its folder"),
        "predicts": r.predicts if r.predicts != "auto" else "from its folder",
        "value_range": "[-1, 1]",
        "licence": known.licence,
        "source": known.url or (f"hub: {known.hub}" if known.hub else known.page),
        "bytes": known.size_bytes,
        "checksum": f"sha256 {known.sha256}" if known.sha256 else f"md5 {known.md5}" if known.md5 else None,
        "note": known.note,
        "here": None if (here := cached(known.name)) is None else str(here),
    }
