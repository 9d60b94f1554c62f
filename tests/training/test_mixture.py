"""What happens to a picture before it is trained on."""

import inspect
import time

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import convolve as scipy_convolve

from pristina.cli.train import Pairs
from pristina.errors import SettingError
from pristina.training import mixture as module
from pristina.training.damage import demosaic, down_up, faded, halftone, jpeg
from pristina.training.kernels import BLURS, MARGIN_PX, convolve, draw_kernel
from pristina.training.mixture import (
    MIXTURES,
    PART_NAMES,
    PARTS,
    DegradationMixture,
    degrade,
    mixture,
)
from pristina.training.pairs import DegradedStream


def picture(side=48, seed=0):
    return torch.rand(3, side, side, generator=torch.Generator().manual_seed(seed))


def only(part, **changes):
    settings = {"nothing": 0, "single": 1, "photo": 0, "scan": 0, "shuffled": 0}
    return DegradationMixture(parts=((part, 1.0),), **{**settings, **changes})


def test_help_names_every_mixture():
    text = " ".join(inspect.getdoc(Pairs).split())
    for name in MIXTURES:
        assert name in text.partition("mixture: ")[2].partition("domain: ")[0]


@pytest.mark.parametrize("name", list(MIXTURES))
def test_a_mixture_depends_on_its_generator_alone(name):
    x = picture()
    before = x.clone()
    first, again, other = (
        degrade(MIXTURES[name], x, np.random.default_rng(seed)) for seed in (3, 3, 5)
    )
    assert first.shape == x.shape and first.dtype == torch.float32
    assert torch.isfinite(first).all()
    assert torch.equal(first, again) and torch.equal(x, before)
    if name != "jpeg10":
        assert not torch.equal(first, other)


@pytest.mark.parametrize("part", PART_NAMES)
def test_every_part_changes_the_picture_and_keeps_its_size(part):
    x = picture(64)
    for seed in range(8):
        y = degrade(only(part), x, np.random.default_rng(seed))
        assert y.shape == x.shape and y.min() >= 0 and y.max() <= 1
        assert torch.equal((255 * y).round() / 255, y)
        assert not torch.equal(x, y)


@pytest.mark.parametrize("form", ["_photo", "_scan", "_shuffled"])
def test_every_chain_is_finite(form):
    for seed in range(24):
        y = getattr(module, form)(DegradationMixture(), picture(64), np.random.default_rng(seed))
        assert y.shape == (3, 64, 64) and torch.isfinite(y).all()


def test_a_specialist_draws_within_its_bounds(monkeypatch):
    scales = []
    monkeypatch.setattr(module, "down_up", lambda x, scale, *rest: scales.append(scale) or x)
    for seed in range(20):
        degrade(MIXTURES["x4"], picture(16), np.random.default_rng(seed))
    assert set(scales) == {4.0}


def test_a_share_of_the_pictures_stays_as_it_is():
    x = (255 * picture(40)).round() / 255
    kind = only("noise", nothing=0.3, sigma=(0.1, 0.2))
    same = sum(torch.equal(degrade(kind, x, np.random.default_rng(i)), x) for i in range(200))
    assert 40 <= same <= 80
    assert torch.equal(degrade(DegradationMixture(nothing=1), x, np.random.default_rng(0)), x)


def test_light_damage_is_as_frequent_as_heavy():
    smooth = torch.nn.functional.interpolate(picture(8)[None], size=(64, 64), mode="bicubic")[0]
    x = (255 * smooth).round().clamp(0, 255) / 255
    kind = DegradationMixture(nothing=0)
    errors = torch.tensor(
        [
            float((degrade(kind, x, np.random.default_rng(i)) - x).square().mean())
            for i in range(200)
        ]
    )
    decibels = -10 * errors.clamp(min=1e-7).log10()
    assert 0.2 < float((decibels > 32).float().mean()) < 0.8


def test_noise_has_its_deviation_at_mid_grey():
    x = torch.full((3, 96, 96), 0.5)
    kind = only("noise", sigma=(0.05, 0.05), light=0.0, float_share=1.0)
    deviations = [float((degrade(kind, x, np.random.default_rng(i)) - x).std()) for i in range(40)]
    assert float(np.median(deviations)) == pytest.approx(0.05, rel=0.05)
    assert min(deviations) > 0.02 and max(deviations) < 0.09


def test_a_result_may_stay_unrounded():
    x = torch.full((3, 32, 32), 0.99)
    y = degrade(only("noise", sigma=(0.2, 0.2), float_share=1.0), x, np.random.default_rng(0))
    assert y.max() > 1


def test_a_demosaiced_flat_picture_stays_flat():
    for colour in ((0.5, 0.5, 0.5), (0.2, 0.4, 0.7)):
        raw = torch.tensor(colour).view(3, 1, 1).expand(3, 16, 16)
        for seed in range(4):
            y = demosaic(raw, np.random.default_rng(seed))
            assert torch.allclose(y[:, 2:-2, 2:-2], raw[:, 2:-2, 2:-2], atol=1e-5)


