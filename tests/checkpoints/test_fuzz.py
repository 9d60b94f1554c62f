"""A small part of ``python -m tests.checkpoints.fuzz``: each checkpoint runs, or is refused."""

import pytest
import torch

from tests.checkpoints.fuzz import build_bases, make_case, outcome

SEEDS = range(60)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return build_bases(tmp_path_factory.mktemp("bases"))


def test_what_is_sound_runs(bases):
    assert {form: outcome(form, path) for form, path in bases.items()} == {
        form: "sentence" if form == "adm" else "runs" for form in bases
    }  # random weights in ADM's form do not tell the number of heads


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, on writing sparse tensors
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, on quantised tensors
def test_damaged_checkpoints_run_or_are_refused_in_a_sentence(bases, tmp_path):
    seen = {}
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        torch.manual_seed(0)
        seen[seed] = outcome(*make_case(bases, seed, folder))
    assert not {seed: word for seed, word in seen.items() if word not in ("runs", "sentence")}
    assert sum(word == "sentence" for word in seen.values()) > len(SEEDS) // 2
