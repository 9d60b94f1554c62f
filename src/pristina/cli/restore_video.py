"""Command ``pristina restore`` for a video file, and for a folder of numbered frames."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pristina.cli.console import duration, printable
from pristina.errors import PictureError, SettingError
from pristina.files import check_outputs, is_video, read_bytes, write_all

if TYPE_CHECKING:
    from pristina.image.picture import Picture
    from pristina.picture_files import FileOptions
    from pristina.request import Request
    from pristina.video import Frame


def restore_video(
    source: Path, out: Path, request: Request, options: FileOptions, console: Any, *, force: bool
) -> int:
    """Restore a video or the frames in a folder; return the exit code."""
    if request.threads:
        import torch

        torch.set_num_threads(request.threads)
    if is_video(source):
        return _restore_file(source, out, request, console, force=force)
    if not source.is_dir():
        raise SettingError(f"--frames takes a folder of numbered frames; {source} is a file.")
    return _restore_folder(source, out, request, options, console, force=force)


def _restore_file(source: Path, out: Path, request: Request, console: Any, *, force: bool) -> int:
    """Restore a video file."""
    from pristina.video import VideoFile, restore_frames

    check_outputs([out], inputs=[source])
    _check_absent(out, force=force)
    video = VideoFile(source)
    report = Report(console, out, video.n_frames)

    def restored(frames: Iterable[Picture]) -> Iterator[Picture]:
        for frame in restore_frames(frames, request):
            report.tell(frame)
            yield frame.done.picture

    video.restored(out, restored)
    report.summary(video.notes)
    return 0


def _restore_folder(
    source: Path, out: Path, request: Request, options: FileOptions, console: Any, *, force: bool
) -> int:
    """Restore the frames in a folder, each into a file of the same name."""
    from pristina.video import numbered, restore_frames

    paths = numbered(source)
    if out.exists() and (not out.is_dir() or out.samefile(source)):
        raise PictureError(f"{out} cannot take the frames; give the name of another folder.")
    for path in paths:
        _check_absent(out / path.name, force=force)
    report = Report(console, out, len(paths))
    contents: list[tuple[bytes, Picture, tuple[str, ...]]] = []

    def frames() -> Iterator[Picture]:
        for path in paths:
            content = read_bytes(path)
            picture = options.read(content, str(path))
            contents.append((content, picture, options.check(picture, out / path.name)))
            yield picture

    notes: list[str] = []
    for path, frame in zip(paths, restore_frames(frames(), request), strict=True):
        content, picture, lost = contents.pop()
        place = out / path.name
        write_all({place: options.encode(picture, content, frame.done, place)})
        notes += options.notes(picture, lost, frame.done, place)
        report.tell(frame)
    report.summary(notes)
    return 0


def _check_absent(path: Path, *, force: bool) -> None:
    if os.path.lexists(path) and not force:
        raise PictureError(f"{path} exists; give another name, or --force to replace it.")


class Report:
    """What a user sees of a video.

    Args:
        console: Console for messages.
        out: File or folder of the result.
        n: Number of frames, which a file may tell wrongly.
    """

    def __init__(self, console: Any, out: Path, n: int):
        self.console, self.out, self.n = console, out, n
        self.n_done, self.n_scenes = 0, 0
        self.begun = self.told = time.perf_counter()

    def tell(self, frame: Frame) -> None:
        """Tell of each scene, and every few seconds how far it is."""
        self.n_done, self.n_scenes = frame.number + 1, frame.scene + 1
        plan, now = frame.done.plan, time.perf_counter()
        if frame.is_first:
            what = "left as it is" if plan.entry.name == "nothing" else plan.entry.name
            weights = f" with {plan.weights_name}" if plan.weights_name else ""
            self.console.print(
                f"scene {self.n_scenes} from frame {frame.number + 1}: {what}{weights}"
            )
        if now - self.told > 5:
            self.told = now
            left = (now - self.begun) / self.n_done * max(0, self.n - self.n_done)
            self.console.print(f"{self.n_done}/{self.n} (about {duration(left)} left)")

    def summary(self, notes: Iterable[str]) -> None:
        """Print what was done."""
        frames = "1 frame" if self.n_done == 1 else f"{self.n_done} frames"
        scenes = "1 scene" if self.n_scenes == 1 else f"{self.n_scenes} scenes"
        seconds = time.perf_counter() - self.begun
        self.console.print(f"{printable(self.out)}: {frames} in {scenes}; {duration(seconds)}")
        for note, n in Counter(notes).items():
            on = f" on {n} frames" if n > 1 else ""
            self.console.print(f"note{on}: {printable(note)}")
