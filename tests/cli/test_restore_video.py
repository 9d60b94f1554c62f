"""``pristina restore`` for video files and numbered frames."""

import numpy as np
import pytest
from PIL import Image
from skimage import data

PHOTO = data.astronaut()


@pytest.fixture
def frames(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(4):
        Image.fromarray(PHOTO[:24, i : i + 32]).save(folder / f"f{i + 8}.png")
    return folder


@pytest.fixture
def words(prior_file):
    return ["--method", "mmse", "--prior", prior_file]


def test_a_folder_of_frames(pristina, frames, words, tmp_path):
    out = tmp_path / "out"
    text = pristina("restore", frames, "-o", out, "--frames", *words)
    assert "scene 1 from frame 1: mmse" in text and "4 frames in 1 scene" in text
    alone = tmp_path / "one.png"
    pristina("restore", frames / "f9.png", "-o", alone, *words)
    assert (out / "f9.png").read_bytes() == alone.read_bytes()
    assert sorted(path.name for path in out.iterdir()) == sorted(
        path.name for path in frames.iterdir()
    )
    assert "exists" in pristina("restore", frames, "-o", out, "--frames", *words, status=2)
    text = pristina("restore", alone, "-o", out, "--frames", *words, status=2)
    assert "takes a folder of numbered frames" in text


def test_a_video_file(pristina, words, tmp_path):
    av = pytest.importorskip("av", reason="PyAV (extra video) is not installed")
    clip, out = tmp_path / "clip.mp4", tmp_path / "out.mp4"
    with av.open(str(clip), "w") as made:
        video = made.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
        for i in range(6):
            shade = PHOTO[:24, i : i + 32] if i < 3 else 255 - PHOTO[:24, i : i + 32]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shade), format="rgb24")
            made.mux(video.encode(frame))
        made.mux(video.encode(None))
    text = pristina("restore", clip, "-o", out, *words)
    assert "6 frames in 2 scenes" in text and "scene 2 from frame 4" in text
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 6
    assert "exists" in pristina("restore", clip, "-o", out, *words, status=2)
    text = pristina("restore", clip, "-o", tmp_path / "x.png", *words, status=2)
    assert "must be a video" in text and not (tmp_path / "x.png").exists()
    text = pristina("restore", clip, clip, "-o", tmp_path / "y.mp4", *words, status=2)
    assert "restored by itself" in text
