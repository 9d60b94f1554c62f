"""The two commands, called as functions."""

import json
import pickle
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data

from pristina.cli.bench import bench
from pristina.cli.measure import measure
from pristina.errors import CheckpointError, InputError, SettingError
from pristina.priors.checkpoints.format import save_weights
from pristina.priors.patch_unet import PatchUNet
from pristina.work.pool import Pool

SUITE = str(Path(__file__).parent / "suite.toml")


@pytest.fixture
def weights(tmp_path):
    """A prior of one level and random weights."""
    torch.manual_seed(0)
    settings = {
        "channels": [16],
        "layers": 1,
        "attention": False,
        "patch": 2,
        "norm": "pixel",
        "inputs": 3,
        "outputs": 3,
        "labels": 0,
    }
    header = {
        "kind": "prior",
        "network": settings,
        "domain": "noise",
        "size_px": 16,
        "fixed_size": False,
    }
    save_weights(tmp_path / "tiny.safetensors", PatchUNet(settings).state_dict(), header)
    return tmp_path / "tiny.safetensors"


def test_bench_on_ones_own_pictures_and_prior(tmp_path, weights, monkeypatch, capsys):
    folder = tmp_path / "mine"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(data.astronaut()[100 * i : 100 * i + 40, :50]).save(folder / f"{i}.png")
    monkeypatch.setattr(sys, "argv", ["pristina", "bench", "suite", "--pictures", "my folder"])
    out = tmp_path / "out"
    bench(SUITE, pictures=folder, prior=str(weights), count=2, out=out, device="cpu")
    printed = capsys.readouterr().err.replace("\n", " ")
    assert "16/16" in printed and "diffpir cannot take x2" in printed
    assert "report.html" in printed.replace(" ", "") and "earlier results" not in printed
    text = (out / "report.md").read_text()
    assert "`pristina bench suite --pictures 'my folder'`" in text
    assert f"2 of {folder} (0.png, 1.png), 16 px" in text
    assert str(weights) in text and "(sha256 " in text and "DIIP" in text
    cell = json.loads(next((out / "cells").glob("noise.mmse.0.*.json")).read_text())
    assert cell["pictures"] == ["0.png", "1.png"] and cell["cost"]["network_calls"] == 1

    before = {p: p.stat().st_mtime_ns for p in (out / "cells").iterdir() if "diffpir" not in p.name}
    bench(SUITE, pictures=folder, prior=str(weights), count=2, out=out, device="cpu")
    assert {
        p: p.stat().st_mtime_ns for p in (out / "cells").iterdir() if "diffpir" not in p.name
    } == before
    assert "14/16" not in capsys.readouterr().err
    bench(SUITE, pictures=folder, prior=str(weights), count=1, out=out, device="cpu")
    assert "16 earlier results in the same folder were not used" in capsys.readouterr().err.replace(
        "\n", " "
    )


def test_other_processes_name_the_prior_as_the_suite_does(tmp_path, weights, monkeypatch):
    """A worker gets what it needs pickled; here it is unpickled in this process."""
    real = Pool.map

    def as_elsewhere(pool, function, items):
        sent = pickle.loads(pickle.dumps((pool.setup, function, list(items))))
        yield from real(Pool(1, sent[0]), *sent[1:])

    monkeypatch.setattr(Pool, "map", as_elsewhere)
    bench(
        SUITE,
        prior=str(weights),
        count=1,
        tasks=("noise",),
        methods=("diip",),
        out=tmp_path,
        jobs=2,
        device="cpu",
    )
    cells = [json.loads(path.read_text()) for path in (tmp_path / "cells").iterdir()]
    assert len(cells) == 2 * 3 and all(
        cell["prior"].startswith(f"{weights}: noise") for cell in cells
    )


def test_what_is_wrong_is_refused_before_the_work(tmp_path, weights):
    with pytest.raises(SettingError, match="neither a suite"):
        bench("nonesuch")
    with pytest.raises(SettingError, match="jobs must be at least 1"):
        bench(SUITE, jobs=0)
    with pytest.raises(SettingError, match="count must be at least 1"):
        bench(SUITE, count=0)
    with pytest.raises(InputError, match="give --pictures"):
        bench("structured", prior=str(weights), out=tmp_path)
    with pytest.raises(CheckpointError):
        bench(SUITE, prior=str(tmp_path / "none.safetensors"), out=tmp_path)


def test_measure_prints_every_metric(tmp_path, capsys):
    truth = data.astronaut()[:64, :64]
    Image.fromarray(truth).save(tmp_path / "truth.png")
    Image.fromarray(truth // 2).save(tmp_path / "dark.png")
    measure(tmp_path / "dark.png")
    alone = capsys.readouterr().out
    assert "sharpness" in alone and "blockiness" in alone and "psnr" not in alone
    measure(tmp_path / "dark.png", tmp_path / "truth.png")
    both = capsys.readouterr().out
    from pristina.image.picture import Picture
    from pristina.metrics.fidelity import haarpsi, psnr

    pair = [Picture.open(tmp_path / f"{name}.png").pixels[None] for name in ("dark", "truth")]
    assert (
        f"{psnr(*pair).item():.5g}" in both
        and f"{haarpsi(*pair).item():.5g}" in both
        and "gmsd" in both
    )
    Image.fromarray(truth[:32]).save(tmp_path / "half.png")
    with pytest.raises(InputError, match="does not go with"):
        measure(tmp_path / "half.png", tmp_path / "truth.png")
