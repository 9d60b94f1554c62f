from dataclasses import replace

import pytest
import torch

from pristina.errors import SettingError
from pristina.methods.diip import DIIP, PAPER, diip, laplacian_fires, sharpness, slope_fires
from pristina.methods.index import method
from pristina.methods.steps.result import Stop, StopReason
from pristina.operators.base import Observation
from pristina.priors.gaussian import GaussianPrior
from pristina.priors.generate import generate
from pristina.seeds import generators
from tests.contract.battery import check_method

PRIOR = GaussianPrior(0.0, 0.1)
BRISK = DIIP(
    iterations=40, sampler_steps=3, epsilon=0.005, k_min=5, warm_up=8, patience=2, smoothing=3
)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def natural(side=16):
    """Make a prior of smooth images, and four of its images under more and more noise."""
    f = (torch.fft.fftfreq(side)[:, None].square() + torch.fft.fftfreq(side).square()).sqrt()
    prior = GaussianPrior(0.0, 0.004 / f.clamp(min=1 / side).square(), spectral=True)
    strength = torch.tensor([0.0, 0.1, 0.2, 0.4]).view(4, 1, 1, 1)
    return prior, prior.sample(normal(4, 3, side, side)) / 2 + 0.5 + strength * normal(
        4, 3, side, side, seed=1
    )


def firing(fires, trace, **changes):
    """Find the iterations in which a rule fires on the trace of one image."""
    settings = DIIP(**{"smoothing": 1, "warm_up": 0, "k_min": 0, **changes})
    return [
        k
        for k in range(len(trace))
        if fires(torch.tensor(trace[: k + 1])[:, None], settings).item()
    ]


def test_battery():
    y = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    check_method(diip, Observation(y), PRIOR, DIIP(iterations=4, rule="none"), calls=5 * 10)
    settings = DIIP(iterations=4, rule="none", sampler_steps=3, gradient="checkpointed")
    check_method(diip, Observation(y), PRIOR, settings, calls=5 * 3 + 4 * 3, backward=4 * 3)


def test_battery_of_images_that_stop_one_by_one():
    prior, y = natural()
    result = check_method(diip, Observation(y), prior, BRISK, calls=None)
    assert len({stop.step for stop in result.stopped}) > 2
    later = replace(BRISK, patience=1, iterations=result.stopped[0].step)
    check_method(diip, Observation(y), prior, later, calls=None)


def test_the_slope_rule_fires_where_the_loss_hardly_falls():
    stalling = [32.0, 16, 8, 4, 2, 1, 1, 1, 1]  # halved, and flat from the sixth on
    assert firing(slope_fires, stalling) == [6, 7, 8]
    assert firing(slope_fires, stalling, smoothing=2) == [
        7,
        8,
    ]  # over two steps, 5 to 7 is the first that is flat
    assert firing(slope_fires, stalling, warm_up=8) == [8]
    assert firing(slope_fires, [1.0, 0.9995, 0.5, 0.6]) == [
        1,
        3,
    ]  # a fall of half a thousandth, and a rise
    # from 32 to 8 in two steps: (32 - 8) / 32 / 2 = 0.375 a step
    assert firing(slope_fires, stalling[:5], smoothing=2, epsilon=0.37) == []
    assert firing(slope_fires, stalling[:5], smoothing=2, epsilon=0.38) == [2, 3, 4]


def test_the_laplacian_rule_fires_where_sharpness_falls():
    peak = [1.0, 2, 3, 4, 5, 4, 3, 2, 3]
    assert firing(laplacian_fires, peak) == [5, 6, 7]
    assert firing(laplacian_fires, peak, smoothing=2) == [6, 7]  # after 4, 5, 4 it is where it was
    assert firing(laplacian_fires, peak, k_min=5) == [7]
    falling = [1 / (1 + k) for k in range(110)]
    assert firing(laplacian_fires, falling, k_min=PAPER.k_min)[0] == 102  # it returns iterate 101


