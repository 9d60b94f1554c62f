"""Folders, conversion, export and a restoration from every form, on the same random networks."""

import json
import math
import shutil
import subprocess
import sys

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, UNet2DModel
from safetensors.torch import load_file, save_file

from pristina.cli.weights import app
from pristina.errors import CheckpointError, PristinaError
from pristina.files import sha256_of
from pristina.interop import export_diffusers
from pristina.priors.checkpoints.format import save_weights
from pristina.priors.checkpoints.options import LoadOptions
from pristina.priors.load import load_prior
from pristina.priors.patch_unet import PatchUNet
from pristina.priors.schedule import cosine_alpha_bar
from pristina.restoration import restore
from tests.checkpoints.reference import Form, adm_forward, ddpm_forward, make_adm, make_ddpm

X, T = (
    torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(5)),
    torch.tensor([3.0, 700.0]),
)


def weights(*words):
    """Run ``pristina weights``."""
    app(list(map(str, words)), exit_on_error=False, result_action="return_value")


@pytest.fixture(scope="module")
def ddpm(tmp_path_factory):
    path = tmp_path_factory.mktemp("ddpm") / "network.ckpt"
    torch.save(make_ddpm(Form()), path)
    return path


@pytest.fixture(scope="module")
def expected():
    return ddpm_forward(make_ddpm(Form()), Form(), X, T)


def small_unet(**more):
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=16,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), attention_head_dim=16,
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), **more,
    ).eval()  # fmt: skip


def as_ours(unet):
    """Bring a network into the memory layout of ours; without it sums differ by a few 1e-6."""
    return unet.eval().to(memory_format=torch.channels_last)


def network(prior):
    with torch.no_grad():
        return prior.network(X, T).sample


def test_convert_writes_our_own_file(tmp_path, ddpm, expected, capsys):
    weights("convert", ddpm, tmp_path / "own.safetensors", "--domain", "smudges", "--size-px", "32")
    prior = load_prior(tmp_path / "own.safetensors")
    assert (network(prior) - expected).abs().max() < 1e-4
    assert torch.equal(network(prior), network(load_prior(ddpm)))
    assert prior.domain == "smudges" and prior.size_rule.native == 32
    assert prior.source["layout"] == "pristina" and prior.source["original_layout"] == "ddpm"
    assert (
        prior.source["original_sha256"]
        == load_prior(ddpm).source["sha256"]
        != prior.source["sha256"]
    )
    weights("convert", ddpm, tmp_path / "half.safetensors", "--half")
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * (
        tmp_path / "own.safetensors"
    ).stat().st_size
    assert (network(load_prior(tmp_path / "half.safetensors")) - expected).abs().max() < 3e-2
    with pytest.raises(PristinaError, match=r"call it own\.safetensors"):
        weights("convert", ddpm, tmp_path / "own.pt")
    with pytest.raises(CheckpointError, match="already"):
        weights("convert", tmp_path / "own.safetensors", tmp_path / "again.safetensors")
    with pytest.raises(CheckpointError, match="leave the options out"):
        load_prior(tmp_path / "own.safetensors", options=LoadOptions("legacy"))
    capsys.readouterr()
    weights("check", tmp_path / "own.safetensors")
    said = capsys.readouterr().out
    assert "smudges" in said and "trained at 32 px" in said and "original_layout ddpm" in said


def test_convert_keeps_the_settled_attention(tmp_path):
    form = Form(outputs=6, classes=3)
    w = make_adm(form)
    torch.save(w, tmp_path / "adm.pt")
    weights(
        "convert",
        tmp_path / "adm.pt",
        tmp_path / "own.safetensors",
        "--attention-order",
        "new",
        "--heads",
        4,
        "--label",
        1,
    )
    want = adm_forward(
        w, form, X, T, heads=lambda c: 4, order="new", label=w["label_emb.weight"][1]
    )
    assert (network(load_prior(tmp_path / "own.safetensors")) - want).abs().max() < 1e-4


