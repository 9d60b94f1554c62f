from dataclasses import replace

import pytest
import torch
from scipy.stats import spearmanr

from pristina.errors import InputError, OperatorError, SettingError, SizeError
from pristina.methods.bird import (
    AS_RELEASED,
    AS_RELEASED_DENOISING,
    AS_RELEASED_INPAINTING,
    AS_RELEASED_NON_UNIFORM,
    AS_RELEASED_SUPER_RESOLUTION,
    BIRD,
    bird,
    objective,
)
from pristina.methods.diip import DIIP, diip
from pristina.methods.gdp import GDP, gdp
from pristina.methods.index import method
from pristina.methods.steps.joint import centre_kernel, cool, joint_adam
from pristina.methods.steps.result import Stop, StopReason
from pristina.methods.steps.samples import error_rank_correlation, sampled
from pristina.operators.base import Compose, Observation
from pristina.operators.blur import (
    FreeKernel,
    GaussianBlur,
    KernelBlur,
    VaryingBlur,
    tilt_to_centre,
)
from pristina.operators.jpeg import JPEG
from pristina.operators.mask import Mask
from pristina.operators.resample import Downsample
from pristina.operators.tone import Haze
from pristina.priors.base import SizeRule
from pristina.priors.gaussian import GaussianPrior
from pristina.seeds import generators
from tests.contract.battery import assert_same, check_method

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
    check_method(
        bird, Observation(noise(2, 3, size, size), operator), PRIOR, BIRD(iterations=3), calls=4 * 5
    )


@pytest.mark.parametrize(
    "settings",
    [{"residual": "marginalised"}, {"residual": "marginalised", "sphere": False}, {"average": 3}],
)
def test_battery_of_settings(settings):
    check_method(
        bird, Observation(noise(2, 3, 8, 8)), PRIOR, BIRD(iterations=3, **settings), calls=4 * 5
    )


def test_battery_full_gradient():
    settings = BIRD(iterations=2, sampler_steps=3, gradient="checkpointed")
    check_method(
        bird, Observation(noise(2, 3, 8, 8)), PRIOR, settings, calls=3 * 3 + 2 * 3, backward=2 * 3
    )


def test_noise_stays_on_the_sphere():
    z = bird(Observation(noise(2, 3, 8, 8)), PRIOR, BIRD(iterations=3)).extras["z"]
    assert torch.allclose(z.square().mean((1, 2, 3)), torch.ones(2), atol=1e-5)
    z = bird(Observation(noise(2, 3, 8, 8)), PRIOR, BIRD(iterations=3, sphere=False)).extras["z"]
    assert not torch.allclose(z.square().mean((1, 2, 3)), torch.ones(2), atol=1e-3)


RELEASED = {
    "as_released": (AS_RELEASED, 100, 0.003, 0.0002),
    "as_released_denoising": (AS_RELEASED_DENOISING, 200, 0.01, 0.05),
    "as_released_inpainting": (AS_RELEASED_INPAINTING, 200, 0.01, 0.05),
    "as_released_super_resolution": (AS_RELEASED_SUPER_RESOLUTION, 100, 0.001, 0.05),
    "as_released_non_uniform": (AS_RELEASED_NON_UNIFORM, 25, 0.002, 0.05),
}


@pytest.mark.parametrize("name", RELEASED)
def test_the_presets_have_the_released_figures(name):
    settings, iterations, learning_rate, operator_learning_rate = RELEASED[name]
    assert method("bird").presets == list(RELEASED)
    assert method("bird").make_settings(name) == settings
    assert settings == BIRD(
        iterations=iterations,
        learning_rate=learning_rate,
        operator_learning_rate=operator_learning_rate,
        kernel_learning_rate=0.07,
        sampler_steps=10,
        gradient="detached",
        sphere=True,
        residual="squared",
        average=1,
        centre=False,
        as_released=True,
    )


