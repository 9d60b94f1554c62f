"""Holes: what a mask marks is filled in, and nothing else is touched."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from pristina.cli import main
from pristina.errors import Cancelled, InputError, PictureError, SettingError
from pristina.image.cells import cells_with_holes, from_the_edge
from pristina.image.holes import fill_smoothly
from pristina.image.picture import Picture
from pristina.priors.gaussian import GaussianPrior
from pristina.request import Request
from pristina.restoration import restore

CLEAN = Picture.from_array(astronaut()[20:116, 140:268]).pixels
HOLES = torch.zeros(1, *CLEAN.shape[-2:])
HOLES[:, 30:34, 10:90] = 1
HOLES[:, 60:80, 100:110] = 1
TORN = torch.where(HOLES > 0, torch.ones(()), CLEAN)


def saved(holes, path):
    Image.fromarray((255 * holes[0]).byte().numpy()).save(path)
    return path


@pytest.fixture
def mask(tmp_path):
    return saved(HOLES, tmp_path / "mask.png")


def error(pixels):
    return float(((pixels - CLEAN).square() * HOLES).sum() / (3 * HOLES.sum()))


def test_only_the_holes_change_and_they_become_better(mask):
    done = restore(TORN, mask=mask)
    kept = HOLES.expand(3, -1, -1) == 0
    assert torch.equal(done.picture.pixels[kept], TORN[kept])
    flat = torch.where(HOLES > 0, CLEAN.mean((1, 2), keepdim=True), CLEAN)
    assert error(done.picture.pixels) < 0.5 * error(flat)
    assert "528 pixels" not in done.notes[0] and "520 pixels" in done.notes[0]
    assert "the rest is left" in done.notes[1]
    assert str(done.result.stopped[0]) == "all steps done"


def test_the_record_can_be_followed(mask):
    done = restore(TORN, mask=mask, method="diffpir", prior="photos", settings={"steps": 2})
    request = Request.from_record({**done.record(), "machine": {}})
    assert (request.mask, request.method, request.prior) == (str(mask), "diffpir", "photos")
    again = restore(
        TORN,
        mask=request.mask,
        method=request.method,
        prior=request.prior,
        settings=request.settings,
    )
    assert torch.equal(again.picture.pixels, done.picture.pixels)
    assert done.cost.network_calls == 2 * 3  # Three cells: the long hole lies in two.


def test_a_method_fills_what_it_can_and_a_regressor_comes_after(mask):
    prior = GaussianPrior(variance=0.05)
    done = restore(TORN, mask=mask, method="ddrm", prior=prior)
    kept = HOLES.expand(3, -1, -1) == 0
    assert torch.equal(done.picture.pixels[kept], TORN[kept])
    assert not torch.equal(done.picture.pixels, TORN) and "by ddrm" in done.notes[0]
    after = restore(TORN, mask=mask, method="indi", prior="denoise")
    filled = fill_smoothly(TORN[None], HOLES[None])[0]
    alone = restore(filled, method="indi", prior="denoise")
    assert torch.equal(after.picture.pixels, alone.picture.pixels)
    assert after.result.method == "indi" and "smoothly" in after.notes[0]
    with pytest.raises(SettingError, match="leave the operator out"):
        restore(TORN, mask=mask, method="diffpir", prior=prior, operator="noise:sigma=0.1")


def test_masks_that_cannot_be_used(tmp_path):
    small = saved(torch.zeros(1, 9, 9), tmp_path / "small.png")
    with pytest.raises(PictureError, match="must have the size of the picture"):
        restore(TORN, mask=small)
    with pytest.raises(InputError, match="the whole picture"):
        restore(TORN, mask=saved(torch.ones_like(HOLES), tmp_path / "white.png"))
    done = restore(TORN, mask=saved(0 * HOLES, tmp_path / "black.png"), method="nothing")
    assert torch.equal(done.picture.pixels, TORN) and "marks nothing" in done.notes[0]


def test_protected_places_win_and_strength_brings_no_hole_back(mask, tmp_path):
    guard = saved((torch.arange(128).expand(1, 96, 128) < 50).float(), tmp_path / "guard.png")
    done = restore(TORN, mask=mask, protect=guard)
    assert torch.equal(done.picture.pixels[..., :50], TORN[..., :50])
    assert not torch.equal(done.picture.pixels[:, 30:34, 50:90], TORN[:, 30:34, 50:90])
    half = restore(TORN, mask=mask, method="indi", prior="denoise", strength=0.5)
    assert error(half.picture.pixels) < 0.1 * error(TORN)


def test_a_small_hole_in_a_large_picture_costs_little():
    holes = torch.zeros(3000, 4000)
    holes[1500:1503, 100:140] = 1
    cells = cells_with_holes(holes, side=64, margin=32, multiple=8)
    assert len(cells) == 2
    assert sum((c.seen[1] - c.seen[0]) * (c.seen[3] - c.seen[2]) for c in cells) < 20_000
    assert all(n % 8 == 0 for c in cells for n in c.seen)


def test_a_large_hole_is_filled_from_its_edges():
    holes = torch.zeros(400, 400)
    holes[40:360, 40:360] = 1
    cells = cells_with_holes(holes, side=64, margin=16)
    known = []
    left = holes.clone()
    for cell in from_the_edge(cells, left):
        known.append(1 - float(left[cell.crop].mean()))
    assert min(known) > 0.1 and not left.any()
    filled = fill_smoothly(torch.full((1, 3, 400, 400), 0.4), holes[None, None])
    assert torch.allclose(filled, torch.tensor(0.4), atol=1e-3)


def test_cancelling_fills_the_rest_smoothly(mask):
    def stop(event):
        raise Cancelled

    done = restore(
        TORN,
        mask=mask,
        method="diffpir",
        prior=GaussianPrior(variance=0.05),
        settings={"steps": 3},
        on_step=stop,
    )
    assert error(done.picture.pixels) < 0.1 * error(TORN)


def test_the_command(mask, tmp_path, capsys):
    torn = tmp_path / "torn.png"
    Picture.from_pixels(TORN).save(torn)
    out = tmp_path / "out.png"
    with pytest.raises(SystemExit) as ended:
        main(["restore", str(torn), "-o", str(out), "--mask", str(mask)])
    assert not ended.value.code
    before, after = np.asarray(Image.open(torn)), np.asarray(Image.open(out))
    changed = (before != after).any(-1)
    assert changed.any() and not changed[HOLES[0].numpy() == 0].any()
    assert "filled in" in capsys.readouterr().err
