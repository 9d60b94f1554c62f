"""Files that are no priors: each refused in a sentence that says what it looks like and what would fit."""

import subprocess
import sys

import pytest
import torch

from pristina.errors import CheckpointError
from pristina.priors.checkpoints.catalogue import Reading
from pristina.priors.load import load_prior
from tests.checkpoints.reference import Form, make_adm, make_ddpm

ADM, DDPM = make_adm(Form()), make_ddpm(Form())


def refused(path, reading=Reading()):
    with pytest.raises(CheckpointError) as error:
        load_prior(path, reading=reading)
    return str(error.value)


def some(*names):
    return {name: torch.zeros(2, 2) for name in names}


STRANGERS = {
    "a LoRA": some("unet.down_blocks.0.attentions.0.to_q.lora_A.weight", "unet.down_blocks.0.attentions.0.to_q.lora_B.weight"),
    "an ADM classifier": {n: t for n, t in ADM.items() if not n.startswith("output_blocks") and n != "out.2.weight"},
    "a classifier": some("conv1.weight", "layer1.0.conv1.weight", "fc.weight", "fc.bias"),
    "SR3": some("denoise_fn.noise_level_mlp.1.weight", "denoise_fn.downs.0.weight", "denoise_fn.ups.0.block.weight"),
    "Palette": {("denoise_fn." + n).replace("time_embed", "cond_embed"): t for n, t in ADM.items()},
    "NCSN++": some("module.all_modules.0.W", "module.all_modules.1.weight", "sigmas"),
    "latent diffusion": {**{"model.diffusion_model." + n: t for n, t in ADM.items()}, **some("first_stage_model.encoder.conv_in.weight")},
    "Stable Diffusion": some("model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"),
    "autoencoder": {"encoder." + n: t for n, t in DDPM.items()},
    "EDM code": some("model.enc.64x64_block0.conv0.weight", "model.dec.8x8_in0.conv0.weight"),
    "DiT": some("x_embedder.proj.weight", "blocks.0.adaLN_modulation.1.weight"),
    "lucidrains": some("model.init_conv.weight", "model.downs.0.0.block1.proj.weight"),
    "no layout that is known": some("a", "b", "c"),
}


@pytest.mark.parametrize(("says", "held"), STRANGERS.items(), ids=STRANGERS.keys())
def test_strangers(tmp_path, says, held):
    torch.save(held, tmp_path / "file.pt")
    sentence = refused(tmp_path / "file.pt")
    assert says in sentence and "UNet2DModel folder" in sentence and "file.pt" in sentence and "\n" not in sentence


class Anything:
    pass


def test_python_objects(tmp_path):
    torch.save({"state_dict": DDPM, "config": Anything()}, tmp_path / "object.pt")
    assert "Python objects (tests.checkpoints.test_refusals.Anything)" in refused(tmp_path / "object.pt")
    torch.save(Anything(), tmp_path / "object.pt", _use_new_zipfile_serialization=False)
    assert "Python objects" in refused(tmp_path / "object.pt")


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_truncated(tmp_path, new, share):
    file = tmp_path / "whole.ckpt"
    torch.save(DDPM, file, _use_new_zipfile_serialization=new)
    held = file.read_bytes()
    file.write_bytes(held[: int(share * len(held))])
    assert "truncated" in refused(file)


def test_what_is_no_weight_file(tmp_path):
    for held, says in (
        (b"<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        (b"hello, world", "neither safetensors nor a file written by torch.save"),
        (b"", "neither safetensors nor a file written by torch.save"),
    ):
        (tmp_path / "file.pt").write_bytes(held)
        assert says in refused(tmp_path / "file.pt")
    (tmp_path / "file.safetensors").write_bytes(b"12345678901234567890")
    assert "truncated" in refused(tmp_path / "file.safetensors")
    assert "without config.json" in refused(tmp_path)
    assert "weights list" in refused(tmp_path / "absent.pt")


def test_a_mismatch_prints_a_short_difference(tmp_path):
    wrong = dict(DDPM)
    del wrong["mid.block_1.norm1.weight"]
    wrong["down.0.block.0.conv2.bias"] = torch.zeros(7)
    wrong["strange.weight"] = torch.zeros(1)
    torch.save(wrong, tmp_path / "file.ckpt")
    sentence = refused(tmp_path / "file.ckpt")
    assert "missing: mid.block_1.norm1.weight [64]" in sentence
    assert "unexpected: strange.weight [1]" in sentence
    assert "of another shape: down.0.block.0.conv2.bias [7] for [32]" in sentence
    assert "nothing was loaded" in sentence

    gone = {n: t for n, t in ADM.items() if not n.startswith("middle_block.0")}
    torch.save(gone, tmp_path / "file.pt")
    sentence = refused(tmp_path / "file.pt", Reading("legacy", heads=4))
    assert "middle_block.0.in_layers.0.weight" not in sentence.split("missing")[0] and "and 6 more" in sentence


def test_conditional_and_unfinished_forms(tmp_path):
    torch.save(make_adm(Form(inputs=6, outputs=6)), tmp_path / "file.pt")
    assert "takes 6 channels and gives 6: a conditional network" in refused(tmp_path / "file.pt")
    torch.save({n: t for n, t in make_adm(Form(residual=False)).items() if ".op." not in n and ".2.conv." not in n}, tmp_path / "file.pt")
    assert "conv_resample" in refused(tmp_path / "file.pt")
    torch.save({n: t for n, t in DDPM.items() if "downsample" not in n}, tmp_path / "file.pt")
    assert "resamp_with_conv" in refused(tmp_path / "file.pt")
    torch.save(ADM, tmp_path / "file.pt")
    assert "not both" in refused(tmp_path / "file.pt", Reading(heads=4, head_channels=16))
    assert "divides" in refused(tmp_path / "file.pt", Reading(heads=5))
    assert "knows no classes" in refused(tmp_path / "file.pt", Reading("legacy", heads=4, label=1))


def test_the_command_ends_with_a_sentence_and_status_2(tmp_path):
    torch.save(STRANGERS["a LoRA"], tmp_path / "file.pt")
    done = subprocess.run([sys.executable, "-m", "pristina", "weights", "check", str(tmp_path / "file.pt")], capture_output=True, text=True)
    assert done.returncode == 2 and "a LoRA" in done.stderr and "Traceback" not in done.stderr
