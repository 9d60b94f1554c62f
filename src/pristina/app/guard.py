"""The guard in front of a server: who may ask, from where, and how much may be sent."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

COOKIE = "pristina_token"
"""Name of the cookie that holds the token in a browser."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names of this machine for itself."""
OVERHEAD_BYTES = 2**20
"""What a form may hold beside its file, in bytes."""
SILENCE_S = 20
"""Longest time between two pieces of a body that is sent, in seconds."""
SENDING_S = 300
"""Longest time in which a body is sent, in seconds."""
DRAIN_BYTES = 256 * 2**20
"""Part of a refused body that is read all the same, so that its sender hears the answer."""
DRAIN_S = 20
"""Time in which it is read, in seconds."""
DRAIN_SILENCE_S = 5
"""Longest time between two pieces of it, in seconds."""
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # Vue compiles its templates in the browser. Nothing is asked of another host.
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "frame-ancestors 'self'; base-uri 'self'; form-action 'self'",
}


class Guard:
    """Refuse what a server should not answer, before the application sees it.

    Refused are a wrong or missing token; a ``Host`` that is not this server, which a page of
    another site may send after changing what its name means; requests that a page of another site
    makes; and bodies that are too large or too slow.

    Args:
        app: The application.
        max_bytes: Size of the largest file that may be sent.
        hosts: Names under which the server may be asked; None for any, where a token is needed.
        token: Token that is needed; None for none.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        max_bytes: int,
        hosts: tuple[str, ...] | None = LOOPBACK,
        token: str | None = None,
    ):
        self.app, self.max_bytes = app, max_bytes + OVERHEAD_BYTES
        self.hosts, self.token = hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if scope["type"] == "websocket":
            if refusal is None:
                await self.app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        body = _Body(receive, self.max_bytes, _length(scope))
        if refusal is None and body.length > self.max_bytes:
            refusal = _too_large(self.max_bytes)
        app = self.app if refusal is None else refusal
        await app(scope, body, _with_headers(send, body))

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that is refused; None for one that is not."""
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        host = headers.get("host", "")
        if self.hosts is not None and _name(f"//{host}") not in self.hosts:
            return _problem(421, "This server does not answer under that name.")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return _problem(403, "Pages of other sites may not use this server.")
        if self.token is None or scope["path"] == "/healthz":
            return None
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and self._is_token(asked):
            answer: Response = RedirectResponse("/", 303)
            answer.set_cookie(COOKIE, asked, httponly=True, samesite="strict")
            return answer
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given.strip()):
            return None
        if self._is_token(_cookie(headers.get("cookie", ""))):
            return None
        answer = _problem(401, "This server needs its token: open the address that it printed.")
        answer.headers["www-authenticate"] = "Bearer"
        return answer

    def _is_token(self, text: str) -> bool:
        return self.token is not None and hmac.compare_digest(text.encode(), self.token.encode())


class _Body:
    """The body of a request, which may be neither too long nor too slow."""

    def __init__(self, receive: Receive, max_bytes: int, length: int):
        self.receive, self.max_bytes, self.length = receive, max_bytes, length
        self.n_bytes, self.complete, self.begun = 0, False, time.monotonic()

    async def __call__(self) -> MutableMapping[str, Any]:
        if self.complete:
            return await self.receive()
        left = self.begun + SENDING_S - time.monotonic()
        try:
            message = await asyncio.wait_for(self.receive(), max(0.1, min(SILENCE_S, left)))
        except TimeoutError as error:
            raise HTTPException(408, "The file arrived too slowly.") from error
        self.n_bytes += len(message.get("body", b""))
        self.complete = message["type"] != "http.request" or not message.get("more_body")
        if self.n_bytes > self.max_bytes:
            raise HTTPException(413, _size_sentence(self.max_bytes))
        return message

    async def drain(self) -> None:
        """Read the rest of a body that was not read, within bounds."""
        until = time.monotonic() + DRAIN_S
        while not self.complete and self.n_bytes < DRAIN_BYTES and time.monotonic() < until:
            try:
                message = await asyncio.wait_for(self.receive(), DRAIN_SILENCE_S)
            except TimeoutError:
                return
            self.n_bytes += len(message.get("body", b""))
            self.complete = message["type"] != "http.request" or not message.get("more_body")


def _with_headers(send: Send, body: _Body) -> Send:
    """Add headers to an answer, before which the rest of a refused body is read."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                await body.drain()
            added = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
            message["headers"] = [*message.get("headers", []), *added]
        await send(message)

    return sending


def _problem(status: int, sentence: str) -> Response:
    return JSONResponse({"detail": sentence}, status)


def _too_large(max_bytes: int) -> Response:
    return _problem(413, _size_sentence(max_bytes))


def _size_sentence(max_bytes: int) -> str:
    return f"The file is larger than {(max_bytes - OVERHEAD_BYTES) // 2**20} MB, the limit here."


def _length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _cookie(text: str) -> str:
    try:
        cookies = SimpleCookie(text)
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""
