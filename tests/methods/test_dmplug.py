import pytest
import torch

from pristina.errors import OperatorError, SettingError
from pristina.methods.dmplug import PAPER, PAPER_BLIND, Choice, DMPlug, calls, dmplug
from pristina.methods.steps.result import Calls, StopReason
from pristina.operators.base import Observation, Operator
from pristina.operators.blur import FreeKernel
from pristina.operators.resample import Downsample
from pristina.priors.gaussian import GaussianPrior
from pristina.priors.generate import generate
from pristina.seeds import generators
from tests.contract.battery import check_method

PRIOR = GaussianPrior(0.0, 0.1)


class Gamma(Operator):
    name, linear = "gamma", False

    def forward(self, x):
        return x.clamp(min=1e-3) ** 2.2


def random_images(n=2, size=8):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("operator", "window"), [(Downsample(2), 0), (Gamma(), 2), (FreeKernel(5, sigma=1.0), 0)]
)
def test_battery(operator, window):
    settings = DMPlug(iterations=3, window=window)
    observation = Observation(random_images(), operator)
    check_method(dmplug, observation, PRIOR, settings, calls=9, backward=9)


def test_calls():
    assert calls(DMPlug(iterations=7)) == Calls(21, 21, kept=3)
    assert calls(PAPER) == Calls(15_000, 15_000, kept=3)
    assert (PAPER.iterations, PAPER.learning_rate, PAPER_BLIND.iterations) == (5000, 0.01, 10_000)


def test_the_first_step_of_adam_goes_against_the_true_gradient():
    """Under a prior of smooth images, whose network mixes the pixels."""
    f = torch.fft.fftfreq(8)
    prior = GaussianPrior(0.0, 0.5 / (1 + 64 * (f[:, None] ** 2 + f**2)) ** 2, spectral=True)
    y, rate = random_images(1), 0.01
    settings = DMPlug(iterations=1, learning_rate=rate)
    found = dmplug(Observation(y, Operator()), prior, settings, generator=generators(3, 1))
    z = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(3))[None].requires_grad_()
    loss = (generate(prior, z, 3, gradient="full") - y).square().mean()
    (gradient,) = torch.autograd.grad(loss, z)
    steep = gradient.abs() > 1e-5
    moved = (found.extras["z"] - z)[steep]
    assert steep.float().mean() > 0.8
    assert torch.allclose(moved, -rate * gradient.sign()[steep], atol=1e-4)


def test_the_window_chooses_where_the_outputs_varied_least():
    choice = Choice(torch.zeros(2, 1, 2, 2), torch.ones(2).long(), torch.full((2,), torch.inf))
    # The outputs of the first image settle at once and then jump; those of the second settle last.
    outputs = [(0.0, 0.0), (0.1, 1.0), (0.9, 1.5), (0.1, 1.6)]
    for step, (first, second) in enumerate(outputs, 1):
        x = torch.tensor([first, second])[:, None, None, None].expand(2, 1, 2, 2)
        choice = choice.after(x, step, 2)
    assert choice.step.tolist() == [2, 4]
    assert torch.allclose(choice.images[:, 0, 0, 0], torch.tensor([0.1, 1.6]))


def test_the_kernel_is_found():
    """A prior that knows the sharp image leaves it to the kernel to explain the rest."""
    truth, kernel = random_images(1, 16), FreeKernel(5, sigma=0.8).kernel().detach()
    y = FreeKernel(5, sigma=0.8)(truth).detach()
    prior = GaussianPrior(2 * truth[0] - 1, 1e-4)
    observation = Observation(y, FreeKernel(5, sigma=2.0))
    found = dmplug(observation, prior, DMPlug(iterations=60))
    off = (found.operator.kernel() - kernel).abs().sum()
    assert off < 0.3 * (observation.operator.kernel() - kernel).abs().sum()
    chosen = dmplug(observation, prior, DMPlug(iterations=6, window=3))
    assert chosen.stopped[0].reason is StopReason.VARIANCE and chosen.stopped[0].step >= 3


def test_bad_input_is_refused():
    with pytest.raises(OperatorError, match="needs the true operator"):
        dmplug(Observation(random_images()), PRIOR)
    for wrong in ({"iterations": 0}, {"learning_rate": 0.0}, {"window": -1}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            DMPlug(**wrong)