def test_diffusers_pipeline_folder(tmp_path):
    unet = small_unet()
    scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    DDIMPipeline(unet, scheduler).save_pretrained(tmp_path / "pipe")
    prior = load_prior(tmp_path / "pipe")
    assert prior.prediction == "v" and torch.allclose(
        prior.alpha_bar, scheduler.alphas_cumprod, atol=1e-6
    )
    assert torch.allclose(prior.alpha_bar, cosine_alpha_bar(), atol=1e-6)
    with torch.no_grad():
        assert (network(prior) - unet(X, T).sample).abs().max() < 1e-5
        step = scheduler.step
        scheduler.set_timesteps(10)
        out = unet(X, torch.tensor([500, 500])).sample
        found = prior.predict(X, 500)
    theirs = step(out, 500, X)
    scheduler.config.clip_sample = False
    assert (found.x0.clamp(-1, 1) - theirs.pred_original_sample).abs().max() < 1e-5
    assert (
        prior.source["layout"] == "diffusers"
        and prior.source["within"] == "unet"
        and prior.size_rule.native == 16
    )


def test_diffusers_model_folder_old_names_half_and_bin(tmp_path):
    unet = small_unet()
    unet.save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "diffusion_pytorch_model.safetensors"
    old = {}
    for name, t in load_file(file).items():
        for new_leaf, old_leaf in (
            ("to_q", "query"),
            ("to_k", "key"),
            ("to_v", "value"),
            ("to_out.0", "proj_attn"),
        ):
            name = name.replace(f".{new_leaf}.", f".{old_leaf}.")
        old[name] = t.half()
    assert any(".proj_attn." in name for name in old)
    file.unlink()
    torch.save(old, file.with_suffix(".bin"))
    prior = load_prior(tmp_path / "model")
    with torch.no_grad():
        assert (network(prior) - unet(X, T).sample).abs().max() < 2e-2
    assert (
        load_prior(file.with_suffix(".bin")).source["layout"] == "diffusers"
    )  # a file beside its config.json will do
    (tmp_path / "alone").mkdir()
    torch.save(old, tmp_path / "alone" / "w.bin")
    with pytest.raises(CheckpointError, match=r"without its config\.json"):
        load_prior(tmp_path / "alone" / "w.bin")


def test_diffusers_classes_are_fixed(tmp_path):
    unet = small_unet(num_class_embeds=4)
    unet.save_pretrained(tmp_path)
    prior = load_prior(tmp_path, options=LoadOptions(label=2))
    with torch.no_grad():
        assert (
            network(prior) - unet(X, T, class_labels=torch.tensor([2, 2])).sample
        ).abs().max() < 1e-5


def change(path, **more):
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


