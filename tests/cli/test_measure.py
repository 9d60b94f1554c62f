"""``pristina measure``: figures, and what the reader of them should know."""

import numpy as np
import pytest
from PIL import Image

from pristina.image.picture import Picture
from tests.image import make


@pytest.fixture
def levels():
    return np.random.default_rng(0).integers(0, 65000, (32, 40, 3), dtype=np.uint16)


def test_pictures_of_16_bits_are_compared_with_16_bits(pristina, tmp_path, levels):
    Picture.from_array(levels).save(tmp_path / "a.png")
    Picture.from_array(levels + 100).save(tmp_path / "b.tif")
    text = pristina("measure", tmp_path / "a.png", tmp_path / "b.tif")
    assert (
        "56.329" in text and "a.png and b.tif: read with 16 bits" in text
    )  # 20 log10(65535 / 100)


def test_the_notes_of_both_pictures_are_printed(pristina, tmp_path, levels):
    colours = Image.fromarray((levels >> 8).astype(np.uint8))
    colours.save(tmp_path / "a.png", icc_profile=b"nonsense")
    colours.save(tmp_path / "b.tif", save_all=True, append_images=[colours])
    text = pristina("measure", tmp_path / "a.png", tmp_path / "b.tif")
    assert "note: a.png: The file's colour profile could not be used" in text
    assert "note: b.tif: The file holds several frames" in text
    colours.putalpha(128)
    colours.save(tmp_path / "c.png")
    assert "One picture has opacity" in pristina("measure", tmp_path / "b.tif", tmp_path / "c.png")
    assert "not the opacity" in pristina("measure", tmp_path / "c.png")
    colours.convert("RGB").save(tmp_path / "d.png")
    assert "note" not in pristina("measure", tmp_path / "d.png", tmp_path / "d.png")


def test_names_are_never_markup_and_narrow_terminals_are_no_trouble(
    pristina, tmp_path, levels, monkeypatch
):
    (tmp_path / "[red]a[b].png").write_bytes(make.png(levels >> 8, 2, 8))
    (tmp_path / "b\x1b[2J\n.png").write_bytes(make.png(levels >> 8, 2, 8))
    monkeypatch.setenv("COLUMNS", "2")
    text = pristina("measure", tmp_path / "[red]a[b].png", tmp_path / "b\x1b[2J\n.png")
    assert "[red]a[b].png" in text.replace("\n", "") and "\x1b[2J" not in text and "psnr" in text


def test_pictures_that_cannot_be_compared_are_refused(pristina, tmp_path, levels):
    Picture.from_array(levels).save(tmp_path / "a.png")
    Picture.from_array(levels[:20]).save(tmp_path / "b.png")
    pristina("measure", tmp_path / "a.png", tmp_path / "b.png", status=2)
    pristina("measure", tmp_path / "a.png", tmp_path / "missing.png", status=2)
