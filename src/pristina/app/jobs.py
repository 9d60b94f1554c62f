"""Jobs of a server: a bounded queue, one worker, and files in a private folder."""

from __future__ import annotations

import logging
import math
import os
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pristina.app.folder import PrivateFolder, atomically
from pristina.app.job import Job, JobState, Mark, Upload, read_mark, read_upload
from pristina.app.outcome import preview, read_picture, read_state, suffix_of, write_outcome
from pristina.app.rules import (
    Abandoned,
    Busy,
    Limits,
    RememberedLooks,
    ResidentWeights,
    abandonable,
    check_plan,
    check_request,
    safe_name,
)
from pristina.errors import Cancelled, InputError, PristinaError
from pristina.estimates import Estimate
from pristina.image.encoding import FORMATS, check_quality
from pristina.methods.steps.result import StopReason
from pristina.planning import Plan, plan_request
from pristina.request import Request
from pristina.restoration import finish, run
from pristina.types import StepEvent

KEPT_S = 3600
"""Time for which pictures and results are kept after they were last asked for, in seconds."""
MAX_FOLDER_BYTES = 8 * 2**30
"""Size of the private folder above which the oldest results are removed."""
PREVIEW_S = 0.5
"""Shortest time between two intermediate pictures, in seconds."""
PLAN_S = 60
"""Time after which a plan is given up, in seconds."""

log = logging.getLogger("pristina.serve")


