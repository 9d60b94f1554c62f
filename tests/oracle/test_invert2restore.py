"""The rectifier of Invert2Restore: what is typical stays, what is not becomes so."""

import math

import pytest
import scipy.stats
import torch
from torch.nn import functional as F

from pristina.methods.steps.rectify import TESTS, p_values, rectify, whiten


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rung", ["scale", "noise"])
@pytest.mark.parametrize(("side", "draws"), [(64, 200), (32, 400), (16, 600)])
def test_typical_noise_is_left_alone_in_95_percent_of_draws(side, draws, rung):
    z = normal(draws, 3, side, side, seed=1)
    done = rectify(z, normal(draws, 3, side, side, seed=2), rung)
    untouched = done.changed == 0
    error = (
        math.sqrt(0.05 * 0.95 / draws) if rung == "scale" else 0
    )  # one test a patch, all independent: 95 % is exact, not a bound
    assert untouched.double().mean() >= 0.95 - 2 * error
    scaled = z * math.sqrt(z[0].numel()) / z.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert torch.allclose(done.z[untouched], scaled[untouched], atol=1e-5)
    assert not untouched.all()  # the threshold is not simply out of reach


@pytest.mark.parametrize("scale", [0.96, 1.04])
@pytest.mark.parametrize("rung", ["norm", "scale", "standardise", "whiten", "noise"])
def test_scaled_noise_returns_to_the_sphere(scale, rung):
    z = normal(4, 3, 64, 64, seed=4)
    on_sphere = z * math.sqrt(z[0].numel()) / z.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    done = rectify(scale * z, normal(4, 3, 64, 64, seed=5), rung)
    assert torch.allclose(done.z, on_sphere, atol=1e-5)
    if rung != "norm":
        assert (done.changed == 1).all() and (
            done.gamma == 0
        ).all()  # it was seen, and rescaling was enough


def test_p_values_are_those_of_scipy_where_it_has_the_test():
    z = 1.03 * normal(1, 3, 16, 16, seed=6) + 0.02
    p = dict(zip(TESTS, p_values(z)[0].tolist(), strict=True))
    flat = z.flatten().double().numpy()
    n = len(flat)
    assert p["mean"] == pytest.approx(
        2 * scipy.stats.norm.sf(abs(flat.sum()) / math.sqrt(n)), rel=1e-6
    )
    below = scipy.stats.chi2.cdf((flat**2).sum(), n)
    assert p["second moment"] == pytest.approx(2 * min(below, 1 - below), rel=1e-5)
    assert p["distribution"] == pytest.approx(scipy.stats.kstest(flat, "norm").pvalue, rel=0.05)


def test_p_values_of_typical_noise_are_uniform():
    p = p_values(normal(2000, 3, 8, 8, seed=7))
    for i, name in enumerate(TESTS):
        for level in (0.05, 0.3):
            share = float((p[:, i] < level).double().mean())
            assert share == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 2000)), (
                name
            )


def test_each_test_sees_what_it_is_for():
    z = normal(1, 3, 32, 32, seed=8)
    odd = {
        "mean": z + 0.2,
        "second moment": 1.2 * z,
        "distribution": torch.sign(z),
        "vertical": (z + z.roll(1, -2)) / 2**0.5,
        "horizontal": (z + z.roll(1, -1)) / 2**0.5,
        "colour": (z + z.roll(1, 1)) / 2**0.5,
    }
    for i, name in enumerate(TESTS):
        assert p_values(odd[name])[0, i] < 1e-6, name


def test_only_the_patch_that_fails_is_changed():
    z = normal(1, 3, 64, 64, seed=9)
    bad = z.clone()
    bad[..., 8:16, 40:48] = 0.3
    done = rectify(bad, normal(1, 3, 64, 64, seed=10))
    ratio = done.z / bad
    elsewhere = torch.ones(64, 64, dtype=torch.bool)
    elsewhere[:32, 32:] = False  # the 32 px patch around it may be corrected as a whole
    spread = ratio[..., elsewhere].std()
    assert done.changed < 0.3 and done.gamma > 0
    assert spread < 1e-3  # all the rest was only rescaled
    assert p_values(done.z[..., 8:16, 40:48]).min() > 1e-5


def test_scale_sets_the_patches_that_are_too_loud_and_keeps_their_shapes():
    z = normal(1, 3, 64, 64, seed=9)
    loud = z.clone()
    loud[..., 8:16, 40:48] *= 3
    shifted = z + 0.2  # every mean is off, and with it every test but the scale of small patches
    xi = normal(1, 3, 64, 64, seed=10)
    done, patch = rectify(loud, xi, "scale").z, (..., slice(8, 16), slice(40, 48))
    assert done[patch].square().mean() == pytest.approx(1, abs=0.02)
    assert (done[patch] / z[patch]).std() < 1e-4
    kept = rectify(shifted, xi, "scale").z
    assert (
        torch.corrcoef(torch.stack([kept.flatten(), shifted.flatten()]))[0, 1] > 0.999
        and kept.mean() > 0.19
    )


def test_whitening_flattens_the_spectrum_and_keeps_the_phases():
    blur = torch.tensor([1.0, 2, 1]).outer(torch.tensor([1.0, 2, 1])).expand(3, 1, 3, 3) / 6
    z = normal(2, 3, 64, 64, seed=11)
    blurred = F.conv2d(F.pad(z, (1, 1, 1, 1), mode="circular"), blur, groups=3)
    white = whiten(blurred)
    assert p_values(blurred)[:, 3:5].max() < 1e-10
    assert p_values(white)[:, 3:].min() > 1e-3
    assert float((white * z).mean()) > 0.9  # it has found what was there before the blur
    assert float((blurred * z).mean() / blurred.std()) < 0.9


def test_noise_mix_is_the_smallest_that_passes():
    z = torch.sign(
        normal(3, 3, 16, 16, seed=12)
    )  # white, unit variance, yet far from normal: only fresh noise helps
    done = rectify(z, normal(3, 3, 16, 16, seed=13), sizes=())
    assert ((done.gamma > 0) & (done.gamma < 1)).all()
    threshold = 0.05 / len(TESTS)
    assert (p_values(done.z).amin(1) > 0.5 * threshold).all()
    xi = normal(3, 3, 16, 16, seed=13)
    less = (done.gamma - 2**-5).view(-1, 1, 1, 1).clamp(min=0)
    white = whiten(z)
    assert (p_values((1 - less).sqrt() * white + less.sqrt() * xi).amin(1) < threshold).all()
