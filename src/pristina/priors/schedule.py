"""Timesteps and noise schedule of a diffusion prior, and the arithmetic of its steps.

Pure functions. A diffused image is ``x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps``
(variance preserving); ``t`` counts from 0 (almost clean) to 999 (almost noise), and ``s < t`` is
the next, cleaner timestep, with ``alpha_bar_s = 1`` at the end of the chain.

Source:
    Ho et al. 2020 (linear schedule, ancestral step); Song et al. 2021, "Denoising diffusion
    implicit models", eq. 12.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pristina.errors import SettingError

N_TIMESTEPS = 1000


def linear_alpha_bar(
    n: int = N_TIMESTEPS, beta_first: float = 1e-4, beta_last: float = 2e-2
) -> Tensor:
    """Compute the table ``alpha_bar_t = prod(1 - beta)`` of the linear schedule, (n,), float32."""
    return torch.cumprod(1 - torch.linspace(beta_first, beta_last, n), dim=0)


def cosine_alpha_bar(
    n: int = N_TIMESTEPS, offset: float = 0.008, beta_max: float = 0.999
) -> Tensor:
    """Compute the table of the cosine schedule, (n,), float32.

    Source:
        Nichol and Dhariwal 2021, eq. 17.
    """
    u = (torch.linspace(0, 1, n + 1, dtype=torch.float64) + offset) / (1 + offset)
    f = torch.cos(u * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=beta_max)
    return torch.cumprod(1 - beta, dim=0).float()


def alpha_bar_at(table: Tensor, t: Tensor | float) -> Tensor:
    """Interpolate ``alpha_bar`` at timestep ``t`` linearly in its logarithm; 1 for t < 0."""
    t = torch.as_tensor(t, dtype=torch.float64, device=table.device)
    low = t.floor().clamp(0, len(table) - 1).long()
    high = (low + 1).clamp(max=len(table) - 1)
    log_table = table.double().log()
    log = torch.lerp(log_table[low], log_table[high], (t - low).clamp(0, 1))
    return torch.where(t < 0, torch.ones_like(log), log.exp()).float()


def timestep_of(table: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """Find the (fractional) timestep of a given ``alpha_bar``, clamped to the table.

    It is the inverse of :func:`alpha_bar_at`.
    """
    log = torch.as_tensor(alpha_bar, dtype=torch.float64, device=table.device).log()
    log_table = table.double().log()
    high = torch.searchsorted(-log_table, -log).clamp(1, len(table) - 1)
    low = high - 1
    part = (log_table[low] - log) / (log_table[low] - log_table[high])
    return (low + part.clamp(0, 1)).float()


def timesteps(steps: int, n: int = N_TIMESTEPS) -> list[int]:
    """Return the timesteps of a chain of ``steps`` network calls, falling to 0.

    Args:
        steps: Number of network calls, from 1 to ``n``. A single one is made at the last timestep,
            where an image is as good as pure noise.
        n: Number of timesteps of the schedule.

    Raises:
        SettingError: ``steps`` is out of range.

    Source:
        The spacing of BIRD's released sampler ("leading"): the chain starts at ``n - n / steps``,
        not at ``n - 1``. Difference: there a single call is made at timestep 0, where the network
        expects an image and is given noise.

    Example:
        >>> timesteps(5), timesteps(1)
        ([800, 600, 400, 200, 0], [999])
    """
    if not 1 <= steps <= n:
        raise SettingError(f"steps must lie between 1 and {n}, not {steps}.")
    if steps == 1:
        return [n - 1]
    return [i * n // steps for i in reversed(range(steps))]


def step_pairs(steps: int, n: int = N_TIMESTEPS) -> list[tuple[int, int]]:
    """Return the chain of :func:`timesteps` as pairs (t, s).

    The last ``s`` is -1, where ``alpha_bar`` is 1.
    """
    ts = timesteps(steps, n)
    return list(zip(ts, [*ts[1:], -1], strict=True))


def x0_from_eps(x_t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """Compute the clean image in ``x_t`` if its noise is ``eps``."""
    return (-(1 - alpha_bar).sqrt() * eps).add_(x_t).div_(alpha_bar.sqrt())


def eps_from_x0(x_t: Tensor, x0: Tensor, alpha_bar: Tensor) -> Tensor:
    """Compute the noise in ``x_t`` if its clean image is ``x0``."""
    return (-alpha_bar.sqrt() * x0).add_(x_t).div_((1 - alpha_bar).sqrt())


def ddim_step(x0: Tensor, eps: Tensor, alpha_bar_s: Tensor) -> Tensor:
    """Take the deterministic step to ``s``: the same image and noise, mixed for ``s``."""
    return (alpha_bar_s.sqrt() * x0).add_((1 - alpha_bar_s).sqrt() * eps)


def ddim_noisy_step(
    x0: Tensor, eps: Tensor, alpha_bar_t: Tensor, alpha_bar_s: Tensor, noise: Tensor, eta: float
) -> Tensor:
    """Take the step to ``s`` with fresh noise; ``eta`` of 1 has as much as an ancestral step.

    Source:
        Song et al. 2021, "Denoising diffusion implicit models", eq. 12 and 16.
    """
    c_1 = eta * ((1 - alpha_bar_t / alpha_bar_s) * (1 - alpha_bar_s) / (1 - alpha_bar_t)).sqrt()
    c_2 = (1 - alpha_bar_s - c_1**2).clamp(min=0).sqrt()
    return alpha_bar_s.sqrt() * x0 + c_1 * noise + c_2 * eps


def ddpm_posterior(
    x_t: Tensor, x0: Tensor, alpha_bar_t: Tensor, alpha_bar_s: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute mean and variance of ``q(x_s | x_t, x0)`` for any s < t.

    Source:
        Ho et al. 2020, eq. 7, with a general stride.
    """
    alpha = alpha_bar_t / alpha_bar_s
    beta = 1 - alpha
    mean = (alpha_bar_s.sqrt() * beta * x0).add_(alpha.sqrt() * (1 - alpha_bar_s) * x_t)
    return mean.div_(1 - alpha_bar_t), beta * (1 - alpha_bar_s) / (1 - alpha_bar_t)


def ddpm_step(
    x_t: Tensor, x0: Tensor, alpha_bar_t: Tensor, alpha_bar_s: Tensor, noise: Tensor
) -> Tensor:
    """Take the ancestral step to ``s`` with the posterior ("small") variance.

    No noise enters the last step.
    """
    mean, variance = ddpm_posterior(x_t, x0, alpha_bar_t, alpha_bar_s)
    return mean.add_(variance.sqrt() * noise)
