import pytest
import torch

from pristina.errors import InputError, OperatorError, SettingError
from pristina.methods.ddnm import DDNM, calls, ddnm, route, update_for
from pristina.methods.steps.result import Calls
from pristina.operators.base import Observation, Operator
from pristina.operators.mask import Mask
from pristina.operators.resample import Downsample
from pristina.priors.gaussian import GaussianPrior
from pristina.seeds import generators
from pristina.types import Draw
from tests.contract.battery import check_method


class Gamma(Operator):
    name, linear = "gamma", False

    def forward(self, x):
        return x.clamp(min=1e-3) ** 2.2


class Hidden(Operator):
    """An operator of which no decomposition is known."""

    name = "hidden"

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)

    def picture_size(self, height, width):
        return self.inner.picture_size(height, width)


def random_images(n=2):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("operator", [Mask(drop=0.4, seed=1), Downsample(2, "bicubic")])
def test_battery(operator):
    with torch.no_grad():
        y = operator(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    settings = DDNM(steps=4, travel_length=2, travel_repeat=2)
    observation = Observation(y, operator, known_sigma=0.05)
    check_method(ddnm, observation, GaussianPrior(0.0, 0.1), settings, calls=6, tolerance=1e-4)


def test_calls_and_route():
    assert calls(DDNM(steps=7)) == Calls(7)
    assert calls(DDNM(steps=8, travel_length=3, travel_repeat=2)) == Calls(14)
    order = route(DDNM(steps=8, travel_length=3, travel_repeat=2))
    assert order == [0, 1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6, 7]


@pytest.mark.parametrize("operator", [Mask(drop=0.4, seed=1), Downsample(2, "area")])
@pytest.mark.parametrize("sigma_next", [0.9, 0.11, 0.02])
def test_both_updates_agree_where_all_singular_values_are_equal(operator, sigma_next):
    g = torch.Generator().manual_seed(4)
    y = operator(random_images())
    x0, eps = torch.randn(2, 2, 3, 8, 8, generator=g)
    found = []
    for known in (operator, Hidden(operator)):
        observation = Observation(y, known, known_sigma=0.05)
        draw = Draw(generators(5, 2), 2)
        update = update_for(observation, x0.shape, DDNM(threshold=0.001), draw)
        found.append(update(x0, eps, torch.tensor(sigma_next)))
    assert torch.allclose(*found, atol=2e-3)
    assert (found[0] - x0).abs().mean() > 0.01


def test_what_it_cannot_do_without_is_refused():
    y, prior = random_images(), GaussianPrior()
    with pytest.raises(OperatorError, match="needs a linear operator"):
        ddnm(Observation(y, Gamma(), known_sigma=0.1), prior)
    with pytest.raises(InputError, match="must know the noise"):
        ddnm(Observation(y, Operator()), prior)
    for wrong in ({"steps": 0}, {"eta": 2.0}, {"travel_length": 0}, {"travel_repeat": 0}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            DDNM(**wrong)
