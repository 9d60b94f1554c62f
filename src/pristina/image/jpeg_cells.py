"""What a JPEG file says about its picture: each coefficient lies in a known interval, its cell.

A JPEG encoder turns the picture into brightness and two colour differences, takes means over 2 x 2
pixels of the differences (or keeps them), transforms blocks of 8 x 8 pixels, divides by the tables
and rounds. A picture that is said to be behind the file must come out of all this with the
coefficients of the file: :meth:`JpegCells.project` moves a restored picture to the nearest one that
does.

Source:
    ITU-T T.81, annexes A and F; JFIF 1.02 for the colours. The projection onto the cells is that of
    Zakhor, Iterative procedures for reduction of blocking effects, 1992.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

SIDE = 8
MARGIN = 1.2
"""How far inside its cell a coefficient is brought, in units of 1/255; at most 0.45 of the cell.
Rounding the picture to 8 bits and encoding it again then keeps it there."""

TOLERANCE = 1.5
"""Largest difference of a sample, in units of 1/255, that the decoder's arithmetic explains."""

_TO_YCC = torch.tensor(
    [
        [0.299, 0.587, 0.114],
        [-0.299 / 1.772, -0.587 / 1.772, 0.5],
        [0.5, -0.587 / 1.402, -0.114 / 1.402],
    ],
    dtype=torch.float64,
)
_TO_RGB = torch.linalg.inv(_TO_YCC)
_DCT = torch.tensor(
    [
        [
            math.sqrt((1 if k == 0 else 2) / SIDE) * math.cos(math.pi * (2 * n + 1) * k / 16)
            for n in range(SIDE)
        ]
        for k in range(SIDE)
    ],
    dtype=torch.float64,
)


