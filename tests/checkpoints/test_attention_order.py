"""What the tensors cannot say: the catalogue, the file name, one denoising step, and the caller."""

import functools
import math

import pytest
import torch

from pristina.errors import CheckpointError
from pristina.files import sha256_of
from pristina.priors.checkpoints.catalogue import CATALOGUE, CatalogueEntry, identify
from pristina.priors.checkpoints.options import LoadOptions
from pristina.priors.load import load_prior
from pristina.priors.schedule import linear_alpha_bar
from tests.checkpoints.reference import Form, adm_forward, make_adm

FORM = Form(widths=(32, 32), attends=(0, 1))


def four(c):
    return 4


@functools.cache
def train(order, steps=30):
    """Train a small network in ADM's form to denoise smooth images, its attention in an order."""
    w = {
        name: (3 * t if "qkv" in name or "proj_out" in name else t).requires_grad_()
        for name, t in make_adm(FORM).items()
    }
    random = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(w.values(), lr=4e-3)
    table, u = linear_alpha_bar(), torch.linspace(-1, 1, 8)
    for _ in range(steps):
        slope = 0.5 * torch.randn(2, 4, 3, 1, 1, generator=random)
        x0 = slope[0] * u + slope[1] * u[:, None] + 0.3 * torch.randn(4, 3, 1, 1, generator=random)
        t = torch.randint(100, 800, (4,), generator=random)
        eps, bar = torch.randn(x0.shape, generator=random), table[t].view(-1, 1, 1, 1)
        loss = (
            (
                adm_forward(
                    w, FORM, bar.sqrt() * x0 + (1 - bar).sqrt() * eps, t, heads=four, order=order
                )
                - eps
            )
            .square()
            .mean()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: t.detach() for name, t in w.items()}


@pytest.mark.parametrize("order", ["legacy", "new"])
def test_one_denoising_step_finds_the_order(tmp_path, order):
    torch.save(train(order), tmp_path / "mine.pt")
    source = load_prior(tmp_path / "mine.pt").source
    assert source["attention"] == f"{order}, 4 heads" and source["decided"].startswith(
        "one-step denoising error"
    )


def test_random_weights_tell_nothing_and_are_not_guessed(tmp_path):
    torch.save(make_adm(FORM), tmp_path / "mine.pt")
    with pytest.raises(CheckpointError, match="set attention_order"):
        load_prior(tmp_path / "mine.pt")
    assert (
        load_prior(tmp_path / "mine.pt", options=LoadOptions("new")).source["attention"]
        == "new, 4 heads"
    )


def test_a_known_name_decides_only_where_the_step_does_not(tmp_path, monkeypatch):
    options = LoadOptions("new", heads=4, size_px=16, fixed_size=True, domain="nothing")
    monkeypatch.setitem(
        CATALOGUE, "mine", CatalogueEntry("mine", "mine", "mine.pt", "none", options, page="")
    )
    torch.save(make_adm(FORM), tmp_path / "mine.pt")
    prior = load_prior(tmp_path / "mine.pt")
    assert (
        prior.source["catalogue"] == "mine (by name)"
        and prior.size_rule.fixed
        and prior.domain == "nothing"
    )
    assert prior.source["attention"] == "new, 4 heads" and prior.source["decided"].startswith(
        "file name; one-step denoising does not tell"
    )
    torch.save(train("legacy"), tmp_path / "mine.pt")  # another network of that name
    assert load_prior(tmp_path / "mine.pt").source["attention"] == "legacy, 4 heads"


def test_a_known_hash_decides(tmp_path, monkeypatch):
    torch.save(make_adm(FORM), tmp_path / "anything.pt")
    options = LoadOptions("new", heads=4, schedule="cosine", domain="nothing", size_px=16)
    known = CatalogueEntry(
        "mine",
        "mine",
        "other.pt",
        "none",
        options,
        page="",
        sha256=sha256_of(tmp_path / "anything.pt"),
    )
    monkeypatch.setitem(CATALOGUE, "mine", known)
    prior = load_prior(tmp_path / "anything.pt")
    assert (
        prior.source["catalogue"] == "mine (by hash)" and prior.source["decided"] == "the catalogue"
    )
    assert prior.source["attention"] == "new, 4 heads" and prior.domain == "nothing"
    assert math.isclose(prior.alpha_bar[500].item(), 0.4925, abs_tol=2e-3)  # cosine, not linear
    assert (
        load_prior(tmp_path / "anything.pt", options=LoadOptions("legacy")).source["attention"]
        == "legacy, 4 heads"
    )


def test_one_head_and_idle_attention_leave_nothing_open(tmp_path):
    w = make_adm(Form(widths=(64, 64), attends=(), time=64))
    torch.save(
        {n: torch.zeros_like(t) if "proj_out" in n else t for n, t in w.items()},
        tmp_path / "mine.pt",
    )
    assert (
        load_prior(tmp_path / "mine.pt").source["decided"]
        == "all ways to read it give the same picture"
    )
    torch.save(w, tmp_path / "mine.pt")
    assert (
        load_prior(tmp_path / "mine.pt", options=LoadOptions(head_channels=64)).source["decided"]
        == "only one way to read it"
    )


def test_catalogue():
    sizes = {}
    for name, known in CATALOGUE.items():
        assert (
            name == known.name
            and known.options.domain
            and known.page.startswith("https://")
            and known.licence
        )
        assert known.url is None or known.url.startswith("https://")
        assert known.sha256 is None or len(known.sha256) == 64
        assert known.md5 is None or len(known.md5) == 32
        sizes[known.sha256] = known.size_bytes
    real = CATALOGUE["imagenet256"]
    assert identify("x.pt", real.sha256, 3) == (real, True)
    assert identify(real.file, "0" * 64, real.size_bytes) == (
        None,
        False,
    )  # the hash is known and differs
    assert identify("ffhq_10m.pt", "0" * 64, 1) == (CATALOGUE["ffhq"], False)
    assert identify("diffusion_ffhq_10m.pt", "0" * 64, 1) == (CATALOGUE["ffhq"], False)
    assert identify("mine.pt", "0" * 64, 1) == (None, False)


def test_what_is_said_goes_before_what_is_known():
    said = LoadOptions(heads=4, schedule="cosine").or_else(
        LoadOptions("legacy", head_channels=64, schedule="linear", size_px=64)
    )
    assert said == LoadOptions("legacy", heads=4, schedule="cosine", size_px=64)
    assert LoadOptions().or_else(said) == said
