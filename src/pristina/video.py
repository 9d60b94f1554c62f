"""Frames: a video file, or pictures with numbers, restored one after the other.

A frame goes on from the state of the one before, as long as the scene lasts: a method that fits
noise then needs few iterations. What ``auto`` chooses, it chooses once for each scene.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.auto import ALL_ROUND
from pristina.errors import MissingExtra, PictureError
from pristina.files import VIDEO_SUFFIXES, atomic
from pristina.image.encoding import FORMATS
from pristina.image.picture import Picture
from pristina.methods.steps.latent import to_sphere
from pristina.methods.steps.result import State
from pristina.planning import Plan, plan_request
from pristina.priors.load import load_weights
from pristina.request import Request
from pristina.restoration import Restored, finish, run
from pristina.seeds import generators
from pristina.types import Draw, OnStep

CUT = 0.1
"""Mean difference of two frames, reduced to 16 x 16 px and in [0, 1], above which a scene ends."""
WARM_SHARE = 0.25
"""Share of the iterations of a method that a frame takes which goes on from the one before."""
PULL = 0.2
"""Share of the noise with which a scene began in the noise with which each frame goes on."""
ENCODERS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9", "mpeg4": "mpeg4"}
"""Encoder for each codec of the input; H.264 or, in WebM, VP9 for the others."""
QUALITY = {"libx264": "12", "libx265": "14", "libvpx-vp9": "14"}
"""Constant rate factor of each encoder, at which no loss can be seen."""


@dataclass(frozen=True)
class Frame:
    """A frame that was restored.

    Attributes:
        number: Number of the frame, from 0.
        scene: Number of its scene, from 0.
        is_first: Whether it is the first of its scene.
        done: The restored picture and how it came about.
    """

    number: int
    scene: int
    is_first: bool
    done: Restored


def restore_frames(
    frames: Iterable[Picture],
    request: Request,
    *,
    warm: bool = True,
    load: Callable[..., Any] = load_weights,
    on_step: OnStep | None = None,
) -> Iterator[Frame]:
    """Restore the frames of a video one after the other.

    Args:
        frames: The frames.
        request: What is to be done; ``auto`` chooses a method at the beginning of each scene.
        warm: Whether a frame goes on from the state of the one before (default yes).
        load: Function that loads weights.
        on_step: Progress callback within a frame.

    Yields:
        Each frame.

    Example:
        >>> import torch
        >>> still = Picture.from_pixels(torch.full((3, 8, 8), 0.4))
        >>> other = Picture.from_pixels(torch.full((3, 8, 8), 0.9))
        >>> asked = Request(method="nothing")
        >>> [frame.scene for frame in restore_frames([still, still, other], asked)]
        [0, 0, 1]
    """
    plan: Plan | None = None
    before: Tensor | None = None
    state: State | None = None
    scene = -1
    for number, frame in enumerate(frames):
        small = _reduced(frame.pixels)
        is_first = plan is None or is_cut(before, small) or plan.size != frame.size
        if is_first or plan is None:
            plan, state, scene = _scene_plan(frame, request, load), None, scene + 1
        going_on = plan if state is None else replace(plan, settings=_shortened(plan.settings))
        start = None if state is None else _start(plan, state)
        result = run(going_on, frame.visible[None], start=start, on_step=on_step)
        state = result.state if warm and request.samples == 1 else None
        before = small
        yield Frame(number, scene, is_first, finish(going_on, frame, result))


def _scene_plan(frame: Picture, request: Request, load: Callable[..., Any]) -> Plan:
    """Plan a scene by its first frame.

    Where ``auto`` would look for a blur in the picture, it does what it does without one: each
    frame would find another.
    """
    plan = plan_request(frame, request, load=load)
    if request.method != "auto" or plan.entry.name != "deblur":
        return plan
    repaired = getattr(plan.settings, "in_doubt", "leave") == "regress"
    method, prior = ("indi", ALL_ROUND) if repaired else ("nothing", None)
    return plan_request(frame, replace(request, method=method, prior=prior), load=load)


def is_cut(before: Tensor | None, frame: Tensor) -> bool:
    """Return whether a scene ends between two frames, each reduced to 16 x 16 px."""
    return before is None or float((frame - before).abs().mean()) > CUT


def _reduced(pixels: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(pixels[None], 16)[0]


def _start(plan: Plan, state: State) -> State:
    """Return the start of a frame: where the one before ended, drawn back to the first noise.

    Fitted noise takes in a little of the damage of every frame; drawn back, it forgets it again,
    and the picture flickers less.
    """
    noise = state.noise
    if plan.prior is None or noise is None:
        return state.fresh()
    n = len(noise)
    drawn = Draw(generators(plan.request.seed, n), n, noise.device).normal(*noise.shape[1:])
    return replace(state.fresh(), noise=to_sphere(noise.lerp(drawn, PULL)))


def _shortened(settings: Any) -> Any:
    """Return the settings of a method for a frame that goes on from the one before."""
    if "iterations" not in {field.name for field in fields(settings)}:
        return settings
    return replace(settings, iterations=max(1, round(WARM_SHARE * settings.iterations)))


def numbered(folder: Path) -> list[Path]:
    """Find the frames in a folder, in the order of the last number in their names.

    Raises:
        PictureError: There are none, two have the same number, or a picture has none.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in FORMATS or path.name.startswith(".") or path.is_dir():
            continue
        numbers = re.findall(r"\d+", path.stem, re.ASCII)
        if not numbers:
            raise PictureError(f"{path} has no number; frames are named like frame_0001.png.")
        other = found.setdefault(int(numbers[-1]), path)
        if other != path:
            raise PictureError(f"{other} and {path} have the same number; which one comes first?")
    if not found:
        raise PictureError(f"There are no frames in {folder}, named like frame_0001.png.")
    return [path for _, path in sorted(found.items())]


