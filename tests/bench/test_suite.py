from pathlib import Path

import pytest
import torch
from PIL import Image

from pristina.bench import PictureSet, Task, load_suite, suite_names
from pristina.bench.degradation import degrade
from pristina.bench.pictures import BUILTIN, builtin_picture, load_pictures, picture_size
from pristina.errors import InputError, OperatorError, SettingError, SizeError
from pristina.operators.recipe import Recipe
from pristina.priors.base import SizeRule
from pristina.priors.gaussian import GaussianPrior
from pristina.priors.load import shipped

SUITE = Path(__file__).parent / "suite.toml"


@pytest.mark.parametrize("name", suite_names())
def test_shipped_suites_can_be_read_and_their_recipes_too(name):
    suite = load_suite(name)
    methods = [row.method for row in suite.rows]
    assert methods[:2] == ["input", "mmse"] and suite.title and suite.about
    for row in suite.rows[1:]:
        row.make_settings()
        assert row.entry.operator != "never" or row.knowledge in (None, "none")
    assert not suite.published or set(suite.published.values) <= {row.name for row in suite.rows}
    for task in suite.tasks:
        for size_px in (64, 128):
            sized = task.at(size_px)
            operator = Recipe.parse(sized.recipe).build(0)
            x = torch.rand(1, 3, size_px, size_px)
            y = operator.degrade(x, degrade_draw())
            assert operator.initial(y).shape[-2:] == x.shape[-2:]
            if sized.form:
                form = Recipe.parse(sized.form).form(0)
                form.check(y)
                assert form.picture_size(*y.shape[-2:]) == (size_px, size_px)


@pytest.mark.parametrize("name", suite_names())
def test_shipped_suites_name_shipped_weights(name):
    suite = load_suite(name)
    named = {suite.prior, *(row.prior for row in suite.rows)} - {None}
    assert named <= set(shipped())


def degrade_draw():
    from pristina.types import Draw

    return Draw(torch.Generator().manual_seed(0), 1)


def test_the_papers_numbers_stand_in_the_suites():
    structured, unstructured = (
        load_suite("structured").published,
        load_suite("unstructured").published,
    )
    assert (
        structured.value("diip", "denoise", "psnr") == 28.37
        and structured.value("bird", "x4", "lpips") == 0.294
    )
    assert unstructured.value("dreamclean", "drops", "ssim") == 0.643
    assert (
        unstructured.value("diip", "drops", "haarpsi") is None
        and unstructured.value("mmse", "jpeg", "psnr") is None
    )
    assert len(structured.values) == 7 and len(unstructured.values) == 3


