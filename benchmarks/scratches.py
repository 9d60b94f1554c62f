"""Measure how scratches are found and how holes are filled, on marks drawn by another generator.

    python -m benchmarks.scratches --pictures KODAK --count 24

The marks with which the finder was trained are drawn with strokes and polygons
(``pristina.training.marks``). Those here come from fields of numbers: dust from noise above a
bound, scratches and hairs from distances to curves, cracks from the edges of Voronoi cells, stains
from the levels of smooth noise. Every second picture is made grey and given the colours of an old
print.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import cyclopts
import numpy as np
import torch
from benchmarks.common import RESULTS, pictures_of, write
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.spatial import cKDTree
from skimage.restoration import inpaint_biharmonic
from torch import Tensor

from pristina.filling import find_scratches
from pristina.image.holes import fill_smoothly
from pristina.priors.load import load_weights
from pristina.restoration import restore

Field = np.ndarray
"""Numbers, one for each pixel, (H, W)."""


def dust(shape: tuple[int, int], random: np.random.Generator) -> Field:
    """Return specks: noise of one size above a bound, in some regions."""
    size = random.uniform(0.8, 2.5)
    field = gaussian_filter(random.standard_normal(shape), size)
    where = gaussian_filter(random.standard_normal(shape), 60) > 0
    return (field > np.quantile(field, 1 - random.uniform(0.002, 0.008))) & where


def curves(shape: tuple[int, int], random: np.random.Generator) -> Field:
    """Return scratches (nearly straight) and hairs (bent), as far as a width from a curve."""
    found = np.zeros(shape, bool)
    for _ in range(int(random.integers(4, 12))):
        ends = random.random((2, 2)) * shape
        bend = random.uniform(0.0, 0.02 if random.random() < 0.7 else 0.4)
        t = np.linspace(0, 1, 2000)[:, None]
        normal = (ends[1] - ends[0])[::-1] * (1, -1)
        length = 1.0 if random.random() < 0.5 else random.uniform(0.1, 0.4)
        points = ends[0] + length * t * (ends[1] - ends[0])
        points = points + bend * normal * np.sin(3 * t * random.uniform(0.5, 2)) * length
        inside = ((points >= 0) & (points < shape)).all(1)
        rows, columns = points[inside].astype(int).T
        line = np.ones(shape, bool)
        line[rows, columns] = False
        found |= distance_transform_edt(line) < random.uniform(0.6, 1.8)
    return found


def cracks(shape: tuple[int, int], random: np.random.Generator) -> Field:
    """Return edges of Voronoi cells, bent, in a part of the picture."""
    cells = cKDTree(random.random((int(random.integers(20, 60)), 2)) * shape)
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).astype(float)
    for axis in range(2):
        places[..., axis] += 150 * gaussian_filter(random.standard_normal(shape), 8)
    near, next_ = np.moveaxis(cells.query(places.reshape(-1, 2), 2)[0], 1, 0)
    edge = (next_ - near).reshape(shape) < random.uniform(1.5, 4)
    where = gaussian_filter(random.standard_normal(shape), 70)
    return edge & (where > np.quantile(where, random.uniform(0.6, 0.85)))


def stains(shape: tuple[int, int], random: np.random.Generator) -> Field:
    """Return a few blots: where smooth noise is highest."""
    field = gaussian_filter(random.standard_normal(shape), random.uniform(8, 16))
    return field > np.quantile(field, 1 - random.uniform(0.002, 0.01))


KINDS = (dust, curves, cracks, stains)


def damage(x: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a picture as it was before marks, with them, and where they are, each (C, H, W)."""
    random = np.random.default_rng((77, seed))
    if seed % 2:
        grey = x.mean(0, keepdim=True).expand(3, -1, -1)
        tint = torch.tensor([0.9, 0.8, 0.65]).view(3, 1, 1)
        x = 0.08 + grey * (tint - 0.08)
    y, shape = x, (x.shape[-2], x.shape[-1])
    everywhere = np.zeros(shape, bool)
    for kind in KINDS:
        marks = kind(shape, random)
        soft = torch.from_numpy(gaussian_filter(marks.astype(np.float32), 0.5))
        light = random.random() < 0.75
        colour = random.uniform(0.8, 1.0) if light else random.uniform(0.0, 0.2)
        y = torch.lerp(y, torch.tensor(colour).float(), random.uniform(0.7, 1.0) * soft)
        everywhere |= marks
    seen = (y - x).abs().amax(0) > 0.05
    mask = torch.from_numpy(everywhere) & seen
    return (255 * x).round() / 255, (255 * y.clamp(0, 1)).round() / 255, mask[None]


