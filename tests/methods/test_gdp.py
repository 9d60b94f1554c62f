import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pristina.errors import SettingError, SizeError
from pristina.methods.gdp import GDP, LIGHT, Light, gdp
from pristina.operators.base import Observation, Operator
from pristina.priors.base import SizeRule, to_unit
from pristina.priors.gaussian import GaussianPrior
from pristina.priors.schedule import alpha_bar_at, ddpm_posterior
from pristina.seeds import generators
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


def random_images(n=2, side=8):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("operator", [None, Operator(), Pool(), Gain()])
@pytest.mark.parametrize("guide", ["x0", "xt"])
def test_battery(operator, guide):
    observation = Observation(random_images(), operator)
    check_method(gdp, observation, GaussianPrior(0.0, 0.1), GDP(steps=8, guide=guide), calls=8)


@pytest.mark.parametrize("guide", ["x0", "xt"])
def test_one_step_is_the_formula(guide):
    prior, y, scale = GaussianPrior(0.1, 0.02), random_images(1), 3000.0
    settings = GDP(steps=1, scale=scale, guide=guide)
    found = gdp(Observation(y, Operator()), prior, settings, generator=generators(5, 1)).images
    x_t = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(5))[None]
    x0 = prior.predict(x_t, 999).x0.clamp(-1, 1)  # a single step is made at the last timestep
    # d/dx of mean((x/2 + 1/2 - y)^2), where x is the guide
    gradient = (to_unit(x0 if guide == "x0" else x_t) - y) / y[0].numel()
    push = scale * 1000 * (8 * 8 / 256**2) * gradient
    assert torch.allclose(found, to_unit(x0 - push).clamp(0, 1), atol=1e-5)


@pytest.mark.parametrize("guide", ["x0", "xt"])
def test_two_steps_are_the_formula(guide):
    """A chain from t = 500 by t = 0, through an operator, with the ancestral step in full."""
    prior, y, scale = GaussianPrior(0.1, 0.02), random_images(1, side=4), 500.0
    settings = GDP(steps=2, scale=scale, guide=guide)
    result = gdp(Observation(y, Pool()), prior, settings, generator=generators(5, 1))
    g = torch.Generator().manual_seed(5)
    x = torch.randn(3, 8, 8, generator=g)[None]
    losses = []
    for t, s in ((500, 0), (0, -1)):
        x0 = prior.predict(x, t).x0.clamp(-1, 1)
        a_t, a_s = alpha_bar_at(prior.alpha_bar, t), alpha_bar_at(prior.alpha_bar, s)
        mean, variance = ddpm_posterior(x, x0, a_t, a_s)
        off = F.avg_pool2d(to_unit(x0 if guide == "x0" else x), 2) - y
        losses.append(off.square().mean())
        gradient = F.interpolate(off, scale_factor=2) / 4 / off.numel()
        x = mean - scale * 500 * (8 * 8 / 256**2) * gradient
        if s >= 0:
            x = x + variance.sqrt() * torch.randn(3, 8, 8, generator=g)[None]
    assert torch.allclose(result.images, to_unit(x).clamp(0, 1), atol=1e-5)
    assert torch.allclose(result.trace["loss"][:, 0], torch.stack(losses), rtol=1e-4)


def test_guidance_draws_the_sample_to_the_observation():
    prior, y = GaussianPrior(0.0, 0.1), 0.5 + 0.3 * (random_images(4) - 0.5)
    free, guided = (
        gdp(Observation(y, Operator()), prior, GDP(steps=50, scale=s)).images
        for s in (0.0, 12000.0)
    )
    assert (guided - y).square().mean() < 0.1 * (free - y).square().mean()


def dark():
    prior = GaussianPrior(0.2, 0.02)
    z = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return prior, to_unit(prior.sample(z))


def test_light_model_finds_the_factor():
    prior, truth = dark()
    result = gdp(Observation(0.25 * truth), prior, LIGHT)
    assert isinstance(result.operator, Light)
    for factor in result.operator.estimates()["factor"]:
        assert abs(factor - 0.25) < 0.03
    before = (truth - 0.25 * truth).square().mean()
    assert (result.images - truth).square().mean() < 0.25 * before
    assert "light multiplied by 0.2" in result.operator.describe()


def test_a_fresh_start_keeps_the_operator():
    prior, truth = dark()
    observation = Observation(0.25 * truth)
    first = gdp(observation, prior, LIGHT)
    settings = GDP(steps=5, scale=0.0, rate=0.0)
    again = gdp(observation, prior, settings, start=first.state.fresh())
    assert torch.equal(again.operator.factor, first.operator.factor)
    assert torch.equal(again.operator.mask, first.operator.mask)
    anew = gdp(observation, prior, settings)
    assert anew.operator.factor.abs().max() < 0.1


def test_unknown_parameters_are_fitted_for_each_image():
    prior = GaussianPrior(0.2, 1e-4)
    # 0.5 and 1 times the prior's mean of 0.6
    y = torch.stack([torch.full((3, 8, 8), 0.3), torch.full((3, 8, 8), 0.6)])
    result = gdp(Observation(y, Gain()), prior, GDP(scale=0.0, rate=0.5))
    assert torch.allclose(result.operator.gain.flatten(), torch.tensor([0.5, 1.0]), atol=0.02)


def test_an_image_that_does_not_fit_the_prior_is_refused():
    prior = GaussianPrior(0.0, 0.1)
    prior.size_rule = SizeRule(native=8, fixed=True)
    for side in (6, 12):
        with pytest.raises(SizeError):
            gdp(Observation(random_images(2, side), Operator()), prior, GDP(steps=3))


def test_windows_serve_an_image_of_any_size():
    from pristina.priors.windowed import Windowed

    prior = GaussianPrior(0.0, 0.1)
    prior.size_rule = SizeRule(native=8, fixed=True)
    observation = Observation(random_images(2, 12), Operator())
    result = gdp(observation, Windowed(prior), GDP(steps=3))
    # A prior without correlations must not notice the windows.
    free = gdp(observation, GaussianPrior(0.0, 0.1), GDP(steps=3))
    assert torch.allclose(result.images, free.images, atol=1e-5)
    assert result.cost.network_calls == 2 * 3 * 4


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"guide": "both"}, {"scale": -1.0}, {"rate": -1.0}]
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        GDP(**wrong)
