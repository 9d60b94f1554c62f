"""``pristina restore --ray``: the same files as without it."""

import subprocess
import sys
from importlib.util import find_spec

import pytest
from PIL import Image
from skimage import data

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray (extra cluster) is not installed"),
    pytest.mark.timeout(900),
]


def test_a_folder_on_a_cluster(pristina, tmp_path, prior_file):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        Image.fromarray(data.astronaut()[: 24 + i, :32]).save(photos / f"{i}.png")
    (photos / "bad.png").write_text("no picture")
    words = ["--method", "mmse", "--prior", prior_file, "--threads", 1]
    here, there = tmp_path / "here", tmp_path / "there"
    pristina("restore", photos, "-o", here, *words, status=3)
    # In a process of its own: Ray leaves threads and open sockets behind.
    line = [sys.executable, "-m", "pristina", "restore", photos, "-o", there, *words]
    line += ["--ray", "local", "--jobs", 2]
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True)
    assert done.returncode == 3 and "3 restored, 1 failed" in done.stderr, done.stderr
    for i in range(3):
        assert (here / f"{i}.png").read_bytes() == (there / f"{i}.png").read_bytes()
    assert "3 done before" in pristina("restore", photos, "-o", there, *words, status=3)
    other = ["-o", tmp_path / "other", *words, "--ray", "127.0.0.1:1"]
    text = pristina("restore", photos, *other, status=2)
    assert "There is no Ray cluster at 127.0.0.1:1" in text
