from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from pristina.errors import InputError, OperatorError, SettingError
from pristina.methods.gibbs_ddrm import PAPER, GibbsDDRM, bump, calls, gibbs_ddrm
from pristina.methods.steps.blind_blur import (
    canvas_of,
    langevin,
    langevin_as_released,
    normal_equations,
)
from pristina.methods.steps.result import Calls
from pristina.metrics.kernels import kernel_correlation
from pristina.operators.base import Compose, Observation
from pristina.operators.blur import FreeKernel, GaussianBlur, KernelBlur
from pristina.operators.convolve import convolve, normalise
from pristina.operators.kernels import line_kernel
from pristina.operators.noise import GaussianNoise
from pristina.operators.resample import Downsample
from pristina.operators.spectral import BlurSpectrum
from pristina.priors.gaussian import GaussianPrior
from pristina.seeds import generators
from pristina.types import Draw
from tests.contract.battery import check_method

PRIOR = GaussianPrior(0.0, 0.1)
TINY = GibbsDDRM(steps=10, kernel_px=3, turns=2, langevin=4)
PLAIN = replace(TINY, metric="none", rate=1e-8, langevin=4)


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("boundary", "settings"),
    [("reflect", TINY), ("valid", TINY), ("circular", TINY), ("zero", PLAIN)],
)
def test_battery(boundary, settings):
    """Ten steps, of which the 5 from t = 500 to t = 100 have two turns: 20 calls."""
    operator = Compose([FreeKernel(3, boundary=boundary), GaussianNoise(0.05)])
    observation = Observation(random(2, 3, 8, 8), operator, known_sigma=0.05)
    n_calls = 10 + 5 * 2
    result = check_method(gibbs_ddrm, observation, PRIOR, settings, calls=n_calls, tolerance=0.0)
    k = result.operator.kernel()
    assert k.shape == (2, 1, 3, 3) and (k >= 0).all()
    assert torch.allclose(k.sum((1, 2, 3)), torch.ones(2))
    assert not torch.allclose(k, bump(3).expand_as(k), atol=1e-3)


def test_an_image_does_not_depend_on_its_neighbours():
    """Four images at once and each by itself: the same bits, kernels included."""
    prior, x = textured(4)
    y = convolve(x, line_kernel(7, 5.0, 0.3)) + 0.01 * noise_like(x)
    settings = GibbsDDRM(steps=20, kernel_px=7)
    observation = Observation(y, FreeKernel(7), known_sigma=0.01)
    together = gibbs_ddrm(observation, prior, settings, generator=generators(0, 4))
    for i in range(4):
        one = Observation(y[i : i + 1], FreeKernel(7), known_sigma=0.01)
        alone = gibbs_ddrm(one, prior, settings, generator=generators(i, 1))
        assert torch.equal(alone.images[0], together.images[i])
        assert torch.equal(alone.operator.kernel()[0], together.operator.kernel()[i])


@pytest.mark.parametrize(
    ("settings", "n_calls"),
    [
        (GibbsDDRM(), 100 + 50),
        (GibbsDDRM(turns=0), 100),
        (GibbsDDRM(steps=1), 1),
        (GibbsDDRM(kernel_from=1.0), 199),
        (PAPER, 100 + 3 * 70),
    ],
)
def test_calls_are_known_beforehand(settings, n_calls):
    assert calls(settings) == Calls(n_calls)


def test_the_kernel_of_the_observation_is_not_used():
    y = random(1, 3, 8, 8)
    kernels = [bump(3), line_kernel(3, 2.0, 0.3), line_kernel(3, 2.0, 1.3)]
    found = [gibbs_ddrm(Observation(y, KernelBlur(k), 0.05), PRIOR, TINY) for k in kernels]
    assert all(torch.equal(f.images, found[0].images) for f in found[1:])
    kernel = found[0].operator.kernel()
    assert all(torch.equal(f.operator.kernel(), kernel) for f in found[1:])


