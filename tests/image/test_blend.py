"""What is kept of the damaged picture."""

import pytest
import torch

from pristina.image.blend import blend

AFTER = torch.linspace(0.3, 0.7, 40).repeat(3, 30, 1)
NOISE = 0.05 * torch.randn(3, 30, 40, generator=torch.Generator().manual_seed(0))
BEFORE = (AFTER + NOISE).clamp(0, 1)


def test_defaults_change_nothing():
    assert blend(BEFORE, AFTER) is AFTER


def test_the_distance_grows_with_strength():
    away = [
        float((blend(BEFORE, AFTER, strength=s) - BEFORE).norm()) for s in (0, 0.25, 0.5, 0.75, 1)
    ]
    assert away[0] == pytest.approx(0, abs=1e-4) and away == sorted(away)
    assert away[2] == pytest.approx(away[4] / 2, rel=1e-4)


def test_grain_comes_back_in_brightness_and_fine_alone():
    cast = torch.tensor([0.1, 0.0, -0.1]).view(3, 1, 1)
    with_grain = blend(BEFORE + cast + 0.1, AFTER, grain=0.5)
    added = with_grain - AFTER
    assert (added - added.mean(0)).abs().max() < 1e-6  # no colour
    assert abs(float(added.mean())) < 1e-3  # nothing coarse
    correlation = torch.corrcoef(torch.stack([added[0].flatten(), NOISE.mean(0).flatten()]))[0, 1]
    assert correlation > 0.8
    assert blend(BEFORE, AFTER, grain=1.0).sub(AFTER).norm() == pytest.approx(
        2 * float(blend(BEFORE, AFTER, grain=0.5).sub(AFTER).norm()), rel=1e-4
    )


def test_protected_pixels_stay_as_they_were():
    mask = torch.zeros(1, 30, 40)
    mask[:, :10] = 1
    mask[:, 10:12] = 0.5
    kept = blend(BEFORE, AFTER, protected=mask)
    assert torch.allclose(kept[:, :10], BEFORE[:, :10])
    assert torch.allclose(kept[:, 10:12], (BEFORE + AFTER)[:, 10:12] / 2)
    assert torch.equal(kept[:, 12:], AFTER[:, 12:])


def test_the_damaged_picture_is_enlarged_first():
    large = torch.full((3, 60, 80), 0.5)
    assert blend(torch.full((3, 30, 40), 0.1), large, strength=0.5).shape == large.shape
    assert float(blend(torch.full((3, 30, 40), 0.1), large, strength=0.5).mean()) == pytest.approx(
        0.3, abs=1e-5
    )


def test_the_result_lies_in_range():
    wild = blend(torch.ones(3, 8, 8), torch.ones(3, 8, 8) - 0.01 * torch.rand(3, 8, 8), grain=1)
    assert wild.max() <= 1 and wild.min() >= 0
