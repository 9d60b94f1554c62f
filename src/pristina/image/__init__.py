"""Pictures: files, pixels and their statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pristina._exports import lazy

if TYPE_CHECKING:
    from pristina.image.compare import side_by_side
    from pristina.image.encoding import FORMATS, check_format, encode
    from pristina.image.fit import Fit, resize
    from pristina.image.metadata import JpegTables, Metadata
    from pristina.image.picture import Picture
    from pristina.image.statistics import (
        ImageStatistics,
        blockiness,
        damage_statistics,
        estimate_noise,
        fineness,
        noise_floor,
        sharpness,
        whiteness,
    )
    from pristina.image.tile import in_tiles

_HOMES = {
    "FORMATS": "encoding",
    "Fit": "fit",
    "ImageStatistics": "statistics",
    "JpegTables": "metadata",
    "Metadata": "metadata",
    "Picture": "picture",
    "blockiness": "statistics",
    "check_format": "encoding",
    "damage_statistics": "statistics",
    "encode": "encoding",
    "estimate_noise": "statistics",
    "fineness": "statistics",
    "in_tiles": "tile",
    "noise_floor": "statistics",
    "resize": "fit",
    "sharpness": "statistics",
    "side_by_side": "compare",
    "whiteness": "statistics",
}

__all__ = [
    "FORMATS",
    "Fit",
    "ImageStatistics",
    "JpegTables",
    "Metadata",
    "Picture",
    "blockiness",
    "check_format",
    "damage_statistics",
    "encode",
    "estimate_noise",
    "fineness",
    "in_tiles",
    "noise_floor",
    "resize",
    "sharpness",
    "side_by_side",
    "whiteness",
]

__getattr__, __dir__ = lazy(__name__, _HOMES)
