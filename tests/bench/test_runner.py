import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest
import torch

from pristina.bench import CellFailure, CellResult, Row, load_suite, run_suite, write_reports
from pristina.bench.cells import decode, encode
from pristina.bench.findings import Findings
from pristina.bench.loaded import LoadedSuite
from pristina.bench.measurement import run_cell
from pristina.errors import InputError, MissingExtra, PristinaError, SettingError
from pristina.methods.diip import DIIP, diip
from pristina.metrics.fidelity import psnr, ssim
from pristina.metrics.perceptual import _lpips_network as lpips_network
from pristina.operators.base import Observation
from pristina.types import Draw
from tests.bench.shared import SUITE, keys_of, tiny_prior


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The suite run once, without interruption: folder, cells, page."""
    out = tmp_path_factory.mktemp("whole")
    suite = load_suite(SUITE)
    cells = run_suite(suite, out, prior=tiny_prior())
    return out, cells, write_reports(suite, cells, out, command="pristina bench suite")


def cell_of(cells, task, row, seed):
    return next(c for c in cells if (c.task, c.row, c.seed) == (task, row, seed))


def test_a_cell_holds_what_an_independent_run_finds(done):
    _, cells, _ = done
    found = cell_of(cells, "noise", "diip", 1)
    truth = LoadedSuite.load(load_suite(SUITE), tiny_prior()).truth
    noise = [
        Draw(torch.Generator().manual_seed(10_010_000 + i), 1).normal(3, 16, 16) for i in range(3)
    ]
    y = truth + 0.1 * torch.cat(noise)
    settings = DIIP(iterations=6, sampler_steps=2, rule="none", learning_rate=0.2)
    seeds = [torch.Generator().manual_seed(10_000 + i) for i in range(3)]
    result = diip(Observation(y), tiny_prior(), settings, generator=seeds)
    assert found.metrics["psnr"] == pytest.approx(psnr(result.images, truth).tolist(), abs=1e-3)
    assert found.metrics["ssim"] == pytest.approx(ssim(result.images, truth).tolist(), abs=1e-4)
    assert found.cost.network_calls == 7 * 2
    assert found.method.settings["iterations"] == 6
    assert found.method.seeds == (10_000, 10_001, 10_002)
    assert found.trace.step == tuple(range(1, 8))
    assert found.trace.psnr[-1] == pytest.approx(sum(found.metrics["psnr"]) / 3, abs=1e-3)
    assert found.trace.loss == pytest.approx(result.trace["loss"].mean(1).tolist(), rel=1e-3)
    assert found.cost.seconds > 0 and found.cost.peak_bytes > 1e7


def test_the_best_iterate_is_at_least_as_good_as_any_and_marked(done):
    _, cells, page = done
    for seed in (0, 1):
        found = cell_of(cells, "x2", "diip", seed)
        best = found.best.metrics["psnr"]
        assert all(b >= e - 1e-4 for b, e in zip(best, found.metrics["psnr"], strict=True))
        assert sum(best) / 3 >= max(found.trace.psnr) - 1e-3
        assert all(1 <= step <= 7 for step in found.best.steps)
    lines = Findings(load_suite(SUITE), cells).lines
    assert [(line.row.name, line.oracle) for line in lines if line.best] == [("diip", True)]
    assert 'class="oracle"><td>DIIP, stopped by the truth' in page.read_text()


def test_input_and_mmse_are_in_every_table(done):
    _, cells, _ = done
    assert {(c.task, c.row) for c in cells if c.row in ("input", "mmse")} == {
        (t, r) for t in ("noise", "x2") for r in ("input", "mmse")
    }
    truth = LoadedSuite.load(load_suite(SUITE), tiny_prior()).truth
    reduced = torch.nn.functional.avg_pool2d(truth, 2)
    enlarged = torch.nn.functional.interpolate(
        reduced, size=(16, 16), mode="bicubic", align_corners=False, antialias=True
    ).clamp(0, 1)
    expected = pytest.approx(psnr(enlarged, truth).tolist(), abs=1e-3)
    assert cell_of(cells, "x2", "input", 0).metrics["psnr"] == expected


def test_what_does_not_go_together_is_reported_and_tried_again(done):
    out, cells, page = done
    failed = cell_of(cells, "x2", "diffpir", 0)
    assert isinstance(failed, CellFailure) and "no form" in failed.error
    assert "diffpir, x2: the task x2 has no form" in page.read_text()
    assert isinstance(cell_of(cells, "noise", "diffpir", 0), CellResult)
    run = []

    def on_cell(cell, n, of):
        run.append((cell.task.name, cell.row.name))

    run_suite(load_suite(SUITE), out, prior=tiny_prior(), on_cell=on_cell)
    assert run == [("x2", "diffpir")] * 2  # Nothing else was run again.


@pytest.mark.parametrize("damage", [b"", b'{"task": "noi', b"\xff\x00", b"null", b"[]", b"{}"])
def test_a_damaged_cell_is_run_again(done, tmp_path, damage):
    out, cells, _ = done
    (tmp_path / "cells").mkdir()
    for path in (out / "cells").glob("*.json"):
        (tmp_path / "cells" / path.name).write_bytes(path.read_bytes())
    damaged = next((tmp_path / "cells").glob("noise.mmse.0.*"))
    whole = damaged.read_bytes()
    damaged.write_bytes(damage)
    again = run_suite(load_suite(SUITE), tmp_path, prior=tiny_prior())
    assert without_costs(again) == without_costs(cells)
    assert set(json.loads(damaged.read_text())) == set(json.loads(whole))


def without_costs(outcomes):
    return [{**asdict(outcome), "cost": 0, "machine": 0} for outcome in outcomes]


def test_a_cell_of_another_key_under_the_same_name_is_run_again(done, tmp_path):
    out, _, _ = done
    path = next((out / "cells").glob("noise.input.0.*"))
    values = json.loads(path.read_text())
    copy = tmp_path / "cells" / path.name
    copy.parent.mkdir()
    copy.write_text(json.dumps({**values, "key": values["key"][:-1] + "x", "size_px": 99}))
    suite = load_suite(SUITE)
    suite = replace(suite, rows=suite.rows[:1], tasks=suite.tasks[:1], seeds=(0,))
    (found,) = run_suite(suite, tmp_path, prior=tiny_prior())
    assert found.size_px == 16


def test_cells_come_back_from_their_files_as_they_were(done):
    _, cells, _ = done
    for cell in cells:
        assert decode(encode(cell)) == cell


def test_cells_of_version_0_1_0_can_still_be_read(done):
    _, cells, _ = done
    cell = cell_of(cells, "x2", "diip", 0)
    values = json.loads(encode(cell))
    use = values.pop("method")
    values |= {"method": use["name"], "settings": use["settings"], "method_seeds": use["seeds"]}
    values |= {"told": "nothing", "told_sigma": False, "oracle_stop": values.pop("best")}
    values = {k: v for k, v in values.items() if v not in ([], None) or k == "truth"}
    assert decode(json.dumps(values).encode()) == cell


def test_the_same_cell_gives_the_same_pictures(done):
    _, cells, _ = done
    loaded = LoadedSuite.load(load_suite(SUITE), tiny_prior())
    cell = next(c for c in loaded.cells() if c.label == "x2.diip.1")
    assert run_cell(loaded, cell).sha256 == cell_of(cells, "x2", "diip", 1).sha256
    assert cell_of(cells, "x2", "diip", 0).sha256 != cell_of(cells, "x2", "diip", 1).sha256


def test_what_cannot_be_run_is_refused_before_the_work():
    suite = load_suite(SUITE)
    with pytest.raises(SettingError, match="no setting"):
        keys_of(replace(suite, rows=(Row("diip", "diip", "DIIP", settings={"iteration": 9}),)))
    with pytest.raises(SettingError, match="no method"):
        keys_of(replace(suite, rows=(Row("diipp", "diipp", "DIIP"),)))
    with pytest.raises(InputError, match="There is no operator 'areas'"):
        keys_of(replace(suite, tasks=(replace(suite.tasks[1], recipe="areas:factor=2"),)))
    with pytest.raises(InputError, match=r"suite cannot do x2 \(area:factor=5\): "):
        keys_of(replace(suite, tasks=(replace(suite.tasks[1], recipe="area:factor=5"),)))


def test_what_is_missing_for_lpips_is_reported_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    lpips_network.cache_clear()
    suite = replace(load_suite(SUITE), metrics=("psnr", "lpips"))
    with pytest.raises(MissingExtra, match="LPIPS"):
        run_suite(suite, tmp_path, prior=tiny_prior())
    assert not (tmp_path / "cells").exists()


def test_a_row_without_its_weights_does_not_hold_up_the_others(tmp_path):
    suite = load_suite(SUITE)
    rows = (*suite.rows[:2], Row("indi", "indi", "InDI", prior="nowhere"))
    cells = run_suite(replace(suite, rows=rows, seeds=(0,)), tmp_path, prior=tiny_prior())
    failed = [cell for cell in cells if isinstance(cell, CellFailure)]
    assert [cell.row for cell in failed] == ["indi", "indi"]
    assert all("nowhere is neither" in cell.error for cell in failed)


def without_times(text):
    """A report without its last section."""
    return re.sub(
        r'<section id="times">.*</section>|## Seconds and memory.*', "", text, flags=re.DOTALL
    )


def same_report(a, b):
    for name in ("report.html", "report.md"):
        assert without_times((a / name).read_text()) == without_times((b / name).read_text())


SCRIPT = """
import sys
from pathlib import Path
from pristina.bench import load_suite, run_suite
from pristina.priors.gaussian import GaussianPrior
suite, jobs = load_suite(sys.argv[1]), int(sys.argv[3])
run_suite(suite, Path(sys.argv[2]), prior=GaussianPrior(0.0, 0.1), jobs=jobs)
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_report(done, tmp_path):
    whole, _, _ = done
    folder = tmp_path / "cells"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(SUITE), str(tmp_path), "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while len(list(folder.glob("[!.]*.json"))) < 4:
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)  # Its workers hold the pipe too, and have to be gone.
    (folder / ".pristina-half.json").write_text('{"task": "noi')  # Left by the kill.
    left = {path.name: path.read_bytes() for path in folder.glob("[!.]*.json")}
    assert all(json.loads(text) for text in left.values())

    suite, seen = load_suite(SUITE), []
    cells = run_suite(
        suite, tmp_path, prior=tiny_prior(), on_cell=lambda cell, n, of: seen.append((n, of))
    )
    failed = sum("error" in json.loads(text) for text in left.values())
    assert 0 < len(seen) == 16 - len(left) + failed and seen[-1] == (16, 16)
    assert not list(folder.glob(".*"))
    write_reports(suite, cells, tmp_path, command="pristina bench suite")
    same_report(whole, tmp_path)
    for name, text in left.items():
        assert "error" in json.loads(text) or (folder / name).read_bytes() == text