@dataclass(frozen=True)
class JpegCells:
    """Cells of one JPEG file.

    Attributes:
        size: Height and width of the picture, in pixels.
        steps: Quantisation steps of each component, (8, 8), in units of 1/255.
        levels: Quantised coefficients of each component, (rows, columns, 8, 8).
        known: Blocks of each component, (rows, columns), whose coefficients are certain. Those that
            clip, and those that the edge of the picture cuts, are not.
        factors: How many pixels high and wide is one sample of each component.
    """

    size: tuple[int, int]
    steps: tuple[Tensor, ...]
    levels: tuple[Tensor, ...]
    known: tuple[Tensor, ...]
    factors: tuple[tuple[int, int], ...]

    @classmethod
    def read(cls, content: bytes) -> JpegCells | None:
        """Read the cells of a JPEG file; return None where they cannot be told.

        That is so for files with more than three components, with other subsamplings than 1 and 2,
        and for those that are not JPEG at all.

        Args:
            content: Bytes of the file.
        """
        image = Image.open(io.BytesIO(content), formats=["JPEG"])
        layers = [tuple(layer) for layer in getattr(image, "layer", [])]
        if len(layers) not in (1, 3) or image.mode not in ("L", "RGB"):
            return None
        # Pillow tells (component, horizontal, vertical, table).
        wide, high = (max(layer[i] for layer in layers) for i in (1, 2))
        factors = tuple((high // layer[2], wide // layer[1]) for layer in layers)
        if factors[0] != (1, 1) or any(f not in (1, 2) for pair in factors for f in pair):
            return None
        drafts = {factor: _draft(content, factor) for factor in set(factors)}
        tables = getattr(image, "quantization", {})
        found = [
            _component(drafts[factor], k, tables[layer[3]])
            for k, (layer, factor) in enumerate(zip(layers, factors, strict=True))
        ]
        steps, levels, known = zip(*found, strict=True)
        return cls((image.height, image.width), steps, levels, known, factors)

    def project(self, pixels: Tensor, decoded: Tensor, rounds: int = 6) -> Tensor:
        """Return a picture close to ``pixels`` that could have produced the file.

        Args:
            pixels: Picture, (3, H, W), in [0, 1], of the size of the file.
            decoded: Picture in the file, (3, H, W), in [0, 1]. It is taken for the few blocks that
                leave their cells when the colours are brought into range and rounded to 8 bits.
            rounds: Number of turns; in each the picture is brought into the cells, and then into
                [0, 1].
        """
        rgb = pixels.double().cpu()
        for _ in range(rounds):
            ycc = torch.einsum("ij,jhw->ihw", _TO_YCC, 255 * rgb)
            moved = [plane + self._way_back(k, plane)[0] for k, plane in enumerate(ycc[: self.n])]
            ycc = torch.stack([*moved, *ycc[self.n :]])
            rgb = (torch.einsum("ij,jhw->ihw", _TO_RGB, ycc) / 255).clamp(0, 1)
        stored = torch.einsum("ij,jhw->ihw", _TO_YCC, (255 * rgb).round()).round()
        left = torch.stack(
            [self._way_back(k, plane)[1] for k, plane in enumerate(stored[: self.n])]
        )
        return torch.where(left.any(0), decoded.double().cpu(), rgb).to(pixels.dtype)

    @property
    def n(self) -> int:
        """Number of components."""
        return len(self.steps)

    def _way_back(self, k: int, plane: Tensor) -> tuple[Tensor, Tensor]:
        """Return what brings one component into its cells, and the pixels of blocks outside.

        Args:
            k: Number of the component.
            plane: Its values, (H, W), in [0, 255] or around 0.

        Returns:
            The change of each pixel, (H, W), and whether the block to which it belongs has other
            levels than the file, (H, W).
        """
        small = _reduce(plane, self.factors[k]) - (128.0 if k == 0 else 0.0)
        step, levels, known = self.steps[k], self.levels[k], self.known[k][..., None, None]
        nearest = _dct(_blocks(small)) / step
        reach = 0.5 - (MARGIN / step).clamp(max=0.45)
        change = torch.where(known, (nearest.clamp(levels - reach, levels + reach) - nearest), 0.0)
        outside = known & (nearest.round() != levels).any(-1, True).any(-2, True)
        maps = []
        for blocks in (_idct(change * step), outside.expand(-1, -1, SIDE, SIDE).double()):
            repeated = _picture(blocks)[: small.shape[0], : small.shape[1]]
            for dim in (0, 1):
                repeated = repeated.repeat_interleave(self.factors[k][dim], dim)
            maps.append(repeated[: plane.shape[0], : plane.shape[1]])
        return maps[0], maps[1] > 0


def _draft(content: bytes, factor: tuple[int, int]) -> tuple[Tensor | None, tuple[int, int]]:
    """Return the samples of all components, (h, w, C), at the size of those with this factor.

    Where both sides of a sample measure 2 pixels, the decoder is asked for a draft of half size,
    for which it need not enlarge the component. A component reduced in one direction is smoothed by
    every decoder: None stands for its samples, beside their height and width.
    """
    image = Image.open(io.BytesIO(content), formats=["JPEG"])
    width, height = image.size
    shape = -(-height // factor[0]), -(-width // factor[1])
    asked = max(1, width // factor[1]), max(1, height // factor[0])
    image.draft("L" if image.mode == "L" else "YCbCr", asked)
    samples = torch.from_numpy(np.asarray(image).reshape(image.height, image.width, -1).copy())
    return (samples if tuple(samples.shape[:2]) == shape else None), shape


def _component(
    draft: tuple[Tensor | None, tuple[int, int]], k: int, table: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return steps, levels and certain blocks of component ``k``.

    A block is certain if its levels give its samples again, to within the rounding.

    Args:
        draft: What :func:`_draft` returned for the factor of the component.
        k: Number of the component.
        table: The 64 quantisation steps.
    """
    samples, shape = draft
    plane = torch.zeros(shape).double() if samples is None else samples[..., k].double() - 128
    step = torch.tensor(table, dtype=torch.float64).view(SIDE, SIDE)
    blocks = _blocks(plane)
    levels = (_dct(blocks) / step).round()
    again = _idct(levels * step).clamp(-128, 127)
    known = (again - blocks).abs().flatten(2).amax(-1) <= TOLERANCE
    if samples is None:
        known[:] = False
    known[shape[0] // SIDE :], known[:, shape[1] // SIDE :] = False, False
    return step, levels, known


def _reduce(plane: Tensor, factor: tuple[int, int]) -> Tensor:
    """Return means over the pixels of each sample; the last rows and columns are repeated."""
    high, wide = factor
    padded = F.pad(
        plane[None, None], (0, -plane.shape[1] % wide, 0, -plane.shape[0] % high), mode="replicate"
    )
    return F.avg_pool2d(padded, factor)[0, 0]


def _blocks(plane: Tensor) -> Tensor:
    """Cut (H, W) into (rows, columns, 8, 8); the last rows and columns are repeated."""
    pad = (0, -plane.shape[1] % SIDE, 0, -plane.shape[0] % SIDE)
    padded = F.pad(plane[None, None], pad, mode="replicate")[0, 0]
    return padded.unfold(0, SIDE, SIDE).unfold(1, SIDE, SIDE)


def _picture(blocks: Tensor) -> Tensor:
    rows, columns = blocks.shape[:2]
    return blocks.permute(0, 2, 1, 3).reshape(rows * SIDE, columns * SIDE)


def _dct(blocks: Tensor) -> Tensor:
    return _DCT @ blocks @ _DCT.T


def _idct(coefficients: Tensor) -> Tensor:
    return _DCT.T @ coefficients @ _DCT
