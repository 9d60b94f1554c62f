"""Pictures: what comes in comes out, and what cannot be read or written is named."""

import hashlib
import os
import resource
import signal
import struct
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pristina.errors import PictureError, SettingError
from pristina.image.encoding import check_format, encode
from pristina.image.picture import Picture
from tests.image import make


def read(path):
    with Image.open(path) as image:
        image.load()
        return image


@pytest.fixture
def colours():
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


@pytest.fixture
def smooth():
    """A picture that JPEG and WebP keep well."""
    x = np.linspace(0, 255, 64)[None].repeat(48, 0)
    return np.stack([x, x[:, ::-1], 0 * x + 90], -1).astype(np.uint8)


def test_colour_round_trip_is_exact(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / "a.png")
    picture = Picture.open(tmp_path / "a.png")
    assert picture.size == (12, 20) and picture.alpha is None and not picture.grey
    assert picture.pixels.dtype == torch.float32 and picture.pixels.max() <= 1
    assert picture.format == "PNG" and picture.depth == 8 and picture.beyond is None
    assert picture.sha256 == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    picture.save(tmp_path / "b.png")
    assert np.array_equal(np.asarray(read(tmp_path / "b.png")), colours)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [(mode, suffix) for mode in ("L", "RGB") for suffix in ("png", "tif", "bmp")]
    + [(mode, suffix) for mode in ("LA", "RGBA") for suffix in ("png", "tif")],
)
def test_lossless_formats_are_exact(tmp_path, colours, mode, suffix):
    levels = np.dstack([colours, colours[::-1, ::-1, :1]])
    Image.fromarray(levels).convert(mode).save(tmp_path / "a.png")
    picture = Picture.open(tmp_path / "a.png")
    picture.save(tmp_path / f"b.{suffix}")
    again = Picture.open(tmp_path / f"b.{suffix}")
    assert torch.equal(again.pixels, picture.pixels) and again.grey == picture.grey
    assert (again.alpha is None) == (picture.alpha is None)
    assert again.alpha is None or torch.equal(again.alpha, picture.alpha)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK", "I;16", "LAB", "YCbCr"])
def test_every_mode_is_read(tmp_path, colours, mode):
    rgba = Image.fromarray(np.dstack([colours, 255 - colours[..., :1]]))
    if mode == "I;16":
        image = Image.fromarray(np.full((12, 20), 32768, np.uint16))
    elif mode == "LAB":
        image = Image.fromarray(colours, "RGB").convert("RGB")
        image = Image.frombytes("LAB", image.size, image.tobytes())
    else:
        image = rgba.convert("RGB" if mode in ("P", "YCbCr") else "RGBA").convert(mode)
    path = tmp_path / (
        "a.tif" if mode in ("CMYK", "LAB") else "a.jpg" if mode == "YCbCr" else "a.png"
    )
    image.save(path)
    picture = Picture.open(path)
    assert picture.pixels.shape == (3, 12, 20)
    assert picture.pixels.min() >= 0 and picture.pixels.max() <= 1
    assert (picture.alpha is not None) == (mode in ("LA", "RGBA"))
    assert picture.grey == (mode in ("L", "LA", "1", "I;16"))
    assert any("CMYK" in note for note in picture.notes) == (mode == "CMYK")
    assert any("palette" in note for note in picture.notes) == (mode == "P")
    if mode == "I;16":
        torch.testing.assert_close(picture.pixels, torch.full((3, 12, 20), 32768 / 65535))
    if mode == "RGBA":
        torch.testing.assert_close(
            picture.alpha[0] * 255, torch.from_numpy(255 - colours[..., 0]).float()
        )
    picture.save(tmp_path / "b.png")
    written = {"LA": "LA", "I;16": "I;16", "L": "L", "1": "L", "RGBA": "RGBA"}.get(mode, "RGB")
    assert read(tmp_path / "b.png").mode == written


