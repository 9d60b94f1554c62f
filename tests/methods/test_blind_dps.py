import json

import pytest
import torch
from torch.nn import functional as F

from pristina.errors import CheckpointError, OperatorError, SettingError, SizeError
from pristina.methods.blind_dps import BlindDPS, as_kernel, blind_dps
from pristina.metrics.kernels import kernel_correlation
from pristina.operators.base import Compose, Observation
from pristina.operators.blur import FreeKernel, KernelBlur
from pristina.operators.convolve import convolve
from pristina.operators.kernels import line_kernel
from pristina.operators.noise import GaussianNoise
from pristina.operators.resample import Downsample
from pristina.priors.base import SizeRule
from pristina.priors.gaussian import GaussianMixturePrior, GaussianPrior
from tests.contract.battery import check_method

PRIOR = GaussianPrior(0.0, 0.1)
KERNELS = GaussianPrior(0.0, 0.1, channels=1)
TINY = BlindDPS(steps=4, kernel_prior=KERNELS, kernel_px=3)


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("settings", [TINY, BlindDPS(steps=4, kernel_prior=None, kernel_px=3)], ids=["kernel prior", "uniform"])
def test_battery(settings):
    observation = Observation(random(2, 3, 8, 8), Compose([FreeKernel(3), GaussianNoise(0.05)]))
    result = check_method(blind_dps, observation, PRIOR, settings, calls=4, backward=4)
    k = result.operator.kernel()
    assert k.shape == (2, 1, 3, 3) and (k >= 0).all() and torch.allclose(k.sum((1, 2, 3)), torch.ones(2))
    assert result.extras["kernel_calls"].tolist() == ([4, 4] if settings is TINY else [0, 0])
    json.dumps(result.record())


def test_a_kernel_is_its_picture_scaled():
    k = as_kernel(torch.tensor([[[[1.0, -1, 1], [-0.5, -3, 1], [1, 1, 1]]]]))
    assert torch.allclose(k, torch.tensor([[[[0.8, 0.0], [0.2, 0.0]]]]), atol=1e-6)


def test_without_guidance_both_come_from_their_priors():
    settings = BlindDPS(steps=20, kernel_prior=GaussianPrior(0.5, 1e-4, channels=1), kernel_px=3, zeta=0.0, zeta_kernel=0.0)
    result = blind_dps(Observation(random(2, 3, 8, 8), FreeKernel(3)), GaussianPrior(0.5, 1e-4), settings)
    assert (result.picture - 0.75).abs().max() < 0.05
    assert (result.operator.kernel() - 1 / 9).abs().max() < 0.01


def test_the_kernel_that_came_with_the_observation_is_not_looked_at():
    y = random(1, 3, 8, 8)
    a, b = (blind_dps(Observation(y, KernelBlur(line_kernel(3, 2.0, angle))), PRIOR, TINY) for angle in (0.3, 1.3))
    assert torch.equal(a.picture, b.picture) and torch.equal(a.operator.kernel(), b.operator.kernel())


def test_the_right_kernel_is_found_more_often_than_by_chance():
    """Eight strokes are possible, and neighbouring pixels are alike: which stroke it was shows in the observation. Chance finds one in eight.

    A Gaussian prior leaves the picture much freer than a prior of faces does, and hits are far from sure: 18 of 32 were measured.
    """
    strokes = [line_kernel(9, 8.0, torch.pi * i / 8) for i in range(8)]
    modes = torch.cat([F.pad(2 * k / k.max() - 1, (0, 1, 0, 1), value=-1) for k in strokes])
    f = torch.fft.fftfreq(32)
    variance = 1 / (f[:, None] ** 2 + f[None] ** 2 + 0.003)
    prior = GaussianPrior(0.0, 0.1 * variance / variance.mean(), spectral=True)
    x = (prior.sample(torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))) + 1) / 2
    y = convolve(x, torch.cat(strokes).repeat(4, 1, 1, 1)) + 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    hits = []
    for zeta in (3.0, 0.0):
        settings = BlindDPS(steps=60, kernel_prior=GaussianMixturePrior(modes, 0.01), kernel_px=9, zeta=zeta, zeta_kernel=zeta)
        found = blind_dps(Observation(y, FreeKernel(9)), prior, settings).operator.kernel()[:, 0]
        likeness = torch.stack([kernel_correlation(found, k[0].expand(32, -1, -1)) for k in strokes])
        hits.append(int((likeness.argmax(0) == torch.arange(32) % 8).sum()))
    assert hits[0] >= 13 and hits[1] <= 10, hits


def test_refusals():
    y = random(1, 3, 8, 8)
    for operator in (None, Downsample(2)):
        with pytest.raises(OperatorError, match="blur"):
            blind_dps(Observation(y, operator), PRIOR, TINY)
    with pytest.raises(CheckpointError, match="no-such-file"):
        blind_dps(Observation(y, FreeKernel(3)), PRIOR, BlindDPS(kernel_prior="no-such-file"))
    sized = GaussianPrior(0.0, 0.1, channels=1)
    sized.size_rule = SizeRule(native=32, fixed=True)
    with pytest.raises(SizeError, match="32"):
        blind_dps(Observation(y, FreeKernel(3)), PRIOR, BlindDPS(steps=2, kernel_prior=sized, kernel_px=3))
    for settings in ({"kernel_px": 32}, {"steps": 0}, {"zeta": -1.0}, {"zeta_kernel": -1.0}):
        with pytest.raises(SettingError):
            BlindDPS(**settings)
