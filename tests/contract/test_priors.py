"""Contract of every prior: predictions, counts, sizes, files."""

import itertools
import math
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from pristina.errors import CheckpointError, InputError, SettingError, SizeError
from pristina.metrics.fidelity import psnr
from pristina.operators.recipe import Recipe
from pristina.priors.checkpoints.format import save_weights
from pristina.priors.checkpoints.header import read_header
from pristina.priors.compose import PerChannel
from pristina.priors.direct import ConditionalNetwork, DirectNetwork
from pristina.priors.gaussian import GaussianMixturePrior, GaussianPrior
from pristina.priors.generate import generate
from pristina.priors.load import (
    LOADERS,
    kind_of,
    load_prior,
    load_weights,
    shipped,
)
from pristina.priors.network import compile_network
from pristina.priors.patch_unet import PatchUNet, PixelNorm
from pristina.priors.residual import ResidualUNet
from pristina.priors.schedule import alpha_bar_at
from pristina.priors.unet import UNetPrior, flow_prior
from pristina.priors.windowed import Windowed, _mirrored, window_starts
from pristina.seeds import generators
from pristina.training.kernel_prior import draw_kernel
from pristina.types import Draw

TINY = {
    "channels": [16, 32],
    "layers": 1,
    "patch": 2,
    "attention": True,
    "norm": "group",
    "inputs": 3,
    "outputs": 3,
    "labels": 2,
}


def tiny(**changes):
    torch.manual_seed(0)
    network = PatchUNet({**TINY, **changes})
    torch.nn.init.normal_(network.unet.conv_out.weight, std=0.05)
    return network


PRIORS = {
    "gaussian": lambda: GaussianPrior(0.1, 0.3),
    "mixture": lambda: GaussianMixturePrior(torch.randn(2, 3, 16, 16), 0.1),
    "flow": lambda: flow_prior(tiny(), domain="noise", native=16, fixed=False),
    "eps": lambda: UNetPrior(tiny(), prediction="eps", domain="noise"),
    "v": lambda: UNetPrior(tiny(), prediction="v", domain="noise"),
    "x0": lambda: UNetPrior(tiny(), prediction="x0", domain="noise"),
    "windowed": lambda: Windowed(GaussianPrior(0.1, 0.3), window_px=16),
    "per channel": lambda: PerChannel(GaussianPrior(0.1, 0.3, channels=1)),
}


@pytest.mark.parametrize("name", PRIORS)
def test_eps_and_x0_agree_at_every_t(name):
    prior = PRIORS[name]()
    x = torch.randn(2, 3, 16, 16)
    for t in (0, 1, 99, 333.3, 500, 900, 999):
        eps, x0 = prior.predict(x, t)
        alpha_bar = alpha_bar_at(prior.alpha_bar, t)
        torch.testing.assert_close(
            alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps, x, rtol=1e-4, atol=1e-4
        )
    assert prior.n_calls == 14 * prior.calls_per_image(16, 16)


def _direct():
    return DirectNetwork(tiny(labels=0, attention=False), domain="noise")


def _conditional():
    return ConditionalNetwork(tiny(labels=0, inputs=6), domain="noise")


EVERY_KIND = {
    **{name: (make, lambda prior, x: prior.predict(x, 500)) for name, make in PRIORS.items()},
    "direct": (_direct, lambda prior, x: prior.predict(x, 0.5)),
    "conditional": (_conditional, lambda prior, x: prior.predict(x, 500, x)),
}


