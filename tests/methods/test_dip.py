import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pristina.errors import SettingError, SizeError
from pristina.methods.dip import DIP, _Fit, _Watch, dip
from pristina.operators.base import Observation, Operator
from pristina.priors.untrained import SkipNetwork
from pristina.types import Draw, generators
from tests.contract.battery import check_method

TINY = DIP(iterations=4, channels=8, scales=2, inputs=4, window=2)


class Pool(Operator):
    name = "pool"

    def forward(self, x):
        return F.avg_pool2d(x, 2)

    def picture_size(self, height, width):
        return 2 * height, 2 * width


class Gain(Operator):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.full((1, 1, 1, 1), 0.5))

    def forward(self, x):
        return self.gain * x


def pictures(n=2, side=8):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("stop", ["iterations", "emv", "diip"])
def test_battery(stop):
    check_method(dip, Observation(pictures()), None, DIP(iterations=4, channels=8, scales=2, inputs=4, window=2, stop=stop), calls=0)


def test_battery_with_operator():
    check_method(dip, Observation(pictures(), Pool()), None, TINY, calls=0)


def test_it_fits_the_observation_through_the_operator():
    truth = torch.linspace(0.1, 0.9, 16).expand(1, 3, 16, 16)
    settings = DIP(iterations=100, channels=16, scales=2, jitter=0, average=0, stop="iterations")
    result = dip(Observation(F.avg_pool2d(truth, 2), Pool()), None, settings)
    assert result.trace["loss"][-1] < 1e-3 < result.trace["loss"][0]
    assert (result.picture - truth).square().mean() < 5e-3


def test_blind_ignores_the_operator_and_leaves_it_alone():
    operator = Gain()
    y = torch.full((1, 3, 16, 16), 0.3)
    settings = DIP(iterations=60, channels=8, scales=2, jitter=0, average=0, stop="iterations")
    with_operator = dip(Observation(y, operator), None, settings).picture.mean()
    blind = dip(Observation(y, operator), None, DIP(**(vars(settings) | {"blind": True}))).picture.mean()
    assert abs(with_operator - 0.6) < 0.05 and abs(blind - 0.3) < 0.05
    assert operator.gain.grad is None


def test_a_bad_step_is_undone_and_not_taken():
    fit = _Fit(Draw(None, 1), 3, (8, 8), TINY)
    x = fit.output().detach()
    assert fit.take(x, 0.01)
    saved = [p.detach().clone() for p in fit.network.parameters()]
    with torch.no_grad():
        for p in fit.network.parameters():
            p.add_(1.0)
    assert fit.take(x, 0.03)  # 4.8 dB worse: still allowed, and now the state to go back to
    allowed = [p.detach().clone() for p in fit.network.parameters()]
    with torch.no_grad():
        for p in fit.network.parameters():
            p.add_(1.0)
    average = fit.average.clone()
    assert not fit.take(x + 1, 0.1)  # 5.2 dB worse
    assert all(torch.equal(p, a) and not torch.equal(p, s) for p, a, s in zip(fit.network.parameters(), allowed, saved, strict=True))
    assert torch.equal(fit.average, average)  # nor does a bad output enter the average
    assert not fit.take(x, float("nan"))


def test_a_wild_learning_rate_is_caught():
    settings = DIP(iterations=40, channels=8, scales=2, learning_rate=1.0, backtrack_db=1.0, jitter=0)
    trace = dip(Observation(pictures(1, 16)), None, settings).trace
    undone = trace["undone"].flatten()
    assert undone.sum() > 0 and undone[0] == 0
    psnr, last = -10 * trace["loss"].flatten().log10(), -torch.inf
    for value, bad in zip(psnr, undone, strict=True):
        assert bool(bad) == bool(value < last - 1.0)
        last = last if bad else value


def test_moving_variance_stops_at_its_minimum():
    watch = _Watch(1, DIP(stop="emv", window=4, patience=5))
    drift = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    better = []
    for k in range(40):  # outputs that settle until k = 20, and then move off again
        x = torch.full((1, 3, 8, 8), 0.5) + abs(k - 20) ** 2 * 1e-3 * drift
        better.append(bool(watch.better(x, torch.zeros(1))))
    assert all(better[:22]) and not any(better[23:])


def test_patience_and_the_picture_before():
    y = pictures(2, 16)
    settings = DIP(iterations=400, channels=8, scales=2, stop="emv", window=5, patience=20, average=0)
    seen = []
    result = dip(Observation(y), None, settings, generator=generators(0, 2), on_step=lambda e: seen.append(e.picture.clone()))
    assert all("variance" in why for why in result.stopped)
    for i in range(2):
        at = int(result.stopped[i].split()[-1])
        assert torch.equal(result.picture[i], seen[at - 1][i])


def test_diip_rule_stops_a_fit_that_has_converged():
    settings = DIP(
        iterations=500, channels=8, scales=2, stop="diip", window=10, patience=5, warm_up=20, epsilon=0.01, jitter=0, learning_rate=0.02
    )
    result = dip(Observation(pictures(1, 16)), None, settings)
    assert "DIIP" in result.stopped[0] and len(result.trace["loss"]) < 500


def test_the_network_has_its_own_weights_and_spares_the_global_generator():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    a, b, c = (SkipNetwork(Draw(g, 1), inputs=4, channels=8, scales=2) for g in generators(0, 2) + generators(0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    z = torch.rand(1, 4, 9, 15)
    assert a(z).shape == (1, 3, 9, 15)
    assert torch.equal(a(z), c(z)) and not torch.equal(a(z), b(z))
    full = SkipNetwork(Draw(None, 1))
    assert 2.1e6 < sum(p.numel() for p in full.parameters()) < 2.3e6  # the paper's default: about 2.2 million


def test_bad_settings_are_refused():
    with pytest.raises(SizeError, match="33 px"):
        dip(Observation(torch.rand(1, 3, 32, 32)), None, DIP(scales=5))
    with pytest.raises(SettingError):
        DIP(stop="psnr")
    with pytest.raises(SettingError):
        DIP(average=1.0)
    with pytest.raises(SettingError):
        DIP(iterations=0)
