"""Refit, its data steps and its estimates of noise."""

import math

import pytest
import torch

from pristina.methods.refit import SAMPLE, Refit, refit
from pristina.methods.steps.correlated import ErrorSpectrum, fit_any, fit_linear, frequencies
from pristina.methods.steps.fitted import UnknownForm
from pristina.methods.steps.noise_level import by_brightness, by_frequency, clipped_at, unclipped
from pristina.metrics.kernels import kernel_correlation
from pristina.operators.base import Compose, Observation, Operator
from pristina.operators.blur import FreeKernel, GaussianBlur
from pristina.operators.mask import Mask
from pristina.operators.noise import GaussianNoise
from pristina.operators.resample import Downsample
from pristina.priors.gaussian import GaussianPrior
from pristina.seeds import generators
from pristina.types import Draw
from tests.contract.battery import check_method

SHORT = Refit(steps=3, settle=0.4, average=0.7, iterations=2)


class Gamma(Operator):
    name, linear = "gamma", False

    def forward(self, x):
        return x.clamp(min=1e-3) ** 2.2


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(n=2, size=8):
    return torch.rand(n, 3, size, size, generator=generator())


def natural(size, n=1):
    """Return a Gaussian prior with the power of images, and samples in [0, 1] units."""
    like = torch.zeros(1, 1, size, size)
    power = ErrorSpectrum(like, 500.0, 1.0).power * 4  # [-1, 1] units
    down = torch.fft.fftfreq(size)[:, None].square()
    whole = (down + torch.fft.fftfreq(size)[None].square()).sqrt()
    places = (whole[..., None] - frequencies(like).flatten()).abs().argmin(-1)
    variance = power.flatten()[places]
    variance[0, 0] = 1e-3
    prior = GaussianPrior(0.0, variance, spectral=True)
    noise = torch.randn(n, 3, size, size, generator=generator(1))
    return prior, (prior.sample(noise) + 1) / 2


@pytest.mark.parametrize("operator", [None, FreeKernel(3, sigma=0.8), Gamma()])
def test_battery_of_refit(operator):
    observation = Observation(random_images(), operator)
    check_method(refit, observation, GaussianPrior(0.0, 0.1), SHORT, calls=3, tolerance=1e-4)


def test_battery_of_drawn_images():
    observation, prior = Observation(random_images(), Downsample(2)), GaussianPrior(0.0, 0.1)
    settings = SAMPLE.changed({"steps": 3, "iterations": 2})
    check_method(refit, observation, prior, settings, calls=3, tolerance=1e-4)


def test_the_levels_fall_and_stay():
    levels = Refit(steps=10, settle=0.5, first_noise=3.2, last_noise=0.1).levels(True)
    assert levels[:5] == pytest.approx([3.2, 1.6, 0.8, 0.4, 0.2]) and levels[5:] == [0.1] * 5
    told, untold = (Refit(steps=10).levels(told) for told in (True, False))
    assert told[0] > untold[0] and told[-1] > untold[-1] and len(told) == len(untold) == 10
    # Where a number of y stands for many pixels they stay high.
    last = [Refit().levels(True, side**2)[-1] for side in (1, 2, 4, 16, 64)]
    assert last == pytest.approx([0.3, 0.3, 0.5, 2, 2])
    assert len(SAMPLE.levels(True)) == SAMPLE.steps and SAMPLE.levels(True)[-1] < 0.03


def test_enlarging_much_is_like_staying_at_much_noise():
    y, prior = random_images(), GaussianPrior(0.0, 0.1)
    found, as_set, less = (
        refit(Observation(y, Downsample(8)), prior, settings, generator=generators(0, 2)).images
        for settings in (
            Refit(steps=3),
            Refit(steps=3, last_noise=1.0),
            Refit(steps=3, last_noise=0.3),
        )
    )
    assert torch.equal(found, as_set) and not torch.allclose(found, less, atol=1e-3)


@pytest.mark.parametrize(("told", "bound"), [(True, 0.06), (False, 0.1)])
def test_the_noise_level_is_estimated(told, bound):
    (prior, truth), sigma = natural(32, 4), 0.15
    y = truth + sigma * torch.randn(truth.shape, generator=generator(2))
    operator = GaussianNoise(0.3) if told else None
    result = refit(Observation(y, operator), prior, Refit(steps=12))
    assert (result.extras["sigma"] / sigma - 1).abs().max() < bound
    assert (result.images - truth).square().mean() < 0.3 * sigma**2


def test_a_kernel_is_recovered():
    prior, truth = natural(32, 2)
    blur = GaussianBlur(1.5, size=9)
    y = blur(truth).detach() + 0.005 * torch.randn(truth.shape, generator=generator(2))
    guess = FreeKernel(9, sigma=0.7)
    result = refit(Observation(y, guess), prior, Refit(steps=30))
    true, first = (k.kernel().detach()[:, 0].expand(2, -1, -1) for k in (blur, guess))
    found = result.operator.kernel().detach()[:, 0]
    assert kernel_correlation(first, true).max() < 0.8
    assert kernel_correlation(found, true).min() > 0.84


def test_a_width_is_recovered():
    prior, truth = natural(32, 2)
    y = GaussianBlur(1.5, size=9)(truth).detach()
    y += 0.005 * torch.randn(truth.shape, generator=generator(2))
    form = Compose([GaussianBlur(0.8, size=9), GaussianNoise(0.1)])
    found = refit(Observation(y, form), prior, Refit(steps=30)).operator.parts[0].sigma()
    assert (found / 1.5 - 1).abs().max() < 0.3  # It starts from 0.53.