@pytest.mark.parametrize(
    ("operator", "size"), [(None, 8), (FreeKernel(5, "network", "zero"), 8), (Downsample(2), 4)]
)
def test_battery_as_released(operator, size):
    observation = Observation(noise(2, 3, size, size), operator)
    settings = replace(AS_RELEASED, iterations=12, sampler_steps=2)
    check_method(bird, observation, PRIOR, settings, calls=12 * 2)


def test_battery_as_released_full_gradient():
    settings = replace(AS_RELEASED, iterations=3, sampler_steps=2, gradient="checkpointed")
    check_method(bird, Observation(noise(2, 3, 8, 8)), PRIOR, settings, calls=3 * 4, backward=3 * 2)


def test_as_released_returns_the_image_of_the_last_tenth_iteration():
    y = Observation(noise(1, 3, 8, 8))
    saved = bird(y, PRIOR, replace(AS_RELEASED, iterations=15))
    shorter = bird(y, PRIOR, replace(AS_RELEASED, iterations=11))
    assert torch.equal(saved.images, shorter.images)
    assert saved.cost.network_calls == 15 * 10
    assert len(saved.trace["loss"]) == 15
    assert saved.stopped == [Stop(StopReason.COMPLETED, 11)]


def test_as_released_its_learning_rates_stay():
    """After half of the iterations nothing depends on how many there will be."""
    y = Observation(noise(1, 3, 8, 8), FreeKernel(5, "network", "zero"))
    a, b = (bird(y, PRIOR, replace(AS_RELEASED, iterations=n)) for n in (8, 16))
    assert torch.equal(a.trace["loss"], b.trace["loss"][:8])


@pytest.mark.parametrize(
    "change", [{"sphere": False}, {"residual": "marginalised"}, {"average": 2}]
)
def test_as_released_refuses_what_was_never_released(change):
    with pytest.raises(SettingError, match="as released"):
        BIRD(as_released=True, **change)
    with pytest.raises(SettingError, match="as released"):
        method("bird").make_settings("as_released", change)


def test_a_state_of_the_one_algorithm_is_none_of_the_other():
    y = Observation(noise(1, 3, 8, 8))
    state = bird(y, PRIOR, BIRD(iterations=1)).state
    with pytest.raises(InputError, match="cannot start from a state of bird"):
        bird(y, PRIOR, AS_RELEASED, start=state)
    with pytest.raises(InputError, match="shape"):
        bird(Observation(noise(2, 3, 8, 8)), PRIOR, BIRD(iterations=1), start=state)
    with pytest.raises(InputError, match="step"):
        bird(y, PRIOR, BIRD(iterations=1), start=replace(state, step=9))


def test_a_finished_run_can_go_on_further():
    y = Observation(noise(1, 3, 8, 8))
    settings = replace(AS_RELEASED, iterations=11)
    short = bird(y, PRIOR, settings, generator=generators(5, 1))
    longer = replace(settings, iterations=21)
    assert_same(
        bird(y, PRIOR, longer, start=short.state),
        bird(y, PRIOR, longer, generator=generators(5, 1)),
    )


def test_a_fresh_start_keeps_noise_and_operator():
    y = Observation(noise(1, 3, 8, 8), GaussianBlur(1.0, size=5))
    first = bird(y, PRIOR, BIRD(iterations=5))
    next_one = bird(y, PRIOR, BIRD(iterations=5), start=first.state.fresh())
    assert torch.equal(next_one.trace["loss"][0], first.trace["loss"][-1])
    assert len(next_one.trace["loss"]) == 6


def test_as_released_explains_nothing_in_a_hole():
    mask = Mask(box=4)
    y = mask(noise(2, 3, 8, 8))
    result = bird(Observation(y, mask), PRIOR, replace(AS_RELEASED_INPAINTING, iterations=11))
    left = (mask(result.images) - y).square().mean((1, 2, 3))
    assert result.extras["sigma"].tolist() == pytest.approx(left.sqrt().tolist(), rel=1e-5)
    assert result.trace["loss"][-1].tolist() == pytest.approx(left.tolist(), rel=1e-5)


