"""``pristina degrade``: the picture is what its record says."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image


def save(path, levels):
    Image.fromarray(levels).save(path)
    return path


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-o", "in.png"], "is an input"),
        (["-o", "folder/../in.png"], "is an input"),
        (["-o", "out.png", "--record", "in.png"], "is an input"),
        (["-o", "mask.png", "--operator", "noise:sigma=1 | mask: file = mask.png"], "is an input"),
        (["-o", "out.png", "--record", "out.png"], "same file"),
        (["-o", ""], "cannot be empty"),
        (["-o", "out.png", "--record", ""], "cannot be empty"),
        (["-o", "out.png", "--record", "folder"], "is a folder"),
        (["-o", "taken.png"], "is a folder"),
        (["-o", "in.png/out.png"], "is a file, not a folder"),
        (["-o", "a" * 300 + ".png"], "cannot be written"),
        (["-o", "transparent.jpg", "--operator", "area:factor=2"], "JPEG cannot hold"),
        (["-o", "out.xyz"], "should end in"),
        (["-o", "out.jpg", "--quality", "0"], "between 1 and 100"),
    ],
)
def test_mistakes_end_with_a_sentence_and_nothing_written(
    pristina, tmp_path, monkeypatch, words, sentence
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken.png.json").mkdir()
    save("in.png", np.full((16, 16, 4), 128, np.uint8))
    save("mask.png", np.full((16, 16), 255, np.uint8))
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    operator = [] if "--operator" in words else ["--operator", "noise:sigma=0.1"]
    assert sentence in pristina("degrade", "in.png", *words, *operator, status=2)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_noise_in_grey_pictures_is_as_strong_as_the_record_says(pristina, tmp_path):
    grey, out = save(tmp_path / "in.png", np.full((64, 64), 128, np.uint8)), tmp_path / "out.png"
    pristina("degrade", grey, "-o", out, "--operator", "noise:sigma=0.1")
    assert pixels(out).shape == (64, 64) and abs(pixels(out).std() / 255 - 0.1) < 0.005
    pristina(
        "degrade", grey, "-o", out, "--operator", "haze | noise:sigma=0.1"
    )  # air has a colour, and so has the picture then
    assert pixels(out).shape == (64, 64, 3) and abs(pixels(out).std() / 255 - 0.1) < 0.005


def test_the_record_tells_what_left_the_range(pristina, picture_file, tmp_path):
    record = tmp_path / "r.json"
    pristina(
        "degrade",
        picture_file,
        "-o",
        tmp_path / "out.png",
        "--operator",
        "noise:sigma=0.3 | jpeg:quality=90",
        "--record",
        record,
    )
    noise, jpeg = json.loads(record.read_text())["out_of_range"]
    assert 0.1 < noise < 0.4 and jpeg == 0


def test_numbers_are_recorded_however_small(pristina, picture_file, tmp_path):
    pristina("degrade", picture_file, "-o", tmp_path / "out.png", "--operator", "noise:sigma=1e-9")
    assert json.loads((tmp_path / "out.png.json").read_text())["parameters"][
        "sigma"
    ] == pytest.approx(1e-9, rel=1e-4)


def test_what_reading_changed_is_told_and_transparency_stays(pristina, tmp_path):
    clear = Image.fromarray(np.full((16, 16, 4), 100, np.uint8))
    clear.save(tmp_path / "in.png", save_all=True, append_images=[Image.new("RGBA", (16, 16))])
    out = tmp_path / "out.png"
    assert "note: The file holds several frames" in pristina(
        "degrade", tmp_path / "in.png", "-o", out, "--operator", "area:factor=2"
    )
    assert pixels(out).shape == (8, 8, 4) and (pixels(out)[..., 3] == 100).all()


def test_a_picture_with_nan_is_refused_when_it_is_opened(pristina, tmp_path):
    levels = np.linspace(0, 1, 64, dtype=np.float32)[None].repeat(64, 0)
    levels[3, 3] = np.nan
    Image.fromarray(levels).save(tmp_path / "hole.tif")
    words = ["-o", tmp_path / "out.png", "--operator", "blur:sigma=1"]
    assert "NaN or infinite" in pristina("degrade", tmp_path / "hole.tif", *words, status=2)
    assert "NaN or infinite" in pristina("measure", tmp_path / "hole.tif", status=2)
    assert [path.name for path in tmp_path.iterdir()] == ["hole.tif"]


def test_depth_resolution_and_quality_go_along(pristina, tmp_path):
    levels = np.random.default_rng(0).integers(0, 65536, (24, 32), dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "in.png", dpi=(300, 300))
    pristina(
        "degrade", tmp_path / "in.png", "-o", tmp_path / "out.png", "--operator", "area:factor=2"
    )
    assert pixels(tmp_path / "out.png").dtype == np.uint16
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (16, 12) and abs(image.info["dpi"][0] - 150) < 0.1
    sizes = []
    for quality in ("30", "90"):
        text = pristina(
            "degrade",
            tmp_path / "in.png",
            "-o",
            tmp_path / "out.jpg",
            "--operator",
            "gamma:gamma=1",
            "--quality",
            quality,
        )
        assert "note: JPEG holds 8 bits a channel" in text
        sizes.append((tmp_path / "out.jpg").stat().st_size)
    assert sizes[0] < sizes[1]


def test_the_record_holds_the_digest_and_the_description(pristina, picture_file, tmp_path):
    pristina(
        "degrade", picture_file, "-o", tmp_path / "out.png", "--operator", "blur:sigma=1,size=7"
    )
    record = json.loads((tmp_path / "out.png.json").read_text())
    assert record["sha256"] == hashlib.sha256(picture_file.read_bytes()).hexdigest()
    assert record["description"] == "Gaussian blur with sigma 1.00 px"