@pytest.mark.parametrize("operator", [Operator(), GaussianBlur(1.0, size=5), Downsample(2)])
def test_the_data_step_is_the_exact_minimum(operator):
    """Compare with the dense solution, and the step for any operator with that for linear ones."""
    operator.requires_grad_(False)
    x0 = random_images(1, 8)[:, :1]
    y = operator(x0) + 0.1 * torch.randn(operator(x0).shape, generator=generator(3))
    weight = 50 + 50 * torch.rand(y.shape, generator=generator(4))
    error = ErrorSpectrum(x0, 0.5, 0.7)
    basis = torch.eye(64).view(64, 1, 8, 8)
    L = error.shape(basis).flatten(1)
    A = operator(basis).flatten(1).T
    B = A @ L
    left = B.T @ (weight.view(-1, 1) * B) + torch.eye(64)
    w = torch.linalg.solve(left, B.T @ (weight * (y - operator(x0))).flatten())
    exact = x0 + (L @ w).view(1, 1, 8, 8)
    assert torch.allclose(fit_linear(operator, y, x0, weight, error, 64), exact, atol=2e-3)
    assert torch.allclose(fit_any(operator, y, x0, weight, error, 64), exact, atol=1e-2)
    assert (exact - x0).abs().max() > 0.02


def test_drawn_images_have_the_covariance_of_the_posterior():
    n, v = 4000, 0.04
    x0 = torch.full((n, 1, 4, 4), 0.5)
    error, noise = ErrorSpectrum(x0, 0.3, 1.0), GaussianNoise(0.1)
    drawn = [torch.randn(n, 1, 4, 4, generator=generator(seed)) for seed in (0, 1)]
    found = fit_linear(noise, x0, x0, torch.full_like(x0, 1 / v), error, 20, tuple(drawn))
    power = torch.fft.rfft2(found - x0, norm="ortho").abs().square().mean((0, 1))
    assert torch.allclose(power, error.power * v / (error.power + v), rtol=0.15)


def test_noise_of_each_brightness():
    mean = torch.rand(1, 1, 100, 100, generator=generator())
    sigma = 0.05 + 0.2 * mean
    square = (sigma * torch.randn(mean.shape, generator=generator(1))).square()
    seen = torch.ones_like(mean)
    seen[..., :50] = 0  # What is not seen has no part in it.
    found = by_brightness(torch.where(seen > 0, square, 100.0), mean, seen).sqrt()
    assert (found / sigma - 1).abs().mean() < 0.1


@pytest.mark.parametrize("width", [64, 63])
def test_noise_of_each_frequency(width):
    white = torch.randn(1, 3, 64, width, generator=generator())
    f = frequencies(white)
    sigma = 0.05 + 0.2 * f
    y = torch.fft.irfft2(sigma * torch.fft.rfft2(white), s=(64, width))
    assert (by_frequency(y).sqrt() / sigma - 1).abs().mean() < 0.08


def test_what_was_clipped_is_put_back():
    mean, sigma = torch.full((1, 1, 100, 100), 0.9), 0.2
    whole = mean + sigma * torch.randn(mean.shape, generator=generator())
    y = whole.clamp(0, 1)
    low, high = clipped_at(y, 0.0), clipped_at(y, 1.0)
    put_back = unclipped(y, mean, torch.full_like(y, sigma**2), low, high)
    assert high.any() and float(y.mean()) < 0.86
    assert float(put_back.mean()) == pytest.approx(0.9, abs=0.01)
    # Far from the end a Gaussian's tail is a point.
    far = unclipped(y, mean - 5, torch.full_like(y, sigma**2), low, high)
    assert far.isfinite().all()
    # Images that leave [0, 1] were not clipped.
    assert not clipped_at(torch.tensor([[[[0.0, 1.0, 1.1]]]]), 1.0).any()


def test_a_hole_is_filled_and_has_no_part_in_the_noise():
    prior, truth = natural(32, 1)
    y = Mask(box=10)(truth + 0.1 * torch.randn(truth.shape, generator=generator(2)))
    result = refit(Observation(y, Mask(box=10)), prior, Refit(steps=12))
    assert float(result.extras["sigma"]) == pytest.approx(0.1, rel=0.12)
    hole = slice(11, 21)
    before = (Mask(box=10).initial(y) - truth)[..., hole, hole].square().mean()
    assert (result.images - truth)[..., hole, hole].square().mean() < 0.7 * before
    assert math.isfinite(float(result.trace["loss"][-1]))


def test_draws_of_an_unknown_form_have_the_spread_of_what_is_not_known():
    """Their power in each mode is that of a picture of which prediction and noise are known."""
    y = random_images()[:1].expand(400, -1, -1, -1)
    x0 = y + 0.2 * Draw(generators(7, 1), 1).normal(*y.shape[1:])
    error, form = ErrorSpectrum(y, 0.2, 0.5), UnknownForm(y)
    mean = form.fit(x0, error, Draw(None, len(y)), sample=False)
    drawn = form.fit(x0, error, Draw(None, len(y)), sample=True) - mean
    power = torch.fft.rfft2(drawn, norm="ortho").abs().square().mean((0, 1), keepdim=True)
    known = (error.power * form.variance / (error.power + form.variance))[:1]
    assert float(drawn.mean().abs()) < 0.01
    assert float((power / known.mean(1, keepdim=True) - 1).abs().mean()) < 0.1
