import pytest
import torch
from torch.nn import functional as F

from pristina.errors import OperatorError, SettingError
from pristina.methods.dps import DPS, PAPER, PAPER_INPAINTING, dps
from pristina.operators.base import Observation, Operator
from pristina.priors.base import to_unit
from pristina.priors.gaussian import GaussianMixturePrior, GaussianPrior
from pristina.seeds import generators
from tests.contract.battery import check_method


class Pool(Operator):
    name = "pool"

    def forward(self, x):
        return F.avg_pool2d(x, 2)

    def picture_size(self, height, width):
        return 2 * height, 2 * width


class Gamma(Operator):
    """Not linear."""

    name, linear = "gamma", False

    def forward(self, x):
        return x.clamp(min=1e-3) ** 2.2


def random_images(n=2):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("operator", [Operator(), Pool(), Gamma()])
def test_battery(operator):
    observation = Observation(random_images(), operator)
    check_method(dps, observation, GaussianPrior(0.0, 0.1), DPS(steps=8), calls=8, backward=8)


def mixture():
    means = torch.stack([torch.full((3, 8, 8), -0.5), torch.full((3, 8, 8), 0.5)])
    return GaussianMixturePrior(means, variance=0.05)


def test_the_gradient_goes_through_the_network():
    """One step, against finite differences of the norm in x_t, with a prior that is not linear."""
    prior = mixture()
    prior.alpha_bar = torch.tensor([0.99])  # a single timestep, with little noise
    y, zeta, t = random_images(1), 0.5, 0
    settings = DPS(steps=1, zeta=zeta)
    found = dps(Observation(y, Operator()), prior, settings, generator=generators(2, 1)).images
    x_t = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(2))[None]

    def norm(x):
        return 2 * (y - to_unit(prior.predict(x, t).x0.clamp(-1, 1))).flatten().norm().double()

    x0 = prior.predict(x_t, t).x0.clamp(-1, 1)
    for spot in [(0, 0, 0, 0), (0, 1, 4, 2), (0, 2, 7, 7), (0, 1, 1, 5)]:
        h = torch.zeros_like(x_t)
        h[spot] = 1e-2
        gradient = float((norm(x_t + h) - norm(x_t - h)) / 2e-2)
        expected = float(x0[spot]) - zeta * 1000 * (8 / 256) * gradient
        assert abs(float(found[spot]) - min(max((expected + 1) / 2, 0), 1)) < 5e-3


def test_it_fits_an_observation_through_a_nonlinear_operator():
    prior = GaussianPrior(0.0, 0.1)
    truth = 0.5 + 0.3 * (random_images(4) - 0.5)
    y = Gamma()(truth)
    guided, free = (
        dps(Observation(y, Gamma()), prior, DPS(zeta=zeta)).images for zeta in (1.0, 0.0)
    )
    assert (guided - truth).square().mean() < 0.5 * (free - truth).square().mean()


def test_presets_are_the_published_settings():
    assert (PAPER.steps, PAPER.zeta) == (1000, 0.3)
    assert (PAPER_INPAINTING.steps, PAPER_INPAINTING.zeta) == (1000, 0.5)


def test_bad_input_is_refused():
    with pytest.raises(OperatorError, match="needs the operator"):
        dps(Observation(random_images()), GaussianPrior())
    for wrong in ({"steps": 0}, {"steps": 1001}, {"zeta": -1.0}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            DPS(**wrong)
