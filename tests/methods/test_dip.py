from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pristina.errors import SettingError, SizeError
from pristina.methods.dip import DIP, PAPER, _Fit, _Watch, dip
from pristina.methods.index import method
from pristina.methods.steps.result import StopReason
from pristina.operators.base import Observation, Operator
from pristina.priors.untrained import SkipNetwork
from pristina.seeds import generators
from pristina.types import Draw
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
    check_method(
        dip,
        Observation(pictures()),
        None,
        DIP(iterations=4, channels=8, scales=2, inputs=4, window=2, stop=stop),
        calls=0,
    )


def test_battery_with_operator():
    check_method(dip, Observation(pictures(), Pool()), None, TINY, calls=0)


def test_it_fits_the_observation_through_the_operator():
    truth = torch.linspace(0.1, 0.9, 16).expand(1, 3, 16, 16)
    settings = DIP(iterations=100, channels=16, scales=2, jitter=0, average=0, stop="iterations")
    result = dip(Observation(F.avg_pool2d(truth, 2), Pool()), None, settings)
    assert result.trace["loss"][-1] < 1e-3 < result.trace["loss"][0]
    assert (result.images - truth).square().mean() < 5e-3


def test_blind_ignores_the_operator_and_leaves_it_alone():
    operator = Gain()
    y = torch.full((1, 3, 16, 16), 0.3)
    settings = DIP(iterations=60, channels=8, scales=2, jitter=0, average=0, stop="iterations")
    with_operator = dip(Observation(y, operator), None, settings).images.mean()
    blind = dip(
        Observation(y, operator), None, DIP(**(vars(settings) | {"blind": True}))
    ).images.mean()
    assert abs(with_operator - 0.6) < 0.05 and abs(blind - 0.3) < 0.05
    assert operator.gain.grad is None


def test_a_bad_step_is_undone_and_not_taken():
    fit = _Fit(Draw(None, 1), 3, torch.rand(1, 4, 8, 8), TINY)
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
    fit.undo()
    assert all(
        torch.equal(p, a) and not torch.equal(p, s)
        for p, a, s in zip(fit.network.parameters(), allowed, saved, strict=True)
    )
    assert torch.equal(fit.average, average)  # nor does a bad output enter the average
    assert not fit.take(x, float("nan"))


def test_a_wild_learning_rate_is_caught():
    settings = DIP(
        iterations=40, channels=8, scales=2, learning_rate=1.0, backtrack_db=1.0, jitter=0
    )
    trace = dip(Observation(pictures(1, 16)), None, settings).trace
    undone = trace["undone"].flatten()
    assert undone.sum() > 0 and undone[0] == 0
    psnr, last = -10 * trace["loss"].flatten().log10(), -torch.inf
    for value, bad in zip(psnr, undone, strict=True):
        assert bool(bad) == bool(value < last - 1.0)
        last = last if bad else value


def test_steps_of_one_image_are_undone_beside_another():
    y = pictures(2, 16)
    y[1] = 0.5 + 0.1 * y[1]
    settings = DIP(**(vars(TINY) | {"iterations": 12, "learning_rate": 0.1, "jitter": 0.0}))
    settings = replace(settings, backtrack_db=0.1, stop="iterations")
    result = dip(Observation(y), None, settings, generator=generators(0, 2))
    undone = result.trace["undone"]
    assert undone[:, 0].sum() == 0 and undone[:, 1].sum() > 2
    alone = dip(Observation(y[1:]), None, settings, generator=generators(1, 1))
    assert torch.equal(alone.trace["undone"][:, 0], undone[:, 1])
    assert torch.allclose(alone.images[0], result.images[1], atol=1e-5)


def test_moving_variance_stops_at_its_minimum():
    watch = _Watch(torch.zeros(1, 3, 8, 8), DIP(stop="emv", window=4, patience=5))
    drift = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    better = []
    for k in range(40):  # outputs that settle until k = 20, and then move off again
        x = torch.full((1, 3, 8, 8), 0.5) + abs(k - 20) ** 2 * 1e-3 * drift
        better.append(bool(watch.better(x, torch.zeros(1))))
    assert all(better[:22]) and not any(better[23:])


