from dataclasses import replace

import pytest
import torch

from pristina.errors import OperatorError, SettingError, SizeError
from pristina.methods.bird import AS_RELEASED, BIRD, bird, centre_kernel, cooling, joint_adam
from pristina.methods.index import method
from pristina.methods.uncertainty import error_rank_correlation, sampled
from pristina.operators.base import Compose, Observation
from pristina.operators.blur import FreeKernel, GaussianBlur, KernelBlur, VaryingBlur, tilt_to_centre
from pristina.operators.jpeg import JPEG
from pristina.operators.mask import Mask
from pristina.operators.resample import Downsample
from pristina.priors.base import SizeRule
from pristina.priors.gaussian import GaussianPrior
from pristina.types import generators
from tests.contract.battery import check_method

PRIOR = GaussianPrior(0.0, 0.1)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("operator", "size"),
    [
        (None, 8),
        (GaussianBlur(1.0, size=5), 8),
        (FreeKernel(5, sigma=1.0), 8),
        (FreeKernel(5, "network", "zero"), 8),
        (Downsample(2), 4),
        (Compose([GaussianBlur(1.0, size=5), Downsample(2)]), 4),
    ],
)
def test_battery(operator, size):
    check_method(bird, Observation(noise(2, 3, size, size), operator), PRIOR, BIRD(iterations=3), calls=4 * 5)


@pytest.mark.parametrize("settings", [{"residual": "marginalised"}, {"residual": "marginalised", "sphere": False}, {"average": 3}])
def test_battery_of_settings(settings):
    check_method(bird, Observation(noise(2, 3, 8, 8)), PRIOR, BIRD(iterations=3, **settings), calls=4 * 5)


def test_battery_full_gradient():
    settings = BIRD(iterations=2, sampler_steps=3, gradient="checkpointed")
    check_method(bird, Observation(noise(2, 3, 8, 8)), PRIOR, settings, calls=3 * 3 + 2 * 3, backward=3 * 3)


def test_noise_stays_on_the_sphere():
    z = bird(Observation(noise(2, 3, 8, 8)), PRIOR, BIRD(iterations=3)).extras["z"]
    assert torch.allclose(z.square().mean((1, 2, 3)), torch.ones(2), atol=1e-5)
    z = bird(Observation(noise(2, 3, 8, 8)), PRIOR, BIRD(iterations=3, sphere=False)).extras["z"]
    assert not torch.allclose(z.square().mean((1, 2, 3)), torch.ones(2), atol=1e-3)


def test_as_released_returns_the_picture_of_the_last_tenth_iteration():
    y = Observation(noise(1, 3, 8, 8))
    saved = bird(y, PRIOR, replace(AS_RELEASED, iterations=15))
    to_there = bird(y, PRIOR, replace(AS_RELEASED, iterations=11))
    assert torch.equal(saved.picture, to_there.picture)
    assert saved.cost.network_calls == 15 * 10
    assert len(saved.trace["loss"]) == 15
    assert method("bird").preset("as_released") is AS_RELEASED


def test_average_is_the_mean_of_the_last_estimates():
    seen = []
    result = bird(Observation(noise(1, 3, 8, 8)), PRIOR, BIRD(iterations=4, average=3), on_step=lambda e: seen.append(e.picture.clone()))
    assert torch.allclose(result.picture, torch.stack(seen[-3:]).mean(0))


def test_the_operator_moves_and_the_loss_falls():
    x = noise(1, 3, 16, 16)
    y = GaussianBlur(1.5, size=9)(x).detach()
    result = bird(Observation(y, GaussianBlur(0.5, size=9)), PRIOR, BIRD(iterations=40))
    assert result.trace["loss"][-1] < 0.5 * result.trace["loss"][0]
    assert result.operator.estimates()["sigma"] != pytest.approx(0.5, abs=0.01)
    assert result.record()["operator"]["says"].startswith("Gaussian blur")
    assert result.extras["sigma"] == pytest.approx(result.trace["loss"][-1].sqrt())


def test_a_shift_between_kernel_and_picture_is_taken_back():
    k = torch.zeros(2, 1, 7, 7)
    k[0, 0, 5, 2], k[1, 0, 3, 3] = 1, 1
    x = noise(2, 3, 16, 16)
    off = FreeKernel(7, boundary="circular", start=k)
    operator, moved, shift = centre_kernel(Compose([off, Downsample(2)]), x)
    assert shift.tolist() == [[2, -1], [0, 0]]
    assert operator.parts[0].kernel()[:, 0, 3, 3].min() > 0.99
    assert torch.equal(moved[0, :, 2:, :-1], x[0, :, :-2, 1:])  # what was above and to the right has moved in
    assert torch.equal(moved[1], x[1])
    now, before = operator.parts[0](moved), off(x)  # the same observation but for the border
    assert torch.allclose(now[0, :, 2:, :-1], before[0, :, 2:, :-1], atol=1e-4)
    same, still, none = centre_kernel(GaussianBlur(1.0, size=5), x)
    assert same.name == "blur" and still is x and not none.any()


