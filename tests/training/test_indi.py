"""InDI's objective, its pairs, and trainings of a few steps."""

import json

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pristina.cli import main
from pristina.errors import CheckpointError, InputError, PictureError, SettingError
from pristina.methods.conditional_ddpm import ConditionalDDPM, conditional_ddpm
from pristina.methods.indi import indi
from pristina.operators.base import Observation
from pristina.priors.load import load_weights
from pristina.training.conditional import train_conditional
from pristina.training.indi import FLOOR, InDITask, InDITraining, draw_times, train_indi
from pristina.training.mixture import MIXTURES
from pristina.training.pairs import (
    DegradedStream,
    PairFiles,
    PairStream,
    PairTraining,
    gain,
    list_pairs,
)

from .common import save, short, smooth

TINY = {"channels": (16, 32), "size_px": 16}


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("a.txt", "call it a.safetensors"),
        ("d.safetensors", "is a folder"),
        ("start.safetensors", "overwritten"),
    ],
)
def test_where_the_weights_go_is_checked_before_any_work(tmp_path, capfd, out, sentence):
    (tmp_path / "d.safetensors").mkdir()
    (tmp_path / "start.safetensors").write_bytes(b"")
    start = tmp_path / "start.safetensors"
    words = ["train", "indi", "--data", tmp_path, "--out", tmp_path / out, "--start", start]
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in [*words, "--images", "8"]])
    assert ended.value.code == 2 and sentence in " ".join(capfd.readouterr().err.split())


def run(words):
    """Run a command, which ends with status 0."""
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 0


def test_the_command_trains_the_blind_regressor(photos, tmp_path):
    """The command of the model card, in small."""
    out = tmp_path / "blind.safetensors"
    text = (
        f"train indi --data {photos} --data {photos} --out {out} --mixture photographs "
        "--loss psnr --a 4 --optimiser muon --learning-rate 0.01 --cooldown 0.25 --images 16 "
        "--batch 4 --workers 0 --channels 8 --channels 16 --layers 1 --size 32 --share 0=2"
    )
    run(text)
    with safe_open(out, "pt") as file:
        header = json.loads(file.metadata()["pristina"])
    assert header["kind"] == "indi" and header["mixture"] == "photographs"
    assert header["network"]["architecture"] == "residual"
    assert header["trained"]["schedule"]["optimiser"] == "muon"
    assert out.with_suffix(".stable.pt").exists()
    run(text.replace("--images 16", "--images 24") + " --resume")


# pairs


def test_items_depend_on_seed_and_number_alone(photos):
    paths = sorted(photos.iterdir())
    one, two = (DegradedStream(paths, 16, MIXTURES["photographs"], seed=7) for _ in range(2))
    for i in (5, 2, 9):
        assert one[i].shape == (2, 3, 16, 16) and torch.equal(one[i], two[i])
    two[1]
    assert torch.equal(one[4], two[4]) and not torch.equal(
        one[4], DegradedStream(paths, 16, MIXTURES["photographs"], seed=8)[4]
    )