def test_a_fresh_start_begins_with_the_estimated_kernel():
    y = random(2, 3, 8, 8)
    observation = Observation(y, FreeKernel(3), known_sigma=0.05)
    first = gibbs_ddrm(observation, PRIOR, TINY)
    held = replace(TINY, turns=0)
    again = gibbs_ddrm(observation, PRIOR, held, start=first.state.fresh())
    assert torch.allclose(again.operator.kernel(), first.operator.kernel(), atol=1e-4)
    other = replace(TINY, kernel_px=5)
    with pytest.raises(InputError, match="kernel_px to 3"):
        gibbs_ddrm(observation, PRIOR, other, start=first.state.fresh())


@pytest.mark.parametrize("boundary", ["reflect", "zero", "valid", "circular"])
def test_the_likelihood_compares_what_was_observed(boundary):
    """The normal equations are those of the operator itself, without a filled border."""
    x, k = random(1, 2, 9, 11), normalise(random(1, 1, 5, 5, seed=1))
    y = 2 * convolve(x, k, boundary)[0] - 1
    canvas = canvas_of(BlurSpectrum(k, 9, 11, boundary), 2 * x - 1, 5)[0]
    square, right = normal_equations(canvas, y, 5)
    basis = torch.eye(25).view(25, 1, 5, 5).flip(-2, -1)
    columns = F.conv2d(canvas[:, None].double(), basis.double()).transpose(0, 1).flatten(1)
    assert torch.allclose(columns.T @ k.flatten().double(), y.flatten().double(), atol=1e-5)
    assert torch.allclose(square.double(), columns @ columns.T, atol=1e-3)
    assert torch.allclose(right.flatten().double(), columns @ y.flatten().double(), atol=1e-3)


def test_normal_equations_in_bands_are_those_of_the_whole(monkeypatch):
    canvas, y = random(3, 20, 13), random(3, 18, 11, seed=1)
    whole = normal_equations(canvas, y, 3)
    monkeypatch.setattr("pristina.methods.steps.blind_blur.MAX_PATCH_VALUES", 9 * 11 * 4)
    for a, b in zip(whole, normal_equations(canvas, y, 3), strict=True):
        assert torch.allclose(a, b, rtol=1e-5)


def sampled(function, n, rate, weight=0.0, n_iterations=60):
    """Sample n kernels of one image; return them, the exact mean and the exact deviations."""
    x = 2 * random(64, 1, 12, 12)[:1] - 1
    true, sigma = normalise(random(1, 1, 3, 3, seed=1)), 0.3
    y = convolve(x, true, "circular") + sigma * noise_like(x, seed=2)
    canvas = F.pad(x, (1, 1, 1, 1), mode="circular").expand(n, -1, -1, -1)
    level, draw = torch.full((n, 1, 1, 1), sigma), Draw(generators(0, n), n)
    start = bump(3).repeat(n, 1, 1, 1)
    many = y.expand(n, -1, -1, -1)
    k = function(start, canvas, many, level, n_iterations, rate, weight, draw).flatten(1)

    shifts = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1)]
    mean = y.mean() if function is langevin else torch.tensor(0.0)
    columns = torch.stack([(x - mean)[0].roll(s, (-2, -1)).flatten() for s in shifts], 1)
    normal = torch.linalg.inv(columns.double().T @ columns.double())
    exact = normal @ columns.double().T @ (y - mean)[0].flatten().double()
    return k, exact / exact.sum(), (sigma**2 * normal.diagonal()).sqrt()


def test_langevin_is_distributed_round_the_least_squares_kernel():
    """Without a penalty samples are Gaussian, as wide as the inverse of the normal equations."""
    k, exact, deviation = sampled(langevin, 64, 0.3)
    # 64 samples: five errors of the mean are 0.6 deviations
    assert ((k.mean(0) - exact).abs() < 0.6 * deviation).all()
    # scaling to sum 1 changes it a little
    assert (k.std(0) / deviation).log().abs().max() < 0.6


