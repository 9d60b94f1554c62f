"""The loop: schedules, states, locks, interruptions."""

import json
from dataclasses import replace

import pytest
import torch

from pristina.errors import CheckpointError, InputError, SettingError
from pristina.priors.checkpoints.format import read_tensors, save_weights
from pristina.priors.patch_unet import PatchUNet
from pristina.priors.residual import ResidualUNet
from pristina.training.indi import InDITask, InDITraining, train_indi
from pristina.training.loop import start_from, train
from pristina.training.pairs import PairFiles, PairTraining
from pristina.training.schedule import Schedule
from pristina.training.state import only_training

from .common import short

TINY = {"channels": (8, 16), "size_px": 16, "layers": 1}


def test_the_rate_rises_stays_and_falls():
    schedule = Schedule(images=1000, warmup=10, cooldown=0.2)
    assert schedule.factor(0, 0.0) == pytest.approx(0.1)
    assert schedule.factor(50, 0.5) == schedule.factor(99, 0.8) == 1
    assert schedule.factor(99, 0.9) == pytest.approx(0.5)
    assert schedule.factor(99, 1.0) == pytest.approx(0, abs=1e-12)
    assert not schedule.cooling(0.79) and schedule.cooling(0.81)
    cosine = Schedule(images=1000, warmup=10)
    assert cosine.factor(99, 0.5) == pytest.approx(0.5) and not cosine.cooling(0.9)


def test_progress_is_that_of_the_nearer_limit():
    schedule = Schedule(images=100, minutes=1)
    assert schedule.progress(50, 6) == 0.5 and schedule.progress(10, 45) == 0.75
    assert schedule.progress(1000, 0) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": 0},
        {"batch": 0},
        {"cooldown": 0.0},
        {"cooldown": 1.5},
        {"optimiser": "sgd"},
        {"warmup": 0},
    ],
)
def test_schedules_that_cannot_be(wrong):
    with pytest.raises(SettingError):
        short(**wrong)


def interrupted(monkeypatch, at):
    """Let the loss raise KeyboardInterrupt at step ``at``."""
    calm, n = InDITask.loss, iter(range(1000))

    def loss(*args):
        if next(n) == at:
            raise KeyboardInterrupt
        return calm(*args)

    monkeypatch.setattr(InDITask, "loss", loss)
    return lambda: monkeypatch.setattr(InDITask, "loss", calm)


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_an_interrupted_run_goes_on_where_it_stopped(photos, tmp_path, monkeypatch, optimiser):
    settings = InDITraining("tests", mixture="jpeg", noise="brownian", eps=0.01, **TINY)
    files = PairFiles((photos,))
    rarely = short(images=16, optimiser=optimiser, learning_rate=1e-3)
    plan = replace(rarely, save_minutes=1e-9)
    straight = train_indi(files, tmp_path / "a.safetensors", settings, rarely)
    calm = interrupted(monkeypatch, at=2)
    with pytest.raises(KeyboardInterrupt):
        train_indi(files, tmp_path / "b.safetensors", settings, plan)
    calm()
    resumed = train_indi(files, tmp_path / "b.safetensors", settings, plan, resume=True)
    one, two = read_tensors(straight), read_tensors(resumed)
    assert all(torch.equal(one[name], two[name]) for name in one)
    # Each checkpoint is written once, the last one too.
    log = resumed.with_suffix(".jsonl").read_text().splitlines()
    seen = [json.loads(line)["images"] for line in log]
    assert seen == [4, 8, 12, 16]
    figures = json.loads(straight.with_suffix(".jsonl").read_text().splitlines()[-1])
    for kind in ("mixture", "noise25", "jpeg10", "x4", "blur1.6", "clean"):
        assert f"psnr_{kind}" in figures and f"gain_{kind}" in figures


