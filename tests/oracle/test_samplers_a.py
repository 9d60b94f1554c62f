"""The posterior samplers against the exact posterior of a Gaussian prior, with a linear operator and known noise.

A picture of 4 x 4 px, one channel, many chains of the same observation. ``reach`` is how far the observation moves the mean away from the
prior's: a sampler that ignored the observation would be off by all of it.
"""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.methods.base import Result
from pristina.methods.diffpir import DiffPIR, diffpir
from pristina.methods.dps import DPS, dps
from pristina.methods.gdp import GDP, gdp
from pristina.operators.base import Observation, Operator
from pristina.priors.base import to_unit
from pristina.priors.gaussian import GaussianPrior

N_CHAINS = 256
SIGMA = 0.05  # of the observation
SPREAD = 0.11  # of clean pixels


class Pool(Operator):
    name = "pool"

    def forward(self, x):
        return F.avg_pool2d(x, 2)

    def picture_size(self, height, width):
        return 2 * height, 2 * width


class Case(NamedTuple):
    prior: GaussianPrior
    observation: Observation
    mean: Tensor  # of the exact posterior, (4, 4)
    sd: Tensor
    reach: float

    def off(self, result: Result) -> tuple[float, float, float]:
        """How far the chains' mean is off (root mean square, as part of the reach), that in standard errors at most, and the ratio of spreads."""
        chains = result.picture[:, 0].double()
        error = chains.mean(0) - self.mean
        by_chance = chains.std(0) / N_CHAINS**0.5
        return (
            float(error.square().mean().sqrt()) / self.reach,
            float((error / by_chance).abs().max()),
            float((chains.std(0) / self.sd).mean()),
        )


def case(operator: Operator) -> Case:
    g = torch.Generator().manual_seed(0)
    prior = GaussianPrior(0.2 * torch.rand(1, 4, 4, generator=g), (2 * SPREAD) ** 2, channels=1)
    truth = to_unit(prior.sample(torch.randn(1, 1, 4, 4, generator=g)))
    y = operator(truth)
    y = y + SIGMA * torch.randn(y.shape, generator=g)

    a = operator(torch.eye(16).view(16, 1, 4, 4)).flatten(1).T.double()
    mean, covariance = to_unit(prior.mean).flatten().double(), SPREAD**2 * torch.eye(16).double()
    gain = covariance @ a.T @ torch.linalg.inv(a @ covariance @ a.T + SIGMA**2 * torch.eye(len(a)).double())
    moved = gain @ (y.flatten().double() - a @ mean)
    sd = (covariance - gain @ a @ covariance).diagonal().sqrt()
    observation = Observation(y.expand(N_CHAINS, -1, -1, -1).clone(), operator, SIGMA)
    return Case(prior, observation, (mean + moved).view(4, 4), sd.view(4, 4), float(moved.square().mean().sqrt()))


@pytest.mark.parametrize("operator", [Operator(), Pool()])
@pytest.mark.parametrize("zeta", [0.0, 0.3])
def test_diffpir_is_exact_when_it_knows_the_spread(operator, zeta):
    """Each proximal step is then ``E[x0 | x_t, y]``, and the mean is the posterior's within the Monte-Carlo error.

    The largest of 16 pixels may be off by 4 standard errors. The chains' own spread stays too small at so few steps: from 0.3 to 0.5 of the
    posterior's; with 200 steps from 0.4 to 0.65.
    """
    c = case(operator)
    _, errors, ratio = c.off(diffpir(c.observation, c.prior, DiffPIR(steps=50, lam=1.0, zeta=zeta, spread=SPREAD)))
    assert errors < 4
    assert 0.2 < ratio < 0.6


@pytest.mark.parametrize("operator", [Operator(), Pool()])
def test_diffpir_of_the_paper_is_off(operator):
    """Without the spread it trusts the data too much where there is much noise, and forgets that only as the steps at little noise add up."""
    c = case(operator)
    few, errors, _ = c.off(diffpir(c.observation, c.prior, DiffPIR(steps=50, lam=1.0)))
    many, _, _ = c.off(diffpir(c.observation, c.prior, DiffPIR(steps=400, lam=1.0)))
    print(few, errors, many)
    assert errors > 8 and many < 0.7 * few


@pytest.mark.parametrize("operator", [Operator(), Pool()])
def test_dps_is_off(operator):
    c = case(operator)
    for zeta in (0.3, 0.5, 1.0, 2.0):
        print(zeta, c.off(dps(c.observation, c.prior, DPS(zeta=zeta))))


@pytest.mark.parametrize("operator", [Operator(), Pool()])
def test_gdp_is_off(operator):
    c = case(operator)
    for scale in (2000.0, 3000.0, 6000.0):
        print(scale, c.off(gdp(c.observation, c.prior, GDP(scale=scale))))
    print(c.reach, c.sd.mean())
