"""Command ``pristina serve``."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pristina.errors import InputError, MissingExtra, SettingError

if TYPE_CHECKING:
    from pristina.app.rules import Limits

MIN_TOKEN = 8
"""Shortest token that is accepted."""


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    token: Annotated[str | None, Parameter(env_var="PRISTINA_TOKEN")] = None,
    max_megapixels: float = 40.0,
    max_waiting: int = 16,
    max_minutes: float = 30.0,
    report: Path | None = None,
) -> None:
    """Start a page in the browser, and a JSON API, that restore pictures on this machine.

    Nothing is sent anywhere else. Ctrl-C ends it and removes everything that was uploaded.

    Parameters
    ----------
    host
        Address on which it listens: this machine alone, unless another is given, which needs a
        token.
    port
        Port; 0 takes a free one.
    token
        Secret that everybody who uses it needs, at least 8 characters.
    max_megapixels
        Largest picture, in millions of pixels.
    max_waiting
        Largest number of pictures that wait; whoever sends more is told to wait.
    max_minutes
        Time after which a restoration is stopped, and the best so far kept.
    report
        Folder that pristina bench has written, whose report the page shows.
    """
    local = host in ("127.0.0.1", "::1", "localhost")
    if not local and token is None:
        raise SettingError(
            f"On {host} others can reach the server: give it a --token, which they then need."
        )
    if token is not None and (len(token) < MIN_TOKEN or not token.isascii() or " " in token):
        raise SettingError(f"A token has at least {MIN_TOKEN} letters and digits, without blanks.")
    if report is not None and not (report / "report.html").is_file():
        raise InputError(f"{report} holds no report.html; name a folder that pristina bench wrote.")
    if find_spec("nicegui") is None or find_spec("python_multipart") is None:
        raise MissingExtra("The server needs more packages: pip install 'pristina[app]'.")
    from pristina.app.rules import Limits

    limits = Limits(megapixels=max_megapixels, queue=max_waiting, minutes=max_minutes)
    listening = _listen(host, port)
    _limit_memory()
    _serve(listening, host, local, token, limits, report)


def _listen(host: str, port: int) -> socket.socket:
    """Open the port.

    Raises:
        InputError: It is taken, or the address is not one of this machine.
    """
    if not 0 <= port <= 65535:
        raise SettingError(f"--port must lie between 0 and 65535, not at {port}.")
    opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen(256)
    except OSError as error:
        opened.close()
        raise InputError(
            f"{host}:{port} cannot be used ({error.strerror or error}); try another --port."
        ) from error
    return opened


def _serve(
    listening: socket.socket,
    host: str,
    local: bool,
    token: str | None,
    limits: Limits,
    report: Path | None,
) -> None:
    """Run the server until it is interrupted."""
    import tempfile

    import uvicorn

    from pristina.app.guard import LOOPBACK
    from pristina.app.jobs import Jobs
    from pristina.app.server import make_app

    jobs = Jobs(limits)
    tempfile.tempdir = str(jobs.folder.path)  # Where libraries put what they receive.
    try:
        app = make_app(jobs, token=token, hosts=LOOPBACK if local else None, report=report)
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listening.getsockname()[1]}/"
        print(f"pristina: open {address}{f'?token={token}' if token else ''}", flush=True)
        print("pristina: Ctrl-C ends it and removes everything that was uploaded", flush=True)
        config = uvicorn.Config(
            app, log_level="warning", timeout_graceful_shutdown=2, timeout_keep_alive=30
        )
        server = uvicorn.Server(config)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    finally:
        if jobs.folder.path.exists():
            jobs.close()


def _limit_memory() -> None:
    """Let the process use what memory is free now, so that a job too large fails alone.

    On a machine with a GPU nothing is limited: its driver maps more than there is.
    """
    import resource

    import torch

    if torch.cuda.is_available() or not hasattr(os, "sysconf"):
        return
    try:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        resource.setrlimit(
            resource.RLIMIT_DATA, (free, resource.getrlimit(resource.RLIMIT_DATA)[1])
        )
    except (OSError, ValueError):
        return
