"""The sampler's arithmetic against diffusers' schedulers and the table of the specification."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from pristina.errors import SettingError
from pristina.priors.schedule import (
    alpha_bar_at,
    cosine_alpha_bar,
    ddim_step,
    ddpm_posterior,
    ddpm_step,
    eps_from_x0,
    linear_alpha_bar,
    step_pairs,
    timestep_of,
    timesteps,
    x0_from_eps,
)

TABLE = {
    0: 0.99990,
    100: 0.89514,
    200: 0.65635,
    300: 0.39401,
    400: 0.19357,
    500: 0.077797,
    600: 0.025567,
    700: 6.8683e-3,
    999: 4.0358e-5,
}


@pytest.mark.parametrize(("t", "value"), TABLE.items())
def test_linear_table_has_the_published_values(t, value):
    assert float(linear_alpha_bar()[t]) == pytest.approx(value, rel=1e-4)


def test_tables_equal_those_of_diffusers():
    torch.testing.assert_close(
        linear_alpha_bar(), DDPMScheduler(beta_start=1e-4, beta_end=2e-2).alphas_cumprod
    )
    torch.testing.assert_close(
        cosine_alpha_bar(),
        DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod,
        rtol=1e-4,
        atol=1e-7,
    )


def test_timesteps_are_bird_s():
    assert timesteps(10) == [900, 800, 700, 600, 500, 400, 300, 200, 100, 0]
    assert timesteps(1) == [999]  # not 0, where a network expects an image and not noise
    assert step_pairs(2) == [(500, 0), (0, -1)]
    assert len(set(timesteps(7))) == 7
    with pytest.raises(SettingError, match="steps must lie"):
        timesteps(0)


def test_timestep_of_inverts_alpha_bar_at():
    table = linear_alpha_bar()
    t = torch.tensor([0.0, 0.5, 17.25, 500.0, 998.9])
    torch.testing.assert_close(timestep_of(table, alpha_bar_at(table, t)), t, rtol=1e-4, atol=1e-2)
    assert float(alpha_bar_at(table, -1)) == 1.0


@pytest.mark.parametrize("steps", [5, 10, 50])
def test_ddim_step_equals_diffusers(steps):
    scheduler = DDIMScheduler(
        beta_start=1e-4,
        beta_end=2e-2,
        clip_sample=False,
        timestep_spacing="leading",
        set_alpha_to_one=True,
    )
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == timesteps(steps)
    random = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 3, 4, 4, generator=random), torch.randn(2, 3, 4, 4, generator=random)
    table = linear_alpha_bar()
    for t, s in step_pairs(steps):
        ours = ddim_step(x0_from_eps(x, eps, table[t]), eps, alpha_bar_at(table, s))
        torch.testing.assert_close(
            ours, scheduler.step(eps, t, x).prev_sample, rtol=1e-4, atol=1e-4
        )


def test_ddpm_step_equals_diffusers():
    scheduler = DDPMScheduler(
        beta_start=1e-4, beta_end=2e-2, clip_sample=False, variance_type="fixed_small"
    )
    x, eps = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    table = linear_alpha_bar()
    for t in (999, 500, 1):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
        ours = ddpm_step(x, x0_from_eps(x, eps, table[t]), table[t], table[t - 1], noise)
        theirs = scheduler.step(eps, t, x, generator=torch.Generator().manual_seed(5)).prev_sample
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-4)


def test_ddpm_posterior_of_a_long_stride_composes():
    """Mean and variance over a stride equal those of the conditional Gaussian computed by hand."""
    table = linear_alpha_bar().double()
    a_t, a_s = table[700], table[400]
    x_t, x0 = torch.tensor(0.3, dtype=torch.float64), torch.tensor(-0.7, dtype=torch.float64)
    # x_s ~ N(sqrt(a_s) x0, 1 - a_s), x_t | x_s ~ N(sqrt(a_t / a_s) x_s, 1 - a_t / a_s)
    precision = 1 / (1 - a_s) + (a_t / a_s) / (1 - a_t / a_s)
    by_hand = (a_s.sqrt() * x0 / (1 - a_s) + (a_t / a_s).sqrt() * x_t / (1 - a_t / a_s)) / precision
    mean, variance = ddpm_posterior(x_t, x0, a_t, a_s)
    assert math.isclose(mean, by_hand, rel_tol=1e-9)
    assert math.isclose(variance, 1 / precision, rel_tol=1e-9)


def test_eps_and_x0_are_two_views_of_the_same():
    a = torch.tensor(0.3)
    x, eps = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(eps_from_x0(x, x0_from_eps(x, eps, a), a), eps, rtol=1e-4, atol=1e-5)
