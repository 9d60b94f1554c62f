"""Reading and writing pictures: what comes in comes out, and what cannot be read is named."""

import resource
import signal

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from pristina.errors import PictureError
from pristina.image.picture import Picture, atomic, check_outputs, write


def read(path):
    with Image.open(path) as image:
        image.load()
        return image


@pytest.fixture
def colours():
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def test_colour_round_trip_is_exact(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / "a.png")
    picture = Picture.open(tmp_path / "a.png")
    assert picture.size == (12, 20) and picture.alpha is None and not picture.grey
    assert picture.pixels.dtype == torch.float32 and picture.pixels.max() <= 1
    picture.save(tmp_path / "b.png")
    assert np.array_equal(np.asarray(read(tmp_path / "b.png")), colours)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(tmp_path, colours, orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, "a description"
    Image.fromarray(colours).save(tmp_path / "a.png", exif=exif)
    picture = Picture.open(tmp_path / "a.png")
    assert picture.size == ((12, 20) if orientation < 5 else (20, 12))
    picture.save(tmp_path / "b.png")
    again = read(tmp_path / "b.png")
    assert 0x0112 not in again.getexif() and again.getexif()[0x010E] == "a description"
    torch.testing.assert_close(Picture.open(tmp_path / "b.png").pixels, picture.pixels)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK", "I;16"])
def test_every_mode_is_read(tmp_path, colours, mode):
    rgba = Image.fromarray(np.dstack([colours, 255 - colours[..., :1]]))
    image = (
        Image.fromarray(np.full((12, 20), 32768, np.uint16))
        if mode == "I;16"
        else rgba.convert("RGB" if mode == "P" else "RGBA").convert(mode)
    )
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    picture = Picture.open(path)
    assert picture.pixels.shape == (3, 12, 20) and picture.pixels.min() >= 0 and picture.pixels.max() <= 1
    assert (picture.alpha is not None) == (mode in ("LA", "RGBA"))
    assert picture.grey == (mode in ("L", "LA", "1", "I;16"))
    if mode == "I;16":
        torch.testing.assert_close(picture.pixels, torch.full((3, 12, 20), 32768 / 65535))
    if mode == "RGBA":
        torch.testing.assert_close(picture.alpha[0] * 255, torch.from_numpy(255 - colours[..., 0]).float())
    picture.save(tmp_path / "b.png")
    assert read(tmp_path / "b.png").mode == (
        "LA" if mode == "LA" else "L" if picture.grey else "RGBA" if picture.alpha is not None else "RGB"
    )


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 1), 1)
    image.save(tmp_path / "a.png", transparency=1)
    picture = Picture.open(tmp_path / "a.png")
    assert picture.alpha[0, 1, 1] == 0 and picture.alpha.sum() == 15


def test_profile_is_brought_to_srgb(tmp_path, colours):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    Image.fromarray(colours).save(tmp_path / "a.png", icc_profile=lab.tobytes())
    picture = Picture.open(tmp_path / "a.png")
    assert (picture.pixels * 255 - torch.from_numpy(colours).permute(2, 0, 1)).abs().max() <= 1.01
    Image.fromarray(colours).save(tmp_path / "b.png", icc_profile=b"nonsense")
    assert "profile" in Picture.open(tmp_path / "b.png").notes[0]


def test_sixteen_bit_colour_is_reported(tmp_path):
    """Pillow reads such a file at 8 bits; the user must hear of it."""
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + b"\x12\x34" * 3 * 4 for _ in range(4))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(png + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    assert "16 bits" in Picture.open(tmp_path / "a.png").notes[0]


def test_what_cannot_be_read_is_named(tmp_path, colours):
    Image.fromarray(np.repeat(np.repeat(colours, 20, 0), 20, 1)).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    Image.fromarray(colours).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    for name, words in {
        "missing.png": "cannot be read",
        "empty.png": "is empty",
        "text.png": "not a picture that can be read",
        "cut.jpg": "damaged or cut off",
        "cut.png": "damaged or cut off",
        ".": "is a folder",
    }.items():
        with pytest.raises(PictureError, match=words):
            Picture.open(tmp_path / name)


def test_absurd_size_is_refused_before_it_is_decoded(tmp_path):
    import struct
    import zlib

    body = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "bomb.png").write_bytes(png + b"\0\0\0\0IDAT")
    with pytest.raises(PictureError, match=r"60000 x 60000|absurd size"):
        Picture.open(tmp_path / "bomb.png")


