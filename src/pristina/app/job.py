"""One picture that was sent, and one that is being restored."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image
from torch.nn import functional as F

from pristina.app.rules import Limits, check_pixels
from pristina.errors import PictureError
from pristina.image.decoding import decode
from pristina.image.picture import Picture

if TYPE_CHECKING:
    from pristina.methods.steps.result import State
    from pristina.planning import Plan
    from pristina.request import Request

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
"""``cancelled`` is a job that was stopped before there was any result; others are ``done``."""


MARKS = ("mask", "protect")
"""Fields of a request that name files which mark a part of the picture, white on black."""


@dataclass(frozen=True)
class Mark:
    """File that marks a part of a picture that was sent.

    Attributes:
        path: Private copy of the file.
        name: Name of the file, for records and commands.
    """

    path: Path
    name: str


@dataclass
class Upload:
    """A picture that was sent.

    Attributes:
        id: Secret name.
        name: Name of its file, for messages and results.
        path: Private copy of the file.
        size: Height and width in pixels.
        format: Format of the file.
        marks: Files that mark parts of it, by the names in :data:`MARKS`.
        used: Time of the last use.
    """

    id: str
    name: str
    path: Path
    size: tuple[int, int]
    format: str | None
    marks: Mapping[str, Mark] = field(default_factory=dict)
    used: float = field(default_factory=time.monotonic)

    def read(self, limits: Limits) -> Picture:
        """Decode the picture."""
        return read_upload(self.path.read_bytes(), self.name, limits)


@dataclass
class Job:
    """A picture that is being restored.

    Attributes:
        id: Secret name: whoever knows it may see and delete the job.
        planned: What is asked for, with method and weights filled in.
        upload: The picture, in the folder of the job.
        folder: Folder of the job.
        plan_notes: Sentences of the plan.
        reason: The one that says what was read in the picture and why the method was chosen.
        plan: What will be done; None when it has been.
        start: State from which it goes on; None when it has.
        state: Where it is.
        step: Number of finished steps.
        n_steps: Largest number of steps.
        loss: Current loss.
        preview: Intermediate picture, a JPEG file.
        n_previews: Number of intermediate pictures so far.
        notes: What the user should know, in sentences.
        error: What went wrong, in a sentence.
        stopped: Why it ended.
        left_alone: Whether the result is the picture as it came.
        may_go_on: Whether there is a state from which it can go on.
        drawings: Names of the drawings in the folder.
        cost: Network calls, seconds and memory.
        started, ended, used: Times in seconds.
    """

    id: str
    planned: Request
    upload: Upload
    folder: Path
    plan_notes: tuple[str, ...] = ()
    plan: Plan | None = None
    start: State | None = None
    state: JobState = "queued"
    step: int = 0
    n_steps: int = 0
    loss: float | None = None
    preview: bytes = b""
    n_previews: int = 0
    reason: str = ""
    notes: tuple[str, ...] = ()
    error: str | None = None
    stopped: str | None = None
    left_alone: bool = False
    may_go_on: bool = False
    drawings: tuple[str, ...] = ()
    cost: dict[str, Any] = field(default_factory=dict)
    started: float | None = None
    ended: float | None = None
    used: float = field(default_factory=time.monotonic)
    stop: threading.Event = field(default_factory=threading.Event)
    deleted: threading.Event = field(default_factory=threading.Event)

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "failed", "cancelled")

    @property
    def seconds(self) -> float:
        """Time that it has run."""
        if self.started is None:
            return 0.0
        return (time.monotonic() if self.ended is None else self.ended) - self.started


def read_upload(content: bytes, name: str, limits: Limits) -> Picture:
    """Decode a picture that was sent, if it is not too large.

    Raises:
        PictureError: It cannot be read, or is too large.
    """
    picture = Picture(**decode(content, name, truncated=False, max_pixels=limits.pixels))
    check_pixels(picture.size, limits)
    return picture


def read_mark(content: bytes, name: str, upload: Upload, limits: Limits) -> bytes | None:
    """Return a mark that was sent as a grey PNG file of the size of its picture.

    It may be smaller or larger than the picture if it has the same form, to within a pixel: a page
    paints on a reduced picture.

    Args:
        content: Content of the file that was sent.
        name: Name of the file, for messages.
        upload: The picture.
        limits: Limits of the server.

    Returns:
        The file; None if nothing is marked.

    Raises:
        PictureError: It cannot be read, is too large, or does not fit the picture.
    """
    mark = read_upload(content, name, limits).pixels.mean(0, keepdim=True)
    (height, width), size = mark.shape[-2:], upload.size
    if abs(height * size[1] - width * size[0]) > max(size):
        raise PictureError(
            f"{name} has {width} x {height} px and the picture {size[1]} x {size[0]} px; a mask "
            "must have the size of the picture, or be the same picture reduced."
        )
    levels = F.interpolate(mark[None], size=size).mul(255).round().to(torch.uint8)[0, 0]
    if not levels.any():
        return None
    file = io.BytesIO()
    Image.fromarray(levels.numpy()).save(file, "PNG")
    return file.getvalue()
