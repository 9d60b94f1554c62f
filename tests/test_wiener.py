"""Wiener solutions."""

import pytest
import torch

from pristina.operators.convolve import convolve
from pristina.operators.kernels import motion_kernel
from pristina.operators.wiener import wiener

KERNEL = motion_kernel(9, 0.5, torch.Generator().manual_seed(4))


def smooth(height=60, width=50):
    x = torch.rand(1, 3, height // 5, width // 5, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(x, size=(height, width), mode="bicubic")


def test_a_circular_blur_without_noise_is_undone():
    x = smooth()
    y = convolve(x, KERNEL, "circular")
    solved = wiener(y, KERNEL, torch.zeros(1), "circular")
    assert solved.shape == (1, 3, *x.shape[1:])
    error = (solved - x[:, None]).square().mean((0, 2, 3, 4))
    assert error[0] < error[1] < error[2] < 0.1 * (y - x).square().mean()


def test_the_border_is_unknown_and_filling_it_helps():
    x = smooth()
    y = convolve(x, KERNEL, "valid")
    errors = []
    for rounds in (0, 3, 30):
        solved = wiener(y, KERNEL, torch.zeros(1), rounds=rounds)
        assert solved.shape[-2:] == x.shape[-2:]
        errors.append(float((solved[:, 1] - x).square()[..., 4:-4, 4:-4].mean()))
    assert errors[0] > 1.1 * errors[1] > 1.1 * errors[2]
    # The rule beyond the border is not used.
    zero = wiener(y, KERNEL, torch.zeros(1), "zero")
    assert torch.equal(zero, wiener(y, KERNEL, torch.zeros(1), "valid"))


def test_more_noise_is_smoothed_more():
    y = smooth() + 0.1 * torch.randn(1, 3, 60, 50, generator=torch.Generator().manual_seed(1))
    rough, fine = (wiener(y, KERNEL, torch.tensor([s]))[0, 1] for s in (0.01, 0.2))
    assert fine.diff(dim=-1).abs().mean() < 0.5 * rough.diff(dim=-1).abs().mean()


@pytest.mark.parametrize("boundary", ["reflect", "circular"])
def test_images_of_a_batch_do_not_mix(boundary):
    y = torch.rand(2, 1, 20, 24, generator=torch.Generator().manual_seed(0))
    kernels = torch.cat([KERNEL, KERNEL.flip(-1)])
    sigma = torch.tensor([0.01, 0.1])
    both = wiener(y, kernels, sigma, boundary)
    for i in range(2):
        one = slice(i, i + 1)
        alone = wiener(y[one], kernels[one], sigma[one], boundary)
        assert torch.allclose(both[one], alone, atol=1e-4)
