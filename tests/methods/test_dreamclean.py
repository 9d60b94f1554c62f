import pytest
import torch

from pristina.errors import SettingError
from pristina.methods.dreamclean import DreamClean, calls, dreamclean, renew
from pristina.methods.steps.result import Calls
from pristina.operators.base import Observation
from pristina.priors.base import to_signed, to_unit
from pristina.priors.gaussian import GaussianMixturePrior, GaussianPrior
from pristina.priors.schedule import alpha_bar_at
from pristina.seeds import generators
from tests.contract.battery import check_method


def random_images(n=2):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def mixture():
    """Make a prior whose prediction is not linear in the image."""
    means = torch.stack([torch.full((3, 8, 8), -0.3), torch.full((3, 8, 8), 0.4)])
    return GaussianMixturePrior(means, variance=0.05)


@pytest.mark.parametrize("settings", [DreamClean(levels=4, renewals=2), DreamClean(levels=1)])
def test_battery(settings):
    n_calls = settings.levels * (2 + settings.renewals)
    observation = Observation(random_images())
    check_method(dreamclean, observation, GaussianPrior(0.0, 0.1), settings, calls=n_calls)
    assert calls(settings) == Calls(n_calls)


@pytest.mark.parametrize("gamma", [0.0, 0.05, 0.3, 1.0])
def test_renewal_preserves_variance(gamma):
    assert abs((1 - gamma) ** 2 + gamma * (2 - gamma) - 1) < 1e-12
    g = torch.Generator().manual_seed(0)
    x0 = torch.full((400, 3, 8, 8), 0.3)
    eps, z = torch.randn(x0.shape, generator=g), torch.randn(x0.shape, generator=g)
    alpha_bar = torch.tensor(0.6)
    x_t = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps
    renewed = renew(x_t, eps, alpha_bar, gamma, z)
    noise = renewed - alpha_bar.sqrt() * x0  # the image itself is untouched
    assert abs(noise.var() / (1 - alpha_bar) - 1) < 0.02 and abs(noise.mean()) < 0.01
    correlation = (noise * eps).mean() / (noise.std() * eps.std())
    assert abs(correlation - (1 - gamma)) < 0.02  # gamma is the share that is renewed
    if gamma == 0:
        assert torch.equal(renewed, x_t)


def by_hand(prior, y, levels, tau, gamma, renewals, generator):
    """Run the algorithm of the module's docstring in double precision."""
    ts = [tau * k / levels for k in range(levels + 1)]
    a = [float(alpha_bar_at(prior.alpha_bar, t)) for t in ts]
    x = to_signed(y).double()

    def eps_at(k):
        return prior.predict(x.float(), ts[k]).eps.double()

    def moved(k, j):
        eps = eps_at(k)
        x0 = (x - (1 - a[k]) ** 0.5 * eps) / a[k] ** 0.5
        return a[j] ** 0.5 * x0 + (1 - a[j]) ** 0.5 * eps

    for k in range(levels):
        x = moved(k, k + 1)
    for k in range(levels, 0, -1):
        for _ in range(renewals):
            score = -eps_at(k) / (1 - a[k]) ** 0.5
            z = torch.randn(y.shape[1:], generator=generator)[None].double()
            x = x + gamma * (1 - a[k]) * score
            x = x + (gamma * (2 - gamma) * (1 - a[k])) ** 0.5 * z
        x = moved(k, k - 1)
    return to_unit(x).clamp(0, 1).float()


@pytest.mark.parametrize(
    ("levels", "tau", "gamma", "renewals"),
    [(1, 300.0, 0.2, 1), (3, 300.0, 0.5, 1), (3, 200.0, 0.2, 2), (4, 60.0, 1.0, 1), (3, 300, 0, 3)],
)
def test_every_level_is_the_formula(levels, tau, gamma, renewals):
    prior, y = mixture(), 0.3 + 0.4 * random_images(1)
    settings = DreamClean(levels, float(tau), float(gamma), renewals)
    found = dreamclean(Observation(y), prior, settings, generator=generators(3, 1)).images
    expected = by_hand(prior, y, levels, tau, gamma, renewals, generators(3, 1)[0])
    assert (found - expected).abs().max() < 1e-4


def test_inversion_and_generation_give_the_image_back_as_levels_grow_finer():
    y = 0.7 + 0.2 * (random_images() - 0.5)

    def off(levels):
        settings = DreamClean(levels=levels, tau=300.0, gamma=0.0)
        again = dreamclean(Observation(y), mixture(), settings).images
        return (again - y).square().mean().sqrt()

    assert off(200) < 0.2 * off(20) and off(400) < 0.005


def test_it_pulls_towards_the_prior():
    prior = GaussianPrior(0.0, 0.01)
    g = torch.Generator().manual_seed(1)
    y = to_unit(prior.sample(torch.randn(8, 3, 8, 8, generator=g)))
    noisy = Observation(y + 0.1 * torch.randn(y.shape, generator=g))
    for tau in (60.0, 150.0):
        settings = DreamClean(tau=tau, gamma=0.2)
        found = dreamclean(noisy, prior, settings, generator=generators(0, 8)).images
        assert (found - y).square().mean() < 0.7 * (noisy.y - y).square().mean()


@pytest.mark.parametrize(
    "wrong",
    [{"gamma": 1.5}, {"tau": 0.0}, {"tau": 1000.0}, {"levels": 0}, {"renewals": -1}],
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        DreamClean(**wrong)
