"""Reading pictures: as `restore` reads them, in any order, past files that cannot be read."""

import numpy as np
import pytest
import torch
from PIL import Image

from pristina.errors import InputError, PictureError
from pristina.image.picture import Picture
from pristina.training.data import PictureStream, SkippedFiles, augment, list_pictures, read_image
from pristina.training.pairs import PairStream
from pristina.training.validation import held_out_faces, held_out_photographs, held_out_pictures

from .common import save, smooth


@pytest.fixture
def odd(tmp_path):
    """Files that a naive reader reads wrongly: 16-bit grey, turned by EXIF."""
    ramp = np.linspace(0, 1, 64)[None].repeat(64, 0)
    for name in ("grey16.png", "grey16.tif"):
        Image.fromarray((65535 * ramp).astype(np.uint16)).save(tmp_path / name)
    exif = Image.Exif()
    exif[0x0112] = 6
    colours = np.stack([ramp, ramp.T, 0 * ramp + 0.4], -1)
    turned = Image.fromarray((255 * colours).astype(np.uint8))
    turned.save(tmp_path / "turned.jpg", quality=95, exif=exif)
    return tmp_path


@pytest.mark.parametrize("name", ["grey16.png", "grey16.tif", "turned.jpg"])
def test_training_reads_what_restore_reads(odd, name):
    seen = PictureStream([odd / name], 64, crop="whole", flip=False)[0].float() / 255
    assert (seen - Picture.open(odd / name).pixels).abs().max() < 1.5 / 255
    pair = PairStream([(odd / name, odd / name)], 64, flip=False)[0]
    assert torch.equal(pair[0], pair[1]) and (pair[0] - seen).abs().max() < 1 / 255


def test_hidden_files_are_passed_over(photos):
    (photos / "._0.png").write_bytes(b"\0\5\26\7Mac OS X")
    save(smooth(0, 20), photos / ".trash" / "x.png")
    (photos / "note.txt").write_text("not a picture")
    assert [p.name for p in list_pictures(photos)] == ["0.png", "1.png", "2.png"]
    assert len(list_pictures([photos, photos])) == 6


def test_files_that_cannot_be_read_are_skipped_with_a_sentence(photos):
    paths = list_pictures(photos)
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[: len(whole) // 2])
    said = []
    stream = PictureStream(paths, 16, crop="random", seed=3, report=said.append)
    items = [stream[i] for i in range(30)]
    assert len(said) == 1 and said[0].startswith("Skipped: ") and str(paths[1]) in said[0]
    again = PictureStream(paths, 16, crop="random", seed=3, report=said.append)
    assert all(torch.equal(again[i], items[i]) for i in (20, 3, 11))


def test_too_many_bad_files_end_the_training(photos):
    paths = list_pictures(photos)
    for path in paths:
        path.write_bytes(b"no picture")
    stream = PictureStream(paths, 16, crop="random", report=lambda sentence: None)
    with pytest.raises(InputError, match="of 3 files cannot be trained on"):
        stream[0]
    skipped = SkippedFiles(1000, lambda sentence: None)
    for i in range(100):
        skipped.add(photos / str(i), PictureError("bad."))
    with pytest.raises(InputError, match="101 of 1000"):
        skipped.add(photos / "last", PictureError("bad."))


def test_small_pictures_are_skipped(photos):
    save(smooth(7, 20), photos / "small.png")
    said = []
    paths = list_pictures(photos)
    stream = PictureStream(paths, 32, crop="random", report=said.append)
    assert all(stream[i].shape == (3, 32, 32) for i in range(20))
    assert len(said) == 1 and "smaller than the crops" in said[0]


def test_pairs_that_cannot_be_used_are_skipped(darkened):
    pairs = [
        (darkened / "clean" / f"{i}.png", darkened / "degraded" / f"{i}.png") for i in range(3)
    ]
    pairs[1][1].write_bytes(b"no picture")
    said = []
    stream = PairStream(pairs, 16, report=said.append)
    assert all(stream[i].shape == (2, 3, 16, 16) for i in range(20))
    assert len(said) == 1 and "degraded/1.png" in said[0]


def test_shares_that_leave_nothing_are_refused(photos):
    with pytest.raises(InputError, match="leave nothing"):
        PictureStream(list_pictures(photos), 16, crop="random", weights={"": 0.0})


def test_decoded_pictures_are_kept_up_to_a_limit(photos, monkeypatch):
    monkeypatch.setattr("pristina.training.data.KEEP_BYTES", 3 * 136 * 136)
    stream = PictureStream(list_pictures(photos), 16, crop="random")
    for i in range(12):
        stream[i]
    assert len(stream.kept) == 1


def test_native_crops_are_pixels_of_the_file(photos):
    path = list_pictures(photos)[0]
    stream = PictureStream([path], 16, crop="random", native_share=1.0, flip=False)
    picture = np.asarray(read_image(path))
    windows = np.lib.stride_tricks.sliding_window_view(picture, (16, 16), (0, 1))
    item = stream[0].numpy()
    assert (windows == item).all((2, 3, 4)).any()


def test_held_out_photographs_are_spread_over_the_sets(tmp_path):
    paths = [
        tmp_path / f"{s}_{i:02}.png" for s, n in (("a", 30), ("b", 2), ("c", 9)) for i in range(n)
    ]
    chosen = held_out_photographs(paths)
    assert chosen == held_out_photographs(paths[::-1]) and len(chosen) == 12
    counts = {s: sum(p.name.startswith(s) for p in chosen) for s in "abc"}
    assert counts == {"a": 5, "b": 2, "c": 5}
    assert chosen[0].name == "a_01.png"  # int(0.2 * 30 / 5)
    assert held_out_photographs(paths[:3], 12) == paths[:3]


def test_held_out_faces_are_evenly_spaced(tmp_path):
    paths = [tmp_path / f"{i:04}.png" for i in range(1778)]
    chosen = held_out_faces(paths)
    assert len(chosen) == 150 and chosen[0] == paths[0]
    steps = np.diff([int(p.stem) for p in chosen])
    assert set(steps) <= {11, 12}


def test_what_is_set_aside_of_several_folders(tmp_path):
    photographs = [tmp_path / f"a_{i:03}.png" for i in range(60)]
    faces = [tmp_path / f"face_{i:03}.png" for i in range(100)]
    measured, aside = held_out_pictures([photographs, faces])
    assert len(measured) == 6 and set(measured) < aside
    assert len(aside) == 16
    with pytest.raises(InputError, match="one picture only"):
        held_out_pictures([photographs[:1]])


def test_a_stream_depends_on_seed_and_index_alone(photos):
    paths = list_pictures(photos)
    a, b = (PictureStream(paths, 16, crop="random", seed=3) for _ in range(2))
    for i in (7, 0, 100, 7):
        assert torch.equal(a[i], b[i]) and a[i].shape == (3, 16, 16)
    assert not torch.equal(a[0], PictureStream(paths, 16, crop="random", seed=4)[0])


def test_shares_decide_how_often(tmp_path):
    paths = [save(smooth(i, 20), tmp_path / f"{'a' if i < 2 else 'b'}{i}.png") for i in range(8)]
    stream = PictureStream(paths, 16, crop="whole", weights={"a": 3})
    assert float(stream.cumulative[1]) == pytest.approx(6 / 12)


def test_augmentation_is_labelled():
    x = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    y, label = augment(x, torch.Generator().manual_seed(0), 0.3)
    assert 5 < label.sum() < 35
    assert torch.equal(y[label == 0], x[label == 0])
    assert not torch.equal(y[label == 1], x[label == 1])
    assert y.abs().max() <= 1
