"""Samples: one rule for each kind, whatever the format, depth and byte order."""

import io
import struct

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageOps

from pristina.errors import PictureError
from pristina.image.picture import Picture
from tests.image import make

RAMP = np.linspace(0, 1, 64)[None].repeat(16, 0)
DEEP = np.random.default_rng(0).integers(0, 65536, (12, 20, 4), dtype=np.uint16)


def pixels(data, name="a"):
    return Picture.decode(data, name).pixels.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize(
    ("bits", "kind", "order"),
    [
        *((8, "u1", order) for order in "<>"),
        *((16, "u2", order) for order in "<>"),
        (12, "u2", "<"),
        (32, "u4", "<"),
    ],
)
def test_grey_tiff_of_every_depth(bits, kind, order, photometric):
    x = RAMP if photometric else 1 - RAMP
    data = make.tiff(
        ((2**bits - 1) * x).round().astype(kind), bits=bits, photometric=photometric, order=order
    )
    picture = Picture.decode(data, "a.tif")
    assert picture.grey and picture.notes == () and picture.depth == (8 if bits == 8 else 16)
    assert np.abs(picture.pixels[0].numpy() - RAMP).max() < 0.51 / (2**bits - 1) + 1e-6


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [16, 32])
def test_signed_whole_numbers(bits, order):
    top = 2 ** (bits - 1) - 1
    levels = (top * RAMP).round().astype(f"i{bits // 8}")
    found = pixels(make.tiff(levels, sample_format=2, order=order))
    assert np.abs(found[..., 0] - RAMP).max() < 1e-4
    with pytest.raises(PictureError, match="negative numbers"):
        pixels(make.tiff(-levels, sample_format=2, order=order))


def test_small_numbers_of_32_bits_are_not_taken_for_black():
    for kind, sample_format in (("u4", 1), ("i4", 2)):
        levels = (65535 * RAMP).round().astype(kind)
        with pytest.raises(PictureError, match="all would be black"):
            pixels(make.tiff(levels, sample_format=sample_format))
        assert pixels(make.tiff(0 * levels, sample_format=sample_format)).max() == 0


@pytest.mark.parametrize("scale", [1.0, 0.4, 0.003])
def test_floats_in_the_range_are_taken_as_they_are(scale):
    data = make.tiff((scale * RAMP).astype(np.float32), sample_format=3)
    assert np.array_equal(pixels(data)[..., 0], (scale * RAMP).astype(np.float32))
    data = make.tiff((1 - scale * RAMP).astype(np.float32), sample_format=3, photometric=0)
    assert np.abs(pixels(data)[..., 0] - scale * RAMP).max() < 1e-6


def test_floats_beyond_the_range():
    rng = np.random.default_rng(0)
    for levels in (255 * RAMP, 2 * RAMP, 2 * RAMP - 1, RAMP - 5):
        with pytest.raises(PictureError, match="scale them first"):
            pixels(make.tiff(levels.astype(np.float32), sample_format=3))
    noisy = (RAMP + rng.normal(0, 0.2, RAMP.shape)).astype(np.float32)
    picture = Picture.decode(make.tiff(noisy, sample_format=3), "a.tif")
    assert "cut off" in picture.notes[0]
    assert np.array_equal(picture.pixels[0].numpy(), noisy.clip(0, 1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(value):
    levels = RAMP.astype(np.float32)
    levels[3, 3] = value
    with pytest.raises(PictureError, match="1 of them are NaN or infinite"):
        pixels(make.tiff(levels, sample_format=3))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("marked", [False, True])
def test_grey_png_with_a_transparent_value(bits, marked):
    levels = np.random.default_rng(0).integers(0, 2**bits, (9, 13), dtype=np.uint16)
    value = int(levels[4, 5])
    chunks = [make.chunk(b"tRNS", struct.pack(">H", value))] if marked else []
    picture = Picture.decode(make.png(levels, 0, bits, *chunks), "a.png")
    assert picture.grey and picture.depth == (16 if bits == 16 else 8)
    assert np.allclose(picture.pixels[0].numpy(), levels / (2**bits - 1), atol=1e-6)
    assert (picture.alpha is not None) == marked
    if marked:
        assert np.array_equal(picture.alpha[0].numpy(), (levels != value).astype(np.float32))


@pytest.mark.parametrize("bits", [8, 16])
def test_colour_png_with_a_transparent_colour(bits):
    levels = np.random.default_rng(0).integers(0, 2**bits, (9, 13, 3), dtype=np.uint16)
    levels[2, 3] = levels[7, 1]
    levels[5, 5] = levels[2, 3] + (0, 0, 1)
    chunk = make.chunk(b"tRNS", struct.pack(">HHH", *map(int, levels[2, 3])))
    picture = Picture.decode(make.png(levels, 2, bits, chunk), "a.png")
    assert np.allclose(picture.pixels.permute(1, 2, 0).numpy(), levels / (2**bits - 1), atol=1e-6)
    assert (
        picture.alpha.sum() == 9 * 13 - 2 and picture.alpha[0, 2, 3] == picture.alpha[0, 7, 1] == 0
    )


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 1), 1)
    for name, form in (("a.png", "PNG"), ("a.gif", "GIF")):
        image.save(tmp_path / name, form, transparency=1)
        picture = Picture.open(tmp_path / name)
        assert picture.alpha[0, 1, 1] == 0 and picture.alpha.sum() == 15
        assert torch.equal(picture.pixels[:, 0, 0], torch.tensor([1.0, 0, 0]))