def test_a_longer_run_goes_on_from_before_the_cool_down(photos, tmp_path):
    settings = InDITraining("tests", mixture="jpeg", **TINY)
    files = PairFiles((photos,))
    changes = {"images": 40, "optimiser": "muon", "learning_rate": 1e-3}
    out = train_indi(files, tmp_path / "a.safetensors", settings, short(cooldown=0.5, **changes))
    stable = out.with_suffix(".stable.pt")
    state = torch.load(stable, weights_only=True)
    assert state["step"] == 5
    train_indi(
        files, out, settings, short(cooldown=0.25, **changes | {"images": 80}), resume=stable
    )
    whole = train_indi(
        files,
        tmp_path / "b.safetensors",
        settings,
        short(cooldown=0.25, **changes | {"images": 80}),
    )
    one, two = read_tensors(out), read_tensors(whole)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_states_that_cannot_be_resumed(photos, tmp_path):
    settings = InDITraining("tests", mixture="jpeg", **TINY)
    files, out = PairFiles((photos,)), tmp_path / "a.safetensors"
    with pytest.raises(CheckpointError, match="nothing to resume"):
        train_indi(files, out, settings, short(), resume=True)
    train_indi(files, out, settings, short(images=8))
    state = out.with_suffix(".state.pt")
    other = InDITraining("tests", mixture="jpeg", **TINY | {"channels": (8, 8)})
    with pytest.raises(CheckpointError, match="another network"):
        train_indi(files, out, other, short(), resume=True)
    with pytest.raises(CheckpointError, match="does not fit this training"):
        train_indi(files, out, settings, short(optimiser="muon"), resume=True)
    whole = state.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no state at all"):
        state.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged or is no state"):
            train_indi(files, out, settings, short(), resume=True)
    torch.save({"step": 3}, state)
    with pytest.raises(CheckpointError, match="damaged or is no state"):
        train_indi(files, out, settings, short(), resume=True)


def test_two_trainings_on_one_output_are_refused(photos, tmp_path):
    settings = InDITraining("tests", mixture="jpeg", **TINY)
    out = tmp_path / "a.safetensors"
    with (
        only_training(out.with_suffix(".jsonl")),
        pytest.raises(InputError, match="Another training"),
    ):
        train_indi(PairFiles((photos,)), out, settings, short(images=8))
    assert not out.exists()
    train_indi(PairFiles((photos,)), out, settings, short(images=8))


def test_progress_is_reported_and_the_weights_are_averaged(tmp_path, monkeypatch):
    monkeypatch.setattr("pristina.training.loop.LINE_S", 0)

    class Stream:
        def __len__(self):
            return 2**31

        def __getitem__(self, item):
            return torch.full((3, 8, 8), item % 5 / 5)

    class Task:
        def loss(self, network, batch, random):
            return (network(batch, torch.ones(len(batch))) - 1).square().mean()

        def evaluate(self, network):
            assert not network.training
            return {"half": 0.5}

        def sample(self, network, path):
            path.write_text("a grid")

        def header(self):
            return {"kind": "test"}

    network, lines = ResidualUNet({"channels": [8, 16], "layers": 1}), []
    plan = short(optimiser="muon", cooldown=0.5, ema=0.99)
    out = train(network, Task(), Stream(), plan, tmp_path / "x.safetensors", report=lines.append)
    assert any("the cool-down begins" in line for line in lines)
    assert any("images/s" in line and "min left" in line for line in lines)
    averaged, last = read_tensors(out), network.state_dict()
    name = "conv_out.weight"
    assert not torch.allclose(averaged[name], last[name], rtol=0.02)


def test_beginning_with_weights(tmp_path):
    settings = InDITraining("x", **TINY).network_settings()
    old, new = ResidualUNet(settings), ResidualUNet(settings)
    file = tmp_path / "old.safetensors"
    save_weights(file, old.state_dict(), {"kind": "indi", "network": old.settings}, torch.float32)
    start_from(new, file)
    assert all(torch.equal(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True))
    with pytest.raises(CheckpointError, match="not a smaller one"):
        start_from(ResidualUNet(settings | {"layers": 2}), file)
    patch = PatchUNet(PairTraining("x", channels=(16, 32)).network_settings(3))
    with pytest.raises(CheckpointError, match="not a smaller one"):
        start_from(patch, file)