def test_the_marginalised_residual_is_the_negative_log_posterior():
    r, z = noise(2, 3, 4, 4), noise(2, 3, 8, 8, seed=1)
    expected = (
        0.5 * z.square().sum((1, 2, 3)) + 24 * r.square().sum((1, 2, 3)).log()
    )  # half of 48 numbers
    assert torch.allclose(objective(r, z, "marginalised"), expected)
    assert torch.allclose(objective(r, z, "squared"), r.square().mean((1, 2, 3)))
    y = Observation(noise(1, 3, 8, 8))
    a, b = (
        bird(y, PRIOR, BIRD(iterations=10, sphere=False, residual=name)).extras["z"]
        for name in ("marginalised", "squared")
    )
    assert (a - b).abs().max() > 1e-3


def test_average_is_the_mean_of_the_last_estimates():
    seen = []
    result = bird(
        Observation(noise(1, 3, 8, 8)),
        PRIOR,
        BIRD(iterations=4, average=3),
        on_step=lambda e: seen.append(e.images.clone()),
    )
    assert torch.allclose(result.images, torch.stack(seen[-3:]).mean(0))


def test_the_operator_moves_and_the_loss_falls():
    x = noise(1, 3, 16, 16)
    y = GaussianBlur(1.5, size=9)(x).detach()
    result = bird(Observation(y, GaussianBlur(0.5, size=9)), PRIOR, BIRD(iterations=40))
    assert result.trace["loss"][-1] < 0.5 * result.trace["loss"][0]
    assert result.operator.estimates()["sigma"] != pytest.approx(0.5, abs=0.01)
    assert result.record()["operator"]["description"].startswith("Gaussian blur")
    assert result.extras["sigma"] == pytest.approx(result.trace["loss"][-1].sqrt())


def test_a_shift_between_kernel_and_picture_is_taken_back():
    k = torch.zeros(2, 1, 7, 7)
    k[0, 0, 5, 2], k[1, 0, 3, 3] = 1, 1
    x = noise(2, 3, 16, 16)
    off = FreeKernel(7, boundary="circular", start=k)
    operator, moved, shift = centre_kernel(Compose([off, Downsample(2)]), x)
    assert shift.tolist() == [[2, -1], [0, 0]]
    assert operator.parts[0].kernel()[:, 0, 3, 3].min() > 0.99
    assert torch.equal(
        moved[0, :, 2:, :-1], x[0, :, :-2, 1:]
    )  # what was above and to the right has moved in
    assert torch.equal(moved[1], x[1])
    now, before = operator.parts[0](moved), off(x)  # the same observation but for the border
    assert torch.allclose(now[0, :, 2:, :-1], before[0, :, 2:, :-1], atol=1e-4)
    same, still, none = centre_kernel(GaussianBlur(1.0, size=5), x)
    assert same.name == "blur" and still is x and not none.any()


@pytest.mark.parametrize("operator", [FreeKernel(7, sigma=1.0), VaryingBlur.free(7, sigma=1.0)])
def test_unknown_kernels_stay_centred_while_they_are_fitted(operator):
    k = torch.zeros(1, 1, 7, 7)
    k[0, 0, 4, 2] = (
        1  # the observation is moved by a pixel each way, and a free kernel could follow
    )
    y = KernelBlur(k)(noise(1, 3, 16, 16)).detach()
    found = bird(
        Observation(y, operator), PRIOR, BIRD(iterations=20), generator=generators(0, 1)
    ).operator
    kernels = found.kernel()[:, 0] if operator.name == "kernel" else found.kernels()[0]
    axis = torch.arange(7.0) - 3
    assert (kernels.sum(-1) @ axis).abs().max() < 0.02 and (
        kernels.sum(-2) @ axis
    ).abs().max() < 0.02
    assert not torch.allclose(
        kernels[:1], FreeKernel(7, sigma=1.0).kernel()[0], atol=1e-3
    )  # and yet it has moved


