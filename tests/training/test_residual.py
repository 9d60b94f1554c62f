"""The residual U-Net."""

import pytest
import torch

from pristina.image.tile import Portions, in_portions
from pristina.priors.residual import ResidualUNet

SMALL = {"channels": [8, 16, 16], "layers": 1}


def random_network(settings=SMALL):
    network = ResidualUNet(settings).double()
    for i, p in enumerate(network.parameters()):
        torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(i))
    return network.requires_grad_(False)


def test_it_starts_as_nothing_and_has_no_biases():
    network = ResidualUNet(SMALL)
    x = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(x, torch.tensor([0.3, 1.0])), torch.zeros_like(x))
    assert all("bias" not in name for name, _ in network.named_parameters())
    assert network.settings["architecture"] == "residual" and network.multiple == 8


def test_it_scales_with_its_input():
    """Without biases the output is homogeneous of degree 1 in picture and time."""
    network = random_network()
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    t = torch.tensor([0.5]).double()
    assert torch.allclose(network(2 * x, 2 * t), 2 * network(x, t), atol=1e-10)


@pytest.mark.parametrize("settings", [SMALL, {"channels": [8, 8], "layers": 2}])
def test_no_pixel_reaches_farther_than_the_radius(settings):
    network = random_network(settings)
    side = 8 * ((2 * network.radius + 24) // 8)
    x = torch.zeros(1, 3, side, side).double()
    t = torch.ones(1).double()
    before = network(x, t)
    reach = 0
    for place in range(side // 2 - 4, side // 2 + 4):
        changed = x.clone()
        changed[..., place, place] = 1
        moved = (network(changed, t) - before).abs().amax((0, 1)).nonzero()
        reach = max(reach, int((moved - place).abs().max()))
    assert reach <= network.radius < reach + 8 * network.patch


def test_tiles_give_the_same_numbers():
    network = random_network()
    x = torch.rand(1, 3, 64, 160, generator=torch.Generator().manual_seed(0)).double()
    t = torch.ones(1).double()
    whole = network(x, t)
    portions = Portions(64 * 96)
    in_parts = in_portions(
        lambda tile, rows: network(tile, t[rows]),
        x,
        portions,
        halo=network.radius,
        multiple=network.multiple,
    )
    assert torch.allclose(in_parts, whole, atol=1e-10)


def test_time_changes_the_output_and_neighbours_do_not():
    network = random_network()
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    both = network(x, torch.tensor([0.2, 0.9]).double())
    alone = network(x[1:], torch.tensor([0.9]).double())
    other = network(x[1:], torch.tensor([0.2]).double())
    assert torch.allclose(both[1:], alone, atol=1e-10)
    assert not torch.allclose(alone, other, atol=1e-4)
