"""The regressor that is told the operator: what it is told, and what comes of it."""

import pytest
import torch
from skimage.data import astronaut

from pristina.errors import CheckpointError, InputError, OperatorError
from pristina.methods.reconstruct import Reconstruct, reconstruct
from pristina.methods.steps import parts
from pristina.methods.steps.evidence import evidence_of, evidence_of_blur
from pristina.operators.base import Compose, Observation, Operator
from pristina.operators.blur import FreeKernel, GaussianBlur, KernelBlur, VaryingBlur
from pristina.operators.kernels import motion_kernel
from pristina.operators.mask import Mask
from pristina.operators.noise import GaussianNoise
from pristina.operators.radon import Radon
from pristina.operators.resample import Downsample
from pristina.operators.tone import Gamma
from pristina.priors.aware import (
    AwareNetwork,
    AwarePrior,
    evidence_channels,
    network_inputs,
    reconstructed,
)
from pristina.priors.checkpoints.format import save_weights
from pristina.priors.load import kind_of, load_weights
from pristina.priors.residual import ResidualUNet
from pristina.restoration import restore
from tests.contract.battery import check_method

SMALL = {"channels": [8, 16], "layers": 1, "inputs": network_inputs(3), "outputs": 3}
SHAKE = motion_kernel(7, 0.5, torch.Generator().manual_seed(5))


class Middle(AwarePrior):
    """Take the middle solution, and remember what was told."""

    def __init__(self):
        super().__init__(domain="tests")
        self.told = []

    def regress(self, evidence, sigma):
        self.told.append((evidence.clone(), sigma.clone()))
        return evidence[:, 6:9]


def network():
    made = ResidualUNet(SMALL)
    for i, p in enumerate(made.parameters()):
        torch.nn.init.normal_(p, std=0.02, generator=torch.Generator().manual_seed(i))
    return made


def tiny():
    return AwareNetwork(network(), domain="tests")


def pictures(n=2, height=24, width=30):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))


def photograph(height=48, width=60):
    pixels = torch.from_numpy(astronaut()[90 : 90 + height, 200 : 200 + width].copy())
    return pixels.permute(2, 0, 1)[None] / 255


def psnr(a, b):
    return float(-10 * (a.clamp(0, 1) - b).square().mean().log10())


def observed(operator, sigma=0.004):
    x = photograph()
    with torch.no_grad():
        y = operator(x)
    y = y + sigma * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    return x, Observation(y, operator, sigma)


@pytest.mark.parametrize(
    "operator",
    [
        Compose([KernelBlur(SHAKE, "valid"), GaussianNoise(0.02)]),
        Compose([Downsample.area(2), GaussianNoise(0.02)]),
    ],
)
def test_battery(operator):
    observation = Observation(pictures(2, 12, 14), operator, known_sigma=0.02)
    check_method(reconstruct, observation, tiny(), Reconstruct(), calls=1, random=False)


def test_each_image_has_its_kernel():
    y, kernels = pictures(2, 12, 14), torch.cat([SHAKE, SHAKE.flip(-1)])
    both = reconstruct(Observation(y, KernelBlur(kernels), 0.02), tiny()).images
    for i in range(2):
        one = Observation(y[i : i + 1], KernelBlur(kernels[i : i + 1]), 0.02)
        assert torch.allclose(reconstruct(one, tiny()).images, both[i : i + 1], atol=1e-5)
    assert not torch.allclose(
        both[1:], reconstruct(Observation(y[1:], KernelBlur(SHAKE), 0.02), tiny()).images, atol=1e-2
    )


@pytest.mark.parametrize(
    ("operator", "gain"),
    [
        (KernelBlur(SHAKE), 3),
        (KernelBlur(SHAKE, "circular"), 4),
        (KernelBlur(2 * SHAKE), 15),
        (VaryingBlur(SHAKE.expand(2, 2, 7, 7)), 2),
        (Mask(drop=0.5), 20),
        (Downsample.area(3), 0.2),
        (Compose([GaussianBlur(1.0, size=7), Downsample.bicubic(2)]), 2),
    ],
)
def test_the_solutions_are_nearer_to_the_truth_for_any_linear_operator(operator, gain):
    x, observation = observed(operator)
    prior = Middle()
    found = reconstruct(observation, prior).images
    start = observation.initial() if not isinstance(operator, Mask) else observation.y
    assert psnr(found, x) > psnr(start, x) + gain
    told = prior.told[0][0]
    assert told.shape[1] == evidence_channels(3) and torch.isfinite(told).all()
    if not isinstance(operator, Mask):
        assert told[:, -1, 8:-8, 8:-8].max() < 0.2
    assert float(prior.told[0][1]) == pytest.approx(0.004)


def test_a_stronger_regularisation_stays_nearer_to_the_observation():
    for operator in (KernelBlur(SHAKE), VaryingBlur(SHAKE.expand(1, 1, 7, 7))):
        _, observation = observed(operator, 0.01)
        prior = Middle()
        reconstruct(observation, prior)
        told = prior.told[0][0][0]
        rough = [float(told[3 * i : 3 * i + 3].diff(dim=-1).square().mean()) for i in (1, 2, 3)]
        assert rough[0] > 1.02 * rough[1] > 1.04 * rough[2]


