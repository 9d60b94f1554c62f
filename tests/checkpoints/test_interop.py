"""deepinv's conventions, without deepinv: its physics as operators, methods as reconstructors."""

import pytest
import torch

from pristina.errors import OperatorError
from pristina.interop import PhysicsOperator, Reconstructor
from pristina.methods.index import METHODS
from pristina.methods.mmse import MMSE, mmse
from pristina.operators.base import Observation, Operator
from pristina.priors.gaussian import GaussianPrior
from pristina.seeds import generators
from pristina.types import Draw


class Noise:
    sigma = 0.1


class Shrink:
    """A physics as deepinv has them: averages 2 x 2 pixels, and adds noise when called."""

    noise_model = Noise()

    def A(self, x):
        return torch.nn.functional.avg_pool2d(x, 2)

    def A_adjoint(self, y):
        return y.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4

    def __call__(self, x):
        return self.A(x) + Noise.sigma * torch.randn_like(self.A(x))


def test_physics_is_an_operator():
    operator = PhysicsOperator(Shrink())
    x, y = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 4, 4)
    assert torch.equal(operator(x), Shrink().A(x)) and torch.equal(
        operator(x), operator(x)
    )  # noise is no part of A
    assert torch.allclose((operator(x) * y).sum(), (x * operator.adjoint(y)).sum())
    exact = super(PhysicsOperator, operator).adjoint(y)
    assert torch.allclose(operator.adjoint(y), exact, atol=1e-6)
    assert operator.picture_size(4, 6) == (8, 12) and Observation(y, operator).size == (8, 8)
    assert PhysicsOperator(Shrink(), size=(5, 5)).picture_size(4, 4) == (5, 5)
    assert operator.linear and operator.sigma == 0.1 and "Shrink" in operator.describe()
    assert operator.for_batch(2) is operator and not list(operator.parameters())
    a, b = (operator.degrade(x, Draw(generators(0, 2), 2)) for _ in range(2))
    assert torch.equal(a, b) and 0.05 < (a - operator(x)).std() < 0.15
    with pytest.raises(OperatorError, match="A_adjoint"):
        PhysicsOperator(lambda x: x)


def test_a_module_keeps_its_parameters_to_itself():
    class Filter(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.conv(x)

        A_adjoint = forward

    operator = PhysicsOperator(Filter())
    assert not list(operator.parameters()) and not operator.state_dict()
    assert operator(torch.zeros(1, 3, 2, 2)).shape == (1, 3, 2, 2)


def test_our_methods_are_reconstructors():
    prior = GaussianPrior(variance=0.1)
    y = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = Reconstructor("mmse", prior, MMSE(sigma=0.2))
    assert torch.equal(model(y), mmse(Observation(y), prior, MMSE(sigma=0.2)).images)
    assert model(y[:, :, :4, :4], Shrink()).shape == (2, 3, 8, 8)


def test_a_method_that_does_not_use_the_form_gets_the_size_alone():
    class Same:
        noise_model = Noise()

        def A(self, x):
            return x

        A_adjoint = __call__ = A

    prior = GaussianPrior(variance=0.1)
    y = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = Reconstructor("mmse", prior, MMSE(sigma=0.2))
    assert torch.equal(model(y, Same()), model(y))
    assert torch.equal(Reconstructor("nothing", None)(y, Same()), y)


def test_a_method_that_needs_the_operator_uses_the_physics():
    class Native(Operator):
        def forward(self, x):
            return torch.nn.functional.avg_pool2d(x, 2)

        def picture_size(self, height, width):
            return 2 * height, 2 * width

    prior = GaussianPrior(mean=0.0, variance=0.02)
    y = torch.full((1, 3, 4, 4), 0.7)
    settings = METHODS["dps"].settings(steps=10)
    expected = (
        METHODS["dps"]
        .function(Observation(y, Native()), prior, settings, generator=generators(1, 1))
        .images
    )
    assert torch.equal(Reconstructor("dps", prior, settings, seed=1)(y, Shrink()), expected)
