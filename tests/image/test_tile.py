"""Pictures in tiles: the same numbers as of the whole."""

import math

import pytest
import torch
from torch import Tensor

from pristina.image.tile import (
    LEAST_PIXELS,
    MANY_PIXELS,
    Portions,
    in_portions,
    in_tiles,
    least_tile,
    tile_parts,
)
from pristina.priors.direct import ConditionalNetwork, DirectNetwork
from pristina.priors.patch_unet import PatchUNet
from pristina.priors.unet import flow_prior

SETTINGS = {
    "layers": 1,
    "patch": 2,
    "attention": False,
    "norm": "pixel",
    "head": "linear",
    "inputs": 3,
    "outputs": 3,
    "labels": 0,
}


def network(**changes):
    torch.manual_seed(0)
    made = PatchUNet(SETTINGS | {"channels": [16, 16, 16]} | changes)
    for p in filter(Tensor.numel, made.parameters()):
        torch.nn.init.normal_(p, std=0.2)
    return made


@pytest.mark.parametrize("size", [(20, 20), (61, 20), (50, 70), (64, 41)])
def test_a_sum_over_neighbours(size):
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    seen = []

    def blur(part):
        seen.append(part.shape[-2:])
        return torch.nn.functional.avg_pool2d(part, 5, 1, 2)

    assert torch.allclose(in_tiles(blur, x, pixels=600, halo=2), blur(x), atol=1e-6)
    assert all(math.prod(shape) <= 600 for shape in seen[:-1])
    wrong = in_tiles(blur, x, pixels=600, halo=1)
    assert torch.allclose(wrong, blur(x), atol=1e-6) == (
        math.prod(size) <= 600
    )  # a halo too small would show


def test_the_smallest_tiles():
    shapes = []

    def function(part, rows):
        shapes.append(part.shape[-2:])
        return part

    in_portions(function, torch.rand(1, 1, 208, 272), Portions(LEAST_PIXELS), halo=7, multiple=4)
    assert least_tile(7, 4) == 80**2  # 64 px, and 8 on each side.
    assert 0.9 * 80**2 < max(map(math.prod, shapes)) <= 80**2


def seen(size, pixels, halo):
    """Number of pixels that all tiles see, for each pixel of the image, and the largest tile."""
    sides = [
        [min(n, end + halo) - max(0, start - halo) for start, end in parts]
        for n, parts in zip(
            size, tile_parts(*size, pixels=pixels, halo=halo, multiple=8), strict=True
        )
    ]
    return math.prod(map(sum, sides)) / math.prod(size), math.prod(map(max, sides))


def test_overlap_costs_little():
    sizes = [(432, 576), (1224, 1632), (3000, 4000), (4240, 5656), (6000, 8000)]
    costs = [seen(size, MANY_PIXELS, 104) for size in sizes]
    assert all(most <= MANY_PIXELS for _, most in costs)
    assert [cost for cost, _ in costs[:2]] == [1, 1]
    assert all(cost < 1.12 for cost, _ in costs)
    assert seen((1736, 2320), 2**20, 104)[0] < 1.33  # Square tiles: 1.46.


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"channels": [16, 16]},
        {"layers": 2, "channels": [16, 16]},
        {"patch": 4, "channels": [16, 16]},
    ],
)
@torch.no_grad()
def test_no_pixel_depends_on_one_beyond_the_radius(changes):
    made = network(**changes).double().eval()
    side = made.multiple * (2 * made.radius // made.multiple + 6)
    x = torch.rand(
        1, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    reached = 0
    for middle in (
        side // 2,
        side // 2 + made.multiple - 1,
    ):  # the ends of a cell of the network's coarsest grid
        other = x.clone()
        other[..., middle, middle] += 1
        changed = (made(other, torch.ones(1)) != made(x, torch.ones(1))).any(1)[0].nonzero()
        reached = max(reached, int((changed - middle).abs().max()))
    assert 0.6 * made.radius < reached <= made.radius


def test_attention_and_group_norm_have_no_radius():
    assert (
        network(attention=True, channels=[32, 64]).radius is None
        and network(norm="group").radius is None
    )


@torch.no_grad()
def test_networks_give_the_same_in_tiles():
    x = torch.rand(1, 3, 203, 330, generator=torch.Generator().manual_seed(2))
    prior = DirectNetwork(network(channels=[16, 16]), domain="")
    rival = ConditionalNetwork(network(channels=[16, 16], inputs=6), domain="")
    whole, pair = prior.predict(x, 0.7), rival.predict(x, 500, 1 - x)
    fit, diffusion = (
        x[..., :200, :328],
        flow_prior(network(channels=[16, 16]), domain="", native=None, fixed=False),
    )
    estimate = diffusion.predict(fit, 300).x0
    radius = prior.network.radius
    prior, rival, diffusion = (p.limited((64 + 2 * radius) ** 2) for p in (prior, rival, diffusion))
    in_parts, pair_in_parts = prior.predict(x, 0.7), rival.predict(x, 500, 1 - x)
    assert torch.allclose(in_parts, whole, atol=1e-4 * float(whole.abs().max()))
    assert torch.allclose(pair_in_parts.eps, pair.eps, atol=1e-4 * float(pair.eps.abs().max()))
    assert torch.allclose(
        diffusion.predict(fit, 300).x0, estimate, atol=1e-4 * float(estimate.abs().max())
    )
    assert prior.n_calls == rival.n_calls == 1  # a picture in tiles is still one call


def test_large_tiles_begin_with_what_was_freed_given_back(monkeypatch):
    given = []
    monkeypatch.setattr("pristina.image.tile._malloc_trim", lambda: given.append)
    for side in (20, 300):
        shapes = []

        def function(part, shapes=shapes):
            shapes.append(part.shape)
            return part

        in_tiles(function, torch.rand(1, 3, side, side), pixels=side**2 - 1, halo=1)
        assert len(shapes) == 2 and len(given) == (2 if side == 300 else 0)