@pytest.mark.parametrize("colour_type", [0, 2, 4, 6])
def test_png_of_16_bits(colour_type):
    channels = {0: [0], 2: [0, 1, 2], 4: [0, 3], 6: [0, 1, 2, 3]}[colour_type]
    levels = DEEP[..., channels]
    picture = Picture.decode(make.png(levels.squeeze(), colour_type, 16), "a.png")
    assert picture.depth == 16 and picture.notes == () and picture.grey == (colour_type in (0, 4))
    n = 3 if colour_type in (2, 6) else 1
    assert np.allclose(
        picture.pixels[:n].permute(1, 2, 0).numpy(), levels[..., :n] / 65535, atol=1e-7
    )
    if colour_type > 2:
        assert np.allclose(picture.alpha[0].numpy(), levels[..., -1] / 65535, atol=1e-7)
    written = picture.encode("b.png")
    assert written[24] == 16 and written[25] == colour_type
    again = Picture.decode(written, "b.png")
    assert torch.equal(again.pixels, picture.pixels)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"compression": "zlib", "byteorder": ">"},
        {"tile": (16, 16)},
        {"rowsperstrip": 3},
    ],
    ids=str,
)
def test_tiff_of_16_bits(channels, how):
    file = io.BytesIO()
    kind = "minisblack" if channels == 1 else "rgb"
    extra = ["unassalpha"] if channels == 4 else None
    tifffile.imwrite(
        file, DEEP[..., :channels].squeeze(), photometric=kind, extrasamples=extra, **how
    )
    picture = Picture.decode(file.getvalue(), "a.tif")
    n = min(channels, 3)
    assert picture.depth == 16 and picture.notes == () and picture.grey == (channels == 1)
    assert np.allclose(
        picture.pixels[:n].permute(1, 2, 0).numpy(), DEEP[..., :n] / 65535, atol=1e-7
    )
    assert channels < 4 or np.allclose(picture.alpha[0].numpy(), DEEP[..., 3] / 65535, atol=1e-7)
    again = tifffile.imread(io.BytesIO(picture.encode("b.tif")))
    assert np.array_equal(again.reshape(DEEP[..., :channels].shape), DEEP[..., :channels])


def test_white_is_zero_bigtiff():
    file = io.BytesIO()
    tifffile.imwrite(file, DEEP[..., 0], photometric="miniswhite", bigtiff=True)
    assert np.allclose(pixels(file.getvalue())[..., 0], 1 - DEEP[..., 0] / 65535, atol=1e-7)


def test_premultiplied_colours_are_divided_by_their_opacity():
    alpha = np.linspace(0.2, 1, 20)[None, :, None].repeat(12, 0)
    colour = np.full((12, 20, 3), (0.9, 0.5, 0.1))
    for kind, white in ((np.uint8, 255), (np.uint16, 65535)):
        file = io.BytesIO()
        levels = (white * np.concatenate([colour * alpha, alpha], -1)).round().astype(kind)
        tifffile.imwrite(file, levels, photometric="rgb", extrasamples=["assocalpha"])
        assert np.abs(pixels(file.getvalue()) - colour).max() < 4 / white


def test_16_bits_in_separate_planes():
    """Pillow mistakes them for 8-bit planes; compressed ones it reads at 8 bits."""
    planes = DEEP[..., :3].transpose(2, 0, 1).copy()
    file = io.BytesIO()
    tifffile.imwrite(file, planes, photometric="rgb", planarconfig="separate")
    with pytest.raises(PictureError, match="separate planes"):
        pixels(file.getvalue())
    file = io.BytesIO()
    tifffile.imwrite(file, planes, photometric="rgb", planarconfig="separate", compression="zlib")
    picture = Picture.decode(file.getvalue(), "a.tif")
    assert "16 bits" in picture.notes[0]
    assert np.abs(picture.pixels.permute(1, 2, 0).numpy() - DEEP[..., :3] / 65535).max() < 1 / 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_orientation_is_applied_once(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, "a description"
    levels = np.kron(DEEP[:4, :5, :3] >> 8, np.ones((8, 8, 1))).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / f"a.{suffix}", exif=exif)
    picture = Picture.open(tmp_path / f"a.{suffix}")
    right = ImageOps.exif_transpose(Image.open(tmp_path / f"a.{suffix}")).convert("RGB")
    assert np.array_equal(
        (255 * picture.pixels).round().permute(1, 2, 0).numpy(), np.asarray(right)
    )
    picture.save(tmp_path / f"b.{suffix}")
    with Image.open(tmp_path / f"b.{suffix}") as again:
        assert 0x0112 not in again.getexif() and again.getexif()[0x010E] == "a description"
        assert again.size == picture.size[::-1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_deep_tiff_files(orientation):
    tags, flat = [(274, 3, 1, orientation, True)], io.BytesIO()
    file = io.BytesIO()
    tifffile.imwrite(file, DEEP[..., :3], photometric="rgb", extratags=tags)
    tifffile.imwrite(flat, (DEEP[..., :3] >> 8).astype(np.uint8), photometric="rgb", extratags=tags)
    deep, shallow = pixels(file.getvalue()), pixels(flat.getvalue())
    assert deep.shape == shallow.shape and np.abs(deep - shallow).max() < 1 / 255
