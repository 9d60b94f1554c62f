"""The files that a finished job leaves in its folder until they are fetched."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pristina.image.encoding import FORMATS
from pristina.image.picture import Picture
from pristina.operators.blur import Blur
from pristina.operators.kernels import drawing
from pristina.operators.mask import Mask

if TYPE_CHECKING:
    from pristina.methods.steps.result import State
    from pristina.operators.base import Operator
    from pristina.restoration import Restored

VIEW_PX = 2400
"""Largest side of a picture that is made for looking at it in a browser."""
MAX_SAMPLES_SHOWN = 8
"""Number of samples of which a picture is kept."""
DRAWING_PX = 240
"""Smallest side of the drawing of a kernel."""


def write_outcome(folder: Path, before: Picture, done: Restored) -> list[str]:
    """Write the restored picture, its record, its state and the drawings.

    Args:
        folder: Folder of the job.
        before: Picture as it came.
        done: Restored picture.

    Returns:
        Names of the drawings: ``filled``, ``change``, ``kernel``, ``mask``, ``spread``,
        ``sample-1``, ...; ``filled`` has the size of the picture, the others are small.
    """
    (folder / "picture.pickle").write_bytes(pickle.dumps(done.picture))
    (folder / "record.json").write_text(json.dumps(public_record(done), allow_nan=False))
    if done.result.state is not None and done.plan.request.samples == 1:
        (folder / "state.pickle").write_bytes(pickle.dumps(done.result.state))
    drawings = dict(_drawings(before, done))
    for name, image in drawings.items():
        (folder / f"{name}.png").write_bytes(encoded(image, "PNG"))
    return list(drawings)


def read_picture(folder: Path) -> Picture:
    """Read the restored picture of a job."""
    picture: Picture = pickle.loads((folder / "picture.pickle").read_bytes())
    return picture


def read_state(folder: Path) -> State | None:
    """Read the state from which a job can go on; None if there is none."""
    path = folder / "state.pickle"
    return pickle.loads(path.read_bytes()) if path.exists() else None


def public_record(done: Restored) -> dict[str, Any]:
    """Return the record of a restoration without the places of files on this machine."""
    record = done.record()
    weights = record.get("weights") or {}
    if "file" in weights:
        weights["file"] = Path(weights["file"]).name
    return record


def suffix_of(picture_format: str | None) -> str:
    """Return the suffix of a format that can be written: its own, else that of PNG."""
    known = {kind: suffix for suffix, kind in reversed(FORMATS.items())}
    return known.get(picture_format or "", ".png")


def view(picture: Picture, largest: int = VIEW_PX) -> bytes:
    """Return a picture as a JPEG file for the browser, over white, no side above ``largest``."""
    image = picture.to_pillow().convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image).convert("RGB")
    image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return encoded(image, "JPEG", quality=92)


def preview(images: Tensor, largest: int = 1000) -> bytes:
    """Return the mean of images, (B, C, H, W) in [0, 1], as a JPEG file of a small picture."""
    return encoded(_image(_small(images.mean(0), largest)), "JPEG", quality=85)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image as the content of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _drawings(before: Picture, done: Restored) -> Any:
    """Yield the names and images of what can be drawn of a result."""
    after, fit = done.picture, done.plan.fit
    if done.plan.filling is not None:
        yield "filled", _image(done.plan.filling.holes.cpu())
    if before.size == after.size and done.result.method != "nothing":
        change = _small((after.pixels - before.visible).abs().mean(0, keepdim=True), 1000)
        yield "change", _image(_stretched(change))
    yield from _operator_drawings(done.operator)
    if done.std is not None:
        yield "spread", _image(_stretched(_small(done.std.mean(0, keepdim=True), 1000)))
        for i, sample in enumerate(done.result.extras["samples"][0][:MAX_SAMPLES_SHOWN]):
            yield f"sample-{i + 1}", _image(_small(fit.undo(sample[None])[0], 1000))


def _operator_drawings(operator: Operator | None) -> Any:
    for part in [] if operator is None else operator.parts:
        if isinstance(part, Blur):
            yield "kernel", _image(drawing(part.kernel()[0], DRAWING_PX))
        if isinstance(part, Mask) and "given" in dict(part.named_buffers()):
            yield "mask", _image(part.get_buffer("given")[0].float().cpu())


def _small(planes: Tensor, largest: int) -> Tensor:
    """Reduce planes (C, H, W) so that no side is above ``largest``."""
    scale = largest / max(planes.shape[-2:])
    if scale >= 1:
        return planes.detach().cpu()
    size = [max(1, round(scale * n)) for n in planes.shape[-2:]]
    return F.interpolate(planes[None], size=size, mode="bilinear", antialias=True)[0].detach().cpu()


def _stretched(planes: Tensor) -> Tensor:
    return planes / planes.max().clamp(min=1e-9)


def _image(planes: Tensor) -> Image.Image:
    levels = planes.clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(levels.squeeze(-1) if levels.shape[-1] == 1 else levels)
