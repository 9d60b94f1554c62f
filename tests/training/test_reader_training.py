"""Training of the damage reader: the labels are true, items are kept, and it learns."""

import math

import numpy as np
import pytest
import torch
from skimage import data

from pristina.operators.kernels import spread
from pristina.priors.reader import CANDIDATES, KINDS, LEVELS
from pristina.training import labelled
from pristina.training.kernels import draw_kernel
from pristina.training.labelled import Labels, draw_labelled
from pristina.training.reader import (
    BEST_DB,
    CROP_PX,
    KeptItems,
    LabelledStream,
    ReaderTask,
    ReaderTraining,
    capped_psnr,
    pack,
    quarters,
    split,
    unpack,
)

PHOTO = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[:, 100:388, 100:388]


class Square:
    """A stream of one square."""

    def __len__(self):
        return 2**31

    def __getitem__(self, item):
        return PHOTO


class Darker:
    """A regressor that makes everything a little darker."""

    def predict(self, y, t):
        return 0.9 * y


@pytest.mark.parametrize("deviation", [0.7, 1.5, 3.0])
def test_the_width_of_a_kernel_is_its_deviation(deviation):
    random = np.random.default_rng(0)
    kernel = draw_kernel("gaussian", deviation, random)
    assert float(spread(kernel[None, None])) == pytest.approx(deviation, rel=0.02)
    disc = draw_kernel("defocus", 6.0, random)
    assert float(spread(disc[None, None])) == pytest.approx(3.0, rel=0.1)  # half of the radius


def test_what_is_said_is_what_was_done():
    x = PHOTO.float() / 255
    said = [draw_labelled(x, np.random.default_rng(i)) for i in range(60)]
    for clean, y, labels in said:
        if not labels.kinds and labels.file_quality == 0:
            assert capped_psnr(y, clean) > 30
        assert ("jpeg" in labels.kinds) == ("quality" in labels.levels)
        assert ("enlarged" in labels.kinds) == ("scale" in labels.levels)
        assert bool(labels.kinds & {"blur", "defocus", "shake"}) == ("width" in labels.levels)
        if labels.kinds == {"noise"}:
            sigma = 255 * float((y - clean).square().mean().sqrt())
            assert labels.levels["noise"] == pytest.approx(math.log2(sigma), abs=1.5)
    seen = set().union(*(labels.kinds for *_, labels in said))
    assert seen == set(KINDS)
    untouched = [torch.equal(y, clean) for clean, y, labels in said if not labels.kinds]
    assert any(untouched)
    assert any(bool((clean[0] == clean[1]).all()) for clean, *_ in said)  # grey ones


def test_a_jpeg_that_was_cut_lies_off_its_grid(monkeypatch):
    monkeypatch.setattr(labelled, "_quality", lambda random: 10)
    x, found = PHOTO.float() / 255, set()
    for i in range(40):
        labels = Labels()
        y = labelled._file(x, labels, np.random.default_rng(i))
        assert labels.levels["quality"] == 1.0
        steps = (y.mean(0).diff(dim=1).abs().mean(0)).tolist()
        at_border = [np.mean([s for j, s in enumerate(steps) if j % 8 == k]) for k in range(8)]
        found.add(int(np.argmax(at_border)))
    assert len(found) > 3 and 7 in found


def test_items_are_packed_kept_and_the_same_again(tmp_path):
    stream = LabelledStream(Square(), dict.fromkeys(CANDIDATES, Darker()), seed=5)
    kept = KeptItems(stream, 3, tmp_path / "a.items")
    first = [kept[i] for i in range(3)]
    stream.priors = None  # From now on nothing is computed.
    again = KeptItems(stream, 3, tmp_path / "a.items")
    assert all(torch.equal(a, again[i + 3]) for i, a in enumerate(first))
    crops, labels = unpack(torch.stack(first))
    assert crops.shape == (3, 4, 3, CROP_PX, CROP_PX) and crops.min() >= 0 and crops.max() <= 1
    kinds, values, quality = split(labels)
    assert kinds.shape == (3, len(KINDS)) and values.shape == (3, len(LEVELS) + len(CANDIDATES))
    assert not values[:, len(LEVELS)].isnan().any() and quality.min() >= 0
    x, y, said = draw_labelled(PHOTO.float() / 255, np.random.default_rng((23, 5, 1)))
    assert torch.equal(crops[1], quarters(y)) and torch.equal(
        labels[1, : len(KINDS) + len(LEVELS) + 1].nan_to_num(-1), said.tensor().nan_to_num(-1)
    )
    gain = capped_psnr((255 * 0.9 * quarters(y)).round() / 255, quarters(x))
    gain -= capped_psnr(quarters(y), quarters(x))
    assert float(labels[1, -len(CANDIDATES)]) == pytest.approx(gain, 1e-3)


def test_specialists_are_measured_where_their_damage_is():
    stream = LabelledStream(Square(), dict.fromkeys(CANDIDATES, Darker()), seed=6)
    rows = torch.stack([stream[i] for i in range(24)])
    kinds, values, _ = split(unpack(rows)[1])
    measured = ~values[:, len(LEVELS) :].isnan()
    assert measured[:, CANDIDATES.index("blind")].all()
    compressed = kinds[:, KINDS.index("jpeg")] > 0.5
    assert measured[compressed, CANDIDATES.index("jpeg")].all()
    assert 0 < measured[~compressed, CANDIDATES.index("jpeg")].float().mean() < 1


def test_equal_pictures_count_as_such():
    x = torch.rand(2, 3, 8, 8)
    assert capped_psnr(x, x) == BEST_DB
    assert capped_psnr(x, x + 0.1) == pytest.approx(20, abs=1e-3)


def test_it_learns_to_tell_two_kinds_apart():
    torch.manual_seed(0)
    n = len(KINDS) + len(LEVELS) + 1 + len(CANDIDATES)
    rows = []
    for i in range(16):
        noisy = i % 2
        crops = 0.5 + 0.1 * noisy * torch.randn(4, 3, CROP_PX, CROP_PX)
        labels = torch.zeros(n)
        labels[0], labels[len(KINDS)] = noisy, 4.0 if noisy else math.nan
        labels[-len(CANDIDATES) :] = 6.0 * noisy
        rows.append(pack(crops.clamp(0, 1), labels))
    settings = ReaderTraining(channels=(8, 8), hidden=16)
    task = ReaderTask(settings, torch.stack(rows))
    from pristina.priors.reader import ReaderNetwork

    network = ReaderNetwork({"channels": [8, 8], "hidden": 16})
    optimizer = torch.optim.Adam(network.parameters(), 0.015)
    before = task.evaluate(network)
    for step in range(60):
        batch = torch.stack(rows[step % 4 * 4 :][:4])
        loss = task.loss(network, batch, torch.Generator().manual_seed(step))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    after = task.evaluate(network)
    assert after["seen_noise"] == 1.0 and after["off_gain_blind"] < 0.3 * before["off_gain_blind"]
    assert after["off_noise"] < before["off_noise"] and after["held_gain_blind"] > 0.3
