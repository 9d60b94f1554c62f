"""Training: it learns, it can be killed, and it goes on exactly."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from PIL import Image

from pristina.cli import main
from pristina.errors import CheckpointError, InputError, SettingError
from pristina.priors.checkpoints.format import save_weights
from pristina.priors.direct import regress
from pristina.priors.load import load_prior
from pristina.priors.patch_unet import PatchUNet
from pristina.training.data import PictureStream
from pristina.training.loop import start_from
from pristina.training.pairs import PairTraining
from pristina.training.prior import PriorTraining, start_from_regressor, train_prior
from pristina.training.schedule import Schedule

TINY = PriorTraining(
    domain="colour ramps", size_px=16, channels=(16, 32), patch=2, attention=False, augment=0.2
)


@pytest.fixture
def folder(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(8):
        x = torch.linspace(0, 255, 24).byte().view(1, 24, 1).expand(24, 24, 3).roll(i, 1).numpy()
        Image.fromarray(x.copy()).save(pictures / f"{'a' if i < 2 else 'b'}{i}.png")
    (pictures / "note.txt").write_text("not a picture")
    return pictures


def schedule(**changes):
    return Schedule(
        **{
            "images": 240,
            "batch": 8,
            "learning_rate": 2e-3,
            "warmup": 5,
            "ema": 0.9,
            "compile": False,
            "workers": 0,
            **changes,
        }
    )


def test_it_learns_and_the_file_says_how(folder, tmp_path):
    out = train_prior(
        folder, tmp_path / "out" / "p.safetensors", TINY, schedule(images=480, learning_rate=4e-3)
    )
    lines = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
    assert (
        lines[-1]["images"] == 480 and lines[-1]["psnr_at_0.35"] > 11
    )  # the mean picture alone gives about 10 dB
    prior = load_prior(out)
    assert prior.domain == "colour ramps" and prior.size_rule.fixed and prior.size_rule.native == 16
    with Image.open(out.with_suffix(".png")) as grid:
        assert grid.size == (8 * 16, 4 * 16)


def test_killed_and_resumed_gives_the_same_weights(folder, tmp_path):
    """A run that is stopped and resumed gives bit for bit what an uninterrupted one gives."""
    short = schedule(images=48)
    through = train_prior(folder, tmp_path / "o1" / "p.safetensors", TINY, short)

    class PowerCut(Exception):
        pass

    def cut(stream):
        original = PictureStream.__getitem__

        def getitem(self, item):
            if item >= 24:
                raise PowerCut
            return original(self, item)

        return getitem

    out = tmp_path / "o2" / "p.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PictureStream, "__getitem__", cut(None))
        with pytest.raises(PowerCut):
            train_prior(folder, out, TINY, replace(short, save_minutes=1e-9))
    train_prior(folder, out, TINY, short, resume=True)
    a, b = through.read_bytes(), out.read_bytes()
    head = int.from_bytes(
        a[:8], "little"
    )  # the header holds times; the weights after it must agree
    assert a[8 + head :] == b[8 + int.from_bytes(b[:8], "little") :]


def test_kill_9_in_a_real_process(folder, tmp_path):
    out = tmp_path / "run" / "p.safetensors"
    words = (
        f"train prior --data {folder} --out {out} --size 16 --crop whole --channels 16 "
        "--channels 32 --patch 2 --batch 8 --save-minutes 0.01 --workers 0 --images"
    ).split()
    log = out.with_suffix(".jsonl")
    process = subprocess.Popen(
        [sys.executable, "-m", "pristina", *words, "100000"], stdout=subprocess.DEVNULL
    )
    deadline = time.time() + 120
    while time.time() < deadline and (not log.exists() or len(log.read_text().splitlines()) < 2):
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = [json.loads(line) for line in log.read_text().splitlines()]
    load_prior(out)  # what a kill leaves behind is whole
    more = str(before[-1]["images"] + 160)
    with pytest.raises(SystemExit) as end:
        main([*words, more, "--resume"])
    assert end.value.code == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    seen = [line["images"] for line in lines]
    assert len(seen) > len(before) and seen == sorted(set(seen))
    assert lines[: len(before)] == before and lines[-1]["loss"] < 1.3 * lines[0]["loss"]


def test_a_regressor_is_a_head_start(tmp_path):
    """At the start the prior's estimate of the clean picture is the regressor's."""
    settings = replace(TINY, norm="pixel", head="linear")
    regressor, network = (
        PatchUNet(PairTraining(domain="x", channels=(16, 32), patch=2).network_settings(3)),
        PatchUNet(settings.network_settings()),
    )
    for p in regressor.parameters():
        torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(p.numel()))
    file = tmp_path / "r.safetensors"
    save_weights(
        file, regressor.state_dict(), {"kind": "indi", "network": regressor.settings}, torch.float32
    )
    start_from_regressor(network, file)
    x, u = (
        torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0.2, 0.7]),
    )
    with torch.no_grad():
        assert torch.allclose(
            x - u.view(-1, 1, 1, 1) * network(x, u), regress(regressor, x, u), atol=1e-5
        )
        assert (network(x, u)).std() > 1e-3
    with pytest.raises(CheckpointError, match="another network"):
        start_from_regressor(PatchUNet(TINY.network_settings()), file)


def test_a_network_grows_from_a_smaller_one(tmp_path):
    """A coarser level and attention are added; the rest is what it was, and all of it learns."""
    small = PatchUNet(replace(TINY, norm="pixel", head="linear").network_settings())
    for i, p in enumerate(small.parameters()):
        torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(i))
    file = tmp_path / "small.safetensors"
    save_weights(
        file, small.state_dict(), {"kind": "prior", "network": small.settings}, torch.float32
    )
    large = PatchUNet(
        small.settings | {"channels": [*small.settings["channels"], 48], "attention": True}
    )
    start_from(large, file)
    old, new = small.unet, large.unet
    for mine, its in (
        (old.conv_in, new.conv_in),
        (old.down_blocks[1].resnets, new.down_blocks[1].resnets),
        (old.up_blocks[1], new.up_blocks[2]),
    ):
        for p, q in zip(mine.parameters(), its.parameters(), strict=True):
            assert torch.equal(p, q)
    joint, before = (
        new.up_blocks[1].resnets[0].conv1.weight,
        old.up_blocks[0].resnets[0].conv1.weight,
    )
    assert torch.equal(joint[:, 48:], before[:, 32:]) and not joint[:, :48].any()
    large(torch.rand(1, 3, 16, 16), torch.tensor([0.5])).square().sum().backward()
    assert joint.grad[:, :48].any()
    with pytest.raises(CheckpointError, match="not a smaller one"):
        start_from(PatchUNet(small.settings | {"channels": [16, 48]}), file)
    with pytest.raises(CheckpointError, match="not a smaller one"):
        start_from(PatchUNet(small.settings | {"channels": [16]}), file)


def test_what_cannot_be_trained_is_named(folder, tmp_path):
    out = tmp_path / "out" / "p.safetensors"
    with pytest.raises(SettingError, match="how long to train"):
        Schedule()
    with pytest.raises(InputError, match="is not a folder"):
        train_prior(tmp_path / "nowhere", out, TINY, schedule())
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no picture"):
        train_prior(tmp_path / "empty", out, TINY, schedule())
    with pytest.raises(CheckpointError, match="nothing to resume"):
        train_prior(folder, out, TINY, schedule(), resume=True)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"size_px": 18}, "size_px must be a multiple of 4"),
        ({"channels": (16, 24)}, "channels must be multiples of 16"),
        ({"channels": (16,), "attention": True}, "must be at least 32"),
    ],
)
def test_networks_that_cannot_be_are_refused(folder, tmp_path, wrong, sentence):
    with pytest.raises(SettingError, match=sentence):
        train_prior(folder, tmp_path / "p.safetensors", replace(TINY, **wrong), schedule())
