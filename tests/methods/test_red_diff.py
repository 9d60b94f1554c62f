import pytest
import torch

from pristina.errors import OperatorError, SettingError
from pristina.methods.red_diff import PAPER, REDDiff, calls, red_diff
from pristina.methods.steps.linear import pseudo_inverse
from pristina.methods.steps.result import Calls
from pristina.operators.base import Observation, Operator
from pristina.operators.mask import Mask
from pristina.operators.resample import Downsample
from pristina.priors.gaussian import GaussianPrior
from pristina.seeds import generators
from tests.contract.battery import check_method


class Gamma(Operator):
    name, linear = "gamma", False

    def forward(self, x):
        return x.clamp(min=1e-3) ** 2.2


def random_images(n=2):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("operator", [Downsample(2), Gamma()])
def test_battery(operator):
    observation = Observation(random_images(), operator)
    check_method(red_diff, observation, GaussianPrior(0.0, 0.1), REDDiff(steps=4), calls=4)


def test_calls():
    assert calls(REDDiff(steps=7)) == Calls(7)
    assert calls(PAPER) == Calls(1000)


def test_the_first_step_of_adam_goes_against_the_gradient():
    """Its length is the learning rate in each pixel, its direction that of the sum of the terms."""
    prior, y, rate, lam = GaussianPrior(0.0, 0.1), random_images(1), 0.01, 0.7
    prior.alpha_bar = torch.full((10,), 0.4)
    settings = REDDiff(steps=1, learning_rate=rate, lam=lam)
    found = red_diff(Observation(y, Operator()), prior, settings, generator=generators(3, 1))
    mu = 2 * pseudo_inverse(Operator(), y) - 1
    eps = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(3))[None]
    predicted = prior.predict(0.4**0.5 * mu + 0.6**0.5 * eps, 0).eps
    gradient = mu - (2 * y - 1) + lam * 1.5**0.5 * (predicted - eps)
    assert torch.allclose(found.state.noise, mu - rate * gradient.sign(), atol=1e-4)


def test_it_fits_an_observation_through_a_nonlinear_operator():
    truth = 0.5 + 0.3 * (random_images(4) - 0.5)
    observation, prior = Observation(Gamma()(truth), Gamma()), GaussianPrior(0.0, 0.1)
    found = red_diff(observation, prior, REDDiff(steps=60)).images
    assert (found - truth).square().mean() < 0.1 * (observation.y - truth).square().mean()


def test_the_pseudo_inverse_is_grey_where_nothing_is_observed():
    mask = Mask(drop=0.5, seed=1)
    y = mask(random_images())
    kept = mask.mask(8, 8).expand(y.shape).bool()
    found = pseudo_inverse(mask, y)
    assert torch.allclose(found[kept], y[kept], atol=0.01)
    assert torch.allclose(found[~kept], torch.tensor(0.5))


def test_bad_input_is_refused():
    with pytest.raises(OperatorError, match="needs the true operator"):
        red_diff(Observation(random_images()), GaussianPrior())
    for wrong in ({"steps": 0}, {"learning_rate": 0.0}, {"lam": -1.0}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            REDDiff(**wrong)
