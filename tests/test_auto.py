"""What ``--method auto`` reads in a picture and what it chooses."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch.nn import functional as F

from pristina import restore
from pristina.auto import (
    ALL_ROUND,
    DEBLUR_PX,
    FILE_SURE,
    LEAST_BLUR_PX,
    LEAST_DB,
    LEAST_NOISE,
    READER,
    SPECIALIST_DB,
    choose,
)
from pristina.errors import CheckpointError, SizeError
from pristina.image.picture import Picture
from pristina.metrics.fidelity import psnr
from pristina.operators.recipe import Recipe
from pristina.picture_files import FileOptions
from pristina.priors.direct import DirectPrior
from pristina.priors.gaussian import GaussianPrior
from pristina.priors.load import load_weights
from pristina.priors.reader import CANDIDATES, KINDS
from pristina.reading import Range, Reading, _places, crops_of, read_damage
from pristina.request import Request
from pristina.seeds import generators
from pristina.types import Draw

CLEAN = {
    name: torch.from_numpy(getattr(data, name)().copy()).permute(2, 0, 1).float() / 255
    for name in ("astronaut", "coffee", "chelsea")
}


class Same(DirectPrior):
    """A regressor that takes every picture for clean."""

    def regress(self, x_t, t):
        return x_t


FALSE = Range(-1.0, -2.0, -0.5)


def damaged(x, recipe):
    y = (
        Recipe.parse(recipe)
        .build(0)
        .degrade(x[None], Draw(generators(0, 1), 1))
        .detach()
        .clamp(0, 1)
    )
    return (255 * y[0]).round() / 255


def read(kinds=(), gains=None, **changes):
    """What would be read in a picture with these kinds of damage."""
    nothing = Reading(
        height=480,
        width=640,
        file_quality=None,
        kinds={kind: 0.9 if kind in kinds else 0.1 for kind in KINDS},
        finest=1.0,
        noise=Range(10.0, 9.0, 11.0),
        quality=Range(20.0, 15.0, 25.0),
        blur_px=Range(1.2, 1.0, 1.4),
        scale=Range(2.0, 1.9, 2.1),
        gains=dict.fromkeys(CANDIDATES, FALSE) | (gains or {}),
    )
    return replace(nothing, **changes)


def sure(value):
    return Range(value, 0.5 * value, 1.5 * value)


def chosen(reading, kind="direct", **request):
    request, why = choose(reading, Request(**request), kind)
    return SimpleNamespace(**vars(request), why=why)


def noisy_file(probability):
    """What would be read in a JPEG file with noise of a probability."""
    reading = read(["jpeg"], {"jpeg": sure(3.0)}, file_quality=80)
    return replace(reading, kinds={**reading.kinds, "noise": probability})


def reading_of(pixels):
    picture = pixels if isinstance(pixels, Picture) else Picture.from_pixels(pixels)
    return read_damage(picture, load_weights("reader", READER))


@pytest.mark.parametrize("name", CLEAN)
def test_clean_pictures_are_left_alone_and_damaged_ones_are_not(name):
    x = CLEAN[name][:, :300, :448]
    assert chosen(reading_of(x)).method == "nothing"
    for recipe, kind, prior in (
        ("noise:sigma=0.06", "noise", "blind"),
        ("jpeg:quality=10", "jpeg", "jpeg"),
        ("blur:sigma=2", "blur", "blind"),
        ("bicubic:factor=4", "enlarged", "x4"),
    ):
        if recipe != "bicubic:factor=4":
            y = damaged(x, recipe)
        else:
            operator = Recipe.parse(recipe).build(0)
            y = operator.initial(operator(x[None]))[0].clamp(0, 1)
        reading = reading_of(y)
        choice = chosen(reading)
        assert choice.method == "indi" and kind in reading.seen, (recipe, reading)
        assert prior in ("blind", choice.prior) and choice.prior in choice.why, recipe


def test_levels_are_read():
    x = CLEAN["coffee"]
    noisy = reading_of(damaged(x, "noise:sigma=0.08")).noise
    assert noisy.low < 255 * 0.08 < noisy.high and noisy.high < 2 * noisy.low
    coarse, fine = (reading_of(damaged(x, f"jpeg:quality={q}")).quality for q in (10, 50))
    assert coarse.value < 20 < 35 < fine.value
    narrow, wide = (reading_of(damaged(x, f"blur:sigma={s}")).blur_px for s in (1, 3))
    assert 0.6 < narrow.value < 1.5 < 1.8 < wide.value < 4


@pytest.mark.parametrize(("top", "left"), [(0, 0), (4, 4), (3, 7)])
def test_a_jpeg_is_seen_wherever_its_grid_begins(top, left):
    blocks = damaged(CLEAN["astronaut"], "jpeg:quality=20")[:, top : top + 256, left : left + 256]
    assert "jpeg" in reading_of(blocks).seen


@pytest.mark.parametrize(
    ("reading", "method", "prior"),
    [
        (read(), "nothing", None),
        (read(["noise"]), "nothing", None),
        (read(["noise"], {"blind": sure(3.0)}), "indi", "grain"),
        (read(gains={"blind": sure(3.0)}), "indi", "blind"),
        (read(["noise"], {"blind": sure(LEAST_DB - 0.01)}), "nothing", None),
        (read(["noise"], {"blind": Range(1.0, -1.4, 3.4)}), "nothing", None),
        (read(["noise"], {"blind": Range(1.0, -1.2, 3.2)}), "indi", "grain"),
        (read(["jpeg"], {"blind": sure(1.0), "jpeg": sure(1.5)}), "indi", "jpeg"),
        (read(["jpeg"], file_quality=88), "indi", "jpeg"),
        (read(["jpeg"], file_quality=89), "nothing", None),
        (read(["jpeg"], {"blind": sure(3.0), "jpeg": sure(1.6)}, file_quality=88), "indi", "jpeg"),
        (read(["jpeg"], {"blind": sure(3.0), "jpeg": sure(1.4)}, file_quality=88), "indi", "blind"),
        (read(["jpeg"], {"blind": sure(3.0), "jpeg": sure(1.6)}, file_quality=89), "indi", "blind"),
        (
            read(["noise"], {"blind": sure(3.0), "jpeg": sure(1.6)}, file_quality=88),
            "indi",
            "grain",
        ),
        (read(["jpeg"], {"blind": sure(1), "jpeg": sure(0.9 + SPECIALIST_DB)}), "indi", "blind"),
        (read(["enlarged"], {"x4": sure(1.0)}), "indi", "x4"),
    ],
)
def test_the_predicted_gain_decides(reading, method, prior):
    choice = chosen(reading)
    assert (choice.method, choice.prior) == (method, prior)
    if method == "nothing":
        assert "--strength 1" in choice.why and "left as it is" in choice.why
    else:
        assert f"with {prior}" in choice.why
        assert "as a rule" in choice.why or " dB" in choice.why


@pytest.mark.parametrize(
    ("reading", "method", "in_doubt"),
    [
        (read(["blur"], {"blind": sure(3.0)}), "deblur", "regress"),
        (read(["shake"]), "deblur", "leave"),
        (read(["defocus"], blur_px=Range(LEAST_BLUR_PX - 0.01, 0.5, 2.0)), "nothing", None),
        (read(["blur"], height=DEBLUR_PX - 1), "nothing", None),
        (read(["blur"], finest=LEAST_NOISE - 0.01), "nothing", None),
        (read(["blur"], file_quality=88), "indi", None),
        (read(["enlarged", "blur"], {"x4": sure(3.0)}), "indi", None),
        (read(["enlarged", "blur"], {"blind": sure(3.0)}), "indi", None),
        (read(gains={"blind": sure(3.0)}), "indi", None),
    ],
)
def test_a_blur_is_looked_for_where_it_is_seen(reading, method, in_doubt):
    choice = chosen(reading)
    assert choice.method == method and choice.settings.get("in_doubt") == in_doubt
    if method == "deblur":
        assert choice.prior is None and "ot sharp" in choice.why
        instead = "indi with blind" if in_doubt == "regress" else "left as it is"
        assert instead in choice.why


def test_kernels_of_fields_are_looked_for_where_a_large_picture_was_shaken():
    large = {"height": 300, "width": 480}
    assert chosen(read(["shake"], **large)).settings["fields"] == 3
    assert "fields" not in chosen(read(["shake"], height=300, width=479)).settings
    assert "fields" not in chosen(read(["blur"], **large)).settings


def test_what_is_asked_for_is_not_changed_to_deblur():
    blurred = read(["blur"], {"blind": sure(3.0)})
    for asked in ({"prior": "denoise"}, {"deep": True}):
        assert chosen(blurred, **asked).method == "indi"
    assert chosen(read(["blur"]), strength=1.0).settings["in_doubt"] == "regress"


def test_a_file_that_deblur_leaves_alone_is_copied(tmp_path):
    path = tmp_path / "in.jpg"
    Image.effect_noise((140, 140), 60).convert("RGB").save(path, quality=95)
    before = Picture.open(path)
    done = restore(before, method="deblur", settings={"kernel_px": 15})
    assert not done.plan.leaves_alone and done.left_alone
    assert FileOptions().is_copied(before, done, tmp_path / "out.jpg")
    levels = replace(done, plan=replace(done.plan, request=replace(done.plan.request, levels=True)))
    assert not levels.left_alone


def test_what_was_seen_is_said_in_a_photographers_words():
    assert read(["noise"]).sentences() == ["Noise of 10 (9 to 11)/255, as at ISO 3200 (90 % sure)."]
    twice = read(["jpeg"], file_quality=92).sentences()
    assert twice == ["Saved as JPEG at about quality 20 (15 to 25), then again at 92 (90 % sure)."]
    assert "again" not in read(["jpeg"], file_quality=20).sentences()[0]
    shaken = replace(read(), kinds={"noise": 0.2, "blur": 0.4, "defocus": 0.1, "shake": 0.5})
    assert list(shaken.seen) == ["shake"] and shaken.seen["shake"] == pytest.approx(0.73)
    assert "camera shake" in shaken.sentences()[0] and "73 % sure" in shaken.sentences()[0]
    assert read(["enlarged"]).sentences() == ["Enlarged 2.0 (1.9 to 2.1) times (90 % sure)."]
    left = chosen(read()).why
    assert "None of these was seen: noise, " in left and "camera shake" in left
    assert "no damage" not in left.lower()


def test_a_strength_repairs_in_doubt():
    choice = chosen(read(), strength=1.0)
    assert (choice.method, choice.prior) == ("indi", ALL_ROUND)


def test_the_weights_that_are_named_decide_the_method():
    noise, soft = read(["noise"]), read(["blur"])
    assert chosen(noise, "diffusion", prior="faces").method == "mmse"
    assert chosen(soft, "diffusion", prior="faces").method == "diip"
    assert chosen(noise, "direct", prior="denoise").prior == "denoise"
    assert chosen(read(), "diffusion", prior="faces").method == "nothing"
    prior = GaussianPrior(variance=0.2)
    noisy = damaged(CLEAN["coffee"], "noise:sigma=0.1")[:, :64, :64]
    done = restore(noisy, prior=prior)
    assert (
        done.result.method == "mmse"
        and done.cost.network_calls == 1
        and any("mmse with GaussianPrior" in note for note in done.notes)
    )


def test_a_picture_left_alone_costs_nothing_and_stays_the_same():
    picture = Picture.from_pixels(CLEAN["astronaut"])
    done = restore(picture)
    assert torch.equal(done.picture.pixels, picture.pixels) and done.cost.network_calls == 0
    assert done.plan.request.method == "nothing" and done.plan.record()["reading"]["width"] == 512


@pytest.mark.parametrize("quality", [3, 10, 40, 75, 95])
def test_the_quality_of_a_jpeg_file_is_read_from_its_tables(quality, tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(path, quality=quality)
    assert reading_of(Picture.open(path)).file_quality == quality
    Image.open(path).save(tmp_path / "a.png")
    assert Picture.open(tmp_path / "a.png").jpeg_quality is None


def test_a_picture_too_small_to_judge_is_refused():
    with pytest.raises(SizeError, match="name a method"):
        restore(torch.rand(3, 20, 40))


@pytest.mark.parametrize("size", [(32, 33), (128, 128), (130, 1000), (1000, 700), (90, 400)])
def test_crops_are_spread_over_the_picture_on_its_grid(size):
    picture = Picture.from_pixels(torch.rand(3, *size))
    crops = crops_of(picture)
    height, width = (min(128, n // 2 * 2) for n in size)
    assert crops.shape[0] == 1 and 1 <= crops.shape[1] <= 8
    assert crops.shape[2:] == (3, height, width)
    for room, count in ((size[0] - height, 2), (size[1] - width, 4)):
        places = _places(room, count)
        assert all(p % 8 == 0 and 0 <= p <= room for p in places)
        assert len(places) == len(set(places)) <= count
    assert len(crops_of(Picture.from_pixels(torch.rand(3, 800, 900)))[0]) == 8


def paper(x, amplitude=0.06, width=0.8):
    """Add the texture of paper: noise that neighbours share, the same in all colours."""
    noise = torch.randn(1, 1, *x.shape[-2:], generator=torch.Generator().manual_seed(0))
    line = torch.exp(-0.5 * (torch.arange(-6.0, 7.0) / width) ** 2)
    noise = F.conv2d(noise, line.view(1, 1, 1, -1), padding=(0, 6))
    noise = F.conv2d(noise, line.view(1, 1, -1, 1), padding=(6, 0))
    return (255 * (x + amplitude * noise[0] / noise.std()).clamp(0, 1)).round() / 255


@pytest.mark.parametrize("name", CLEAN)
def test_the_texture_of_paper_is_seen(name):
    clean, damaged_ = (x[:, :256, 100:356] for x in (CLEAN[name], paper(CLEAN[name])))
    done = restore(damaged_)
    assert (done.result.method, done.plan.weights_name) == ("indi", "grain")
    assert psnr(done.picture.pixels[None], clean[None]) > psnr(damaged_[None], clean[None]) + 1.5
    alone = restore(clean)
    assert alone.result.method == "nothing" and torch.equal(alone.picture.pixels, clean)


@pytest.mark.parametrize("channels", [1, 3])
def test_white_noise_goes_to_weights_for_it(channels):
    """Whether the colours share it or not; ``denoise`` gains more there than ``blind``."""
    x = CLEAN["astronaut"].mean(0, keepdim=True).expand(3, -1, -1)[:, :256, :256]
    generator = torch.Generator().manual_seed(0)
    noise = 0.08 * torch.randn(channels, 256, 256, generator=generator)
    y = (255 * (x + noise).clamp(0, 1)).round() / 255
    done = restore(y)
    pictures = done.picture, restore(y, method="indi", prior="blind").picture
    found, usual = (float(psnr(picture.pixels[None], x[None])) for picture in pictures)
    assert done.plan.weights_name == "denoise" and "as the noise is white" in " ".join(done.notes)
    assert found > usual + 0.3


@pytest.mark.parametrize(
    ("reading", "prior"),
    [
        (read(["noise"], {"blind": sure(3.0)}, coarseness=1.2), "denoise"),
        (read(["noise"], {"blind": sure(3.0)}, coarseness=1.21), "grain"),
        (read(["noise"], {"blind": sure(3.0)}, coarseness=0.89), "grain"),
        (read(["noise"], {"blind": sure(3.0)}, coarseness=1.0, file_quality=88), "grain"),
        (read(["noise", "jpeg"], {"blind": sure(3.0)}, coarseness=1.0), "grain"),
        (read(["noise", "grain"], {"blind": sure(3.0)}, coarseness=1.0), "grain"),
        (read(["grain"], {"blind": sure(3.0)}, coarseness=1.0), "grain"),
        (read(["jpeg"], {"blind": sure(3.0)}, coarseness=1.0), "blind"),
        (read(["noise", "enlarged"], {"blind": sure(3.0)}), "blind"),
        (read([], {"blind": sure(3.0)}, coarseness=1.0), "blind"),
        (read(["noise"], {"jpeg": sure(3.0)}, coarseness=1.0), "grain"),
        (read(["jpeg"], {"jpeg": sure(3.0)}, coarseness=1.0), "jpeg"),
        (noisy_file(FILE_SURE), "grain"),
        (noisy_file(FILE_SURE - 0.01), "jpeg"),
    ],
)
def test_noise_alone_goes_to_weights_for_it(reading, prior):
    assert chosen(reading).prior == prior


def test_weights_of_another_kind_are_refused():
    with pytest.raises(CheckpointError, match="'reader' is needed here, as in reader"):
        load_weights("reader", "blind")
    with pytest.raises(CheckpointError, match="'indi' is needed here"):
        load_weights("direct", "reader")


@pytest.mark.parametrize("size", [(33, 32), (45, 37), (129, 61)])
def test_small_pictures_with_odd_sides_are_read(size):
    assert restore(torch.full((3, *size), 0.4), method="auto").picture.size == size
