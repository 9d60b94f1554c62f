import pytest
import torch

from pristina.errors import InputError, OperatorError, SettingError
from pristina.methods.fast_dips import FASTDIPS, calls, corrected, descended, fast_dips, norm
from pristina.methods.steps.linear import proximal
from pristina.methods.steps.result import Calls
from pristina.operators.base import Observation, Operator
from pristina.operators.resample import Downsample
from pristina.priors.base import to_unit
from pristina.priors.gaussian import GaussianPrior
from tests.contract.battery import check_method


class Gamma(Operator):
    name, linear = "gamma", False

    def forward(self, x):
        return x.clamp(min=1e-3) ** 2.2


def random_images(n=2):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("operator", [Downsample(2), Gamma()])
def test_battery(operator):
    observation = Observation(random_images(), operator, known_sigma=0.05)
    check_method(fast_dips, observation, GaussianPrior(0.0, 0.1), FASTDIPS(steps=4), calls=4)


def test_calls():
    assert calls(FASTDIPS(steps=7)) == Calls(7)


@pytest.mark.parametrize("operator", [Operator(), Downsample(2, "area"), Gamma()])
def test_the_step_is_as_long_as_is_best(operator):
    """Neither a shorter nor a longer one reaches a smaller value, so near the observation."""
    x0 = random_images() - 0.5
    y = operator(to_unit(x0) + 0.02 * random_images(2).flip(0))
    gamma, rho = 0.01, 200.0

    def misfit(x):
        return 2 * (operator(to_unit(x)) - y)

    def value(x):
        return norm(x - x0) ** 2 / gamma + rho * norm(misfit(x)) ** 2

    step = descended(operator, misfit, x0, x0, torch.zeros_like(y), gamma, rho) - x0
    assert norm(step).min() > 0.02
    best = value(x0 + step)
    for factor in (0.0, 0.8, 1.25):
        assert (value(x0 + factor * step) >= best * (1 - 1e-3)).all()


@pytest.mark.parametrize("operator", [Operator(), Downsample(2, "area")])
def test_the_correction_ends_on_the_ball(operator):
    """It is then the nearest image to the anchor there: a proximal step with some weight."""
    x0 = 2 * random_images() - 1
    y = operator(random_images(2).flip(0))
    epsilon = 0.5 * float(norm(2 * (operator(to_unit(x0)) - y)).min())
    settings = FASTDIPS(admm=40, descents=2, rho=5.0)
    x = corrected(operator, y, x0, 0.2, epsilon, settings)
    lengths = norm(2 * (operator(to_unit(x)) - y))
    assert torch.allclose(lengths, torch.full_like(lengths, epsilon), rtol=0.01)
    # The direction from the anchor is that of the adjoint of the residual.
    back = operator.adjoint(operator(to_unit(x)) - y)
    cosine = torch.cosine_similarity((x0 - x).flatten(1), back.flatten(1))
    assert cosine.min() > 0.999
    # What lies in the ball already stays.
    inside = proximal(operator, y, to_unit(x0), torch.tensor(1e-3), 30) * 2 - 1
    assert torch.allclose(corrected(operator, y, inside, 0.2, epsilon, settings), inside)


def test_what_it_cannot_do_without_is_refused():
    y, prior = random_images(), GaussianPrior()
    with pytest.raises(OperatorError, match="needs the true operator"):
        fast_dips(Observation(y, known_sigma=0.1), prior)
    with pytest.raises(InputError, match="must know the noise"):
        fast_dips(Observation(y, Operator()), prior)
    for wrong in ({"steps": 0}, {"admm": 0}, {"descents": 0}, {"rho": 0.0}, {"radius": -1.0}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            FASTDIPS(**wrong)
