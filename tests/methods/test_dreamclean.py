import pytest
import torch

from pristina.errors import SettingError
from pristina.methods.dreamclean import DreamClean, dreamclean, renew
from pristina.operators.base import Observation
from pristina.priors.base import to_signed, to_unit
from pristina.priors.gaussian import GaussianMixturePrior, GaussianPrior
from pristina.priors.schedule import alpha_bar_at
from pristina.types import generators
from tests.contract.battery import check_method


def pictures(n=2):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_battery():
    check_method(dreamclean, Observation(pictures()), GaussianPrior(0.0, 0.1), DreamClean(levels=4, renewals=2), calls=4 * 4)


@pytest.mark.parametrize("gamma", [0.0, 0.05, 0.3, 1.0])
def test_renewal_preserves_variance(gamma):
    assert abs((1 - gamma) ** 2 + gamma * (2 - gamma) - 1) < 1e-12
    g = torch.Generator().manual_seed(0)
    x0 = torch.full((400, 3, 8, 8), 0.3)
    eps, z = torch.randn(x0.shape, generator=g), torch.randn(x0.shape, generator=g)
    alpha_bar = torch.tensor(0.6)
    x_t = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps
    renewed = renew(x_t, eps, alpha_bar, gamma, z)
    noise = renewed - alpha_bar.sqrt() * x0  # the picture itself is untouched
    assert abs(noise.var() / (1 - alpha_bar) - 1) < 0.02 and abs(noise.mean()) < 0.01
    if gamma == 0:
        assert torch.equal(renewed, x_t)


def test_gamma_zero_is_inversion_and_generation():
    prior = GaussianMixturePrior(torch.stack([torch.full((3, 8, 8), -0.3), torch.full((3, 8, 8), 0.4)]), variance=0.05)
    y, levels, tau = 0.7 + 0.2 * (pictures() - 0.5), 20, 300.0
    found = dreamclean(Observation(y), prior, DreamClean(levels=levels, tau=tau, gamma=0.0)).picture

    ts = [tau * k / levels for k in range(levels + 1)]
    a = [float(alpha_bar_at(prior.alpha_bar, t)) for t in ts]
    x = to_signed(y)
    for i, j in [(k, k + 1) for k in range(levels)] + [(k, k - 1) for k in range(levels, 0, -1)]:
        eps = prior.predict(x, ts[i]).eps
        x = (a[j] / a[i]) ** 0.5 * (x - (1 - a[i]) ** 0.5 * eps) + (1 - a[j]) ** 0.5 * eps
    assert (found - to_unit(x).clamp(0, 1)).abs().max() < 1e-4

    def off(levels):
        again = dreamclean(Observation(y), prior, DreamClean(levels=levels, tau=tau, gamma=0.0)).picture
        return (again - y).square().mean().sqrt()

    assert off(200) < 0.2 * off(20) and off(400) < 0.005  # and gives the picture back as the levels grow finer


def test_it_pulls_towards_the_prior():
    prior = GaussianPrior(0.0, 0.01)
    y = to_unit(prior.sample(torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))))
    noisy = y + 0.1 * torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    for tau in (60.0, 150.0):
        found = dreamclean(Observation(noisy), prior, DreamClean(tau=tau, gamma=0.2), generator=generators(0, 8)).picture
        assert (found - y).square().mean() < 0.7 * (noisy - y).square().mean()


def test_bad_settings_are_refused():
    for bad in ({"gamma": 1.5}, {"tau": 0.0}, {"tau": 1000.0}, {"levels": 0}):
        with pytest.raises(SettingError):
            DreamClean(**bad)
