import sys
import types

import numpy as np
import pytest
import torch
from scipy import signal
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from pristina.errors import InputError, MissingExtra, SizeError
from pristina.image.statistics import blockiness, estimate_noise, sharpness
from pristina.metrics import METRICS, measure, measure_kernels, perceptual
from pristina.metrics.fidelity import gmsd, haarpsi, psnr, psnr_after_shift, ssim
from pristina.metrics.kernels import kernel_correlation, kernel_error


@pytest.fixture(scope="module")
def pair():
    """Two pictures of odd and even sides, each in two damaged states."""
    truth = (
        torch.from_numpy(data.astronaut()[100:147, 180:230].copy()).permute(2, 0, 1).float()[None]
        / 255
    )
    random = torch.Generator().manual_seed(0)
    noisy = (truth + 0.1 * torch.randn(truth.shape, generator=random)).clamp(0, 1)
    blurred = torch.nn.functional.avg_pool2d(truth, 5, 1, 2, count_include_pad=False)
    return torch.cat([noisy, blurred]), truth.repeat(2, 1, 1, 1)


def as_array(x):
    return x.permute(1, 2, 0).double().numpy()


def test_psnr_is_that_of_scikit_image(pair):
    expected = [
        peak_signal_noise_ratio(as_array(t), as_array(r), data_range=1)
        for r, t in zip(*pair, strict=True)
    ]
    assert psnr(*pair).tolist() == pytest.approx(expected, abs=1e-4)
    assert psnr(pair[1], pair[1]).tolist() == [100, 100]


def test_ssim_is_that_of_scikit_image_and_torchmetrics(pair):
    settings = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 1,
        "channel_axis": -1,
    }
    expected = [
        structural_similarity(as_array(t), as_array(r), **settings)
        for r, t in zip(*pair, strict=True)
    ]
    assert ssim(*pair).tolist() == pytest.approx(expected, abs=1e-6)
    _, map_ = structural_similarity_index_measure(
        *pair, data_range=1.0, reduction="none", return_full_image=True
    )
    whole = map_[..., 5:-5, 5:-5].mean((1, 2, 3))  # the windows that lie within the picture
    assert ssim(*pair).tolist() == pytest.approx(
        whole.tolist(), abs=1e-4
    )  # torchmetrics works in float32
    with pytest.raises(SizeError, match="11 x 11"):
        ssim(torch.zeros(1, 3, 10, 20), torch.zeros(1, 3, 10, 20))


def convolved(x, kernel):
    """Full convolution cut to the size of ``x`` from the kernel's middle (the later one) on."""
    full = signal.convolve2d(x, kernel)
    top, left = kernel.shape[0] // 2, kernel.shape[1] // 2
    return full[top : top + x.shape[0], left : left + x.shape[1]]


def halved(x):
    return convolved(x, np.full((2, 2), 0.25))[::2, ::2]


