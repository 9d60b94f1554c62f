import pytest
import torch
from torch.nn import functional as F

from pristina.errors import InputError, OperatorError, SettingError
from pristina.methods.diffpir import DiffPIR, diffpir, proximal
from pristina.operators.base import Observation, Operator
from pristina.priors.gaussian import GaussianPrior
from tests.contract.battery import check_method


class Pool(Operator):
    name = "pool"

    def forward(self, x):
        return F.avg_pool2d(x, 2)

    def picture_size(self, height, width):
        return 2 * height, 2 * width


class Blur(Operator):
    name = "blur"

    def forward(self, x):
        return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="circular"), 3, stride=1)


class Gamma(Operator):
    name, linear = "gamma", False


def pictures(n=2):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("operator", [Operator(), Pool(), Blur()])
def test_battery(operator):
    check_method(diffpir, Observation(pictures(), operator, 0.05), GaussianPrior(0.0, 0.1), DiffPIR(steps=8), calls=8, tolerance=1e-4)


@pytest.mark.parametrize("operator", [Operator(), Pool(), Blur()])
@pytest.mark.parametrize("rho", [0.01, 1.0, 100.0])
def test_the_proximal_step_is_the_minimiser(operator, rho):
    x0 = pictures()
    y = operator(pictures().flip(-1))
    found = proximal(operator, y, x0, torch.tensor(rho), iterations=60)
    basis = torch.eye(64).view(64, 1, 8, 8)
    a = operator(basis).flatten(1).T.double()  # the matrix of one channel
    rhs = y.flatten(2).double() @ a + rho * x0.flatten(2).double()
    exact = torch.linalg.solve(a.T @ a + rho * torch.eye(64).double(), rhs.mT).mT
    assert (found.flatten(2) - exact).abs().max() < 1e-4


def test_bad_input_is_refused():
    prior, y = GaussianPrior(), pictures()
    with pytest.raises(OperatorError, match="true operator"):
        diffpir(Observation(y, None, 0.05), prior)
    with pytest.raises(OperatorError, match="linear"):
        diffpir(Observation(y, Gamma(), 0.05), prior)
    with pytest.raises(InputError, match="known_sigma"):
        diffpir(Observation(y, Operator()), prior)
    for bad in ({"steps": 0}, {"lam": 0.0}, {"zeta": 2.0}, {"spread": 0.0}):
        with pytest.raises(SettingError):
            DiffPIR(**bad)