def test_lengths_in_braces_grow_with_the_pictures():
    task = Task(
        "t", "blur:sigma={1.6},size={21} | radon:n_angles=9,size={size}", form="blur:sigma={2.0}"
    )
    assert task.at(64).recipe == "blur:sigma=1.6,size=21 | radon:n_angles=9,size=64"
    assert task.at(128).recipe == "blur:sigma=3.2,size=41 | radon:n_angles=9,size=128"
    assert task.at(32).form == "blur:sigma=1"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('title = "A small suite"', ""), "a suite needs title"),
        (
            ("batch = 2", "batsch = 2"),
            r"a suite has no 'batsch'; it has name, title, tasks, methods, about,",
        ),
        (("batch = 2", "batch = 0"), "batch must be at least 1, not 0"),
        (("batch = 2", 'batch = "x"'), "batch must be a whole number, not 'x'"),
        (("builtin", "bultin"), "pictures has no 'bultin'; it has folder, builtin"),
        (('name = "x2"', 'name = "noise"'), "names of their own"),
        (('name = "x2"', 'name = "a/b"'), "cannot name a file"),
        (
            ('knowledge = "form"', 'knowledge = "all"'),
            r"methods\[1\].knowledge must be 'none' or 'form' or 'exact', not 'all'",
        ),
        (
            ('knowledge = "form"', 'told = "all"'),
            r"methods\[1\].knowledge must be 'none' or 'form' or 'exact', not 'all'",
        ),
        (
            ('knowledge = "form"', 'knows = "form"'),
            r"methods\[1\] has no 'knows'; it has method, name, label,",
        ),
        (('title = "A small suite"', 'title = "t"\nname = "../out"'), "cannot name a file"),
        (('title = "A small suite"', 'title = "t"\nname = ".hidden"'), "no dot at the beginning"),
        (('title = "A small suite"', 'title = "t"\nname = "/tmp/out"'), "cannot name a file"),
        (
            ('recipe = "area:factor=2"', 'recipe = "areas:factor=2"'),
            r"x2 \(areas:factor=2\): There is no operator 'areas'",
        ),
        (
            ('recipe = "area:factor=2"', 'recipe = "area:factor=2"\nform = "area:factr=2"'),
            "area has no 'factr'",
        ),
        (("noise = [31.5]", "noise = [31.5, 1]"), "holds 2 numbers"),
        (
            ("noise = [31.5]", "noise = 31.5"),
            "published.values.diip.noise must be a list, not 31.5",
        ),
        (("seeds = [0, 1]", "seeds = [0, 1"), "not valid TOML"),
        (("seeds = [0, 1]", "seeds = 3"), "seeds must be a list, not 3"),
        (("seeds = [0, 1]", 'seeds = ["a"]'), r"seeds\[0\] must be a whole number, not 'a'"),
        (("seeds = [0, 1]", "seeds = [true]"), r"seeds\[0\] must be a whole number, not True"),
        (("seeds = [0, 1]", "prior = 3"), "prior must be a text, not 3"),
        (
            (
                '[pictures]\nbuiltin = ["astronaut", "coffee", "chelsea"]\nsize_px = 16',
                "pictures = 3",
            ),
            "pictures must be a table, not 3",
        ),
        (("size_px = 16", 'count = "x"'), "pictures.count must be a whole number, not 'x'"),
        (("size_px = 16", "folder = 3"), "pictures.folder must be a text, not 3"),
        (("size_px = 16", "count = -1"), "pictures.count must be at least 0, not -1"),
        (("recipe = ", "recipe = 3 #"), r"tasks\[0\].recipe must be a text, not 3"),
        (("sigma = 0.1", 'sigma = "a"'), r"tasks\[0\].sigma must be a number, not 'a'"),
        (('["psnr", "ssim"]', "[]"), "metrics must not be empty"),
        (("seeds = [0, 1]", "seeds = []"), "seeds must not be empty"),
        (('["psnr", "ssim"]', '["foo"]'), r"metrics\[0\] must be 'psnr' or 'ssim'"),
        (('["psnr", "ssim"]', '"psnr"'), "metrics must be a list, not 'psnr'"),
        (
            ("iterations = 6", "iterations = 2.5"),
            "diip: iterations must be a whole number; 2.5 is not",
        ),
        (
            ("iterations = 6", "iterations = [1]"),
            r"diip: iterations must be a whole number; \[1\] is not",
        ),
        (("iterations = 6", "iteration = 6"), "DIIP has no setting 'iteration'"),
        (('"diffpir"', '"diffpirr"'), "no method 'diffpirr'"),
    ],
)
def test_a_wrong_suite_is_named_with_its_fault(tmp_path, change, says):
    text = SUITE.read_text()
    assert change[0] in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(*change, 1))
    with pytest.raises(SettingError, match=says) as caught:
        load_suite(path)
    assert "mine.toml" in str(caught.value)


def test_a_suite_may_name_itself_and_give_settings_as_lists(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        SUITE.read_text()
        .replace('"diffpir"', '"indi"')
        .replace("{ steps = 3 }", "{ grid = [1, 0.5, 0] }")
    )
    assert load_suite(path).name == "mine" and load_suite(path).rows[-1].settings == {
        "grid": [1, 0.5, 0]
    }
    path.write_text('name = "other"\ntitle = "t"\n[[tasks]]\nname = "grey"\nrecipe = "grey"')
    assert load_suite(path).name == "other" and [row.name for row in load_suite(path).rows] == [
        "input",
        "mmse",
    ]
    odd = tmp_path / "my suite ä.toml"
    odd.write_text(path.read_text().replace('name = "other"\n', ""))
    assert load_suite(odd).name == "my_suite__"  # It names a folder.


def test_a_suite_of_version_0_1_0_is_read_in_todays_words(tmp_path):
    path, text = tmp_path / "mine.toml", SUITE.read_text()
    for old, new in (
        ('told = "form"', "form"),
        ('told = "truth"\ntold_sigma = false', "exact"),
        ('told = "nothing"', "none"),
        ('told = ""', None),
    ):
        path.write_text(text.replace('knowledge = "form"', old))
        row = load_suite(path).rows[-1]
        assert row.knowledge == new and row.sigma_known is (False if "sigma" in old else None)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x89PNG\r\n", r"mine\.toml is not valid TOML"),
        (b'title = "t"\nmethods = []\ntasks = 3', "tasks must be a list, not 3"),
        (b'title = "t"\nmethods = []\ntasks = [3]', r"tasks\[0\] must be a table, not 3"),
    ],
)
def test_a_file_that_is_no_suite(tmp_path, content, says):
    (tmp_path / "mine.toml").write_bytes(content)
    with pytest.raises(SettingError, match=says):
        load_suite(tmp_path / "mine.toml")


def test_a_part_of_a_suite():
    suite = load_suite("bird").with_changes(tasks=["motion"], methods=["bird"])
    assert [t.name for t in suite.tasks] == ["motion"] and [r.name for r in suite.rows] == [
        "input",
        "mmse",
        "bird",
    ]
    with pytest.raises(SettingError, match=r"no task blur; it has gaussian, motion"):
        load_suite("bird").with_changes(tasks=["motion", "blur"])
    with pytest.raises(SettingError, match=r"no method birds; it has input, mmse, diip"):
        load_suite("bird").with_changes(methods=["birds"])


