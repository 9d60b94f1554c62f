"""Keys of cells: what changes them, and what does not."""

import inspect
import re
import sys
from dataclasses import replace

import pytest

from pristina.bench import Row, keys, load_suite
from pristina.bench.keys import code_alone, code_behind
from pristina.bench.loaded import LoadedSuite
from pristina.methods.diip import diip
from pristina.priors.gaussian import GaussianPrior
from tests.bench.shared import SUITE, keys_of, tiny_prior


def test_a_cell_is_run_again_when_anything_it_depends_on_changes():
    suite = load_suite(SUITE)
    before = keys_of(suite)
    assert before == keys_of(suite)
    other_prior = keys_of(suite, GaussianPrior(0.0, 0.2))
    changed = {t for t in before if before[t] != other_prior[t]}
    assert changed == {t for t in before if "input" not in t}
    rows = [replace(r, settings={"iterations": 9}) if r.method == "diip" else r for r in suite.rows]
    longer = keys_of(replace(suite, rows=tuple(rows)))
    assert {t for t, key in longer.items() if key != before[t]} == {
        t for t in before if "diip" in t
    }
    fewer = keys_of(replace(suite, pictures=replace(suite.pictures, count=2)))
    assert not set(before.values()) & set(fewer.values())
    rows = [replace(r, knowledge="exact") if r.method == "diffpir" else r for r in suite.rows]
    exact = keys_of(replace(suite, rows=tuple(rows)))
    assert {t for t, k in exact.items() if k != before[t]} == {t for t in before if "diffpir" in t}


def test_a_compiled_network_has_cells_of_its_own(monkeypatch):
    compiled = []
    monkeypatch.setattr("pristina.bench.loaded.compile_network", compiled.append)
    suite, prior = load_suite(SUITE), tiny_prior()
    plain = LoadedSuite.load(suite, prior)
    fast = LoadedSuite.load(suite, prior, compiled=True)
    pairs = zip(plain.cells(), fast.cells(), strict=True)
    differ = {c.title for c, other in pairs if c.key != other.key}
    assert differ == {c.title for c in plain.cells() if c.row.name != "input"}
    plain.compile()
    assert not compiled
    fast.compile()
    assert compiled == [prior] and prior.n_calls == 16 + 4 + 1


def edited(monkeypatch, tmp_path, module, change):
    """Let one module's file be read in an edited form; return its text."""
    original = keys.source_of
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}" / original(module).name
    path.parent.mkdir()
    text = original(module).read_text()
    path.write_text(change(text))
    monkeypatch.setattr(keys, "source_of", lambda name: path if name == module else original(name))


@pytest.mark.parametrize(
    ("module", "reached_by"),
    [
        ("priors.generate", {"input", "mmse", "diip", "diffpir", "bird"}),
        ("metrics.fidelity", {"input", "mmse", "diip", "diffpir", "bird"}),
        ("metrics.measuring", {"input", "mmse", "diip", "diffpir", "bird"}),
        ("image.statistics", {"input", "mmse", "diip", "diffpir", "bird"}),
        ("operators.noise", {"input", "mmse", "diip", "diffpir", "bird"}),  # Of the recipe.
        ("operators.convolve", {"bird"}),  # Of the row's form.
        ("operators.blur", {"bird"}),
        ("priors.gaussian", {"mmse", "diip", "diffpir", "bird"}),  # Of the prior.
        ("methods.diip", {"diip"}),
        ("methods.steps.recorder", {"mmse", "diip", "diffpir", "bird"}),
        ("restoration", {"input", "mmse", "diip", "diffpir", "bird"}),
        ("training.loop", set()),
        ("bench.report", set()),
    ],
)
def test_an_edit_of_any_module_that_a_cell_reaches_changes_its_key(
    monkeypatch, tmp_path, module, reached_by
):
    suite = load_suite(SUITE)
    bird = Row("bird", "bird", "BIRD", knowledge="form", form="blur:sigma=1,size=5")
    suite = replace(suite, rows=(*suite.rows, bird), tasks=suite.tasks[:1], seeds=(0,))
    before = keys_of(suite)
    edited(monkeypatch, tmp_path, f"pristina.{module}", lambda text: f"{text}\n# A comment.\n")
    assert keys_of(suite) == before
    edited(monkeypatch, tmp_path, f"pristina.{module}", lambda text: f"{text}\n_edited = 1\n")
    after = keys_of(suite)
    changed = {title.split(" / ")[1] for title, key in before.items() if after[title] != key}
    assert changed >= reached_by and (reached_by or not changed)


def test_comments_and_docstrings_are_no_part_of_a_cells_key_but_numbers_are():
    source = inspect.getsource(sys.modules[diip.__module__])
    commented = source.replace('"""', '"""Other words. ', 1).replace("\n\n", "\n\n# Words.\n", 1)
    assert code_alone('A = 1\n"""Its meaning."""') == code_alone("A = 1")
    assert commented != source and code_alone(commented) == code_alone(source)
    changed = re.sub(r"(epsilon: [^=]+ = )0\.001", r"\g<1>0.002", source)
    assert changed != source and code_alone(changed) != code_alone(source)


def test_imports_are_followed_wherever_they_stand():
    reached = code_behind(["pristina.methods.invert2restore"])
    assert {"pristina.methods.steps.rectify", "pristina.priors.generate"} <= set(reached)
    assert "pristina.methods.steps.recorder" in reached and "pristina.errors" in reached
    assert not any(name.startswith(("pristina.bench", "pristina.cli")) for name in reached)
    assert all(len(digest) == 64 for digest in reached.values())


def test_a_public_name_leads_to_the_module_in_which_it_stands():
    assert keys._home("pristina.metrics", "psnr") == "pristina.metrics.fidelity"
    assert keys._home("pristina.metrics", "fidelity") == "pristina.metrics.fidelity"
    assert keys._home("pristina.errors", "InputError") == "pristina.errors"
