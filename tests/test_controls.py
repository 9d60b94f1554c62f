"""Strength, grain, protected regions and the deep average, through the front door."""

import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from pristina.errors import PictureError, SettingError
from pristina.image.picture import Picture
from pristina.request import Request
from pristina.restoration import restore

CLEAN = Picture.from_array(astronaut()[20:148, 140:268]).pixels
NOISY = (CLEAN + 0.1 * torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(0))).clamp(
    0, 1
)


def result(picture=NOISY, **options):
    return restore(picture, method="indi", prior="denoise", **options).picture.pixels


def test_strength_is_the_share_of_the_change():
    whole, half = result(), result(strength=0.5)
    assert torch.allclose(half, (NOISY + whole) / 2, atol=1e-5)
    assert torch.allclose(result(strength=0.0), NOISY, atol=1e-6)
    with pytest.raises(SettingError, match="strength"):
        result(strength=1.5)


def test_grain_is_grey_and_protected_pixels_stay(tmp_path):
    grainy = result(grain=0.5) - result()
    inside = (result() > 0.1).all(0) & (result() < 0.9).all(0)
    assert grainy.std() > 0.01 and (grainy - grainy.mean(0))[:, inside].abs().max() < 1e-5
    mask = torch.zeros(128, 128)
    mask[:, :50] = 255
    Image.fromarray(mask.byte().numpy()).save(tmp_path / "mask.png")
    kept = result(protect=tmp_path / "mask.png")
    assert torch.allclose(kept[..., :50], NOISY[..., :50], atol=1e-6)
    assert torch.equal(kept[..., 50:], result()[..., 50:])
    Image.new("L", (9, 9)).save(tmp_path / "small.png")
    with pytest.raises(PictureError, match="must have the size of the picture"):
        result(protect=tmp_path / "small.png")


def test_deep_averages_eight_calls():
    deep = restore(NOISY, method="indi", prior="denoise", deep=True)
    plain = restore(NOISY, method="indi", prior="denoise")
    assert (deep.cost.network_calls, plain.cost.network_calls) == (8, 1)
    error = [(done.picture.pixels - CLEAN).square().mean() for done in (deep, plain)]
    assert error[0] < error[1]
    with pytest.raises(SettingError, match="deep is for regressors"):
        restore(NOISY, method="dip", deep=True)


def test_a_strength_repairs_what_auto_leaves_alone():
    alone = restore(CLEAN)
    assert alone.result.method == "nothing" and torch.equal(alone.picture.pixels, CLEAN)
    assert "strength" in " ".join(alone.notes)
    assert restore(CLEAN, deep=True).result.method == "nothing"
    forced = restore(CLEAN, strength=0.7)
    assert forced.result.method == "indi" and not torch.equal(forced.picture.pixels, CLEAN)


def test_the_record_holds_the_controls():
    done = restore(NOISY, method="indi", prior="denoise", strength=0.5, grain=0.25, deep=True)
    again = Request.from_record({**done.record(), "machine": {}})
    assert (again.strength, again.grain, again.deep) == (0.5, 0.25, True)