def test_pipes_are_read_once_and_devices_are_refused(tmp_path, colours, monkeypatch):
    Image.fromarray(colours).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    reading, writing = os.pipe()
    sender = threading.Thread(target=lambda: (os.write(writing, data), os.close(writing)))
    sender.start()
    picture = Picture.open(f"/dev/fd/{reading}")
    sender.join()
    os.close(reading)
    assert np.array_equal((255 * picture.pixels).round().permute(1, 2, 0).numpy(), colours)
    assert picture.sha256 == hashlib.sha256(data).hexdigest()
    os.mkfifo(tmp_path / "pipe.png")
    for path, words in ((tmp_path / "pipe.png", "named pipe"), ("/dev/zero", "is a device")):
        with pytest.raises(PictureError, match=words):
            Picture.open(path)
    monkeypatch.setattr("pristina.files.MAX_FILE_BYTES", len(data) - 1)
    with pytest.raises(PictureError, match="are not read"):
        Picture.open(tmp_path / "a.png")


def test_only_the_promised_formats_are_tried(tmp_path):
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\n"
    )
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png", "TGA")
    for name in "ab":
        with pytest.raises(PictureError, match="not a picture that can be read"):
            Picture.open(tmp_path / f"{name}.png")


def test_a_name_of_another_format_is_noted(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / "a.jpg", "WEBP", lossless=True)
    picture = Picture.open(tmp_path / "a.jpg")
    assert picture.format == "WEBP" and "holds WEBP" in picture.notes[0]
    Image.fromarray(colours).save(tmp_path / "b.dat", "PNG")
    assert Picture.open(tmp_path / "b.dat").notes == ()


