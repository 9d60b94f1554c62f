"""Command ``doctor``: what it says about the machine, and whether its plans come true."""

import pytest
import torch

from pristina.cli.console import duration, printable
from pristina.cli.doctor import doctor, parse_size
from pristina.errors import PristinaError, SettingError, SizeError
from pristina.methods.index import METHODS
from pristina.restoration import restore
from tests.checkpoints.reference import Form, make_ddpm


def test_sizes_are_read():
    assert parse_size(None) is None and parse_size("33x9") == (9, 33)
    for wrong in ("100", "0x5", "ax3", "5x", "1e3x5"):
        with pytest.raises(SettingError, match="WIDTHxHEIGHT"):
            parse_size(wrong)


def test_times_and_names_in_words():
    assert [duration(s) for s in (3.21, 240, 7200)] == ["3.2 s", "4 min", "2 h"]
    assert printable("[red]a\n\x1b[2Jb") == "[red]a\\n\\x1b[2Jb"


def test_the_machine_is_described(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PRISTINA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PRISTINA_OFFLINE", "1")
    doctor(device="cpu")
    text = capsys.readouterr().out
    version = f"torch {torch.__version__}"
    for words in ("pristina", version, "cpu", "bfloat16", "train: ", str(tmp_path / "cache")):
        assert words in text
    assert "switched off" in text


def test_a_checkpoint_of_another_project_is_measured(tmp_path, capsys):
    torch.save(make_ddpm(Form()), tmp_path / "mine.ckpt")
    doctor(prior=str(tmp_path / "mine.ckpt"), method="diip", size="30x20", device="cpu")
    text = capsys.readouterr().out
    assert "30 x 20 px" in text and "network calls: at most 2010" in text and "GiB" in text
    doctor(prior=str(tmp_path / "mine.ckpt"), device="cpu")
    text = capsys.readouterr().out
    assert "takes mmse for noise alone" in text and "method: diip" in text


def test_it_refuses_what_restoring_refuses():
    """The same options give the same sentence, before anything is printed."""
    for options in [
        {"operator": "blur:sigma=2"},
        {"preset": "paper"},
        {"method": "auto", "operator": "blur:sigma=2"},
        {"prior": "kernels"},
        {"prior": "nowhere"},
        {"prior": ""},
        {"method": "magic"},
        {"method": "nothing", "operator": "blur:sigma=2"},
        {"method": "mmse", "operator": "blur:sigma=2"},
        {"method": "diffpir", "operator": "blur:sigma=2"},
        {"method": "dip", "prior": "faces"},
    ]:
        with pytest.raises(PristinaError) as planned:
            doctor(**options, size="64x64", device="cpu")
        with pytest.raises(PristinaError) as restored:
            restore(torch.rand(3, 64, 64), **options)
        assert type(planned.value) is type(restored.value), options
        assert str(planned.value) == str(restored.value)


def test_sizes_that_no_picture_has_are_refused(capsys):
    for size, method, sentence in [
        ("999999x999999", "indi", "999999 x 999999 px, more than 178,000,000"),
        ("999999x999999", None, "999999 x 999999 px, more than 178,000,000"),
        ("12x12", None, "12 x 12 px is too small to judge its damage"),
        ("20x200", "diip", "far from square"),
    ]:
        prior = "faces" if method == "diip" else None
        with pytest.raises(SizeError, match=sentence):
            doctor(method=method, prior=prior, size=size, device="cpu")
    assert capsys.readouterr().out == ""


def test_options_without_a_method_are_those_of_auto(capsys):
    doctor(size="40x36", device="cpu")
    text = capsys.readouterr().out
    assert "auto reads" in text and "method: indi" in text and "size: 40 x 36 px" in text
    doctor(method="auto", prior="photos", size="40x36", device="cpu")
    text = capsys.readouterr().out
    assert "method: diip" in text and "weights: photos" in text


@pytest.mark.parametrize("name", ["auto", *METHODS])
def test_it_answers_for_every_method(name, capsys):
    if name == "conditional_ddpm":  # No weights for them are shipped.
        with pytest.raises(SettingError, match=f"No weights for {name}"):
            doctor(method=name, device="cpu")
        return
    doctor(method=name, size="64x64", device="cpu")
    text = capsys.readouterr().out
    assert "method: " in text and "cost: " in text
    assert ("network calls" in text) == (name not in ("nothing", "dip"))
