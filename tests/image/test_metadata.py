"""Metadata: what the file holds beside its pixels survives, or its loss is noted."""

import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from pristina.image.metadata import split_exif
from pristina.image.picture import Picture
from tests.image import make

LEVELS = np.kron(np.random.default_rng(0).integers(0, 256, (6, 8, 3)), np.ones((8, 8, 1))).astype(
    np.uint8
)
TURNED = (0x0112, 3, 1, struct.pack("<H", 6))
TITLE = (0x010E, 2, 12, b"a long name\0")
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6" dc:title="t"/></x:xmpmeta>'


def encoded(kind, **options):
    file = io.BytesIO()
    Image.fromarray(LEVELS).save(file, kind, **options)
    return file.getvalue()


def opened(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def png(*chunks):
    return make.png(LEVELS, 2, 8, *chunks)


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_stays_to_the_byte_but_for_orientation_and_thumbnail(order):
    block = make.exif((0x0112, 3, 1, struct.pack(f"{order}H", 6)), TITLE, order=order)[6:]
    end = 8 + 2 + 24
    block = block[:end] + struct.pack(f"{order}L", 1234) + block[end + 4 :]
    kept, orientation = split_exif(block)
    assert orientation == 6 and len(kept) == len(block) and kept[end + 4 :] == block[end + 4 :]
    found = Image.Exif()
    found.load(kept)
    assert dict(found) == {0x010E: "a long name"}
    assert split_exif(kept) == (kept, None) and split_exif(b"") == (None, None)
    assert split_exif(make.exif(TURNED)) == (None, 6)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_exif_goes_from_every_format_to_every_other(kind, suffix):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x010F] = 6, "a description", "a maker"
    exif[0x8769] = {0x829A: 0.25, 0x9003: "2024:01:02 03:04:05"}
    exif[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
    picture = Picture.decode(encoded(kind, exif=exif.tobytes()), "a")
    assert picture.size == (64, 48) and picture.notes == ()
    found = opened(picture.encode(f"b.{suffix}")).getexif()
    assert found[0x010E] == "a description" and found[0x010F] == "a maker" and 0x0112 not in found
    assert found.get_ifd(0x8769)[0x9003] == "2024:01:02 03:04:05"
    assert found.get_ifd(0x8769)[0x829A] == 0.25 and found.get_ifd(0x8825)[1] == "N"


def test_tags_about_the_old_pixels_do_not_go_into_a_tiff_file():
    """A JPEG file whose EXIF block holds tags of a TIFF directory, as some cameras write it."""
    short = [(tag, 3, 1, struct.pack("<H", value)) for tag, value in ((256, 9), (259, 5), (262, 6))]
    data = encoded("JPEG", exif=make.exif(*short, TITLE), quality=95)
    picture = Picture.decode(data, "a.jpg")
    written = picture.encode("b.tif")
    again = Picture.decode(written, "b.tif")
    assert again.notes == () and (again.pixels - picture.pixels).abs().max() < 1e-6
    assert opened(written).tag_v2[270] == "a long name"


@pytest.mark.parametrize("mode", ["P", "CMYK", "F", "1", "I;16", "L", "RGBA"])
def test_tiff_to_tiff(mode, tmp_path):
    image = Image.fromarray(LEVELS)
    if mode == "F":
        image = Image.fromarray(LEVELS[..., 0].astype(np.float32) / 255)
    elif mode == "I;16":
        image = Image.fromarray(LEVELS[..., 0].astype(np.uint16) * 257)
    else:
        image = image.quantize(64) if mode == "P" else image.convert(mode)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270], tags[305], tags[315] = "what", "by what", "by whom"
    image.save(tmp_path / "a.tif", tiffinfo=tags, dpi=(300, 300))
    picture = Picture.open(tmp_path / "a.tif")
    picture.save(tmp_path / "b.tif")
    again = Picture.open(tmp_path / "b.tif")
    assert (again.pixels - picture.pixels).abs().max() < 1e-4
    with Image.open(tmp_path / "b.tif") as written:
        assert [written.tag_v2[tag] for tag in (270, 305, 315)] == ["what", "by what", "by whom"]
        assert written.info["dpi"] == (300, 300)