def test_what_cannot_be_read_is_named(tmp_path, colours):
    Image.fromarray(np.repeat(np.repeat(colours, 20, 0), 20, 1)).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    Image.fromarray(colours).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "odd.tif").write_bytes(make.tiff(np.zeros((4, 4), np.uint8), bits=5))
    for name, words in {
        "missing.png": "cannot be read",
        "empty.png": "is empty",
        "text.png": "not a picture that can be read",
        "odd.tif": "of a form that is not read",
        "cut.jpg": "damaged or cut off",
        "cut.png": "damaged or cut off",
        ".": "is a folder",
    }.items():
        with pytest.raises(PictureError, match=words):
            Picture.open(tmp_path / name)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_files_are_read_as_far_as_they_go_if_asked(tmp_path, colours, suffix):
    Image.fromarray(np.repeat(np.repeat(colours, 20, 0), 20, 1)).save(tmp_path / f"a.{suffix}")
    whole = Picture.open(tmp_path / f"a.{suffix}", truncated=True)
    assert not whole.damaged and whole.notes == ()
    data = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(data[: 3 * len(data) // 4])
    cut = Picture.open(tmp_path / f"a.{suffix}", truncated=True)
    assert cut.damaged and "as far as it goes" in cut.notes[0]
    assert torch.equal(cut.pixels[:, :80], whole.pixels[:, :80])
    with pytest.raises(PictureError, match="damaged or cut off"):
        Picture.open(tmp_path / f"a.{suffix}")


def test_later_pages_may_be_cut_off(tmp_path, colours):
    pages = [Image.fromarray(np.roll(colours, i, 0)) for i in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    whole = (tmp_path / "a.tif").read_bytes()
    assert "several frames" in Picture.open(tmp_path / "a.tif").notes[0]
    opened = 0
    for size in range(len(whole) // 3, len(whole), 97):
        (tmp_path / "a.tif").write_bytes(whole[:size])
        try:
            picture = Picture.open(tmp_path / "a.tif")
        except PictureError:
            continue
        opened += 1
        assert "several frames" in picture.notes[0]
        assert np.array_equal((255 * picture.pixels).round().permute(1, 2, 0).numpy(), colours)
    assert opened > 5


def test_absurd_size_is_refused_before_it_is_decoded(tmp_path):
    for side, words in ((60000, r"60000 x 60000|absurd size"), (13360, "13360 x 13360")):
        head = make.chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + b"\0\0\0\0IDAT")
        with pytest.raises(PictureError, match=words):
            Picture.open(tmp_path / "bomb.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
def test_a_full_disk_leaves_no_half_picture(tmp_path, suffix):
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    picture = Picture.from_pixels(noise)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(PictureError, match="cannot be written"):
            picture.save(tmp_path / f"a.{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "width"), [("a.jpg", 70000), ("a.webp", 17000), ("a.avif", 20000)]
)
def test_what_a_format_cannot_hold_is_named_before_any_work(tmp_path, name, width):
    words = f"cannot hold this picture of {width} x 1 px"
    with pytest.raises(PictureError, match=words):
        Picture.from_pixels(torch.zeros(3, 1, width)).save(tmp_path / name)
    small = Picture.from_pixels(torch.zeros(3, 1, 4))
    assert small.check_encodable(tmp_path / name) == ()
    with pytest.raises(PictureError, match=words):
        small.check_encodable(tmp_path / name, size=(1, width))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (13, 1), (31, 37), (5000, 20)])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp", "avif"])
def test_odd_sizes_are_kept(tmp_path, size, suffix):
    picture = Picture.from_pixels(torch.full((3, *size), 0.4))
    picture.save(tmp_path / f"a.{suffix}")
    again = Picture.open(tmp_path / f"a.{suffix}")
    assert again.size == size and (again.pixels - 0.4).abs().max() < 0.03


def test_alpha_and_resolution_go_along_at_another_size():
    picture = Picture(torch.zeros(3, 4, 6), alpha=torch.full((1, 4, 6), 0.5))
    picture = replace(picture, metadata=replace(picture.metadata, dpi=(300.0, 150.0)))
    same = picture.with_pixels(torch.zeros(3, 4, 6))
    assert torch.equal(same.alpha, picture.alpha) and same.metadata.dpi == (300, 150)
    larger = picture.with_pixels(torch.zeros(3, 8, 18))
    torch.testing.assert_close(larger.alpha, torch.full((1, 8, 18), 0.5))
    assert larger.metadata.dpi == (900, 300)  # The print stays as large.


def test_transparent_pixels_take_the_colours_around_them():
    x = torch.full((3, 37, 53), 0.7)
    alpha = torch.ones(1, 37, 53)
    alpha[:, 5:30, 10:44] = 0
    alpha[:, 4] = 0.5
    x[:, 5:30, 10:44] = 0
    visible = Picture(x, alpha=alpha).visible
    torch.testing.assert_close(visible, torch.full_like(x, 0.7))
    assert Picture(x).visible is x
    assert torch.equal(Picture(x, alpha=torch.zeros_like(alpha)).visible, x)


def test_what_cannot_be_written_is_named(tmp_path):
    picture = Picture(torch.zeros(3, 4, 4), alpha=torch.ones(1, 4, 4))
    for attempt in (picture.save, picture.check_encodable):
        with pytest.raises(PictureError, match="JPEG cannot hold"):
            attempt(tmp_path / "a.jpg")
        with pytest.raises(PictureError, match="should end in"):
            attempt(tmp_path / "a.xyz")
    for quality in (0, 101):
        with pytest.raises(SettingError, match="between 1 and 100"):
            Picture(torch.zeros(3, 4, 4)).encode(tmp_path / "a.jpg", quality)
    with pytest.raises(PictureError, match="should end in"):
        check_format(tmp_path / "a.gif")
    assert encode(Image.new("L", (3, 2), 7), tmp_path / "a.png").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(4, 4),
        torch.zeros(2, 4, 4),
        torch.zeros(3, 0, 4),
        torch.full((3, 4, 4), float("nan")),
        torch.full((3, 4, 4), float("inf")),
        torch.zeros(3, 4, 4, dtype=torch.uint8),
        torch.linspace(0, 255, 64).expand(3, 64, 64),
        torch.linspace(-1, 1, 64).expand(3, 64, 64),
        torch.full((3, 2, 2), 1.5),
    ],
)
def test_tensors_on_another_scale_are_refused(pixels):
    with pytest.raises(PictureError, match="Pixels"):
        Picture.from_pixels(pixels)


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.5])
def test_noise_beyond_the_range_is_taken_as_it_is(sigma):
    generator = torch.Generator().manual_seed(0)
    noisy = torch.linspace(0, 1, 64).expand(3, 64, 64) + sigma * torch.randn(
        3, 64, 64, generator=generator
    )
    assert torch.equal(Picture.from_pixels(noisy).pixels, noisy)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float16", "float32", "float64", "bool"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_arrays_are_taken(kind, shape):
    x = np.random.default_rng(0).random(shape)
    white = {"uint8": 255, "uint16": 65535}.get(kind, 1)
    array = (
        (x > 0.5)
        if kind == "bool"
        else (white * x).round().astype(kind)
        if white > 1
        else x.astype(kind)
    )
    picture = Picture.from_array(array)
    assert picture.size == (5, 7) and picture.grey == (shape[2:] in ((), (1,)))
    assert picture.depth == (16 if kind == "uint16" else 8)
    x = array.astype(np.float64).reshape(5, 7, -1) / white
    assert np.allclose(picture.pixels.permute(1, 2, 0).numpy(), x[..., :3], atol=1e-6)
    assert (picture.alpha is None) == (shape[2:] != (4,))
    assert picture.alpha is None or np.allclose(picture.alpha[0].numpy(), x[..., 3], atol=1e-6)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 4, 5)), "height, width"),
        (np.zeros((4,)), "height, width"),
        (np.zeros((0, 4)), "height, width"),
        (np.zeros((4, 4), np.int64), "uint8 or uint16"),
        (np.zeros((4, 4), complex), "uint8 or uint16"),
        (np.full((4, 4), 200.0), "scale them first"),
        (np.full((4, 4), np.nan), "NaN"),
        ("picture.png", "not str"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array, words):
    with pytest.raises(PictureError, match=words):
        Picture.from_array(array)


