"""Operators against independent answers.

These are scipy's convolution, Pillow's JPEG and resizing, scikit-image's Radon transform and
closed forms.
"""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, signal
from skimage import data
from skimage.transform import iradon, radon
from torch import nn

from pristina.operators.blur import (
    AnisotropicBlur,
    Defocus,
    FreeKernel,
    GaussianBlur,
    KernelBlur,
    VaryingBlur,
)
from pristina.operators.convolve import centre, convolve, normalise
from pristina.operators.jpeg import JPEG, estimate_quality
from pristina.operators.kernels import (
    gaussian_kernel,
    line_kernel,
    motion_kernel,
    spread,
    tilt_to_centre,
)
from pristina.operators.noise import Noise
from pristina.operators.radon import Radon
from pristina.operators.recipe import Recipe
from pristina.operators.resample import Downsample
from pristina.operators.tone import Gamma, Haze
from pristina.operators.warp import Elastic, warp
from pristina.seeds import generators
from pristina.types import Draw

torch.set_num_threads(1)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def face() -> torch.Tensor:
    """A natural picture, (1, 3, 128, 128)."""
    return (
        torch.from_numpy(data.astronaut()[40:168, 160:288].copy()).float().permute(2, 0, 1)[None]
        / 255
    )


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10 * math.log10(float((a - b).detach().square().mean()))


@pytest.mark.parametrize("size", [(3, 3), (5, 9), (15, 13)])
@pytest.mark.parametrize(
    ("boundary", "mode"), [("reflect", "mirror"), ("circular", "wrap"), ("zero", "constant")]
)
def test_convolution_is_scipys(size: tuple[int, int], boundary: str, mode: str) -> None:
    x, kernels = random(2, 3, 17, 20), random(2, 1, *size, seed=1)
    y = convolve(x, kernels, boundary)
    for i in range(2):
        for c in range(3):
            expected = ndimage.convolve(x[i, c].numpy(), kernels[i, 0].numpy(), mode=mode)
            np.testing.assert_allclose(y[i, c].numpy(), expected, atol=1e-10)
    shared = convolve(x, kernels[:1], boundary)
    torch.testing.assert_close(shared[0], y[0])


def test_valid_convolution_is_scipys() -> None:
    x, kernel = random(1, 1, 17, 20), random(1, 1, 7, 5, seed=1)
    expected = signal.convolve2d(x[0, 0], kernel[0, 0], mode="valid")
    np.testing.assert_allclose(convolve(x, kernel, "valid")[0, 0], expected, atol=1e-10)


def test_a_kernel_longer_than_the_period_wraps() -> None:
    x, kernel = random(1, 1, 8, 9), random(1, 1, 13, 11, seed=1)
    expected = ndimage.convolve(x[0, 0].numpy(), kernel[0, 0].numpy(), mode="wrap")
    np.testing.assert_allclose(convolve(x, kernel, "circular")[0, 0], expected, atol=1e-10)


def test_centring_a_kernel_moves_the_picture_the_other_way() -> None:
    kernel = torch.zeros(2, 1, 11, 11, dtype=torch.float64)
    kernel[0, 0, 7:10, 2:5] = random(3, 3) + 0.5
    kernel[1, 0, 1:2, 5:8] = random(1, 3) + 0.5
    centred, shift = centre(normalise(kernel))
    assert shift.tolist() == [[3, -2], [-4, 1]]
    x = random(2, 3, 16, 16)
    for i in range(2):
        moved = x[i : i + 1].roll(tuple(shift[i].tolist()), (-2, -1))
        expected = convolve(x[i : i + 1], normalise(kernel)[i : i + 1], "circular")
        torch.testing.assert_close(convolve(moved, centred[i : i + 1], "circular"), expected)


def test_gaussian_kernels_have_the_stated_moments() -> None:
    torch.testing.assert_close(
        spread(GaussianBlur(2.5).kernel()), torch.tensor([2.5]), atol=1e-3, rtol=0
    )
    kernel = AnisotropicBlur(3, 1, angle=30).kernel()[0, 0].detach().double()
    axis = torch.arange(41.0, dtype=torch.float64) - 20
    xx, yy, xy = (
        float((kernel * m).sum())
        for m in (axis.square(), axis[:, None].square(), axis * axis[:, None])
    )
    turn = math.radians(30)  # the covariance of a Gaussian turned from x towards y
    assert xx == pytest.approx(9 * math.cos(turn) ** 2 + math.sin(turn) ** 2, rel=1e-3)
    assert yy == pytest.approx(9 * math.sin(turn) ** 2 + math.cos(turn) ** 2, rel=1e-3)
    assert xy == pytest.approx(8 * math.sin(turn) * math.cos(turn), rel=1e-3)
    x = random(1, 1, 24, 24)
    expected = ndimage.gaussian_filter(x[0, 0].numpy(), 1.5, mode="mirror", radius=10)
    np.testing.assert_allclose(
        GaussianBlur(1.5, 21).double()(x)[0, 0].detach(), expected, atol=1e-6
    )


