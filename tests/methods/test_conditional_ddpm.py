from itertools import pairwise

import pytest
import torch

from pristina.errors import InputError, SettingError
from pristina.methods.conditional_ddpm import ConditionalDDPM, chain, conditional_ddpm
from pristina.methods.index import method
from pristina.operators.base import Observation
from pristina.priors.direct import ConditionalNetwork
from pristina.priors.network import PatchUNet
from pristina.types import generators
from tests.contract.battery import check_method

TINY = {"channels": [16, 32], "layers": 1, "patch": 2, "attention": False, "norm": "pixel", "inputs": 6, "outputs": 3, "labels": 0}


def tiny():
    torch.manual_seed(0)
    network = PatchUNet(TINY)
    torch.nn.init.normal_(network.unet.conv_out.weight, std=0.05)
    return ConditionalNetwork(network, domain="tests")


def pictures(n):
    return torch.rand(n, 3, 7, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_battery(eta):
    check_method(conditional_ddpm, Observation(pictures(2)), tiny(), ConditionalDDPM(steps=3, eta=eta), calls=3, tolerance=1e-4)
    assert method("conditional_ddpm").function is conditional_ddpm and method("conditional_ddpm").prior == "conditional"


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50, 1000])
def test_the_chain_begins_in_noise_and_ends_in_the_picture(steps):
    pairs = chain(steps)
    assert len(pairs) == steps and pairs[0][0] == 999 and pairs[-1][1] == -1
    assert all(t > s for t, s in pairs) and all(a[1] == b[0] for a, b in pairwise(pairs))


def test_the_noise_and_the_condition_both_matter():
    prior, y = tiny(), pictures(1)
    one = conditional_ddpm(Observation(y), prior, ConditionalDDPM(4), generator=generators(1, 1)).picture
    other_noise = conditional_ddpm(Observation(y), prior, ConditionalDDPM(4), generator=generators(2, 1)).picture
    other_picture = conditional_ddpm(Observation(1 - y), prior, ConditionalDDPM(4), generator=generators(1, 1)).picture
    assert not torch.allclose(one, other_noise, atol=1e-3) and not torch.equal(one, other_picture)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 1001}, {"eta": -0.1}, {"eta": 1.1}])
def test_settings_out_of_range(wrong):
    with pytest.raises(SettingError):
        ConditionalDDPM(**wrong)


def test_condition_and_picture_must_be_alike():
    with pytest.raises(InputError, match="condition"):
        tiny().predict(pictures(1), 5, torch.zeros(1, 3, 7, 9))
