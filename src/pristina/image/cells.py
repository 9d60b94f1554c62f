"""The parts of a picture in which there are holes: cells of a grid and what lies around them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Cell:
    """A part of a picture with holes, and the larger part that is looked at to fill them.

    Attributes:
        top: First row in which there is a hole.
        bottom: Row after the last one.
        left: First column in which there is a hole.
        right: Column after the last one.
        seen: First row, row after the last, first column and column after the last of the larger
            part.
    """

    top: int
    bottom: int
    left: int
    right: int
    seen: tuple[int, int, int, int]

    @property
    def crop(self) -> tuple[slice, slice]:
        """Rows and columns of the larger part."""
        return slice(*self.seen[:2]), slice(*self.seen[2:])

    @property
    def core(self) -> tuple[slice, slice]:
        """Rows and columns of the holes."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the holes within the larger part."""
        top, left = self.seen[0], self.seen[2]
        return (
            slice(self.top - top, self.bottom - top),
            slice(self.left - left, self.right - left),
        )


def cells_with_holes(holes: Tensor, *, side: int, margin: int, multiple: int = 1) -> list[Cell]:
    """Return the cells of a grid in which there are holes, each as narrow as its holes.

    Args:
        holes: Holes, (H, W), 0 or 1.
        side: Side of a cell of the grid, in pixels, a multiple of ``multiple``.
        margin: Number of pixels that are looked at beyond the holes of a cell, where the picture
            goes on.
        multiple: Grid on which the larger parts begin and, unless the picture ends there, end.

    Example:
        >>> import torch
        >>> holes = torch.zeros(100, 100)
        >>> holes[10:12, 60] = 1
        >>> cells_with_holes(holes, side=50, margin=8)[0].seen
        (2, 20, 52, 69)
    """
    height, width = holes.shape
    found = []
    for first_row in range(0, height, side):
        for first_column in range(0, width, side):
            part = holes[first_row : first_row + side, first_column : first_column + side] > 0
            if not part.any():
                continue
            rows, columns = (part.any(d).nonzero().flatten().tolist() for d in (1, 0))
            top, bottom = first_row + rows[0], first_row + rows[-1] + 1
            left, right = first_column + columns[0], first_column + columns[-1] + 1
            seen = (
                *_around(top, bottom, height, margin, multiple),
                *_around(left, right, width, margin, multiple),
            )
            found.append(Cell(top, bottom, left, right, seen))
    return found


def _around(first: int, last: int, n: int, margin: int, multiple: int) -> tuple[int, int]:
    """Widen a stretch by a margin, to the grid, within ``n`` pixels."""
    first = max(0, first - margin) // multiple * multiple
    last = min(n, -(-(last + margin) // multiple) * multiple)
    return first, last


def from_the_edge(cells: list[Cell], holes: Tensor) -> Iterator[Cell]:
    """Yield cells, always the one next of which the largest share of what it sees is known.

    What lies in the holes of a cell is known as soon as the next one is asked for. Large holes are
    filled from their edges in this way.

    Args:
        cells: The cells.
        holes: Holes, (H, W), 0 or 1; changed to what is still unknown.
    """
    unknown = [float(holes[cell.crop].mean()) for cell in cells]
    left = set(range(len(cells)))
    while left:
        best = min(left, key=lambda i: unknown[i])
        left.remove(best)
        yield cells[best]
        holes[cells[best].core] = 0
        for i in left:
            if _overlap(cells[i].seen, cells[best].seen):
                unknown[i] = float(holes[cells[i].crop].mean())


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