def test_pillow_images_are_read_by_the_rules_for_files(tmp_path, colours):
    profile = make.rgb_profile(make.DISPLAY_P3, make.SRGB_CURVE)
    turned = make.exif((0x0112, 3, 1, struct.pack("<H", 6)), (0x010E, 2, 4, b"abc\0"))
    Image.fromarray(colours).save(tmp_path / "a.png", icc_profile=profile, exif=turned)
    from_file, from_image = (
        Picture.open(tmp_path / "a.png"),
        Picture.of(Image.open(tmp_path / "a.png")),
    )
    assert torch.equal(from_file.pixels, from_image.pixels) and from_image.size == (20, 12)
    assert from_image.exif == from_file.exif and from_image.metadata.profile == profile
    grey = Image.fromarray(np.full((4, 4), 65535, np.uint16))
    assert float(Picture.of(grey).pixels.mean()) == 1 and Picture.of(grey).depth == 16
    assert "palette" in Picture.of(Image.new("P", (4, 4))).notes[0]
    with pytest.raises(PictureError, match="cannot be used"):
        Picture.of(Image.new("F", (4, 4), 255))


def test_every_source_becomes_a_picture(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / "a.png")
    picture = Picture.open(tmp_path / "a.png")
    assert Picture.of(picture) is picture
    for source in (
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        picture.pixels,
        colours,
        Image.fromarray(colours),
    ):
        assert torch.equal(Picture.of(source).pixels, picture.pixels)
    with pytest.raises(PictureError, match="not int"):
        Picture.of(3)


@settings(max_examples=30, deadline=None)
@given(
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    channels=st.sampled_from([1, 3, 4]),
    deep=st.booleans(),
    suffix=st.sampled_from([".png", ".tif"]),
    seed=st.integers(0, 999),
)
def test_whole_numbers_survive_lossless_files(tmp_path_factory, size, channels, deep, suffix, seed):
    kind, white = (np.uint16, 65536) if deep else (np.uint8, 256)
    levels = np.random.default_rng(seed).integers(0, white, (*size, channels)).astype(kind)
    picture = Picture.from_array(levels)
    again = Picture.decode(picture.encode(f"a{suffix}"), f"a{suffix}")
    assert torch.equal(again.pixels, picture.pixels) and again.depth == picture.depth
    assert (again.alpha is None and channels < 4) or torch.equal(again.alpha, picture.alpha)
