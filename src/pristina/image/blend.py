"""What is kept of the damaged picture in the restored one: strength, grain, protected regions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)
GRAIN_PX = 2.0
"""Standard deviation, in pixels, of the Gaussian that parts grain from coarser changes."""


def blend(
    before: Tensor,
    after: Tensor,
    *,
    strength: float = 1.0,
    grain: float = 0.0,
    protected: Tensor | None = None,
) -> Tensor:
    """Return the restored picture with as much of the damaged one as is asked for.

    Args:
        before: Damaged picture, (3, H, W), in [0, 1]; it is enlarged to the size of ``after``.
        after: Restored picture, (3, H, W), in [0, 1].
        strength: Share of the change that is made, in [0, 1].
        grain: Share of the removed grain that is put back, in [0, 1]: of what was finer than
            :data:`GRAIN_PX`, in brightness alone, so that no colour noise comes back.
        protected: How far each pixel stays as it was, (1, H, W), in [0, 1].
    """
    if strength == 1 and not grain and protected is None:
        return after
    size = after.shape[-2:]
    if before.shape[-2:] != size:
        before = F.interpolate(
            before[None], size=size, mode="bicubic", align_corners=False, antialias=True
        )[0]
    before = before.to(after)
    removed = torch.einsum("c,chw->hw", after.new_tensor(LUMA), before - after)[None]
    mixed = before + strength * (after - before) + grain * (removed - _smooth(removed))
    if protected is not None:
        mixed = mixed + protected.to(after) * (before - mixed)
    return mixed.clamp(0, 1)


def _smooth(plane: Tensor) -> Tensor:
    """Blur one plane, (1, H, W), by a Gaussian; the border is repeated."""
    reach = round(3 * GRAIN_PX)
    offsets = torch.arange(-reach, reach + 1, dtype=plane.dtype, device=plane.device)
    kernel = torch.exp(-0.5 * (offsets / GRAIN_PX) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(plane[None], (reach,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel.view(1, 1, -1, 1))
    return F.conv2d(rows, kernel.view(1, 1, 1, -1))[0]
