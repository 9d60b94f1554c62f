"""Large pictures in a fixed memory: seams along the borders of windows and tiles, and peak memory.

    python benchmarks/large_pictures.py --memory 3G --out benchmarks/results/large
    python benchmarks/large_pictures.py --pixels 262144   # as many at once as 512 x 512 px have
    python benchmarks/large_pictures.py --windows         # seams of windows in a small picture

Each cell runs in a process of its own, so that its peak is its own. The settings are reduced to one
or two steps: what is measured is the way through the network, which is the same at every step, and
not how good the picture becomes. ``mmse`` and ``indi`` run as they are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SMALL = (512, 512)
BLUR = "blur:sigma=2"
WINDOWS = "photos in windows of 64 px"
METHODS: dict[str, dict[str, Any]] = {
    "mmse": {},
    "indi": {},
    "diip": {"settings": {"iterations": 1, "sampler_steps": 1, "rule": "none"}},
    "bird": {"operator": BLUR, "settings": {"iterations": 1, "sampler_steps": 1}},
    "dps": {"operator": BLUR, "settings": {"steps": 1}},
}
CELLS = [
    *((name, "photos") for name in ("mmse", "diip", "bird", "dps")),
    ("indi", "photos-blind"),
    *((name, WINDOWS) for name in ("mmse", "diip", "bird", "dps")),
]


def photograph(size: tuple[int, int]) -> Tensor:
    """Return a photograph, (3, H, W), continued by mirrors to any size."""
    from skimage import data

    x = torch.from_numpy(data.astronaut()).permute(2, 0, 1) / 255
    rows, columns = ((torch.arange(n) + 37) % 1023 for n in size)
    return x[:, torch.minimum(rows, 1022 - rows)][:, :, torch.minimum(columns, 1022 - columns)]


def damaged(size: tuple[int, int], method: str) -> Tensor:
    """Return the photograph with the damage that the method is to repair, (3, H, W)."""
    from pristina.operators import Recipe

    truth = photograph(size)
    if METHODS[method].get("operator") == BLUR:
        return Recipe.parse(BLUR).build(0)(truth[None])[0].clamp(0, 1)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    return noise.mul_(0.1).add_(truth).clamp_(0, 1)


def borders(plan: Any) -> list[set[int]]:
    """Return the rows and the columns at which a window or the contribution of a tile begins."""
    from pristina.image.tile import least_tile, tile_parts
    from pristina.priors.windowed import Windowed, window_starts

    sides, prior = plan.work_size, plan.prior
    if isinstance(prior, Windowed):
        window = prior.window_px
        starts = [window_starts(side, window, prior.overlap) for side in sides]
        ends = [{s + window for s in some} for some in starts]
    else:
        grid = {"halo": prior.network.radius, "multiple": prior.network.multiple}
        pixels = max(prior.portions.pixels, least_tile(**grid))
        parts = tile_parts(*sides, pixels=pixels, **grid)
        starts = [[start for start, _ in some] for some in parts]
        ends = [set() for _ in sides]
    return [(set(s) | e) - {0, n} for s, e, n in zip(starts, ends, sides, strict=True)]


def seam(x: Tensor, lines: list[set[int]]) -> float:
    """Return the gradient energy across the lines as a share of that 2 to 6 px beside them."""
    across = beside = n_across = n_beside = 0.0
    for dim, some in zip((-2, -1), lines, strict=True):
        energy = x.diff(dim=dim).square().mean([d for d in range(3) if d != dim % 3])
        near = {s + k for s in some for k in (-6, -5, -4, -3, -2, 2, 3, 4, 5, 6)} - some
        across += sum(float(energy[s - 1]) for s in some)
        beside += sum(float(energy[s - 1]) for s in near if 0 < s <= len(energy))
        n_across, n_beside = n_across + len(some), n_beside + len(near)
    return (across / n_across) / (beside / n_beside) if n_across else float("nan")


def status(name: str) -> int:
    """Return a number of bytes from what Linux tells about this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))


def run_cell(
    method: str, prior: str, size: tuple[int, int], memory: str, pixels: int | None, out: Path
) -> None:
    """Restore one picture and write what was measured."""
    import pristina
    from pristina.image.picture import Picture
    from pristina.priors import Windowed, load_prior
    from pristina.request import parse_bytes

    options = METHODS[method]
    y = damaged(size, method)
    weights: Any = Windowed(load_prior("photos"), window_px=64) if prior == WINDOWS else prior
    n_bytes = parse_bytes(memory)
    plan = pristina.plan(y, method=method, prior=weights, memory_bytes=n_bytes, **options)
    if pixels is not None:
        plan = replace(plan, prior=plan.prior.limited(pixels))
    torch.set_num_threads(1)
    Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew.
    before = status("VmRSS")
    result = pristina.run(plan, y[None])
    peak, lines = status("VmHWM"), borders(plan)
    truth = photograph(size)
    found = {
        "method": method,
        "prior": prior,
        "size": size,
        "windows": plan.windows,
        "pixels": plan.pixels_at_once,
        "seconds": result.cost.seconds,
        "before": before,
        "peak": peak,
        "seam": seam(result.images[0], lines),
        "seam_truth": seam(truth, lines),
        "notes": list(result.notes),
    }
    name = f"{method}.{prior.replace(' ', '-')}.{size[1]}"
    Picture.from_pixels(result.images[0]).save(out / f"{name}.png")
    (out / f"{name}.json").write_text(json.dumps(found))


