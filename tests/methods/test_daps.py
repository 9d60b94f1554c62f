import pytest
import torch

from pristina.errors import InputError, OperatorError, SettingError
from pristina.methods.daps import DAPS, PAPER, calls, daps, flow, pull_of_data
from pristina.methods.steps.annealing import denoise, largest_level, noise_levels
from pristina.methods.steps.result import Calls
from pristina.operators.base import Observation, Operator
from pristina.operators.resample import Downsample
from pristina.priors.base import to_unit
from pristina.priors.gaussian import GaussianPrior
from tests.contract.battery import check_method


class Gamma(Operator):
    name, linear = "gamma", False

    def forward(self, x):
        return x.clamp(min=1e-3) ** 2.2


def random_images(n=2):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("operator", [Downsample(2), Gamma()])
def test_battery(operator):
    observation = Observation(random_images(), operator, known_sigma=0.05)
    settings = DAPS(steps=3, langevin=3)
    check_method(daps, observation, GaussianPrior(0.0, 0.1), settings, calls=6)


def test_calls():
    assert calls(DAPS(steps=7, ode_steps=3)) == Calls(21)
    assert calls(PAPER) == Calls(1000)


def test_noise_levels():
    levels = noise_levels(5, 100.0, 0.1)
    assert levels[0] == pytest.approx(100) and levels[-1] == pytest.approx(0.1)
    roots = torch.tensor(levels) ** (1 / 7)
    assert torch.allclose(roots.diff(), roots.diff()[0].expand(4), rtol=1e-3)
    assert noise_levels(1, 3.0, 0.1) == [pytest.approx(3)]
    assert largest_level(GaussianPrior(), 1e9) == pytest.approx(157, rel=0.01)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 30.0])
def test_the_mean_and_the_flow_of_gaussian_pixels_are_known(sigma):
    mean, variance = 0.3, 0.1
    prior, x = GaussianPrior(mean, variance), sigma * torch.linspace(-2, 2, 192).view(1, 3, 8, 8)
    expected = mean + variance / (variance + sigma**2) * (x - mean)
    assert torch.allclose(denoise(prior, x, sigma), expected, atol=2e-3)
    assert torch.equal(flow(prior, x, sigma, 1), denoise(prior, x, sigma))
    along = mean + (variance / (variance + sigma**2)) ** 0.5 * (x - mean)
    assert (flow(prior, x, sigma, 60) - along).abs().max() < 0.05


def test_the_pull_of_the_data_is_a_gradient():
    """For a linear operator it is the adjoint's, for others it is differentiated."""
    x, y = torch.rand(1, 3, 8, 8) - 0.5, random_images(1)
    assert torch.allclose(pull_of_data(Operator(), y, x), 2 * (y - to_unit(x)))
    u = to_unit(x)
    expected = 2 * (y - u**2.2) * 2.2 * u**1.2
    assert torch.allclose(pull_of_data(Gamma(), y, x), expected, atol=1e-5)


def test_what_it_cannot_do_without_is_refused():
    y, prior = random_images(), GaussianPrior()
    with pytest.raises(OperatorError, match="needs the true operator"):
        daps(Observation(y, known_sigma=0.1), prior)
    with pytest.raises(InputError, match="must know the noise"):
        daps(Observation(y, Operator()), prior)
    wrong_settings = ({"steps": 0}, {"ode_steps": 0}, {"rate": 2.0}, {"tau": 0.0})
    for wrong in wrong_settings:
        with pytest.raises(SettingError, match=next(iter(wrong))):
            DAPS(**wrong)
