"""Every layout, at a tiny size, against the independent forward pass of ``reference.py``."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from pristina.errors import CheckpointError
from pristina.priors.checkpoints.options import LoadOptions
from pristina.priors.load import load_prior
from tests.checkpoints.reference import Form, adm_forward, ddpm_forward, make_adm, make_ddpm

SIZE = (2, 3, 16, 16)


def pictures(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def predicted(prior, x, t):
    """What the network behind a prior returns, without anything around it."""
    with torch.no_grad():
        return prior.network(x, t).sample


def quarters(c):
    return 4


def of_16(c):
    return c // 16


ADM_FORMS = {
    "residual, scale-shift, 6 outputs": Form(outputs=6),
    "residual, no scale-shift": Form(scale_shift=False),
    "conv resampling": Form(residual=False),
    "conv resampling, no scale-shift": Form(residual=False, scale_shift=False),
    "two blocks, three levels, attention on two": Form(
        widths=(32, 32, 64), blocks=2, attends=(1, 2), outputs=6
    ),
    "attention in the middle only": Form(attends=()),
    "time embedding wider than the first level": Form(widths=(32, 64), time=64, outputs=6),
    "grey": Form(inputs=1, outputs=2),
    "one level": Form(widths=(32,), attends=()),
}


@pytest.mark.parametrize("order", ["legacy", "new"])
@pytest.mark.parametrize("form", ADM_FORMS.values(), ids=ADM_FORMS.keys())
def test_adm(tmp_path, form, order):
    w = make_adm(form)
    torch.save(w, tmp_path / "network.pt")
    x, t = pictures(2, form.inputs, 16, 16), torch.tensor([3.0, 700.5])
    for how, heads in (({"heads": 4}, quarters), ({"head_channels": 16}, of_16)):
        prior = load_prior(tmp_path / "network.pt", options=LoadOptions(order, **how))
        expected = adm_forward(w, form, x, t, heads=heads, order=order)
        assert (predicted(prior, x, t) - expected).abs().max() < 1e-4
        wrong = adm_forward(
            w, form, x, t, heads=heads, order={"legacy": "new", "new": "legacy"}[order]
        )
        assert (wrong - expected).abs().max() > 1e-2  # the comparison would notice
        assert prior.channels == form.inputs and prior.size_rule.multiple == 2 ** (
            len(form.widths) - 1
        )
        eps = prior.predict(x, t).eps
        assert (eps - expected[:, : form.inputs]).abs().max() < 1e-3


def test_adm_with_classes_is_fixed_to_one_or_to_their_mean(tmp_path):
    form = Form(classes=5, outputs=6)
    w = make_adm(form)
    torch.save(w, tmp_path / "network.pt")
    x, t, known = pictures(*SIZE), torch.tensor([10.0, 500.0]), LoadOptions("legacy", heads=4)
    for label, vector in ((None, w["label_emb.weight"].mean(0)), (3, w["label_emb.weight"][3])):
        prior = load_prior(tmp_path / "network.pt", options=dataclasses.replace(known, label=label))
        expected = adm_forward(w, form, x, t, heads=quarters, order="legacy", label=vector)
        assert (predicted(prior, x, t) - expected).abs().max() < 1e-4
        assert prior.source["label"] == ("mean of all classes" if label is None else "3")
    with pytest.raises(CheckpointError, match="between 0 and 4"):
        load_prior(tmp_path / "network.pt", options=dataclasses.replace(known, label=5))


@pytest.mark.parametrize("predicts", ["edm", "consistency"])
def test_edm_and_consistency_networks(tmp_path, predicts):
    form = Form(widths=(64, 128), two_d=True, scale_shift=False, time=64)
    w = make_adm(form)
    torch.save(w, tmp_path / "network.pt")
    asked = LoadOptions() if predicts == "edm" else LoadOptions(predicts="consistency")
    prior = load_prior(
        tmp_path / "network.pt", options=asked
    )  # 2-D attention gives the code away: new order, 64 channels a head
    x_t, t = pictures(*SIZE), torch.tensor([20.0, 600.0])
    found = prior.predict(x_t, t).x0

    bar = prior.alpha_bar[t.long()].view(-1, 1, 1, 1).double()
    sigma, s = ((1 - bar) / bar).sqrt(), 0.5
    least = 0.002 if predicts == "consistency" else 0.0
    x = x_t / bar.sqrt()
    out = adm_forward(
        w,
        form,
        (x / (sigma**2 + s**2).sqrt()).float(),
        250 * sigma.flatten().log().float(),
        heads=lambda c: c // 64,
        order="new",
    )
    expected = (
        s**2 / ((sigma - least) ** 2 + s**2) * x
        + (sigma - least) * s / (sigma**2 + s**2).sqrt() * out
    )
    assert (found - expected).abs().max() < 1e-4


DDPM_FORMS = {
    "two levels": Form(),
    "CIFAR-like": Form(widths=(32, 64, 64), blocks=2, attends=(1,)),
    "attention everywhere": Form(attends=(0, 1)),
    "attention in the middle only": Form(attends=()),
}


@pytest.mark.parametrize("form", DDPM_FORMS.values(), ids=DDPM_FORMS.keys())
def test_ddpm(tmp_path, form):
    w = make_ddpm(form)
    torch.save(w, tmp_path / "network.ckpt")
    x, t = pictures(*SIZE), torch.tensor([3.0, 700.5])
    prior = load_prior(tmp_path / "network.ckpt")
    assert (predicted(prior, x, t) - ddpm_forward(w, form, x, t)).abs().max() < 1e-4
    assert prior.source["layout"] == "ddpm" and len(prior.source["sha256"]) == 64
    assert prior.source["file"].endswith("network.ckpt")


def test_wrappers_prefixes_and_averaged_weights(tmp_path):
    raw, average = make_ddpm(Form(), seed=1), make_ddpm(Form(), seed=2)

    def under(prefix, w):
        return {prefix + name: t for name, t in w.items()}

    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]}
    x, t = pictures(*SIZE), torch.tensor([3.0, 700.0])
    trained, averaged = ddpm_forward(raw, Form(), x, t), ddpm_forward(average, Form(), x, t)
    wrapped = {
        "list": ([under("module.", raw), optimizer, 4, 1000], trained),
        "list with averages": ([under("module.", raw), optimizer, 4, 1000, average], averaged),
        "state_dict": ({"state_dict": under("model.", raw), "epoch": 3}, trained),
        "model": ({"model": under("module.", raw), "optimizer": optimizer}, trained),
        "model and ema": ({"model": raw, "ema": under("module.", average)}, averaged),
        "denoise_fn and buffers": (
            {**under("denoise_fn.", raw), "betas": torch.zeros(1000)},
            trained,
        ),
        "ema_model": (
            {
                **under("online_model.", raw),
                **under("ema_model.", average),
                "step": torch.tensor(1),
            },
            averaged,
        ),
    }
    for name, (held, expected) in wrapped.items():
        torch.save(held, tmp_path / "held.pt")
        assert (predicted(load_prior(tmp_path / "held.pt"), x, t) - expected).abs().max() < 1e-4, (
            name
        )

    torch.save([raw, optimizer, 4, 1000, average], tmp_path / "both.pt")
    assert (
        predicted(load_prior(tmp_path / "both.pt", options=LoadOptions(weights="raw")), x, t)
        - trained
    ).abs().max() < 1e-4
    torch.save(raw, tmp_path / "one.pt")
    with pytest.raises(CheckpointError, match="no averaged"):
        load_prior(tmp_path / "one.pt", options=LoadOptions(weights="ema"))


def test_half_precision_and_foreign_safetensors(tmp_path):
    w = {name: t.half() for name, t in make_ddpm(Form()).items()}
    torch.save(w, tmp_path / "half.ckpt")
    save_file(w, tmp_path / "half.safetensors")
    torch.save(w, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    x, t = pictures(*SIZE), torch.tensor([3.0, 700.0])
    expected = ddpm_forward({name: v.float() for name, v in w.items()}, Form(), x, t)
    for file in ("half.ckpt", "half.safetensors", "old.ckpt"):
        assert (predicted(load_prior(tmp_path / file), x, t) - expected).abs().max() < 1e-4