class VideoFile:
    """A video file to be restored: its pictures, and everything else, which is copied.

    Args:
        path: The file.

    Raises:
        MissingExtra: PyAV is not installed.
        PictureError: The file cannot be read, or holds no video.
    """

    def __init__(self, path: Path):
        self.path, self.av = path, _pyav()
        self.notes: list[str] = []
        container = self._open()
        with container:
            stream = container.streams.video[0]
            self.codec = stream.codec_context.name
            depth = max(part.bits for part in stream.codec_context.format.components)
            if depth > 8:
                self.notes.append(f"The video has {depth} bits a channel, and is written with 8.")
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            length = container.duration / 1e6 if container.duration else 0.0
            self.rate, self.n_frames = rate, stream.frames or round(length * rate)

    def frames(self) -> Iterator[Picture]:
        """Yield the pictures, upright."""
        with self._open() as container:
            for frame in self._decoded(container, container.streams.video[0]):
                yield _picture(frame)

    def restored(self, out: Path, restore: Callable[[Iterable[Picture]], Iterator[Picture]]) -> int:
        """Write a video of restored pictures with the sound and the timing of this one.

        The file is written whole or not at all.

        Args:
            out: File to be written.
            restore: Function that restores pictures, one for one and in their order.

        Returns:
            Number of frames.

        Raises:
            PictureError: The file cannot be read or written.
        """
        with atomic(out) as beside, ExitStack() as stack:
            container = stack.enter_context(self._open())
            try:
                made = stack.enter_context(self.av.open(str(beside), "w", format=_format(out)))
                return self._write(container, made, out, restore)
            except self.av.FFmpegError as error:
                raise PictureError(f"{out} cannot be written: {error.strerror}.") from error

    def _write(
        self,
        container: Any,
        made: Any,
        out: Path,
        restore: Callable[[Iterable[Picture]], Iterator[Picture]],
    ) -> int:
        stream = container.streams.video[0]
        copies = {}
        for other in container.streams:
            if other.type == "audio":
                copies[other.index] = made.add_stream_from_template(other)
            elif other.index != stream.index:
                self.notes.append(f"A stream of the kind {other.type} was left out.")
        made.metadata.update(container.metadata)
        timing, held, encoder, n = list[Any](), list[Any](), None, 0

        def pictures() -> Iterator[Picture]:
            for packet in container.demux(stream, *(container.streams[i] for i in copies)):
                if packet.stream.index in copies:
                    if packet.dts is not None:
                        packet.stream = copies[packet.stream.index]
                        held.append(packet)
                    continue
                for frame in self._frames_in(packet):
                    when = frame.dts if frame.pts is None else frame.pts
                    timing.append((when, frame.duration, frame.time_base or stream.time_base))
                    yield _picture(frame)

        for n, picture in enumerate(restore(pictures()), 1):
            if encoder is None:
                encoder = self._encoder(made, out, stream, *picture.size)
            # The header is written with the first packet, when all streams are known.
            made.mux(held)
            held.clear()
            frame = self.av.VideoFrame.from_ndarray(_bytes(picture), format="rgb24")
            frame.pts, frame.duration, frame.time_base = timing[n - 1]
            frame = frame.reformat(
                format=encoder.pix_fmt, dst_colorspace=stream.codec_context.colorspace
            )
            made.mux(encoder.encode(frame))
        if encoder is None:
            raise PictureError(f"{self.path} holds no frame that can be read.")
        made.mux([*held, *encoder.encode(None)])
        return n

    def _encoder(self, made: Any, out: Path, stream: Any, height: int, width: int) -> Any:
        webm = out.suffix.lower() == ".webm"
        name = "libvpx-vp9" if webm else ENCODERS.get(self.codec, "libx264")
        if name not in self.av.codecs_available:
            name = "mpeg4"
        options = {"crf": QUALITY[name]} if name in QUALITY else {"qscale": "2"}
        if name == "libx265":
            options["x265-params"] = "log-level=error"
        encoder = made.add_stream(name, rate=self.rate, options=options)
        encoder.width, encoder.height = width, height
        # Half the colour in both directions is what every player knows; it needs even sides.
        encoder.pix_fmt = "yuv420p" if width % 2 == height % 2 == 0 else "yuv444p"
        encoder.codec_context.time_base = stream.time_base
        encoder.codec_context.colorspace = stream.codec_context.colorspace
        return encoder

    def _open(self) -> Any:
        try:
            container = self.av.open(str(self.path))
        except self.av.FFmpegError as error:
            raise PictureError(
                f"{self.path} cannot be read as a video: {error.strerror}."
            ) from error
        if not container.streams.video:
            container.close()
            raise PictureError(f"{self.path} holds no video.")
        return container

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        for packet in container.demux(stream):
            yield from self._frames_in(packet)

    def _frames_in(self, packet: Any) -> Iterator[Any]:
        try:
            yield from packet.decode()
        except self.av.FFmpegError as error:
            raise PictureError(f"{self.path} is damaged: {error.strerror}.") from error


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtra(
            "Video files need PyAV: pip install 'pristina[video]'; or give a folder of frames."
        ) from error
    return av


def _format(out: Path) -> str:
    names = {".mkv": "matroska", ".m4v": "mp4"}
    suffix = out.suffix.lower()
    if suffix not in VIDEO_SUFFIXES:
        raise PictureError(
            f"{out} must be a video like the input: {', '.join(sorted(VIDEO_SUFFIXES))}."
        )
    return names.get(suffix, suffix[1:])


def _picture(frame: Any) -> Picture:
    """Return a frame as a picture, turned upright."""
    array = torch.from_numpy(frame.to_ndarray(format="rgb24"))
    turns = round(frame.rotation / 90) % 4
    return Picture.from_pixels(array.rot90(turns, (0, 1)).permute(2, 0, 1) / 255)


def _bytes(picture: Picture) -> Any:
    levels = (255 * picture.pixels).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(1, 2, 0).contiguous().numpy()