def test_an_off_kernel_is_tilted_to_the_middle():
    kernel = torch.rand(3, 49, generator=torch.Generator().manual_seed(0)) ** 4
    logits = kernel.log()
    for _ in range(6):
        tilt_to_centre(logits, 7)
    weight, axis = logits.softmax(1).view(3, 7, 7), torch.arange(7.0) - 3
    assert (weight.sum(2) @ axis).abs().max() < 1e-3 and (weight.sum(1) @ axis).abs().max() < 1e-3
    tilt = (logits - kernel.log()).view(
        3, 7, 7
    )  # an exponential of x: linear in the logits, but for a constant
    assert tilt.diff(n=2, dim=1).abs().max() < 1e-4 and tilt.diff(n=2, dim=2).abs().max() < 1e-4


def test_the_operator_comes_to_rest_and_the_noise_does_not():
    z, sigma = torch.nn.Parameter(torch.zeros(1)), GaussianBlur(1.0, size=5)
    optimizer = joint_adam(z, sigma, BIRD())
    rates = []
    for k in range(10):
        cool(optimizer, k / 10)
        rates.append([group["lr"] for group in optimizer.param_groups])
    assert [rate for rate, _ in rates] == [0.02] * 10
    assert rates[0][1] == 0.05 and rates[5][1] == pytest.approx(0.025) and rates[9][1] < 0.002


def test_unknowns_have_the_learning_rate_of_their_kind():
    z = torch.nn.Parameter(torch.zeros(1))
    operator = Compose([FreeKernel(5), GaussianBlur(1.0, size=5), Haze()])
    settings = BIRD(learning_rate=0.1, operator_learning_rate=0.2, kernel_learning_rate=0.3)
    groups = joint_adam(z, operator, settings).param_groups
    rates = {id(group["params"][0]): group["lr"] for group in groups}
    assert rates.pop(id(z)) == 0.1
    assert rates.pop(id(operator.parts[0].logits)) == 0.3
    assert len(rates) >= 3 and set(rates.values()) == {0.2}


@pytest.mark.parametrize("boundary", ["zero", "circular"])
def test_the_kernel_learning_rate_moves_the_kernel(boundary):
    """Adam's first step moves each logit by its learning rate."""
    kernel = FreeKernel(3, boundary=boundary, sigma=1.0)
    observation = Observation(noise(1, 3, 8, 8), kernel)
    for rate in (0.01, 0.05):
        settings = BIRD(iterations=1, kernel_learning_rate=rate, centre=False)
        moved = (bird(observation, PRIOR, settings).operator.logits - kernel.logits).detach()
        # All but what centring the kernel takes back.
        assert moved.abs().max().item() == pytest.approx(rate, rel=0.5)


def test_composed_damage_of_every_kind_is_fitted():
    operator = Compose([GaussianBlur(1.0, size=5), Mask(box=4), JPEG(50)])
    result = bird(Observation(noise(1, 3, 16, 16), operator), PRIOR, BIRD(iterations=5))
    assert result.trace["loss"][-1] < result.trace["loss"][0]


def test_samples_differ_and_are_summed_up():
    observation = Observation(noise(2, 3, 8, 8), GaussianBlur(1.0, size=5))
    result = sampled(
        bird, observation, PRIOR, BIRD(iterations=3), samples=3, generator=generators(7, 2)
    )
    samples = result.extras["samples"]
    assert samples.shape == (2, 3, 3, 8, 8)
    assert torch.allclose(result.images, samples.mean(1)) and torch.allclose(
        result.extras["std"], samples.std(1)
    )
    assert (result.extras["std"].mean((1, 2, 3)) > 0.01).all()
    assert result.extras["std_sigma"].shape == (2,) and (result.extras["std_sigma"] > 0).all()
    alone = bird(
        Observation(observation.y[1:], observation.operator),
        PRIOR,
        BIRD(iterations=3),
        generator=generators(8, 1),
    )
    assert torch.allclose(
        samples[1, 0], alone.images[0], atol=1e-5
    )  # the first sample has the picture's own seed
    assert len(set(result.seeds)) == 6
    with pytest.raises(SettingError, match="at least 2"):
        sampled(bird, observation, PRIOR, BIRD(), samples=1)


