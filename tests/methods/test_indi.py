from dataclasses import replace

import pytest
import torch

from pristina.errors import InputError, SettingError
from pristina.methods.index import method
from pristina.methods.indi import InDI, indi
from pristina.operators.base import Observation
from pristina.priors.direct import DirectNetwork, DirectPrior
from pristina.priors.patch_unet import PatchUNet
from pristina.seeds import generators
from tests.contract.battery import check_method

TINY = {
    "channels": [16, 32],
    "layers": 1,
    "patch": 2,
    "attention": False,
    "norm": "pixel",
    "inputs": 3,
    "outputs": 3,
    "labels": 0,
}


class Shrink(DirectPrior):
    def regress(self, x_t, t):
        return x_t.mean((2, 3), keepdim=True) + 0.5 * (x_t - 0.5) * (1 - t.view(-1, 1, 1, 1))


def tiny():
    torch.manual_seed(0)
    network = PatchUNet(TINY)
    torch.nn.init.normal_(network.unet.conv_out.weight, std=0.05)
    return DirectNetwork(network, domain="tests", noise="constant", eps=0.005)


def pictures(n, height=9, width=14):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "settings",
    [
        InDI(steps=4),
        InDI(steps=3, grid="geometric", noise="brownian", eps=0.02),
        InDI(steps=2, update="cold_improved", noise="constant"),
    ],
)
def test_battery(settings):
    check_method(
        indi,
        Observation(pictures(3)),
        Shrink(domain="tests"),
        settings,
        calls=settings.steps,
        random=settings.noise != "trained",
    )


def test_battery_of_a_network():
    check_method(indi, Observation(pictures(2)), tiny(), InDI(steps=2), calls=2)
    assert method("indi").function is indi and method("indi").prior == "direct"


def test_the_grid_is_exact():
    for steps in (1, 3, 7, 49, 100):
        times = InDI(steps=steps).times
        assert times[0] == 1 and times[-1] == 0 and len(times) == steps + 1
        assert times[1] * steps == steps - 1
    assert [float(t) for t in InDI(grid=(1, 0.9, 0)).times] == [1, 0.9, 0]
    assert InDI(steps=3, grid="geometric").times[:3] == [1, 0.75, 0.5625]
    assert InDI(steps=4, strength=0.5).times == [0.5, 0.375, 0.25, 0.125, 0]


def test_strength_is_the_time_at_which_the_picture_is_taken_to_lie():
    prior, y = tiny(), pictures(1)
    result = indi(Observation(y), prior, InDI(strength=0.8, noise="none"))
    assert torch.equal(result.images, prior.predict(y, 0.8).clamp(0, 1))
    assert not torch.allclose(result.images, prior.predict(y, 1.0).clamp(0, 1), atol=1e-4)


def test_a_given_grid_counts_its_own_steps():
    result = indi(Observation(pictures(1)), Shrink(domain="tests"), InDI(grid=(1.0, 0.9, 0.0)))
    assert result.cost.network_calls == 2 and result.trace["t"].flatten().tolist() == pytest.approx(
        [1.0, 0.9]
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"grid": "cosine"},
        {"grid": (0.9, 0.0)},
        {"grid": (1.0, 0.1)},
        {"grid": (1.0, 0.5, 0.5, 0.0)},
        {"grid": (1.0,)},
        {"update": "euler"},
        {"noise": "pink"},
        {"eps": -0.1},
        {"ensemble": 3},
        {"strength": 0.0},
        {"strength": 1.1},
    ],
)
def test_settings_out_of_range(wrong):
    with pytest.raises(SettingError):
        InDI().changed(wrong)


def test_brownian_noise_needs_the_own_update():
    with pytest.raises(SettingError, match="Brownian"):
        indi(
            Observation(pictures(1)),
            Shrink(domain="tests"),
            InDI(steps=2, update="cold_naive", noise="brownian"),
        )


def test_noise_is_what_the_regressor_was_trained_with():
    prior, y = tiny(), pictures(1)
    trained = indi(Observation(y), prior, InDI(), generator=generators(1, 1)).images
    said = indi(
        Observation(y), prior, InDI(noise="constant", eps=0.005), generator=generators(1, 1)
    ).images
    without = indi(Observation(y), prior, InDI(noise="none"), generator=generators(1, 1)).images
    assert torch.equal(trained, said) and not torch.equal(trained, without)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (9, 14), (16, 16)])
def test_any_size(size):
    prior, y = tiny(), pictures(1, *size)
    result = indi(Observation(y), prior)
    assert result.images.shape == y.shape and result.cost.network_calls == 1


def test_the_network_does_not_see_the_size_of_the_picture():
    prior, y = tiny(), pictures(1, 176, 176)
    whole, part = prior.predict(y, 1.0), prior.predict(y[..., 16:160, 16:160], 1.0)
    assert torch.allclose(whole[..., 84:92, 84:92], part[..., 68:76, 68:76], atol=1e-5)
    assert (whole - y).abs().max() > 1e-3


@pytest.mark.parametrize("ensemble", [2, 4, 8])
def test_an_ensemble_does_not_care_how_the_picture_is_turned(ensemble):
    prior, y = tiny(), pictures(1, 8, 24)
    ways = {
        2: lambda x: x.flip(-1),
        4: lambda x: x.flip(-2, -1),
        8: lambda x: x.transpose(-1, -2).flip(-1),
    }
    turn, settings = ways[ensemble], InDI(steps=2, ensemble=ensemble, noise="none")
    result = indi(Observation(y), prior, settings)
    assert result.cost.network_calls == 2 * ensemble
    assert torch.allclose(
        indi(Observation(turn(y)), prior, settings).images, turn(result.images), atol=1e-5
    )
    alone = replace(settings, ensemble=1)
    assert not torch.allclose(
        indi(Observation(turn(y)), prior, alone).images,
        turn(indi(Observation(y), prior, alone).images),
        atol=1e-4,
    )


def test_an_untrained_network_is_the_identity():
    prior = DirectNetwork(PatchUNet(TINY | {"head": "linear"}), domain="tests")
    y = pictures(1)
    assert torch.allclose(indi(Observation(y), prior, InDI(steps=3)).images, y, atol=1e-6)


def test_wrong_inputs():
    prior = Shrink(domain="tests")
    with pytest.raises(InputError, match="channels"):
        indi(Observation(torch.rand(1, 1, 8, 8)), prior)
    with pytest.raises(InputError, match=r"t must lie in"):
        prior.predict(pictures(1), 0.0)
