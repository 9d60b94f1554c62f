"""The clean pictures of a suite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pristina.bench.suite import Framing, PictureSet
from pristina.errors import InputError, MissingExtra, SettingError, SizeError
from pristina.image.picture import Picture
from pristina.priors.base import Prior

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}

BUILTIN = (
    "astronaut",
    "brick",
    "camera",
    "cat",
    "cell",
    "chelsea",
    "clock",
    "coffee",
    "coins",
    "colorwheel",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "logo",
    "microaneurysms",
    "moon",
    "page",
    "retina",
    "rocket",
    "text",
)
"""Pictures that come with scikit-image; no other name is looked up, and nothing is downloaded."""


def picture_size(pictures: PictureSet, prior: Prior) -> int:
    """Return the side at which a suite runs, in pixels."""
    rule = prior.size_rule
    if rule.fixed and rule.native:
        return rule.native
    return pictures.size_px or rule.native or 64


def load_pictures(pictures: PictureSet, size_px: int) -> tuple[list[str], Tensor]:
    """Load the clean pictures.

    Args:
        pictures: Where they are and how they are cut.
        size_px: Side of the squares in pixels.

    Returns:
        Names of the pictures, and their pixels, (N, 3, size_px, size_px), in [0, 1].

    Raises:
        InputError: The folder holds no pictures, or fewer than the set names.
        PictureError: A file cannot be read.
        SettingError: There is no such built-in picture.
        SizeError: A picture is smaller than the squares.
    """
    folder, sources = pictures.folder, _sources(pictures)
    if not sources or len(sources) < pictures.count:
        raise InputError(
            f"{folder or 'The suite'} holds {len(sources)} pictures; "
            f"{pictures.count or 'at least 1'} are needed."
        )
    named: list[tuple[str, Tensor]] = []
    for source in sources[: pictures.count or None]:
        if folder is not None and isinstance(source, Path):
            name, image = str(source.relative_to(folder)), _open(source)
        else:
            name, image = str(source), builtin_picture(str(source))
        named.append((name, _square(name, image, pictures.crop, size_px)))
    return [name for name, _ in named], torch.stack([pixels for _, pixels in named])


def _sources(pictures: PictureSet) -> list[Path] | list[str]:
    """Return the files of the folder, or the texts of the built-in pictures."""
    if pictures.folder is None:
        if not pictures.builtin:
            raise InputError(
                "This suite brings no pictures of its own, because they must suit the prior; "
                "give --pictures FOLDER."
            )
        return list(pictures.builtin)
    if not pictures.folder.is_dir():
        raise InputError(f"{pictures.folder} is not a folder of pictures.")
    files = sorted(pictures.folder.rglob("*"))
    return [path for path in files if path.suffix.lower() in SUFFIXES]


def _open(path: Path) -> Image.Image:
    return replace(Picture.open(path), alpha=None, grey=False).to_pillow()


def builtin_picture(text: str) -> Image.Image:
    """Return a picture that comes with scikit-image, or a square of it.

    Args:
        text: One of :data:`BUILTIN`, or such a name with a square, as ``name@left,top,side``.

    Raises:
        MissingExtra: scikit-image is not installed.
        SettingError: There is no such picture, or the square does not lie inside it.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise MissingExtra(
            "Built-in pictures come with scikit-image: pip install 'pristina[bench]'; "
            "or give --pictures FOLDER."
        ) from error
    name, at, square = text.partition("@")
    if name not in BUILTIN:
        raise SettingError(
            f"There is no built-in picture {name!r}; there are {', '.join(BUILTIN)}."
        )
    image = Image.fromarray(getattr(data, name)()).convert("RGB")
    if not at:
        return image
    try:
        left, top, side = (int(number) for number in square.split(","))
    except ValueError:
        raise SettingError(
            f"{text!r}: a square of a picture is written name@left,top,side in pixels."
        ) from None
    if min(left, top) < 0 or side < 1 or left + side > image.width or top + side > image.height:
        raise SettingError(
            f"{text!r}: the square does not lie inside the picture, "
            f"which has {image.width} x {image.height} px."
        )
    return image.crop((left, top, left + side, top + side))


def _square(name: str, image: Image.Image, crop: Framing, size_px: int) -> Tensor:
    """Cut the square of a picture and reduce it; return (3, size_px, size_px) in [0, 1]."""
    side = min(image.size) if crop == "whole" else size_px
    if min(image.size) < size_px:
        raise SizeError(
            f"{name} is {image.width} x {image.height} px, too small for squares of {size_px} px; "
            "nothing is enlarged."
        )
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    if side == size_px:
        image = image.crop(box)
    else:
        image = image.resize((size_px, size_px), Image.Resampling.LANCZOS, box)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
