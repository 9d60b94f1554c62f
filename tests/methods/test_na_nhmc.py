import pytest
import torch

from pristina.errors import OperatorError, SettingError
from pristina.methods.na_nhmc import NANHMC, PAPER, Place, Potential, calls, decode, na_nhmc
from pristina.methods.steps.result import Calls
from pristina.operators.base import Observation, Operator
from pristina.operators.resample import Downsample
from pristina.priors.gaussian import GaussianPrior
from tests.contract.battery import check_method

PRIOR = GaussianPrior(0.0, 0.1)


class Gamma(Operator):
    name, linear = "gamma", False

    def forward(self, x):
        return x.clamp(min=1e-3) ** 2.2


def random_images(n=2):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("operator", [Downsample(2), Gamma()])
def test_battery(operator):
    settings = NANHMC(trajectories=4, warm_up=2, samples=2, leapfrog=2)
    observation = Observation(random_images(), operator)
    check_method(na_nhmc, observation, PRIOR, settings, calls=18, backward=18)


def test_calls():
    assert calls(NANHMC(trajectories=3, leapfrog=5)) == Calls(32, 32, kept=2)
    assert calls(PAPER) == Calls(3242, 3242, kept=2)


def test_two_steps_make_an_image_of_the_prior():
    """Its variance is that of the DDIM steps 750, 375, 0 on a Gaussian, in closed form."""
    z = torch.ones(1, 3, 8, 8)
    a, b = PRIOR.alpha_bar[[750, 375]].double().tolist()
    x = 1.0
    for one, following in ((a, b), (b, 1.0)):
        x0 = one**0.5 * 0.1 / (one * 0.1 + 1 - one) * x
        eps = (x - one**0.5 * x0) / (1 - one) ** 0.5
        x = following**0.5 * x0 + (1 - following) ** 0.5 * eps
    assert torch.allclose(decode(PRIOR, z, 2), torch.full_like(z, x), atol=1e-5)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_the_gradient_is_that_of_the_potential(k):
    """In the warm-up (k = 0, 1) and after it, for ``E = ||z - 1||^2``."""
    potential = Potential(m=7, k=k, warm_up=2)
    z = random_images(1).requires_grad_()
    error = (z - 1).square().sum((1, 2, 3), keepdim=True)
    place = Place(z, z, error, 2 * (z - 1))
    (gradient,) = torch.autograd.grad(potential(place).sum(), z)
    assert torch.allclose(potential.gradient(place), gradient, atol=1e-5)


def test_small_steps_are_accepted_and_large_ones_refused():
    observation = Observation(random_images(8), Operator())
    settings = {"trajectories": 4, "warm_up": 0, "samples": 4, "leapfrog": 3}
    for step, low, high in ((1e-4, 0.9, 1), (4.0, 0, 0.1)):
        result = na_nhmc(observation, PRIOR, NANHMC(first_step=step, step=step, **settings))
        assert low <= float(result.trace["accepted"].mean()) <= high


def test_epsilon_falls_with_each_refusal_until_the_samples():
    settings = NANHMC(trajectories=4, warm_up=1, samples=2, leapfrog=1, first_step=9.0, step=4.0)
    steps = na_nhmc(Observation(random_images(), Operator()), PRIOR, settings).trace["step_size"]
    assert torch.allclose(steps[:, 0], torch.tensor([0.95 * 9, 0.95 * 4, 0.95 * 4, 0.95 * 4]))


def test_bad_input_is_refused():
    with pytest.raises(OperatorError, match="needs the true operator"):
        na_nhmc(Observation(random_images()), PRIOR)
    for wrong in ({"trajectories": 0}, {"step": 0.0}, {"samples": 21}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            NANHMC(**wrong)