def test_writing_is_whole_or_not_at_all(tmp_path, colours):
    path = tmp_path / "deep" / "a.png"
    Picture.from_pixels(torch.zeros(3, 4, 4)).save(path)
    kept = path.read_bytes()

    def interrupted():
        with atomic(path) as beside:
            beside.write_bytes(b"half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        interrupted()
    assert path.read_bytes() == kept and [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_several_files_are_written_or_none(tmp_path):
    first, second, folder = tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "c.txt"
    folder.mkdir()
    write({first: b"1", second: b"2"})
    for place in (folder, first / "c.txt", tmp_path / ("c" * 300)):
        with pytest.raises(PictureError, match="cannot be written"):
            write({tmp_path / "new.txt": b"3", place: b"4"})
    assert first.read_bytes() == b"1" and {p.name for p in tmp_path.iterdir()} == {"a.txt", "b.txt", "c.txt"}


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
def test_a_full_disk_leaves_no_half_picture(tmp_path, suffix):
    picture = Picture.from_pixels(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)))
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(PictureError, match="cannot be written"):
            picture.save(tmp_path / f"a.{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "width"), [("a.jpg", 70000), ("a.webp", 17000)])
def test_what_a_format_cannot_hold_is_named(tmp_path, name, width):
    with pytest.raises(PictureError, match=f"cannot hold this picture of {width} x 1 px"):
        Picture.from_pixels(torch.zeros(3, 1, width)).save(tmp_path / name)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (["in.png"], "is to be read"),
        (["folder/../in.png"], "is to be read"),
        (["link.png"], "is to be read"),
        (["out.png", "folder/../out.png"], "same file"),
        (["folder"], "is a folder"),
        (["in.png/out.png"], "is a file, not a folder"),
        (["a" * 300 + ".png"], "cannot be written"),
        (["out.txt"], "should end in"),
    ],
)
def test_outputs_are_checked_before_any_work(tmp_path, outputs, words):
    (tmp_path / "in.png").write_bytes(b"")
    (tmp_path / "link.png").symlink_to(tmp_path / "in.png")
    (tmp_path / "folder").mkdir()
    paths = [tmp_path / name for name in outputs]
    with pytest.raises(PictureError, match=words):
        check_outputs(paths, inputs=[None, tmp_path / "in.png"])
    if outputs != ["out.txt"]:
        with pytest.raises(PictureError, match=words):
            check_outputs([None], paths, inputs=[tmp_path / "in.png"])
    check_outputs([tmp_path / "new" / "out.png"], [tmp_path / "out.txt"], inputs=[tmp_path / "in.png"])
    assert {p.name for p in tmp_path.iterdir()} == {"in.png", "link.png", "folder"}


def test_alpha_goes_along_at_another_size():
    picture = Picture(torch.zeros(3, 4, 6), alpha=torch.full((1, 4, 6), 0.5))
    assert torch.equal(picture.with_pixels(torch.zeros(3, 4, 6)).alpha, picture.alpha)
    torch.testing.assert_close(picture.with_pixels(torch.zeros(3, 2, 3)).alpha, torch.full((1, 2, 3), 0.5))


def test_what_cannot_be_written_is_named(tmp_path):
    picture = Picture(torch.zeros(3, 4, 4), alpha=torch.ones(1, 4, 4))
    with pytest.raises(PictureError, match="JPEG cannot hold"):
        picture.save(tmp_path / "a.jpg")
    with pytest.raises(PictureError, match="should end in"):
        picture.save(tmp_path / "a.xyz")
    for pixels in (torch.zeros(4, 4), torch.full((3, 4, 4), float("nan")), torch.zeros(3, 4, 4, dtype=torch.uint8)):
        with pytest.raises(PictureError, match="Pixels"):
            Picture.from_pixels(pixels)