def test_both_sides_of_a_pair_come_from_the_same_place(darkened):
    pairs = list_pairs(darkened)
    assert [(a.name, b.name) for a, b in pairs] == [(f"{i}.png", f"{i}.png") for i in range(3)]
    assert pairs == list_pairs(darkened / "clean", darkened / "degraded")
    stream = PairStream(pairs, 16)
    for i in range(4):
        clean, degraded = (255 * stream[i]).round().int()
        assert torch.equal(degraded, clean // 2)


def test_layouts_of_known_sets(tmp_path):
    picture = smooth(0, 24)
    for scene in ("GOPR0384_11_00", "GOPR0384_11_05"):
        save(picture, tmp_path / f"gopro/train/{scene}/sharp/000001.png")
        save(picture, tmp_path / f"gopro/train/{scene}/blur/000001.png")
        save(picture, tmp_path / f"gopro/train/{scene}/blur_gamma/000001.png")
    assert [(a.parent.name, b.parent.name) for a, b in list_pairs(tmp_path / "gopro")] == [
        ("sharp", "blur")
    ] * 2

    for a, b in (("1P0A0916", "1P0A0917"), ("1P0A1742", "1P0A1743")):
        save(picture, tmp_path / f"dpdd/train_c/target/{a}.png")
        save(picture, tmp_path / f"dpdd/train_c/source/{b}.png")
    assert [(a.stem, b.stem) for a, b in list_pairs(tmp_path / "dpdd")] == [
        ("1P0A0916", "1P0A0917"),
        ("1P0A1742", "1P0A1743"),
    ]

    save(picture, tmp_path / "div2k/DIV2K_train_HR/0001.png")
    save(
        picture.resize((6, 6), Image.Resampling.BICUBIC),
        tmp_path / "div2k/DIV2K_train_LR_bicubic/X4/0001x4.png",
    )
    ((clean, low),) = list_pairs(tmp_path / "div2k")
    assert (clean.name, low.name) == ("0001.png", "0001x4.png")
    assert PairStream([(clean, low)], 16)[0].shape == (2, 3, 16, 16)


def test_pairs_that_are_none(tmp_path, darkened):
    with pytest.raises(InputError, match="no pairs"):
        list_pairs(darkened / "degraded")
    (darkened / "degraded/1.png").unlink()
    with pytest.raises(InputError, match="no partner"):
        list_pairs(darkened)
    save(smooth(0, 24), tmp_path / "wide.png")
    save(smooth(0, 24).crop((0, 0, 24, 12)), tmp_path / "low.png")
    with pytest.raises(PictureError, match="no smaller copy"):
        PairStream([(tmp_path / "wide.png", tmp_path / "low.png")], 8)._pair(0)
    with pytest.raises(PictureError, match="smaller than the crops"):
        PairStream([(tmp_path / "wide.png", tmp_path / "wide.png")], 64)._pair(0)


# the objective


@pytest.mark.parametrize(
    ("times", "mean"),
    [("uniform", 1 / 2), ("linear", 2 / 3), ("quadratic", 3 / 4), ("mixture", 0.875)],
)
def test_times(times, mean):
    t = draw_times(InDITraining("", times=times, a=3.0), 40_000, torch.Generator().manual_seed(0))
    assert t.min() > 0 and t.max() <= 1
    assert float(t.mean()) == pytest.approx(mean, abs=0.005)
    assert float((t == 1).float().mean()) == pytest.approx(
        0.75 if times == "mixture" else 0, abs=0.01
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": "l3"},
        {"times": "cubic"},
        {"noise": "pink", "eps": 0.1},
        {"a": -1.0},
        {"noise": "constant"},
        {"eps": 0.1},
    ],
)
def test_settings_out_of_range(wrong):
    with pytest.raises(SettingError):
        InDITraining("", **wrong)


class Recorder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, t):
        self.x_t, self.t = x, t
        return 0 * x + self.weight


@pytest.mark.parametrize(("noise", "power"), [("none", None), ("constant", 1.0), ("brownian", 0.5)])
def test_the_path_runs_from_clean_to_degraded(noise, power):
    clean, degraded = torch.full((64, 3, 16, 16), 0.2), torch.full((64, 3, 16, 16), 0.7)
    network = Recorder()
    task = InDITask(
        InDITraining("", loss="l1", times="uniform", noise=noise, eps=0.02 if power else 0.0), {}
    )
    loss = task.loss(network, torch.stack([clean, degraded], 1), torch.Generator().manual_seed(0))
    t = network.t.view(-1, 1, 1, 1)
    rest = network.x_t - (2 * (0.2 + 0.5 * t) - 1)
    assert float(loss.detach()) == pytest.approx(
        float((network.x_t + 0.6).abs().mean()), rel=1e-4
    )  # F is the identity here
    if power is None:
        assert rest.abs().max() < 1e-5
    else:
        ratio = rest.std((1, 2, 3)) / (2 * 0.02 * network.t**power)
        assert float(ratio.mean()) == pytest.approx(1, abs=0.02) and float(ratio.std()) < 0.1


