import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from pristina.errors import InputError, OperatorError, SettingError, SizeError
from pristina.methods.blind_dps import AS_RELEASED, PAPER, BlindDPS, as_kernel, blind_dps
from pristina.metrics.kernels import kernel_correlation
from pristina.operators.base import Compose, Observation
from pristina.operators.blur import FreeKernel, KernelBlur
from pristina.operators.convolve import convolve
from pristina.operators.kernels import line_kernel
from pristina.operators.noise import GaussianNoise
from pristina.operators.resample import Downsample
from pristina.priors.base import SizeRule, to_unit
from pristina.priors.gaussian import GaussianMixturePrior, GaussianPrior
from pristina.priors.schedule import alpha_bar_at, ddpm_posterior, step_pairs
from pristina.seeds import generators
from tests.contract.battery import check_method

PRIOR = GaussianPrior(0.0, 0.1)
KERNELS = GaussianPrior(0.0, 0.1, channels=1)
TINY = BlindDPS(steps=4, kernel_px=3)
UNIFORM = BlindDPS(steps=4, kernel_prior=None, kernel_px=3)
with_kernels = partial(blind_dps, kernel_prior=KERNELS)


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("function", "settings"),
    [
        (with_kernels, TINY),
        (with_kernels, replace(TINY, step_size="growing")),
        (blind_dps, UNIFORM),
    ],
    ids=["kernel prior", "growing", "uniform"],
)
def test_battery(function, settings):
    operator = Compose([FreeKernel(3), GaussianNoise(0.05)])
    observation = Observation(random(2, 3, 8, 8), operator)
    result = check_method(function, observation, PRIOR, settings, calls=4, backward=4)
    k = result.operator.kernel()
    assert k.shape == (2, 1, 3, 3) and (k >= 0).all()
    assert torch.allclose(k.sum((1, 2, 3)), torch.ones(2))
    assert result.extras["kernel_calls"].tolist() == ([0, 0] if settings is UNIFORM else [4, 4])
    assert KERNELS.n_calls == 0
    json.dumps(result.record())


def test_a_kernel_is_its_image_scaled():
    k = as_kernel(torch.tensor([[[[1.0, -1, 1], [-0.5, -3, 1], [1, 1, 1]]]]))
    assert torch.allclose(k, torch.tensor([[[[0.8, 0.0], [0.2, 0.0]]]]), atol=1e-6)


def by_hand(y, settings, seed):
    """Run the algorithm of the module's docstring, its units and scales written out."""
    g = torch.Generator().manual_seed(seed)
    side, size = y.shape[-1], settings.kernel_px + 1
    x, k = (torch.randn(c, s, s, generator=g)[None] for c, s in ((3, side), (1, size)))
    n_steps, losses = settings.steps, []
    for t, s in step_pairs(n_steps):
        a_t, a_s = (alpha_bar_at(PRIOR.alpha_bar, v) for v in (t, s))
        x.requires_grad_()
        k.requires_grad_()
        x0 = PRIOR.predict(x, t).x0.clamp(-1, 1)
        k0 = KERNELS.predict(k, t).x0.clamp(-1, 1) if settings.kernel_prior else k
        kernel = ((k0 + 1) / 2)[..., :-1, :-1].clamp(min=0)
        kernel = kernel / kernel.sum()
        difference = 2 * y - 1 - convolve(x0, kernel)  # in the paper's [-1, 1] units
        norm = difference.square().sum().sqrt()
        losses.append((difference / 2).square().mean().detach())
        grad_x, grad_k = torch.autograd.grad(norm, (x, k))
        with torch.no_grad():
            course = a_t.sqrt() if settings.step_size == "growing" else 1
            zeta = course * settings.zeta * 1000 / n_steps * side / 256
            zeta_kernel = course * settings.zeta_kernel * 1000 / n_steps * size / 64
            mean, variance = ddpm_posterior(x, x0, a_t, a_s)
            x = mean + variance.sqrt() * torch.randn(3, side, side, generator=g)[None]
            x = x - zeta * grad_x
            if settings.kernel_prior:
                mean, variance = ddpm_posterior(k, k0, a_t, a_s)
                k = mean + variance.sqrt() * torch.randn(1, size, size, generator=g)[None]
            k = k.detach() - zeta_kernel * grad_k
    kernel = ((k + 1) / 2)[..., :-1, :-1].clamp(min=0)
    return to_unit(x).clamp(0, 1), kernel / kernel.sum(), torch.stack(losses)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"zeta": 0.05, "zeta_kernel": 0.02},
        {"step_size": "growing"},
        {"kernel_prior": None, "zeta_kernel": 0.01},
    ],
)
def test_steps_are_the_formula_with_its_scales_and_units(steps, changes):
    y = 0.3 + 0.4 * random(1, 3, 8, 8)
    settings = replace(BlindDPS(steps=steps, kernel_px=3, zeta=0.1, zeta_kernel=0.5), **changes)
    function = with_kernels if settings.kernel_prior else blind_dps
    observation = Observation(y, FreeKernel(3))
    result = function(observation, PRIOR, settings, generator=generators(9, 1))
    images, kernel, losses = by_hand(y, settings, 9)
    assert (result.images - images).abs().max() < 1e-4
    assert (result.operator.kernel() - kernel).abs().max() < 1e-4  # a softmax holds no zero
    assert torch.allclose(result.trace["loss"][:, 0], losses, rtol=1e-3)


