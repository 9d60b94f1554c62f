import pytest
import torch

from pristina.errors import InputError, OperatorError, SettingError
from pristina.methods.pigdm import PiGDM, calls, pigdm
from pristina.methods.steps.result import Calls
from pristina.operators.base import Observation, Operator
from pristina.operators.resample import Downsample
from pristina.priors.base import to_unit
from pristina.priors.gaussian import GaussianMixturePrior, GaussianPrior
from pristina.seeds import generators
from tests.contract.battery import check_method


class Gamma(Operator):
    name, linear = "gamma", False

    def forward(self, x):
        return x.clamp(min=1e-3) ** 2.2


def random_images(n=2):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("operator", [Operator(), Downsample(2)])
def test_battery(operator):
    observation = Observation(random_images(), operator, known_sigma=0.05)
    settings = PiGDM(steps=4)
    check_method(pigdm, observation, GaussianPrior(0.0, 0.1), settings, calls=4, backward=4)


def test_calls():
    assert calls(PiGDM(steps=7)) == Calls(7, 7)


def test_the_guidance_goes_through_the_network():
    """One step, against finite differences of the log-likelihood, with a prior not linear."""
    means = torch.stack([torch.full((3, 8, 8), -0.5), torch.full((3, 8, 8), 0.5)])
    prior = GaussianMixturePrior(means, variance=0.05)
    alpha_bar = 0.9
    prior.alpha_bar = torch.tensor([alpha_bar])
    y, sigma = random_images(1), 0.1
    observation = Observation(y, Operator(), known_sigma=sigma)
    found = pigdm(observation, prior, PiGDM(steps=1), generator=generators(2, 1)).images
    x_t = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(2))[None]
    r_squared = 1 - alpha_bar

    def log_likelihood(x):
        residual = 2 * (y - to_unit(prior.predict(x, 0).x0)).double()
        return -residual.square().sum() / 2 / (r_squared + (2 * sigma) ** 2)

    x0 = prior.predict(x_t, 0).x0
    for spot in [(0, 0, 0, 0), (0, 1, 4, 2), (0, 2, 7, 7), (0, 1, 1, 5)]:
        h = torch.zeros_like(x_t)
        h[spot] = 1e-2
        slope = float((log_likelihood(x_t + h) - log_likelihood(x_t - h)) / 2e-2)
        expected = (float(x0[spot]) + alpha_bar**0.5 * r_squared * slope + 1) / 2
        assert abs(float(found[spot]) - min(max(expected, 0), 1)) < 2e-3


def test_what_it_cannot_do_without_is_refused():
    y, prior = random_images(), GaussianPrior()
    with pytest.raises(OperatorError, match="needs the true operator"):
        pigdm(Observation(y, known_sigma=0.1), prior)
    with pytest.raises(OperatorError, match="needs a linear operator"):
        pigdm(Observation(y, Gamma(), known_sigma=0.1), prior)
    with pytest.raises(InputError, match="must know the noise"):
        pigdm(Observation(y, Operator()), prior)
    for wrong in ({"steps": 0}, {"steps": 1001}, {"eta": 2.0}, {"cg_iterations": 0}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            PiGDM(**wrong)
