"""Pictures a second in every way to ask for them, and the cost of a megapixel.

    python benchmarks/throughput.py --pictures 8 --megapixels 0.25 0.5 1 2 4

One thread for each process. The exponent is that of the processor time, which others that use the
machine change less than the time on the clock.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

OPTIONS = ["--method", "indi", "--prior", "denoise", "--threads", "1", "--quiet"]


def photograph(height: int, width: int) -> np.ndarray:
    """Return a photograph with noise, continued by mirrors to any size, (H, W, 3)."""
    from skimage import data

    x = data.astronaut().astype(float)
    rows, columns = (np.abs((np.arange(n) + 511) % 1022 - 511) for n in (height, width))
    noise = np.random.RandomState(0).normal(0, 20, (height, width, 3))
    return (x[rows][:, columns] + noise).clip(0, 255).astype(np.uint8)


def command(*words: object) -> None:
    """Run a command of pristina."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "pristina", "restore", *map(str, words), *OPTIONS]
    subprocess.run(line, check=True, env=environment)


def pictures_a_second(n: int, side: int, cluster: bool) -> None:
    """Print how fast ``n`` pictures are restored one by one, together, and by several workers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        for i in range(n):
            Image.fromarray(photograph(side, side + i)).save(folder / "in" / f"{i}.png")
        ways = {"one command, one process": [], "one command, --jobs 2": ["--jobs", 2]}
        if cluster:
            ways["one command, --ray local --jobs 2"] = ["--ray", "local", "--jobs", 2]
        print(f"\n| {n} pictures of {side} x {side} px | seconds | pictures a second |")
        print("| --- " * 3 + "|")
        begun = time.perf_counter()
        for path in sorted((folder / "in").iterdir()):
            command(path, "-o", folder / f"alone-{path.name}")
        seconds = time.perf_counter() - begun
        print(f"| a command for each | {seconds:.1f} | {n / seconds:.2f} |", flush=True)
        for i, (way, words) in enumerate(ways.items()):
            begun = time.perf_counter()
            command(folder / "in", "-o", folder / f"out{i}", *words)
            seconds = time.perf_counter() - begun
            print(f"| {way} | {seconds:.1f} | {n / seconds:.2f} |", flush=True)


def cost_of_a_megapixel(sizes: list[float]) -> None:
    """Print time and memory for pictures of each size, and the exponent of the time."""
    import pristina

    torch.set_num_threads(1)
    print(
        "\n| megapixels | pixels at once, at most | seconds | processor seconds | processor "
        "seconds a megapixel | peak above start |"
    )
    print("| --- " * 6 + "|")
    points = []
    for megapixels in sizes:
        height = 8 * round(math.sqrt(megapixels * 1e6 * 3 / 4) / 8)
        picture = photograph(height, height * 4 // 3)
        plan = pristina.plan(picture, method="indi", prior="denoise")
        y = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
        Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew.
        before, begun, used = status("VmRSS"), time.perf_counter(), time.process_time()
        pristina.run(plan, y)
        seconds, used = time.perf_counter() - begun, time.process_time() - used
        peak = status("VmHWM") - before
        area = picture.shape[0] * picture.shape[1] / 1e6
        points.append((math.log(area), math.log(used)))
        print(
            f"| {area:.2f} | {plan.pixels_at_once} | {seconds:.1f} | {used:.1f} | "
            f"{used / area:.2f} | {peak / 2**20:.0f} MiB |",
            flush=True,
        )
    if len(points) > 1:
        print(f"\nExponent of the time: {np.polyfit(*zip(*points, strict=True), 1)[0]:.2f}")


def status(name: str) -> int:
    """Return a number of bytes from what Linux tells about this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--megapixels", type=float, nargs="*", default=[0.25, 0.5, 1, 2, 4])
    parser.add_argument("--no-cluster", action="store_true", help="leave Ray out")
    options = parser.parse_args()
    if options.pictures:
        pictures_a_second(options.pictures, options.side, not options.no_cluster)
    if options.megapixels:
        cost_of_a_megapixel(options.megapixels)


if __name__ == "__main__":
    main()
