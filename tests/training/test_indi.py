import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.ndimage import convolve as scipy_convolve

from pristina.cli import main
from pristina.cli.train import Pairs
from pristina.errors import CheckpointError, InputError, SettingError
from pristina.methods.conditional_ddpm import ConditionalDDPM, conditional_ddpm
from pristina.methods.indi import indi
from pristina.operators.base import Observation
from pristina.priors.load import load_conditional, load_direct, load_prior
from pristina.training import recipes
from pristina.training.conditional import train_conditional
from pristina.training.indi import FLOOR, InDITask, InDITraining, draw_times, train_indi
from pristina.training.loop import Schedule
from pristina.training.pairs import DegradedStream, PairStream, PairTraining, gain, list_pairs
from pristina.training.recipes import MARGIN_PX, RECIPES, Recipe, convolve, degrade, down_up, jpeg, kernel, recipe

TINY = {"channels": (16, 32), "size_px": 16}


def smooth(seed, side):
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def save(picture, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


@pytest.fixture
def photos(tmp_path):
    for i in range(3):
        save(smooth(i, 136), tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def darkened(tmp_path):
    """Pairs whose damage is easily undone: the degraded picture is half as bright."""
    for i in range(3):
        save(smooth(i, 32), tmp_path / "pairs/clean" / f"{i}.png")
        save(smooth(i, 32).point(lambda v: v // 2), tmp_path / "pairs/degraded" / f"{i}.png")
    return tmp_path / "pairs"


def schedule(**changes):
    return Schedule(**{"images": 32, "batch": 4, "warmup": 5, "compile": False, "workers": 0, "save_minutes": 60, "ema": 0.9} | changes)


# what happens to a picture


def test_help_names_every_recipe():
    assert f"{', '.join(RECIPES)}; or pairs" in str(Pairs.__doc__)


@pytest.mark.parametrize("name", list(RECIPES))
def test_recipes_depend_on_their_generator_alone(name):
    x = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    first, again, other = (degrade(RECIPES[name], x, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first.shape == x.shape and first.dtype == torch.float32 and torch.isfinite(first).all()
    assert torch.equal(first, again) and torch.equal(x, before)
    if name not in ("x4", "jpeg10"):
        assert not torch.equal(first, other)


def test_a_share_of_the_pictures_stays_as_it_is():
    x = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    same = sum(torch.equal(degrade(Recipe(noise=0.5, nothing=0.3, sigma=(0.1, 0.2)), x, np.random.default_rng(i)), x) for i in range(200))
    assert 40 <= same <= 80
    assert torch.equal(degrade(Recipe(nothing=1), x, np.random.default_rng(0)), x)


def test_a_camera_does_things_in_its_order(monkeypatch):
    done: list[str] = []
    for name in ("_blur", "_resample", "_noise", "_jpeg"):
        monkeypatch.setattr(recipes, name, lambda recipe, x, random, name=name: done.append(name) or x)
    for i in range(20):
        degrade(Recipe(1, 1, 1, 1, camera=1), torch.zeros(3, 4, 4), np.random.default_rng(i))
    assert done == 20 * ["_blur", "_resample", "_noise", "_jpeg"]
    done.clear()
    for i in range(20):
        degrade(Recipe(1, 1, 1, 1), torch.zeros(3, 4, 4), np.random.default_rng(i))
    assert done != 20 * ["_blur", "_resample", "_noise", "_jpeg"]


@pytest.mark.parametrize("kind", ["gaussian", "poisson", "camera"])
def test_noise_has_its_deviation_at_mid_grey(kind):
    x = torch.full((3, 96, 96), 0.5)
    noise = degrade(Recipe(noise=1, noises=(kind,), sigma=(0.05, 0.05)), x, np.random.default_rng(1)) - x
    assert float(noise.std()) == pytest.approx(0.05, rel=0.1) and abs(float(noise.mean())) < 0.005


@pytest.mark.parametrize("kind", ["gaussian", "anisotropic", "defocus", "motion"])
def test_kernels(kind):
    for seed in range(20):
        random = np.random.default_rng(seed)
        k = kernel(kind, 0.4 * 10 ** random.random(), random)
        assert k.shape[0] == k.shape[1] and k.shape[0] % 2 == 1 and k.shape[0] <= 2 * MARGIN_PX + 1
        assert float(k.sum()) == pytest.approx(1, abs=1e-5) and (k >= 0).all()
    steps = torch.arange(len(k)) - len(k) // 2
    assert abs(float((k.sum(0) * steps).sum())) < 0.3 and abs(float((k.sum(1) * steps).sum())) < 0.3


def test_convolution_is_scipys():
    x = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(0))
    k = kernel("motion", 1.3, np.random.default_rng(0))
    expected = np.stack([scipy_convolve(c, k.numpy(), mode="wrap") for c in x.numpy()])
    assert np.abs(convolve(x, k).numpy() - expected).max() < 1e-5


def test_jpeg_is_pillows_and_down_up_keeps_flat_pictures():
    x = torch.full((3, 32, 32), 0.4)
    assert torch.allclose(down_up(x, 4), x, atol=1e-5) and torch.allclose(down_up(x, 2.7, "area"), x, atol=1e-5)
    grain = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    errors = [float((jpeg(grain, q) - (255 * grain).round() / 255).square().mean()) for q in (5, 30, 95)]
    assert errors == sorted(errors, reverse=True) and errors[2] > 0


@pytest.mark.parametrize(
    ("out", "sentence"), [("a.txt", "call it a.safetensors"), ("d.safetensors", "is a folder"), ("start.safetensors", "overwritten")]
)
def test_where_the_weights_go_is_checked_before_any_work(tmp_path, capfd, out, sentence):
    (tmp_path / "d.safetensors").mkdir()
    (tmp_path / "start.safetensors").write_bytes(b"")
    words = ["train", "indi", "--data", tmp_path, "--out", tmp_path / out, "--start", tmp_path / "start.safetensors", "--images", "8"]
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 2 and sentence in " ".join(capfd.readouterr().err.split())


def test_recipes_that_cannot_be():
    with pytest.raises(SettingError, match="photos-blind"):
        recipe("sepia")
    with pytest.raises(SettingError):
        Recipe(blur=1.5)
    with pytest.raises(SettingError, match="nothing can happen"):
        Recipe()


# pairs


def test_items_depend_on_seed_and_number_alone(photos):
    paths = sorted(photos.iterdir())
    one, two = (DegradedStream(paths, 16, RECIPES["photos-blind"], seed=7) for _ in range(2))
    for i in (5, 2, 9):
        assert one[i].shape == (2, 3, 16, 16) and torch.equal(one[i], two[i])
    two[1]
    assert torch.equal(one[4], two[4]) and not torch.equal(one[4], DegradedStream(paths, 16, RECIPES["photos-blind"], seed=8)[4])


def test_both_sides_of_a_pair_come_from_the_same_place(darkened):
    pairs = list_pairs(darkened)
    assert [(a.name, b.name) for a, b in pairs] == [(f"{i}.png", f"{i}.png") for i in range(3)]
    assert pairs == list_pairs(darkened / "clean", darkened / "degraded")
    stream = PairStream(pairs, 16)
    for i in range(4):
        clean, degraded = (255 * stream[i]).round().int()
        assert torch.equal(degraded, clean // 2)


def test_layouts_of_known_sets(tmp_path):
    picture = smooth(0, 24)
    for scene in ("GOPR0384_11_00", "GOPR0384_11_05"):
        save(picture, tmp_path / f"gopro/train/{scene}/sharp/000001.png")
        save(picture, tmp_path / f"gopro/train/{scene}/blur/000001.png")
        save(picture, tmp_path / f"gopro/train/{scene}/blur_gamma/000001.png")
    assert [(a.parent.name, b.parent.name) for a, b in list_pairs(tmp_path / "gopro")] == [("sharp", "blur")] * 2

    for a, b in (("1P0A0916", "1P0A0917"), ("1P0A1742", "1P0A1743")):
        save(picture, tmp_path / f"dpdd/train_c/target/{a}.png")
        save(picture, tmp_path / f"dpdd/train_c/source/{b}.png")
    assert [(a.stem, b.stem) for a, b in list_pairs(tmp_path / "dpdd")] == [("1P0A0916", "1P0A0917"), ("1P0A1742", "1P0A1743")]

    save(picture, tmp_path / "div2k/DIV2K_train_HR/0001.png")
    save(picture.resize((6, 6), Image.Resampling.BICUBIC), tmp_path / "div2k/DIV2K_train_LR_bicubic/X4/0001x4.png")
    ((clean, low),) = list_pairs(tmp_path / "div2k")
    assert (clean.name, low.name) == ("0001.png", "0001x4.png")
    assert PairStream([(clean, low)], 16)[0].shape == (2, 3, 16, 16)


def test_pairs_that_are_none(tmp_path, darkened):
    with pytest.raises(InputError, match="no pairs"):
        list_pairs(darkened / "degraded")
    (darkened / "degraded/1.png").unlink()
    with pytest.raises(InputError, match="no partner"):
        list_pairs(darkened)
    save(smooth(0, 24), tmp_path / "wide.png")
    save(smooth(0, 24).crop((0, 0, 24, 12)), tmp_path / "low.png")
    with pytest.raises(InputError, match="no smaller copy"):
        PairStream([(tmp_path / "wide.png", tmp_path / "low.png")], 16)[0]
    with pytest.raises(InputError, match="smaller than the crops"):
        PairStream([(tmp_path / "wide.png", tmp_path / "wide.png")], 64)[0]


# the objective


@pytest.mark.parametrize(("times", "mean"), [("uniform", 1 / 2), ("linear", 2 / 3), ("quadratic", 3 / 4), ("mixture", 0.875)])
def test_times(times, mean):
    t = draw_times(InDITraining("", times=times, a=3.0), 40_000, torch.Generator().manual_seed(0))
    assert t.min() > 0 and t.max() <= 1
    assert float(t.mean()) == pytest.approx(mean, abs=0.005)
    assert float((t == 1).float().mean()) == pytest.approx(0.75 if times == "mixture" else 0, abs=0.01)


@pytest.mark.parametrize(
    "wrong",
    [{"loss": "l3"}, {"times": "cubic"}, {"noise": "pink", "eps": 0.1}, {"a": -1.0}, {"noise": "constant"}, {"eps": 0.1}],
)
def test_settings_out_of_range(wrong):
    with pytest.raises(SettingError):
        InDITraining("", **wrong)


class Recorder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, t):
        self.x_t, self.t = x, t
        return 0 * x + self.weight


@pytest.mark.parametrize(("noise", "power"), [("none", None), ("constant", 1.0), ("brownian", 0.5)])
def test_the_path_runs_from_clean_to_degraded(noise, power):
    clean, degraded = torch.full((64, 3, 16, 16), 0.2), torch.full((64, 3, 16, 16), 0.7)
    network = Recorder()
    task = InDITask(InDITraining("", loss="l1", times="uniform", noise=noise, eps=0.02 if power else 0.0), {})
    loss = task.loss(network, torch.stack([clean, degraded], 1), torch.Generator().manual_seed(0))
    t = network.t.view(-1, 1, 1, 1)
    rest = network.x_t - (2 * (0.2 + 0.5 * t) - 1)
    assert float(loss.detach()) == pytest.approx(float((network.x_t + 0.6).abs().mean()), rel=1e-4)  # F is the identity here
    if power is None:
        assert rest.abs().max() < 1e-5
    else:
        ratio = rest.std((1, 2, 3)) / (2 * 0.02 * network.t**power)
        assert float(ratio.mean()) == pytest.approx(1, abs=0.02) and float(ratio.std()) < 0.1


@pytest.mark.parametrize("loss", ["l1", "l2", "psnr"])
def test_losses_of_two_pictures(loss):
    """F is the identity but for an error of 0.01 on [-1, 1] in one picture, and of 0.15 in the other."""
    clean = torch.full((2, 3, 8, 8), 128, dtype=torch.uint8)
    error = torch.tensor([0.01, 0.15], requires_grad=True)

    class Off(Recorder):
        def forward(self, x, t):
            return error.view(2, 1, 1, 1) + super().forward(x, t)

    task = InDITask(InDITraining("", loss=loss, times="mixture", a=1e9), {})
    found = task.loss(Off(), torch.stack([clean, clean], 1), torch.Generator().manual_seed(0))
    squares = torch.tensor([0.01**2, 0.15**2])
    by_hand = {"l1": squares.sqrt().mean(), "l2": squares.mean(), "psnr": (squares + FLOOR).log().mean()}[loss]
    assert float(found.detach()) == pytest.approx(float(by_hand), rel=1e-4)
    found.backward()
    light, heavy = error.grad.tolist()
    assert (light / heavy > 0.2) == (loss != "l2")  # a mean of squares hardly sees light damage


def test_gain_is_a_difference_of_psnr():
    x, y = torch.zeros(4, 3, 8, 8), torch.full((4, 3, 8, 8), 0.2)
    assert gain(torch.full_like(y, 0.02), torch.stack([x, y], 1)) == pytest.approx(20, abs=1e-3)


# training


def test_a_regressor_learns_from_pairs(darkened, tmp_path):
    out = tmp_path / "out.safetensors"
    settings = InDITraining("darkened pictures", recipe=None, **TINY)
    train_indi(darkened, out, settings, schedule(images=480, learning_rate=3e-3), held_out=darkened)
    prior = load_direct(out)
    assert prior.domain == "darkened pictures" and prior.noise == "none" and prior.source["file"] == str(out)
    clean, degraded = PairStream(list_pairs(darkened), 24)[0].unsqueeze(1)
    found = indi(Observation(degraded), prior).picture
    assert (found - clean).square().mean() < 0.1 * (degraded - clean).square().mean()
    figures = json.loads(out.with_suffix(".jsonl").read_text().splitlines()[-1])
    assert figures["gain_pairs"] > 8
    with Image.open(out.with_suffix(".png")) as grid:
        assert grid.size == (3 * 16, 8 * 16)
    with pytest.raises(CheckpointError, match="'indi'"):
        load_conditional(out)


def test_an_interrupted_run_goes_on_where_it_stopped(photos, tmp_path, monkeypatch):
    settings = InDITraining("tests", recipe="jpeg", noise="brownian", eps=0.01, **TINY)
    plan = schedule(images=12, save_minutes=1e-9)
    straight = train_indi(photos, tmp_path / "a.safetensors", settings, plan)

    calm = InDITask.loss
    n = iter(range(100))

    def interrupt(*args):
        if next(n) == 2:
            raise KeyboardInterrupt
        return calm(*args)

    monkeypatch.setattr(InDITask, "loss", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_indi(photos, tmp_path / "b.safetensors", settings, plan)
    monkeypatch.setattr(InDITask, "loss", calm)
    resumed = train_indi(photos, tmp_path / "b.safetensors", settings, plan, resume=True)
    one, two = load_direct(straight), load_direct(resumed)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert (one.noise, one.eps) == ("brownian", 0.01)
    figures = json.loads(straight.with_suffix(".jsonl").read_text().splitlines()[-1])
    assert {f"gain_{k}" for k in ("mixture", "jpeg10", "noise25", "x4", "defocus2")} <= figures.keys()
    with pytest.raises(CheckpointError):
        load_prior(straight)


def test_a_conditional_network_learns_from_the_same_pairs(darkened, tmp_path):
    out = tmp_path / "out.safetensors"
    train_conditional(
        darkened, out, PairTraining("darkened", recipe=None, **TINY), schedule(images=480, learning_rate=3e-3), held_out=darkened
    )
    prior = load_conditional(out)
    y = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    assert conditional_ddpm(Observation(y), prior, ConditionalDDPM(steps=2)).picture.shape == y.shape
    random = torch.Generator().manual_seed(1)
    noise = torch.randn(1, 3, 16, 16, generator=random)
    assert float(prior.predict(noise, 990, torch.full_like(noise, -0.4)).x0.mean()) > -0.3  # brighter than the darkened picture
    with pytest.raises(CheckpointError, match="'conditional'"):
        load_direct(out)
    with safe_open(out, "pt") as file:
        header = {"pristina": file.metadata()["pristina"].replace('"prediction": "x0"', '"prediction": "eps"')}
    save_file(load_file(out), out, metadata=header)
    with pytest.raises(CheckpointError, match="predicts eps"):
        load_conditional(out)


def test_a_recipe_needs_no_degraded_pictures(photos, tmp_path):
    with pytest.raises(SettingError, match="recipe"):
        train_indi(photos, tmp_path / "out.safetensors", InDITraining("", **TINY), schedule(), degraded=photos)
