import torch

from pristina.methods.diip import DIIP, diip
from pristina.methods.mmse import MMSE, mmse
from pristina.operators.base import Observation
from pristina.priors.gaussian import GaussianPrior
from tests.contract.battery import check_method


def test_battery():
    y = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    check_method(diip, Observation(y), GaussianPrior(0.0, 0.1), DIIP(iterations=4, rule="none"), calls=5 * 10)
    check_method(mmse, Observation(y), GaussianPrior(0.0, 0.1), MMSE(), calls=1)
