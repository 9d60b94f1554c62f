"""How sure a method is: the same observation from several seeds at once, and how far the answers lie apart.

Source:
    The spread over seeds is how BIRD's authors look at it (reconstructions over 10 seeds). It says how much the observation and the prior
    leave open to the *method*; it is no posterior, and does not know where method and prior are wrong together.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pristina.errors import SettingError
from pristina.methods.base import Result
from pristina.operators.base import Observation, Operator
from pristina.types import Draw, OnStep


def sampled(
    function: Callable[..., Result],
    observation: Observation,
    prior: Any,
    settings: Any,
    *,
    samples: int,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """The mean of several restorations of each picture, and how far they lie apart, in one batch.

    Args:
        function: A method that draws something: :func:`~pristina.methods.bird.bird`, say.
        observation: The degraded pictures, B of them.
        prior: As the method wants it.
        settings: Of the method.
        samples: How many restorations of each picture, N, at least 2.
        generator: One for each picture; each seeds the N of its own restorations. The first of them has the picture's own seed.
        on_step: Called with all N B pictures.

    Returns:
        The method's result for the whole batch of N B, in which restoration ``s`` of picture ``b`` is row ``s B + b`` (seeds, traces,
        operator and extras are all in this order), but for ``picture``, which is the mean, (B, C, H, W). New in the extras: ``samples``
        (B, N, C, H, W); ``std``, the standard deviation of each pixel, (B, C, H, W), in [0, 1] units; and for each number NAME of the
        operator that was estimated, picture by picture, ``std_NAME`` (B, ...).

    Raises:
        SettingError: There are fewer than two samples.

    Example:
        >>> import torch
        >>> from pristina.methods.diip import DIIP, diip
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> y = torch.full((1, 3, 8, 8), 0.6)
        >>> result = sampled(diip, Observation(y), GaussianPrior(variance=0.1), DIIP(iterations=3), samples=4)
        >>> result.picture.shape, result.extras["samples"].shape, bool((result.extras["std"] > 0).all())
        (torch.Size([1, 3, 8, 8]), torch.Size([1, 4, 3, 8, 8]), True)
    """
    if samples < 2:
        raise SettingError(f"samples must be at least 2 to show a spread, not {samples}.")
    n = len(observation.y)
    first = Draw(generator, n).generators
    # a seed far from those of neighbouring pictures, which are usually seeded one after the other
    drawn = [torch.Generator().manual_seed((g.initial_seed() + s * 1_000_003) % 2**63) for s in range(1, samples) for g in first]
    operator = None if observation.operator is None else _repeated(observation.operator, n, samples)
    many = replace(observation, y=observation.y.repeat(samples, 1, 1, 1), operator=operator)
    result = function(many, prior, settings, generator=[*first, *drawn], on_step=on_step)
    pictures = result.picture.unflatten(0, (samples, n))
    extras = {"samples": pictures.transpose(0, 1).contiguous(), "std": pictures.std(0)}
    if result.operator is not None:
        of_one = _numbers(result.operator.keep(torch.arange(samples * n) == 0).estimates())
        for name, estimate in _numbers(result.operator.estimates()).items():
            if 0 < estimate.numel() == samples * n * of_one[name].numel():  # what is known stays as long as it is
                extras[f"std_{name}"] = estimate.unflatten(0, (samples, n)).std(0)
    return replace(result, picture=pictures.mean(0), extras={**result.extras, **extras})


def error_rank_correlation(std: Tensor, error: Tensor) -> Tensor:
    """Spearman's correlation of an uncertainty map with the true absolute error, for each picture, (B,): 1 if it orders the pixels rightly.

    Equal pixels share the mean of their ranks; where all are equal there is no order, and the correlation is NaN.

    Args:
        std: Standard deviations, (B, C, H, W).
        error: Absolute errors, of the same shape; both are averaged over the channels first.
    """
    ranks = [torch.stack([_ranks(picture) for picture in m.mean(1).flatten(1)]) for m in (std, error)]
    a, b = (r - r.mean(1, keepdim=True) for r in ranks)
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()


def _ranks(values: Tensor) -> Tensor:
    """The rank of each value, (n,); equal ones share the mean of theirs."""
    _, place, count = values.unique(return_inverse=True, return_counts=True)
    return (count.cumsum(0) - (count.double() - 1) / 2)[place]


def _repeated(operator: Operator, n: int, samples: int) -> Operator:
    """A copy in which all that has a row for each of ``n`` pictures has one for each of their ``samples`` restorations."""
    operator = copy.deepcopy(operator)
    for value in operator.state_dict(keep_vars=True).values():
        if value.ndim and len(value) == n > 1:
            value.data = value.data.repeat(samples, *(1 for _ in value.shape[1:]))
    return operator


def _numbers(estimates: dict[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """Numbers and lists of numbers by their dotted names; words are left out."""
    found: dict[str, Tensor] = {}
    for name, value in estimates.items():
        if isinstance(value, dict):
            found |= _numbers(value, f"{prefix}{name}.")
        elif _numeric(value):
            found[prefix + name] = torch.tensor(value, dtype=torch.float64)
    return found


def _numeric(value: Any) -> bool:
    return all(map(_numeric, value)) if isinstance(value, list) else isinstance(value, int | float) and math.isfinite(value)
