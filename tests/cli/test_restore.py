"""The command line as a user meets it."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from skimage import data


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def diip_words(picture, out, prior, *more):
    return ["restore", picture, "-o", out, "--prior", prior, "--method", "diip", *more]


def test_importing_and_help_stay_light():
    code = "import sys, pristina, pristina.cli; assert 'torch' not in sys.modules and 'diffusers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "pristina", "restore", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--method" in done.stdout and "| torch\n" not in done.stderr


def test_restore_writes_picture_record_and_comparison(pristina, prior_file, picture_file, tmp_path):
    out, record, compare = tmp_path / "out.png", tmp_path / "r.json", tmp_path / "sheet.png"
    words = diip_words(picture_file, out, prior_file, "--set", "iterations=3", "--set", "sampler_steps=5", "--seed", 7)
    text = pristina(*words, "--record", record, "--compare", compare)
    assert "20 network calls" in text  # (3 + 1) evaluations of G, 5 steps each
    assert pixels(out).shape == (18, 22, 3)
    assert pixels(compare).shape[1] > 2 * 256
    told = json.loads(record.read_text())
    assert told["seed"] == 7 and told["settings"]["iterations"] == 3 and told["result"]["cost"]["network_calls"] == 20
    assert len(told["input"]["sha256"]) == 64 and told["machine"]["threads"] >= 1
    assert len(told["result"]["trace"]["loss"]) == 4

    again = tmp_path / "again.png"
    pristina("restore", picture_file, "-o", again, "--like", record)
    assert again.read_bytes() == out.read_bytes()
    other = tmp_path / "other.png"
    pristina(*words[:2], "-o", other, *words[4:-1], 8)
    assert not np.array_equal(pixels(other), pixels(out))


def test_mistakes_end_with_a_sentence_and_nothing_written(pristina, prior_file, picture_file, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"junk")
    out = tmp_path / "out.png"
    prior = ["--prior", prior_file, "--method", "diip"]
    for words, sentence in [
        ([tmp_path / "none.png", "-o", out, *prior], "cannot be read"),
        ([tmp_path / "bad.png", "-o", out, *prior], "not a picture that can be read"),
        ([picture_file, "-o", tmp_path / "out.xyz", *prior], "should end in"),
        ([picture_file, "-o", out, "--prior", prior_file, "--method", "magic"], "no method 'magic'"),
        ([picture_file, "-o", out, *prior, "--preset", "magic"], "no preset 'magic'"),
        ([picture_file, "-o", out, *prior, "--set", "iterations"], "name=value"),
        ([picture_file, "-o", out, *prior, "--set", "iterations=many"], "iterations must be int"),
        ([picture_file, "-o", out, *prior, "--set", "speed=3"], "no setting 'speed'"),
        ([picture_file, "-o", out, *prior, "--set", "learning_rate=-1"], "learning_rate must be positive"),
        ([picture_file, "-o", out, "--method", "diip", "--prior", "nothing"], "is neither a file"),
        ([picture_file, "-o", out, *prior, "--operator", "blur:sigma=2"], "does not use the form"),
        ([picture_file, "-o", out, *prior, "--device", "abacus"], "cannot be used here"),
        ([picture_file, "-o", out, "--preset", "paper"], "belong to a method"),
        ([picture_file, "-o", out], "too small to judge"),
        ([picture_file, "-o", out, "--method", "conditional_ddpm"], "No weights for conditional_ddpm come with pristina"),
        ([picture_file, "-o", out, "--method", "indi", "--prior", prior_file], "'indi' is needed"),
        ([picture_file, "-o", out, "--method", "indi", "--operator", "blur:sigma=2"], "does not change it; leave it out"),
        ([picture_file, "-o", out, *prior, "--samples", 0], "must be positive"),
        ([picture_file, "-o", out, *prior, "--spread", tmp_path / "s.png"], "give 2 or more"),
        ([picture_file, "-o", out, *prior, "--compare", out], "written to the same file"),
    ]:
        text = pristina("restore", *words, status=2)
        assert sentence in " ".join(text.split()), text
    assert not out.exists()


def test_several_samples_write_their_spread(pristina, prior_file, picture_file, tmp_path):
    out, spread, record = tmp_path / "out.png", tmp_path / "spread.png", tmp_path / "r.json"
    words = ["--method", "diip", "--prior", prior_file, "--set", "iterations=2", "--samples", 3, "--spread", spread, "--record", record]
    text = pristina("restore", picture_file, "-o", out, *words)
    assert "white is a standard deviation of" in text
    assert pixels(spread).shape == (18, 22) and pixels(spread).max() == 255 and pixels(spread).std() > 10
    told = json.loads(record.read_text())
    assert told["samples"] == 3 and len(told["result"]["seeds"]) == 3 and told["result"]["cost"]["network_calls"] == 3 * 3 * 10
    again = tmp_path / "again.png"
    pristina("restore", picture_file, "-o", again, "--like", record)
    assert again.read_bytes() == out.read_bytes()


def test_a_clean_picture_is_left_alone(pristina, tmp_path):
    clean = tmp_path / "clean.jpg"
    Image.fromarray(data.astronaut()).save(clean, quality=95)
    out, record = tmp_path / "out.jpg", tmp_path / "r.json"
    text = pristina("restore", clean, "-o", out, "--record", record)
    assert "It shows no damage worth repairing" in text and "0 network calls" in text
    assert out.read_bytes() == clean.read_bytes()
    told = json.loads(record.read_text())
    assert told["method"] == "nothing" and told["seen"]["jpeg_quality"] == 95 and told["prior"] is None
    again = tmp_path / "again.png"
    pristina("restore", clean, "-o", again, "--like", record)
    assert np.array_equal(pixels(again), pixels(clean))


def test_unknown_flags_are_refused(pristina, picture_file):
    done = subprocess.run(
        [sys.executable, "-m", "pristina", "restore", str(picture_file), "--no-such-flag"], capture_output=True, text=True
    )
    assert done.returncode != 0 and "Traceback" not in done.stdout + done.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interrupting_keeps_the_best_result_so_far(prior_file, picture_file, tmp_path):
    out, record = tmp_path / "out.png", tmp_path / "r.json"
    words = diip_words(picture_file, out, prior_file, "--set", "iterations=100000", "--set", "rule=none", "--record", record)
    process = subprocess.Popen([sys.executable, "-m", "pristina", *map(str, words)], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "50/" in line:
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert "cancelled at iteration" in rest and out.exists()
    assert "cancelled" in json.loads(record.read_text())["result"]["stopped"][0]
