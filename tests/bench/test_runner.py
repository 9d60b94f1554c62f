import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pristina.bench.report import Findings, write_reports
from pristina.bench.runner import Bench, code_alone, code_behind, knows, run_cell, run_suite
from pristina.bench.tasks import Row, load_suite
from pristina.errors import InputError, MissingExtra, SettingError
from pristina.methods.diip import DIIP, diip
from pristina.methods.index import method
from pristina.metrics.fidelity import psnr, ssim
from pristina.metrics.perceptual import _lpips_network as lpips_network
from pristina.operators.base import Observation
from pristina.priors.gaussian import GaussianPrior
from pristina.types import Draw

SUITE = Path(__file__).parent / "suite.toml"


def tiny_prior():
    return GaussianPrior(0.0, 0.1)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The suite run once, without interruption: folder, cells, page."""
    out = tmp_path_factory.mktemp("whole")
    suite = load_suite(SUITE)
    cells = run_suite(suite, out, prior=tiny_prior())
    return out, cells, write_reports(suite, cells, out, command="pristina bench suite")


def cell_of(cells, task, row, seed):
    return next(c for c in cells if (c["task"], c["row"], c["seed"]) == (task, row, seed))


def test_a_cell_holds_what_an_independent_run_finds(done):
    _, cells, _ = done
    found = cell_of(cells, "noise", "diip", 1)
    bench = Bench.open(load_suite(SUITE), tiny_prior())
    y = torch.cat(
        [x[None] + 0.1 * Draw(torch.Generator().manual_seed(10_010_000 + i), 1).normal(3, 16, 16) for i, x in enumerate(bench.truth)]
    )
    settings = DIIP(iterations=6, sampler_steps=2, rule="none", learning_rate=0.2)
    seeds = [torch.Generator().manual_seed(10_000 + i) for i in range(3)]
    result = diip(Observation(y), tiny_prior(), settings, generator=seeds)
    assert found["metrics"]["psnr"] == pytest.approx(psnr(result.picture, bench.truth).tolist(), abs=1e-3)
    assert found["metrics"]["ssim"] == pytest.approx(ssim(result.picture, bench.truth).tolist(), abs=1e-4)
    assert found["cost"]["network_calls"] == 7 * 2
    assert found["settings"]["iterations"] == 6 and found["method_seeds"] == [10_000, 10_001, 10_002]
    assert found["trace"]["step"] == list(range(1, 8))
    assert found["trace"]["psnr"][-1] == pytest.approx(sum(found["metrics"]["psnr"]) / 3, abs=1e-3)
    assert found["trace"]["loss"] == pytest.approx(result.trace["loss"].mean(1).tolist(), rel=1e-3)
    assert found["cost"]["seconds"] > 0 and found["cost"]["peak_bytes"] > 1e7


def test_the_best_iterate_is_at_least_as_good_as_any_and_marked(done):
    _, cells, page = done
    for seed in (0, 1):
        found = cell_of(cells, "x2", "diip", seed)
        best = found["oracle_stop"]["metrics"]["psnr"]
        assert all(b >= e - 1e-4 for b, e in zip(best, found["metrics"]["psnr"], strict=True))
        assert sum(best) / 3 >= max(found["trace"]["psnr"]) - 1e-3
        assert all(1 <= step <= 7 for step in found["oracle_stop"]["steps"])
    lines = Findings(load_suite(SUITE), cells).lines
    assert [(line.row.name, line.oracle) for line in lines if line.best] == [("diip", True)]
    assert 'class="oracle"><td>DIIP, stopped by the truth' in page.read_text()


def test_input_and_mmse_are_in_every_table(done):
    _, cells, _ = done
    assert {(c["task"], c["row"]) for c in cells if c["row"] in ("input", "mmse")} == {
        (t, r) for t in ("noise", "x2") for r in ("input", "mmse")
    }
    bench = Bench.open(load_suite(SUITE), tiny_prior())
    reduced = torch.nn.functional.avg_pool2d(bench.truth, 2)
    enlarged = torch.nn.functional.interpolate(reduced, size=(16, 16), mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
    assert cell_of(cells, "x2", "input", 0)["metrics"]["psnr"] == pytest.approx(psnr(enlarged, bench.truth).tolist(), abs=1e-3)


def test_what_does_not_go_together_is_said_and_tried_again(done, tmp_path):
    out, cells, page = done
    failed = cell_of(cells, "x2", "diffpir", 0)
    assert "no form" in failed["error"] and "metrics" not in failed
    assert "diffpir, x2: the task x2 has no form" in page.read_text()
    assert "error" not in cell_of(cells, "noise", "diffpir", 0)
    seen = []
    run_suite(load_suite(SUITE), out, prior=tiny_prior(), on_cell=lambda cell, n, of: seen.append((cell.task.name, cell.row.name)))
    assert seen == [("x2", "diffpir")] * 2  # nothing else was run again


def test_the_same_cell_gives_the_same_pictures(done):
    _, cells, _ = done
    suite = load_suite(SUITE)
    bench = Bench.open(suite, tiny_prior())
    cell = next(c for c in bench.cells() if (c.task.name, c.row.name, c.seed) == ("x2", "diip", 1))
    assert run_cell(bench, cell)["sha256"] == cell_of(cells, "x2", "diip", 1)["sha256"]
    assert cell_of(cells, "x2", "diip", 0)["sha256"] != cell_of(cells, "x2", "diip", 1)["sha256"]


def test_a_cell_is_run_again_when_anything_it_depends_on_changes():
    suite = load_suite(SUITE)

    def keys(suite, prior=None):
        return {c.title: c.key for c in Bench.open(suite, prior or tiny_prior()).cells()}

    before = keys(suite)
    assert before == keys(suite)
    other_prior = keys(suite, GaussianPrior(0.0, 0.2))
    assert {t for t in before if before[t] != other_prior[t]} == {t for t in before if "input" not in t}
    longer = replace(suite, rows=tuple(replace(r, settings={"iterations": 9}) if r.method == "diip" else r for r in suite.rows))
    assert {t for t, key in keys(longer).items() if key != before[t]} == {t for t in before if "diip" in t}
    fewer = keys(replace(suite, pictures=replace(suite.pictures, count=2)))
    assert not set(before.values()) & set(fewer.values())
    with pytest.raises(SettingError, match="no setting"):
        keys(replace(suite, rows=(Row("diip", "diip", "DIIP", settings={"iteration": 9}),)))
    with pytest.raises(SettingError, match="no method"):
        keys(replace(suite, rows=(Row("diipp", "diipp", "DIIP"),)))
    with pytest.raises(InputError, match=r"suite cannot do x2 \(areas:factor=2\): There is no operator 'areas'"):
        keys(replace(suite, tasks=(replace(suite.tasks[1], recipe="areas:factor=2"),)))
    with pytest.raises(InputError, match="There is no operator 'areas'"):
        keys(replace(suite, tasks=(replace(suite.tasks[1], form="areas:factor=2"),)))


def test_a_compiled_network_has_cells_of_its_own(monkeypatch):
    compiled = []
    monkeypatch.setattr("pristina.bench.runner.compile_network", compiled.append)
    suite, prior = load_suite(SUITE), tiny_prior()
    plain, fast = Bench.open(suite, prior), Bench.open(suite, prior, compiled=True)
    differ = {c.title for c, other in zip(plain.cells(), fast.cells(), strict=True) if c.key != other.key}
    assert differ == {c.title for c in plain.cells() if c.row.name != "input"}
    plain.compile()
    assert not compiled
    fast.compile()
    assert compiled == [prior] and prior.n_calls == 16 + 4 + 1


def test_what_methods_are_told():
    assert knows(method("diip"), Row("diip", told="truth")) == ("nothing", False)
    assert knows(method("dip"), Row("dip")) == ("nothing", False)
    assert knows(method("dip"), Row("dip", told="form")) == ("form", False)
    assert knows(method("diffpir"), Row("diffpir")) == ("truth", True)
    assert knows(method("diffpir"), Row("diffpir", told="form", told_sigma=False)) == ("form", False)


def test_a_method_gets_the_observation_and_what_it_may_know_and_nothing_else(monkeypatch):
    """No argument that reaches a method holds the truth, whatever it is told."""
    suite = load_suite(SUITE)
    bench = Bench.open(suite, tiny_prior())
    entry = method("diip")
    handed = []

    def spy(observation, prior, settings, *, generator, on_step):
        handed.append(observation)
        return diip(observation, prior, settings, generator=generator, on_step=on_step)

    import pristina.methods.diip as module

    spy.__module__ = module.__name__
    monkeypatch.setattr(module, "diip", spy)
    assert entry.function is spy
    for cell in bench.cells():
        if cell.row.method == "diip":
            run_cell(bench, cell)
    assert len(handed) == 8  # two tasks, two seeds, two batches
    assert all(o.operator is None and o.known_sigma is None for o in handed)
    for observation in handed:
        assert not any(torch.equal(y, x) for y in observation.y for x in bench.truth)


def test_the_words_of_a_method_are_no_part_of_a_cells_key_but_its_numbers_are():
    source = inspect.getsource(sys.modules[diip.__module__])
    said = source.replace("Glossary", "Words").replace("# the pictures that still run", "# those that run")
    assert code_alone('A = 1\n"""Of what."""') == code_alone("A = 1")
    assert said != source and code_alone(said) == code_alone(source)
    assert code_alone(source.replace("epsilon: float = 0.001", "epsilon: float = 0.002")) != code_alone(source)


def test_a_cells_key_covers_the_files_that_its_method_rests_on():
    for name, rests_on in (("mmse", {"mmse", "base"}), ("invert2restore", {"invert2restore", "bird", "rectify", "base"})):
        assert set(code_behind(f"pristina.methods.{name}")) == {f"pristina.methods.{file}" for file in rests_on}


def test_a_row_may_have_a_form_of_its_own_for_the_picture_at_full_size(monkeypatch):
    import pristina.methods.diffpir as module

    plain, handed = module.diffpir, []

    def diffpir(observation, *rest, **more):
        handed.append(observation)
        return plain(observation, *rest, **more)

    diffpir.__module__ = module.__name__
    monkeypatch.setattr(module, "diffpir", diffpir)
    suite = load_suite(SUITE)
    row = Row("diffpir", "own", "own", settings={"steps": 2}, told="form", form="blur:sigma={8.0},size={21}")
    bench = Bench.open(replace(suite, rows=(row,), seeds=(0,)), tiny_prior())
    cell = next(c for c in bench.cells() if c.task.name == "x2")
    run_cell(bench, replace(cell, task=replace(cell.task, sigma=0.1)))
    assert handed[0].y.shape == (2, 3, 16, 16) and handed[0].size == (16, 16)
    assert handed[0].operator.estimates()["sigma"] == 2 and handed[0].operator.size == 5


def test_true_kernels_differ_from_picture_to_picture_and_are_compared_one_by_one(monkeypatch):
    import pristina.methods.diffpir as module

    plain = module.diffpir

    def diffpir(observation, *rest, **more):  # gives back the operator that it was told, as a blind method gives its estimate
        return replace(plain(observation, *rest, **more), operator=observation.operator)

    diffpir.__module__ = module.__name__
    monkeypatch.setattr(module, "diffpir", diffpir)
    suite = load_suite(SUITE)
    task = replace(suite.tasks[0], recipe="motion:size=5,intensity=0.5", form="motion:size=5,intensity=0.5")
    rows = (Row("input", "input", "input"), Row("diffpir", "known", "known", settings={"steps": 2}, told="truth"))
    bench = Bench.open(replace(suite, tasks=(task,), rows=rows, seeds=(0,)), tiny_prior())
    found = run_cell(bench, bench.cells()[1])
    assert found["metrics"]["kernel_correlation"] == pytest.approx([1, 1, 1], abs=1e-5)
    assert found["metrics"]["kernel_error"] == pytest.approx([0, 0, 0], abs=1e-3)
    assert len(found["kernels"]) == 3 and len({true for _, true in found["kernels"]}) == 3


def test_what_is_missing_for_lpips_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    lpips_network.cache_clear()
    with pytest.raises(MissingExtra, match="LPIPS"):
        run_suite(replace(load_suite(SUITE), metrics=("psnr", "lpips")), tmp_path, prior=tiny_prior())
    assert not (tmp_path / "cells").exists()


def test_a_row_without_its_weights_does_not_hold_up_the_others(tmp_path):
    suite = load_suite(SUITE)
    rows = (*suite.rows[:2], Row("indi", "indi", "InDI", prior="nowhere"))
    cells = run_suite(replace(suite, rows=rows, seeds=(0,)), tmp_path, prior=tiny_prior())
    assert [c["row"] for c in cells if "error" in c] == ["indi", "indi"]
    assert all("nowhere is neither" in c["error"] for c in cells if "error" in c)


def without_times(text):
    """A report without its last section."""
    return re.sub(r'<section id="times">.*</section>|## Seconds and memory.*', "", text, flags=re.DOTALL)


def same_report(a, b):
    for name in ("report.html", "report.md"):
        assert without_times((a / name).read_text()) == without_times((b / name).read_text())


SCRIPT = """
import sys
from pathlib import Path
from pristina.bench.runner import run_suite
from pristina.bench.tasks import load_suite
from pristina.priors.gaussian import GaussianPrior
run_suite(load_suite(sys.argv[1]), Path(sys.argv[2]), prior=GaussianPrior(0.0, 0.1))
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_report(done, tmp_path):
    whole, _, _ = done
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(SUITE), str(tmp_path)], env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "cells").glob("[!.]*.json") if (tmp_path / "cells").exists() else [])) < 4:
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    (tmp_path / "cells" / ".half.json").write_text('{"task": "noi')  # what a kill in the middle of writing leaves
    left = {p.name: p.read_bytes() for p in (tmp_path / "cells").glob("[!.]*.json")}
    assert all(json.loads(text) for text in left.values())

    suite, seen = load_suite(SUITE), []
    cells = run_suite(suite, tmp_path, prior=tiny_prior(), on_cell=lambda cell, n, of: seen.append((n, of)))
    failed = sum("error" in json.loads(text) for text in left.values())
    assert 0 < len(seen) == 16 - len(left) + failed and seen[-1] == (16, 16)
    write_reports(suite, cells, tmp_path, command="pristina bench suite")
    same_report(whole, tmp_path)
    for name, text in left.items():
        assert "error" in json.loads(text) or (tmp_path / "cells" / name).read_bytes() == text


FOREVER = """
import multiprocessing, threading, time
from concurrent.futures import ProcessPoolExecutor
from pristina.bench.runner import _end_with_parent

def begin():
    threading.Thread(target=_end_with_parent, daemon=True).start()

def work():
    print("there", flush=True)
    time.sleep(600)

if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), begin) as pool:
        pool.submit(work).result()
"""


def test_the_processes_of_a_killed_run_end_with_it(tmp_path):
    (tmp_path / "run.py").write_text(FOREVER)
    process = subprocess.Popen([sys.executable, str(tmp_path / "run.py")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "there\n"
    process.kill()
    process.communicate(timeout=120)  # the pipe closes when the last process that holds it is gone; until then this waits, and fails


def test_processes_side_by_side_find_the_same(done, tmp_path):
    _, cells, _ = done
    beside = run_suite(load_suite(SUITE), tmp_path, prior=tiny_prior(), jobs=2)
    for one, other in zip(cells, beside, strict=True):
        assert {**one, "cost": 0, "machine": 0} == {**other, "cost": 0, "machine": 0}
        assert one.get("cost", {}).get("network_calls") == other.get("cost", {}).get("network_calls")
