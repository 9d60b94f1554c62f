"""Colour profiles: to sRGB as LittleCMS does, and back without loss."""

import io
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from skimage.color import deltaE_ciede2000

from pristina.image.picture import Picture
from pristina.image.profiles import CurveProfile, ProfileError, TableProfile
from tests.image import make

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
P3 = make.rgb_profile(make.DISPLAY_P3, make.SRGB_CURVE)
ADOBE = make.rgb_profile(make.ADOBE_RGB, 2.19921875)
TABLE = make.rgb_profile(make.DISPLAY_P3, np.linspace(0, 1, 1024) ** 2.2)
LINEAR = make.rgb_profile(make.DISPLAY_P3, np.linspace(0, 1, 2))
LEVELS = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)


def png(levels, profile):
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG", icc_profile=profile)
    return file.getvalue()


def by_littlecms(levels, profile):
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(Image.fromarray(levels), source, target, outputMode="RGB")
    return np.asarray(converted).astype(np.float64)


@pytest.mark.parametrize("profile", [SRGB, P3, ADOBE, TABLE], ids=["srgb", "p3", "adobe", "table"])
def test_colours_are_those_of_littlecms(profile):
    picture = Picture.decode(png(LEVELS, profile), "a.png")
    off = np.abs(255 * picture.pixels.permute(1, 2, 0).numpy() - by_littlecms(LEVELS, profile))
    assert off.max() < 1 and off.mean() < 0.26 and picture.notes == ()
    assert (picture.beyond is None) == (profile is SRGB)


@pytest.mark.parametrize("gamma", [1.8, 2.2, 2.6])
def test_grey_is_that_of_littlecms(gamma):
    profile, levels = make.grey_profile(gamma), LEVELS[..., 0]
    picture = Picture.decode(png(levels, profile), "a.png")
    off = np.abs(255 * picture.pixels.permute(1, 2, 0).numpy() - by_littlecms(levels, profile))
    assert off.max() < 2.5 and picture.grey and picture.notes == ()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture.encode("a.png")))), levels)


def test_linear_grey():
    x = np.linspace(0, 1, 256)[None].repeat(8, 0)
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    levels = (65535 * linear).round().astype(np.uint16)
    packed = b"g\0\0" + zlib.compress(make.grey_profile(1.0))
    picture = Picture.decode(make.png(levels, 0, 16, make.chunk(b"iCCP", packed)), "a.png")
    assert np.abs(picture.pixels[0].numpy() - x).max() < 1e-4
    written = Picture.decode(picture.encode("b.png"), "b.png")
    torch.testing.assert_close(written.pixels, picture.pixels, atol=1e-6, rtol=0)


def test_lightness_as_connection_space():
    profile = make.grey_profile(1.0, b"Lab ")
    picture = Picture.decode(png(LEVELS[..., 0], profile), "a.png")
    right = by_littlecms(LEVELS[..., 0], profile)
    assert np.abs(255 * picture.pixels.permute(1, 2, 0).numpy() - right).max() < 1


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg", "avif"])
@pytest.mark.parametrize(
    "profile", [SRGB, P3, ADOBE, LINEAR], ids=["srgb", "p3", "adobe", "linear"]
)
def test_the_profile_that_came_is_given_back(profile, suffix):
    picture = Picture.decode(png(LEVELS, profile), "a.png")
    with Image.open(io.BytesIO(picture.encode(f"b.{suffix}"))) as again:
        assert again.info["icc_profile"] == profile
        if suffix in ("png", "tif"):
            assert np.array_equal(np.asarray(again), LEVELS)


def test_display_p3_in_and_out_within_one_delta_e(tmp_path):
    axis = np.linspace(0, 255, 17).round().astype(np.uint8)
    levels = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(17, -1, 3)
    picture = Picture.decode(png(levels, P3), "a.png")
    assert float(picture.beyond.abs().max()) > 0.1  # Half of the P3 cube's edge is not in sRGB.
    restored = picture.with_pixels(picture.pixels.clone())
    restored.save(tmp_path / "b.png")
    written = np.asarray(Image.open(tmp_path / "b.png"))

    def lab(values):
        source = ImageCms.ImageCmsProfile(io.BytesIO(P3))
        target = ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(Image.fromarray(values), source, target, outputMode="LAB")
        planes = np.asarray(image).astype(np.float64)
        signed = np.where(planes[..., 1:] > 127, planes[..., 1:] - 256, planes[..., 1:])
        return np.concatenate([planes[..., :1] / 2.55, signed], -1)

    assert deltaE_ciede2000(lab(written), lab(levels)).max() < 1
    assert np.abs(written.astype(int) - levels).max() <= 1


def test_colours_that_were_changed_lose_what_lay_beyond():
    red = np.full((8, 8, 3), (255, 0, 0), np.uint8)
    picture = Picture.decode(png(red, P3), "a.png")
    grey = picture.with_pixels(torch.full((3, 8, 8), 0.5))
    written = np.asarray(Image.open(io.BytesIO(grey.encode("b.png"))))
    assert np.abs(written.astype(int) - 128).max() <= 1
    larger = picture.with_pixels(picture.pixels.repeat_interleave(2, 1).repeat_interleave(2, 2))
    written = np.asarray(Image.open(io.BytesIO(larger.encode("b.png"))))
    assert np.abs(written.astype(int) - (255, 0, 0)).max() <= 1


