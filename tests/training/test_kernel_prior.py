import pytest
import torch
from PIL import Image

from pristina.cli import main
from pristina.errors import CheckpointError, SettingError
from pristina.priors.load import load_prior, load_weights
from pristina.training import kernel_prior
from pristina.training.kernel_prior import KernelStream, KernelTraining, train_kernel_prior
from pristina.training.schedule import Schedule

TINY = KernelTraining(size_px=16, channels=(16, 32), attention=False)


def test_kernels_are_as_the_network_wants_them():
    stream = KernelStream(32, seed=3)
    drawn = torch.stack([stream[i] for i in range(60)])
    assert drawn.shape == (60, 1, 32, 32) and drawn.dtype == torch.uint8
    assert (drawn.flatten(1).amax(1) == 255).all()
    assert (drawn[..., -1] == 0).all() and (drawn[..., -1, :] == 0).all()
    assert torch.equal(stream[7], KernelStream(32, seed=3)[7]) and not torch.equal(
        stream[7], KernelStream(32, seed=4)[7]
    )
    # about one in six is a Gaussian, which is its own mirror image in the 31 x 31 px that hold it
    kernels = drawn[..., :31, :31].int()
    symmetric = ((kernels - kernels.flip(-1)).abs() <= 1).flatten(1).all(1) & (
        (kernels - kernels.flip(-2)).abs() <= 1
    ).flatten(1).all(1)
    assert 2 <= symmetric.sum() <= 20
    # and the centre of mass is in the middle of these
    axis = torch.arange(31.0)
    weight = kernels.float() / kernels.sum((1, 2, 3), keepdim=True)
    assert ((weight.sum((1, 2)) * axis).sum(1) - 15).abs().max() < 0.5


def test_a_prior_is_trained_written_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr("pristina.training.kernel_prior.N_HELD_OUT", 16)
    out = tmp_path / "kernels.safetensors"
    schedule = Schedule(images=8, batch=4, compile=False, workers=0, warmup=1, save_minutes=100)
    train_kernel_prior(out, TINY, schedule)
    with Image.open(tmp_path / "kernels.png") as grid:
        assert grid.size == (8 * 16, 4 * 16) and grid.mode == "L"
    prior = load_weights("kernels", out)
    assert prior.channels == 1 and prior.size_rule.native == 16 and "kernel" in prior.domain
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(prior.predict(x, 500).x0).all()
    assert load_weights("kernels", prior) is prior
    with pytest.raises(CheckpointError, match="kernel-prior"):
        load_prior(out)


def test_sizes_that_the_network_cannot_have_are_refused():
    with pytest.raises(SettingError, match="multiple of 8"):
        KernelTraining(size_px=33)


def test_an_option_leaves_the_other_defaults_as_they_are(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(kernel_prior, "train_kernel_prior", lambda *a, **k: asked.append(a[2]))
    with pytest.raises(SystemExit):
        main(["train", "kernel-prior", "--out", str(tmp_path / "k.safetensors"), "--images", "9"])
    assert (asked[0].images, asked[0].batch, asked[0].learning_rate) == (9, 32, 1e-3)
