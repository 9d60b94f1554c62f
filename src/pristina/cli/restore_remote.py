"""``pristina restore --server``: the work is done by a server."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pristina.cli.console import duration, printable
from pristina.errors import SettingError

if TYPE_CHECKING:
    from pristina.cli.outputs import Outputs
    from pristina.picture_files import FileOptions
    from pristina.request import Request


def restore_remote(
    url: str,
    picture: Path,
    outputs: Outputs,
    request: Request,
    files: FileOptions,
    console: Any,
    *,
    dry_run: bool,
) -> int:
    """Restore one picture on a server; return the exit code.

    Args:
        url: Address of the server; a token is taken from the variable ``PRISTINA_TOKEN``.
        picture: Damaged picture.
        outputs: Files to be written, which have been checked.
        request: What is asked for; a server chooses device, threads and memory itself.
        files: How the picture is written.
        console: Where progress and notes go.
        dry_run: Whether only the plan is printed.
    """
    from pristina.app.client import Client
    from pristina.files import json_bytes, write_all

    if outputs.compare is not None or outputs.spread is not None:
        raise SettingError("--compare and --spread are made here; leave them out with --server.")
    if files.depth is not None or files.truncated:
        raise SettingError("--depth and --truncated are not for --server; leave them out.")
    client = Client(url, os.environ.get("PRISTINA_TOKEN"))
    asked = replace(request, threads=0, device="auto", memory_bytes=None).to_json()
    if dry_run:
        plan = client.plan(picture, **asked)
        print(f"method: {plan['method']} ({plan['title']}), weights: {plan['weights']}")
        print(f"cost: about {duration(plan['seconds'])} on the server")
        for note in plan["notes"]:
            print(f"note: {printable(note)}")
        return 0
    last = ""

    def on_event(event: dict[str, Any]) -> None:
        nonlocal last
        place = f", place {event['position']} in the queue" if event["position"] else ""
        words = f"{event['state']}{place}"
        if words != last:
            console.print(f"{printable(url)}: {words}")
            last = words

    suffix = outputs.output.suffix.lower().lstrip(".")
    done = client.restore(picture, format=suffix, quality=files.quality, on_event=on_event, **asked)
    written = {outputs.output: done.content}
    if outputs.record is not None:
        named = {"mask": request.mask, "protect": request.protect}  # Where they lie here.
        asked_for = {**done.record["request"], **named}
        written[outputs.record] = json_bytes({**done.record, "request": asked_for})
    if outputs.mask is not None and done.filled is not None:
        written[outputs.mask] = done.filled
    write_all(written)
    for note in done.record["notes"]:
        console.print(f"note: {printable(note)}")
    return 0
