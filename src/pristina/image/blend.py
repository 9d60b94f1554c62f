"""What is kept of the damaged picture in the restored one: strength, grain, protected regions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import PictureError
from pristina.image.picture import Picture

LUMA = (0.299, 0.587, 0.114)
GRAIN_PX = 2.0
"""Standard deviation, in pixels, of the Gaussian that parts grain from coarser changes."""


def read_mask(path: str, size: tuple[int, int]) -> Tensor:
    """Read a mask, (1, H, W), in [0, 1]: the brightness of a picture file.

    Args:
        path: Path of the file.
        size: Height and width that it must have, in pixels.

    Raises:
        PictureError: It cannot be read, or has another size.
    """
    mask = Picture.open(path)
    if mask.size != size:
        raise PictureError(
            f"{path} has {mask.size[1]} x {mask.size[0]} px and the picture "
            f"{size[1]} x {size[0]} px; a mask must have the size of the picture."
        )
    return mask.pixels.mean(0, keepdim=True)


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
        protected: How far each pixel stays as it was, (1, H, W), in [0, 1], of the size of
            ``before``.
    """
    if strength == 1 and not grain and protected is None:
        return after
    size = after.shape[-2:]
    before = _enlarged(before, size).to(after)
    removed = torch.einsum("c,chw->hw", after.new_tensor(LUMA), before - after)[None]
    mixed = torch.lerp(before, after, strength) + grain * (removed - _smooth(removed))
    if protected is not None:
        mixed = torch.lerp(mixed, before, _enlarged(protected, size).to(after))
    return mixed.clamp(0, 1)


def _enlarged(x: Tensor, size: torch.Size) -> Tensor:
    if x.shape[-2:] == size:
        return x
    large = F.interpolate(x[None], size=size, mode="bicubic", align_corners=False, antialias=True)
    return large[0].clamp(0, 1)


def _smooth(plane: Tensor) -> Tensor:
    """Blur one plane, (1, H, W), by a Gaussian; the border is repeated."""
    reach = round(3 * GRAIN_PX)
    offsets = torch.arange(-reach, reach + 1, dtype=plane.dtype, device=plane.device)
    kernel = torch.exp(-0.5 * (offsets / GRAIN_PX) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(plane[None], (reach,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel.view(1, 1, -1, 1))
    return F.conv2d(rows, kernel.view(1, 1, 1, -1))[0]
