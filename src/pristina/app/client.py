"""A client of the JSON API, with the standard library alone."""

from __future__ import annotations

import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from pristina.errors import Cancelled, InputError, PictureError, PristinaError
from pristina.files import read_bytes
from pristina.request import Request

WAIT_S = 600.0
"""Time for which a client asks a busy server again, in seconds."""
TIMEOUT_S = 120.0
"""Longest silence of a server, in seconds."""


@dataclass(frozen=True)
class Fetched:
    """A picture that a server has restored.

    Attributes:
        content: Content of its file.
        record: All that is needed to run it again, and what came out.
        filled: Content of a PNG file that is white where something was filled in; None if nothing
            was.
    """

    content: bytes
    record: Mapping[str, Any]
    filled: bytes | None = None

    def save(self, path: str | Path) -> None:
        """Write the picture, whole or not at all.

        Raises:
            PictureError: The place cannot be written to.
        """
        from pristina.files import write_all

        write_all({Path(path): self.content})


class Client:
    """Restore pictures on a server that ``pristina serve`` has started.

    A sentence in which the server refuses something becomes an
    :class:`~pristina.errors.InputError`; that it cannot be reached, a
    :class:`~pristina.errors.PristinaError`.

    Args:
        url: Address of the server, such as ``http://127.0.0.1:8080``.
        token: Token of the server, if it needs one.

    Example::

        client = pristina.Client("http://127.0.0.1:8080")
        client.restore("in.jpg", method="indi", prior="mixed").save("out.jpg")
    """

    def __init__(self, url: str, token: str | None = None):
        if urlsplit(url).scheme not in ("http", "https"):
            raise InputError(
                f"The address of a server begins with http:// or https://; {url!r} does not."
            )
        self.url, self.token = url.rstrip("/"), token

    def plan(self, picture: str | Path | bytes, **request: Any) -> dict[str, Any]:
        """Return what would be done to a picture, and what it would take.

        Args:
            picture: File, or the content of one.
            request: Fields of :class:`~pristina.request.Request`; the files ``mask`` and
                ``protect`` are sent with the picture.
        """
        return self._json("POST", "plan", *_form(_files(picture, request), _fields(request)))

    def submit(self, picture: str | Path | bytes, **request: Any) -> str:
        """Put a picture into the queue, and return the name of its job.

        The arguments are those of :meth:`plan`. While the server is busy it is asked again.
        """
        form = _form(_files(picture, request), _fields(request))
        key: str = self._json("POST", "jobs", *form)["id"]
        return key

    def go_on(self, key: str, **request: Any) -> str:
        """Go on from where a finished job stopped, and return the name of the new job.

        Its picture, and what marked parts of it, are on the server already.
        """
        answer = self._json(
            "POST", f"jobs/{quote(key, safe='')}/go-on", *_form({}, _fields(request))
        )
        new: str = answer["id"]
        return new

    def status(self, key: str) -> dict[str, Any]:
        """Return where a job is."""
        return self._json("GET", f"jobs/{quote(key, safe='')}")

    def events(self, key: str) -> Iterator[dict[str, Any]]:
        """Yield where a job is, whenever it has got further, until it ends."""
        with self._open("GET", f"jobs/{quote(key, safe='')}/events") as stream:
            for line in stream:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])

    def result(self, key: str, format: str | None = None, quality: int | None = None) -> bytes:
        """Return the file of the restored picture.

        Args:
            key: Name of the job.
            format: Suffix of the format, such as ``png``; None for that of the picture sent.
            quality: Quality of JPEG, WebP and AVIF files, 1 to 100.
        """
        asked = {"format": format, "quality": quality}
        words = urlencode({name: value for name, value in asked.items() if value is not None})
        with self._open("GET", f"jobs/{quote(key, safe='')}/result?{words}") as answer:
            content: bytes = answer.read()
        return content

    def drawing(self, key: str, name: str) -> bytes:
        """Return a drawing of a finished job, a PNG file; its status names them."""
        with self._open("GET", f"jobs/{quote(key, safe='')}/drawings/{quote(name)}") as answer:
            content: bytes = answer.read()
        return content

    def record(self, key: str) -> dict[str, Any]:
        """Return all that is needed to run a job again, and what came out."""
        return self._json("GET", f"jobs/{quote(key, safe='')}/record")

    def cancel(self, key: str) -> dict[str, Any]:
        """Stop a job; the best result so far is kept."""
        return self._json("POST", f"jobs/{quote(key, safe='')}/cancel")

    def delete(self, key: str) -> None:
        """Stop a job at once, and remove everything about it from the server."""
        self._open("DELETE", f"jobs/{quote(key, safe='')}").close()

    def restore(
        self,
        picture: str | Path | bytes,
        *,
        format: str | None = None,
        quality: int | None = None,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        **request: Any,
    ) -> Fetched:
        """Restore a picture, and leave nothing of it on the server.

        Args:
            picture: File, or the content of one.
            format: Suffix of the result's format, such as ``png``; None for that of the picture.
            quality: Quality of JPEG, WebP and AVIF files, 1 to 100.
            on_event: Called with each event; it may raise :class:`~pristina.errors.Cancelled`, and
                the best result so far is returned.
            request: Fields of :class:`~pristina.request.Request`.

        Raises:
            InputError: The server refuses the picture or the request, or the job fails.
            PristinaError: The server cannot be reached.
        """
        if isinstance(picture, str | Path) and format is None:
            suffix = Path(picture).suffix.lower().lstrip(".")
            format = suffix if suffix in ("png", "jpg", "jpeg", "webp", "tif", "tiff") else None
        key = self.submit(picture, **request)
        try:
            last: dict[str, Any] = {}
            for last in self.events(key):
                try:
                    if on_event is not None:
                        on_event(last)
                except Cancelled:
                    self.cancel(key)
            if last.get("state") != "done":
                raise InputError(last.get("error") or "The job was stopped before any result.")
            filled = self.drawing(key, "filled") if "filled" in last["drawings"] else None
            return Fetched(self.result(key, format, quality), self.record(key), filled)
        finally:
            self.delete(key)

    def _json(
        self, verb: str, path: str, body: bytes | None = None, kind: str | None = None
    ) -> dict[str, Any]:
        with self._open(verb, path, body, kind) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def _open(
        self, verb: str, path: str, body: bytes | None = None, kind: str | None = None
    ) -> Any:
        """Ask the server, again while it is busy, and return its answer."""
        headers = {} if kind is None else {"Content-Type": kind}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        asked = urllib.request.Request(f"{self.url}/api/v1/{path}", body, headers, method=verb)
        until = time.monotonic() + WAIT_S
        while True:
            try:
                return urllib.request.urlopen(asked, timeout=TIMEOUT_S)
            except urllib.error.HTTPError as error:
                sentence = _sentence(error)
                if error.code == 429 and time.monotonic() < until:
                    time.sleep(min(60.0, float(error.headers.get("Retry-After") or 2)))
                    continue
                if error.code in (400, 404, 408, 409, 413, 415, 422):
                    raise InputError(f"The server refuses: {sentence}") from error
                raise PristinaError(f"The server at {self.url}: {sentence}") from error
            except (OSError, HTTPException) as error:
                reason = getattr(error, "reason", error)
                raise PristinaError(
                    f"The server at {self.url} cannot be reached ({reason}); is it running?"
                ) from error


