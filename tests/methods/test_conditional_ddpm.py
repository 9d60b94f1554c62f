from itertools import pairwise

import pytest
import torch

from pristina.errors import InputError, SettingError
from pristina.methods.conditional_ddpm import ConditionalDDPM, chain, conditional_ddpm
from pristina.methods.index import method
from pristina.operators.base import Observation
from pristina.operators.resample import Downsample
from pristina.priors.direct import ConditionalNetwork, ConditionalPrior
from pristina.priors.patch_unet import PatchUNet
from pristina.seeds import generators
from tests.contract.battery import check_method

TINY = {
    "channels": [16, 32],
    "layers": 1,
    "patch": 2,
    "attention": False,
    "norm": "pixel",
    "inputs": 6,
    "outputs": 3,
    "labels": 0,
}


def tiny():
    torch.manual_seed(0)
    network = PatchUNet(TINY)
    torch.nn.init.normal_(network.unet.conv_out.weight, std=0.05)
    return ConditionalNetwork(network, domain="tests")


class Mirror(ConditionalPrior):
    """Predict the condition turned upside down, and remember what it was given."""

    def __init__(self):
        super().__init__(domain="tests")
        self.given = []

    def predict_x0(self, x_t, t, alpha_bar, condition):
        self.given.append((x_t.clone(), float(t[0]), condition.clone()))
        return condition.flip(-2)


def random_images(n):
    return torch.rand(n, 3, 7, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_battery(eta):
    observation, settings = Observation(random_images(2)), ConditionalDDPM(steps=3, eta=eta)
    check_method(conditional_ddpm, observation, tiny(), settings, calls=3, tolerance=1e-4)
    entry = method("conditional_ddpm")
    assert entry.function is conditional_ddpm and entry.prior == "conditional"


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50, 1000])
def test_the_chain_begins_in_noise_and_ends_in_the_image(steps):
    pairs = chain(steps)
    assert len(pairs) == steps and pairs[0][0] == 999 and pairs[-1][1] == -1
    assert all(t > s for t, s in pairs) and all(a[1] == b[0] for a, b in pairwise(pairs))


def test_the_condition_is_the_observation_in_the_networks_units():
    prior, y = Mirror(), random_images(1)
    found = conditional_ddpm(Observation(y), prior, ConditionalDDPM(4)).images
    assert torch.allclose(found, y.flip(-2), atol=1e-6)
    assert [t for _, t, _ in prior.given] == [t for t, _ in chain(4)]
    for _, _, condition in prior.given:
        assert torch.equal(condition, 2 * y - 1)
    x_t = prior.given[0][0]
    assert torch.equal(x_t[0], torch.randn(3, 7, 10, generator=generators(0, 1)[0]))


def test_the_condition_has_image_size():
    prior, down = Mirror(), Downsample(2)
    y = random_images(1)
    observation = Observation(y, down)
    found = conditional_ddpm(observation, prior, ConditionalDDPM(2)).images
    assert found.shape == (1, 3, 14, 20)
    assert torch.equal(prior.given[0][2], 2 * observation.initial() - 1)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_steps_are_those_of_ddim(eta):
    """Every x_t of a chain against Song et al.'s equations 12 and 16, from the known x0."""
    prior, y = Mirror(), random_images(1)
    conditional_ddpm(Observation(y), prior, ConditionalDDPM(4, eta), generator=generators(6, 1))
    g = generators(6, 1)[0]
    x = torch.randn(3, 7, 10, generator=g)[None]
    x0 = (2 * y - 1).flip(-2)
    for (t, s), (x_t, _, _) in zip(chain(4), prior.given, strict=True):
        assert torch.allclose(x_t, x, atol=1e-4)
        if s < 0:
            break
        a_t, a_s = prior.alpha_bar[t].double(), prior.alpha_bar[s].double()
        sigma = eta * ((1 - a_s) / (1 - a_t)).sqrt() * (1 - a_t / a_s).sqrt()
        eps = (x - a_t.sqrt() * x0) / (1 - a_t).sqrt()
        x = a_s.sqrt() * x0 + (1 - a_s - sigma**2).sqrt() * eps
        if eta:
            x = x + sigma * torch.randn(3, 7, 10, generator=g)[None]


def test_the_noise_and_the_condition_both_matter():
    prior, y = tiny(), random_images(1)
    settings = ConditionalDDPM(4)
    one, other_noise, other_image = (
        conditional_ddpm(Observation(image), prior, settings, generator=generators(s, 1)).images
        for image, s in ((y, 1), (y, 2), (1 - y, 1))
    )
    assert not torch.allclose(one, other_noise, atol=1e-3)
    assert not torch.allclose(one, other_image, atol=0.1)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 1001}, {"eta": -0.1}, {"eta": 1.1}])
def test_settings_out_of_range(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        ConditionalDDPM(**wrong)


def test_condition_and_image_must_be_alike():
    with pytest.raises(InputError, match="condition"):
        tiny().predict(random_images(1), 5, torch.zeros(1, 3, 7, 9))