@pytest.mark.parametrize("name", EVERY_KIND)
def test_two_threads_on_one_prior_count_apart(name):
    make, call = EVERY_KIND[name]
    prior, x = make(), torch.randn(3, 3, 16, 16)
    call(prior, x)
    copies = [prior.counted() for _ in range(2)]
    barrier = threading.Barrier(2)

    def work(copy, n):
        barrier.wait()
        for _ in range(n):
            call(copy, x)

    threads = [threading.Thread(target=work, args=a) for a in zip(copies, (5, 9), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    each = 3 * prior.calls_per_image(16, 16)
    assert [c.n_calls for c in copies] == [5 * each, 9 * each] and prior.n_calls == each
    shared = zip(copies[0].state_dict().values(), prior.state_dict().values(), strict=True)
    assert all(a.data_ptr() == b.data_ptr() for a, b in shared)
    assert type(copies[0]) is type(prior) and copies[0].domain == prior.domain
    copies[0].size_rule = None  # the copy's own
    assert prior.size_rule is not None and prior.device == copies[1].device


@pytest.mark.parametrize("name", PRIORS)
def test_neighbours_do_not_matter(name):
    prior = PRIORS[name]()
    x, t = torch.randn(3, 3, 16, 16), torch.tensor([5.0, 400.0, 900.0])
    together = prior.predict(x, t).x0
    for i in range(3):
        torch.testing.assert_close(
            prior.predict(x[i : i + 1], t[i : i + 1]).x0, together[i : i + 1], rtol=1e-4, atol=1e-4
        )


def test_flow_network_serves_the_variance_preserving_chain():
    """A flow network that knows a Gaussian exactly gives exactly the Gaussian prior."""
    variance = 0.3

    class Exact(torch.nn.Module):
        def forward(self, x, u):
            u = u.view(-1, 1, 1, 1)
            x0 = (1 - u) * variance / ((1 - u) ** 2 * variance + u**2) * x
            return (x - x0) / u  # eps - x0, from x = (1 - u) x0 + u eps

    flow, exact = UNetPrior(Exact(), prediction="flow", domain=""), GaussianPrior(0.0, variance)
    x = torch.randn(4, 3, 8, 8)
    for t in (0, 50, 500, 999):
        torch.testing.assert_close(
            flow.predict(x, t).x0, exact.predict(x, t).x0, rtol=1e-3, atol=1e-4
        )


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # torch's own, while it compiles
def test_a_compiled_network_predicts_the_same(monkeypatch):
    """The network is traced as for its compiler, but run without it, which takes half a minute."""
    real = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda f, dynamic, options: real(f, dynamic=dynamic, backend="eager")
    )
    prior, plain = (
        flow_prior(tiny(channels=[16], attention=False), domain="noise", native=16, fixed=False)
        for _ in range(2)
    )
    compile_network(prior)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([100.0, 900.0])  # a batch of two is filled up to four
    torch.testing.assert_close(prior.predict(x, t).x0, plain.predict(x, t).x0, rtol=1e-4, atol=1e-4)
    assert prior.n_calls == plain.n_calls == 2
    assert prior.state_dict().keys() == plain.state_dict().keys()
    compile_network(GaussianPrior())  # has none


def test_saved_and_loaded_is_equal(tmp_path):
    network = tiny().half().float()
    path = tmp_path / "prior.safetensors"
    header = {
        "kind": "prior",
        "network": network.settings,
        "domain": "noise",
        "size_px": 16,
        "fixed_size": False,
        "prediction": "flow",
    }
    save_weights(path, network.state_dict(), header)
    assert read_header(path)["domain"] == "noise"
    prior = load_prior(path, dtype=torch.float32)
    x = torch.randn(1, 3, 16, 24)
    torch.testing.assert_close(
        prior.predict(x, 300).x0,
        flow_prior(network, domain="", native=16, fixed=False).predict(x, 300).x0,
    )
    assert not any(p.requires_grad for p in prior.parameters())


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "prior.safetensors"
    with pytest.raises(CheckpointError, match="is neither a file"):
        load_prior(path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="neither safetensors nor a file"):
        load_prior(path)
    network = tiny()
    tensors = network.state_dict()
    tensors.pop("unet.conv_in.bias")
    header = {
        "kind": "prior",
        "network": network.settings,
        "domain": "noise",
        "size_px": 16,
        "fixed_size": False,
    }
    save_weights(path, tensors, header)
    with pytest.raises(CheckpointError, match=r"conv_in\.bias"):
        load_prior(path)


def test_pixel_norm_makes_crops_agree_with_the_whole():
    """Far from the border a crop gives what the whole gives: no layer depends on the size."""
    network = tiny(norm="pixel", attention=False)
    assert any(isinstance(m, PixelNorm) for m in network.modules())
    assert not any(isinstance(m, torch.nn.GroupNorm) for m in network.modules())
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        whole, crop = (
            network(x, torch.tensor([0.4])),
            network(x[..., :64, :64], torch.tensor([0.4])),
        )
    torch.testing.assert_close(whole[..., :24, :24], crop[..., :24, :24], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name", [n for n in shipped() if n in ("faces", "photos", "faces-research")]
)
def test_shipped_priors_know_more_than_nothing(name):
    """On a smooth picture with noise, one call must take most of the noise away."""
    prior = load_prior(name)
    side = prior.size_rule.native
    ramp = torch.linspace(-0.5, 0.5, side).view(1, 1, 1, side).expand(1, 3, side, side)
    eps = torch.randn(ramp.shape, generator=torch.Generator().manual_seed(0))
    alpha_bar = prior.alpha_bar[200]
    x0 = prior.predict(alpha_bar.sqrt() * ramp + (1 - alpha_bar).sqrt() * eps, 200).x0
    noise = (1 - alpha_bar) / alpha_bar
    assert (x0 - ramp).square().mean() < 0.1 * noise
    assert prior.domain and (len(shipped()[name].with_suffix(".md").read_text()) > 500)


@torch.no_grad()
def test_the_shipped_regressor_repairs_and_does_little_else():
    """Strong damage of a photograph is repaired, a clean photograph hardly changed."""
    small = Image.fromarray(astronaut()).resize((128, 128), Image.Resampling.LANCZOS)
    x = torch.tensor(np.array(small)).permute(2, 0, 1)[None] / 255
    prior = load_weights("direct", "photos-blind")

    def gain(recipe):
        y = Recipe.parse(recipe).build().degrade(x, Draw(generators(0, 1), 1)).clamp(0, 1)
        return float(psnr(prior.predict(y, 1.0).clamp(0, 1), x) - psnr(y, x))

    assert (
        gain(f"noise:sigma={25 / 255}") > 5
        and gain("jpeg:quality=10") > 0.3
        and gain("blur:sigma=1.2") > 0.3
    )
    assert float(psnr(prior.predict(x, 1.0).clamp(0, 1), x)) > 35
    assert len(shipped()["photos-blind"].with_suffix(".md").read_text()) > 500


@torch.no_grad()
def test_the_shipped_prior_of_kernels_knows_kernels():
    """It removes all but a fiftieth of the squared error of kernels under much noise."""
    kernel = load_weights("kernels", "kernels")
    side = kernel.size_rule.native
    clean = torch.stack([draw_kernel(side, g) for g in generators(10_000, 8)]) / 127.5 - 1
    t, eps = 300, torch.stack([torch.randn(1, side, side, generator=g) for g in generators(0, 8)])
    alpha_bar = kernel.alpha_bar[t]
    x0 = kernel.predict(alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * eps, t).x0
    assert (x0 - clean).square().mean() < 0.02 * (1 - alpha_bar) / alpha_bar
    assert len(shipped()["kernels"].with_suffix(".md").read_text()) > 500


def test_the_shipped_specialists_are_ahead_of_the_blind_weights_at_their_own_damage():
    from pristina import restore

    small = Image.fromarray(astronaut()).resize((128, 128), Image.Resampling.LANCZOS)
    x = torch.tensor(np.array(small)).permute(2, 0, 1)[None] / 255
    for name, recipe, ahead in (
        ("denoise", "noise:sigma=0.06", 0.2),
        ("jpeg", "jpeg:quality=30", 0.2),
        ("x4", "bicubic:factor=4", 0.2),
    ):
        operator = Recipe.parse(recipe).build()
        y = operator.degrade(x, Draw(generators(0, 1), 1)).clamp(0, 1)
        form = {"operator": operator} if y.shape != x.shape else {}
        found = {
            prior: restore(y[0], method="indi", prior=prior, **form).picture.pixels[None]
            for prior in (name, "photos-blind")
        }
        assert (
            psnr(found[name], x)
            > psnr(found["photos-blind"], x) + ahead
            > psnr(operator.initial(y), x) + ahead
        ), name
        assert len(shipped()[name].with_suffix(".md").read_text()) > 500


@torch.no_grad()
def test_windows_of_the_own_size_are_the_bare_prior():
    prior = flow_prior(tiny(), domain="noise", native=16, fixed=True)
    windowed, x = Windowed(prior), torch.randn(2, 3, 16, 16)
    assert (windowed.predict(x, 400).x0 - prior.predict(x, 400).x0).abs().max() < 1e-6
    assert windowed.n_calls == 2 and windowed.calls_per_image(16, 16) == 1
    assert windowed.domain == "noise" and "16 px" in windowed.source["windows"]
    with pytest.raises(SizeError, match="exactly 16 x 16"):
        prior.predict(torch.randn(1, 3, 16, 24), 400)


@torch.no_grad()
@pytest.mark.parametrize("size", [(40, 16), (16, 17), (33, 47), (5, 40), (9, 7), (1, 1)])
def test_windows_take_any_size_and_count(size):
    seen = []

    class Spy(GaussianPrior):
        def predict_x0(self, x_t, t, alpha_bar):
            seen.append(len(x_t))
            assert x_t.shape[-2:] == (16, 16) and len(t) == len(x_t) == len(alpha_bar)
            return super().predict_x0(x_t, t, alpha_bar)

    prior = Windowed(Spy(0.1, 0.3), window_px=16, batch=3)
    x, t = torch.randn(2, 3, *size), torch.tensor([100.0, 700.0])
    found = prior.predict(x, t).x0
    torch.testing.assert_close(found, GaussianPrior(0.1, 0.3).predict(x, t).x0)  # pixel by pixel
    assert prior.n_calls == sum(seen) == 2 * prior.calls_per_image(*size)
    assert size == (1, 1) or max(seen) <= 3  # what bounds the memory
    alone = prior.predict(x[1:], 700.0).x0
    torch.testing.assert_close(alone, found[1:])


def test_window_starts():
    assert window_starts(64, 64, 0.5) == [0] and window_starts(65, 64, 0.5) == [0, 1]
    assert window_starts(128, 64, 0.5) == [0, 32, 64] and window_starts(128, 64, 0) == [0, 64]
    for side in range(64, 300, 7):
        starts = window_starts(side, 64, 0.25)
        steps = [b - a for a, b in itertools.pairwise(starts)]
        assert starts[0] == 0 and starts[-1] == side - 64 and all(0 < s <= 48 for s in steps)
    for wrong in ({"overlap": 1.0}, {"overlap": -0.1}, {"batch": 0}, {}):
        with pytest.raises(SettingError):
            Windowed(GaussianPrior(), **wrong)
    with pytest.raises(SizeError, match="Windows of 20 px"):
        Windowed(flow_prior(tiny(), domain="", native=16, fixed=True), window_px=20)


def spectrum(height, width):
    """Variance of the modes of a stationary distribution that looks like photographs."""
    y, x = torch.meshgrid(torch.fft.fftfreq(height), torch.fft.fftfreq(width), indexing="ij")
    return 0.02 / (0.02 + (x**2 + y**2).sqrt()) ** 2 / 10


@torch.no_grad()
@pytest.mark.parametrize(("side", "window"), [(1, 5), (2, 9), (5, 8), (5, 24), (7, 7)])
def test_what_a_window_lacks_is_mirrored(side, window):
    before = (window - side) // 2
    mode = "reflect" if side > 1 else "edge"
    right = np.pad(np.arange(side), (before, window - side - before), mode)
    assert _mirrored(side, window).tolist() == right.tolist()


def test_windows_leave_no_seams():
    """Windows of a stationary Gaussian against the Gaussian of the whole image."""
    size = (96, 112)
    whole = GaussianPrior(0.0, spectrum(*size), spectral=True)
    window = GaussianPrior(0.0, spectrum(32, 32), spectral=True)
    noise = torch.Generator().manual_seed(0)
    clean = whole.sample(torch.randn(2, 3, *size, generator=noise))
    alpha_bar = whole.alpha_bar[300]
    eps = torch.randn(clean.shape, generator=noise)
    x_t = alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * eps
    exact = whole.predict(x_t, 300).x0

    def error(overlap):
        off = Windowed(window, overlap, window_px=32).predict(x_t, 300).x0 - exact
        jumps = off.diff(dim=-1).abs().mean((0, 1, 2))[8:-8]  # the window itself wraps around
        return float(off.square().mean().sqrt()), float(jumps.max() / jumps.median())

    (smooth, seam), (tiled, tiled_seam) = error(0.5), error(0.0)
    assert smooth < 0.8 * tiled and smooth < 0.3 * float(exact.std())
    assert seam < 2 and tiled_seam > 3, (seam, tiled_seam)


@torch.no_grad()
def test_faces_at_another_size_have_no_seams():
    prior = Windowed(load_prior("faces", dtype=torch.float32))
    z = torch.randn(1, 3, 96, 112, generator=torch.Generator().manual_seed(1))
    x = generate(prior, z, 3)
    assert x.shape == z.shape and prior.n_calls == 3 * prior.calls_per_image(96, 112) == 3 * 6
    for dim in (-1, -2):
        jumps = x.diff(dim=dim).abs().mean([d for d in (0, 1, 2, 3) if d != dim % 4])
        edges = {s + k for s in window_starts(x.shape[dim], 64, 0.5) for k in (-1, 63)}
        at = [float(jumps[e]) for e in edges if 0 <= e < len(jumps)]
        assert max(at) < 1.6 * float(jumps.median())


def test_a_prior_of_one_channel_keeps_the_colour():
    grey = GaussianPrior(0.0, 0.1, channels=1)
    prior, x = PerChannel(grey), torch.randn(2, 3, 8, 8)
    found = prior.predict(x, 300).x0
    for c in range(3):
        torch.testing.assert_close(found[:, c : c + 1], grey.predict(x[:, c : c + 1], 300).x0)
    assert prior.n_calls == 6
    with pytest.raises(SettingError, match="one channel"):
        PerChannel(GaussianPrior())


WRONG = {
    "diffusion": [_direct, _conditional, lambda: torch.nn.Conv2d(3, 3, 1)],
    "direct": [_conditional, GaussianPrior],
    "conditional": [_direct, GaussianPrior],
    "operator": [_direct, GaussianPrior],
    "kernels": [_direct],
    "scratches": [_direct],
    "reader": [_direct],
}


@pytest.mark.parametrize("kind", LOADERS)
def test_weights_of_the_wrong_kind_are_refused_in_a_sentence(kind):
    for make in WRONG[kind]:
        with pytest.raises(CheckpointError, match=r"is needed here, not a \w+\.$"):
            load_weights(kind, make())
    for name, path in shipped().items():
        if kind_of(name) != kind:
            with pytest.raises(CheckpointError, match="is needed here, as in"):
                load_weights(kind, path)
    for nothing in (None, 3, ["faces"]):
        with pytest.raises(CheckpointError, match="by a name, a path or a prior"):
            load_weights(kind, nothing)
    with pytest.raises(CheckpointError, match="neither a file or folder"):
        load_weights(kind, "x" * 5000)


def test_weights_that_are_loaded_pass_through():
    direct = _direct()
    assert load_weights("direct", direct) is direct and load_weights("none", "faces") is None
    assert {"diffusion", "direct", "kernels"} <= {kind_of(name) for name in shipped()}
    assert load_weights("kernels", "kernels").channels == 1


@torch.no_grad()
def test_a_residual_network_is_loaded_by_its_settings(tmp_path):
    torch.manual_seed(0)
    network = ResidualUNet({"architecture": "residual", "channels": [8, 16], "layers": 1})
    torch.nn.init.normal_(network.conv_out.weight, std=0.05)
    header = {"kind": "indi", "network": network.settings, "domain": "noise", "size_px": 32}
    save_weights(tmp_path / "w.safetensors", network.state_dict(), header, torch.float32)
    x = torch.rand(1, 3, 20, 24)
    found = load_weights("direct", tmp_path / "w.safetensors", dtype=torch.float32).predict(x, 0.5)
    torch.testing.assert_close(found, DirectNetwork(network, domain="noise").predict(x, 0.5))


def test_bad_calls_are_named():
    with pytest.raises(InputError, match="takes"):
        GaussianPrior().predict(torch.zeros(1, 1, 8, 8), 5)
    with pytest.raises(InputError, match="regressor takes"):
        _direct().predict(torch.zeros(1, 1, 8, 8), 0.5)
    with pytest.raises(InputError, match="must lie in"):
        _direct().predict(torch.zeros(1, 3, 8, 8), math.nan)
    with pytest.raises(InputError, match="condition must both"):
        _conditional().predict(torch.zeros(1, 3, 8, 8), 5, torch.zeros(1, 3, 8, 9))


def test_public_names_are_exported():
    import pristina.priors
    import pristina.priors.generate  # hides no function of that name

    for name in pristina.priors.__all__:
        assert getattr(pristina.priors, name).__module__.startswith("pristina.priors")
    assert callable(pristina.priors.generate) and "nonsense" not in dir(pristina.priors)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = pristina.priors.nonsense