@pytest.mark.parametrize(
    "block",
    [
        make.exif(TURNED, (282, 10, 1, struct.pack("<ll", -1, 0))),
        make.exif(TURNED, (282, 5, 1, struct.pack("<LL", 1, 0))),
        make.exif(TURNED, (0x9286, 7, 5000, struct.pack("<L", 3))),
        make.exif(TURNED, (0x0112, 200, 1, b"\6\0\0\0"), (0x010E, 12, 1, b"\x32\0\0\0")),
        make.exif(TURNED, (0x8769, 4, 1, struct.pack("<L", 0))),
        make.exif(TURNED, (0x8769, 4, 1, struct.pack("<L", 2**31))),
    ],
)
def test_damaged_exif_costs_neither_the_picture_nor_its_orientation(block):
    for data in (encoded("JPEG", exif=block), png(make.chunk(b"eXIf", block[6:]))):
        picture = Picture.decode(data, "a")
        assert picture.size == (64, 48)
        for suffix in ("jpg", "png", "tif", "webp", "avif"):
            again = Picture.decode(picture.encode(f"b.{suffix}"), f"b.{suffix}")
            assert again.size == (64, 48)


@pytest.mark.parametrize(
    "block",
    [
        b"garbage!!",
        b"\0\x08\0\2\1\x12\0\3",
        make.exif(TURNED, TITLE)[6:26],
        b"II*\0\xff\xff\xff\x7f",
        b"II*\0",
    ],
)
def test_exif_that_cannot_be_read_is_dropped_with_a_note(block):
    picture = Picture.decode(png(make.chunk(b"eXIf", block)), "a.png")
    assert np.array_equal((255 * picture.pixels).round().permute(1, 2, 0).numpy(), LEVELS)
    assert picture.exif is None and "EXIF block cannot be read" in picture.notes[0]
    raw = make.chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 20\nzzzznothex\n")
    assert "EXIF" in Picture.decode(png(raw), "a.png").notes[0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_xmp_goes_along_upright(kind, suffix):
    if kind == "PNG":
        texts = PngImagePlugin.PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
        data = encoded("PNG", pnginfo=texts)
    elif kind == "TIFF":
        data = encoded("TIFF", tiffinfo={700: XMP})
    else:
        data = encoded(kind, xmp=XMP)
    picture = Picture.decode(data, "a")
    assert picture.size == (64, 48)  # Its orientation counts where EXIF gives none.
    found = opened(picture.encode(f"b.{suffix}")).info["xmp"]
    assert found == XMP.replace(b'"6"', b'"1"')


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_the_resolution_of_a_scan_is_kept(suffix):
    for dpi in ((300, 300), (600, 300)):
        for kind in ("PNG", "JPEG", "TIFF", "BMP"):
            better = {"quality": 95} if kind == "JPEG" else {}
            picture = Picture.decode(encoded(kind, dpi=dpi, **better), "a")
            found = opened(picture.encode(f"b.{suffix}")).info["dpi"]
            assert np.allclose([float(v) for v in found], dpi, atol=0.6)
            assert picture.check_encodable(f"b.{suffix}") == ()
    assert "resolution" in picture.check_encodable("b.webp")[0]
    turned = Picture.decode(encoded("TIFF", dpi=(600, 300), tiffinfo={0x0112: 6}), "a.tif")
    assert turned.metadata.dpi == (300, 600)


@pytest.mark.parametrize("value", [0, -5, float("inf"), float("nan"), 1e9])
def test_a_senseless_resolution_is_dropped(value):
    image = Image.fromarray(LEVELS)
    image.info["dpi"] = (value, value)
    assert Picture.of(image).metadata.dpi is None


def test_comments_and_texts():
    commented = Picture.decode(encoded("JPEG", comment="grüße".encode()), "a.jpg")
    assert opened(commented.encode("b.jpg")).info["comment"] == "grüße".encode()
    texts = opened(commented.encode("b.png")).text
    assert texts == {"Comment": "grüße"}
    assert "comment" in commented.check_encodable("b.webp")[0]
    entries = PngImagePlugin.PngInfo()
    entries.add_text("Title", "a title")
    entries.add_text("Comment", "said")
    titled = Picture.decode(encoded("PNG", pnginfo=entries), "a.png")
    assert opened(titled.encode("b.png")).text == {"Title": "a title", "Comment": "said"}
    assert opened(titled.encode("b.jpg")).info["comment"] == b"said"
    assert "text entries" in titled.check_encodable("b.jpg")[0]


def test_iptc_goes_from_jpeg_to_jpeg():
    body = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x08\x1c\x02\x05\0\3abc"
    segment = b"\xff\xed" + struct.pack(">H", len(body) + 2) + body
    picture = Picture.decode(encoded("JPEG", extra=segment), "a.jpg")
    assert picture.metadata.iptc == body and picture.encode("b.jpg").count(segment) == 1
    assert "IPTC" in picture.check_encodable("b.png")[0]


@pytest.mark.parametrize("quality", [90, 93, 95, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("grey", [False, True])
def test_jpeg_tables_are_kept_unless_a_quality_is_asked(quality, subsampling, grey):
    source = Image.fromarray(LEVELS[..., 0] if grey else LEVELS)
    file = io.BytesIO()
    source.save(file, "JPEG", quality=quality, subsampling=subsampling, progressive=quality == 93)
    picture = Picture.decode(file.getvalue(), "a.jpg")
    assert picture.jpeg_quality == min(quality, 99)  # A table of ones is taken for 99.
    again = opened(picture.encode("b.jpg"))
    assert again.quantization == opened(file.getvalue()).quantization
    assert ("progressive" in again.info) == (quality == 93)
    if not grey:
        assert JpegImagePlugin.get_sampling(again) == subsampling
    assert len(picture.encode("b.jpg")) <= 1.15 * len(file.getvalue())
    asked = Picture.decode(picture.encode("b.jpg", quality=60), "b.jpg")
    assert asked.jpeg_quality == 60
    assert picture.check_encodable("b.jpg") == ()
    assert Picture.decode(picture.encode("b.png"), "b.png").jpeg_tables is None


@pytest.mark.parametrize("quality", [3, 40, 89])
def test_a_poor_quality_is_not_repeated(quality):
    """The tables of the input would undo the repair."""
    picture = Picture.decode(encoded("JPEG", quality=quality), "a.jpg")
    assert picture.jpeg_quality == quality
    assert Picture.decode(picture.encode("b.jpg"), "b.jpg").jpeg_quality == 95
    assert Picture.decode(picture.encode("b.jpg", quality=60), "b.jpg").jpeg_quality == 60
    assert "damage the picture again" in picture.check_encodable("b.jpg")[0]
    assert picture.check_encodable("b.jpg", quality=60) == ()
    assert picture.check_encodable("b.png") == ()


def test_pictures_from_elsewhere_are_written_with_a_high_quality():
    picture = Picture.decode(encoded("PNG"), "a.png")
    assert Picture.decode(picture.encode("b.jpg"), "b.jpg").jpeg_quality == 95
    small, large = (len(picture.encode("b.webp", quality=q)) for q in (20, 95))
    assert small < large


@pytest.mark.parametrize(("size", "lost"), [(60000, False), (70000, True)])
def test_metadata_that_is_too_long_is_dropped_and_noted_before_any_work(size, lost):
    exif = Image.Exif()
    exif[270] = "x" * size
    picture = Picture.decode(encoded("PNG", exif=exif), "a.png")
    assert bool(picture.check_encodable("b.jpg")) == lost
    assert (270 in opened(picture.encode("b.jpg")).getexif()) != lost
    assert picture.check_encodable("b.png") == picture.check_encodable("b.tif") == ()
    assert opened(picture.encode("b.png")).getexif()[270] == "x" * size
    assert "EXIF data" in picture.check_encodable("b.bmp")[0]


def test_16_bits_are_noted_where_the_format_has_8():
    picture = Picture.from_array(np.zeros((4, 4, 3), np.uint16))
    assert picture.check_encodable("a.png") == picture.check_encodable("a.tif") == ()
    assert "16 bits" in picture.check_encodable("a.jpg")[0]
    assert torch.equal(Picture.decode(picture.encode("a.jpg"), "a.jpg").pixels, picture.pixels)
