"""Dust, scratches, hairs, cracks, tears and stains, drawn on pictures with the mask of where.

Every mark is drawn as a coverage in [0, 1], enlarged :data:`FINE` times so that its edges are soft,
and laid on the picture in its own colour. What a mark hardly changes, such as a white scratch on a
white sky, counts neither as a mark nor as clean.

Glossary:
    x: picture, (3, H, W) in [0, 1].
    coverage: share of each pixel that a mark covers, (H, W).
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from pristina.training.damage import jpeg, log_uniform, normal, smoothed, uniform
from pristina.training.kernels import convolve, draw_kernel

FINE = 2
"""Number of times that marks are drawn larger than they become."""
COVERED = 0.2
"""Coverage from which a pixel belongs to a mark."""
SEEN = 0.05
"""Change in [0, 1], in the channel that changes most, from which a mark is seen."""

Points = list[tuple[float, float]]
Canvas = ImageDraw.ImageDraw


def draw_marks(x: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Lay marks on a picture.

    Args:
        x: The picture, (3, H, W) in [0, 1].
        random: Generator from which the marks are drawn.

    Returns:
        The picture with marks; where they are, (1, H, W), 0 or 1; and which pixels count, (1, H,
        W), 0 or 1: not those that are covered without being seen.
    """
    height, width = x.shape[-2:]
    y, covered = x, torch.zeros(height, width)
    kinds = list(KINDS)
    for kind in random.choice(len(kinds), int(random.integers(1, 4)), replace=False, p=SHARES):
        coverage = _coverage(kinds[kind], height, width, random)
        coverage = coverage * uniform(0.45, 1.0, random)
        y = y + coverage * (_colour(x, random) - y)
        covered = torch.maximum(covered, coverage)
    change = (y - x).abs().amax(0)
    mask = (covered > COVERED) & (change > SEEN)
    counts = mask | (covered < 0.02)
    return y, mask[None].float(), counts[None].float()


def aged(x: Tensor, random: np.random.Generator) -> Tensor:
    """Give a clean picture what old photographs have beside marks: softness, grain, few colours."""
    if random.random() < 0.5:
        x = convolve(x, draw_kernel("gaussian", uniform(0.4, 1.6, random), random))
    if random.random() < 0.5:
        x = x.mean(0, keepdim=True).expand(3, -1, -1)
    if random.random() < 0.5:
        black = torch.from_numpy(random.uniform(0.0, 0.25, (3, 1, 1)).astype(np.float32))
        white = torch.from_numpy(random.uniform(0.65, 1.0, (3, 1, 1)).astype(np.float32))
        x = black + (white - black) * x
    if random.random() < 0.6:
        grain = normal((1, *x.shape[-2:]), random)
        if random.random() < 0.6:
            grain = smoothed(grain, uniform(0.5, 1.5, random), random)
        x = x + log_uniform(0.004, 0.06, random) * grain
    return x.clamp(0, 1)


def scanned(y: Tensor, random: np.random.Generator) -> Tensor:
    """Blur a picture with its marks slightly and compress it, as a scan is."""
    if random.random() < 0.5:
        y = convolve(y, draw_kernel("gaussian", uniform(0.3, 0.9, random), random))
    if random.random() < 0.4:
        y = y + log_uniform(0.002, 0.02, random) * normal(y.shape, random)
    if random.random() < 0.5:
        y = jpeg(y.clamp(0, 1), int(random.integers(50, 97)))
    return y.clamp(0, 1)


def draw_coverage(height: int, width: int, random: np.random.Generator) -> Tensor:
    """Draw marks of one kind, (H, W), in [0, 1]."""
    kind = list(KINDS)[int(random.choice(len(KINDS), p=SHARES))]
    return _coverage(kind, height, width, random)


def _number(kind: str, random: np.random.Generator) -> int:
    """Draw how many marks of a kind there are on a crop."""
    most = {"specks": 1, "scratch": 5, "hair": 3, "crack": 2, "tear": 1, "stain": 3}[kind]
    return int(random.integers(1, most + 1))


def _colour(x: Tensor, random: np.random.Generator) -> Tensor:
    """Draw the colour of a mark: white, black, or brown as stains are, with some texture.

    On a grey picture most marks are grey: it was scanned without colour.
    """
    which = random.random()
    if which < 0.6:
        base = np.full(3, uniform(0.75, 1.0, random))
    elif which < 0.85:
        base = np.full(3, uniform(0.0, 0.25, random))
    else:
        base = uniform(0.2, 0.8, random) * np.array([1.0, 0.85, 0.6])
    tint = base + random.normal(0, 0.03, 3)
    if torch.equal(x[0], x[1]) and random.random() < 0.7:
        tint = np.full(3, tint.mean())
    colour = torch.from_numpy(tint.astype(np.float32)).view(3, 1, 1)
    if random.random() < 0.5:
        colour = colour + 0.05 * smoothed(normal((1, *x.shape[-2:]), random), 1.0, random)
    return colour.clamp(0, 1)


def _coverage(kind: str, height: int, width: int, random: np.random.Generator) -> Tensor:
    """Draw some marks of a kind large, and reduce them to their coverage."""
    image = Image.new("L", (FINE * width, FINE * height))
    canvas = ImageDraw.Draw(image)
    for _ in range(_number(kind, random)):
        KINDS[kind](canvas, FINE * width, FINE * height, random)
    fine = torch.from_numpy(np.asarray(image, np.float32) / 255)[None, None]
    return F.avg_pool2d(fine, FINE)[0, 0]


