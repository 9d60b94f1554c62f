"""Flower and PnP-Flow, which share the flow's path."""

import pytest
import torch
from torch.nn import functional as F

from pristina.errors import InputError, OperatorError
from pristina.methods.flower import Flower, flower
from pristina.methods.pnp_flow import PnPFlow, pnp_flow
from pristina.methods.steps.flow import denoise
from pristina.methods.steps.linear import largest_eigenvalue
from pristina.operators.base import Observation, Operator
from pristina.operators.resample import Downsample
from pristina.priors.base import to_unit
from pristina.priors.gaussian import GaussianPrior
from pristina.seeds import generators
from tests.contract.battery import check_method


class Gamma(Operator):
    name, linear = "gamma", False

    def forward(self, x):
        return x.clamp(min=1e-3) ** 2.2


def random_images(n=2):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("operator", [Operator(), Downsample(2)])
def test_battery_of_flower(operator):
    observation = Observation(random_images(), operator, known_sigma=0.05)
    check_method(flower, observation, GaussianPrior(0.0, 0.1), Flower(steps=8), calls=8)


@pytest.mark.parametrize("operator", [Operator(), Downsample(2)])
def test_battery_of_pnp_flow(operator):
    observation = Observation(random_images(), operator)
    settings = PnPFlow(steps=6, draws=2)
    check_method(pnp_flow, observation, GaussianPrior(0.0, 0.1), settings, calls=12)


@pytest.mark.parametrize("u", [1.0, 0.7, 0.2, 0.01])
def test_the_path_of_a_flow(u):
    """The mean of Gaussian pixels given ``(1 - u) x0 + u noise`` is known."""
    mean, variance = 0.3, 0.1
    x = torch.linspace(-1, 1, 192).view(1, 3, 8, 8)
    gain = (1 - u) * variance / ((1 - u) ** 2 * variance + u**2)
    expected = mean + gain * (x - (1 - u) * mean)
    assert torch.allclose(denoise(GaussianPrior(mean, variance), x, u), expected, atol=2e-3)


def pooled(n, sigma):
    """Return an observation of half the size, the mean of the exact posterior, and the prior.

    Clean pixels have unit variance in [-1, 1] units, for which Flower's steps are exact.
    """
    half = 0.5
    g = torch.Generator().manual_seed(1)
    truth = to_unit(torch.randn(1, 1, 4, 4, generator=g))
    y = F.avg_pool2d(truth, 2) + sigma * torch.randn(1, 1, 2, 2, generator=g)
    gain = half**2 / (half**2 / 4 + sigma**2) / 4  # A A^T is a quarter of the identity.
    mean = 0.5 + 4 * gain * F.interpolate((y - 0.5) / 4, scale_factor=2)
    observation = Observation(y.expand(n, -1, -1, -1).clone(), Downsample(2, "area"), sigma)
    return observation, mean[0, 0], GaussianPrior(0.0, 1.0, channels=1)


def test_flower_is_exact_for_pixels_of_unit_variance():
    """The mean of 256 chains is within 4.5 standard errors of the posterior's in each pixel.

    So few steps do not let it forget an error of the first ones.
    """
    observation, mean, prior = pooled(256, sigma=0.3)
    result = flower(observation, prior, Flower(steps=2), generator=generators(0, 256))
    # The images are clipped to [0, 1]; the state is not.
    chains = to_unit(result.state.noise)[:, 0]
    errors = (chains.mean(0) - mean) / (chains.std(0) / 16)
    assert errors.abs().max() < 4.5
    assert (mean - 0.5).abs().max() > 10 * (chains.std(0) / 16).max()  # There is much to find.


def test_pnp_flow_fits_the_data_and_stays_near_the_prior():
    observation, mean, prior = pooled(64, sigma=0.1)
    result = pnp_flow(observation, prior, PnPFlow(steps=40), generator=generators(0, 64))
    found = to_unit(result.state.noise)[:, 0].mean(0)
    assert (found - mean).square().mean() < 0.1 * (mean - 0.5).square().mean()


def test_power_iteration():
    double = type("Double", (Operator,), {"forward": lambda self, x: 2 * x})()
    found = largest_eigenvalue(double, (2, 1, 4, 4), torch.zeros(1))
    assert torch.allclose(found, torch.full((2, 1, 1, 1), 4.0))
    # A diverging operator is tamed.
    done = pnp_flow(Observation(2 * random_images(), double), GaussianPrior(0.0, 0.1))
    assert done.trace["loss"][-1].max() < 0.1


def test_what_it_cannot_do_without_is_refused():
    y, prior = random_images(), GaussianPrior()
    for method in (flower, pnp_flow):
        with pytest.raises(OperatorError, match="needs the true operator"):
            method(Observation(y, known_sigma=0.1), prior)
        with pytest.raises(OperatorError, match="needs a linear operator"):
            method(Observation(y, Gamma(), known_sigma=0.1), prior)
    with pytest.raises(InputError, match="must know the noise"):
        flower(Observation(y, Operator()), prior)
