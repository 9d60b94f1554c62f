import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from pristina.errors import InputError, OperatorError, SettingError
from pristina.methods.diffpir import (
    PAPER,
    PAPER_INPAINTING,
    PAPER_SUPER_RESOLUTION,
    DiffPIR,
    calls,
    diffpir,
    proximal,
    quadratic_pairs,
)
from pristina.methods.steps.result import Calls
from pristina.operators.base import Observation, Operator
from pristina.priors.base import to_signed, to_unit
from pristina.priors.gaussian import GaussianPrior
from pristina.priors.schedule import alpha_bar_at
from pristina.seeds import generators
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


def random_images(n=2):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("operator", [Operator(), Pool(), Blur()])
@pytest.mark.parametrize("spacing", ["even", "quadratic"])
def test_battery(operator, spacing):
    observation = Observation(random_images(), operator, 0.05)
    settings = DiffPIR(steps=8, spacing=spacing)
    prior = GaussianPrior(0.0, 0.1)
    check_method(diffpir, observation, prior, settings, calls=8, tolerance=1e-4)


@pytest.mark.parametrize("operator", [Operator(), Pool(), Blur()])
@pytest.mark.parametrize("rho", [0.01, 1.0, 100.0])
def test_the_proximal_step_is_the_minimiser(operator, rho):
    x0 = random_images()
    y = operator(random_images().flip(-1))
    found = proximal(operator, y, x0, torch.tensor(rho), iterations=60)
    basis = torch.eye(64).view(64, 1, 8, 8)
    a = operator(basis).flatten(1).T.double()  # the matrix of one channel
    rhs = y.flatten(2).double() @ a + rho * x0.flatten(2).double()
    exact = torch.linalg.solve(a.T @ a + rho * torch.eye(64).double(), rhs.mT).mT
    assert (found.flatten(2) - exact).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("preset", "lam_there", "zeta", "steps"),
    [
        (PAPER, 7.0, 0.3, 100),
        (PAPER_SUPER_RESOLUTION, 7.0, 0.25, 100),
        (PAPER_INPAINTING, 1.0, 1.0, 20),
    ],
)
def test_presets_are_those_of_the_released_scripts(preset, lam_there, zeta, steps):
    """A first step, with rho as ``main_ddpir_*.py`` computes it: their noise is in [0, 1] units."""
    assert (preset.zeta, preset.steps, preset.spacing) == (zeta, steps, "quadratic")
    sigma, y, prior = 0.3, random_images(1), GaussianPrior(0.0, 0.1)
    prior.alpha_bar = torch.linspace(0.9999, 0.5, 1000)  # a first step in which rho matters
    estimates = []
    settings = DiffPIR(steps=preset.steps, lam=preset.lam, zeta=preset.zeta, spacing=preset.spacing)
    diffpir(
        Observation(y, Operator(), sigma),
        prior,
        settings,
        generator=generators(1, 1),
        on_step=lambda event: estimates.append(event.images),
    )
    x_t = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1))[None]
    a, b = alpha_bar_at(prior.alpha_bar, 999), alpha_bar_at(prior.alpha_bar, 0)
    rho = lam_there * sigma**2 / ((1 - a) / a)
    x0 = to_unit(prior.predict(x_t, 999).x0.clamp(-1, 1))
    assert torch.allclose(estimates[0], ((y + rho * x0) / (1 + rho)).clamp(0, 1), atol=1e-5)
    assert len(estimates) == steps and math.sqrt((1 - b) / b) < 0.02


def test_one_renewal_of_noise_is_the_formula():
    """Two steps, from t = 500 by t = 0, in [-1, 1] units."""
    prior, y, zeta, lam, sigma = GaussianPrior(0.1, 0.05), random_images(1), 0.3, 2.0, 0.1
    settings = DiffPIR(steps=2, lam=lam, zeta=zeta)
    observation = Observation(y, Operator(), sigma)
    found = diffpir(observation, prior, settings, generator=generators(1, 1)).images
    g = torch.Generator().manual_seed(1)
    x = torch.randn(3, 8, 8, generator=g)[None]
    for t, s in ((500, 0), (0, -1)):
        a_t, a_s = alpha_bar_at(prior.alpha_bar, t), alpha_bar_at(prior.alpha_bar, s)
        rho = lam * (2 * sigma) ** 2 * a_t / (1 - a_t)
        x0 = prior.predict(x, t).x0.clamp(-1, 1)
        x0 = (to_signed(y) + rho * x0) / (1 + rho)
        eps = (x - a_t.sqrt() * x0) / (1 - a_t).sqrt()
        z = torch.randn(3, 8, 8, generator=g)[None]
        x = a_s.sqrt() * x0 + (1 - a_s).sqrt() * ((1 - zeta) ** 0.5 * eps + zeta**0.5 * z)
    assert torch.allclose(found, to_unit(x0).clamp(0, 1), atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 20, 100, 1000])
def test_quadratic_timesteps_fall_from_noise_to_the_image(steps):
    pairs = quadratic_pairs(steps)
    assert pairs[0][0] == 999 and pairs[-1][1] == -1
    assert all(t > s for t, s in pairs) and all(a[1] == b[0] for a, b in pairwise(pairs))
    assert calls(DiffPIR(steps=steps, spacing="quadratic")) == Calls(len(pairs))
    assert len(pairs) == steps or steps == 1000
    if steps == 100:
        assert [t for t, _ in pairs[:4]] == [999, 899, 857, 825] and pairs[-1][0] == 0


def test_bad_input_is_refused():
    prior, y = GaussianPrior(), random_images()
    with pytest.raises(OperatorError, match="true operator"):
        diffpir(Observation(y, None, 0.05), prior)
    with pytest.raises(OperatorError, match="linear"):
        diffpir(Observation(y, Gamma(), 0.05), prior)
    with pytest.raises(InputError, match="known_sigma"):
        diffpir(Observation(y, Operator()), prior)
    for wrong in (
        {"steps": 0},
        {"lam": 0.0},
        {"zeta": 2.0},
        {"spread": 0.0},
        {"cg_iterations": 0},
        {"spacing": "dense"},
    ):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            DiffPIR(**wrong)
