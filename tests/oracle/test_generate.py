"""G, its gradient and its inverse, on priors whose every prediction is exact."""

import pytest
import torch

import pristina
from pristina.errors import InputError, SettingError, SizeError
from pristina.priors.base import SizeRule
from pristina.priors.gaussian import GaussianMixturePrior, GaussianPrior
from pristina.priors.generate import NotConverged

GAINS = {  # seed-methods 0.5: steps -> gain at variance 1, 0.25, 0.1, 0.01, 1e-3
    1000: (0.9981, 0.4985, 0.3148, 0.0983, 0.0293),
    100: (0.9819, 0.4860, 0.3033, 0.0883, 0.0229),
    20: (0.9125, 0.4337, 0.2565, 0.0556, 0.0140),
    10: (0.8317, 0.3741, 0.2051, 0.0368, 0.0117),
    5: (0.6842, 0.2693, 0.1305, 0.0233, 0.0103),
}


@pytest.mark.parametrize("steps", GAINS)
@pytest.mark.parametrize("column", range(5))
def test_gain_table(steps, column):
    prior = GaussianPrior(0.0, (1.0, 0.25, 0.1, 0.01, 1e-3)[column])
    z = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    x = 2 * pristina.generate(prior, z, steps, clip=False) - 1
    torch.testing.assert_close(x / z, torch.full_like(z, GAINS[steps][column]), rtol=0, atol=1e-3)


def test_spectral_prior_has_the_gain_of_each_mode():
    variance = torch.rand(1, 8, 8) + 0.01
    variance = (
        variance + variance.flip(-1, -2).roll((1, 1), (-1, -2))
    ) / 2  # a real picture's spectrum is symmetric
    z = torch.randn(1, 3, 8, 8)
    x = 2 * pristina.generate(GaussianPrior(0.0, variance, spectral=True), z, 20, clip=False) - 1
    flat = GaussianPrior(0.0, variance)  # the same gains, applied to coefficients instead of pixels
    gains = 2 * pristina.generate(flat, torch.ones(1, 3, 8, 8), 20, clip=False) - 1
    torch.testing.assert_close(torch.fft.fft2(x), gains * torch.fft.fft2(z), rtol=1e-3, atol=1e-3)


def test_detached_gradient_is_the_constant_of_the_released_code():
    prior = GaussianPrior(0.0, 0.01)
    z = torch.randn(2, 3, 4, 4, requires_grad=True)
    (2 * pristina.generate(prior, z, 10) - 1).sum().backward()
    torch.testing.assert_close(z.grad, torch.full_like(z, 60.8305), rtol=1e-3, atol=0)


@pytest.mark.parametrize("gradient", ["full", "checkpointed"])
def test_true_gradient(gradient):
    prior = GaussianPrior(0.0, 0.01)
    z = torch.randn(1, 3, 4, 4, requires_grad=True)
    (2 * pristina.generate(prior, z, 10, gradient=gradient) - 1).sum().backward()
    torch.testing.assert_close(z.grad, torch.full_like(z, 0.0368), rtol=0, atol=1e-4)


def test_checkpointed_equals_full_on_a_mixture():
    means = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0)).clamp(-0.8, 0.8)
    prior = GaussianMixturePrior(means, 0.02)
    grads = []
    for gradient in ("full", "checkpointed"):
        z = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
        x = pristina.generate(prior, z, 10, gradient=gradient)
        x.square().sum().backward()
        grads.append(z.grad)
    torch.testing.assert_close(grads[0], grads[1])
    assert grads[0].abs().max() > 0


def test_checkpointed_keeps_one_image_for_each_step():
    kept, steps = [], 5
    z = torch.randn(2, 3, 4, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.nbytes) or t, lambda t: t
    ):
        x = pristina.generate(GaussianPrior(0.0, 0.01), z, steps, gradient="checkpointed")
    assert sum(kept) == steps * z.nbytes
    assert x.requires_grad


def test_mixture_generates_its_modes():
    means = torch.stack([torch.full((3, 2, 2), -0.6), torch.full((3, 2, 2), 0.4)])
    prior = GaussianMixturePrior(means, 1e-4)
    x = (
        2
        * pristina.generate(
            prior, torch.randn(16, 3, 2, 2, generator=torch.Generator().manual_seed(0)), 100
        )
        - 1
    )
    distance = (x.unsqueeze(1) - means).abs().amax((2, 3, 4)).amin(1)
    assert distance.max() < 0.05