class Jobs:
    """Run jobs one after the other.

    Args:
        limits: Limits of the server.
        parent: Folder in which the private folder is made.
    """

    def __init__(self, limits: Limits = Limits(), parent: Path | None = None):
        self.limits = limits
        self.folder = PrivateFolder(parent)
        self.weights, self.looks = ResidentWeights(), RememberedLooks()
        self.counts: Counter[str] = Counter()
        self.seconds = 0.0
        self.short_work = ThreadPoolExecutor(1, "pristina-short")
        self.measuring = ThreadPoolExecutor(1, "pristina-measuring")
        self._uploads: dict[str, Upload] = {}
        self._jobs: dict[str, Job] = {}
        self._waiting: list[Job] = []
        self._reserved = self._n_short = 0
        self._closed = False
        self._change = threading.Condition()
        self._worker = threading.Thread(target=self._work, daemon=True, name="pristina-worker")
        self._worker.start()

    # Room: what is accepted at a time.

    @contextmanager
    def place(self) -> Iterator[None]:
        """Reserve a place in the queue, which :meth:`submit` inside the block fills.

        Raises:
            Busy: The queue is full.
        """
        with self._change:
            if len(self._waiting) + self._reserved >= self.limits.queue:
                self.counts["refused"] += 1
                raise Busy(
                    f"{self.limits.queue} pictures are waiting already; try again later.",
                    self._retry_s(),
                )
            self._reserved += 1
        try:
            yield
        finally:
            with self._change:
                self._reserved -= 1

    @contextmanager
    def short(self) -> Iterator[None]:
        """Reserve a place among the pictures that are received or planned.

        Raises:
            Busy: The queue is full.
        """
        with self._change:
            if self._n_short >= self.limits.queue:
                self.counts["refused"] += 1
                raise Busy("Many pictures are being looked at; try again in a moment.")
            self._n_short += 1
        try:
            yield
        finally:
            with self._change:
                self._n_short -= 1

    def _retry_s(self) -> int:
        """Return the time in which a place will probably be free."""
        finished = self.counts["done"] + self.counts["failed"]
        mean = self.seconds / finished if finished else 2.0
        return max(1, min(60, round(mean)))

    # Pictures.

    def keep(self, content: bytes, name: str) -> Upload:
        """Keep a picture that was sent.

        Raises:
            PictureError: It cannot be read, or is too large.
            Busy: The folder is full.
        """
        self._expire()
        if self.folder.n_bytes() > MAX_FOLDER_BYTES:
            raise Busy("The server holds as many pictures as it can; try again later.", 60)
        name = safe_name(name)
        picture = read_upload(content, name, self.limits)
        key = secrets.token_urlsafe(18)
        path = self.folder.path / f"upload-{key}"
        path.write_bytes(content)
        upload = Upload(key, name, path, picture.size, picture.format)
        with self._change:
            self._uploads[key] = upload
        return upload

    def mark(self, upload: Upload, sent: Mapping[str, tuple[bytes, str]]) -> None:
        """Keep files that mark parts of a picture, in place of those it had.

        Args:
            upload: The picture.
            sent: Content and name of the files, by the names in :data:`~pristina.app.job.MARKS`.

        Raises:
            PictureError: One cannot be read, is too large, or does not fit the picture.
        """
        marks = {}
        for field, (content, name) in sent.items():
            name = safe_name(name)
            png = read_mark(content, name, upload, self.limits)
            if png is not None:
                path = upload.path.with_name(f"{upload.path.name}.{secrets.token_hex(4)}.png")
                path.write_bytes(png)
                marks[field] = Mark(path, name)
        before, upload.marks = upload.marks, marks
        for mark in before.values():
            mark.path.unlink(missing_ok=True)
        if upload.id not in self._uploads:  # Its owner has left meanwhile.
            self.drop(upload.id)

    def upload(self, key: str) -> Upload:
        """Return a picture that was sent; KeyError if there is none of this name."""
        upload = self._uploads[key]
        upload.used = time.monotonic()
        return upload

    def drop(self, key: str) -> None:
        """Forget a picture; jobs keep a copy of their own."""
        with self._change:
            self._uploads.pop(key, None)
        for path in self.folder.path.glob(f"upload-{key}*"):
            path.unlink(missing_ok=True)

    # Plans and jobs.

    def plan(self, upload: Upload, request: Request) -> Plan:
        """Plan a request for a picture and its marks, within the rules of the server.

        Raises:
            PristinaError: The request is refused, or does not suit the picture.
        """
        names: dict[str, Any] = {field: mark.name for field, mark in upload.marks.items()}
        paths: dict[str, Any] = {field: str(mark.path) for field, mark in upload.marks.items()}
        try:
            check_request(request, names)
            picture, asked = upload.read(self.limits), replace(request, **paths)
            made = plan_request(picture, asked, load=self.weights, look=self.looks)
        except (MemoryError, RuntimeError) as error:
            raise InputError(_memory_sentence(error)) from error
        made = replace(made, request=replace(made.request, **names))
        check_plan(made, self.limits)
        return made

    def estimate(self, made: Plan) -> Estimate:
        """Measure what a plan will take.

        Raises:
            InputError: Even the measurement takes too long or too much memory.
        """
        until = time.monotonic() + PLAN_S
        try:
            with abandonable(lambda: self._closed or time.monotonic() > until):
                return made.estimate()
        except Abandoned as error:
            raise InputError("This would take very long; choose smaller settings.") from error
        except (MemoryError, RuntimeError) as error:
            raise InputError(_memory_sentence(error)) from error

    def submit(self, upload: Upload, request: Request, start: Job | None = None) -> Job:
        """Put a picture into the queue; the caller holds a :meth:`place`.

        Args:
            upload: The picture.
            request: What is to be done.
            start: Finished job from whose state the method goes on.

        Raises:
            PristinaError: The request is refused, or does not suit the picture.
        """
        state = None
        if start is not None:
            state = read_state(start.folder)
            if state is None:
                raise InputError("That job has no state from which it could go on.")
        made = self.plan(upload, request)
        key = secrets.token_urlsafe(18)
        folder = self.folder.path / f"job-{key}"
        folder.mkdir(mode=0o700)
        os.link(upload.path, folder / "source")
        marks = {}
        for field, mark in upload.marks.items():
            marks[field] = Mark(folder / field, mark.name)
            os.link(mark.path, marks[field].path)
        own = Upload(key, upload.name, folder / "source", upload.size, upload.format, marks)
        # What waits is kept small: a plan that holds a mask is made again in its turn.
        kept = made if made.filling is None and made.protected is None else None
        job = Job(key, made.request, own, folder, made.notes, kept, state, reason=made.reason)
        with self._change:
            self._jobs[key] = job
            self._waiting.append(job)
            self.counts["accepted"] += 1
            self._change.notify_all()
        return job

    def get(self, key: str) -> Job:
        """Return a job; KeyError if there is none of this name."""
        job = self._jobs[key]
        job.used = time.monotonic()
        return job

    def position(self, job: Job) -> int:
        """Return the place of a job in the queue, from 1; 0 if it does not wait."""
        with self._change:
            return self._waiting.index(job) + 1 if job in self._waiting else 0

    def stop(self, job: Job) -> None:
        """Stop a job; the best result so far is kept."""
        with self._change:
            job.stop.set()
            if job in self._waiting:
                self._waiting.remove(job)
                job.state = "cancelled"
                self.counts["cancelled"] += 1

    def delete(self, job: Job) -> None:
        """Stop a job at once, and remove everything about it."""
        self.stop(job)
        with self._change:
            job.deleted.set()
            self._jobs.pop(job.id, None)
            if job.state != "running":
                shutil.rmtree(job.folder, ignore_errors=True)

    def encoded(self, job: Job, suffix: str | None, quality: int | None) -> Path:
        """Return a file with the restored picture of a finished job.

        Args:
            job: The job.
            suffix: Suffix of the format; None takes that of the picture's own format.
            quality: Quality of JPEG, WebP and AVIF files.

        Raises:
            PictureError: The format is not known, or cannot hold the picture.
            SettingError: The quality is not one.
        """
        own = suffix_of(job.upload.format)
        suffix = suffix or own
        check_quality(quality)
        if job.left_alone and quality is None and FORMATS.get(suffix) == job.upload.format:
            return job.upload.path
        path = job.folder / f"result-{quality or 0}{suffix}"
        if not path.exists():
            atomically(path, read_picture(job.folder).encode(f"picture{suffix}", quality))
        return path

    def close(self) -> None:
        """Stop everything and remove all files."""
        with self._change:
            self._closed = True
            for job in self._jobs.values():
                job.deleted.set()
            self._change.notify_all()
        for pool in (self.short_work, self.measuring):
            pool.shutdown(wait=False, cancel_futures=True)
        self._worker.join(5)
        self.folder.close()

    # The worker.

    def _work(self) -> None:
        while True:
            with self._change:
                while not self._waiting and not self._closed:
                    self._change.wait(60)
                    self._expire()
                if self._closed:
                    return
                job = self._waiting.pop(0)
                job.state, job.started = "running", time.monotonic()
            state = self._outcome(job)
            with self._change:
                job.ended, job.used, job.start = time.monotonic(), time.monotonic(), None
                job.plan = None
                job.preview = job.preview if state == "done" else b""
                job.state = state
                self.counts[state] += 1
                self.seconds += job.seconds
                if job.deleted.is_set():
                    shutil.rmtree(job.folder, ignore_errors=True)

    def _outcome(self, job: Job) -> JobState:
        """Run a job, and return how it ended; nothing that it raises ends the worker."""
        limit_s = 60 * self.limits.minutes
        try:
            # A method that reports too seldom to be stopped is given half the time again.
            with abandonable(
                lambda: job.deleted.is_set() or self._closed or job.seconds > 1.5 * limit_s
            ):
                self._restore(job, limit_s)
        except (Abandoned, Cancelled):
            if job.seconds <= limit_s:
                return "cancelled"
            job.error = (
                f"It was not done after {self.limits.minutes:g} minutes, the limit here; "
                "take a faster method or a smaller picture."
            )
            return "failed"
        except PristinaError as error:
            job.error = str(error)
            return "failed"
        except Exception as error:
            if isinstance(error, MemoryError) or "memory" in str(error):
                job.error = _memory_sentence(error)
            else:
                log.exception("job failed")
                job.error = "Something went wrong in the server; its log says more."
            return "failed"
        return "done"

    def _restore(self, job: Job, limit_s: float) -> None:
        """Restore the picture of a job, and write what came out."""
        picture = job.upload.read(self.limits)
        made = job.plan or replace(self.plan(job.upload, job.planned), notes=job.plan_notes)
        shown = 0.0

        def on_step(event: StepEvent) -> None:
            nonlocal shown
            job.step, job.n_steps = event.step, event.n_steps
            loss = float(event.loss.mean())
            job.loss = loss if math.isfinite(loss) else None
            if job.seconds - shown >= PREVIEW_S and event.step < event.n_steps:
                job.preview = preview(made.fit.undo(event.images).expand(-1, 3, -1, -1))
                job.n_previews, shown = job.n_previews + 1, job.seconds
            if job.stop.is_set() or job.deleted.is_set() or job.seconds > limit_s:
                raise Cancelled

        result = run(made, picture.visible[None], start=job.start, on_step=on_step)
        done = finish(made, picture, result, {"file": job.upload.name})
        drawings = write_outcome(job.folder, picture, done)
        first = result.stopped[0]
        notes = list(done.notes)
        if first.reason is StopReason.CANCELLED and not job.stop.is_set():
            notes.append(f"It was stopped after {self.limits.minutes:g} minutes, the limit here.")
        if job.deleted.is_set():
            raise Abandoned
        job.notes, job.stopped, job.drawings = tuple(notes), str(first), tuple(drawings)
        job.left_alone = done.left_alone
        job.may_go_on = (job.folder / "state.pickle").exists()
        job.cost = dict(done.record()["result"]["cost"])

    def _expire(self) -> None:
        """Remove what nobody has asked for lately, and the oldest results if all is too much."""
        now = time.monotonic()
        for upload in list(self._uploads.values()):
            if now - upload.used > KEPT_S:
                self.drop(upload.id)
        finished = sorted((j for j in list(self._jobs.values()) if j.finished), key=_last_used)
        too_much = self.folder.n_bytes() > MAX_FOLDER_BYTES
        for job in finished:
            if now - job.used > KEPT_S or too_much:
                self.delete(job)
                too_much = too_much and self.folder.n_bytes() > MAX_FOLDER_BYTES

    def snapshot(self) -> dict[str, float]:
        """Return figures for monitoring."""
        with self._change:
            running = sum(job.state == "running" for job in self._jobs.values())
            return {
                "waiting": len(self._waiting),
                "running": running,
                "kept": len(self._jobs),
                "uploads": len(self._uploads),
                "weights": len(self.weights),
            }


def _last_used(job: Job) -> float:
    return job.used


def _memory_sentence(error: Exception) -> str:
    if "memory" in str(error) or isinstance(error, MemoryError):
        return "It needs more memory than there is here; take a smaller picture or fewer samples."
    return f"It cannot be run: {str(error).splitlines()[0]}."