def by_skimage(y: Tensor, holes: Tensor) -> Tensor:
    """Fill with scikit-image's biharmonic inpainting."""
    found = inpaint_biharmonic(y.permute(1, 2, 0).numpy(), holes[0].numpy() > 0, channel_axis=-1)
    return torch.from_numpy(found).permute(2, 0, 1).float()


def by_opencv(flag: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Fill with OpenCV's inpainting, radius 3 px."""

    def fill(y: Tensor, holes: Tensor) -> Tensor:
        import cv2

        pixels = (255 * y).byte().permute(1, 2, 0).numpy()
        marked = (255 * holes[0]).byte().numpy()
        found = cv2.inpaint(pixels, marked, 3, getattr(cv2, flag))
        return torch.from_numpy(found).permute(2, 0, 1).float() / 255

    return fill


def fillers() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Return what fills holes; OpenCV only where it is installed."""
    found: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "pristina (smooth)": lambda y, holes: fill_smoothly(y[None], holes[None])[0],
        "scikit-image, biharmonic": by_skimage,
    }
    try:
        import cv2  # noqa: F401
    except ImportError:
        return found
    telea, stokes = by_opencv("INPAINT_TELEA"), by_opencv("INPAINT_NS")
    return {**found, "OpenCV, Telea": telea, "OpenCV, Navier-Stokes": stokes}


def main(pictures: Path, *, count: int = 24, size: int = 0, out: Path = RESULTS) -> None:
    """Write ``OUT/scratches.md``.

    Parameters
    ----------
    pictures
        Folder of clean pictures that nothing was trained on.
    count
        Number of pictures, from the first.
    size
        Side of the middle that is cut out, in pixels; 0 takes whole pictures.
    out
        Folder of the table.
    """
    finder = load_weights("scratches", "scratches")
    ways = {"with the marks": lambda y, holes: y, **fillers()}
    sums = dict.fromkeys(("hits", "found", "marks"), 0.0)
    figures: dict[str, list[float]] = {name: [] for name in (*ways, "clean", "marked", "repaired")}
    seconds = dict.fromkeys(ways, 0.0)
    for seed, picture in enumerate(pictures_of(pictures, count, size)):
        x, y, mask = damage(picture[0], seed)
        found = find_scratches(finder, y) > 0
        near = torch.nn.functional.max_pool2d(mask.float(), 3, 1, 1) > 0
        sums["hits"] += float((found & near).sum())
        sums["found"] += float(found.sum())
        sums["marks"] += float(mask.sum())
        sums["seen"] = sums.get("seen", 0.0) + float((found & mask).sum())
        holes = near.float()
        for name, fill in ways.items():
            begun = time.perf_counter()
            filled = fill(y, holes)
            seconds[name] += time.perf_counter() - begun
            figures[name].append(_psnr(filled, x, holes))
        everywhere = torch.ones_like(holes)
        figures["marked"].append(_psnr(y, x, everywhere))
        done = restore(y, method="nothing", scratches=True).picture.pixels
        figures["repaired"].append(_psnr(done, x, everywhere))
        figures["clean"].append(float((find_scratches(finder, x) > 0).float().mean()))
    recall, precision = sums["seen"] / sums["marks"], sums["hits"] / max(1.0, sums["found"])
    n = len(figures["marked"])
    rows = [[name, f"{np.mean(figures[name]):.2f}", f"{seconds[name] / n:.1f}"] for name in ways]
    before, after = figures["marked"], figures["repaired"]
    better = sum(b > a for a, b in zip(before, after, strict=True))
    notes = (
        f"{n} pictures. Found: recall {recall:.2f}, precision {precision:.2f} (a pixel next to a "
        f"mark counts as one); {100 * np.mean(figures['clean']):.2f} % of the pixels of the same "
        f"pictures without marks are taken for marks. Whole pictures: {np.mean(before):.2f} dB "
        f"with the marks, {np.mean(after):.2f} dB after --scratches; {better} of {n} better. "
        "Below: PSNR in the places of the marks, known exactly."
    )
    write(out, "scratches", "Scratches", ["filled by", "PSNR (dB)", "seconds"], rows, notes)


def _psnr(found: Tensor, x: Tensor, where: Tensor) -> float:
    """Return the PSNR in dB in some places, (1, H, W)."""
    error = ((found.clamp(0, 1) - x).square() * where).sum() / (3 * where.sum())
    return float(-10 * error.log10())


if __name__ == "__main__":
    cyclopts.run(main)
