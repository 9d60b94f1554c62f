"""MMSE and nothing, the two baselines."""

import pytest
import torch

from pristina.errors import Cancelled, InputError, SettingError, SizeError
from pristina.image.statistics import estimate_noise
from pristina.methods.mmse import MMSE, mmse
from pristina.methods.nothing import Nothing, nothing
from pristina.methods.steps.result import Stop, StopReason
from pristina.operators.base import Observation
from pristina.operators.resample import Downsample
from pristina.priors.base import SizeRule
from pristina.priors.gaussian import GaussianPrior
from pristina.seeds import generators
from tests.contract.battery import check_method


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("settings", [MMSE(), MMSE(sigma=0.1)])
@pytest.mark.parametrize("operator", [None, Downsample(2)])
def test_battery_of_mmse(operator, settings):
    prior = GaussianPrior(0.0, 0.1)
    observation = Observation(random(2, 3, 8, 8), operator)
    check_method(mmse, observation, prior, settings, calls=1, random=False)


@pytest.mark.parametrize(("operator", "shape"), [(None, (3, 8, 8)), (Downsample(2), (3, 4, 4))])
def test_an_observation_of_other_channels_is_refused_with_both_shapes(operator, shape):
    observation = Observation(random(2, 1, *shape[1:]), operator)
    words = [f"in 3 channels, of which {shape}", f"the observation is {(1, *shape[1:])}"]
    with pytest.raises(InputError) as refused:
        mmse(observation, GaussianPrior(0.0, 0.1))
    assert all(part in str(refused.value) for part in words)


@pytest.mark.parametrize("operator", [None, Downsample(2)])
def test_battery_of_nothing(operator):
    observation = Observation(random(2, 3, 8, 8), operator)
    result = check_method(nothing, observation, None, Nothing(), calls=0, random=False)
    assert torch.equal(result.images, observation.initial().clamp(0, 1))
    assert list(map(str, result.stopped)) == ["left as it is"] * 2


@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.5])
def test_the_estimate_is_the_mean_of_the_posterior(sigma):
    """For pixels that are N(m, v) in [-1, 1], whose noise is twice as large there."""
    prior = GaussianPrior(0.2, 0.09)
    y = random(1, 3, 8, 8)
    shrink = 0.09 / (0.09 + (2 * sigma) ** 2)
    expected = ((0.2 + shrink * (2 * y - 1 - 0.2) + 1) / 2).clamp(0, 1)
    found = mmse(Observation(y), prior, MMSE(sigma=sigma))
    assert torch.allclose(found.images, expected, atol=2e-3)
    assert found.extras["sigma"].tolist() == pytest.approx([sigma])


def test_the_noise_level_is_estimated_from_each_image():
    noise = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    y = 0.5 + torch.tensor([0.02, 0.1]).view(2, 1, 1, 1) * noise
    sigma = mmse(Observation(y), GaussianPrior(0.0, 0.1)).extras["sigma"]
    assert torch.equal(sigma, estimate_noise(y))
    assert sigma.tolist() == pytest.approx([0.02, 0.1], rel=0.1)


def test_nothing_keeps_its_images_when_cancelled():
    def cancel(event):
        raise Cancelled

    y = random(1, 3, 8, 8)
    result = nothing(Observation(y), generator=generators(7, 1), on_step=cancel)
    assert torch.equal(result.images, y) and result.seeds == [7]
    assert result.stopped == [Stop(StopReason.LEFT_ALONE, 1)]


def test_wrong_inputs():
    prior = GaussianPrior(0.0, 0.1)
    with pytest.raises(InputError, match="channels"):
        mmse(Observation(random(1, 1, 8, 8)), prior)
    prior.size_rule = SizeRule(multiple=16)
    with pytest.raises(SizeError):
        mmse(Observation(random(1, 3, 8, 8)), prior)
    with pytest.raises(SettingError, match="sigma must not be negative"):
        MMSE(sigma=-0.1)