def test_discs_strokes_and_motion() -> None:
    # A disc of radius r has a spread of r / 2 along each axis, a stroke of length l l / sqrt(12).
    torch.testing.assert_close(
        spread(Defocus(8.0).kernel()), torch.tensor([4.0]), atol=0.05, rtol=0
    )
    stroke = line_kernel(41, 30.0, 0.0)
    torch.testing.assert_close(
        2**0.5 * spread(stroke), torch.tensor([30 / 12**0.5]), atol=0.15, rtol=0
    )
    assert float(stroke[0, 0, 18:23].sum()) > 0.999
    straight = torch.cat(
        [motion_kernel(41, 0.0, torch.Generator().manual_seed(s)) for s in range(12)]
    )
    erratic = torch.cat(
        [motion_kernel(41, 1.0, torch.Generator().manual_seed(s)) for s in range(12)]
    )
    assert roundness(straight).median() < 0.02 < roundness(erratic).median()


def roundness(kernel: torch.Tensor) -> torch.Tensor:
    """The smaller over the larger variance of each kernel, the pen's own taken away."""
    axis = torch.arange(kernel.shape[-1], dtype=kernel.dtype) - kernel.shape[-1] // 2
    xx, yy = (
        (kernel * axis.square()).sum((1, 2, 3)) - 0.25,
        (kernel * axis[:, None].square()).sum((1, 2, 3)) - 0.25,
    )
    xy = (kernel * axis * axis[:, None]).sum((1, 2, 3))
    root = ((xx - yy).square() + 4 * xy.square()).sqrt()
    return ((xx + yy - root) / (xx + yy + root)).clamp_min(0)


def test_the_kernel_network_is_two_linear_layers_and_a_softmax() -> None:
    operator = FreeKernel(9, "network", seed=4)
    layers = nn.Sequential(nn.Linear(200, 1000), nn.ReLU6(), nn.Linear(1000, 81))
    assert sum(p.numel() for p in FreeKernel(41, "network").parameters()) == 1_883_681
    with torch.no_grad():
        for p, own in zip(
            layers.parameters(),
            (operator.weight1, operator.bias1, operator.weight2, operator.bias2),
            strict=True,
        ):
            assert p.shape == own.shape[1:]
            assert own.abs().max() <= 1 / math.sqrt(200 if own.shape[1] == 1000 else 1000)
            p.copy_(own[0])
    u = operator.get_buffer("u")
    assert u.shape == (1, 200) and u.min() >= 0 and 0.09 < u.max() < 0.1
    torch.testing.assert_close(operator.kernel().flatten(), layers(u).softmax(1).flatten())
    assert float(operator.kernel().detach().max() * 81) < 2  # nearly flat


def narrow_kernels() -> torch.Tensor:
    """A stroke, a point and a trace, all centred, (3, 1, 13, 13)."""
    stroke, point = torch.zeros(2, 1, 1, 13, 13)
    stroke[..., 6, 5:8], point[..., 6, 6] = 1 / 3, 1
    return torch.cat([stroke, point, motion_kernel(13, 0.5, torch.Generator().manual_seed(4))])


def centre_of_mass(kernel: torch.Tensor) -> torch.Tensor:
    axis = torch.arange(float(kernel.shape[-1])) - kernel.shape[-1] // 2
    return torch.stack([kernel.sum(-1) @ axis, kernel.sum(-2) @ axis])


@pytest.mark.parametrize("shift", [(0, 1), (0, -2), (2, -2)])
def test_kernels_that_are_far_off_are_centred_and_keep_their_shape(shift: tuple[int, int]) -> None:
    operator = FreeKernel(13, start=narrow_kernels().roll(shift, (-2, -1)))
    for _ in range(6):
        operator.project()
        found = operator.kernel().detach()
        assert max(float(centre_of_mass(k[0]).abs().max()) for k in found) < 0.1
        assert float((found - narrow_kernels()).abs().sum((1, 2, 3)).max()) < 0.02  # of 2 at most


def test_kernels_that_are_near_are_not_moved_by_whole_pixels() -> None:
    kernel = gaussian_kernel(13, 1.6)
    tilted = (kernel.log() + 0.03 * torch.arange(13.0)).flatten(1)
    tilt_to_centre(tilted, 13)
    assert centre_of_mass(tilted.softmax(1).view(13, 13)).abs().max() < 0.01
    torch.testing.assert_close(tilted.softmax(1).view(kernel.shape), kernel, atol=1e-3, rtol=0)


