"""Words of the command line that cannot be what their option needs."""

import pytest


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["--seed", "1e3"], "--seed"),
        (["--seed", "1.5"], "--seed"),
        (["--seed", "a"], "--seed"),
        (["--samples", "two"], "--samples"),
        (["--prior", "a\0b"], "--prior"),
        (["--operator", "kernel:file=a\0b"], "--operator"),
        (["--method", "a\0b"], "--method"),
        (["--set", "a=\0"], "--set"),
        (["--record", "a\0b"], "--record"),
        (["-o", "a\0b"], "-o"),
        (["-o", ""], "-o"),
        (["--mask", ""], "--mask"),
    ],
)
def test_one_message_names_the_option(pristina, picture_file, tmp_path, words, option):
    out = tmp_path / "out.png"
    usual = [] if "-o" in words else ["-o", out]
    text = " ".join(pristina("restore", picture_file, *usual, *words, status=2).split())
    assert text.count("Error") == 1 and option in text
    assert "NUL" in text or "whole number" in text or "cannot be empty" in text
    assert list(tmp_path.iterdir()) == [picture_file]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "-o restored.png"),
        (["--operator", "blurr"], "Did you mean blur?"),
        (["--method", "bard"], "Did you mean bird?"),
        (["--method", "indi", "--prior", "denose"], "Did you mean denoise?"),
        (["--method", "diffpir", "--preset", "papr"], "Did you mean paper?"),
        (["--method", "dip", "--set", "iteration=3"], "Did you mean iterations?"),
        (["--method", "dip", "--set", "scales=1", "--set", "scales=2"], "gives scales twice"),
    ],
)
def test_slips_get_the_word_that_was_meant(pristina, picture_file, tmp_path, words, said):
    where = ["-o", tmp_path / "out.png"] if words else []
    text = " ".join(pristina("restore", picture_file, *where, *words, status=2).split())
    assert said in text and "Traceback" not in text
    assert list(tmp_path.iterdir()) == [picture_file]


def test_a_home_folder_that_the_shell_left_is_found(pristina, picture_file, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    pristina("restore", picture_file, "--method", "nothing", "--output=~/out/new.png")
    assert (tmp_path / "out" / "new.png").is_file() and not (tmp_path / "~").exists()
