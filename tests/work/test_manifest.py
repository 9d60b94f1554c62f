import os
from contextlib import suppress
from pathlib import Path

import pytest

from pristina.errors import PictureError
from pristina.work import Manifest

NAME = Path("sub/a.png")


def asked(question):
    return lambda: question


def test_the_state_of_a_file(tmp_path):
    manifest = Manifest(tmp_path)
    assert manifest.state(NAME, asked("1")) == "missing"
    manifest.write(NAME, b"one", answers="1", record={"name": "\udcff"})
    assert manifest.state(NAME, asked("1")) == "done"
    assert manifest.state(NAME, asked("2")) == "outdated"
    (tmp_path / NAME).write_bytes(b"edited")
    assert manifest.state(NAME, asked("1")) == "unknown"
    (tmp_path / NAME).unlink()
    assert manifest.state(NAME, asked("1")) == "missing"
    (tmp_path / NAME).mkdir()
    assert manifest.state(NAME, asked("1")) == "unknown"


@pytest.mark.parametrize("renamed", [0, 1, 2])
@pytest.mark.parametrize("first", [None, b"one"])
def test_a_run_that_is_killed_anywhere_knows_every_file(tmp_path, monkeypatch, first, renamed):
    """An entry and a file are renamed to their places, one after the other."""
    manifest = Manifest(tmp_path)
    if first is not None:
        manifest.write(NAME, first, answers="one", record={})
    replace, n = os.replace, 0

    def killed(*paths):
        nonlocal n
        if n == renamed:
            raise KeyboardInterrupt
        replace(*paths)
        n += 1

    monkeypatch.setattr("pristina.files.os.replace", killed)
    for content in (b"two", b"three"):
        n = 0
        with suppress(KeyboardInterrupt):
            manifest.write(NAME, content, answers=content.decode(), record={})
        done = (tmp_path / NAME).exists() and (tmp_path / NAME).read_bytes() == content
        assert done == (renamed == 2)
        expected = "done" if done else "missing" if first is None else "outdated"
        assert manifest.state(NAME, asked(content.decode())) == expected
    monkeypatch.undo()
    manifest.write(NAME, b"three", answers="three", record={})
    assert manifest.state(NAME, asked("three")) == "done"


def test_a_damaged_entry_makes_a_file_unknown(tmp_path):
    manifest = Manifest(tmp_path)
    manifest.write(NAME, b"one", answers="1", record={})
    (entry,) = (tmp_path / ".pristina").glob("*.json")
    for damage in ("", "{}", "[1]", '{"sha256": 3}'):
        entry.write_text(damage)
        assert manifest.state(NAME, asked("1")) == "unknown"


def test_the_lock_keeps_others_out(tmp_path):
    with Manifest(tmp_path).locked():
        with pytest.raises(PictureError, match="Another run"), Manifest(tmp_path).locked():
            pass
        with pytest.raises(PictureError, match="Another run"), Manifest(tmp_path).locked():
            pass
    with Manifest(tmp_path).locked():
        pass
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(PictureError, match="cannot be written"),
        Manifest(tmp_path / "file").locked(),
    ):
        pass