def test_processes_side_by_side_find_the_same(done, tmp_path):
    _, cells, _ = done
    beside = run_suite(load_suite(SUITE), tmp_path, prior=tiny_prior(), jobs=2, threads=2)
    assert without_costs(beside) == without_costs(cells)
    for one, other in zip(cells, beside, strict=True):
        if isinstance(one, CellResult):
            assert one.cost.network_calls == other.cost.network_calls
            assert other.machine.threads == 2


class Cluster:
    """Worker of a cluster as far as a suite can tell: what it is given has travelled to it."""

    def __init__(self, address, workers, setup, **options):
        Cluster.asked = address, workers, options
        self.context = pickle.loads(pickle.dumps(setup))()

    def map(self, function, items):
        for item in reversed(items):
            travelled, sent = pickle.loads(pickle.dumps((function, item)))
            try:
                output = travelled(self.context, sent)
            except PristinaError as error:
                output = error
            yield item, pickle.loads(pickle.dumps(output))


def test_a_cluster_is_given_all_that_it_needs(done, tmp_path, monkeypatch):
    """``benchmarks/cluster.py`` does this with Ray, and kills a worker."""
    monkeypatch.setattr("pristina.bench.runner.RayPool", Cluster)
    _, cells, _ = done
    there = {"cluster": "local", "jobs": 2, "threads": 1}
    found = run_suite(load_suite(SUITE), tmp_path, prior=tiny_prior(), **there)
    assert without_costs(found) == without_costs(cells)
    assert Cluster.asked == ("local", 2, {"threads": 1, "gpus": 0})
