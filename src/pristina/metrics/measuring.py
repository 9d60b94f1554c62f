"""All metrics of a batch at once."""

from __future__ import annotations

from torch import Tensor

from pristina.image.statistics import blockiness
from pristina.metrics.index import METRICS, Need
from pristina.types import PerImage


def measure(
    restored: Tensor, truth: Tensor | None = None, *, perceptual: bool = False
) -> dict[str, PerImage]:
    """Compute every metric of :data:`~pristina.metrics.index.METRICS` that the inputs allow.

    Args:
        restored: Restored images, (B, C, H, W), in [0, 1].
        truth: Clean images of the same shape; None leaves out the metrics that need them.
        perceptual: Whether to include LPIPS (AlexNet), which needs its package and weights.

    Returns:
        One number for each image, by the name of the metric.

    Raises:
        InputError: The shapes differ.
        SizeError: The images are too small.
        MissingExtra: LPIPS is asked for and cannot be computed.

    Example:
        >>> import torch
        >>> list(measure(torch.rand(1, 3, 16, 16)))
        ['sharpness', 'noise', 'blockiness']
    """
    # Blockiness needs the largest images: it refuses those that are too small before any work.
    found: dict[str, Tensor] = {"blockiness": blockiness(restored)}
    available: set[Need] = set()
    if truth is not None:
        available |= {"truth", "lpips"} if perceptual else {"truth"}
    inputs = (restored,) if truth is None else (restored, truth)
    side = min(restored.shape[-2:])
    for metric in METRICS.values():
        if metric.needs <= available and side >= metric.min_side_px and metric.name not in found:
            found[metric.name] = metric.function(*(inputs if metric.needs else inputs[:1]))
    return {name: found[name] for name in METRICS if name in found}


def measure_kernels(estimated: Tensor, true: Tensor) -> dict[str, PerImage]:
    """Compute every metric of blur kernels.

    Args:
        estimated: Estimated kernels, (B, h, w).
        true: True kernels, (B, k, k); the two may differ in size.

    Returns:
        One number for each pair of kernels, by the name of the metric.

    Raises:
        InputError: A kernel is zero, or the batches differ.
    """
    return {
        metric.name: metric.function(estimated, true)
        for metric in METRICS.values()
        if "kernels" in metric.needs
    }