def plain_haarpsi(a, b):
    """The definition, pixel array by pixel array, for RGB in 0 to 255."""

    def yiq(p):
        r, g, b = p[..., 0], p[..., 1], p[..., 2]
        planes = (
            0.299 * r + 0.587 * g + 0.114 * b,
            0.596 * r - 0.274 * g - 0.322 * b,
            0.211 * r - 0.523 * g + 0.312 * b,
        )
        return [halved(v) for v in planes]

    def wave(x, j, transposed):
        filters = np.ones((2**j, 2**j)) / 2**j
        filters[: 2**j // 2] *= -1
        return np.abs(convolved(x, filters.T if transposed else filters))

    a, b = yiq(a), yiq(b)
    top = bottom = 0.0
    coarse = []
    for transposed in (False, True):
        local = 0
        for j in (1, 2):
            u, v = wave(a[0], j, transposed), wave(b[0], j, transposed)
            local = local + (2 * u * v + 30) / (u**2 + v**2 + 30) / 2
        weight = np.maximum(wave(a[0], 3, transposed), wave(b[0], 3, transposed))
        coarse.append(weight)
        top, bottom = top + (weight / (1 + np.exp(-4.2 * local))).sum(), bottom + weight.sum()
    local = 0
    for k in (1, 2):
        u, v = (np.abs(convolved(p[k], np.full((2, 2), 0.25))) for p in (a, b))
        local = local + (2 * u * v + 30) / (u**2 + v**2 + 30) / 2
    weight = (coarse[0] + coarse[1]) / 2
    share = (top + (weight / (1 + np.exp(-4.2 * local))).sum()) / (bottom + weight.sum())
    return (np.log(share / (1 - share)) / 4.2) ** 2


def test_haarpsi_is_the_plain_definition(pair):
    expected = [
        plain_haarpsi(255 * as_array(r), 255 * as_array(t)) for r, t in zip(*pair, strict=True)
    ]
    assert haarpsi(*pair).tolist() == pytest.approx(expected, abs=1e-6)
    assert 0.1 < expected[0] < 0.9  # far from both ends
    assert haarpsi(pair[1], pair[1]).tolist() == pytest.approx([1, 1], abs=1e-6)
    flat = torch.full((1, 3, 16, 16), 0.5)
    assert haarpsi(0 * flat, 0 * flat).item() == pytest.approx(1, abs=1e-6)


def test_haarpsi_of_grey_is_its_luminance_part(pair):
    grey = [x[:, :1] for x in pair]
    assert haarpsi(*grey)[0] != haarpsi(*pair)[0]
    assert (haarpsi(*grey) > 0).all() and (haarpsi(*grey) < 1).all()


def plain_gmsd(a, b):
    luma = [halved(x @ np.array([0.299, 0.587, 0.114])) for x in (a, b)]
    kernel = np.array([[1, 0, -1]] * 3) / 3
    u, v = (np.hypot(convolved(x, kernel), convolved(x, kernel.T)) for x in luma)
    return ((2 * u * v + 170) / (u**2 + v**2 + 170)).std(ddof=1)


def test_gmsd_is_the_plain_definition(pair):
    expected = [
        plain_gmsd(255 * as_array(r), 255 * as_array(t)) for r, t in zip(*pair, strict=True)
    ]
    assert gmsd(*pair).tolist() == pytest.approx(expected, abs=1e-6)
    assert min(expected) > 0.05
    assert gmsd(pair[1], pair[1]).tolist() == pytest.approx([0, 0], abs=1e-7)


@pytest.mark.parametrize("metric", [psnr, ssim, haarpsi, gmsd, psnr_after_shift])
def test_pictures_are_judged_one_by_one(pair, metric):
    alone = metric(pair[0][1:], pair[1][1:])
    assert metric(*pair)[1:].tolist() == pytest.approx(alone.tolist(), abs=1e-6)
    with pytest.raises(InputError, match="50 x 47 px does not go with 49 x 47 px"):
        metric(pair[0], pair[1][..., :-1])
    with pytest.raises(InputError, match="of as many pictures"):
        metric(pair[0], pair[1][:1])


def test_psnr_after_shift_forgives_a_shift_and_nothing_else(pair):
    noisy, truth = pair[0][:1], pair[1][:1]
    shifted = noisy.roll((3, -2), (2, 3))
    assert psnr(shifted, truth) < psnr(noisy, truth) - 3
    inner = psnr(noisy[..., 8:-8, 8:-8], truth[..., 8:-8, 8:-8]).item()
    assert psnr_after_shift(noisy, truth).item() == pytest.approx(inner, abs=1e-4)
    assert psnr_after_shift(shifted, truth).item() == pytest.approx(inner, abs=0.3)
    assert psnr_after_shift(shifted, truth, max_shift=1).item() < inner - 2
    with pytest.raises(SizeError, match="more than 48 px a side, not 50 x 47"):
        psnr_after_shift(noisy, truth, max_shift=24)


def test_kernel_metrics_against_a_search_over_shifts():
    random = np.random.default_rng(0)
    a, b = random.random((5, 7)), random.random((9, 9))
    a, b = a / a.sum(), b / b.sum()
    overlaps = signal.correlate2d(b, a)
    expected = overlaps.max() / (np.linalg.norm(a) * np.linalg.norm(b))
    found = kernel_correlation(torch.tensor(a)[None], torch.tensor(3 * b)[None])
    assert found.item() == pytest.approx(expected, abs=1e-6)

    wide = np.pad(b, 10)
    distances = [
        np.linalg.norm(np.pad(a, ((i, 24 - i), (j, 22 - j))) - wide) / np.linalg.norm(b)
        for i in range(25)
        for j in range(23)
    ]
    assert kernel_error(torch.tensor(2 * a)[None], torch.tensor(b)[None]).item() == pytest.approx(
        min(distances), abs=1e-6
    )
    with pytest.raises(InputError, match="not all zero"):
        kernel_error(torch.zeros(1, 3, 3), torch.ones(1, 3, 3))
    with pytest.raises(InputError, match="do not go with"):
        kernel_correlation(torch.ones(2, 3, 3), torch.ones(1, 3, 3))


def test_no_reference_metrics_see_what_they_are_named_after(pair):
    from io import BytesIO

    from PIL import Image

    truth = (
        torch.from_numpy(data.astronaut()[:256, 128:384].copy()).permute(2, 0, 1).float()[None]
        / 255
    )
    file = BytesIO()
    Image.fromarray((as_array(truth[0]) * 255).round().astype(np.uint8)).save(
        file, "JPEG", quality=10
    )
    blocky = (
        torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1).float()[None] / 255
    )
    noisy = truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(truth, 5, 1, 2)
    assert blockiness(truth).item() == pytest.approx(1, abs=0.05)
    assert blockiness(blocky) > 1.5
    assert blockiness(blocky[..., 4:, 4:]) < 1  # off the grid
    assert estimate_noise(noisy).item() == pytest.approx(0.1, rel=0.1)
    assert sharpness(blurred) < sharpness(truth) / 4
    for height, width in ((1, 1), (256, 8)):
        with pytest.raises(SizeError, match=f"more than 8 px a side, not {width} x {height}"):
            measure(truth[..., :height, :width])