def _walk(
    start: tuple[float, float],
    angle: float,
    length: float,
    step: float,
    bend: float,
    random: np.random.Generator,
) -> Points:
    """Walk from a point, turning at random by a deviation of ``bend`` radians a step."""
    points = [start]
    for _ in range(max(2, round(length / step))):
        angle += bend * float(random.standard_normal())
        left, top = points[-1]
        points.append((left + step * math.cos(angle), top + step * math.sin(angle)))
    return points


def _stroke(
    canvas: Canvas, points: Points, width: float, random: np.random.Generator, *, gaps: float = 0.0
) -> None:
    """Draw a line whose width varies along it, with gaps."""
    here, broken = width, False
    for first, second in pairwise(points):
        here = float(
            np.clip(here * math.exp(0.15 * random.standard_normal()), width / 2, 2 * width)
        )
        broken = random.random() < (0.8 if broken else gaps)
        if not broken:
            canvas.line([first, second], fill=255, width=max(1, round(here)))
            r = here / 2
            canvas.ellipse([second[0] - r, second[1] - r, second[0] + r, second[1] + r], fill=255)


def _blob(
    canvas: Canvas, centre: tuple[float, float], radius: float, random: np.random.Generator
) -> None:
    """Fill an irregular, stretched outline."""
    n = 14
    angles = np.linspace(0, 2 * math.pi, n, endpoint=False)
    radii = radius * np.exp(0.3 * random.standard_normal(n))
    radii = (radii + np.roll(radii, 1)) / 2
    stretch, turn = log_uniform(1, 2.5, random), uniform(0, math.pi, random)
    u, v = stretch * radii * np.cos(angles), radii * np.sin(angles)
    lefts = centre[0] + u * math.cos(turn) - v * math.sin(turn)
    tops = centre[1] + u * math.sin(turn) + v * math.cos(turn)
    canvas.polygon(list(zip(lefts.tolist(), tops.tolist(), strict=True)), fill=255)


def _place(width: float, height: float, random: np.random.Generator) -> tuple[float, float]:
    return random.random() * width, random.random() * height


def _specks(canvas: Canvas, width: float, height: float, random: np.random.Generator) -> None:
    for _ in range(int(log_uniform(2, 40, random))):
        radius = FINE * log_uniform(0.6, 3.5, random)
        _blob(canvas, _place(width, height, random), radius, random)


def _scratch(canvas: Canvas, width: float, height: float, random: np.random.Generator) -> None:
    upright = random.random() < 0.4
    angle = math.pi / 2 + 0.05 * random.standard_normal() if upright else uniform(0, 6.3, random)
    length = log_uniform(0.1, 2, random) * width
    start = _place(width, height, random)
    begin = (start[0] - length / 2 * math.cos(angle), start[1] - length / 2 * math.sin(angle))
    gaps = 0.15 if random.random() < 0.3 else 0.0
    points = _walk(begin, angle, length, 4 * FINE, uniform(0, 0.03, random), random)
    _stroke(canvas, points, FINE * log_uniform(0.6, 3, random), random, gaps=gaps)


def _hair(canvas: Canvas, width: float, height: float, random: np.random.Generator) -> None:
    start, angle = _place(width, height, random), uniform(0, 6.3, random)
    length = log_uniform(0.08, 0.6, random) * width
    points = _walk(start, angle, length, 2 * FINE, uniform(0.1, 0.3, random), random)
    _stroke(canvas, points, FINE * log_uniform(0.7, 1.8, random), random)


def _crack(canvas: Canvas, width: float, height: float, random: np.random.Generator) -> None:
    """Draw a jagged line with branches."""
    start, angle = _place(width, height, random), uniform(0, 6.3, random)
    thick = FINE * log_uniform(0.8, 4, random)
    length = log_uniform(0.3, 1.5, random) * width
    trunk = _walk(start, angle, length, 3 * FINE, uniform(0.15, 0.5, random), random)
    _stroke(canvas, trunk, thick, random)
    for _ in range(int(random.integers(0, 5))):
        fork = trunk[int(random.integers(len(trunk)))]
        branch = _walk(
            fork,
            uniform(0, 6.3, random),
            uniform(0.1, 0.5, random) * length,
            3 * FINE,
            0.35,
            random,
        )
        _stroke(canvas, branch, thick * uniform(0.3, 0.8, random), random)


def _tear(canvas: Canvas, width: float, height: float, random: np.random.Generator) -> None:
    """Draw a ragged band from one side of the crop to another place, or fill a torn corner."""
    thick = FINE * log_uniform(3, 14, random)
    start = (
        (random.random() * width, 0.0) if random.random() < 0.5 else (0.0, random.random() * height)
    )
    goal = _place(width, height, random)
    angle = math.atan2(goal[1] - start[1], goal[0] - start[0])
    length = math.hypot(goal[1] - start[1], goal[0] - start[0]) + 2 * thick
    middle = _walk(start, angle, length, 3 * FINE, 0.2, random)
    if random.random() < 0.3:
        corner = (0.0 if start[0] < width / 2 else width, 0.0)
        canvas.polygon([corner, *middle], fill=255)
    _stroke(canvas, middle, thick, random)


def _stain(canvas: Canvas, width: float, height: float, random: np.random.Generator) -> None:
    centre, radius = _place(width, height, random), FINE * log_uniform(3, 16, random)
    for _ in range(int(random.integers(1, 5))):
        near = (
            centre[0] + radius * random.standard_normal(),
            centre[1] + radius * random.standard_normal(),
        )
        _blob(canvas, near, radius * uniform(0.4, 1.0, random), random)


KINDS = {
    "specks": _specks,
    "scratch": _scratch,
    "hair": _hair,
    "crack": _crack,
    "tear": _tear,
    "stain": _stain,
}
SHARES = (0.25, 0.3, 0.12, 0.18, 0.05, 0.1)
"""How often each kind is drawn."""