def windows(out: Path) -> None:
    """Print seams of windows in a small picture, as a share of what is there without windows.

    Beside the borders of windows stand the same lines moved by 6 to 26 px, where no border is.
    """
    import pristina
    from pristina.image.picture import Picture
    from pristina.metrics.fidelity import psnr
    from pristina.priors import Windowed, load_prior
    from pristina.priors.windowed import window_starts

    torch.set_num_threads(1)
    size, window = (192, 256), 64
    grid = [set(window_starts(n, window, 0.5)) for n in size]
    lines = [(s | {a + window for a in s}) - {0, n} for s, n in zip(grid, size, strict=True)]
    moved = [[{n + d for n in some} for some in lines] for d in (0, *range(6, 27))]
    truth, photos = photograph(size), load_prior("photos")
    print("| method | at the borders | elsewhere, with the deviation | PSNR, whole | in windows |")
    print("| --- " * 5 + "|")
    fit = {"iterations": 4, "sampler_steps": 4}
    for method, settings in {"diip": fit, "bird": fit, "dps": {"steps": 20}}.items():
        y, options = damaged(size, method), {**METHODS[method], "settings": settings}
        images = []
        for name, prior in ("whole", photos), ("windows", Windowed(photos, window_px=window)):
            plan = pristina.plan(y, method=method, prior=prior, **options)
            images.append(pristina.run(plan, y[None]).images[0])
            Picture.from_pixels(images[-1]).save(out / f"{method}.{name}.png")
        whole, tiled = images
        shares = torch.tensor([seam(tiled, some) / seam(whole, some) for some in moved])
        quality = [f"{float(psnr(x[None], truth[None])):.2f}" for x in images]
        print(
            f"| {method} | {float(shares[0]):.3f} | {float(shares[1:].mean()):.3f} "
            f"± {float(shares[1:].std()):.3f} | {quality[0]} | {quality[1]} |",
            flush=True,
        )


def table(out: Path, large_size: tuple[int, int]) -> str:
    """Return the table of all cells that have been run."""
    height, width = large_size
    cells = {path.stem: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))}
    rows = [
        f"| method | prior | px at once | peak 512 | peak {width} | ratio | held at the size of "
        "the picture | seam, result | seam, truth | seconds |",
        "| --- " * 10 + "|",
    ]
    for method, prior in CELLS:
        stem = f"{method}.{prior.replace(' ', '-')}"
        small, large = cells.get(f"{stem}.512"), cells.get(f"{stem}.{width}")
        if small is None or large is None:
            continue
        a, b = (cell["peak"] / 2**20 for cell in (small, large))
        image = 3 * 4 * (height * width - 512 * 512) / 2**20
        rows.append(
            f"| {method} | {prior} | {large['pixels']} | {a:.0f} MiB | {b:.0f} MiB | {b / a:.2f} | "
            f"{(b - a) / image:.0f} images | {large['seam']:.3f} | {large['seam_truth']:.3f} | "
            f"{large['seconds']:.0f} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", default="3G")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/large"))
    parser.add_argument("--large", type=int, nargs=2, default=[1536, 2048], help="height, width")
    parser.add_argument("--only", nargs="*", default=[], help="methods")
    parser.add_argument("--priors", nargs="*", default=[], help="in place of all")
    parser.add_argument("--pixels", type=int, help="at once, in place of what the memory allows")
    parser.add_argument("--windows", action="store_true", help="seams of windows, nothing else")
    parser.add_argument("--cell", nargs=4, help="method, prior, height, width")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.windows:
        windows(options.out)
        return
    if options.cell:
        method, prior, height, width = options.cell
        how = options.memory, options.pixels, options.out
        run_cell(method, prior, (int(height), int(width)), *how)
        return
    for method, prior in CELLS:
        for size in (SMALL, tuple(options.large)):
            done = options.out / f"{method}.{prior.replace(' ', '-')}.{size[1]}.json"
            if done.exists() or (options.only and method not in options.only):
                continue
            if options.priors and prior not in options.priors:
                continue
            cell = ["--cell", method, prior, *map(str, size), "--memory", options.memory]
            cell += ["--pixels", str(options.pixels)] if options.pixels else []
            subprocess.run([sys.executable, __file__, *cell, "--out", str(options.out)], check=True)
            print(done.stem, flush=True)
    print(table(options.out, tuple(options.large)))


if __name__ == "__main__":
    main()
