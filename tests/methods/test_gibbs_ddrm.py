import pytest
import torch

from pristina.errors import InputError, OperatorError, SettingError
from pristina.methods.gibbs_ddrm import GibbsDDRM, bump, gibbs_ddrm, langevin
from pristina.metrics.kernels import kernel_correlation
from pristina.operators.base import Compose, Observation
from pristina.operators.blur import FreeKernel, GaussianBlur, KernelBlur
from pristina.operators.convolve import convolve, normalise
from pristina.operators.kernels import line_kernel
from pristina.operators.noise import GaussianNoise
from pristina.operators.resample import Downsample
from pristina.priors.gaussian import GaussianPrior
from pristina.types import Draw, generators
from tests.contract.battery import check_method

PRIOR = GaussianPrior(0.0, 0.1)
TINY = GibbsDDRM(steps=10, kernel_px=3, turns=2, langevin=10)


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("boundary", ["reflect", "valid"])
def test_battery(boundary):
    """Ten steps, of which the 5 from t = 500 to t = 100 have two turns: 20 calls."""
    observation = Observation(random(2, 3, 8, 8), Compose([FreeKernel(3, boundary=boundary), GaussianNoise(0.05)]), known_sigma=0.05)
    result = check_method(gibbs_ddrm, observation, PRIOR, TINY, calls=10 + 5 * 2, tolerance=1e-4)
    k = result.operator.kernel()
    assert k.shape == (2, 1, 3, 3) and (k >= 0).all() and torch.allclose(k.sum((1, 2, 3)), torch.ones(2))


def test_the_kernel_that_came_with_the_observation_is_not_looked_at():
    y = random(1, 3, 8, 8)
    kernels = [bump(3), line_kernel(3, 2.0, 0.3), line_kernel(3, 2.0, 1.3)]
    found = [gibbs_ddrm(Observation(y, KernelBlur(k), known_sigma=0.05), PRIOR, TINY) for k in kernels]
    assert all(torch.equal(f.picture, found[0].picture) for f in found[1:])
    assert all(torch.equal(f.operator.kernel(), found[0].operator.kernel()) for f in found[1:])


def test_langevin_settles_round_the_least_squares_kernel():
    """Without a penalty the samples are Gaussian round the solution of the normal equations, and as wide as their inverse."""
    x = 2 * random(64, 1, 12, 12)[:1].expand(64, -1, -1, -1) - 1
    true = normalise(random(1, 1, 3, 3, seed=1))
    sigma = 0.3
    y = convolve(x, true, "circular") + sigma * torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(2))
    level = torch.full((64, 1, 1, 1), sigma)
    draw = Draw(generators(0, 64), 64)
    k = langevin(bump(3).repeat(64, 1, 1, 1), x, y, level, 60, 0.3, 0.0, draw).flatten(1)

    shifts = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1)]
    mean = y.mean((2, 3), keepdim=True)
    columns = torch.stack([(x - mean)[0].roll(s, (-2, -1)).flatten() for s in shifts], 1).double()
    normal = torch.linalg.inv(columns.T @ columns)
    exact = normal @ columns.T @ (y - mean)[0].flatten().double()
    exact = exact / exact.sum()
    deviation = (sigma**2 * normal.diagonal()).sqrt()
    assert ((k.mean(0) - exact).abs() < 0.6 * deviation).all()  # 64 samples: five errors of the mean are 0.6 deviations
    assert (k.std(0) / deviation).log().abs().max() < 0.6  # scaling to sum 1 changes it a little


def textured(n):
    f = torch.fft.fftfreq(32)
    variance = 1 / (f[:, None] ** 2 + f[None] ** 2 + 0.003)
    prior = GaussianPrior(0.0, 0.1 * variance / variance.mean(), spectral=True)
    return prior, (prior.sample(torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))) + 1) / 2


def test_a_blur_is_found():
    """A Gaussian prior knows no phases and so cannot tell a kernel from its mirror image; a symmetric stroke it can find."""
    prior, x = textured(3)
    true = line_kernel(7, 5.0, 0.0)
    y = convolve(x, true) + 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    result = gibbs_ddrm(Observation(y, FreeKernel(7), known_sigma=0.01), prior, GibbsDDRM(steps=50, kernel_px=7))
    before = kernel_correlation(bump(7)[0], true[0])
    after = kernel_correlation(result.operator.kernel()[:, 0], true[0].expand(3, -1, -1))
    assert (after > before + 0.1).all(), (before, after)


def test_a_kernel_is_learned_from_the_true_picture_at_once():
    _, x = textured(2)
    true = line_kernel(7, 5.0, 0.7)
    y = convolve(x, true, "circular") + 0.005 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    level = torch.full((2, 1, 1, 1), 0.01)
    k = langevin(bump(7).repeat(2, 1, 1, 1), 2 * x - 1, 2 * y - 1, level, 60, 0.5, 100.0, Draw(generators(0, 2), 2))
    assert (kernel_correlation(k[:, 0], true[0].expand(2, -1, -1)) > 0.98).all()


def test_the_noise_may_be_estimated():
    y = 0.5 + 0.1 * torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    settings = GibbsDDRM(steps=4, kernel_px=3, turns=1, langevin=5, sigma="estimated")
    found = gibbs_ddrm(Observation(y, FreeKernel(3)), PRIOR, settings).extras["sigma"]
    assert ((found - 0.1).abs() < 0.02).all()


def test_a_flat_picture_does_no_harm():
    result = gibbs_ddrm(Observation(torch.full((1, 3, 8, 8), 0.5), FreeKernel(3), known_sigma=0.0), GaussianPrior(0.0, 0.0001), TINY)
    assert torch.isfinite(result.picture).all() and torch.isfinite(result.operator.kernel()).all()


def test_refusals():
    y = random(1, 3, 8, 8)
    with pytest.raises(InputError, match="known_sigma"):
        gibbs_ddrm(Observation(y, FreeKernel(3)), PRIOR, TINY)
    for operator in (None, Downsample(2), Compose([GaussianBlur(1.0, size=3), GaussianBlur(1.0, size=3)])):
        with pytest.raises(OperatorError, match="blur"):
            gibbs_ddrm(Observation(y, operator, known_sigma=0.1), PRIOR, TINY)
    with pytest.raises(OperatorError, match="kernel_px"):
        gibbs_ddrm(Observation(y, FreeKernel(5, boundary="valid"), known_sigma=0.1), PRIOR, TINY)
    for settings in ({"kernel_px": 4}, {"rate": 3.0}, {"sigma": "guessed"}, {"turns": -1}, {"eta_b": 1.5}):
        with pytest.raises(SettingError):
            GibbsDDRM(**settings)
