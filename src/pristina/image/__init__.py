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
        blockiness,
        estimate_noise,
        sharpness,
    )
    from pristina.image.tile import in_tiles

_HOMES = {
    "FORMATS": "encoding",
    "Fit": "fit",
    "JpegTables": "metadata",
    "Metadata": "metadata",
    "Picture": "picture",
    "blockiness": "statistics",
    "check_format": "encoding",
    "encode": "encoding",
    "estimate_noise": "statistics",
    "in_tiles": "tile",
    "resize": "fit",
    "sharpness": "statistics",
    "side_by_side": "compare",
}

__all__ = [
    "FORMATS",
    "Fit",
    "JpegTables",
    "Metadata",
    "Picture",
    "blockiness",
    "check_format",
    "encode",
    "estimate_noise",
    "in_tiles",
    "resize",
    "sharpness",
    "side_by_side",
]

__getattr__, __dir__ = lazy(__name__, _HOMES)
