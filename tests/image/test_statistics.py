"""Statistics of damage, against independent answers and images made for them."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from pristina.errors import SizeError
from pristina.image import statistics


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.2])
def test_noise_level_is_found(sigma):
    y = torch.linspace(0, 1, 64).view(1, 1, 1, 64).expand(2, 3, 64, 64) + sigma * noise(
        2, 3, 64, 64
    )
    found = statistics.estimate_noise(y)
    torch.testing.assert_close(found, torch.full((2,), sigma), rtol=0.05, atol=0)


@pytest.mark.parametrize("size", [(2, 2), (7, 9), (64, 65)])
def test_noise_level_is_a_median(size):
    """Also of an even number of values, and of more than ``torch.quantile`` takes."""
    y = noise(2, 3, *size)
    height, width = (n // 2 * 2 for n in size)
    y = y[..., :height, :width]
    detail = (y[..., ::2, ::2] - y[..., ::2, 1::2] - y[..., 1::2, ::2] + y[..., 1::2, 1::2]) / 2
    right = np.median(detail.abs().flatten(2).numpy(), axis=2).mean(1) / 0.6745
    assert np.allclose(statistics.estimate_noise(y).numpy(), right, rtol=1e-5)


def test_large_images_have_a_noise_level_too():
    y = 0.1 * noise(1, 1, 2, 2**15).repeat(1, 1, 600, 1).view(1, 1, 1200, 2**15)
    assert abs(float(statistics.estimate_noise(y)) / 0.1 - 1) < 0.05


def test_sharpness_is_the_variance_of_the_laplacian():
    x = torch.rand(2, 3, 20, 17, generator=torch.Generator().manual_seed(0))
    luma = (
        (x.double() * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1).double()).sum(1).numpy()
    )
    right = [ndimage.laplace(image, mode="mirror").var(ddof=1) for image in luma]
    assert np.allclose(statistics.sharpness(x).numpy(), right, rtol=1e-4)
    grey = x[:, :1]
    assert np.allclose(
        statistics.sharpness(grey).numpy(),
        statistics.sharpness(grey.expand(-1, 3, -1, -1)).numpy(),
        rtol=1e-4,
    )


def test_blocks_are_seen():
    x = noise(1, 1, 128, 128)
    blocks = torch.nn.functional.interpolate(noise(1, 1, 16, 16), scale_factor=8)
    assert float(statistics.blockiness(blocks)) > 100
    with pytest.raises(SizeError, match="more than 8 px"):
        statistics.blockiness(x[..., :8])


@pytest.mark.parametrize("level", [0.02, 0.1])
def test_white_noise_is_told_from_noise_that_neighbours_share(level):
    """This holds beside texture, too, and for each image of a batch by itself."""
    x = np.linspace(0.2, 0.8, 160) + 0.15 * np.sin(np.arange(160) ** 2 / 9) * (np.arange(160) > 90)
    noise = np.random.default_rng(0).normal(size=(2, 3, 160, 160)) * level
    noise[1] = (noise[1] + np.roll(noise[1], 1, -1) + np.roll(noise[1], 1, -2)) / 3
    found = statistics.noise_coarseness(torch.from_numpy(x + noise).float())
    alone = statistics.noise_coarseness(torch.from_numpy(x + noise[1:]).float())
    assert abs(float(found[0]) - 1) < 0.1 and float(found[1]) > 1.3
    assert float(alone) == float(found[1])
