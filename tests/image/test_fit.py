import pytest
import torch

from pristina.errors import SizeError
from pristina.image.fit import fit, pad_to_multiple
from pristina.image.noise_level import estimate_sigma


@pytest.mark.parametrize("size", [(1, 1), (5, 33), (16, 16), (40, 17)])
def test_padding_and_back(size):
    x = torch.rand(2, 3, *size)
    if size == (1, 1):
        with pytest.raises(SizeError, match="too small"):
            pad_to_multiple(x, 16, 32)
        return
    fitted, back, _ = fit(x, multiple=16, minimum=32, native=None, fixed=False)
    assert fitted.shape[-1] % 16 == 0 and fitted.shape[-2] % 16 == 0 and min(fitted.shape[-2:]) >= 32
    assert torch.equal(back(fitted), x)


def test_a_prior_of_one_size():
    x = torch.rand(1, 3, 100, 104)
    fitted, back, note = fit(x, multiple=16, minimum=16, native=64, fixed=True)
    assert fitted.shape == (1, 3, 64, 64) and back(fitted).shape == x.shape and "64 x 64" in note
    with pytest.raises(SizeError, match="far from square"):
        fit(torch.rand(1, 3, 64, 128), multiple=16, minimum=16, native=64, fixed=True)


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.2])
def test_noise_level_is_found(sigma):
    ramp = torch.linspace(0, 1, 64).view(1, 1, 1, 64).expand(2, 3, 64, 64)
    y = ramp + sigma * torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(estimate_sigma(y), torch.full((2,), sigma), rtol=0.05, atol=0)
