"""Pictures: files, pixels and their statistics."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_WHERE = {
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


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