File = str | Path | bytes
FILES = ("mask", "protect")
"""Fields of a request that name files."""


def _fields(request: Mapping[str, Any]) -> dict[str, str]:
    asked = {name: value for name, value in request.items() if name not in FILES}
    return {"request": json.dumps(Request(**asked).to_json())}


def _files(picture: File, request: Mapping[str, Any]) -> dict[str, File]:
    """Return the files that are sent, by the field of the form."""
    named = {name: request.get(name) for name in FILES}
    return {"picture": picture} | {name: file for name, file in named.items() if file is not None}


def _form(files: Mapping[str, File], fields: Mapping[str, str]) -> tuple[bytes, str]:
    """Return a form (multipart/form-data) and its content type."""
    border = secrets.token_hex(16)
    parts = []
    for name, text in fields.items():
        head = f'--{border}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        parts.append(head.encode() + text.encode() + b"\r\n")
    for field, file in files.items():
        content, name = (file, field) if isinstance(file, bytes) else (b"", field)
        if isinstance(file, str | Path):
            content, name = read_bytes(Path(file)), Path(file).name
        if not content:
            raise PictureError(f"{name} is empty (0 bytes).")
        kept = "".join(c for c in name if c.isprintable() and c not in '"\\')
        head = (
            f'--{border}\r\nContent-Disposition: form-data; name="{field}"; filename="{kept}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        parts.append(head.encode("utf-8", "replace") + content + b"\r\n")
    parts.append(f"--{border}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={border}"


def _sentence(error: urllib.error.HTTPError) -> str:
    try:
        with error:
            return str(json.loads(error.read(2**16))["detail"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"it answered {error.code} {error.reason}."
