"""The command line as a user meets it."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from pristina import restore
from pristina.errors import InputError, PristinaError, SettingError, SizeError
from pristina.methods.diip import DIIP
from pristina.methods.index import METHODS
from pristina.priors.gaussian import GaussianPrior

PRIOR = GaussianPrior(variance=0.2)
Y = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def diip_words(picture, out, prior, *more):
    return ["restore", picture, "-o", out, "--prior", prior, "--method", "diip", *more]


def test_importing_and_help_stay_light():
    heavy = "{'torch', 'diffusers', 'pydantic'}"
    code = f"import sys, pristina, pristina.cli; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pristina", "restore", "--help"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "--method" in done.stdout and "| torch\n" not in done.stderr


LIGHT = """
import sys
from pristina.cli import main

for words in ("none.png -o a.png", "none.png -o a.xyz", "none.png -o a.png --method brid"):
    try:
        main(["restore", *words.split()])
    except SystemExit as end:
        assert end.code == 2, end.code
assert "torch" not in sys.modules
from pristina.priors.load import load_weights
load_weights("direct", "blind")
assert "diffusers" not in sys.modules
"""


def test_refusals_come_before_torch_and_regressors_without_diffusers(tmp_path):
    subprocess.run([sys.executable, "-c", LIGHT], check=True, cwd=tmp_path)


def test_the_comparison_shows_the_blur(pristina, picture_file, tmp_path):
    words = ["restore", picture_file, "-o", tmp_path / "out.png", "--compare", tmp_path / "c.png"]
    pristina(*words, "--method", "deblur", "--operator", "defocus:radius=3,size=9")
    sheet = pixels(tmp_path / "c.png")
    tile = sheet[sheet.shape[0] - 256 :, -256:].mean(-1)
    assert sheet.shape[1] > 3 * 256
    assert tile[128, 128] == 255 and tile[4, 4] == 0  # A disc, white in its middle.


def test_restore_writes_picture_record_and_comparison(pristina, prior_file, picture_file, tmp_path):
    out, record, compare = tmp_path / "out.png", tmp_path / "r.json", tmp_path / "sheet.png"
    words = diip_words(
        picture_file,
        out,
        prior_file,
        "--set",
        "iterations=3",
        "--set",
        "sampler_steps=5",
        "--seed",
        7,
    )
    text = pristina(*words, "--record", record, "--compare", compare)
    assert "20 network calls" in text  # (3 + 1) evaluations of G, 5 steps each
    assert pixels(out).shape == (18, 22, 3)
    assert pixels(compare).shape[1] > 2 * 256
    written = json.loads(record.read_text())
    assert written["request"]["seed"] == 7 and written["settings"]["iterations"] == 3
    assert written["result"]["cost"]["network_calls"] == written["calls"]["forward"] == 20
    assert len(written["input"]["sha256"]) == 64 and written["machine"]["threads"] >= 1
    assert len(written["result"]["trace"]["loss"]) == 4

    again = tmp_path / "again.png"
    pristina("restore", picture_file, "-o", again, "--like", record)
    assert again.read_bytes() == out.read_bytes()
    other = tmp_path / "other.png"
    pristina(*words[:2], "-o", other, *words[4:-1], 8)
    assert not np.array_equal(pixels(other), pixels(out))


BLUR = "blur:sigma=2,size=9"


def test_mistakes_end_with_a_sentence_and_nothing_written(
    pristina, prior_file, picture_file, tmp_path
):
    (tmp_path / "bad.png").write_bytes(b"junk")
    before = picture_file.read_bytes()
    out = tmp_path / "out.png"
    prior = ["--prior", prior_file, "--method", "diip"]
    for words, sentence in [
        ([tmp_path / "none.png", "-o", out, *prior], "cannot be read"),
        ([tmp_path / "bad.png", "-o", out, *prior], "not a picture that can be read"),
        ([picture_file, "-o", tmp_path / "out.xyz", *prior], "should end in"),
        (
            [picture_file, "-o", out, "--prior", prior_file, "--method", "magic"],
            "no method 'magic'",
        ),
        ([picture_file, "-o", out, *prior, "--preset", "magic"], "no preset 'magic'"),
        ([picture_file, "-o", out, *prior, "--set", "iterations"], "name=value"),
        (
            [picture_file, "-o", out, *prior, "--set", "iterations=many"],
            "iterations must be a whole number",
        ),
        (
            [picture_file, "-o", out, *prior, "--set", "rule=often"],
            "rule must be first or slope or laplacian or none; 'often'",
        ),
        (
            [picture_file, "-o", out, *prior, "--set", "learning_rate=nan"],
            "learning_rate must be a finite number",
        ),
        ([picture_file, "-o", out, *prior, "--set", "speed=3"], "no setting 'speed'"),
        (
            [picture_file, "-o", out, *prior, "--set", "learning_rate=-1"],
            "learning_rate must be positive",
        ),
        ([picture_file, "-o", out, "--method", "diip", "--prior", "nothing"], "is neither a file"),
        (
            [picture_file, "-o", out, *prior, "--operator", "blur:sigma=2"],
            "does not change it; leave it out",
        ),
        (
            [picture_file, "-o", out, "--method", "nothing", "--operator", "blur:sigma=2"],
            "does not use the form",
        ),
        (
            [
                picture_file,
                "-o",
                out,
                "--method",
                "bird",
                "--operator",
                "mask:drop=0.5 | noise:sigma=0.1",
            ],
            "give mask the seed",
        ),
        (
            [picture_file, "-o", out, "--method", "bird", "--prior", "faces", "--operator", BLUR],
            "bring the picture to that size, or use a prior for any picture",
        ),
        ([picture_file, "-o", out, *prior, "--device", "abacus"], "cannot be used here"),
        ([picture_file, "-o", out, *prior, "--device", "meta"], "cannot be used here"),
        ([picture_file, "-o", out, "--preset", "paper"], "belong to a method"),
        ([picture_file, "-o", out], "too small to judge"),
        (
            [picture_file, "-o", out, "--method", "conditional_ddpm"],
            "No weights for conditional_ddpm come with pristina",
        ),
        (
            [picture_file, "-o", out, "--method", "indi", "--prior", prior_file],
            "'indi' is needed here, as in blind, denoise, grain, jpeg",
        ),
        (
            [picture_file, "-o", out, "--method", "indi", "--operator", "blur:sigma=2"],
            "does not change it; leave it out",
        ),
        ([picture_file, "-o", out, *prior, "--samples", 0], "must lie between 1 and"),
        ([picture_file, "-o", out, *prior, "--samples", 1_000_000], "must lie between 1 and"),
        ([picture_file, "-o", out, *prior, "--samples", 2.7], "2.7' is not a whole number"),
        ([picture_file, "-o", out, *prior, "--seed", 2**70], "must fit into 64 bits"),
        ([picture_file, "-o", out, *prior, "--threads", 99_999_999], "must lie between 0 and"),
        (
            [picture_file, "-o", out, *prior, "--spread", tmp_path / "s.png"],
            "give --samples 2 or more",
        ),
        ([picture_file, "-o", out, *prior, "--compare", out], "written to the same file"),
        ([picture_file, "-o", picture_file, *prior], "would be overwritten"),
        ([picture_file, "-o", out, *prior, "--record", picture_file], "would be overwritten"),
        ([picture_file, "-o", out, *prior, "--record", prior_file], "would be overwritten"),
        (
            [picture_file, "-o", out, *prior, "--record", picture_file / "r.json"],
            "is a file, not a folder",
        ),
    ]:
        text = pristina("restore", *words, status=2)
        assert sentence in " ".join(text.replace("│", "").split()), text
    assert not out.exists() and picture_file.read_bytes() == before


FIRST_RECORD = {
    "method": "diip",
    "prior": "PRIOR",
    "recipe": None,
    "settings": {},
    "seed": 0,
    "samples": 1,
    "machine": {"device": "cpu", "threads": 1},
}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (None, "a record is a JSON object"),
        ({"machine": None}, "missing or of a wrong type"),
        ({"machine": {"device": "cpu", "threads": "two"}}, "threads missing or of a wrong type"),
        ({"settings": ["iterations"]}, "settings missing or of a wrong type"),
        ({"settings": {"iterations": [3]}}, "iterations must be a whole number; [3] is not"),
        ({"settings": {"learning_rate": "fast"}}, "learning_rate must be a finite number"),
        ({"seed": 1.5}, "seed missing"),
        ({"seed": True}, "seed missing"),
        ({"samples": "3"}, "samples missing"),
        ({"method": ["bird"], "prior": 3, "recipe": 7}, "method, prior, recipe missing"),
        ({"request": {"method": "diip", "sped": 3}, "settings": {}}, "sped"),
        ({"request": {"method": "diip", "seed": "3"}, "settings": {}}, "seed"),
        ({"request": [1], "settings": {}}, "of a wrong type"),
        ({"request": {"method": "diip"}, "machine": "x"}, "of a wrong type"),
        ({"request": {"method": "diip", "preset": "magic"}}, "no preset 'magic'"),
        ({"request": {"method": "diip"}, "weights_name": "GaussianPrior"}, "an object in Python"),
    ],
)
def test_a_record_that_was_edited_is_refused(
    pristina, prior_file, picture_file, tmp_path, changes, sentence
):
    record = FIRST_RECORD | {"prior": str(prior_file)}
    (tmp_path / "r.json").write_text(json.dumps(3 if changes is None else record | changes))
    words = ["restore", picture_file, "-o", tmp_path / "out.png", "--like", tmp_path / "r.json"]
    assert sentence in pristina(*words, status=2)


def test_a_record_of_the_first_version_is_followed(pristina, prior_file, picture_file, tmp_path):
    settings = {"iterations": 2, "sampler_steps": 3, "rule": "none"}
    record = FIRST_RECORD | {"prior": str(prior_file), "settings": settings}
    (tmp_path / "r.json").write_text(json.dumps(record))
    out, again = tmp_path / "out.png", tmp_path / "again.png"
    pristina("restore", picture_file, "-o", out, "--like", tmp_path / "r.json")
    words = [f"--set={name}={value}" for name, value in settings.items()]
    pristina(*diip_words(picture_file, again, prior_file, *words))
    assert np.array_equal(pixels(out), pixels(again))


def test_a_dry_run_prints_the_plan_and_writes_nothing(pristina, prior_file, picture_file, tmp_path):
    out = tmp_path / "out.png"
    words = diip_words(picture_file, out, prior_file, "--set", "iterations=3", "--dry-run")
    text = pristina(*words)
    assert "network calls: at most 40" in text and "GiB" in text and "22 x 18 px" in text
    assert not out.exists()


def test_a_record_is_followed_in_everything(pristina, picture_file, tmp_path):
    words = ["restore", picture_file, "-o", tmp_path / "out.png", "--like", tmp_path / "r.json"]
    assert "No such file or directory." in pristina(*words, status=2)
    (tmp_path / "r.json").write_text("junk")
    assert "it is no JSON" in pristina(*words, status=2)
    text = pristina(*words, "--seed", 0, "--set", "iterations=3", status=2)
    assert "leave out --set, --seed, or edit" in text


@pytest.mark.parametrize("name", METHODS)
def test_settings_survive_their_record(name):
    settings = METHODS[name].settings()
    assert METHODS[name].make_settings(None, json.loads(json.dumps(asdict(settings)))) == settings
    as_text = {k: str(v) for k, v in asdict(settings).items()}
    assert METHODS[name].make_settings(None, as_text) == settings


def test_the_choice_of_auto_is_replayed(pristina, tmp_path):
    damaged, record, out, again = (
        tmp_path / name for name in ("in.jpg", "r.json", "out.png", "again.png")
    )
    Image.fromarray(data.astronaut()[:64, :64]).save(damaged, quality=10)
    assert "was chosen" in pristina("restore", damaged, "-o", out, "--record", record)
    assert "another picture" not in pristina("restore", damaged, "-o", again, "--like", record)
    assert (
        again.read_bytes() == out.read_bytes()
        and json.loads(record.read_text())["settings"]["grid"] == "uniform"
    )
    other = tmp_path / "other.png"
    Image.fromarray(data.astronaut()[64:128, :64]).save(other)
    words = ["restore", other, "-o", tmp_path / "c.png", "--like", record]
    assert "is the record of another picture" in pristina(*words)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"settings": {"learning_rate": float("nan")}}, "finite"),
        ({"settings": {"learning_rate": "inf"}}, "finite"),
        ({"settings": {"sphere": 1}}, "sphere must be true or false"),
        ({"settings": {"iterations": True}}, "iterations must be a whole number"),
        ({"settings": DIIP(), "preset": "paper"}, "without a preset"),
        ({"settings": DIIP(), "method": "bird"}, "takes settings by name, or a BIRD"),
        (
            {"method": "indi", "settings": {"grid": 3}},
            "grid must be uniform or geometric or a row of numbers",
        ),
    ],
)
def test_wrong_settings_are_refused_in_python_too(options, sentence):
    with pytest.raises(SettingError, match=sentence):
        restore(Y, **{"method": "diip", "prior": PRIOR, **options})


def test_further_weights_are_loaded_by_name():
    settings = {"steps": 2, "kernel_px": 31}
    request = {"method": "blind_dps", "prior": GaussianPrior(variance=0.2)}
    y = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0))
    done = restore(y, operator="blur:sigma=1,size=31", settings=settings, **request)
    assert list(done.plan.extra_weights) == ["kernel_prior"]
    assert done.record()["settings"]["kernel_prior"] == "kernels"


def test_a_picture_without_colour_gets_some(pristina, prior_file, tmp_path):
    grey, out = tmp_path / "grey.png", tmp_path / "out.png"
    Image.fromarray(data.camera()[:16, :16]).save(grey)
    words = [
        "--method",
        "bird",
        "--prior",
        prior_file,
        "--set",
        "iterations=1",
        "--set",
        "sampler_steps=2",
    ]
    pristina("restore", grey, "-o", out, *words, "--operator", "grey | noise:sigma=0.02")
    assert pixels(out).shape == (16, 16, 3) and pixels(out).std(-1).max() > 0
    pristina("restore", grey, "-o", out, *words, "--force")
    assert pixels(out).shape == (16, 16)
    with pytest.raises(InputError, match="1 channel"):
        restore(Y, method="bird", prior=PRIOR, operator="grey")


@pytest.mark.parametrize("method", ["diip", "mmse"])
def test_an_operator_says_the_size_to_methods_that_do_not_use_it(method, prior_file):
    settings = {"iterations": 1} if method == "diip" else {}
    for prior in (PRIOR, prior_file):  # the second takes multiples of 4 px only
        picture = restore(
            Y[:, :11, :5], method=method, prior=prior, operator="area:factor=2", settings=settings
        ).picture
        assert picture.size == (22, 10)
    with pytest.raises(SizeError, match="160000 x 160000 px, more than"):
        restore(Y, method=method, prior=PRIOR, operator="area:factor=10000")


def test_a_prior_of_one_channel_keeps_the_colour():
    done = restore(Y, method="mmse", prior=GaussianPrior(variance=0.2, channels=1))
    assert done.picture.pixels.std(0).max() > 0.01 and "each colour channel" in done.notes[-1]
    assert done.cost.network_calls == done.plan.calls.forward == 3
    grey = restore(Y[:1], method="mmse", prior=GaussianPrior(variance=0.2, channels=1))
    assert grey.picture.pixels.shape == (3, 16, 16) and grey.cost.network_calls == 1


@pytest.mark.parametrize("method", ["diffpir", "ddrm", "gibbs_ddrm"])
def test_the_noise_of_the_operator_is_told(method):
    run = {"method": method, "prior": PRIOR, "settings": {"steps": 2}}
    faint, strong = (
        restore(Y, operator=f"blur:sigma=1,size=3 | noise:sigma={s}", **run).picture.pixels
        for s in (0.01, 0.2)
    )
    assert not torch.equal(faint, strong)
    for recipe in (
        "blur:size=3,sigma=1",
        "noise:sigma=0.1 | blur:size=3,sigma=1",
        "blur:size=3,sigma=1 | speckle | noise:sigma=0.1",
    ):
        with pytest.raises(InputError, match="end the operator with it"):
            restore(Y, operator=recipe, **run)
    restore(
        Y,
        operator="blur:size=3,sigma=1",
        method="gibbs_ddrm",
        prior=PRIOR,
        settings={"steps": 2, "sigma": "estimated", "kernel_px": 3},
    )


def test_samples_say_how_sure_the_operator_is_and_that_nothing_is_drawn():
    run = {
        "operator": "blur:sigma=1,size=3",
        "method": "bird",
        "settings": {"iterations": 2, "sampler_steps": 2},
    }
    done = restore(Y, prior=PRIOR, samples=2, **run)
    assert done.record()["operator_std"]["sigma"] > 0 and not done.notes
    same = restore(Y, prior=PRIOR, samples=2, method="mmse")
    assert not same.std.any() and "Nothing is drawn" in same.notes[-1]


def test_a_run_out_of_bounds_writes_nothing():
    class Broken(GaussianPrior):
        def predict_x0(self, x_t, t, alpha_bar):
            return super().predict_x0(x_t, t, alpha_bar) * float("nan")

    with pytest.raises(PristinaError, match="diverged"):
        restore(Y, method="mmse", prior=Broken(variance=0.2))


def test_several_samples_write_their_spread(pristina, prior_file, picture_file, tmp_path):
    out, spread, record = tmp_path / "out.png", tmp_path / "spread.png", tmp_path / "r.json"
    words = [
        "--method",
        "diip",
        "--prior",
        prior_file,
        "--set",
        "iterations=2",
        "--samples",
        3,
        "--spread",
        spread,
        "--record",
        record,
    ]
    text = pristina("restore", picture_file, "-o", out, *words)
    assert "white is a standard deviation of" in text
    assert (
        pixels(spread).shape == (18, 22)
        and pixels(spread).max() == 255
        and pixels(spread).std() > 10
    )
    written = json.loads(record.read_text())
    assert written["request"]["samples"] == 3 and len(written["result"]["seeds"]) == 3
    assert written["result"]["cost"]["network_calls"] == 3 * 3 * 10
    again = tmp_path / "again.png"
    pristina("restore", picture_file, "-o", again, "--like", record)
    assert again.read_bytes() == out.read_bytes()


def test_a_clean_picture_is_left_alone(pristina, tmp_path):
    clean = tmp_path / "clean.jpg"
    Image.fromarray(data.astronaut()).save(clean, quality=95)
    out, record = tmp_path / "out.jpg", tmp_path / "r.json"
    text = pristina("restore", clean, "-o", out, "--record", record)
    assert "left as it is" in text and "0 network calls" in text
    assert out.read_bytes() == clean.read_bytes()
    written = json.loads(record.read_text())
    assert written["request"]["method"] == "nothing" and written["request"]["prior"] is None
    assert written["reading"]["file_quality"] == 95
    again = tmp_path / "again.png"
    pristina("restore", clean, "-o", again, "--like", record)
    assert np.array_equal(pixels(again), pixels(clean))


def test_an_interruption_is_told(pristina, picture_file, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pristina.operators.recipe.Recipe.parse", interrupted)
    assert "interrupted" in pristina(
        "degrade",
        picture_file,
        "-o",
        tmp_path / "out.png",
        "--operator",
        "noise:sigma=0.1",
        status=130,
    )


def test_unknown_flags_are_refused(pristina, picture_file):
    done = subprocess.run(
        [sys.executable, "-m", "pristina", "restore", str(picture_file), "--no-such-flag"],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0 and "Traceback" not in done.stdout + done.stderr


def test_interrupting_keeps_the_best_result_so_far(picture_file, tmp_path):
    out, record = tmp_path / "out.png", tmp_path / "r.json"
    words = ["restore", picture_file, "-o", out, "--method", "dip", "--record", record]
    for setting in ("iterations=100000", "stop=iterations", "channels=8", "scales=2"):
        words += ["--set", setting]
    process = subprocess.Popen(
        [sys.executable, "-m", "pristina", *map(str, words)], stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:
        if "50/" in line:
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert "cancelled at step" in rest and out.exists()
    assert "cancelled" in json.loads(record.read_text())["result"]["stopped"][0]


def test_a_numbered_processor_is_the_processor():
    assert (
        restore(Y, method="mmse", prior=PRIOR, device="cpu:7").record()["machine"]["device"]
        == "cpu"
    )


def test_a_narrow_terminal_and_a_full_output_are_borne():
    command = [sys.executable, "-m", "pristina", "restore", "--help"]
    narrow = {**os.environ, "COLUMNS": "2"}
    done = subprocess.run(command, capture_output=True, text=True, env=narrow, timeout=60)
    assert done.returncode == 0
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "pristina", "doctor"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "cannot be written" in done.stderr