def test_the_laplacian_rule_stops_where_sharpness_falls_and_the_slope_rule_where_the_loss_stalls():
    watch = _Watch(torch.zeros(2, 3, 8, 8), DIP(stop="diip", window=2, warm_up=4, epsilon=0.01))
    board = torch.ones(8, 8)
    board[::2, 1::2] = board[1::2, ::2] = -1
    loss = 1.0
    for k in range(20):
        # The loss of the first image falls by 5 % each time, that of the second stalls after 10;
        # the contrast of the first falls after 12, that of the second never does.
        contrast = torch.tensor([min(k, 24 - k), k])
        loss *= 0.95
        losses = torch.tensor([loss, max(loss, 0.95**11)])
        x = 0.5 + 0.01 * contrast.view(2, 1, 1, 1) * board.expand(2, 3, 8, 8)
        better = watch.better(x, losses)
        assert bool(better[0]) == (k <= 13)
        assert bool(better[1]) == (k <= 11)
    assert watch.reasons == [StopReason.LAPLACIAN, StopReason.SLOPE]


def test_the_noise_is_small_and_shaken_anew():
    settings = replace(TINY, inputs=32, jitter=0.25)
    fit = _Fit(Draw(None, 1), 3, torch.zeros(1, 32, 32, 32), settings)
    inputs = []
    fit.network.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    fit.output(), fit.output()
    for x in inputs:
        assert float(x.std()) == pytest.approx(0.25, rel=0.02)
        assert abs(float(x.mean())) < 0.01
    assert not torch.equal(*inputs)
    z = dip(Observation(pictures()), None, TINY).state.noise
    assert z.shape == (2, 4, 8, 8) and 0 <= z.min() < 0.01 and 0.09 < z.max() <= 0.1
    assert float(z.mean()) == pytest.approx(0.05, rel=0.1)


def test_the_average_begins_with_the_first_output_and_remembers_ever_longer():
    fit = _Fit(Draw(None, 1), 1, torch.zeros(1, 4, 8, 8), replace(TINY, average=0.4))
    found, expected = [], 1.0
    for n in range(7):
        fit.take(torch.full((1, 1, 1, 1), float(2**n)), 0.01)
        # Weights of the past after n outputs: 2/11, 3/12, 4/13, 5/14, and then 0.4.
        past = 0 if n == 0 else min(0.4, (1 + n) / (10 + n))
        expected = past * expected + (1 - past) * 2**n
        found.append(float(fit.average))
        assert found[-1] == pytest.approx(expected)
    assert found[0] == 1 and found[1] == pytest.approx(2 / 11 * 1 + 9 / 11 * 2)


def test_the_preset_has_the_published_figures():
    assert method("dip").make_settings("paper") == PAPER
    assert (
        DIP(
            iterations=3000,
            learning_rate=0.01,
            channels=128,
            scales=5,
            skip=4,
            inputs=32,
            jitter=1 / 30,
            average=0.99,
            stop="iterations",
        )
        == PAPER
    )


def test_patience_and_the_picture_before():
    y = pictures(2, 16)
    settings = DIP(
        iterations=400, channels=8, scales=2, stop="emv", window=5, patience=20, average=0
    )
    seen = []
    result = dip(
        Observation(y),
        None,
        settings,
        generator=generators(0, 2),
        on_step=lambda e: seen.append(e.images.clone()),
    )
    for i, stop in enumerate(result.stopped):
        assert stop.reason is StopReason.VARIANCE
        assert torch.equal(result.images[i], seen[stop.step - 1][i])


def test_diip_rule_stops_a_fit_that_has_converged():
    settings = DIP(
        iterations=500,
        channels=8,
        scales=2,
        stop="diip",
        window=10,
        patience=5,
        warm_up=20,
        epsilon=0.01,
        jitter=0,
        learning_rate=0.02,
    )
    result = dip(Observation(pictures(1, 16)), None, settings)
    assert result.stopped[0].reason is StopReason.LAPLACIAN and len(result.trace["loss"]) < 500


def test_the_network_has_its_own_weights_and_spares_the_global_generator():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    a, b, c = (
        SkipNetwork(Draw(g, 1), inputs=4, channels=8, scales=2)
        for g in generators(0, 2) + generators(0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    z = torch.rand(1, 4, 9, 15)
    assert a(z).shape == (1, 3, 9, 15)
    assert torch.equal(a(z), c(z)) and not torch.equal(a(z), b(z))
    full = SkipNetwork(Draw(None, 1))
    assert (
        2.1e6 < sum(p.numel() for p in full.parameters()) < 2.3e6
    )  # the paper's default: about 2.2 million


@pytest.mark.parametrize(
    "wrong",
    [
        {"stop": "psnr"},
        {"average": 1.0},
        {"iterations": 0},
        {"window": 1},
        {"jitter": -0.1},
        {"backtrack_db": 0.0},
        {"warm_up": -1},
    ],
)
def test_settings_out_of_range(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        DIP().changed(wrong)


def test_too_small_an_image_is_refused():
    with pytest.raises(SizeError, match="33 px"):
        dip(Observation(torch.rand(1, 3, 32, 32)), None, DIP(scales=5))
