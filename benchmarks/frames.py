"""Frames of a clip with and without the state of the frame before: time, PSNR, flicker.

    python benchmarks/frames.py --frames 60 --size 128

The clip is made from a photograph: a crop that moves by one pixel a frame, and at its left a
quarter that stands still. Noise is drawn anew for each frame. Flicker is the temporal standard
deviation in the part that stands still, in levels of 255.

Frames that are taken each alone are restored side by side, which gives the same pictures in less
time; their seconds are those of the first three, one after the other.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import torch
from torch import Tensor

from pristina.image.picture import Picture
from pristina.metrics.fidelity import psnr
from pristina.planning import plan_request
from pristina.priors.load import load_weights
from pristina.request import Request
from pristina.restoration import run
from pristina.video import restore_frames

ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "noise, indi": ("noise", {"method": "indi", "prior": "denoise"}),
    "noise, diip": ("noise", {"method": "diip", "prior": "photos"}),
    "blur, bird": ("blur", {"method": "bird", "prior": "photos", "recipe": "blur:sigma=1.5"}),
}


def clip(n: int, size: int) -> list[Tensor]:
    """Return the clean frames, each (3, size, size)."""
    from skimage import data

    photo = torch.from_numpy(data.astronaut()).permute(2, 0, 1) / 255
    still, frames = photo[:, 300 : 300 + size, 300 : 300 + size // 4], []
    for i in range(n):
        frame = photo[:, 40 : 40 + size, 150 + i : 150 + i + size].clone()
        frame[:, :, : size // 4] = still
        frames.append(frame)
    return frames


def damaged(frames: list[Tensor], damage: str) -> list[Picture]:
    """Return the frames with noise of 0.1, or with a blur of 1.5 px and noise of 0.02."""
    from pristina.operators import Recipe

    random = torch.Generator().manual_seed(0)
    blur = Recipe.parse("blur:sigma=1.5").build(0)
    found = []
    for frame in frames:
        seen = blur(frame[None])[0] if damage == "blur" else frame
        noise = torch.randn(frame.shape, generator=random)
        seen = seen + (0.02 if damage == "blur" else 0.1) * noise
        found.append(Picture.from_pixels(seen.clamp(0, 1)))
    return found


def one_by_one(
    seen: list[Picture], request: Request, load: Any, *, warm: bool
) -> tuple[Tensor, float, float]:
    """Restore frames as a video is; return them, and calls and processor seconds for each."""
    begun, restored, calls = time.process_time(), [], 0
    for frame in restore_frames(seen, request, warm=warm, load=load):
        restored.append(frame.done.picture.pixels)
        calls += frame.done.cost.network_calls
    seconds = time.process_time() - begun
    return torch.stack(restored), calls / len(seen), seconds / len(seen)


def side_by_side(seen: list[Picture], request: Request, load: Any) -> tuple[Tensor, float]:
    """Restore frames each alone, all at once; return them, and the calls for each."""
    plan = plan_request(seen[0], request, load=load)
    drawn = [torch.Generator().manual_seed(request.seed) for _ in seen]
    result = run(plan, torch.stack([p.visible for p in seen]), generator=drawn)
    return result.images.clamp(0, 1), result.cost.network_calls / len(seen)


def row(name: str, frames: list[Tensor], warm: bool, settings: dict[str, Any]) -> str:
    """Restore a clip and return a row of the table."""
    damage, options = ROWS[name]
    seen = damaged(frames, damage)
    request = Request(**options, settings=settings if options["method"] != "indi" else {})
    weights: dict[str, Any] = {}

    def load(kind: Any, source: Any, **more: Any) -> Any:
        if source not in weights:
            weights[source] = load_weights(kind, source, **more)
        return weights[source]

    load("direct" if options["method"] == "indi" else "diffusion", options["prior"])
    x, calls, seconds = one_by_one(seen if warm else seen[:3], request, load, warm=warm)
    if not warm:
        first = x
        x, calls = side_by_side(seen, request, load)
        if (x[:3] - first).abs().max() > 0.02:
            sys.exit("Side by side the frames differ from those one by one.")
    truth, y = (torch.stack(v) for v in (frames, [p.pixels for p in seen]))
    still = x[..., : x.shape[-1] // 4]
    flicker = 255 * float(still.std(0).mean())
    before = 255 * float(y[..., : x.shape[-1] // 4].std(0).mean())
    db_before, db = (float(psnr(images, truth).mean()) for images in (y, x))
    return (
        f"| {name} | {'from the last' if warm else 'each alone'} | {calls:.0f} | "
        f"{seconds:.2f} | {db_before:.2f} | {db:.2f} | {before:.1f} | {flicker:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--sampler-steps", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=list(ROWS), help="rows, such as 'blur, bird'")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = {"iterations": options.iterations, "sampler_steps": options.sampler_steps}
    frames = clip(options.frames, options.size)
    print(
        "| clip, method | frame | calls | processor seconds | PSNR before | PSNR | flicker before "
        "| flicker |"
    )
    print("| --- " * 8 + "|")
    for name in options.only:
        for warm in (True, False):
            print(row(name, frames, warm, settings), flush=True)


if __name__ == "__main__":
    main()
