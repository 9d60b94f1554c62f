"""One memory budget: smaller portions, the same numbers, and what happens when it runs out."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import pristina
from pristina.errors import InputError, SettingError, SizeError
from pristina.image.tile import Portions, in_portions
from pristina.memory import _Tracker, call_bytes, free_bytes, run_bytes
from pristina.methods.steps import parts
from pristina.methods.steps.result import Calls
from pristina.operators import convolve
from pristina.operators.recipe import Recipe
from pristina.planning import make_plan
from pristina.priors.aware import AwareNetwork, network_inputs
from pristina.priors.base import SizeRule
from pristina.priors.direct import DirectNetwork
from pristina.priors.gaussian import GaussianPrior
from pristina.priors.load import load_weights
from pristina.priors.network import build_network
from pristina.priors.unet import UNetPrior, flow_prior
from pristina.priors.windowed import Windowed
from pristina.request import Request, parse_bytes

PICTURE = torch.rand(3, 48, 80, generator=torch.Generator().manual_seed(0))
BLUR = "blur:sigma=1"
DPS = {"method": "dps", "operator": BLUR, "settings": {"steps": 2}}


class Network(torch.nn.Module):
    """A network whose calls are counted, and fail for more than ``most`` images."""

    def __init__(self, most=10**6, radius=None):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 3, 3, padding=1)
        torch.nn.init.normal_(
            self.layer.weight, std=0.1, generator=torch.Generator().manual_seed(1)
        )
        self.most, self.seen, self.radius, self.multiple = most, [], radius, 1

    def forward(self, x, t):
        self.seen.append(tuple(x.shape))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("no memory left for so many images")
        return self.layer(x) * t.view(-1, 1, 1, 1) / 1000


def prior_of(network, **rule):
    return UNetPrior(network, prediction="eps", domain="noise", size_rule=SizeRule(**rule))


def test_sizes_of_memory_are_read():
    assert parse_bytes("4G") == 4 * 2**30 and parse_bytes("1.5 GiB") == 3 * 2**29
    assert parse_bytes("800m") == 800 * 2**20 and parse_bytes("2KB") == 2048
    for wrong in ("", "4", "G", "-1G", "0M", "4 apples", "1e3G"):
        with pytest.raises(SettingError, match="such as 4G"):
            parse_bytes(wrong)


def test_memory_decides_how_much_goes_through_the_network():
    pixels = [
        make_plan(Request(method="indi", memory_bytes=n * 2**20), (600, 800)).pixels_at_once
        for n in (300, 600, 1200, 100_000)
    ]
    assert pixels == sorted(pixels) and pixels[0] < pixels[2] < pixels[3]
    assert all(n.bit_count() == 1 for n in pixels)  # so that a little less changes nothing
    assert 10**8 < free_bytes(torch.device("cpu")) < 10**14
    tight = make_plan(Request(method="indi", memory_bytes=2**20), (600, 800))
    assert "more than the 0.0 GiB that it may" in tight.notes[-1]


def test_the_memory_of_a_call_is_that_of_its_tensors():
    prior = prior_of(Network(), minimum=64)
    plain, kept = (call_bytes(prior, (64, 64), differentiate=d) for d in (False, True))
    assert 1.5 * 4 * 3 * 3 < plain < 1.5 * 4 * 3 * 12  # from three to twelve images of three floats
    assert kept >= plain
    size, calls = (512, 512), Calls(1)
    less, more = (run_bytes(prior, calls, size, n, 2**20) for n in (1, 3))
    assert more > 2 * less


@pytest.mark.parametrize("name", ["photos", "photos-blind"])
def test_a_network_gives_the_same_in_any_memory(name):
    kind = "diffusion" if name == "photos" else "direct"
    prior = load_weights(kind, name, dtype=torch.float32)
    x = torch.rand(2, 3, 8, 640, generator=torch.Generator().manual_seed(2))
    t = 300 if kind == "diffusion" else 1.0

    def answer(prior, differentiate):
        seen = x.clone().requires_grad_(differentiate)
        found = prior.predict(seen, t)
        found = found.x0 if kind == "diffusion" else found
        if differentiate:
            return torch.autograd.grad(found.square().sum(), seen)[0]
        return found

    for differentiate in (False, True):
        with torch.set_grad_enabled(differentiate):
            whole = answer(prior, differentiate)
            parts = answer(prior.limited(2**12), differentiate)
        torch.testing.assert_close(parts, whole, atol=2e-4, rtol=1e-4)


def test_what_is_differentiated_is_kept_of_one_portion_at_a_time():
    network = Network(radius=1)
    prior = prior_of(network).limited(2**13)
    x = torch.rand(1, 3, 200, 200).requires_grad_()
    network.layer.weight.requires_grad_()
    alive = []
    network.layer.register_forward_hook(lambda *_: alive.append(len(network.seen)))
    (prior.predict(x, 500).x0.square().sum()).backward()
    tiles = len(set(network.seen))
    assert len(network.seen) % 2 == 0 and len(network.seen) >= 2 * tiles  # each computed again
    assert all(h * w <= 2**13 for *_, h, w in network.seen)


@pytest.mark.parametrize("fixed", [False, True])
def test_when_the_memory_runs_out_the_run_goes_on(fixed):
    network = Network(most=3)
    prior = prior_of(network, native=16, fixed=True) if fixed else prior_of(network)
    plan = pristina.plan(PICTURE, prior=prior, samples=1 if fixed else 8, **DPS)
    result = pristina.run(plan, PICTURE[None])
    assert any("memory ran out" in note for note in result.notes)
    assert max(len(shape) for shape in network.seen[-1:]) and network.seen[-1][0] <= 3
    network.most, network.seen = 10**6, []
    whole = pristina.run(plan, PICTURE[None])
    torch.testing.assert_close(result.images, whole.images, atol=1e-5, rtol=0)
    assert not any("memory" in note for note in whole.notes)  # A plan remembers nothing.
    network.most = 0
    with pytest.raises(InputError, match="needs more memory than there is"):
        pristina.run(plan, PICTURE[None])


def test_without_memory_outside_the_network_the_run_begins_again():
    prior, left = prior_of(Network()), [3]

    def on_step(event):
        left[0] -= 1
        if left[0] == 1:
            raise MemoryError

    plan = pristina.plan(PICTURE, prior=prior, **DPS)
    result = pristina.run(plan, PICTURE[None], on_step=on_step)
    assert "began again" in result.notes[0]
    assert torch.equal(result.images, pristina.run(plan, PICTURE[None]).images)


def test_other_errors_are_no_lack_of_memory():
    def broken(x, rows):
        raise RuntimeError("the shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        in_portions(broken, PICTURE[None], Portions(), halo=None)


def test_the_processor_says_that_there_is_none_in_words_we_know():
    pytest.importorskip("resource")
    code = (
        "import resource, torch\n"
        "from pristina.image.tile import is_out_of_memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))\n"
        "try:\n    torch.empty(2**36)\n"
        "except Exception as error:\n    assert is_out_of_memory(error), repr(error)\n"
        "else:\n    raise SystemExit('it was given')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_prior_of_aligned_pictures_is_not_cut_into_windows():
    faces = GaussianPrior(variance=0.1)
    faces.size_rule, faces.domain = SizeRule(native=32, fixed=True), "aligned faces"
    with pytest.raises(
        SizeError, match=r"aligned faces, and .* takes 32 x 32 px only, not 80 x 48"
    ):
        pristina.plan(PICTURE, prior=faces, **DPS)
    assert pristina.plan(PICTURE[:, :32, :32], prior=faces, **DPS).windows == 1
    faces.domain = "photographs"
    for size in ((48, 80), (24, 80), (24, 24)):  # larger and smaller than a window
        picture = PICTURE[:, : size[0], : size[1]]
        for options in (DPS, {"method": "mmse"}):
            done = pristina.restore(picture, prior=faces, **options)
            assert isinstance(done.plan.prior, Windowed) and done.picture.size == size


def test_the_default_prior_is_for_any_photograph():
    names = {
        size: make_plan(Request(method="diip"), size).weights_name
        for size in ((64, 64), (64, 72), (256, 256))
    }
    assert names == {(64, 64): "faces", (64, 72): "photos", (256, 256): "photos"}


FEW = {"iterations": 2, "sampler_steps": 2}


@pytest.mark.parametrize(
    ("method", "settings", "recipe"),
    [
        ("mmse", {}, None),
        ("indi", {"steps": 2}, None),
        ("diip", FEW, None),
        ("bird", FEW, "blur:sigma=1,size=3"),
        ("dps", {"steps": 2}, "blur:sigma=1,size=3"),
    ],
)
def test_a_run_holds_no_more_pictures_than_it_says(method, settings, recipe):
    shape = {"architecture": "residual", "channels": [2], "layers": 1, "patch": 1}
    network = build_network({**shape, "inputs": 3, "outputs": 3})
    prior = DirectNetwork(network, domain="x")
    if method != "indi":
        prior = flow_prior(network, domain="x", native=None, fixed=False)
    picture = torch.rand(3, 240, 320, generator=torch.Generator().manual_seed(0))
    plan = pristina.plan(picture, method=method, prior=prior, operator=recipe, settings=settings)
    plan = replace(plan, prior=plan.prior.limited(2**12))  # small tiles
    with _Tracker(plan.prior) as tracker:
        pristina.run(plan, picture[None])
    held = tracker.peak / picture.nbytes
    assert 0.5 * plan.calls.pictures < held < plan.calls.pictures


@pytest.mark.parametrize(
    ("method", "recipe"),
    [
        ("deblur", "defocus:radius=2,size=7"),
        ("reconstruct", "defocus:radius=2,size=7"),
        ("reconstruct", "area:factor=2"),
        ("reconstruct", "mask:drop=0.5,seed=0"),
    ],
)
def test_undoing_known_damage_holds_no_more_pictures_than_it_says(method, recipe, monkeypatch):
    if method == "deblur":
        for name, px in (("TILE_PX", 64), ("HALO_PX", 8), ("FADE_PX", 4)):
            monkeypatch.setattr(parts, name, px)
    shape = {"architecture": "residual", "channels": [2], "layers": 1, "patch": 1, "outputs": 3}
    prior = AwareNetwork(build_network({**shape, "inputs": network_inputs(3)}), domain="x")
    operator = Recipe.parse(recipe).build(0)
    picture = torch.rand(3, 240, 320, generator=torch.Generator().manual_seed(0))
    y = operator(picture[None])[0].detach()
    form = f"{recipe} | noise:sigma=0.01"
    plan = pristina.plan(y, method=method, prior=prior, operator=form)
    plan = replace(plan, prior=plan.prior.limited(2**12))
    with _Tracker(plan.prior) as tracker:
        pristina.run(plan, y[None])
    held = tracker.peak / picture.nbytes
    assert 0.5 * plan.calls.pictures < held < plan.calls.pictures


@pytest.mark.parametrize("n_kernels", [1, 2])
@pytest.mark.parametrize("boundary", ["reflect", "circular", "zero", "valid"])
def test_a_blur_is_the_same_one_channel_at_a_time(monkeypatch, boundary, n_kernels):
    random, found = torch.Generator().manual_seed(3), []
    pictures = torch.rand(2, 3, 14, 19, generator=random, dtype=torch.float64)
    kernels = torch.rand(n_kernels, 1, 5, 7, generator=random, dtype=torch.float64)
    for most in (convolve.LARGE, 0):
        monkeypatch.setattr(convolve, "LARGE", most)
        x, kernel = pictures.clone().requires_grad_(), kernels.clone().requires_grad_()
        y = convolve.convolve(x, kernel, boundary)
        first = torch.autograd.grad(y.pow(3).sum(), (x, kernel), create_graph=True)
        second = torch.autograd.grad(sum(g.pow(2).sum() for g in first), (x, kernel))
        fixed = convolve.convolve(x, kernels, boundary).pow(3).sum()
        found.append((y, *first, *second, *torch.autograd.grad(fixed, x)))
    torch.testing.assert_close(found[0], found[1])
