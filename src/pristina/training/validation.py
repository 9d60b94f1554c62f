"""The pictures that training never sees, and the damage on which its progress is measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pristina.errors import InputError, PictureError
from pristina.training.damage import down_up, eight_bits, jpeg
from pristina.training.data import list_pictures, read_image, to_stderr, to_tensor
from pristina.training.kernels import MARGIN_PX, convolve, draw_kernel
from pristina.training.mixture import DegradationMixture, degrade

N_PHOTOGRAPHS = 12
N_FACES = 150

HeldOut = dict[str, Tensor]
"""Pairs that are never trained on, by name: (n, 2, 3, H, W) in [0, 1], the clean picture first."""

T = TypeVar("T")


def held_out_pictures(groups: Sequence[Sequence[Path]]) -> tuple[list[Path], set[Path]]:
    """Choose the pictures that are set aside from training, always the same ones.

    The first folder is one of photographs and gives :func:`held_out_photographs`; each further one
    (faces, say) gives :func:`held_out_faces`. Never more than a tenth of a folder is set aside, but
    at least one picture.

    Args:
        groups: The pictures of each folder.

    Returns:
        The photographs on which progress is measured, and all pictures that are set aside.

    Raises:
        InputError: The first folder would be left empty.
    """
    first = groups[0]
    photographs = held_out_photographs(first, min(N_PHOTOGRAPHS, max(1, len(first) // 10)))
    if len(photographs) == len(first):
        raise InputError(
            "There is one picture only; one is set aside for the held-out figures, "
            "so at least two are needed."
        )
    aside = set(photographs)
    for group in groups[1:]:
        aside |= set(held_out_faces(group, min(N_FACES, len(group) // 10)))
    return photographs, aside


def divided(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Divide the pictures of folders by :func:`held_out_pictures`.

    Args:
        folders: Folders of pictures; the first one is of photographs.

    Returns:
        The pictures to train on, and the photographs on which progress is measured.
    """
    groups = [list_pictures(folder) for folder in folders]
    photographs, aside = held_out_pictures(groups)
    return [path for group in groups for path in group if path not in aside], photographs


def held_out_share(items: Sequence[T], every: int = 30) -> list[T]:
    """Choose every 30th of items that come in a fixed order: the first, the 31st, and so on."""
    return list(items[::every])


def held_out_photographs(paths: Sequence[Path], n: int = N_PHOTOGRAPHS) -> list[Path]:
    """Choose the photographs that are set aside for validation, always the same ones.

    The set of a photograph is its file name up to the first underscore. The sets, in the order of
    their names, share the ``n`` places as equally as they can. The k-th of the q pictures of a set,
    counted from 0, is the one at ``(k + 0.2) / q`` of the set sorted by name.

    Args:
        paths: All photographs.
        n: How many are set aside.

    Returns:
        The chosen paths, sorted by name.
    """
    sets: dict[str, list[Path]] = {}
    for path in sorted(paths, key=lambda p: p.name):
        sets.setdefault(path.name.partition("_")[0], []).append(path)
    quota = dict.fromkeys(sorted(sets), 0)
    while sum(quota.values()) < min(n, len(paths)):
        for name in quota:
            if quota[name] < len(sets[name]) and sum(quota.values()) < n:
                quota[name] += 1
    chosen = [
        sets[name][int((k + 0.2) * len(sets[name]) / q)]
        for name, q in quota.items()
        for k in range(q)
    ]
    return sorted(chosen, key=lambda p: p.name)


def held_out_faces(paths: Sequence[Path], n: int = N_FACES) -> list[Path]:
    """Choose the faces that are set aside for validation: evenly spaced in the order of names.

    Args:
        paths: All faces.
        n: How many are set aside.

    Returns:
        The chosen paths, sorted by name.
    """
    ordered = sorted(paths, key=lambda p: p.name)
    n = min(n, len(ordered))
    return [ordered[i * len(ordered) // n] for i in range(n)]


def validation_damage(x: Tensor, index: int, mixture: DegradationMixture) -> dict[str, Tensor]:
    """Damage one clean picture in every way that is measured.

    Args:
        x: The clean picture, (3, H, W) in [0, 1], with a margin that the caller cuts off.
        index: Number of the picture, the seed of what is drawn.
        mixture: The mixture of the training, for the entry ``mixture``.

    Returns:
        Degraded pictures of the same size by name, each clipped and rounded to 8 bits.
    """
    random = np.random.default_rng((7, index))
    noise = torch.from_numpy(random.standard_normal(tuple(x.shape), dtype=np.float32))
    soft = convolve(x, draw_kernel("gaussian", 1.6, random))
    mixed = jpeg(convolve(x, draw_kernel("gaussian", 1.0, random)) + 15 / 255 * noise, 50)
    ways = {
        "noise15": x + 15 / 255 * noise,
        "noise25": x + 25 / 255 * noise,
        "noise50": x + 50 / 255 * noise,
        "jpeg10": jpeg(x, 10),
        "jpeg40": jpeg(x, 40),
        "x4": down_up(x, 4),
        "blur1.6": soft,
        "mixed": mixed,
        "clean": x,
        "mixture": degrade(mixture, x, np.random.default_rng((8, index))),
    }
    return {name: eight_bits(y) for name, y in ways.items()}


def held_out_pairs(crops: Tensor, mixture: DegradationMixture) -> HeldOut:
    """Damage the held-out pictures in every way that is measured, and cut off their margins.

    Args:
        crops: Clean pictures with their margins, (n, 3, H, W) in [0, 1].
        mixture: The mixture of the training.

    Returns:
        Pairs by name of the damage.
    """
    ways = [validation_damage(x, i, mixture) for i, x in enumerate(crops)]
    cut = slice(MARGIN_PX, -MARGIN_PX)
    return {
        name: torch.stack([crops, torch.stack([way[name] for way in ways])], 1)[..., cut, cut]
        for name in ways[0]
    }


def read_centres(paths: Sequence[Path], least_px: int, most_px: int, n: int = 24) -> Tensor:
    """Read the middle of each picture, with a margin, at a multiple of 8 px from its corner.

    Files that cannot be read, or are too small, are passed over with one sentence.

    Args:
        paths: The files.
        least_px: Side of the crops that each picture must allow.
        most_px: Side of the crops if all pictures are large enough; else as much as all allow.
        n: Number of pictures that are read at most.

    Returns:
        Clean pictures with their margins, (n, 3, H, W) in [0, 1].

    Raises:
        InputError: No picture is large enough.
    """
    found: list[Tensor] = []
    for path in paths:
        try:
            x = to_tensor(read_image(path)).float() / 255
        except PictureError as error:
            to_stderr(f"Skipped: {error}")
            continue
        if min(x.shape[-2:]) < least_px + 2 * MARGIN_PX:
            to_stderr(f"Skipped: {path} is too small for held-out crops of {least_px} px.")
        else:
            found.append(x)
    if not found:
        raise InputError(
            f"No held-out picture allows a crop of {least_px} px with {MARGIN_PX} px around it."
        )
    found = found[:n]
    shortest = min(min(x.shape[-2:]) for x in found)
    side = min(most_px + 2 * MARGIN_PX, shortest // 8 * 8)
    crops = []
    for x in found:
        top, left = ((length - side) // 16 * 8 for length in x.shape[-2:])
        crops.append(x[:, top : top + side, left : left + side])
    return torch.stack(crops)
