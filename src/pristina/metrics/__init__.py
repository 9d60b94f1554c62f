"""Measures of image quality and of estimated kernels; :data:`METRICS` lists them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pristina._exports import lazy

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

__getattr__, __dir__ = lazy(__name__, _HOMES)
