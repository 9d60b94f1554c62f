import pytest
import torch

from pristina.errors import InputError, OperatorError, SettingError
from pristina.methods.fast_diffusion_em import (
    PAPER,
    FastDiffusionEM,
    calls,
    fast_diffusion_em,
    fitted,
)
from pristina.methods.pigdm import PiGDM, pigdm
from pristina.methods.steps.result import Calls
from pristina.operators.base import Observation
from pristina.operators.blur import FreeKernel, GaussianBlur
from pristina.operators.convolve import convolve
from pristina.operators.mask import Mask
from pristina.priors.gaussian import GaussianPrior
from pristina.priors.schedule import ddim_noisy_step, ddpm_posterior
from tests.contract.battery import check_method

PRIOR = GaussianPrior(0.0, 0.1)
FEW = FastDiffusionEM(steps=3, kernel_px=3, turns=2, cg_iterations=3)


def random_images(n=2, size=8):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("boundary", ["reflect", "circular"])
def test_battery(boundary):
    observation = Observation(random_images(), FreeKernel(3, boundary=boundary), known_sigma=0.05)
    check_method(fast_diffusion_em, observation, PRIOR, FEW, calls=3, backward=3)


def test_calls():
    assert calls(FastDiffusionEM(steps=7)) == Calls(7, 7)
    assert calls(PAPER) == Calls(100, 100) and PAPER.kernel_px == 33


def test_the_kernel_is_fitted_to_the_image():
    """It is found where there is no noise, and stays a point where y says nothing about it."""
    x = random_images(1, 24)[0]
    true = FreeKernel(5, sigma=0.8).kernel().detach()
    y = convolve(x[None], true, "valid")[0]
    point = torch.zeros(1, 5, 5)
    point[0, 2, 2] = 1
    settings = FastDiffusionEM(kernel_px=5, sparsity=0.0)
    k = fitted(x, y, point, 0.001, settings)
    assert torch.allclose(k, true[0], atol=0.01)
    flat = fitted(torch.full_like(x, 0.5), torch.full_like(y, 0.5), point, 0.1, settings)
    assert torch.allclose(flat, point, atol=1e-3)


def test_small_values_are_removed():
    x = random_images(1, 24)[0]
    y = convolve(x[None], FreeKernel(5, sigma=0.6).kernel().detach(), "valid")[0]
    point = torch.zeros(1, 5, 5)
    point[0, 2, 2] = 1
    k = fitted(x, y, point, 0.001, FastDiffusionEM(kernel_px=5, sparsity=0.1))
    assert (k == 0).sum() >= 12 and k.min() >= 0 and abs(float(k.sum()) - 1) < 1e-5


def test_the_step_is_ancestral():
    x0, eps, noise = (torch.randn(1, 3, 4, 4) for _ in range(3))
    a_t, a_s = torch.tensor(0.4), torch.tensor(0.7)
    x_t = a_t.sqrt() * x0 + (1 - a_t).sqrt() * eps
    mean, variance = ddpm_posterior(x_t, x0, a_t, a_s)
    assert torch.allclose(
        ddim_noisy_step(x0, eps, a_t, a_s, noise, eta=1.0), mean + variance.sqrt() * noise
    )


def test_with_a_point_for_a_kernel_it_is_pigdm():
    """The prior of the kernel is so strong here that it stays a point."""
    y = random_images()
    settings = FastDiffusionEM(steps=5, kernel_px=3, turns=1, beta=1e12, cg_iterations=50)
    found = fast_diffusion_em(Observation(y, FreeKernel(3), known_sigma=0.05), PRIOR, settings)
    known = pigdm(Observation(y, GaussianBlur(1e-3, 3), known_sigma=0.05), PRIOR, PiGDM(steps=5))
    assert torch.allclose(found.images, known.images, atol=2e-3)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="known_sigma"):
        fast_diffusion_em(Observation(random_images(), FreeKernel(5)), PRIOR, FEW)
    with pytest.raises(OperatorError, match="FastDiffusionEM is for blur"):
        fast_diffusion_em(Observation(random_images(), Mask(drop=0.5)), PRIOR, FEW)
    for wrong in ({"steps": 0}, {"kernel_px": 4}, {"beta": 0.0}, {"sparsity": 2.0}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            FastDiffusionEM(**wrong)
