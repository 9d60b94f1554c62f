"""What ``--method auto`` sees and what it chooses."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch.nn import functional as F

from pristina import restore
from pristina.auto import CAREFUL, FINENESS, FINENESS_WIDE, STRENGTH, choose, damage_seen
from pristina.errors import SizeError
from pristina.image.picture import Picture
from pristina.image.statistics import (
    ImageStatistics,
    blockiness,
    damage_statistics,
    fineness,
    noise_floor,
    whiteness,
)
from pristina.metrics.fidelity import psnr
from pristina.operators.recipe import Recipe
from pristina.priors.gaussian import GaussianPrior
from pristina.request import Request
from pristina.seeds import generators
from pristina.types import Draw

CLEAN = {
    name: torch.from_numpy(getattr(data, name)().copy()).permute(2, 0, 1).float() / 255
    for name in ("astronaut", "coffee", "chelsea")
}


def damaged(x, recipe):
    y = (
        Recipe.parse(recipe)
        .build(0)
        .degrade(x[None], Draw(generators(0, 1), 1))
        .detach()
        .clamp(0, 1)
    )
    return (255 * y[0]).round() / 255


def seen(**changes):
    undamaged = ImageStatistics(
        480,
        640,
        None,
        blockiness=1.0,
        noise=0.004,
        whiteness=0.9,
        noise_wide=0.008,
        whiteness_wide=0.4,
        fineness=0.7,
        fineness_wide=0.5,
    )
    return replace(undamaged, **changes)


def chosen(statistics, kind="direct", prior=None):
    request, why = choose(statistics, Request(prior=prior), kind)
    return SimpleNamespace(**vars(request), why=why)


@pytest.mark.parametrize("name", CLEAN)
def test_clean_pictures_are_left_alone_and_damaged_ones_are_not(name):
    x = CLEAN[name]
    assert chosen(damage_statistics(Picture.from_pixels(x))).method == "nothing"
    for recipe, prior in (
        ("noise:sigma=0.06", "denoise"),
        ("jpeg:quality=10", "jpeg"),
        ("blur:sigma=2", "photos-blind"),
    ):
        choice = chosen(damage_statistics(Picture.from_pixels(damaged(x, recipe))))
        assert choice.method == "indi" and choice.prior == prior and prior in choice.why, recipe


def test_noise_is_measured_where_the_picture_is_smooth():
    flat = torch.full((1, 3, 128, 128), 0.5)
    noise = 0.05 * torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    textured = flat.clone()
    textured[..., :96] += 0.3 * torch.rand(
        1, 3, 128, 96, generator=torch.Generator().manual_seed(1)
    )
    assert float(noise_floor(flat + noise)) == pytest.approx(0.045, rel=0.08)
    assert float(noise_floor(textured)) < 1e-3
    assert float(noise_floor(textured + noise)) == pytest.approx(
        0.048, rel=0.1
    )  # fewer smooth places to choose from


def test_white_noise_is_told_from_texture():
    x = CLEAN["coffee"]
    assert (
        float(whiteness(damaged(x, "noise:sigma=0.04")[None]))
        > 0.8
        > 0.7
        > float(whiteness(x[None]))
    )
    noise = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    assert float(whiteness(0.5 + 0.05 * noise)) == pytest.approx(1, abs=0.1)


def test_fine_detail_goes_with_blur():
    x = CLEAN["astronaut"][None]
    figures = [float(fineness(damaged(x[0], f"blur:sigma={s}")[None])) for s in (0.5, 1, 2)]
    assert float(fineness(x)) > figures[0] > figures[1] > figures[2]
    assert float(blockiness(x)) < 1.3


def test_enlargement_by_four_shows_over_two_octaves_only():
    x = CLEAN["coffee"][None]
    reduce = Recipe.parse("bicubic:factor=4").build(0)
    large = reduce.initial(reduce(x)).clamp(0, 1)
    assert float(fineness(large)) > FINENESS
    assert float(fineness(large, octaves=2)) < FINENESS_WIDE < float(fineness(x, octaves=2))


@pytest.mark.parametrize(
    ("changes", "method", "word"),
    [
        ({}, "nothing", "left as it is"),
        ({"noise": 0.1}, "indi", "with denoise"),
        ({"noise": 0.03, "whiteness": 0.5}, "nothing", "left as it is"),
        ({"noise": 0.1, "whiteness": 0.5}, "indi", "shows noise"),
        ({"jpeg_quality": 20}, "indi", "with jpeg"),
        ({"jpeg_quality": 85}, "indi", "with jpeg"),
        ({"jpeg_quality": 20, "noise": 0.1}, "indi", "noise and JPEG compression"),
        ({"jpeg_quality": 20, "noise": 0.1}, "indi", "with mixed"),
        ({"jpeg_quality": 80, "noise_wide": 0.03, "whiteness_wide": 0.8}, "indi", "with mixed"),
        ({"jpeg_quality": 80, "noise_wide": 0.03}, "indi", "with jpeg"),
        (
            {"jpeg_quality": 95, "noise": 0.1, "noise_wide": 0.03, "whiteness_wide": 0.8},
            "indi",
            "with mixed",
        ),
        ({"jpeg_quality": 95, "noise": 0.1}, "indi", "with denoise"),
        ({"jpeg_quality": 95, "noise_wide": 0.03, "whiteness_wide": 0.8}, "nothing", "quality 95"),
        ({"noise_wide": 0.03, "whiteness_wide": 0.8}, "nothing", "left as it is"),
        ({"jpeg_quality": 20, "fineness": 0.2}, "indi", "with jpeg"),
        ({"jpeg_quality": 95}, "nothing", "quality 95"),
        ({"blockiness": 3.0}, "indi", "with jpeg"),
        ({"fineness": 0.2}, "indi", "enlargement"),
        ({"fineness_wide": 0.1}, "indi", "enlargement"),
        ({"noise": 0.1, "fineness": 0.2}, "indi", "shows noise and blur"),
    ],
)
def test_what_is_seen_decides(changes, method, word):
    choice = chosen(seen(**changes))
    assert choice.method == method and word in choice.why


def test_light_damage_is_repaired_gently():
    soft = seen(fineness=0.2)
    assert (
        chosen(soft).settings == {"strength": STRENGTH}
        and "photos-blind at strength 0.8" in chosen(soft).why
    )
    assert (
        not chosen(seen(noise=0.1, fineness=0.2)).settings
        and not chosen(seen(fineness_wide=0.1)).settings
    )
    assert not chosen(soft, "direct", "mine").settings  # measured for the shipped weights only
    blurred = damaged(CLEAN["coffee"], "blur:sigma=1.5")[:, :128, :128]
    done = restore(blurred)
    assert done.result.record()["settings"]["strength"] == STRENGTH
    assert torch.equal(
        done.picture.pixels,
        restore(blurred, method="indi", settings={"strength": STRENGTH}).picture.pixels,
    )


def test_one_kind_of_damage_goes_to_its_specialist():
    blocks = damaged(CLEAN["coffee"], "jpeg:quality=8")[:, :64, :64]
    done = restore(blocks)
    assert done.plan.request.prior == "jpeg" and torch.equal(
        done.picture.pixels, restore(blocks, method="indi", prior="jpeg").picture.pixels
    )
    assert restore(blocks, prior="photos-blind").plan.request.prior == "photos-blind"
    assert chosen(seen(fineness=0.2)).prior == "photos-blind"


def test_noise_is_seen_under_compression(tmp_path):
    for name, x in CLEAN.items():
        for pixels, prior in ((x, "jpeg"), (damaged(x, "noise:sigma=0.1"), "mixed")):
            Picture.from_pixels(pixels).to_pillow().save(tmp_path / "a.jpg", quality=75)
            assert chosen(damage_statistics(Picture.open(tmp_path / "a.jpg"))).prior == prior, name


def test_the_weights_that_are_named_decide_the_method():
    assert chosen(seen(noise=0.1), "diffusion", "faces").method == "mmse"
    assert chosen(seen(fineness=0.2), "diffusion", "faces").method == "diip"
    assert chosen(seen(), "diffusion", "faces").method == "nothing"
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
    assert done.plan.request.method == "nothing"


@pytest.mark.parametrize("quality", [3, 10, 40, 75, 95])
def test_the_quality_of_a_jpeg_file_is_read_from_its_tables(quality, tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(path, quality=quality)
    assert damage_statistics(Picture.open(path)).jpeg_quality == quality
    Image.open(path).save(tmp_path / "a.png")
    assert Picture.open(tmp_path / "a.png").jpeg_quality is None


def test_a_picture_too_small_to_judge_is_refused():
    with pytest.raises(SizeError, match="name a method"):
        damage_statistics(Picture.from_pixels(torch.rand(3, 20, 40)))


@pytest.mark.parametrize(("top", "left"), [(0, 0), (4, 4), (3, 7), (1, 0)])
def test_blocks_are_seen_wherever_their_grid_begins(top, left):
    blocks = damaged(CLEAN["astronaut"], "jpeg:quality=10")
    cut = Picture.from_pixels(blocks[:, top : top + 256, left : left + 256])
    statistics = damage_statistics(cut)
    assert statistics.blockiness > 2.0 and chosen(statistics).prior == "jpeg"
    assert (float(blockiness(cut.pixels[None])) > 2.0) == (top == left == 0)


def paper(x, amplitude=0.06, width=0.8):
    """Add the texture of paper: noise that neighbours share, the same in all colours."""
    noise = torch.randn(1, 1, *x.shape[-2:], generator=torch.Generator().manual_seed(0))
    line = torch.exp(-0.5 * (torch.arange(-6.0, 7.0) / width) ** 2)
    noise = F.conv2d(noise, line.view(1, 1, 1, -1), padding=(0, 6))
    noise = F.conv2d(noise, line.view(1, 1, -1, 1), padding=(6, 0))
    return (255 * (x + amplitude * noise[0] / noise.std()).clamp(0, 1)).round() / 255


@pytest.mark.parametrize("name", CLEAN)
def test_a_second_look_finds_what_the_statistics_do_not_show(name):
    clean, damaged_ = (x[:, :256, 100:356] for x in (CLEAN[name], paper(CLEAN[name])))
    assert damage_seen(damage_statistics(Picture.from_pixels(damaged_))) == []
    done = restore(damaged_)
    assert (done.result.method, done.plan.weights_name) == ("indi", CAREFUL)
    assert psnr(done.picture.pixels[None], clean[None]) > psnr(damaged_[None], clean[None]) + 1.5
    assert "second" not in done.notes[0] and "texture" in done.notes[0]
    alone = restore(clean)
    assert alone.result.method == "nothing" and torch.equal(alone.picture.pixels, clean)


def test_grey_noise_goes_to_weights_that_know_it():
    """``denoise`` knows noise that differs between the colours, and leaves the other."""
    x = CLEAN["astronaut"].mean(0, keepdim=True).expand(3, -1, -1)[:, :256, :256]
    noise = 0.08 * torch.randn(1, 256, 256, generator=torch.Generator().manual_seed(0))
    y = (255 * (x + noise).clamp(0, 1)).round() / 255
    done = restore(y)
    gain = [
        float(psnr(picture.pixels[None], x[None]) - psnr(y[None], x[None]))
        for picture in (done.picture, restore(y, method="indi", prior="denoise").picture)
    ]
    assert done.plan.weights_name == CAREFUL and gain[0] > 6 > 3 > gain[1]