def test_no_such_suite():
    with pytest.raises(SettingError, match=r"neither a suite \(bird, diip"):
        load_suite("smok")


def test_pictures_from_a_folder(tmp_path):
    for i, size in enumerate([(40, 30), (30, 40), (60, 60)]):
        (tmp_path / "sub").mkdir(exist_ok=True)
        Image.new("RGB", size, (50 * i, 0, 255)).save(
            tmp_path / ("sub" if i == 1 else "") / f"{i}.png"
        )
    (tmp_path / "notes.txt").write_text("not a picture")
    names, pixels = load_pictures(PictureSet(tmp_path, count=3), 16)
    assert names == ["0.png", "2.png", "sub/1.png"] and pixels.shape == (3, 3, 16, 16)
    assert pixels[1, 0].unique().item() == pytest.approx(100 / 255)
    assert load_pictures(PictureSet(tmp_path, crop="centre"), 30)[1].shape == (3, 3, 30, 30)
    with pytest.raises(SizeError, match="too small for squares of 31"):
        load_pictures(PictureSet(tmp_path, crop="centre"), 31)
    with pytest.raises(InputError, match="holds 3 pictures; 4 are needed"):
        load_pictures(PictureSet(tmp_path, count=4), 16)
    with pytest.raises(InputError, match="not a folder"):
        load_pictures(PictureSet(tmp_path / "none"), 16)
    with pytest.raises(InputError, match="give --pictures"):
        load_pictures(PictureSet(), 16)


def test_built_in_pictures_and_squares_of_them():
    _, whole = load_pictures(PictureSet(builtin=("astronaut",)), 32)
    _, part = load_pictures(PictureSet(builtin=("astronaut@0,0,32",)), 32)
    from skimage import data

    assert torch.equal(
        part[0], torch.from_numpy(data.astronaut()[:32, :32].copy()).permute(2, 0, 1) / 255
    )
    assert not torch.equal(whole, part)
    wrong_texts = {
        "astronout": "no built-in picture",
        "download_all": "no built-in picture",
        "data_dir": "no built-in picture",
        "__file__": "no built-in picture",
        "kidney": "no built-in picture",  # It would be downloaded.
        "astronaut@1,2": "left,top,side",
        "astronaut@500,0,32": "does not lie inside",
        "astronaut@-1,0,32": "does not lie inside",
    }
    for wrong, says in wrong_texts.items():
        with pytest.raises(SettingError, match=says):
            load_pictures(PictureSet(builtin=(wrong,)), 32)


def test_every_built_in_picture_is_there_without_a_download(monkeypatch):
    import socket

    def refuse(*args, **more):
        raise AssertionError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in BUILTIN:
        image = builtin_picture(name)
        assert image.mode == "RGB" and min(image.size) >= 64


def test_the_size_is_the_suites_unless_the_prior_has_only_one():
    prior = GaussianPrior()
    assert picture_size(PictureSet(), prior) == 64
    assert picture_size(PictureSet(size_px=32), prior) == 32
    prior.size_rule = SizeRule(native=128)
    assert (picture_size(PictureSet(), prior), picture_size(PictureSet(size_px=32), prior)) == (
        128,
        32,
    )
    prior.size_rule = SizeRule(native=128, fixed=True)
    assert picture_size(PictureSet(size_px=32), prior) == 128


def test_a_degraded_picture_depends_on_its_place_and_the_seed_alone():
    truth = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    task = Task("t", "motion:size=7 | area:factor=2 | noise:sigma=0.1")
    three, two, other = (
        degrade(task, truth, 0),
        degrade(task, truth[:2], 0),
        degrade(task, truth, 1),
    )
    assert torch.equal(three.y[:2], two.y) and not torch.equal(three.y, other.y)
    assert three.y.shape == (3, 3, 12, 12) and three.initial.shape == truth.shape
    assert not three.same  # each picture has its own kernel
    assert not torch.equal(
        three.operators[0].parts[0].kernel(), three.operators[1].parts[0].kernel()
    )
    assert len({*three.seeds, *other.seeds}) == 6
    assert not any(p.requires_grad for o in three.operators for p in o.parameters())
    assert degrade(Task("t", "noise:sigma=0.1"), truth, 0).same
    with pytest.raises(OperatorError):
        degrade(Task("t", "blurr:sigma=1"), truth, 0)


def test_the_noise_in_the_observation_is_not_the_noise_that_a_method_starts_from():
    from pristina.seeds import benchmark_seeds

    truth = torch.full((2, 3, 16, 16), 0.5)
    noise = degrade(Task("t", "noise:sigma=1"), truth, 3).y - truth
    for i, seed in enumerate(benchmark_seeds(3, 2, "method")):
        start = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(seed))
        assert abs(torch.corrcoef(torch.stack([start.flatten(), noise[i].flatten()]))[0, 1]) < 0.15