def test_both_ways_to_the_solutions_agree_away_from_the_border():
    """Fourier transforms and conjugate gradients regularise differently, and find the same."""
    _, observation = observed(KernelBlur(SHAKE))
    level = torch.tensor([0.004])
    one = evidence_of_blur(observation.y, SHAKE, level, "reflect")[..., 3:-3, 3:-3]
    other = evidence_of(observation.y, KernelBlur(SHAKE), level)
    inside = (..., slice(12, -12), slice(12, -12))
    assert torch.equal(one[:, :3], other[:, :3])
    for solution in (slice(3, 6), slice(6, 9)):
        assert psnr(one[:, solution][inside], other[:, solution][inside]) > 32
    assert torch.equal(one[:, -1:], torch.zeros_like(one[:, -1:]))


def test_what_was_lost_is_told():
    x, y = photograph(24, 24), photograph(24, 24)
    mask = Mask(box=6)
    told = evidence_of(y, mask, torch.tensor([0.01]))
    assert torch.equal(told[:, -1:], 1 - mask.mask(24, 24))
    assert (told[:, :3] - x).abs().max() < 0.7 and psnr(told[:, 3:6], x) > 25
    assert evidence_of(y[..., ::2, ::2], Downsample.area(2), torch.tensor([0.01]))[:, -1].max() == 0
    corners = evidence_of(Radon(8, 24)(x), Radon(8, 24), torch.tensor([0.01]))[0, -1]
    assert corners[0, 0] > 0.6 and corners[12, 12] < 0.3


def test_parts_and_their_seams(monkeypatch):
    """In parts the result is nearly that of the whole, and one call is counted."""
    x, observation = observed(KernelBlur(SHAKE, "valid"), 0.02)
    prior = tiny()
    whole = reconstruct(observation, prior)
    monkeypatch.setattr(parts, "TILE_PX", 40)
    monkeypatch.setattr(parts, "HALO_PX", 24)
    divided = reconstruct(observation, prior)
    assert divided.images.shape == whole.images.shape == x.shape
    assert divided.cost.network_calls == whole.cost.network_calls == 1
    assert 0 < (divided.images - whole.images).abs().mean() < 0.02


def test_the_network_adds_to_the_middle_solution():
    evidence = torch.rand(1, evidence_channels(3), 8, 8)
    nothing = reconstructed(ResidualUNet(SMALL), evidence, torch.tensor([0.1]))
    assert torch.allclose(nothing, 2 * evidence[:, 6:9] - 1)
    seen = []

    def look(x, constant):
        seen.append((x, float(constant)))
        return torch.zeros_like(x[:, :3])

    reconstructed(look, evidence, torch.tensor([0.1]))
    x, constant = seen[0]
    assert constant == 1 and x.shape[1] == evidence.shape[1] + 1
    assert torch.equal(x[:, -1], torch.ones(1, 8, 8))
    assert torch.allclose(x[:, 3:6], 2 * (evidence[:, :3] - evidence[:, 6:9]), atol=1e-6)
    assert torch.equal(x[:, -2:-1], evidence[:, -1:])


def test_the_noise_level_and_the_evidence_matter():
    y = pictures(1)
    first, noisier, other = (
        reconstruct(Observation(y, KernelBlur(kernel), sigma), tiny()).images
        for kernel, sigma in ((SHAKE, 0.01), (SHAKE, 0.1), (SHAKE.flip(-1), 0.01))
    )
    assert (first - noisier).abs().mean() > 0.01 and (first - other).abs().mean() > 0.01


@pytest.mark.parametrize(
    ("operator", "sigma", "error", "sentence"),
    [
        (None, 0.1, OperatorError, "needs the true operator"),
        (Gamma(2.0), 0.1, OperatorError, "needs a linear operator"),
        (GaussianBlur(1.0, size=7), None, InputError, "must know the noise"),
        (FreeKernel(5), 0.1, OperatorError, "take deblur"),
    ],
)
def test_what_cannot_be_reconstructed_is_refused(operator, sigma, error, sentence):
    with pytest.raises(error, match=sentence):
        reconstruct(Observation(pictures(), operator, sigma), tiny())


def test_weights_are_told_apart(tmp_path):
    path = tmp_path / "own.safetensors"
    header = {"kind": "operator", "network": network().settings, "domain": "tests"}
    header |= {"predicts": "x0"}
    save_weights(path, network().state_dict(), header)
    assert kind_of(path) == kind_of(load_weights("operator", path)) == "operator"
    with pytest.raises(CheckpointError, match="'indi' is needed"):
        load_weights("direct", path)
    with pytest.raises(InputError, match=r"takes \(batch, 13"):
        tiny().predict(pictures(), 0.1)
    settings = network().settings | {"inputs": 3}
    save_weights(path, ResidualUNet(settings).state_dict(), header | {"network": settings})
    with pytest.raises(CheckpointError, match="does not take what"):
        load_weights("operator", path)


def test_through_the_front_door():
    done = restore(
        photograph()[0],
        method="reconstruct",
        prior=tiny(),
        operator="defocus:radius=2 | noise:sigma=0.01",
    )
    assert done.picture.size == (48, 60) and done.result.cost.network_calls == 1
    with pytest.raises(InputError, match="needs the noise level"):
        restore(photograph()[0], method="reconstruct", prior=tiny(), operator="blur:sigma=1")
    done = restore(photograph()[0], method="reconstruct", operator="blur:sigma=1 | noise:sigma=0.1")
    assert done.plan.weights_name == "reconstruct"


def test_without_damage_it_is_told_the_observation():
    prior = Middle()
    y = pictures(1)
    reconstruct(Observation(y, Operator(), 0.01), prior)
    assert torch.allclose(prior.told[0][0][:, 6:9], y, atol=1e-5)