def test_an_unknown_anti_alias_kernel_stays_in_place() -> None:
    for factor in (2, 3):
        operator = Downsample(factor, "kernel")
        with torch.no_grad():
            operator.blur.logits.copy_(
                operator.blur.logits.view(operator.kernel().shape)
                .roll((2, -1), (-2, -1))
                .flatten(1)
            )
        for _ in range(3):
            operator.project()
        torch.testing.assert_close(
            centre_of_mass(operator.kernel()[0, 0].detach()),
            torch.full((2,), 0.5 * (factor == 2)),
            atol=1e-3,
            rtol=0,
        )


def test_a_kernel_grows_where_its_start_is_zero() -> None:
    x = face()[..., 40:56, 40:56]
    y = GaussianBlur(1.0, 7)(x).detach()
    point = torch.zeros(1, 1, 7, 7)
    point[..., 3, 3] = 1
    operator = FreeKernel(7, start=point)
    optimizer = torch.optim.Adam(operator.parameters(), lr=0.1)
    for _ in range(120):
        optimizer.zero_grad()
        (operator(x) - y).square().mean().backward()
        optimizer.step()
    assert float(spread(operator.kernel())) > 0.7


def test_a_varying_blur_of_equal_kernels_is_a_blur() -> None:
    kernel = motion_kernel(9, 0.5, torch.Generator().manual_seed(0))
    x = random(1, 3, 20, 24).float()
    varying = VaryingBlur(kernel.expand(3, 2, 9, 9))
    torch.testing.assert_close(varying(x), KernelBlur(kernel)(x), atol=1e-5, rtol=0)
    points = torch.zeros(2, 2, 9, 9)
    points[..., 4, 4] = 1
    points[0, 0] = kernel[0, 0]
    corner = VaryingBlur(points)(x)
    torch.testing.assert_close(corner[..., -1, -1], x[..., -1, -1], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        corner[..., 0, 0], KernelBlur(kernel)(x)[..., 0, 0], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("how", "method"), [("area", Image.Resampling.BOX), ("bicubic", Image.Resampling.BICUBIC)]
)
def test_reduction_is_pillows(how: str, method: Image.Resampling) -> None:
    x = random(1, 1, 24, 36).float()
    small = Image.fromarray(x[0, 0].numpy()).resize((9, 6), method)
    np.testing.assert_allclose(Downsample(4, how)(x)[0, 0], np.asarray(small), atol=2e-6)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_the_unknown_anti_alias_kernel_starts_in_place(factor: int) -> None:
    side = 12 * factor
    ramp = torch.linspace(0, 1, side).expand(1, 1, side, side)
    y, mean = Downsample(factor, "kernel")(ramp), Downsample(factor, "area")(ramp)
    torch.testing.assert_close(y[..., 4:-4, 4:-4], mean[..., 4:-4, 4:-4], atol=5e-5, rtol=0)


@pytest.mark.parametrize("quality", [5, 10, 20, 50, 75, 90, 95, 100])
@pytest.mark.parametrize("subsample", [True, False])
def test_jpeg_is_pillows(quality: int, subsample: bool) -> None:
    x = face()[..., :120, :125]  # not a whole number of blocks
    operator = JPEG(quality, subsample=subsample)
    coded = operator.degrade(x, Draw(None, 1))
    assert (
        psnr(operator(x), coded) > 40
    )  # 41.2 dB at least when written; the damage itself is 20 to 40 dB
    assert psnr(operator(x), coded) > psnr(x, coded) + 3 or quality == 100
    assert psnr(JPEG(quality, subsample=subsample, rounding="soft")(x), coded) > 37


@pytest.mark.parametrize(("given", "applied"), [(100, 100), (20.4, 20), (1, 1)])
def test_the_recorded_quality_is_the_applied_one(given: float, applied: int) -> None:
    assert JPEG(given).estimates()["quality"] == applied
    nearest = JPEG(applied).degrade(face(), Draw(None, 1))
    assert torch.equal(JPEG(given).degrade(face(), Draw(None, 1)), nearest)


def test_jpeg_of_grey() -> None:
    x = face().mean(1, keepdim=True)
    operator = JPEG(15)
    assert psnr(operator(x), operator.degrade(x, Draw(None, 1))) > 41


def test_the_quality_is_read_off_the_picture() -> None:
    truth = [5, 10, 20, 35, 50, 60, 75, 85, 90]
    coded = torch.cat(
        [JPEG(q, subsample=bool(q % 2)).degrade(face(), Draw(None, 1)) for q in truth]
    )
    assert (estimate_quality(coded) - torch.tensor(truth)).abs().max() <= 1
    assert (
        estimate_quality(
            face() * 0.9
            + 0.01 * torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
        )
        >= 90
    )


