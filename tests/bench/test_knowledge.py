"""What reaches a method: the observation, what its row may know, and nothing else."""

from dataclasses import replace

import pytest
import torch

from pristina.bench import Row, load_suite
from pristina.bench.degradation import degrade
from pristina.bench.loaded import LoadedSuite
from pristina.bench.measurement import run_cell
from pristina.bench.suite import Given
from pristina.files import digest
from pristina.methods.index import method
from pristina.operators.recipe import Recipe
from tests.bench.shared import SUITE, tiny_prior


@pytest.mark.parametrize(
    ("row", "given"),
    [
        (Row("input"), Given("none", False)),
        (Row("diip", knowledge="exact"), Given("none", False)),
        (Row("dip"), Given("none", False)),
        (Row("dip", knowledge="form"), Given("form", False)),
        (Row("dps"), Given("form", False)),
        (Row("diffpir"), Given("exact", True)),
        (Row("diffpir", knowledge="form", sigma_known=False), Given("form", False)),
    ],
)
def test_what_a_row_is_given(row, given):
    assert row.given() == given


@pytest.fixture
def handed(monkeypatch):
    """Record what reaches each method, by name, and let it work."""
    record = {}

    def watch(name):
        module, plain = method(name).module, method(name).function

        def spy(observation, prior, settings, **more):
            record.setdefault(name, []).append((observation, more))
            return plain(observation, prior, settings, **more)

        monkeypatch.setattr(module, name, spy)

    for name in ("diip", "bird", "dps", "diffpir"):
        watch(name)
    return record


SHORT = {
    "diip": {"iterations": 2, "sampler_steps": 2},
    "bird": {"iterations": 2, "sampler_steps": 2},
    "dps": {"steps": 2},
    "diffpir": {"steps": 2},
}
MOTION = "motion:size=5,intensity=0.5 | noise:sigma=0.02"
MOTION_FORM = "kernel:size=5,sigma=1 | noise:sigma=0.02"


def run_row(row, task=None, batch=2):
    """Run one row on one task; return the suite in memory, the cell and the degraded pictures."""
    suite = load_suite(SUITE)
    task = task or replace(suite.tasks[0], recipe=MOTION, form=MOTION_FORM, sigma=0.02)
    row = replace(row, name="row", label="row", settings=SHORT[row.method])
    suite = replace(suite, tasks=(task,), rows=(row,), seeds=(1,), batch=batch)
    loaded = LoadedSuite.load(suite, tiny_prior())
    (cell,) = loaded.cells()
    result = run_cell(loaded, cell)
    return loaded, result, degrade(cell.task, loaded.truth, cell.seed)


def state(operator):
    """Return everything that makes an operator what it is."""
    parts = [part.describe() for part in operator.parts]
    return parts, digest(operator), [type(part) for part in operator.parts]


@pytest.mark.parametrize("name", ["diip", "bird"])
def test_a_row_without_knowledge_is_handed_the_observation_alone(handed, name):
    _, result, degraded = run_row(Row(name, knowledge="none"))
    assert result.method.knowledge == "none" and len(handed[name]) == 2
    assert torch.equal(torch.cat([o.y for o, _ in handed[name]]), degraded.initial)
    for observation, _ in handed[name]:
        assert observation.operator is None and observation.known_sigma is None


@pytest.mark.parametrize(("name", "sigma"), [("bird", None), ("dps", None), ("diffpir", 0.02)])
def test_a_row_that_knows_the_form_is_handed_the_form_and_never_the_operator(handed, name, sigma):
    _, result, degraded = run_row(Row(name, knowledge="form"))
    assert result.method.knowledge == "form" and len(handed[name]) == 2
    assert torch.equal(torch.cat([o.y for o, _ in handed[name]]), degraded.y)
    form = state(Recipe.parse(MOTION_FORM).form(1))
    true = [state(operator) for operator in degraded.operators]
    assert form not in true
    kernels = [operator.parts[0].kernel() for operator in degraded.operators]
    for observation, _ in handed[name]:
        assert state(observation.operator) == form and observation.known_sigma == sigma
        given = observation.operator.parts[0].kernel()
        assert not any(torch.allclose(given, kernel, atol=1e-3) for kernel in kernels)


@pytest.mark.parametrize("name", ["bird", "dps", "diffpir"])
def test_a_row_that_knows_all_is_handed_the_operator_of_its_picture(handed, name):
    _, result, degraded = run_row(Row(name, knowledge="exact"))
    assert result.method.knowledge == "exact"
    assert len(handed[name]) == 3  # The kernels differ, and so each picture is alone.
    for (observation, _), operator, y in zip(
        handed[name], degraded.operators, degraded.y, strict=True
    ):
        assert state(observation.operator) == state(operator)
        assert torch.equal(observation.y, y[None])


def test_pictures_with_the_same_operator_run_together(handed):
    task = replace(load_suite(SUITE).tasks[0], recipe="blur:sigma=1,size=5", form=None)
    run_row(Row("dps", knowledge="exact"), task)
    assert [len(o.y) for o, _ in handed["dps"]] == [2, 1]


@pytest.mark.parametrize("knowledge", ["none", "form", "exact"])
def test_the_truth_reaches_no_method_by_any_argument(handed, knowledge):
    loaded, _, _ = run_row(Row("bird", knowledge=knowledge))
    clean = {digest(x) for x in loaded.truth} | {digest(loaded.truth)}

    def tensors(thing):
        if isinstance(thing, torch.Tensor):
            yield thing
            yield from thing if thing.ndim == 4 else ()
        elif isinstance(thing, torch.nn.Module):
            for value in thing.state_dict().values():
                yield from tensors(value)
        elif isinstance(thing, list | tuple):
            for value in thing:
                yield from tensors(value)

    for observation, more in handed["bird"]:
        assert set(more) <= {"generator", "on_step", "start"} and more.get("start") is None
        given = [observation.y, observation.operator, *more.values()]
        assert not clean & {digest(t) for t in tensors(given)}
        assert more["generator"][0].initial_seed() in (10_000, 10_001, 10_002)


def test_a_row_may_have_a_form_of_its_own_for_the_picture_at_full_size(handed):
    suite = load_suite(SUITE)
    form = "blur:sigma={8.0},size={21}"
    row = Row("diffpir", knowledge="form", form=form)
    run_row(row, replace(suite.tasks[1], sigma=0.1))
    observation, _ = handed["diffpir"][0]
    assert observation.y.shape == (2, 3, 16, 16) and observation.size == (16, 16)
    assert observation.operator.estimates()["sigma"] == 2 and observation.operator.size == 5


def test_true_kernels_differ_from_picture_to_picture_and_are_compared_one_by_one(monkeypatch):
    module, plain = method("diffpir").module, method("diffpir").function

    def diffpir(observation, *rest, **more):  # Its estimate is the operator that it was given.
        return replace(plain(observation, *rest, **more), operator=observation.operator)

    monkeypatch.setattr(module, "diffpir", diffpir)
    task = replace(load_suite(SUITE).tasks[0], recipe=MOTION, form=MOTION_FORM)
    _, found, _ = run_row(Row("diffpir", knowledge="exact"), task)
    assert found.metrics["kernel_correlation"] == pytest.approx([1, 1, 1], abs=1e-5)
    assert found.metrics["kernel_error"] == pytest.approx([0, 0, 0], abs=1e-3)
    assert len(found.kernels) == 3 and len({true for _, true in found.kernels}) == 3