@pytest.mark.parametrize("variance", [1.0, 0.25, 0.1, 0.01])
def test_inversion_forth_and_back(variance):
    prior = GaussianPrior(0.1, variance)
    x = prior.sample(torch.randn(2, 3, 4, 4)) / 2 + 0.5
    again = pristina.generate(prior, pristina.invert(prior, x, 10), 10, clip=False)
    assert (again - x).norm() / (x - 0.55).norm() < 0.01  # relative to the signal round its mean


def test_plain_inversion_is_off_by_a_quarter():
    """What refinement is for: the scheduler's own inverse errs by about 27 % at ten steps."""
    prior = GaussianPrior(0.0, 0.25)
    x = prior.sample(torch.randn(4, 3, 8, 8)) / 2 + 0.5
    again = pristina.generate(prior, pristina.invert(prior, x, 10, refine=1), 10, clip=False)
    assert 0.1 < (again - x).norm() / (x - 0.5).norm() < 0.5


def test_inversion_on_a_mixture():
    means = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0)).clamp(-0.8, 0.8)
    prior = GaussianMixturePrior(means, 0.05)
    x = (
        means + 0.1 * torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    ) / 2 + 0.5
    again = pristina.generate(prior, pristina.invert(prior, x, 20), 20, clip=False)
    assert (again - x).norm() / (x - 0.5).norm() < 0.01


def test_bad_input_is_named():
    prior = GaussianPrior()
    with pytest.raises(SettingError, match="gradient must be one of"):
        pristina.generate(prior, torch.zeros(1, 3, 4, 4), gradient="none")
    with pytest.raises(InputError, match="takes \\(batch, 3"):
        pristina.generate(prior, torch.zeros(1, 1, 4, 4))
    prior.size_rule = SizeRule(multiple=4, minimum=8)
    with pytest.raises(SizeError, match="at least 8 px"):
        pristina.generate(prior, torch.zeros(1, 3, 4, 4))
    with pytest.raises(SizeError, match="multiples of 4"):
        pristina.generate(prior, torch.zeros(1, 3, 10, 12))


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 7, 10, 30])
def test_the_inverse_is_found_at_every_number_of_steps(steps):
    """What is made from noise comes back, also where iteration to a fixed point diverges."""
    random = torch.Generator().manual_seed(0)
    prior = GaussianMixturePrior(0.4 * torch.randn(3, 3, 8, 8, generator=random), 0.05)
    z = torch.randn(4, 3, 8, 8, generator=random)
    x = pristina.generate(prior, z, steps, clip=False)
    again = pristina.generate(prior, pristina.invert(prior, x, steps), steps, clip=False)
    assert (again - x).abs().max() < 0.02


def test_an_inverse_that_is_not_found_is_said():
    random = torch.Generator().manual_seed(0)
    prior = GaussianMixturePrior(0.4 * torch.randn(3, 3, 8, 8, generator=random), 0.05)
    x = pristina.generate(prior, torch.randn(4, 3, 8, 8, generator=random), 3, clip=False)
    with pytest.warns(NotConverged, match=r"in 3 network calls a step.* timestep 333"):
        pristina.invert(prior, x, 3, refine=3)
    prior.means[0, 0, 0, 0] = torch.nan
    with pytest.warns(NotConverged):
        pristina.invert(prior, x, 3)


def test_an_image_is_inverted_alike_beside_another():
    random = torch.Generator().manual_seed(0)
    prior = GaussianMixturePrior(0.4 * torch.randn(3, 3, 8, 8, generator=random), 0.05)
    x = pristina.generate(prior, torch.randn(4, 3, 8, 8, generator=random), 5, clip=False)
    together, before = pristina.invert(prior, x, 5), prior.n_calls
    for i in range(4):
        torch.testing.assert_close(pristina.invert(prior, x[i : i + 1], 5), together[i : i + 1])
    assert prior.n_calls - before == before - 4 * 5  # an image that is done costs nothing more


def test_one_step_begins_at_pure_noise():
    """One call on noise gives the mean of all images, as a chain of one step should."""
    prior = GaussianPrior(0.3, 0.05)
    x = 2 * pristina.generate(prior, torch.randn(1, 3, 8, 8), 1, clip=False) - 1
    torch.testing.assert_close(x, torch.full_like(x, 0.3), rtol=0, atol=2e-3)