def test_halftone_and_grain_keep_the_mean():
    x = torch.full((3, 64, 64), 0.5)
    for seed in range(6):
        for part in (halftone, lambda x, r: module._grain(DegradationMixture(), x, r)):
            y = part(x, np.random.default_rng(seed))
            assert abs(float(y.mean()) - 0.5) < 0.03


def test_both_sides_of_a_faded_pair_have_the_same_colours():
    x = picture(32)
    y = faded(x, np.random.default_rng(1))
    assert y.shape == x.shape and y.min() >= 0 and y.max() <= 1
    assert torch.equal((255 * y).round() / 255, y)


@pytest.mark.parametrize("kind", BLURS)
def test_kernels(kind):
    for seed in range(20):
        random = np.random.default_rng(seed)
        k = draw_kernel(kind, 0.4 * 10 ** random.random(), random)
        assert k.shape[0] == k.shape[1] and k.shape[0] % 2 == 1
        assert k.shape[0] <= 2 * MARGIN_PX + 1
        assert float(k.sum()) == pytest.approx(1, abs=1e-5) and (k >= 0).all()
    steps = torch.arange(len(k)) - len(k) // 2
    assert abs(float((k.sum(0) * steps).sum())) < 0.3
    assert abs(float((k.sum(1) * steps).sum())) < 0.3


def test_an_unknown_kernel_is_refused():
    with pytest.raises(SettingError, match="gaussian"):
        draw_kernel("square", 1.0, np.random.default_rng(0))


def test_convolution_agrees_with_scipy():
    x = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(0))
    k = draw_kernel("motion", 1.3, np.random.default_rng(0))
    expected = np.stack([scipy_convolve(c, k.numpy(), mode="wrap") for c in x.numpy()])
    assert np.abs(convolve(x, k).numpy() - expected).max() < 1e-5


def test_jpeg_is_pillows_and_down_up_keeps_flat_pictures():
    x = torch.full((3, 32, 32), 0.4)
    assert torch.allclose(down_up(x, 4), x, atol=1e-5)
    assert torch.allclose(down_up(x, 2.7, "area", smooth=False), x, atol=1e-5)
    grain = picture(32)
    rounded = (255 * grain).round() / 255
    errors = [float((jpeg(grain, q) - rounded).square().mean()) for q in (5, 30, 95)]
    assert errors == sorted(errors, reverse=True) and errors[2] > 0
    assert torch.equal(jpeg(grain, 40, 1), jpeg(grain, 40, 1))
    assert not torch.equal(jpeg(grain, 40, 0), jpeg(grain, 40, 2))


def test_mixtures_that_cannot_be():
    with pytest.raises(SettingError, match="photographs"):
        mixture("sepia")
    with pytest.raises(SettingError, match="probabilities"):
        DegradationMixture(nothing=1.5)
    with pytest.raises(SettingError, match="weights"):
        DegradationMixture(single=0, photo=0, scan=0, shuffled=0)
    with pytest.raises(SettingError, match="parts"):
        DegradationMixture(parts=(("rain", 1.0),))
    with pytest.raises(SettingError, match="blurs"):
        DegradationMixture(blurs=("square",))
    assert set(PARTS) == set(PART_NAMES)


def test_damage_costs_little():
    """A crop with its margin takes a few milliseconds: far less than the network."""
    x = picture(96)
    began = time.process_time()
    for i in range(20):
        degrade(MIXTURES["photographs"], x, np.random.default_rng(i))
    assert (time.process_time() - began) / 20 < 0.05


def test_a_camera_that_keeps_sharpness_adds_noise_alone():
    x = torch.zeros(3, 32, 32)
    x[:, :, 16:] = 0.5
    x = 0.25 + x
    means = []
    for keep in (True, False):
        kind = only("camera", keep_sharpness=keep, float_share=1, sigma=(0.02, 0.02))
        draws = [degrade(kind, x, np.random.default_rng(seed)) for seed in range(200)]
        means.append(torch.stack(draws).mean(0))
    off = [float((mean - x)[:, 4:-4, 15:17].abs().mean()) for mean in means]
    assert off[0] < 0.01 < 0.03 < off[1]


def test_clean_pictures_are_softened_where_sharpness_is_kept(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    soft = []
    for keep in (True, False):
        kind = only("noise", keep_sharpness=keep)
        stream = DegradedStream([tmp_path / "noise.png"], 32, kind, seed=4)
        detail = [float(stream[i][0].diff(dim=-1).abs().mean()) for i in range(80)]
        soft.append(sum(value < 0.12 for value in detail) / 80)
    assert soft[0] > soft[1] + 0.2