def test_jpeg_tables_are_libjpegs() -> None:
    import io

    for quality in (1, 10, 30, 49, 50, 51, 77, 100):
        file = io.BytesIO()
        Image.new("RGB", (16, 16)).save(file, "JPEG", quality=quality)
        tables = Image.open(file).quantization
        for ours, theirs in zip(JPEG(quality).quantisation(), (tables[0], tables[1]), strict=True):
            assert ours.flatten().tolist() == list(theirs), quality


def test_unknown_numbers_are_found_by_descent() -> None:
    x = face()[..., 40:80, 40:80]
    for truth, start in [
        (GaussianBlur(2.5, 21), GaussianBlur(1.0, 21)),
        (Defocus(4.0, 13), Defocus(2.0, 13)),
        (Gamma(1.8), Gamma(1.0)),
        (Haze(0.4, 0.9), Haze(0.7, 0.6)),
    ]:
        y = truth(x).detach()
        optimizer = torch.optim.Adam(start.parameters(), lr=0.05)
        for _ in range(500 if isinstance(truth, Haze) else 100):
            optimizer.zero_grad()
            (start(x) - y).square().mean().backward()
            optimizer.step()
        expected, found = (
            [torch.as_tensor(v) for v in o.estimates().values() if v != "reflect"]
            for o in (truth, start)
        )
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0.02, atol=0)


def test_noise_is_as_strong_as_it_says() -> None:
    x = torch.full((1, 3, 96, 96), 0.4)
    for recipe in ("noise:sigma=0.1", "poisson:peak=40", "speckle:lam=0.4,sigma=0.5"):
        operator = Recipe.parse(recipe).build()
        assert isinstance(operator, Noise)
        error = operator.degrade(x, Draw(generators(0, 1), 1)) - x
        assert float(error.mean()) == pytest.approx(0, abs=4e-3)
        assert float(error.var() / operator.variance(x).mean()) == pytest.approx(1, abs=0.04)
        assert torch.equal(operator(x), x)


def test_elastic_deformation_moves_by_its_displacement() -> None:
    x = random(1, 1, 16, 16)
    whole = torch.tensor([3.0, -2.0], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 16, 16)
    torch.testing.assert_close(warp(x, whole)[..., 2:, :-3], x[..., :-2, 3:])
    operator = Elastic(2.0, 8.0, 256)
    assert float(operator.rms_px()) == pytest.approx(2.0, rel=0.05)
    d = operator.displacement(64, 64).detach()
    ramp = torch.arange(64.0).expand(1, 1, 64, 64)
    torch.testing.assert_close(
        warp(ramp, d)[0, 0, :, 12:-12], (ramp + d[:, :1])[0, 0, :, 12:-12], atol=1e-3, rtol=0
    )
    assert (
        float((d[..., 1:] - d[..., :-1]).abs().max()) < 2
    )  # smooth: far less than the displacement from pixel to pixel


def test_projections_are_scikit_images() -> None:
    side, n_angles = 33, 12
    inside = (
        torch.hypot(*torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")) < 0.95
    ).double()
    x = random(1, 1, side, side) * inside
    operator = Radon(n_angles, side)
    angles = np.arange(n_angles) * 180 / n_angles
    expected = radon(x[0, 0].numpy(), angles, circle=True)
    np.testing.assert_allclose(side * operator(x)[0, 0], expected, atol=1e-9)


@pytest.mark.parametrize("n_angles", [15, 90])
def test_filtered_back_projection_is_as_good_as_scikit_images(n_angles: int) -> None:
    side = 65
    distance = torch.hypot(*torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij"))
    x = (0.8 * (0.7 - distance).mul(20).sigmoid() - 0.4 * (0.3 - distance).mul(20).sigmoid())[
        None, None
    ]
    operator = Radon(n_angles, side)
    y = operator(x)
    angles = np.arange(n_angles) * 180 / n_angles
    theirs = (
        torch.from_numpy(iradon(side * y[0, 0].numpy(), angles, circle=True))[None, None]
        .float()
        .clamp(0, 1)
    )
    inside = distance < 0.98
    assert psnr(operator.initial(y)[..., inside], x[..., inside]) > max(
        25.0, psnr(theirs[..., inside], x[..., inside]) - 0.1
    )


def test_a_gaussian_kernel_is_a_function_of_tensors() -> None:
    both = gaussian_kernel(9, torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(both[1:], gaussian_kernel(9, 2.0))
    assert both.shape == (2, 1, 9, 9)


def test_speckle_is_clipped_where_birds_released_tasks_clip_it() -> None:
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    free, clipped = (
        Recipe.parse(word).build().degrade(x, Draw(generators(0, 2), 2))
        for word in ("speckle:lam=0.4,sigma=0.15", "speckle:lam=0.4,sigma=0.15,clip=yes")
    )
    assert free.min() < 0 and free.max() > 1
    assert torch.equal(clipped, free.clamp(0, 1))
