"""Frames of a video: sound and timing kept, scenes found, each frame goes on from the last."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from pristina import planning
from pristina.errors import PictureError
from pristina.image.picture import Picture
from pristina.request import Request
from pristina.video import VideoFile, is_cut, numbered, restore_frames

PHOTO = data.astronaut()


def pictures(n=4, seed=0):
    """Frames of a moving crop with noise."""
    random = np.random.RandomState(seed)
    found = []
    for i in range(n):
        crop = PHOTO[100 : 100 + 32, 150 + 2 * i : 150 + 2 * i + 48].astype(float)
        noisy = (crop + random.normal(0, 12, crop.shape)).clip(0, 255).astype(np.uint8)
        found.append(Picture.from_array(noisy))
    return found


class Prior:
    """A prior whose samplers need no network."""

    def __new__(cls):
        from pristina.priors.gaussian import GaussianPrior

        return GaussianPrior(variance=0.1)


def request(method="diip", **settings):
    return Request(method=method, settings={"iterations": 8, "rule": "none", **settings})


def load(*_, **__):
    return Prior()


def test_a_frame_goes_on_from_the_one_before_in_fewer_iterations():
    asked = request(sampler_steps=2, learning_rate=0.3)
    warm = list(restore_frames(pictures(), asked, load=load))
    cold = list(restore_frames(pictures(), asked, load=load, warm=False))
    calls = [frame.done.cost.network_calls for frame in warm]
    assert calls == [2 * 9, 2 * 3, 2 * 3, 2 * 3]
    assert [frame.done.cost.network_calls for frame in cold] == [18] * 4
    first, again = (frames[0].done.picture.pixels for frames in (warm, cold))
    assert torch.equal(first, again)
    ended = warm[0].done.result.trace["loss"][-1]
    begun, anew = (frames[1].done.result.trace["loss"][0] for frames in (warm, cold))
    assert abs(begun - ended) < 0.4 * (anew - ended)  # It begins near where the last one ended.


def test_a_cut_begins_anew_and_auto_chooses_once_a_scene():
    dark = [Picture.from_pixels(frame.pixels * 0.2) for frame in pictures(2)]
    frames = list(restore_frames([*pictures(3), *dark], request(sampler_steps=1), load=load))
    assert [(f.scene, f.is_first) for f in frames] == [
        (0, True),
        (0, False),
        (0, False),
        (1, True),
        (1, False),
    ]
    assert torch.equal(
        frames[3].done.picture.pixels,
        next(restore_frames(dark, request(sampler_steps=1), load=load)).done.picture.pixels,
    )
    plans = {f.scene: set() for f in frames}
    for frame in restore_frames(pictures(3), Request(method="auto")):
        plans[frame.scene].add(id(frame.done.plan.reading))
    assert len(plans[0]) == 1
    still = torch.rand(3, 16, 16)
    assert is_cut(None, still) and not is_cut(still, still + 0.05) and is_cut(still, still + 0.2)


@pytest.mark.parametrize(("in_doubt", "method"), [("regress", "indi"), ("leave", "nothing")])
def test_no_frame_looks_for_a_blur_of_its_own(monkeypatch, in_doubt, method):
    def blurred(reading, request, kind):
        settings = {"in_doubt": in_doubt}
        return replace(request, method="deblur", prior=None, settings=settings), "It is soft."

    monkeypatch.setattr(planning, "choose", blurred)
    frame = Picture.from_pixels(torch.full((3, 40, 40), 0.4))
    request = Request(method="auto")
    assert planning.plan_request(frame, request).entry.name == "deblur"
    (found,) = restore_frames([frame], request)
    assert found.done.plan.entry.name == method


def test_a_method_of_one_step_takes_every_frame_by_itself():
    frames = list(restore_frames(pictures(3), Request(method="mmse"), load=load))
    alone = [next(restore_frames([p], Request(method="mmse"), load=load)) for p in pictures(3)]
    for frame, one in zip(frames, alone, strict=True):
        assert torch.equal(frame.done.picture.pixels, one.done.picture.pixels)


def test_frames_are_found_by_their_numbers(tmp_path):
    for name in ("b_2.png", "b_10.png", "a_1.png", ".hidden_3.png"):
        Image.fromarray(PHOTO[:8, :8]).save(tmp_path / name)
    (tmp_path / "notes_7.txt").write_text("no picture")
    assert [path.name for path in numbered(tmp_path)] == ["a_1.png", "b_2.png", "b_10.png"]
    Image.fromarray(PHOTO[:8, :8]).save(tmp_path / "c_02.png")
    with pytest.raises(PictureError, match="the same number"):
        numbered(tmp_path)
    (tmp_path / "c_02.png").rename(tmp_path / "cover.png")
    with pytest.raises(PictureError, match="has no number"):
        numbered(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(PictureError, match="no frames"):
        numbered(tmp_path / "none")


def times(path):
    """Times of all frames in seconds, counted from the first packet of the sound."""
    import av

    with av.open(str(path)) as container:
        sound = next(container.demux(audio=0))
        begun = float(sound.pts * sound.time_base)
    with av.open(str(path)) as container:
        return [float(f.pts * f.time_base) - begun for f in container.decode(video=0)]


def shown(path):
    return [frame.pixels for frame in VideoFile(path).frames()]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A clip of twelve frames at uneven times, with a tone of half a second."""
    av = pytest.importorskip("av", reason="PyAV (extra video) is not installed")
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as made:
        video = made.add_stream("libx264", rate=25, options={"crf": "10"})
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        audio = made.add_stream("aac", rate=16000)
        for i, picture in enumerate(pictures(12)):
            array = (255 * picture.pixels).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = 40 * i + 7 * (i % 3), Fraction(1, 1000)
            made.mux(video.encode(frame))
        made.mux(video.encode(None))
        tone = np.sin(np.arange(8000) / 5).astype(np.float32)[None]
        for start in range(0, 8000, 1000):
            frame = av.AudioFrame.from_ndarray(
                tone[:, start : start + 1000], format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 16000, start
            made.mux(audio.encode(frame))
        made.mux(audio.encode(None))
    return path


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.mov"])
def test_a_video_keeps_its_sound_and_its_timing(clip, tmp_path, name):
    import av

    out = tmp_path / name
    video = VideoFile(clip)
    assert video.n_frames == 12 and not video.notes
    n = video.restored(out, lambda frames: (Picture.from_pixels(1 - f.pixels) for f in frames))
    assert n == 12 and times(out) == pytest.approx(times(clip), abs=2e-3)
    for before, after in zip(shown(clip), shown(out), strict=True):
        assert float((1 - before - after).abs().mean()) < 0.02  # The colour is kept, too.
    sounds = []
    for path in (clip, out):
        with av.open(str(path)) as container:
            sounds.append(b"".join(bytes(p) for p in container.demux(audio=0)))
    assert sounds[0] == sounds[1] and len(sounds[0]) > 1000
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_frames_may_come_out_larger(clip, tmp_path):
    def enlarge(frames):
        return (Picture.from_pixels(f.pixels.repeat_interleave(2, -1)) for f in frames)

    VideoFile(clip).restored(tmp_path / "out.mp4", enlarge)
    assert shown(tmp_path / "out.mp4")[3].shape == (3, 32, 96)


def test_a_run_that_fails_leaves_no_video(clip, tmp_path):
    def fail(frames):
        for i, frame in enumerate(frames):
            if i == 5:
                raise PictureError("the sixth frame cannot be restored")
            yield frame

    with pytest.raises(PictureError, match="sixth"):
        VideoFile(clip).restored(tmp_path / "out.mp4", fail)
    assert not list(tmp_path.iterdir())


def test_what_is_no_video_is_refused(tmp_path, clip):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video at all" * 100)
    with pytest.raises(PictureError, match="cannot be read as a video"):
        VideoFile(bad)
    with pytest.raises(PictureError, match="must be a video"):
        VideoFile(clip).restored(tmp_path / "out.png", iter)
