"""``pristina doctor``: what it says of the machine, and whether what it predicts comes true."""

import pytest
import torch

from pristina.cli.doctor import Measured, doctor, duration, measure, network_calls, working_size
from pristina.errors import SettingError
from pristina.methods.diip import DIIP, PAPER, diip
from pristina.methods.index import METHODS
from pristina.methods.mmse import MMSE, mmse
from pristina.operators.base import Observation, Operator
from pristina.priors.base import SizeRule
from pristina.priors.gaussian import GaussianPrior
from tests.checkpoints.reference import Form, make_ddpm

Y = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("gradient", ["detached", "full", "checkpointed"])
def test_the_calls_of_diip_come_true(gradient):
    settings = DIIP(iterations=3, sampler_steps=4, rule="none", gradient=gradient)
    cost = diip(Observation(Y), GaussianPrior(variance=0.1), settings).cost
    calls = network_calls("diip", settings)
    assert (calls.forward, calls.backward) == (cost.network_calls, cost.backward_calls) and not calls.may_stop
    assert calls.kept == (4 if gradient == "full" else 1)


def test_the_calls_of_mmse_come_true():
    assert network_calls("mmse", MMSE()).forward == mmse(Observation(Y), GaussianPrior()).cost.network_calls == 1


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("dreamclean", {"levels": 4, "renewals": 2}),
        ("dps", {"steps": 5}),
        ("diffpir", {"steps": 5}),
        ("gdp", {"steps": 5}),
        ("bird", {"iterations": 3, "sampler_steps": 2}),
        ("bird", {"iterations": 3, "sampler_steps": 2, "gradient": "full", "as_released": True}),
        ("bird", {"iterations": 3, "sampler_steps": 2, "gradient": "checkpointed"}),
        ("invert2restore", {"iterations": 3, "sampler_steps": 2, "start": "inverse", "refine": 4}),
        ("invert2restore", {"iterations": 3, "sampler_steps": 2, "gradient": "checkpointed"}),
    ],
)
def test_the_calls_of_others_come_true(name, changes):
    entry = METHODS[name]
    settings = entry.settings(**changes)
    operator = None if entry.operator == "never" else Operator()
    cost = entry.function(Observation(Y, operator, known_sigma=0.1), GaussianPrior(variance=0.1), settings).cost
    calls = network_calls(name, settings)
    assert (calls.forward, calls.backward) == (cost.network_calls, cost.backward_calls)


def test_an_early_stop_and_an_unknown_method_are_said():
    assert network_calls("diip", PAPER).may_stop and network_calls("diip", PAPER).forward == 15010
    with pytest.raises(SettingError, match="cannot be said beforehand"):
        network_calls("dip", METHODS["dip"].settings())


def test_working_size():
    prior = GaussianPrior()
    prior.size_rule = SizeRule(multiple=8, minimum=16, native=64)
    assert working_size(None, prior) == (64, 64) and working_size("33x9", prior) == (40, 16)
    prior.size_rule = SizeRule(native=64, fixed=True)
    assert working_size("100x50", prior) == (64, 64)
    for wrong in ("100", "0x5", "ax3"):
        with pytest.raises(SettingError, match="WIDTHxHEIGHT"):
            working_size(wrong, prior)


def test_the_measurement_counts_what_was_called():
    prior = GaussianPrior()
    measured = measure(prior, 16, 24, backward=True)
    assert prior.n_calls == 3 and measured.forward_s > 0 and measured.both_s > 0 and measured.peak_bytes > 1e6
    calls = network_calls("dps", METHODS["dps"].settings(steps=10))
    assert Measured(2.0, 5.0, 0, 0).seconds(calls) == 50 and Measured(2.0, 5.0, 0, 0).seconds(network_calls("mmse", None)) == 2
    assert [duration(s) for s in (3.21, 240, 7200)] == ["3.2 s", "4 min", "2 h"]


def test_what_it_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PRISTINA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PRISTINA_OFFLINE", "1")
    doctor(device="cpu")
    said = capsys.readouterr().out
    for words in ("pristina", f"torch {torch.__version__}", "cpu", "bfloat16", "train: ", str(tmp_path / "cache"), "switched off"):
        assert words in said
    torch.save(make_ddpm(Form()), tmp_path / "mine.ckpt")
    doctor(prior=str(tmp_path / "mine.ckpt"), method="diip", size="30x20", device="cpu")
    said = capsys.readouterr().out
    assert "one call at 30 x 20 px" in said and "diip: at most 2010 calls (0 differentiated), at most about" in said and "GiB" in said
    with pytest.raises(SettingError, match="no diffusion prior"):
        doctor(prior=str(tmp_path / "mine.ckpt"), method="indi", device="cpu")
