"""Muon against the matrix arithmetic of its definition."""

import pytest
import torch

from pristina.errors import SettingError
from pristina.priors.patch_unet import PatchUNet
from pristina.priors.residual import ResidualUNet
from pristina.training.loop import make_optimizer
from pristina.training.muon import COEFFICIENTS, N_STEPS, Muon, orthogonalised, parameter_groups

from .common import short


def newton_schulz(matrix):
    """Take the steps of the definition, in float64."""
    x = matrix.double()
    x = x / x.norm()
    tall = len(x) > x.shape[1]
    x = x.T if tall else x
    a, b, c = COEFFICIENTS
    for _ in range(N_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


@pytest.mark.parametrize("shape", [(8, 72), (64, 8), (16, 16), (48, 432)])
@pytest.mark.parametrize("decades", [0, 4])
def test_newton_schulz_on_the_gram_matrix(shape, decades):
    random = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=random) * torch.logspace(0, -decades, shape[1])
    expected = newton_schulz(matrix)
    assert torch.allclose(orthogonalised(matrix).double(), expected, atol=2e-3)


def test_singular_values_come_near_one():
    matrix = torch.randn(24, 216, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert values.min() > 0.6 and values.max() < 1.3
    assert torch.equal(orthogonalised(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_groups_leave_the_ends_to_adam():
    network = ResidualUNet({"channels": [8, 16], "layers": 1})
    inner, outer = parameter_groups(network, 0.01, 0.001, network.ends)
    assert (inner["muon"], outer["muon"]) == (True, False)
    ends = {id(network.conv_in.weight), id(network.conv_out.weight)}
    assert {id(p) for p in outer["params"]} == ends
    assert len(inner["params"]) + 2 == len(list(network.parameters()))


def test_the_outer_group_is_updated_like_adam():
    random = torch.Generator().manual_seed(0)
    start = torch.randn(5, generator=random)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    one = Muon([{"params": [ours], "lr": 0.01}], betas=(0.9, 0.99))
    two = torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.99))
    for _ in range(10):
        gradient = torch.randn(5, generator=random)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        one.step()
        two.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_both_kinds_of_groups_decrease_a_loss():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3),
        torch.nn.Conv2d(8, 1, 1),
    )
    optimizer = Muon(parameter_groups(network, 0.02, 0.01, ("0", "3")))
    x = torch.rand(4, 3, 9, 9, generator=torch.Generator().manual_seed(0))

    def closure():
        optimizer.zero_grad()
        loss = (network(x) - 1).square().mean()
        loss.backward()
        return float(loss.detach())

    losses = [optimizer.step(closure) for _ in range(30)]
    assert losses[-1] < 0.2 * losses[0]


def test_its_state_is_saved_and_read():
    network = ResidualUNet({"channels": [8, 16], "layers": 1})
    optimizer = make_optimizer(network, short(optimiser="muon"))
    for p in network.parameters():
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    optimizer.step()
    again = make_optimizer(network, short(optimiser="muon"))
    again.load_state_dict(optimizer.state_dict())
    one, two = (o.state_dict()["state"] for o in (optimizer, again))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[i][name], two[i][name]) for i in one for name in one[i])


def test_networks_that_do_not_name_their_ends_are_refused():
    network = PatchUNet(
        {
            "channels": [16, 32],
            "layers": 1,
            "patch": 2,
            "attention": False,
            "norm": "pixel",
            "inputs": 3,
            "outputs": 3,
            "labels": 0,
        }
    )
    with pytest.raises(SettingError, match="use adamw"):
        make_optimizer(network, short(optimiser="muon"))
