"""Files are written whole or not at all, and checked before any work."""

import pytest
import torch

from pristina.errors import PictureError
from pristina.files import atomic, check_outputs, write_all
from pristina.image.picture import Picture


def test_writing_is_whole_or_not_at_all(tmp_path):
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
    write_all({first: b"1", second: b"2"})
    for place in (folder, first / "c.txt", tmp_path / ("c" * 300)):
        with pytest.raises(PictureError, match="cannot be written"):
            write_all({tmp_path / "new.txt": b"3", place: b"4"})
    assert first.read_bytes() == b"1"
    assert {p.name for p in tmp_path.iterdir()} == {"a.txt", "b.txt", "c.txt"}


@pytest.mark.parametrize("name", ["写" * 82 + ".png", "a" * 251 + ".png", "a." + "b" * 253])
def test_names_as_long_as_the_file_system_takes_are_written(tmp_path, name):
    check_outputs([tmp_path / name])
    write_all({tmp_path / name: b"1"})
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (["in.png"], "is an input"),
        (["folder/../in.png"], "is an input"),
        (["link.png"], "is an input"),
        (["out.png", "folder/../out.png"], "same file"),
        (["folder"], "is a folder"),
        (["in.png/out.png"], "is a file, not a folder"),
        (["a" * 300 + ".png"], "cannot be written"),
    ],
)
def test_outputs_are_checked_before_any_work(tmp_path, outputs, words):
    (tmp_path / "in.png").write_bytes(b"")
    (tmp_path / "link.png").symlink_to(tmp_path / "in.png")
    (tmp_path / "folder").mkdir()
    paths = [tmp_path / name for name in outputs]
    for pictures, others in ((paths, []), ([None], paths)):
        with pytest.raises(PictureError, match=words):
            check_outputs(pictures, others, inputs=[None, tmp_path / "in.png"])
    check_outputs(
        [tmp_path / "new" / "out.png"], [tmp_path / "out.txt"], inputs=[tmp_path / "in.png"]
    )
    assert {p.name for p in tmp_path.iterdir()} == {"in.png", "link.png", "folder"}


def test_a_name_with_nul_is_refused(tmp_path):
    with pytest.raises(PictureError, match="character NUL"), atomic(tmp_path / "a\0.png"):
        pass
