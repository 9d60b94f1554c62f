"""Uncertainty of a method: restore from several seeds at once, and measure how the results differ.

Source:
    BIRD's authors show the spread over seeds in this way (reconstructions over 10 seeds). It shows
    how much the observation and the prior leave open to the *method*. It is no posterior, and it
    does not show where method and prior are wrong together.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pristina.errors import SettingError
from pristina.methods.steps.result import Result, State
from pristina.operators.base import Observation, Operator
from pristina.seeds import sample_seed
from pristina.types import Draw, Generators, Images, OnStep, PerImage


def sampled(
    function: Callable[..., Result],
    observation: Observation,
    prior: Any,
    settings: Any,
    *,
    samples: int,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Restore each image several times in one batch, and return the mean and the spread.

    Args:
        function: Method that draws random numbers, such as :func:`~pristina.methods.bird.bird`.
        observation: Degraded images, (B, C, h, w).
        prior: Prior of the method.
        settings: Settings of the method.
        samples: Number N of restorations of each image, at least 2.
        start: State of an earlier run, of all N B images, to go on from.
        generator: One generator for each image; it seeds the N restorations, and the first of them
            has the image's own seed.
        on_step: Progress callback, called with all N B images.

    Returns:
        The method's result for the whole batch of N B, in which restoration ``s`` of image ``b`` is
        row ``s B + b`` (seeds, traces, operator and extras are in this order), but for ``images``,
        which is the mean, (B, C, H, W). New in the extras: ``samples`` (B, N, C, H, W); ``std``,
        the standard deviation of each pixel, (B, C, H, W), in [0, 1] units; and for each number
        NAME of the operator that was estimated image by image, ``std_NAME``, (B, ...).

    Raises:
        SettingError: There are fewer than two samples.

    Example:
        >>> import torch
        >>> from pristina.methods.diip import DIIP, diip
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> y = Observation(torch.full((1, 3, 8, 8), 0.6))
        >>> prior, settings = GaussianPrior(variance=0.1), DIIP(iterations=3)
        >>> result = sampled(diip, y, prior, settings, samples=4)
        >>> result.images.shape, result.extras["samples"].shape
        (torch.Size([1, 3, 8, 8]), torch.Size([1, 4, 3, 8, 8]))
        >>> bool((result.extras["std"] > 0).all())
        True
    """
    if samples < 2:
        raise SettingError(f"samples must be at least 2 to show a spread, not {samples}.")
    n = len(observation.y)
    drawn = Draw(generator, n).generators
    for sample in range(1, samples):
        seeds = [sample_seed(first.initial_seed(), sample) for first in drawn[:n]]
        drawn += [torch.Generator().manual_seed(seed) for seed in seeds]
    operator = observation.operator
    if operator is not None:
        operator = _repeated(operator, n, samples)
    many = replace(observation, y=observation.y.repeat(samples, 1, 1, 1), operator=operator)
    result = function(many, prior, settings, start=start, generator=drawn, on_step=on_step)
    images = result.images.unflatten(0, (samples, n))
    extras = {"samples": images.transpose(0, 1).contiguous(), "std": images.std(0)}
    if result.operator is not None:
        of_one = _numbers(result.operator.keep(torch.arange(samples * n) == 0).estimates())
        for name, estimate in _numbers(result.operator.estimates()).items():
            # What is known has no row for each image, and no spread.
            if 0 < estimate.numel() == samples * n * of_one[name].numel():
                extras[f"std_{name}"] = estimate.unflatten(0, (samples, n)).std(0)
    return replace(result, images=images.mean(0), extras={**result.extras, **extras})


def error_rank_correlation(std: Images, error: Images) -> PerImage:
    """Compute Spearman's correlation of an uncertainty map with the true absolute error.

    Equal pixels share the mean of their ranks; where all are equal there is no order, and the
    correlation is NaN.

    Args:
        std: Standard deviations, (B, C, H, W); averaged over the channels first.
        error: Absolute errors, of the same shape; averaged likewise.

    Returns:
        Correlation of each image, (B,): 1 if the map orders the pixels by their error.
    """
    ranks = [torch.stack([_ranks(x) for x in m.mean(1).flatten(1)]) for m in (std, error)]
    a, b = (r - r.mean(1, keepdim=True) for r in ranks)
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()


def _ranks(values: Tensor) -> Tensor:
    """Rank values, (n,); equal ones share the mean of their ranks."""
    _, place, count = values.unique(return_inverse=True, return_counts=True)
    return (count.cumsum(0) - (count.double() - 1) / 2)[place]


def _repeated(operator: Operator, n: int, samples: int) -> Operator:
    """Copy an operator, and repeat what has a row for each of ``n`` images ``samples`` times."""
    operator = copy.deepcopy(operator)
    for value in operator.state_dict(keep_vars=True).values():
        if value.ndim and len(value) == n > 1:
            value.data = value.data.repeat(samples, *(1 for _ in value.shape[1:]))
    return operator


def _numbers(estimates: dict[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """Collect numbers and lists of numbers by their dotted names; words are left out."""
    found: dict[str, Tensor] = {}
    for name, value in estimates.items():
        if isinstance(value, dict):
            found |= _numbers(value, f"{prefix}{name}.")
        elif _is_numeric(value):
            found[prefix + name] = torch.tensor(value, dtype=torch.float64)
    return found


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_numeric, value))
    return isinstance(value, int | float) and math.isfinite(value)