@pytest.mark.parametrize("loss", ["l1", "l2", "psnr"])
def test_losses_of_two_pictures(loss):
    """F is the identity but for errors of 0.01 and 0.15 on [-1, 1] in two pictures."""
    clean = torch.full((2, 3, 8, 8), 128, dtype=torch.uint8)
    error = torch.tensor([0.01, 0.15], requires_grad=True)

    class Off(Recorder):
        def forward(self, x, t):
            return error.view(2, 1, 1, 1) + super().forward(x, t)

    task = InDITask(InDITraining("", loss=loss, times="mixture", a=1e9), {})
    found = task.loss(Off(), torch.stack([clean, clean], 1), torch.Generator().manual_seed(0))
    squares = torch.tensor([0.01**2, 0.15**2])
    by_hand = {
        "l1": squares.sqrt().mean(),
        "l2": squares.mean(),
        "psnr": (squares + FLOOR).log().mean(),
    }[loss]
    assert float(found.detach()) == pytest.approx(float(by_hand), rel=1e-4)
    found.backward()
    light, heavy = error.grad.tolist()
    assert (light / heavy > 0.2) == (loss != "l2")  # a mean of squares hardly sees light damage


def test_gain_is_a_difference_of_psnr():
    x, y = torch.zeros(4, 3, 8, 8), torch.full((4, 3, 8, 8), 0.2)
    assert gain(torch.full_like(y, 0.02), torch.stack([x, y], 1)) == pytest.approx(20, abs=1e-3)


# training


def test_a_regressor_learns_from_pairs(darkened, tmp_path):
    out = tmp_path / "out.safetensors"
    settings = InDITraining("darkened pictures", mixture=None, layers=1, **TINY)
    files = PairFiles((darkened,), held_out=darkened)
    train_indi(files, out, settings, short(images=320, learning_rate=5e-3))
    prior = load_weights("direct", out)
    assert (
        prior.domain == "darkened pictures"
        and prior.noise == "none"
        and prior.source["file"] == str(out)
    )
    clean, degraded = PairStream(list_pairs(darkened), 24)[0].unsqueeze(1)
    found = indi(Observation(degraded), prior).images
    assert (found - clean).square().mean() < 0.1 * (degraded - clean).square().mean()
    figures = json.loads(out.with_suffix(".jsonl").read_text().splitlines()[-1])
    assert figures["gain_pairs"] > 8
    with Image.open(out.with_suffix(".png")) as grid:
        assert grid.size == (3 * 16, 8 * 16)
    with pytest.raises(CheckpointError, match="'indi'"):
        load_weights("conditional", out)


def test_a_conditional_network_learns_from_the_same_pairs(darkened, tmp_path):
    out = tmp_path / "out.safetensors"
    files = PairFiles((darkened,), held_out=darkened)
    settings = PairTraining("darkened", mixture=None, **TINY)
    train_conditional(files, out, settings, short(images=320, learning_rate=5e-3))
    prior = load_weights("conditional", out)
    y = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    assert conditional_ddpm(Observation(y), prior, ConditionalDDPM(steps=2)).images.shape == y.shape
    random = torch.Generator().manual_seed(1)
    noise = torch.randn(1, 3, 16, 16, generator=random)
    assert (
        float(prior.predict(noise, 990, torch.full_like(noise, -0.4)).x0.mean()) > -0.3
    )  # brighter than the darkened picture
    with pytest.raises(CheckpointError, match="'conditional'"):
        load_weights("direct", out)
    with safe_open(out, "pt") as file:
        header = {
            "pristina": file.metadata()["pristina"].replace(
                '"prediction": "x0"', '"prediction": "eps"'
            )
        }
    save_file(load_file(out), out, metadata=header)
    with pytest.raises(CheckpointError, match="predicts eps"):
        load_weights("conditional", out)


def test_a_mixture_needs_no_degraded_pictures(photos, tmp_path):
    files = PairFiles((photos,), degraded=photos)
    with pytest.raises(SettingError, match="mixture"):
        train_indi(files, tmp_path / "out.safetensors", InDITraining("", **TINY), short())
    both = PairFiles((photos, photos))
    settings = InDITraining("", mixture=None, **TINY)
    with pytest.raises(SettingError, match="one folder"):
        train_indi(both, tmp_path / "out.safetensors", settings, short())
