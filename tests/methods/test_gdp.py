import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pristina.errors import SettingError, SizeError
from pristina.methods.gdp import GDP, LIGHT, Light, gdp, predict_x0, window_starts
from pristina.operators.base import Observation, Operator
from pristina.priors.base import SizeRule, to_unit
from pristina.priors.gaussian import GaussianPrior
from pristina.types import generators
from tests.contract.battery import check_method


class Pool(Operator):
    name = "pool"

    def forward(self, x):
        return F.avg_pool2d(x, 2)

    def picture_size(self, height, width):
        return 2 * height, 2 * width


class Gain(Operator):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.full((1, 1, 1, 1), 0.9))

    def forward(self, x):
        return self.gain * x


def pictures(n=2, side=8):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("operator", [None, Operator(), Pool(), Gain()])
@pytest.mark.parametrize("guide", ["x0", "xt"])
def test_battery(operator, guide):
    check_method(gdp, Observation(pictures(), operator), GaussianPrior(0.0, 0.1), GDP(steps=8, guide=guide), calls=8)


def test_one_step_is_the_formula():
    prior, y, scale = GaussianPrior(0.1, 0.02), pictures(1), 3000.0
    found = gdp(Observation(y, Operator()), prior, GDP(steps=1, scale=scale), generator=generators(5, 1)).picture
    x_t = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(5))[None]
    x0 = prior.predict(x_t, 0).x0.clamp(-1, 1)
    push = scale * 1000 * (8 * 8 / 256**2) * (to_unit(x0) - y) / y[0].numel()  # d/dx0 of mean((x0/2 + 1/2 - y)^2)
    assert torch.allclose(found, to_unit(x0 - push).clamp(0, 1), atol=1e-5)


def test_guidance_draws_the_sample_to_the_observation():
    prior, y = GaussianPrior(0.0, 0.1), 0.5 + 0.3 * (pictures(4) - 0.5)
    free, guided = (gdp(Observation(y, Operator()), prior, GDP(steps=50, scale=s)).picture for s in (0.0, 12000.0))
    assert (guided - y).square().mean() < 0.1 * (free - y).square().mean()


def test_light_model_finds_the_factor():
    prior = GaussianPrior(0.2, 0.02)
    truth = to_unit(prior.sample(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))))
    result = gdp(Observation(0.25 * truth), prior, LIGHT)
    assert isinstance(result.operator, Light)
    for factor in result.operator.estimates()["factor"]:
        assert abs(factor - 0.25) < 0.03
    assert (result.picture - truth).square().mean() < 0.25 * (truth - 0.25 * truth).square().mean()
    assert "light multiplied by 0.2" in result.operator.describe()


def test_unknown_parameters_are_fitted_for_each_picture():
    prior = GaussianPrior(0.2, 1e-4)
    y = torch.stack([torch.full((3, 8, 8), 0.3), torch.full((3, 8, 8), 0.6)])  # 0.5 and 1 times the prior's mean of 0.6
    result = gdp(Observation(y, Gain()), prior, GDP(scale=0.0, rate=0.5))
    assert torch.allclose(result.operator.gain.flatten(), torch.tensor([0.5, 1.0]), atol=0.02)


def test_windows_cover_and_average():
    assert window_starts(64, 64) == [0] and window_starts(100, 64) == [0, 32, 36]
    prior = GaussianPrior(0.0, 0.1)
    prior.size_rule = SizeRule(native=8, fixed=True)
    free = GaussianPrior(0.0, 0.1)
    x_t = torch.randn(2, 3, 11, 16, generator=torch.Generator().manual_seed(0))
    # a prior without correlations must not notice the windows
    assert torch.allclose(predict_x0(prior, x_t, 300), predict_x0(free, x_t, 300), atol=1e-6)
    result = gdp(Observation(pictures(2, 12), Operator()), prior, GDP(steps=3))
    assert result.picture.shape == (2, 3, 12, 12) and result.cost.network_calls == 2 * 3 * 4
    with pytest.raises(SizeError):
        gdp(Observation(pictures(2, 6), Operator()), prior, GDP(steps=3))


def test_bad_settings_are_refused():
    for bad in ({"steps": 0}, {"guide": "both"}, {"scale": -1.0}):
        with pytest.raises(SettingError):
            GDP(**bad)