def test_diffusers_folders_that_do_not_fit(tmp_path):
    DDPMPipeline(small_unet(), DDIMScheduler()).save_pretrained(tmp_path)

    def refused(says):
        with pytest.raises(CheckpointError, match=says):
            load_prior(tmp_path)

    scheduler, config, index = (
        tmp_path / "scheduler/scheduler_config.json",
        tmp_path / "unet/config.json",
        tmp_path / "model_index.json",
    )
    for file, more, says in (
        (scheduler, {"num_train_timesteps": 4000}, "4000 timesteps"),
        (
            scheduler,
            {"_class_name": "FlowMatchEulerDiscreteScheduler"},
            "another kind of diffusion",
        ),
        (scheduler, {"rescale_betas_zero_snr": True}, "noise alone"),
        (scheduler, {"prediction_type": "flow"}, "not understood"),
        (scheduler, {"beta_schedule": "sigmoid"}, "not known"),
        (config, {"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel"),
        (config, {"novelty": 3}, "novelty"),
        (config, {"layers_per_block": 2}, "missing: down_blocks.0.resnets.1"),
        (config, {"in_channels": 6}, "conditional"),
        (index, {"vqvae": ["diffusers", "VQModel"]}, "pipeline with vqvae"),
    ):
        before = file.read_text()
        change(file, **more)
        refused(says)
        file.write_text(before)
    load_prior(tmp_path)
    held = load_file(tmp_path / "unet/diffusion_pytorch_model.safetensors")
    held.pop("conv_out.bias")
    save_file(held, tmp_path / "unet/diffusion_pytorch_model.safetensors")
    refused("missing: conv_out.bias")


@pytest.mark.parametrize("layout", ["ddpm", "adm"])
def test_export_of_a_foreign_network_is_a_whole_pipeline(tmp_path, layout, ddpm):
    if layout == "adm":
        torch.save(make_adm(Form(outputs=6)), tmp_path / "adm.pt")
        prior = load_prior(tmp_path / "adm.pt", options=LoadOptions("legacy", head_channels=32))
    else:
        prior = load_prior(ddpm)
    export_diffusers(prior, tmp_path / "out")
    pipe = DDPMPipeline.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        assert (as_ours(pipe.unet)(X, T).sample - network(prior)).abs().max() < 1e-6
    assert (pipe.scheduler.alphas_cumprod - prior.alpha_bar).abs().max() < 1e-6
    back = load_prior(tmp_path / "out")
    assert (
        back.predict(X, T).x0 - prior.predict(X, T).x0
    ).abs().max() < 2e-4  # x0 divides by alpha_bar, in float32
    assert torch.equal(network(back), network(prior))


def answer(path, **more):
    """What the network of a loaded checkpoint returns."""
    return network(load_prior(path, **more))


@pytest.fixture
def two(tmp_path):
    """A folder with one network, and another network of the same form."""
    first = small_unet()
    first.save_pretrained(tmp_path / "m")
    second = small_unet()
    torch.nn.init.normal_(second.conv_out.weight, std=0.3)
    return tmp_path / "m", second.state_dict(), second(X, T).sample.detach()


def test_the_named_weight_file_is_the_one_that_is_loaded(two):
    folder, held, expected = two
    save_file({k: v.contiguous() for k, v in held.items()}, folder / "step_20000.safetensors")
    torch.save(held, folder / "best.pt")
    torch.save({"state_dict": {f"module._orig_mod.{k}": v for k, v in held.items()}}, folder / "c")
    torch.save({"model": small_unet().state_dict(), "ema": held}, folder / "both.bin")
    for name in ("step_20000.safetensors", "best.pt", "c", "both.bin"):
        prior = load_prior(folder / name)
        assert (network(prior) - expected).abs().max() < 1e-4, name
        assert prior.source["file"] == str(folder / name)
        assert prior.source["sha256"] == sha256_of(folder / name)
    assert (answer(folder) - expected).abs().max() > 1e-2
    assert (answer(folder / "both.bin", options=LoadOptions(weights="raw")) - expected).std() > 1e-2


def test_names_relative_to_the_folder_of_the_weights(tmp_path, monkeypatch):
    DDIMPipeline(small_unet(), DDIMScheduler(beta_schedule="squaredcos_cap_v2")).save_pretrained(
        tmp_path / "pipe"
    )
    file = "diffusion_pytorch_model.safetensors"
    for place, name in (
        (".", "pipe"), ("pipe", "."), ("pipe", "unet"), ("pipe/unet", "."), ("pipe/unet", file),
        ("pipe/unet", "../unet"), ("pipe/scheduler", f"../unet/{file}"),
    ):  # fmt: skip
        monkeypatch.chdir(tmp_path / place)
        prior = load_prior(name)
        assert torch.allclose(prior.alpha_bar, cosine_alpha_bar(), atol=1e-6), (place, name)
        assert "schedule" not in prior.source and prior.source["file"] == name
    small_unet().save_pretrained(tmp_path / "alone")
    assert load_prior(tmp_path / "alone").source["schedule"].startswith("not stated")


@pytest.mark.parametrize("place", ["", "unet", "unet/diffusion_pytorch_model.safetensors"])
def test_what_stands_beside_the_network_is_believed(tmp_path, place):
    """Another kind of diffusion is refused by whatever name the network is given."""
    DDIMPipeline(small_unet(), DDIMScheduler(prediction_type="v_prediction")).save_pretrained(
        tmp_path
    )
    assert load_prior(tmp_path / place).prediction == "v"
    scheduler, index = tmp_path / "scheduler/scheduler_config.json", tmp_path / "model_index.json"
    for name in ("ScoreSdeVeScheduler", "KarrasVeScheduler", "EDMEulerScheduler", "Anything"):
        change(scheduler, _class_name=name)
        with pytest.raises(CheckpointError, match="another kind of diffusion"):
            load_prior(tmp_path / place)
    change(scheduler, _class_name="EulerDiscreteScheduler", timestep_type="continuous")
    with pytest.raises(CheckpointError, match="another kind of diffusion"):
        load_prior(tmp_path / place)
    change(scheduler, timestep_type="discrete")
    change(index, vqvae=["diffusers", "VQModel"])
    with pytest.raises(CheckpointError, match="pipeline with vqvae"):
        load_prior(tmp_path / place)


def test_checkpoints_of_a_training_run(tmp_path):
    """As diffusers' own script writes them: averaged weights beside the trained ones."""
    raw, average = small_unet(), small_unet()
    torch.nn.init.normal_(average.conv_out.weight, std=0.3)
    place = tmp_path / "run" / "checkpoint-500"
    raw.save_pretrained(place / "unet")
    average.save_pretrained(place / "unet_ema")
    extra = {"decay": 0.99, "inv_gamma": 1.0, "power": 0.75, "optimization_step": 3}
    change(place / "unet_ema/config.json", **extra, min_decay=0.1, use_ema_warmup=True)
    DDIMScheduler(beta_schedule="squaredcos_cap_v2").save_pretrained(tmp_path / "run/scheduler")
    with torch.no_grad():
        wants = {"auto": average(X, T).sample, "raw": raw(X, T).sample}
    for weights_, want in {**wants, "ema": wants["auto"]}.items():
        prior = load_prior(place, options=LoadOptions(weights=weights_))
        assert (network(prior) - want).abs().max() < 1e-4
        assert torch.allclose(prior.alpha_bar, cosine_alpha_bar(), atol=1e-6)
    assert (answer(place / "unet_ema") - wants["auto"]).abs().max() < 1e-4
    shutil.rmtree(place / "unet_ema")
    with pytest.raises(CheckpointError, match="no unet_ema"):
        load_prior(place, options=LoadOptions(weights="ema"))


@pytest.mark.parametrize("safe", [True, False])
def test_networks_in_several_files(tmp_path, safe):
    unet = small_unet()
    unet.save_pretrained(tmp_path, max_shard_size="300KB", safe_serialization=safe)
    index = next(tmp_path.glob("*.index.json"))
    with torch.no_grad():
        want = unet(X, T).sample
    for name in (tmp_path, index):
        prior = load_prior(name)
        assert (network(prior) - want).abs().max() < 1e-4 and len(prior.source["sha256"]) == 64
    part = sorted(tmp_path.glob("*-00001-of-*"))[0]
    with pytest.raises(CheckpointError, match=r"missing|no layout"):
        load_prior(part)
    held = part.read_bytes()
    part.unlink()
    with pytest.raises(CheckpointError, match="is not there"):
        load_prior(tmp_path)
    part.write_bytes(held)
    for names in ({"a": "../x"}, {"a": 3}, {}, [], {"a": "/etc/passwd"}):
        change(index, weight_map=names)
        with pytest.raises(CheckpointError, match="should name a file of its folder"):
            load_prior(tmp_path)


def test_an_exported_network_is_ours_by_whatever_name(tmp_path):
    prior = folded(tmp_path)
    export_diffusers(prior, tmp_path / "out")
    file = "unet/diffusion_pytorch_model.safetensors"
    for name in ("", "unet", file):
        back = load_prior(tmp_path / "out" / name)
        assert back.prediction == "flow"
        assert (back.predict(X, T).x0 - prior.predict(X, T).x0).abs().max() < 1e-6


def test_check_describes_every_kind_and_fails_what_cannot_run(tmp_path, capsys):
    for name, word in (("denoise", "a regressor"), ("kernels", "a prior of blur kernels")):
        weights("check", name)
        assert word in capsys.readouterr().out
    settings = folded(tmp_path).network.settings
    net = PatchUNet(settings)
    header = {"kind": "prior", "domain": "\x1b[31mred", "size_px": 16, "network": settings}
    tensors = net.state_dict()
    save_weights(tmp_path / "own.safetensors", tensors, header, torch.float32)
    weights("check", tmp_path / "own.safetensors")
    assert "\x1b" not in capsys.readouterr().out
    for number, words in ((math.nan, "NaN or infinity"), (1e38, "answers with NaN or infinity")):
        tensors["unet.conv_out.weight"] = torch.full_like(net.unet.conv_out.weight, number)
        save_weights(tmp_path / "own.safetensors", tensors, header, torch.float32)
        with pytest.raises(CheckpointError, match=words):
            weights("check", tmp_path / "own.safetensors")


def folded(tmp_path, norm="group"):
    settings = {
        "channels": [32, 64], "layers": 1, "patch": 2, "attention": True, "norm": norm,
        "inputs": 3, "outputs": 3, "labels": 2,
    }  # fmt: skip
    torch.manual_seed(0)
    net = PatchUNet(settings)
    torch.nn.init.normal_(net.unet.conv_out.weight, std=0.1)
    header = {
        "kind": "prior",
        "prediction": "flow",
        "domain": "noise",
        "size_px": 16,
        "fixed_size": False,
        "network": settings,
    }
    save_weights(tmp_path / "own.safetensors", net.state_dict(), header, torch.float32)
    return load_prior(tmp_path / "own.safetensors")


def test_export_of_our_own_network_says_how_to_fold(tmp_path):
    prior = folded(tmp_path)
    assert prior.source["layout"] == "pristina" and prior.source["file"].endswith("own.safetensors")
    export_diffusers(prior, tmp_path / "out")
    unet = as_ours(UNet2DModel.from_pretrained(tmp_path / "out", subfolder="unet"))
    u = torch.tensor([0.2, 0.9])
    with torch.no_grad():  # as README.md in the folder says
        velocity = torch.nn.functional.pixel_shuffle(
            unet(
                torch.nn.functional.pixel_unshuffle(X, 2),
                1000 * u,
                class_labels=torch.zeros(2).long(),
            ).sample,
            2,
        )
        assert (velocity - prior.network(X, u)).abs().max() < 1e-6
    said = (tmp_path / "out" / "README.md").read_text()
    assert (
        "pixel_unshuffle(x_u, 2)" in said
        and "class_labels=torch.zeros(len(u), dtype=torch.long)" in said
    )
    back = load_prior(tmp_path / "out")
    assert (
        back.predict(X, T).x0 - prior.predict(X, T).x0
    ).abs().max() < 1e-6 and back.domain == "noise"


def test_export_refuses_what_diffusers_cannot_say(tmp_path):
    with pytest.raises(CheckpointError, match="pixel by pixel"):
        export_diffusers(folded(tmp_path, norm="pixel"), tmp_path / "out")
    torch.save(make_adm(Form()), tmp_path / "adm.pt")
    with pytest.raises(CheckpointError, match="same number of attention heads"):
        export_diffusers(
            load_prior(tmp_path / "adm.pt", options=LoadOptions("legacy", heads=4)),
            tmp_path / "out",
        )
    torch.save(make_adm(Form(time=64)), tmp_path / "adm.pt")
    with pytest.raises(CheckpointError, match="time embedding is wider"):
        export_diffusers(
            load_prior(tmp_path / "adm.pt", options=LoadOptions("legacy", head_channels=32)),
            tmp_path / "out",
        )
    torch.save(make_adm(Form(widths=(64, 64), two_d=True, time=64)), tmp_path / "edm.pt")
    with pytest.raises(CheckpointError, match="EDM"):
        export_diffusers(load_prior(tmp_path / "edm.pt"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_restoration_from_each_form_records_file_hash_and_layout(tmp_path, ddpm):
    weights("convert", ddpm, tmp_path / "own.safetensors")
    export_diffusers(load_prior(ddpm), tmp_path / "folder")
    torch.save(
        [{f"module.{n}": t for n, t in make_ddpm(Form()).items()}, {}, 1, 2], tmp_path / "list.ckpt"
    )
    torch.save(make_ddpm(Form()), tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    pictures = []
    for form, layout in (
        (ddpm, "ddpm"), (tmp_path / "old.ckpt", "ddpm"), (tmp_path / "list.ckpt", "ddpm"),
        (tmp_path / "own.safetensors", "pristina"), (tmp_path / "folder", "diffusers"),
    ):  # fmt: skip
        done = restore(
            X[0].sigmoid(), method="mmse", prior=form, settings={"sigma": 0.1}, device="cpu"
        )
        record = json.loads(json.dumps(done.record()))
        assert record["weights"]["layout"] == layout and len(record["weights"]["sha256"]) == 64
        assert record["weights"]["file"] == str(form)
        pictures.append(done.picture.pixels)
    assert all((p - pictures[0]).abs().max() < 1e-4 for p in pictures)


def test_help_does_not_load_torch():
    code = "import sys, pristina.cli.weights, pristina.cli.doctor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
