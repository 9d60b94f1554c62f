"""The finder of scratches: what it learns from, and that it learns."""

import numpy as np
import pytest
import torch
from skimage import data

from pristina.errors import CheckpointError, SettingError
from pristina.filling import find_scratches
from pristina.priors.load import kind_of, load_weights
from pristina.training.data import PictureStream, list_pictures
from pristina.training.marks import KINDS, SHARES, draw_marks
from pristina.training.scratches import MarkedStream, ScratchTraining, train_scratches

from .common import short


def test_marks_change_the_picture_where_the_mask_says():
    assert len(KINDS) == len(SHARES) and sum(SHARES) == pytest.approx(1)
    x, seen = torch.full((3, 96, 96), 0.5), 0.0
    for seed in range(20):
        y, mask, counts = draw_marks(x, np.random.default_rng(seed))
        change = (y - x).abs().amax(0, keepdim=True)
        assert (change[mask > 0] > 0.05).all() and (change[(counts > 0) & (mask == 0)] < 0.02).all()
        assert (counts[mask > 0] == 1).all()
        seen += float(mask.mean())
    assert 0.01 < seen / 20 < 0.25


def test_items_depend_on_the_seed_and_their_number_alone(photos):
    pictures = PictureStream(list_pictures(photos), 64, crop="random", seed=1)
    stream, again = MarkedStream(pictures, 1), MarkedStream(pictures, 1)
    assert stream[3].shape == (5, 64, 64) and torch.equal(stream[3], again[3])
    assert not torch.equal(stream[3], MarkedStream(pictures, 2)[3])
    clean = [float(stream[i][3].sum()) == 0 for i in range(40)]
    assert 4 <= sum(clean) <= 24


def test_it_is_trained_written_read_and_finds(photos, tmp_path):
    out = tmp_path / "finder.safetensors"
    settings = ScratchTraining(size_px=32, channels=(8, 16))
    train_scratches([photos], out, settings, short(images=16))
    assert (tmp_path / "finder.png").exists() and kind_of(out) == "scratches"
    finder = load_weights("scratches", out)
    x = torch.rand(2, 3, 37, 45, generator=torch.Generator().manual_seed(0))
    found = finder.predict(x)
    assert found.shape == (2, 1, 37, 45) and found.min() >= 0 and found.max() <= 1
    # In parts or at once: the same numbers.
    parts = finder.limited(2**12).predict(x)
    assert torch.allclose(found, parts, atol=1e-5)
    with pytest.raises(CheckpointError, match="indi"):
        load_weights("direct", out)
    with pytest.raises(SettingError, match="multiple of 8"):
        ScratchTraining(size_px=33, channels=(8, 16, 32))


class Bright(torch.nn.Module):
    """A finder that is sure of what is nearly white."""

    device = torch.device("cpu")

    def predict(self, x):
        return (x.mean(1, keepdim=True) > 0.9).float()


def test_single_pixels_are_left_and_scratches_are_widened():
    x = torch.full((3, 40, 40), 0.5)
    x[:, 5, 5] = 1
    x[:, 20:22, 10:30] = 1
    holes = find_scratches(Bright(), x)
    assert holes.sum() == 4 * 22 and holes[0, 19:23, 9:31].all()


def test_the_shipped_finder_finds_scratches_and_leaves_a_clean_picture():
    finder = load_weights("scratches", "scratches")
    x = torch.from_numpy(data.chelsea()[60:188, 120:248].copy()).permute(2, 0, 1) / 255
    assert find_scratches(finder, x).float().mean() < 0.002
    hits = marks = wrong = 0.0
    for seed in range(6):
        y, mask, counts = draw_marks(x, np.random.default_rng(seed))
        found, there = find_scratches(finder, y), (mask > 0) & (counts > 0)
        hits, marks = hits + float((found & there).sum()), marks + float(there.sum())
        near = torch.nn.functional.max_pool2d(mask, 5, 1, 2) > 0
        wrong += float((found & ~near).sum())
    assert hits > 0.5 * marks and wrong < 0.2 * hits
