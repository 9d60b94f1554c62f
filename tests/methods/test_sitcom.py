import pytest
import torch

from pristina.errors import InputError, OperatorError, SettingError
from pristina.methods.sitcom import SITCOM, SLACK, calls, sitcom
from pristina.methods.steps.result import Calls
from pristina.operators.base import Observation, Operator
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
    # The first image is explained sooner than the second.
    y = torch.stack([torch.full((3, 8, 8), 0.5), random_images(1)[0]])
    observation = Observation(y, operator, known_sigma=0.1)
    check_method(
        sitcom, observation, GaussianPrior(0.0, 0.1), SITCOM(steps=3, iterations=3), calls=None
    )


def test_calls():
    assert calls(SITCOM(steps=7, iterations=4)) == Calls(28, 21, may_stop=True)


def test_an_image_that_is_explained_costs_no_more_calls():
    easy, hard = torch.full((1, 3, 8, 8), 0.5), random_images(1)
    prior, settings = GaussianPrior(0.0, 0.01), SITCOM(steps=4, iterations=5)
    costs = []
    for y in (easy, hard, torch.cat([easy, hard])):
        cost = sitcom(Observation(y, Operator(), known_sigma=0.1), prior, settings).cost
        costs.append((cost.network_calls, cost.backward_calls))
    assert costs[0] == (4, 0) and costs[1] == (20, 16) and costs[2] == (24, 16)


def test_the_input_of_the_network_is_optimised_until_the_residual_is_that_of_the_noise():
    prior, y, sigma = GaussianPrior(0.0, 0.3), random_images(1), 0.1
    prior.alpha_bar = torch.tensor([0.5])
    observation = Observation(y, Operator(), known_sigma=sigma)
    few, many = (
        sitcom(observation, prior, SITCOM(1, n, 0.1), generator=generators(2, 1)) for n in (2, 100)
    )
    assert many.cost.network_calls < 50
    assert few.trace["loss"][-1] > (sigma + SLACK) ** 2 >= many.trace["loss"][-1]


def test_what_it_cannot_do_without_is_refused():
    y, prior = random_images(), GaussianPrior()
    with pytest.raises(OperatorError, match="needs the true operator"):
        sitcom(Observation(y, known_sigma=0.1), prior)
    with pytest.raises(InputError, match="must know the noise"):
        sitcom(Observation(y, Operator()), prior)
    for wrong in ({"steps": 0}, {"iterations": 0}, {"learning_rate": 0.0}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            SITCOM(**wrong)
