"""What every prior must do."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from pristina import restore
from pristina.errors import CheckpointError
from pristina.metrics.fidelity import psnr
from pristina.operators.index import parse_recipe
from pristina.priors.checkpoints.format import save_weights
from pristina.priors.checkpoints.header import read_header
from pristina.priors.gaussian import GaussianMixturePrior, GaussianPrior
from pristina.priors.load import load_direct, load_kernel_prior, load_prior, shipped
from pristina.priors.network import PatchUNet, PixelNorm, compile_network
from pristina.priors.schedule import alpha_bar_at
from pristina.priors.unet import UNetPrior, flow_prior
from pristina.training.kernel_prior import draw_kernel
from pristina.types import Draw, generators

TINY = {"channels": [16, 32], "layers": 1, "patch": 2, "attention": True, "norm": "group", "inputs": 3, "outputs": 3, "labels": 2}


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
}


@pytest.mark.parametrize("name", PRIORS)
def test_eps_and_x0_agree_at_every_t(name):
    prior = PRIORS[name]()
    x = torch.randn(2, 3, 16, 16)
    for t in (0, 1, 99, 333.3, 500, 900, 999):
        eps, x0 = prior.predict(x, t)
        alpha_bar = alpha_bar_at(prior.alpha_bar, t)
        torch.testing.assert_close(alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps, x, rtol=1e-4, atol=1e-4)
    assert prior.n_calls == 14


@pytest.mark.parametrize("name", PRIORS)
def test_neighbours_do_not_matter(name):
    prior = PRIORS[name]()
    x, t = torch.randn(3, 3, 16, 16), torch.tensor([5.0, 400.0, 900.0])
    together = prior.predict(x, t).x0
    for i in range(3):
        torch.testing.assert_close(prior.predict(x[i : i + 1], t[i : i + 1]).x0, together[i : i + 1], rtol=1e-4, atol=1e-4)


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
        torch.testing.assert_close(flow.predict(x, t).x0, exact.predict(x, t).x0, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # torch's own, while it compiles
def test_a_compiled_network_predicts_the_same():
    prior, plain = (flow_prior(tiny(channels=[16], attention=False), domain="noise", native=16, fixed=False) for _ in range(2))
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
    header = {"kind": "prior", "network": network.settings, "domain": "noise", "size_px": 16, "fixed_size": False, "prediction": "flow"}
    save_weights(path, network.state_dict(), header)
    assert read_header(path)["domain"] == "noise"
    prior = load_prior(path, dtype=torch.float32)
    x = torch.randn(1, 3, 16, 24)
    torch.testing.assert_close(prior.predict(x, 300).x0, flow_prior(network, domain="", native=16, fixed=False).predict(x, 300).x0)
    assert not any(p.requires_grad for p in prior.parameters())


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "prior.safetensors"
    with pytest.raises(CheckpointError, match="is neither a file"):
        load_prior(path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_prior(path)
    network = tiny()
    tensors = network.state_dict()
    tensors.pop("unet.conv_in.bias")
    header = {"kind": "prior", "network": network.settings, "domain": "noise", "size_px": 16, "fixed_size": False}
    save_weights(path, tensors, header)
    with pytest.raises(CheckpointError, match=r"conv_in\.bias"):
        load_prior(path)


def test_pixel_norm_makes_crops_agree_with_the_whole():
    """No layer may depend on the size of the picture: far from the border a crop gives what the whole gives."""
    network = tiny(norm="pixel", attention=False)
    assert any(isinstance(m, PixelNorm) for m in network.modules())
    assert not any(isinstance(m, torch.nn.GroupNorm) for m in network.modules())
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        whole, crop = network(x, torch.tensor([0.4])), network(x[..., :64, :64], torch.tensor([0.4]))
    torch.testing.assert_close(whole[..., :24, :24], crop[..., :24, :24], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [n for n in shipped() if n in ("faces", "photos", "faces-research")])
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
    """On a picture that comes with scikit-image: strong damage is repaired, a clean picture hardly changed."""
    small = Image.fromarray(astronaut()).resize((128, 128), Image.Resampling.LANCZOS)
    x = torch.tensor(np.array(small)).permute(2, 0, 1)[None] / 255
    prior = load_direct("photos-blind")

    def gain(recipe):
        y = parse_recipe(recipe).degrade(x, Draw(generators(0, 1), 1)).clamp(0, 1)
        return float(psnr(prior.predict(y, 1.0).clamp(0, 1), x) - psnr(y, x))

    assert gain(f"noise:sigma={25 / 255}") > 5 and gain("jpeg:quality=10") > 0.3 and gain("blur:sigma=1.2") > 0.3
    assert float(psnr(prior.predict(x, 1.0).clamp(0, 1), x)) > 35
    assert len(shipped()["photos-blind"].with_suffix(".md").read_text()) > 500


@torch.no_grad()
def test_the_shipped_prior_of_kernels_knows_kernels():
    """Of new kernels under more noise than kernel it finds all but a fiftieth of the squared error."""
    kernel = load_kernel_prior("kernels")
    side = kernel.size_rule.native
    clean = torch.stack([draw_kernel(side, g) for g in generators(10_000, 8)]) / 127.5 - 1
    t, eps = 300, torch.stack([torch.randn(1, side, side, generator=g) for g in generators(0, 8)])
    alpha_bar = kernel.alpha_bar[t]
    x0 = kernel.predict(alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * eps, t).x0
    assert (x0 - clean).square().mean() < 0.02 * (1 - alpha_bar) / alpha_bar
    assert len(shipped()["kernels"].with_suffix(".md").read_text()) > 500


def test_the_shipped_specialists_are_ahead_of_the_blind_weights_at_their_own_damage():
    small = Image.fromarray(astronaut()).resize((128, 128), Image.Resampling.LANCZOS)
    x = torch.tensor(np.array(small)).permute(2, 0, 1)[None] / 255
    for name, recipe, ahead in (("denoise", "noise:sigma=0.06", 0.2), ("jpeg", "jpeg:quality=30", 0.2), ("x4", "bicubic:factor=4", 0.2)):
        operator = parse_recipe(recipe)
        y = operator.degrade(x, Draw(generators(0, 1), 1)).clamp(0, 1)
        form = {"operator": operator} if y.shape != x.shape else {}
        found = {prior: restore(y[0], method="indi", prior=prior, **form).picture.pixels[None] for prior in (name, "photos-blind")}
        assert psnr(found[name], x) > psnr(found["photos-blind"], x) + ahead > psnr(operator.initial(y), x) + ahead, name
        assert len(shipped()[name].with_suffix(".md").read_text()) > 500