def test_16_bits_and_a_profile_survive_together():
    levels = np.random.default_rng(0).integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    chunk = make.chunk(b"iCCP", b"p\0\0" + zlib.compress(P3))
    picture = Picture.decode(make.png(levels, 2, 16, chunk), "a.png")
    for suffix in ("png", "tif"):
        again = Picture.decode(picture.encode(f"b.{suffix}"), f"b.{suffix}")
        assert again.metadata.profile == P3 and again.depth == 16
        torch.testing.assert_close(again.pixels, picture.pixels, atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (b"nonsense", "no ICC profile"),
        (make.grey_profile(2.2), "it is for GRAY"),
        (P3[:200], "could not be used"),
        (make.rgb_profile(make.DISPLAY_P3, [1.0, 0.0]), ""),
        (make.rgb_profile([make.DISPLAY_P3[0]] * 3, 2.2), "no way back"),
    ],
)
def test_profiles_that_cannot_be_used_are_noted(profile, words):
    picture = Picture.decode(png(LEVELS, profile), "a.png")
    if not words or words == "no way back":  # LittleCMS takes what the formulas refuse.
        assert (
            np.abs(
                255 * picture.pixels.permute(1, 2, 0).numpy() - by_littlecms(LEVELS, profile)
            ).max()
            < 1
        )
    else:
        assert np.array_equal((255 * picture.pixels).round().permute(1, 2, 0).numpy(), LEVELS)
    assert not words or words in picture.notes[0]


def test_a_profile_is_dropped_where_it_does_not_fit_any_more(tmp_path):
    picture = Picture.decode(png(LEVELS, P3), "a.png")
    assert "sRGB" in picture.check_encodable("b.bmp")[0]
    written = np.asarray(Image.open(io.BytesIO(picture.encode("b.bmp"))))
    assert np.abs(written - by_littlecms(LEVELS, P3)).max() <= 1
    grey = Picture.decode(png(LEVELS[..., 0], make.grey_profile(1.8)), "a.png")
    coloured = Picture(grey.pixels, metadata=grey.metadata)
    with Image.open(io.BytesIO(coloured.encode("b.png"))) as again:
        assert again.mode == "RGB" and "icc_profile" not in again.info


def test_each_kind_refuses_what_is_not_its_own():
    for kind, data, space in (
        (CurveProfile, P3, "GRAY"),
        (CurveProfile, P3[:140], "RGB"),
        (TableProfile, b"x" * 200, "RGB"),
        (TableProfile, P3, "CMYK"),
    ):
        with pytest.raises(ProfileError):
            kind(data, space)
    assert TableProfile(SRGB, "RGB").has_way_back and CurveProfile(SRGB, "RGB").is_srgb


def test_curves_follow_their_formulas():
    x = np.linspace(0, 1, 65536)
    for curve, right in (
        ((0, (2.0,)), x**2),
        ((1, (2.0, 1.25, -0.25)), np.where(x >= 0.2, (1.25 * x - 0.25) ** 2, 0)),
        ((2, (2.0, 0.8, 0.0, 0.2)), (0.8 * x) ** 2 + 0.2),
        (
            (4, (2.0, 0.9, 0.1, 0.5, 0.5, 0.0, 0.0)),
            np.where(x >= 0.5, (0.9 * x + 0.1) ** 2, 0.5 * x),
        ),
    ):
        found = CurveProfile(make.grey_profile(curve), "GRAY").curves[0]
        assert np.abs(found - np.maximum.accumulate(right.clip(0, 1))).max() < 1e-4


@pytest.mark.parametrize(("gamma", "noted"), [(45455, False), (100000, True)])
def test_a_gamma_without_a_profile_is_noted_if_it_is_another(gamma, noted):
    chunk = make.chunk(b"gAMA", gamma.to_bytes(4, "big"))
    for chunks, expected in (([chunk], noted), ([chunk, make.chunk(b"sRGB", b"\0")], False)):
        notes = Picture.decode(make.png(LEVELS, 2, 8, *chunks), "a.png").notes
        assert any("gamma" in note for note in notes) == expected


def test_damaged_profiles_never_cost_the_picture():
    whole = [P3, TABLE, SRGB, make.grey_profile(1.8), make.grey_profile(1.0, b"Lab ")]
    for seed in range(150):
        rng = np.random.default_rng(seed)
        data = bytearray(whole[seed % len(whole)])
        for _ in range(rng.integers(1, 8)):
            at = int(rng.integers(len(data) - 4))
            data[at : at + 4] = rng.bytes(4) if rng.random() < 0.5 else b"\xff" * 4
        levels = LEVELS[..., 0] if b"GRAY" in data else LEVELS
        picture = Picture.decode(png(levels, bytes(data)), "a.png")
        assert picture.pixels.isfinite().all() and picture.size == LEVELS.shape[:2]
        assert picture.encode("b.png")
