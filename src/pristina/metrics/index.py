"""Table of metrics: what each is called, what it needs, and which direction is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from pristina.image.statistics import blockiness, estimate_noise, sharpness
from pristina.metrics.fidelity import MAX_SHIFT_PX, gmsd, haarpsi, psnr, psnr_after_shift, ssim
from pristina.metrics.kernels import kernel_correlation, kernel_error
from pristina.metrics.perceptual import lpips

Need = Literal["truth", "kernels", "lpips"]
"""Something that a metric needs beside the restored images: the clean images, a pair of blur
kernels, or the package ``lpips`` with its weights."""


@dataclass(frozen=True)
class Metric:
    """A metric and what is needed to compute and to read it.

    Attributes:
        name: Word for files, suites and tables.
        function: Function that computes it: of the restored and the clean images if it needs the
            truth, of the estimated and the true kernels if it needs kernels, else of the images
            alone. It returns one number for each image.
        title: Name in the heads of tables.
        unit: Unit, such as ``dB``; empty if it has none.
        better: Direction in which it improves; ``neither`` if it says nothing about quality.
        needs: What it needs beside the restored images.
        note: Words that help to read a single value.
        digits: Decimals shown in tables.
        min_side_px: Smallest side of images for which :func:`~pristina.metrics.measuring.measure`
            includes it.
    """

    name: str
    function: Callable[..., Tensor]
    title: str
    unit: str = ""
    better: Literal["higher", "lower", "neither"] = "higher"
    needs: frozenset[Need] = frozenset()
    note: str = ""
    digits: int = 3
    min_side_px: int = 1

    @property
    def heading(self) -> str:
        """Title with the unit, and with the direction where lower values are better."""
        unit = f", {self.unit}" if self.unit else ""
        return f"{self.title}{unit}{' (less is better)' if self.better == 'lower' else ''}"

    def best(self, values: list[float]) -> list[float]:
        """Return the distinct values from best to worst; none if neither direction is better."""
        if self.better == "neither":
            return []
        return sorted(set(values), reverse=self.better == "higher")


TRUTH: frozenset[Need] = frozenset({"truth"})
KERNELS: frozenset[Need] = frozenset({"kernels"})

METRICS = {
    metric.name: metric
    for metric in (
        Metric("psnr", psnr, "PSNR", "dB", "higher", TRUTH, "more is better", 2),
        Metric("ssim", ssim, "SSIM", "", "higher", TRUTH, "up to 1, more is better"),
        Metric("haarpsi", haarpsi, "HaarPSI", "", "higher", TRUTH, "up to 1, more is better"),
        Metric("gmsd", gmsd, "GMSD", "", "lower", TRUTH, "from 0, less is better"),
        Metric(
            "psnr_after_shift",
            psnr_after_shift,
            "PSNR after the best shift",
            "dB",
            needs=TRUTH,
            note=f"at the best shift of up to {MAX_SHIFT_PX} px",
            digits=2,
            min_side_px=3 * MAX_SHIFT_PX + 1,
        ),
        Metric("lpips", lpips, "LPIPS, AlexNet", "", "lower", TRUTH | {"lpips"}, "less is better"),
        Metric(
            "kernel_correlation",
            kernel_correlation,
            "kernel: cross-correlation",
            needs=KERNELS,
            note="up to 1, more is better",
        ),
        Metric(
            "kernel_error",
            kernel_error,
            "kernel: relative error",
            better="lower",
            needs=KERNELS,
            note="from 0, less is better",
        ),
        Metric(
            "sharpness",
            sharpness,
            "sharpness (variance of the Laplacian)",
            better="neither",
            note="variance of the Laplacian; noise is sharp too",
        ),
        Metric(
            "noise",
            estimate_noise,
            "noise (estimated standard deviation)",
            better="neither",
            note="standard deviation, [0, 1] units",
        ),
        Metric(
            "blockiness",
            blockiness,
            "blockiness",
            better="neither",
            note="1 without 8 x 8 blocks, more with",
        ),
    )
}
"""Metrics by name, in the order in which tables and the command line show them."""