def test_the_released_langevin_has_the_same_target():
    """Its step is the paper's for 256 px and a noise of 0.04: here 0.02 of the curvature."""
    rate = 4e-4 * (12 / 256) ** 2 * (0.04 / 0.3) ** 2
    k, exact, deviation = sampled(langevin_as_released, 64, rate, n_iterations=400)
    assert ((k.mean(0) - exact).abs() < 0.6 * deviation).all()
    assert (k.std(0) / deviation).log().abs().max() < 0.6


def noise_like(x, seed=1):
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


def textured(n):
    f = torch.fft.fftfreq(32)
    variance = 1 / (f[:, None] ** 2 + f[None] ** 2 + 0.003)
    prior = GaussianPrior(0.0, 0.1 * variance / variance.mean(), spectral=True)
    z = torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return prior, (prior.sample(z) + 1) / 2


def test_a_blur_is_found():
    """A symmetric stroke, because a Gaussian prior cannot tell a kernel from its mirror image."""
    prior, x = textured(3)
    true = line_kernel(7, 5.0, 0.0)
    observation = Observation(convolve(x, true) + 0.01 * noise_like(x), FreeKernel(7), 0.01)
    result = gibbs_ddrm(observation, prior, GibbsDDRM(steps=50, kernel_px=7))
    before = kernel_correlation(bump(7)[0], true[0])
    after = kernel_correlation(result.operator.kernel()[:, 0], true[0].expand(3, -1, -1))
    assert (after > before + 0.1).all(), (before, after)


@pytest.mark.parametrize("boundary", ["reflect", "circular"])
def test_a_kernel_is_learned_from_the_true_image_at_once(boundary):
    _, x = textured(2)
    true = line_kernel(7, 5.0, 0.7)
    y = convolve(x, true, boundary) + 0.005 * noise_like(x)
    level, draw = torch.full((2, 1, 1, 1), 0.01), Draw(generators(0, 2), 2)
    canvas = canvas_of(BlurSpectrum(true, 32, 32, boundary), 2 * x - 1, 7)
    start = bump(7).repeat(2, 1, 1, 1)
    k = langevin(start, canvas, 2 * y - 1, level, 60, 0.5, 100.0, draw)
    assert (kernel_correlation(k[:, 0], true[0].expand(2, -1, -1)) > 0.98).all()


def test_the_noise_may_be_estimated():
    y = 0.5 + 0.1 * noise_like(torch.zeros(2, 3, 16, 16), seed=0)
    settings = GibbsDDRM(steps=4, kernel_px=3, turns=1, langevin=5, sigma="estimated")
    found = gibbs_ddrm(Observation(y, FreeKernel(3)), PRIOR, settings).extras["sigma"]
    assert ((found - 0.1).abs() < 0.02).all()


def test_a_flat_image_does_no_harm():
    flat = Observation(torch.full((1, 3, 8, 8), 0.5), FreeKernel(3), known_sigma=0.0)
    result = gibbs_ddrm(flat, GaussianPrior(0.0, 0.0001), TINY)
    assert torch.isfinite(result.images).all()
    assert torch.isfinite(result.operator.kernel()).all()


def test_refusals():
    y = random(1, 3, 8, 8)
    with pytest.raises(InputError, match="known_sigma"):
        gibbs_ddrm(Observation(y, FreeKernel(3)), PRIOR, TINY)
    twice = Compose([GaussianBlur(1.0, size=3), GaussianBlur(1.0, size=3)])
    for operator in (None, Downsample(2), twice):
        with pytest.raises(OperatorError, match="blur"):
            gibbs_ddrm(Observation(y, operator, known_sigma=0.1), PRIOR, TINY)
    valid = Observation(y, FreeKernel(5, boundary="valid"), known_sigma=0.1)
    with pytest.raises(OperatorError, match="kernel_px"):
        gibbs_ddrm(valid, PRIOR, TINY)
    for wrong in (
        {"kernel_px": 4},
        {"kernel_px": 1},
        {"rate": 3.0},
        {"rate": 0.0},
        {"sigma": "guessed"},
        {"metric": "fisher"},
        {"turns": -1},
        {"langevin": 0},
        {"sparsity": -1.0},
        {"eta_b": 1.5},
        {"threshold": -0.1},
    ):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            GibbsDDRM(**wrong)