@pytest.mark.parametrize("operator", [FreeKernel(7, sigma=1.0), VaryingBlur.free(7, sigma=1.0)])
def test_unknown_kernels_stay_centred_while_they_are_fitted(operator):
    k = torch.zeros(1, 1, 7, 7)
    k[0, 0, 4, 2] = 1  # the observation is moved by a pixel each way, and a free kernel could follow
    y = KernelBlur(k)(noise(1, 3, 16, 16)).detach()
    found = bird(Observation(y, operator), PRIOR, BIRD(iterations=20), generator=generators(0, 1)).operator
    kernels = found.kernel()[:, 0] if operator.name == "kernel" else found.kernels()[0]
    axis = torch.arange(7.0) - 3
    assert (kernels.sum(-1) @ axis).abs().max() < 0.02 and (kernels.sum(-2) @ axis).abs().max() < 0.02
    assert not torch.allclose(kernels[:1], FreeKernel(7, sigma=1.0).kernel()[0], atol=1e-3)  # and yet it has moved


def test_an_off_kernel_is_tilted_to_the_middle():
    kernel = torch.rand(3, 49, generator=torch.Generator().manual_seed(0)) ** 4
    logits = kernel.log()
    for _ in range(6):
        tilt_to_centre(logits, 7)
    weight, axis = logits.softmax(1).view(3, 7, 7), torch.arange(7.0) - 3
    assert (weight.sum(2) @ axis).abs().max() < 1e-3 and (weight.sum(1) @ axis).abs().max() < 1e-3
    tilt = (logits - kernel.log()).view(3, 7, 7)  # an exponential of x: linear in the logits, but for a constant
    assert tilt.diff(n=2, dim=1).abs().max() < 1e-4 and tilt.diff(n=2, dim=2).abs().max() < 1e-4


def test_the_operator_comes_to_rest_and_the_noise_does_not():
    z, sigma = torch.nn.Parameter(torch.zeros(1)), GaussianBlur(1.0, size=5)
    optimizer = joint_adam(z, sigma, 0.02, 0.05, 0.1)
    schedule = cooling(optimizer, 10)
    rates = []
    for _ in range(10):
        optimizer.step()
        rates.append([group["lr"] for group in optimizer.param_groups])
        schedule.step()
    assert [rate for rate, _ in rates] == [0.02] * 10
    assert rates[0][1] == 0.05 and rates[5][1] == pytest.approx(0.025) and rates[9][1] < 0.002


def test_composed_damage_of_every_kind_is_fitted():
    operator = Compose([GaussianBlur(1.0, size=5), Mask(box=4), JPEG(50)])
    result = bird(Observation(noise(1, 3, 16, 16), operator), PRIOR, BIRD(iterations=5))
    assert result.trace["loss"][-1] < result.trace["loss"][0]


def test_samples_differ_and_are_summed_up():
    observation = Observation(noise(2, 3, 8, 8), GaussianBlur(1.0, size=5))
    result = sampled(bird, observation, PRIOR, BIRD(iterations=3), samples=3, generator=generators(7, 2))
    samples = result.extras["samples"]
    assert samples.shape == (2, 3, 3, 8, 8)
    assert torch.allclose(result.picture, samples.mean(1)) and torch.allclose(result.extras["std"], samples.std(1))
    assert (result.extras["std"].mean((1, 2, 3)) > 0.01).all()
    assert result.extras["std_sigma"].shape == (2,) and (result.extras["std_sigma"] > 0).all()
    alone = bird(Observation(observation.y[1:], observation.operator), PRIOR, BIRD(iterations=3), generator=generators(8, 1))
    assert torch.allclose(samples[1, 0], alone.picture[0], atol=1e-5)  # the first sample has the picture's own seed
    assert len(set(result.seeds)) == 6
    with pytest.raises(SettingError, match="at least 2"):
        sampled(bird, observation, PRIOR, BIRD(), samples=1)


def test_rank_correlation():
    a = noise(1, 1, 8, 8)
    assert error_rank_correlation(a, a**3) == pytest.approx(1)
    assert error_rank_correlation(a, -a) == pytest.approx(-1)
    assert abs(float(error_rank_correlation(a, noise(1, 1, 8, 8, seed=1)))) < 0.4


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"iterations": 0}, "iterations"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"operator_learning_rate": -1.0}, "operator_learning_rate"),
        ({"kernel_learning_rate": 0.0}, "kernel_learning_rate"),
        ({"gradient": "none"}, "gradient"),
        ({"residual": "l1"}, "residual"),
        ({"average": 0}, "average"),
        ({"sampler_steps": 0}, "sampler_steps"),
    ],
)
def test_settings_out_of_range(settings, says):
    with pytest.raises(SettingError, match=says):
        BIRD(**settings)


def test_what_does_not_fit_is_refused():
    prior = GaussianPrior(0.0, 0.1)
    prior.size_rule = SizeRule(multiple=8)
    with pytest.raises(SizeError):
        bird(Observation(noise(1, 3, 12, 12)), prior)
    with pytest.raises(OperatorError):
        Observation(noise(1, 3, 8, 8), GaussianBlur(1.0, size=41))
