"""Levels: monotone, nearly nothing clipped, and said."""

import torch
from skimage.data import astronaut

from pristina.image.levels import HINT, SHARE, Levels
from pristina.image.picture import Picture
from pristina.restoration import restore

CLEAN = Picture.from_array(astronaut()[:200, :200]).pixels
BLACK, WHITE = (
    torch.tensor([0.2, 0.15, 0.3]).view(3, 1, 1),
    torch.tensor([0.8, 0.6, 0.7]).view(3, 1, 1),
)
FADED = BLACK + (WHITE - BLACK) * CLEAN


def test_faded_colours_come_back_and_hardly_anything_is_clipped():
    levels = Levels.of(FADED)
    found = levels.apply(FADED)
    for channel, before, black, white in zip(found, FADED, levels.black, levels.white, strict=True):
        assert ((before < black).float().mean() <= SHARE) and (
            (before > white).float().mean() <= SHARE
        )
        order = before.flatten().argsort()
        assert (channel.flatten()[order].diff() >= -1e-6).all()
    assert (found - CLEAN).abs().mean() < 0.5 * (FADED - CLEAN).abs().mean()
    assert levels.faded and "stretched" in levels.note


def test_pictures_from_black_to_white_stay():
    whole = CLEAN.clone()
    whole[:, :20], whole[:, 20:40] = 0, 1
    levels = Levels.of(whole)
    assert torch.equal(levels.apply(whole), whole) and "no level" in levels.note
    flat = Levels.of(torch.full((3, 40, 40), 0.5))
    assert max(flat.gains) <= 4 + 1e-6 and flat.apply(torch.full((3, 4, 4), 0.5)).isfinite().all()


def test_grey_stays_grey():
    grey = FADED.mean(0, keepdim=True).expand(3, -1, -1)
    found = Levels.of(grey).apply(grey)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_they_are_stretched_only_when_asked_for_and_the_hint_says_so():
    alone = restore(FADED)
    assert alone.notes[-1] == HINT
    assert not any(HINT in note for note in restore(CLEAN).notes)
    done = restore(FADED, method="nothing", levels=True)
    assert torch.allclose(done.picture.pixels, Levels.of(FADED).apply(FADED), atol=1e-6)
    assert "stretched" in done.notes[-1] and done.record()["request"]["levels"] is True


def test_protected_places_keep_their_levels(tmp_path):
    guard = torch.zeros(1, 200, 200)
    guard[..., :80] = 1
    Picture.from_pixels(guard).save(tmp_path / "guard.png")
    done = restore(FADED, method="nothing", levels=True, protect=tmp_path / "guard.png")
    assert torch.allclose(done.picture.pixels[..., :80], FADED[..., :80], atol=1e-6)
    assert not torch.allclose(done.picture.pixels[..., 80:], FADED[..., 80:], atol=0.05)
