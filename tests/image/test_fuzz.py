"""Damaged pictures: each is opened or refused in a sentence, and what opens can be written.

The suite tries a few; ``python tests/image/test_fuzz.py 4000`` tries as many as it is told, and
counts what became of them.
"""

from __future__ import annotations

import collections
import io
import struct
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pristina.errors import PristinaError
from pristina.image.picture import Picture

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.image import make

WRITTEN = ("png", "jpg", "tif", "webp", "bmp")


def corpus():
    """Small whole files of every format, depth and kind of metadata."""
    rng = np.random.default_rng(0)
    colour = np.kron(rng.integers(0, 256, (5, 6, 4)), np.ones((8, 8, 1))).astype(np.uint8)
    rgb, rgba = Image.fromarray(colour[..., :3]), Image.fromarray(colour)
    grey, deep = colour[..., 0], rng.integers(0, 65536, (20, 24, 4), dtype=np.uint16)
    exif = make.exif(
        (0x0112, 3, 1, b"\6\0"), (0x010E, 2, 12, b"a long name\0"), (282, 5, 1, b"\1\0\0\0\1\0\0\0")
    )
    p3 = make.rgb_profile(make.DISPLAY_P3, make.SRGB_CURVE)
    more = {"exif": exif, "icc_profile": p3}
    pages = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    files = [
        saved(rgb, "PNG", dpi=(300, 300), **more),
        saved(rgba, "PNG"),
        saved(rgb.quantize(16), "PNG", transparency=3),
        saved(Image.fromarray(grey), "PNG", icc_profile=make.grey_profile(1.8)),
        make.png(deep[..., :3], 2, 16, make.chunk(b"tRNS", b"\0\1\0\2\0\3")),
        make.png(deep, 6, 16, make.chunk(b"eXIf", exif[6:])),
        make.png(deep[..., 0], 0, 16),
        make.png(deep[..., :2], 4, 16),
        make.png(grey >> 4, 0, 4, make.chunk(b"tRNS", b"\0\1")),
        saved(rgb, "JPEG", quality=80, comment=b"a comment", **more),
        saved(rgb, "JPEG", quality=40, progressive=True, subsampling=2),
        saved(rgb.convert("CMYK"), "JPEG"),
        saved(Image.fromarray(grey), "JPEG", dpi=(200, 100)),
        saved(rgb, "MPO", save_all=True, append_images=[rgb]),
        saved(rgb, "TIFF", **more),
        saved(rgb, "TIFF", compression="tiff_lzw", **pages),
        saved(rgb, "TIFF", compression="tiff_adobe_deflate"),
        saved(rgb, "TIFF", compression="jpeg"),
        saved(rgba, "TIFF"),
        saved(rgb.quantize(16), "TIFF"),
        saved(rgb.convert("1"), "TIFF", compression="group4"),
        make.tiff(deep[..., 0], photometric=0, more={274: 6}),
        make.tiff(deep[..., 0] >> 4, bits=12),
        make.tiff((deep[..., 0] >> 1).astype(np.int16), sample_format=2, order=">"),
        make.tiff(deep[..., 0].astype(np.uint32) << 16),
        make.tiff((deep[..., 0] / 65535).astype(np.float32), sample_format=3),
        Picture.from_array(deep).encode("a.tif")
        if hasattr(Picture, "from_array")
        else saved(rgba, "TIFF"),
        saved(rgb, "WEBP", **more),
        saved(rgba, "WEBP", lossless=True, **pages),
        saved(rgb, "BMP", dpi=(300, 300)),
        saved(rgb.quantize(16), "BMP"),
        saved(rgb, "GIF", **pages),
        saved(rgb, "AVIF", exif=exif, speed=10),
        saved(rgb, "PPM"),
    ]
    return files


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def damaged(files, seed):
    """One file with one to five kinds of damage, most of it near the front, in the headers."""
    rng = np.random.default_rng(seed)
    data = bytearray(files[rng.integers(len(files))])

    def place(reach=1):
        end = max(1, len(data) - reach)
        return int(rng.integers(min(end, 400)) if rng.random() < 0.7 else rng.integers(end))

    for _ in range(rng.integers(1, 6)):
        at, n = place(8), int(rng.integers(1, 33))
        match rng.integers(9):
            case 0:
                data[at] ^= 1 << rng.integers(8)
            case 1:
                data[at] = rng.integers(256)
            case 2:
                data[at : at + n] = bytes(len(data[at : at + n]))
            case 3:
                data[at : at + n] = rng.bytes(len(data[at : at + n]))
            case 4:
                del data[at : at + n]
            case 5:
                data[at:at] = data[place() :][:n]
            case 6:
                other = files[rng.integers(len(files))]
                data[at : at + n] = other[at : at + n]
            case 7:
                value = int(rng.choice([0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1]))
                data[at : at + 4] = struct.pack(rng.choice(["<L", ">L"]), value)
            case 8:
                del data[max(20, int(rng.integers(len(data)))) :]
        if len(data) < 20:
            break
    return bytes(data)


def outcome(path, data, seed):
    """``refused``, ``opened``, or the traceback of what went wrong; and the seconds it took."""
    path.write_bytes(data)
    begun = time.perf_counter()
    try:
        picture = Picture.open(path)
        good = (
            bool(picture.pixels.isfinite().all())
            and 0 <= picture.pixels.min() <= picture.pixels.max() <= 1
        )
        assert good and picture.pixels.shape[0] == 3, "pixels out of range"
        if max(picture.size) < 2000:
            suffix = WRITTEN[seed % len(WRITTEN)]
            written = path.with_name(f"written.{suffix}")
            try:
                written.write_bytes(picture.encode(written))
            except PristinaError:
                assert picture.alpha is not None, "cannot be written"
            else:
                assert Picture.open(written).size == picture.size, "opens at another size"
        result = "opened"
    except PristinaError:
        result = "refused"
    except Exception:
        result = traceback.format_exc()
    return result, time.perf_counter() - begun


@pytest.mark.parametrize("part", range(5))
def test_damaged_pictures_end_with_a_picture_or_a_sentence(tmp_path, part):
    files = corpus()
    for seed in range(part, 150, 5):
        result, seconds = outcome(tmp_path / "a.dat", damaged(files, seed), seed)
        assert result in ("opened", "refused"), f"seed {seed}: {result}"
        assert seconds < 20


def test_the_corpus_itself_opens_without_a_note_of_damage():
    for data in corpus():
        assert not any("cannot be read" in note for note in Picture.decode(data, "a").notes)


def main(n):
    """Try ``n`` damaged files and print counts, the slowest, and each kind of traceback."""
    counts, kinds, slowest, files = collections.Counter(), {}, (0.0, -1), corpus()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(n):
            result, seconds = outcome(Path(folder) / "a.dat", damaged(files, seed), seed)
            slowest = max(slowest, (seconds, seed))
            counts[result if result in ("opened", "refused") else "traceback"] += 1
            if result not in ("opened", "refused"):
                kinds.setdefault(result.strip().splitlines()[-1][:110], seed)
    print(dict(counts), f"slowest {slowest[0]:.1f} s (seed {slowest[1]})")
    for kind, seed in kinds.items():
        print(f"  seed {seed}: {kind}")


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000)