def test_lpips_and_fid_name_what_is_missing(monkeypatch, tmp_path):
    x = torch.rand(2, 3, 16, 16)
    for module in ("lpips", "torch_fidelity"):
        monkeypatch.setitem(sys.modules, module, None)  # as if not installed
    perceptual._lpips_network.cache_clear()
    with pytest.raises(MissingExtra, match=r"pristina\[perceptual\]"):
        perceptual.lpips(x, x)
    with pytest.raises(MissingExtra, match="torch-fidelity"):
        perceptual.fid(x, x)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for module in ("lpips", "torch_fidelity"):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    with pytest.raises(MissingExtra, match=r"weights alexnet.*put them at"):
        perceptual.lpips(x, x)
    with pytest.raises(MissingExtra, match="weights-inception"):
        perceptual.fid(x, x)
    with pytest.raises(InputError, match="backbones"):
        perceptual.lpips(x, x, net="resnet")
    with pytest.raises(InputError, match="colour"):
        perceptual.lpips(x[:, :1], x[:, :1])


def test_lpips_and_fid_hand_over_what_the_packages_expect(monkeypatch, tmp_path):
    """Check value range, shapes and the place of the weights, with a stand-in for each package."""
    (tmp_path / "checkpoints").mkdir()
    for file in ("alexnet-owt-7be5be79.pth", "weights-inception-2015-12-05-6726825d.pth"):
        (tmp_path / "checkpoints" / file).touch()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    class Distance(torch.nn.Module):
        def __init__(self, net, verbose):
            super().__init__()
            assert net == "alex"

        def forward(self, a, b):
            return (a - b).abs().mean((1, 2, 3), keepdim=True)

    def calculate_metrics(
        input1, input2, fid, feature_extractor_weights_path, cuda, verbose, cache, save_cpu_ram
    ):
        assert fid and not cache and feature_extractor_weights_path.endswith("6726825d.pth")
        assert input1[0].dtype == torch.uint8 and input1[0].shape == (3, 16, 16)
        return {
            "frechet_inception_distance": float(input1[0].float().mean() - input2[0].float().mean())
        }

    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=Distance))
    monkeypatch.setitem(
        sys.modules, "torch_fidelity", types.SimpleNamespace(calculate_metrics=calculate_metrics)
    )
    perceptual._lpips_network.cache_clear()
    x, y = torch.ones(2, 3, 16, 16), torch.full((2, 3, 16, 16), 0.5)
    assert perceptual.lpips(x, y).tolist() == [1, 1]  # half of [0, 1] is 1 of [-1, 1]
    assert perceptual.fid(x, y) == 255 - 128
    perceptual._lpips_network.cache_clear()


def test_the_table_says_what_each_metric_needs_and_which_direction_is_better(pair):
    restored, truth = pair
    for name, metric in METRICS.items():
        assert metric.name == name and metric.title and metric.note
        if "lpips" in metric.needs:
            assert "truth" in metric.needs and metric.better == "lower"
            continue
        if "kernels" in metric.needs:
            k = torch.rand(2, 5, 5) + 0.1
            same, other = metric.function(k, k), metric.function(k, torch.rand(2, 5, 5) + 0.1)
        elif "truth" in metric.needs:
            same, other = metric.function(truth, truth), metric.function(restored, truth)
        else:
            assert metric.better == "neither" and metric.best([1.0, 2.0]) == []
            assert metric.function(restored).shape == (2,)
            continue
        assert same.shape == other.shape == (2,)
        better = same > other if metric.better == "higher" else same < other
        assert better.all(), name
        values = [float(same[0]), float(other[0])]
        assert metric.best([*values[::-1], values[0]]) == values


def test_measure_holds_what_its_inputs_allow_in_the_order_of_the_table(pair):
    restored, truth = pair
    alone, both = measure(restored), measure(restored, truth)
    assert list(alone) == ["sharpness", "noise", "blockiness"]
    assert list(both) == ["psnr", "ssim", "haarpsi", "gmsd", "psnr_after_shift", *alone]
    assert "psnr_after_shift" not in measure(restored[..., :24, :24], truth[..., :24, :24])
    for name, values in both.items():
        inputs = (restored, truth) if METRICS[name].needs else (restored,)
        assert torch.equal(values, METRICS[name].function(*inputs))
    k = torch.rand(2, 5, 5)
    assert list(measure_kernels(k, k)) == ["kernel_correlation", "kernel_error"]


def test_suites_may_name_every_metric_of_the_table():
    from typing import get_args

    from pristina.bench.suite import MetricName

    assert set(get_args(MetricName)) == set(METRICS)