def test_sharpness_is_the_variance_of_the_laplacian_of_the_luma():
    dot = torch.zeros(1, 1, 5, 5)
    dot[..., 2, 2] = (
        1  # its Laplacian is -4 there, 1 at four neighbours, and 0 at the other twenty pixels
    )
    assert sharpness(dot).item() == pytest.approx(20 / 24)
    red = torch.cat([dot, 0 * dot, 0 * dot], 1)
    assert sharpness(red).item() == pytest.approx(0.299**2 * 20 / 24)
    edge = torch.zeros(1, 1, 3, 4)
    edge[..., 0] = (
        1  # the reflected border doubles the neighbour: -2 and 1 along the edge, 0 elsewhere
    )
    laplacian = torch.tensor([[-2.0, 1, 0, 0]] * 3)
    assert sharpness(edge).item() == pytest.approx(laplacian.var().item())
    assert sharpness(torch.full((2, 3, 4, 4), 0.3)).tolist() == pytest.approx([0, 0], abs=1e-12)


def expected_stops(loss, sharp, s):
    """Find where each image should stop, from the traces of a run without rules."""
    expected = []
    for e, v in zip(loss.T.tolist(), sharp.T.tolist(), strict=True):
        expected.append(Stop(StopReason.COMPLETED, len(loss)))
        in_a_row = 0
        for k in range(s.smoothing, len(e)):
            past = k - s.smoothing
            slope = (
                s.rule != "laplacian"
                and k >= s.warm_up
                and (e[past] - e[k]) / (s.smoothing * e[past]) < s.epsilon
            )
            laplacian = s.rule != "slope" and k - 1 > s.k_min and v[k] < v[past]
            in_a_row = in_a_row + 1 if slope or laplacian else 0
            if in_a_row == s.patience:
                reason = StopReason.SLOPE if slope else StopReason.LAPLACIAN
                expected[-1] = Stop(reason, k - s.patience + 1)
                break
    return expected


@pytest.mark.parametrize("rule", ["first", "slope", "laplacian"])
def test_each_image_stops_by_itself_and_is_the_one_before_the_rule_fired(rule):
    prior, y = natural()
    settings = DIIP(**{**vars(BRISK), "rule": rule})
    seen = []
    free = diip(Observation(y), prior, DIIP(**{**vars(BRISK), "rule": "none"}), on_step=seen.append)
    result = diip(Observation(y), prior, settings)
    expected = expected_stops(free.trace["loss"], free.trace["sharpness"], settings)
    assert result.stopped == expected and len(set(expected)) > 2
    for i, stop in enumerate(expected):
        assert torch.allclose(result.images[i], seen[stop.step - 1].images[i], atol=1e-5)


def test_images_that_stop_one_by_one_are_what_each_is_alone():
    prior, y = natural()
    seen = []
    result = diip(Observation(y), prior, BRISK, generator=generators(0, 4), on_step=seen.append)
    assert len({stop.step for stop in result.stopped}) > 2
    z = result.extras["z"]
    assert torch.allclose(z.square().mean((1, 2, 3)), torch.ones(4), atol=1e-5)
    assert torch.allclose(generate(prior, z, BRISK.sampler_steps), result.images, atol=1e-5)
    for i, stop in enumerate(result.stopped):
        alone = diip(Observation(y[i : i + 1]), prior, BRISK, generator=generators(i, 1))
        assert alone.stopped == [stop]
        assert torch.equal(result.images[i], seen[stop.step - 1].images[i])
        assert torch.allclose(alone.images[0], result.images[i], atol=1e-5)
        assert torch.allclose(alone.extras["z"][0], z[i], atol=1e-4)


def test_without_sphere_the_noise_goes_where_it_likes():
    prior, y = natural()
    z = diip(Observation(y), prior, DIIP(iterations=10, sampler_steps=3, sphere=False)).extras["z"]
    assert not torch.allclose(z.square().mean((1, 2, 3)), torch.ones(4), atol=1e-2)


def test_the_preset_has_the_published_figures():
    assert (PAPER.iterations, PAPER.learning_rate, PAPER.sampler_steps) == (1500, 0.0015, 10)
    assert (PAPER.rule, PAPER.k_min, PAPER.epsilon) == ("first", 100, 0.001)
    assert (PAPER.patience, PAPER.smoothing, PAPER.warm_up) == (1, 1, 0)
    assert PAPER.gradient == "detached" and not PAPER.sphere
    assert method("diip").make_settings("paper") == PAPER


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "second"}, "rule"),
        ({"iterations": 0}, "iterations"),
        ({"patience": 0}, "patience"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"k_min": -1}, "k_min"),
        ({"warm_up": -1}, "warm_up"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"gradient": "none"}, "gradient"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(SettingError, match=message):
        DIIP().changed(settings)
