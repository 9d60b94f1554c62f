"""Measures of image quality and of estimated kernels; :data:`METRICS` lists them all."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pristina.metrics.fidelity import gmsd, haarpsi, psnr, psnr_after_shift, ssim
    from pristina.metrics.index import METRICS, Metric
    from pristina.metrics.kernels import kernel_correlation, kernel_error
    from pristina.metrics.measuring import measure, measure_kernels
    from pristina.metrics.perceptual import fid, lpips

_HOMES = {
    "METRICS": "index",
    "Metric": "index",
    "fid": "perceptual",
    "gmsd": "fidelity",
    "haarpsi": "fidelity",
    "kernel_correlation": "kernels",
    "kernel_error": "kernels",
    "lpips": "perceptual",
    "measure": "measuring",
    "measure_kernels": "measuring",
    "psnr": "fidelity",
    "psnr_after_shift": "fidelity",
    "ssim": "fidelity",
}

__all__ = [
    "METRICS",
    "Metric",
    "fid",
    "gmsd",
    "haarpsi",
    "kernel_correlation",
    "kernel_error",
    "lpips",
    "measure",
    "measure_kernels",
    "psnr",
    "psnr_after_shift",
    "ssim",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # Before the submodule of the same name can take its place.
    return value


def __dir__() -> list[str]:
    return __all__