def test_without_guidance_both_come_from_their_priors():
    kernels = GaussianPrior(0.5, 1e-4, channels=1)
    settings = BlindDPS(steps=20, kernel_px=3, zeta=0.0, zeta_kernel=0.0)
    observation = Observation(random(2, 3, 8, 8), FreeKernel(3))
    result = blind_dps(observation, GaussianPrior(0.5, 1e-4), settings, kernel_prior=kernels)
    assert (result.images - 0.75).abs().max() < 0.05
    assert (result.operator.kernel() - 1 / 9).abs().max() < 0.01


def test_the_kernel_of_the_observation_is_not_used():
    y = random(1, 3, 8, 8)
    a, b = (
        with_kernels(Observation(y, KernelBlur(line_kernel(3, 2.0, angle))), PRIOR, TINY)
        for angle in (0.3, 1.3)
    )
    assert torch.equal(a.images, b.images)
    assert torch.equal(a.operator.kernel(), b.operator.kernel())


def test_the_right_kernel_is_found_more_often_than_by_chance():
    """Eight strokes are possible, and chance finds one in eight.

    Neighbouring pixels are alike, so that the stroke shows in the observation. A Gaussian prior
    leaves the image much freer than a prior of faces does, and hits are far from sure: 18 of 32
    were measured.
    """
    strokes = [line_kernel(9, 8.0, torch.pi * i / 8) for i in range(8)]
    modes = torch.cat([F.pad(2 * k / k.max() - 1, (0, 1, 0, 1), value=-1) for k in strokes])
    f = torch.fft.fftfreq(32)
    variance = 1 / (f[:, None] ** 2 + f[None] ** 2 + 0.003)
    prior = GaussianPrior(0.0, 0.1 * variance / variance.mean(), spectral=True)
    z = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x = (prior.sample(z) + 1) / 2
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    y = convolve(x, torch.cat(strokes).repeat(4, 1, 1, 1)) + 0.01 * noise
    kernels = GaussianMixturePrior(modes, 0.01)
    hits = []
    for zeta in (3.0, 0.0):
        settings = BlindDPS(steps=60, kernel_px=9, zeta=zeta, zeta_kernel=zeta)
        observation = Observation(y, FreeKernel(9))
        result = blind_dps(observation, prior, settings, kernel_prior=kernels)
        found = result.operator.kernel()[:, 0]
        likeness = torch.stack(
            [kernel_correlation(found, k[0].expand(32, -1, -1)) for k in strokes]
        )
        hits.append(int((likeness.argmax(0) == torch.arange(32) % 8).sum()))
    assert hits[0] >= 13 and hits[1] <= 10, hits


def test_presets_are_the_published_settings():
    assert (PAPER.steps, PAPER.zeta, PAPER.zeta_kernel, PAPER.step_size) == (
        1000,
        0.3,
        0.3,
        "constant",
    )
    assert (AS_RELEASED.steps, AS_RELEASED.zeta, AS_RELEASED.zeta_kernel) == (1000, 1.0, 1.0)
    assert AS_RELEASED.step_size == "growing"


def test_refusals():
    y = random(1, 3, 8, 8)
    for operator in (None, Downsample(2)):
        with pytest.raises(OperatorError, match="blur"):
            with_kernels(Observation(y, operator), PRIOR, TINY)
    observation = Observation(y, FreeKernel(3))
    with pytest.raises(InputError, match="load_weights"):
        blind_dps(observation, PRIOR, TINY)
    with pytest.raises(InputError, match="kernel_prior is none"):
        with_kernels(observation, PRIOR, UNIFORM)
    sized = GaussianPrior(0.0, 0.1, channels=1)
    sized.size_rule = SizeRule(native=32, fixed=True)
    with pytest.raises(SizeError, match="32"):
        blind_dps(observation, PRIOR, TINY, kernel_prior=sized)
    for wrong in (
        {"kernel_px": 32},
        {"kernel_px": 1},
        {"steps": 0},
        {"zeta": -1.0},
        {"zeta_kernel": -1.0},
        {"step_size": "falling"},
    ):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            BlindDPS(**wrong)
