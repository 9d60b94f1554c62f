import pytest
import torch

from pristina.errors import InputError, OperatorError, SettingError
from pristina.methods.ddrm import DDRM, ddrm
from pristina.operators.base import Compose, Observation, Operator
from pristina.operators.blur import GaussianBlur, KernelBlur
from pristina.operators.kernels import motion_kernel
from pristina.operators.mask import Mask
from pristina.operators.noise import GaussianNoise
from pristina.operators.resample import Downsample
from pristina.operators.spectral import BlurSpectrum, spectrum
from pristina.priors.gaussian import GaussianPrior
from tests.contract.battery import check_method

PRIOR = GaussianPrior(0.0, 0.1)


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("operator", "side"),
    [
        (None, 8),
        (Mask(box=2), 8),
        (Downsample(2), 4),
        (GaussianBlur(1.0, size=5), 8),
        (Compose([GaussianBlur(1.0, size=5, boundary="valid"), GaussianNoise(0.05)]), 8),
    ],
)
def test_battery(operator, side):
    observation = Observation(random(2, 3, side, side), operator, known_sigma=0.05)
    check_method(ddrm, observation, PRIOR, DDRM(steps=4), calls=4, tolerance=0.0)


KERNEL = motion_kernel(5, 0.5, torch.Generator().manual_seed(1))
SPECTRA = [
    Mask(drop=0.5),
    Downsample(2),
    KernelBlur(KERNEL, "circular"),
    KernelBlur(KERNEL),
    KernelBlur(KERNEL, "zero"),
    KernelBlur(KERNEL, "valid"),
]


@pytest.mark.parametrize(
    "operator", SPECTRA, ids=lambda o: f"{o.name} {getattr(o, 'boundary', '')}"
)
def test_decomposition_is_one(operator):
    space = spectrum(operator, 8, 12)
    canvas = random(2, *space.shape(torch.empty(2, 3, 8, 12)))
    x_bar = space.coefficients(canvas)
    assert torch.allclose(space.canvas(x_bar), canvas, atol=1e-6)  # V is orthogonal
    if isinstance(space, BlurSpectrum):
        assert torch.allclose(space.observed(space.blur(canvas)), space.s * x_bar, atol=1e-5)
    else:
        assert torch.allclose(x_bar.norm(), canvas.norm(), rtol=1e-5)
        assert torch.allclose(space.observed(operator(canvas)), space.s * x_bar, atol=1e-6)


@pytest.mark.parametrize("boundary", ["reflect", "zero", "valid", "circular"])
def test_the_filled_canvas_of_the_true_image_is_a_circular_convolution(boundary):
    """A border filled in with the true image and kernel makes the observation circular, exactly."""
    operator = KernelBlur(KERNEL, boundary)
    space = spectrum(operator, 8, 12)
    x = 2 * random(2, 3, 8, 12) - 1
    y = 2 * operator((x + 1) / 2) - 1
    circular = space.blur(space.extend(x))
    none = torch.zeros(2, 1, 1, 1)
    filled, sigma = space.fill(y, x, none, torch.zeros_like(circular))
    assert torch.allclose(filled, circular, atol=1e-5) and sigma.max() < 1e-5
    if boundary != "circular":
        # Another estimate changes the border and nothing else, and is less certain.
        other, sigma = space.fill(y, -x, none, torch.zeros_like(circular))
        assert torch.equal(other[..., 2:-2, 2:-2], y)
        assert not torch.allclose(other, circular, atol=1e-2)
        assert (sigma > 0.1).all()


def test_without_noise_what_was_seen_stays():
    x, hole = random(2, 3, 8, 8), Mask(drop=0.4)
    result = ddrm(Observation(hole(x), hole, known_sigma=0.0), PRIOR, DDRM(steps=5))
    kept = hole.mask(8, 8).expand(2, 3, -1, -1) == 1
    assert torch.allclose(result.images[kept], x[kept], atol=1e-5)
    small = Downsample(2)
    result = ddrm(
        Observation(small(0.3 + 0.4 * x), small, known_sigma=0.0),
        GaussianPrior(0.0, 0.001),
        DDRM(steps=5),
    )
    assert torch.allclose(small(result.images), small(0.3 + 0.4 * x), atol=1e-3)


def test_the_true_operator_helps():
    """A sample drawn with the blur known is nearer the truth than one drawn for noise alone."""
    f = torch.fft.fftfreq(16)
    variance = (f[:, None] ** 2 + f[None] ** 2 + 0.01) ** -1.5
    prior = GaussianPrior(0.0, 0.05 * variance / variance.mean(), spectral=True)
    z = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x = (prior.sample(z) + 1) / 2
    for boundary in ("circular", "reflect"):
        blur = GaussianBlur(1.0, size=7, boundary=boundary)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        y = blur(x).detach() + 0.01 * noise
        known, ignored = (
            ddrm(Observation(y, o, known_sigma=0.01), prior).images for o in (blur, None)
        )
        assert (known - x).square().mean() < 0.85 * (ignored - x).square().mean()


def test_refusals():
    y = random(1, 3, 8, 8)
    with pytest.raises(InputError, match="known_sigma"):
        ddrm(Observation(y), PRIOR)
    both = Compose([Mask(box=2), GaussianBlur(1.0, size=5)])
    for operator in (Downsample(2, how="bicubic"), both):
        with pytest.raises(OperatorError, match="singular value"):
            ddrm(Observation(y, operator, known_sigma=0.1), PRIOR)
    for wrong in ({"steps": 0}, {"eta": 2.0}, {"eta_b": -1.0}, {"threshold": -0.1}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            DDRM(**wrong)
    assert spectrum(Compose([Operator(), GaussianNoise(0.1)]), 4, 4).s.item() == 1
