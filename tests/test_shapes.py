"""Shapes are checked in this test run."""

import jaxtyping
import pytest
import torch

from pristina.image.statistics import noise_floor
from pristina.planning import make_plan
from pristina.priors.gaussian import GaussianPrior
from pristina.request import Request
from pristina.restoration import run


def test_a_wrong_shape_is_seen():
    with pytest.raises(jaxtyping.TypeCheckError, match="y"):
        noise_floor(torch.rand(3, 64, 64))
    plan = make_plan(Request(method="mmse"), (8, 8), weights=GaussianPrior(variance=0.1))
    with pytest.raises(jaxtyping.TypeCheckError, match="images"):
        run(plan, torch.rand(3, 8, 8))
