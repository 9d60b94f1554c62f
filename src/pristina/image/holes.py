"""Holes in images: smooth filling from around, without a network.

Glossary:
    x: images, (B, C, H, W).
    holes: 1 where pixels are missing, else 0, (1, 1, H, W).
    L: the discrete Laplacian.

Source:
    Chui and Mhaskar, "MRA contextual-recovery extension of smooth functions on manifolds", 2010:
    the filling u with ``L^2 u = 0`` in the holes (a bent plate). Difference: a share of a stretched
    membrane is added, ``(L^2 + 0.3 L) u = 0``, because the plate alone swings out in wide holes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.image.alpha import fill_transparent
from pristina.image.cells import cells_with_holes

MEMBRANE = 0.3
"""Weight of the membrane beside the plate."""
ITERATIONS = 60
"""Largest number of steps of conjugate gradients."""
TOLERANCE = 1e-4
"""Share of its first residual at which they end."""
CELL_PX, MARGIN_PX = 128, 16
"""Side of the parts in which holes are filled, and how far beyond them is looked, in pixels."""


def fill_smoothly(x: Tensor, holes: Tensor) -> Tensor:
    """Fill holes smoothly from around; all other pixels stay the same to the bit.

    Args:
        x: Images, (B, C, H, W), in [0, 1]; what is in the holes is not looked at.
        holes: Holes, (1, 1, H, W), 0 or 1, but not everywhere 1.

    Example:
        >>> ramp = torch.linspace(0.2, 0.8, 40).expand(1, 1, 40, 40)
        >>> holes = torch.zeros(1, 1, 40, 40)
        >>> holes[..., 15:20, 15:20] = 1
        >>> bool((fill_smoothly(ramp * (1 - holes), holes) - ramp).abs().max() < 1e-3)
        True
    """
    known = 1 - holes[0]
    rough = torch.stack([fill_transparent(image * known, known) for image in x])
    found = torch.where(holes > 0, rough, x)
    for cell in cells_with_holes(holes[0, 0], side=CELL_PX, margin=MARGIN_PX):
        part, gaps = rough[(..., *cell.crop)], holes[(..., *cell.crop)]
        inner = _relaxed(part, gaps)[(..., *cell.inside)].clamp(0, 1)
        core = (..., *cell.core)
        found[core] = torch.where(holes[core] > 0, inner, found[core])
    return found


def _relaxed(u: Tensor, holes: Tensor) -> Tensor:
    """Solve ``(L^2 + MEMBRANE L) u = 0`` in the holes, beginning with ``u``."""

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum((1, 2, 3), keepdim=True)

    def bent(v: Tensor) -> Tensor:
        once = _laplacian(v)
        return holes * (_laplacian(once) + MEMBRANE * once)

    r = -bent(u)
    p, rr = r, dot(r, r)
    goal = TOLERANCE**2 * rr
    for _ in range(ITERATIONS):
        if bool((rr <= goal).all()):
            break
        q = bent(p)
        step = rr / dot(p, q).clamp(min=1e-20)
        u, r = u + step * p, r - step * q
        last, rr = rr, dot(r, r)
        p = r + rr / last.clamp(min=1e-20) * p
    return u


def _laplacian(x: Tensor) -> Tensor:
    """Return four times each pixel less its neighbours; the border is repeated."""
    p = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return 4 * x - p[..., 2:, 1:-1] - p[..., :-2, 1:-1] - p[..., 1:-1, 2:] - p[..., 1:-1, :-2]
