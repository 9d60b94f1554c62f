import json
import os
import subprocess
import sys
import time

import pytest

from pristina.errors import InputError, PictureError
from pristina.work import Store

DIGEST = "0123456789abcdef" * 4


def make(folder):
    return Store(folder, lambda value: json.dumps(value).encode(), json.loads)


def test_an_item_is_one_file_with_its_digest_in_the_name(tmp_path):
    store = make(tmp_path / "items")
    assert store.get(DIGEST) is None and not (tmp_path / "items").exists()
    store.put(DIGEST, {"a": 1}, label="noise.diip.0")
    assert [p.name for p in (tmp_path / "items").iterdir()] == ["noise.diip.0.0123456789ab.json"]
    assert store.get(DIGEST, "noise.diip.0") == {"a": 1}
    assert store.get(DIGEST) is None and store.get("f" * 64, "noise.diip.0") is None
    store.put(DIGEST, {"a": 2}, label="noise.diip.0")
    assert store.get(DIGEST, "noise.diip.0") == {"a": 2}


@pytest.mark.parametrize("damage", [b"", b'{"a": 1', b"\xff\xfe\x00", b"nul"])
def test_a_damaged_item_counts_as_absent_and_is_written_again(tmp_path, damage):
    store = make(tmp_path)
    store.put(DIGEST, [1])
    store.path(DIGEST).write_bytes(damage)
    assert store.get(DIGEST) is None
    store.put(DIGEST, [1])
    assert store.get(DIGEST) == [1]


def test_a_folder_in_the_place_of_an_item_is_absent_and_cannot_be_written(tmp_path):
    store = make(tmp_path)
    store.path(DIGEST).mkdir()
    assert store.get(DIGEST) is None
    with pytest.raises(PictureError, match="cannot be written"):
        store.put(DIGEST, [1])


@pytest.mark.parametrize("label", ["../out", "a/b", ".hidden", "a\nb", "ä", "a b"])
def test_a_label_cannot_lead_out_of_the_folder(tmp_path, label):
    with pytest.raises(InputError, match="cannot name a file"):
        make(tmp_path).put(DIGEST, 1, label=label)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_encoded_leaves_the_old_item(tmp_path):
    store = make(tmp_path)
    store.put(DIGEST, [1])
    with pytest.raises(TypeError):
        store.put(DIGEST, object())
    assert store.get(DIGEST) == [1] and len(list(tmp_path.iterdir())) == 1


KILLED = """
import os, sys
from pathlib import Path
from pristina.files import atomic
with atomic(Path(sys.argv[1]) / "item.json") as beside:
    beside.write_text('{"ha')
    print("there", flush=True)
    sys.stdin.read()
"""


def test_temporaries_of_a_killed_run_are_swept_at_the_next_start(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "there\n"
    process.kill()
    process.communicate(timeout=60)
    assert len(list(tmp_path.iterdir())) == 1
    make(tmp_path).put(DIGEST, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["0123456789ab.json"]


def test_sweeping_is_quick_and_touches_nothing_else(tmp_path):
    (tmp_path / "mine.json").write_text("1")
    (tmp_path / ".hidden").write_text("1")
    begun = time.monotonic()
    make(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"mine.json", ".hidden"}
    assert time.monotonic() - begun < 5 and os.getpid()
