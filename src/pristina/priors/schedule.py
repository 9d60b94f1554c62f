"""The clock of a diffusion prior, and the arithmetic of its steps.

Pure functions. A diffused picture is ``x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps`` (variance preserving);
``t`` counts from 0 (almost clean) to 999 (almost noise), and ``s < t`` is the next, cleaner timestep, with
``alpha_bar_s = 1`` once the chain is over.

Source:
    Ho et al. 2020 (linear schedule, ancestral step); Song et al. 2021, "Denoising diffusion implicit models", eq. 12.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pristina.errors import SettingError

N_TIMESTEPS = 1000


def linear_alpha_bar(n: int = N_TIMESTEPS, beta_first: float = 1e-4, beta_last: float = 2e-2) -> Tensor:
    """The table ``alpha_bar_t = prod(1 - beta)`` of the linear schedule, shape (n,), float32."""
    return torch.cumprod(1 - torch.linspace(beta_first, beta_last, n), dim=0)


def cosine_alpha_bar(n: int = N_TIMESTEPS, offset: float = 0.008, beta_max: float = 0.999) -> Tensor:
    """The table of the cosine schedule (Nichol and Dhariwal 2021, eq. 17), shape (n,), float32."""
    f = torch.cos((torch.linspace(0, 1, n + 1, dtype=torch.float64) + offset) / (1 + offset) * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=beta_max)
    return torch.cumprod(1 - beta, dim=0).float()


def alpha_bar_at(table: Tensor, t: Tensor | float) -> Tensor:
    """``alpha_bar`` at timestep ``t``, also between two timesteps (linear in its logarithm); 1 for negative ``t``."""
    t = torch.as_tensor(t, dtype=torch.float64, device=table.device)
    low = t.floor().clamp(0, len(table) - 1).long()
    high = (low + 1).clamp(max=len(table) - 1)
    log_table = table.double().log()
    log = torch.lerp(log_table[low], log_table[high], (t - low).clamp(0, 1))
    return torch.where(t < 0, torch.ones_like(log), log.exp()).float()


def timestep_of(table: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """The (fractional) timestep whose ``alpha_bar`` is given: the inverse of :func:`alpha_bar_at`, clamped to the table."""
    log = torch.as_tensor(alpha_bar, dtype=torch.float64, device=table.device).log()
    log_table = table.double().log()
    high = torch.searchsorted(-log_table, -log).clamp(1, len(table) - 1)
    low = high - 1
    return (low + ((log_table[low] - log) / (log_table[low] - log_table[high])).clamp(0, 1)).float()


def timesteps(steps: int, n: int = N_TIMESTEPS) -> list[int]:
    """The timesteps of a chain of ``steps`` network calls, falling to 0: ``[900, 800, ..., 0]`` for 10.

    Source:
        The spacing of BIRD's released sampler ("leading"): the chain starts at ``n - n / steps``, not at ``n - 1``.
    """
    if not 1 <= steps <= n:
        raise SettingError(f"steps must lie between 1 and {n}, not {steps}.")
    return [i * n // steps for i in reversed(range(steps))]


def step_pairs(steps: int, n: int = N_TIMESTEPS) -> list[tuple[int, int]]:
    """The chain of :func:`timesteps` as (t, s) pairs; the last ``s`` is -1, where ``alpha_bar`` is 1."""
    ts = timesteps(steps, n)
    return list(zip(ts, [*ts[1:], -1], strict=True))


def x0_from_eps(x_t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """The clean picture that ``x_t`` holds when its noise is ``eps``."""
    return (x_t - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()


def eps_from_x0(x_t: Tensor, x0: Tensor, alpha_bar: Tensor) -> Tensor:
    """The noise that ``x_t`` holds when its clean picture is ``x0``."""
    return (x_t - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()


def ddim_step(x0: Tensor, eps: Tensor, alpha_bar_s: Tensor) -> Tensor:
    """The deterministic step to ``s``: the same picture and the same noise, mixed for ``s``."""
    return alpha_bar_s.sqrt() * x0 + (1 - alpha_bar_s).sqrt() * eps


def ddpm_posterior(x_t: Tensor, x0: Tensor, alpha_bar_t: Tensor, alpha_bar_s: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of ``q(x_s | x_t, x0)`` for any s < t (Ho et al. 2020, eq. 7, with a general stride)."""
    alpha = alpha_bar_t / alpha_bar_s
    beta = 1 - alpha
    mean = (alpha_bar_s.sqrt() * beta * x0 + alpha.sqrt() * (1 - alpha_bar_s) * x_t) / (1 - alpha_bar_t)
    return mean, beta * (1 - alpha_bar_s) / (1 - alpha_bar_t)


def ddpm_step(x_t: Tensor, x0: Tensor, alpha_bar_t: Tensor, alpha_bar_s: Tensor, noise: Tensor) -> Tensor:
    """The ancestral step to ``s`` with the posterior ("small") variance; no noise enters the last one."""
    mean, variance = ddpm_posterior(x_t, x0, alpha_bar_t, alpha_bar_s)
    return mean + variance.sqrt() * noise