def test_what_is_known_of_each_picture_is_known_of_its_samples():
    mask = (noise(2, 1, 8, 8, seed=1) > 0.5).float()
    kernel = noise(2, 1, 3, 3, seed=2)
    operator = Compose(
        [KernelBlur(kernel / kernel.sum((2, 3), keepdim=True)), Haze(learnable=False), Mask(mask)]
    )
    observation = Observation(noise(2, 3, 8, 8), operator)
    result = sampled(
        bird, observation, PRIOR, BIRD(iterations=3), samples=3, generator=generators(7, 2)
    )
    alone = bird(observation, PRIOR, BIRD(iterations=3), generator=generators(7, 2))
    assert torch.allclose(result.extras["samples"][:, 0], alone.images, atol=1e-5)
    assert operator.parts[0].kernel().shape == (2, 1, 3, 3)


@pytest.mark.parametrize(
    "known",
    [Haze(0.5, (0.7, 0.8, 0.9), learnable=False), KernelBlur(torch.full((1, 1, 3, 3), 1 / 9))],
)
def test_what_is_known_has_no_spread(known):
    operator = Compose(
        [GaussianBlur(1.0, size=5), known]
    )  # three numbers, or three rows of a kernel, beside three samples
    extras = sampled(
        bird, Observation(noise(1, 3, 8, 8), operator), PRIOR, BIRD(iterations=2), samples=3
    ).extras
    assert [name for name in extras if name.startswith("std_")] == ["std_0.blur.sigma"]


def test_rank_correlation():
    a = noise(1, 1, 8, 8)
    assert error_rank_correlation(a, a**3) == pytest.approx(1)
    assert error_rank_correlation(a, -a) == pytest.approx(-1)
    assert abs(float(error_rank_correlation(a, noise(1, 1, 8, 8, seed=1)))) < 0.4
    ties = (4 * noise(2, 1, 8, 8, seed=2) - 2).clamp(min=0).round()
    error = ties + 2 * noise(2, 1, 8, 8, seed=3)
    expected = [
        spearmanr(s.flatten(), e.flatten()).statistic for s, e in zip(ties, error, strict=True)
    ]
    assert error_rank_correlation(ties, error).tolist() == pytest.approx(expected)
    assert error_rank_correlation(torch.zeros_like(a), a).isnan().all()


@pytest.mark.parametrize(
    ("settings", "message"),
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
def test_settings_out_of_range(settings, message):
    with pytest.raises(SettingError, match=message):
        BIRD().changed(settings)


@pytest.mark.parametrize("operator", [None, GaussianBlur(1.0, size=5)])
@pytest.mark.parametrize(
    ("run", "settings"),
    [(bird, BIRD(iterations=1)), (diip, DIIP(iterations=1)), (gdp, GDP(steps=1))],
)
def test_grey_is_no_observation_of_colour(run, settings, operator):
    grey = noise(1, 1, 12, 12)
    prior = GaussianPrior(0.0, 0.1)
    with pytest.raises(InputError, match="3 channels"):
        run(Observation(grey, operator), prior, settings)
    prior.size_rule = SizeRule(native=8, minimum=8, fixed=True)
    with pytest.raises(InputError, match="8"):
        run(Observation(grey, operator), prior, settings)
    assert (
        run(Observation(grey, operator), GaussianPrior(0.0, 0.1, channels=1), settings).images.shape
        == grey.shape
    )


@pytest.mark.parametrize("seed", [2**64, 2**64 - 1, -(2**63) - 1])
def test_a_seed_too_long_is_refused(seed):
    with pytest.raises(SettingError, match="64 bits"):
        generators(seed, 2)


def test_what_does_not_fit_is_refused():
    prior = GaussianPrior(0.0, 0.1)
    prior.size_rule = SizeRule(multiple=8)
    with pytest.raises(SizeError):
        bird(Observation(noise(1, 3, 12, 12)), prior)
    with pytest.raises(OperatorError):
        Observation(noise(1, 3, 8, 8), GaussianBlur(1.0, size=41))
