"""Files that are no priors: each refused in a sentence that says what it is and what would fit."""

import math
import os
import zipfile

import pytest
import torch
from safetensors.torch import save, save_file

from pristina.cli import main
from pristina.errors import CheckpointError
from pristina.priors.checkpoints import adm
from pristina.priors.checkpoints.format import save_weights
from pristina.priors.checkpoints.options import LoadOptions
from pristina.priors.load import find_weights, kind_of, load_prior
from pristina.priors.patch_unet import PatchUNet
from tests.checkpoints.reference import Form, make_adm, make_ddpm

ADM, DDPM = make_adm(Form()), make_ddpm(Form())


def refused(path, options=LoadOptions()):
    with pytest.raises(CheckpointError) as error:
        load_prior(path, options=options)
    return str(error.value)


def some(*names):
    return {name: torch.zeros(2, 2) for name in names}


UNSUPPORTED = {
    "a LoRA": some(
        "unet.down_blocks.0.attentions.0.to_q.lora_A.weight",
        "unet.down_blocks.0.attentions.0.to_q.lora_B.weight",
    ),
    "an ADM classifier": {
        n: t for n, t in ADM.items() if not n.startswith("output_blocks") and n != "out.2.weight"
    },
    "a classifier": some("conv1.weight", "layer1.0.conv1.weight", "fc.weight", "fc.bias"),
    "SR3": some(
        "denoise_fn.noise_level_mlp.1.weight",
        "denoise_fn.downs.0.weight",
        "denoise_fn.ups.0.block.weight",
    ),
    "Palette": {("denoise_fn." + n).replace("time_embed", "cond_embed"): t for n, t in ADM.items()},
    "NCSN++": some("module.all_modules.0.W", "module.all_modules.1.weight", "sigmas"),
    "latent diffusion": {
        **{"model.diffusion_model." + n: t for n, t in ADM.items()},
        **some("first_stage_model.encoder.conv_in.weight"),
    },
    "Stable Diffusion": some(
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    ),
    "autoencoder": {"encoder." + n: t for n, t in DDPM.items()},
    "EDM code": some("model.enc.64x64_block0.conv0.weight", "model.dec.8x8_in0.conv0.weight"),
    "DiT": some("x_embedder.proj.weight", "blocks.0.adaLN_modulation.1.weight"),
    "lucidrains": some("model.init_conv.weight", "model.downs.0.0.block1.proj.weight"),
    "no layout that is known": some("a", "b", "c"),
}


@pytest.mark.parametrize(("says", "held"), UNSUPPORTED.items(), ids=UNSUPPORTED.keys())
def test_unsupported_formats(tmp_path, says, held):
    torch.save(held, tmp_path / "file.pt")
    sentence = refused(tmp_path / "file.pt")
    assert (
        says in sentence
        and "UNet2DModel folder" in sentence
        and "file.pt" in sentence
        and "\n" not in sentence
    )


class Anything:
    pass


def test_python_objects(tmp_path):
    torch.save({"state_dict": DDPM, "config": Anything()}, tmp_path / "object.pt")
    assert "Python objects (tests.checkpoints.test_refusals.Anything)" in refused(
        tmp_path / "object.pt"
    )
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
    whole = save({"a": torch.zeros(100)})
    (tmp_path / "file.safetensors").write_bytes(whole[:200])
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
    sentence = refused(tmp_path / "file.pt", LoadOptions("legacy", heads=4))
    assert (
        "middle_block.0.in_layers.0.weight" not in sentence.split("missing")[0]
        and "and 6 more" in sentence
    )


def test_conditional_and_unfinished_forms(tmp_path):
    torch.save(make_adm(Form(inputs=6, outputs=6)), tmp_path / "file.pt")
    assert "takes 6 channels and gives 6: a conditional network" in refused(tmp_path / "file.pt")
    torch.save(
        {
            n: t
            for n, t in make_adm(Form(residual=False)).items()
            if ".op." not in n and ".2.conv." not in n
        },
        tmp_path / "file.pt",
    )
    assert "conv_resample" in refused(tmp_path / "file.pt")
    torch.save({n: t for n, t in DDPM.items() if "downsample" not in n}, tmp_path / "file.pt")
    assert "resamp_with_conv" in refused(tmp_path / "file.pt")
    torch.save(ADM, tmp_path / "file.pt")
    assert "not both" in refused(tmp_path / "file.pt", LoadOptions(heads=4, head_channels=16))
    assert "divides" in refused(tmp_path / "file.pt", LoadOptions(heads=5))
    assert "knows no classes" in refused(
        tmp_path / "file.pt", LoadOptions("legacy", heads=4, label=1)
    )


def test_the_command_ends_with_a_sentence_and_status_2(tmp_path, capfd):
    torch.save(UNSUPPORTED["a LoRA"], tmp_path / "file.pt")
    with pytest.raises(SystemExit) as ended:
        main(["weights", "check", str(tmp_path / "file.pt")])
    said = capfd.readouterr().err
    assert ended.value.code == 2 and "a LoRA" in said and "Traceback" not in said


def test_the_content_is_looked_at_and_not_the_name(tmp_path):
    torch.save(DDPM, tmp_path / "torch.safetensors")
    save_file(DDPM, tmp_path / "safe.pt")
    save_file(DDPM, tmp_path / "safe.SAFETENSORS")
    for name in ("torch.safetensors", "safe.pt", "safe.SAFETENSORS"):
        assert load_prior(tmp_path / name).source["layout"] == "ddpm"
    ours = find_weights("denoise").read_bytes()
    (tmp_path / "ours.pt").write_bytes(ours)
    assert kind_of(tmp_path / "ours.pt") == "direct"
    (tmp_path / "page.safetensors").write_bytes(b"<!DOCTYPE html><html>404</html>")
    assert "web page" in refused(tmp_path / "page.safetensors")


def csr(t):
    rows = torch.zeros(t.shape[0] + 1).long()
    return torch.sparse_csr_tensor(rows, torch.zeros(0).long(), torch.zeros(0), size=t.shape)


UNUSABLE = {
    "stored as sparse_csr": csr,
    "larger than what is stored of it": lambda t: torch.zeros(1, dtype=torch.half).expand(t.shape),
    "on the device meta": lambda t: torch.empty(t.shape, device="meta"),
    "of type int64": lambda t: t.long(),
    "of type complex64": lambda t: t + 0j,
    "holds NaN or infinity": lambda t: t * torch.nan,
}


@pytest.mark.filterwarnings("ignore:Sparse ")
@pytest.mark.parametrize(("words", "spoil"), UNUSABLE.items(), ids=UNUSABLE.keys())
def test_tensors_that_are_not_plain_numbers(tmp_path, words, spoil):
    name = "temb.dense.0.weight"
    torch.save({**DDPM, name: spoil(DDPM[name])}, tmp_path / "file.ckpt")
    assert f"The tensor {name}" in refused(tmp_path / "file.ckpt")
    assert words in refused(tmp_path / "file.ckpt")
    torch.save({**DDPM, name: DDPM[name].double() * 1e300}, tmp_path / "file.ckpt")
    assert "NaN or infinity" in refused(tmp_path / "file.ckpt")


def test_containers_that_contain_each_other(tmp_path):
    """A few bytes that stand for a million paths, or for a tuple that takes years to hash."""
    held, key = {"w": torch.zeros(1)}, (1,)
    for _ in range(40):
        held, key = {"a": held, "b": held}, (key, key)
    deep: list = [DDPM]
    for _ in range(200):
        deep = [deep]
    torch.save(held, tmp_path / "file.pt")
    assert "no tensors by name" in refused(tmp_path / "file.pt")
    torch.save(deep, tmp_path / "file.pt")
    assert "no tensors by name" in refused(tmp_path / "file.pt")
    for new in (True, False):
        torch.save([key], tmp_path / "file.pt", _use_new_zipfile_serialization=new)
        assert "contain each other" in refused(tmp_path / "file.pt")


def test_files_that_grow_when_they_are_read(tmp_path):
    torch.save({"w": torch.zeros(3_000_000)}, tmp_path / "plain.pt")
    plain = zipfile.ZipFile(tmp_path / "plain.pt")
    packed = zipfile.ZipFile(tmp_path / "file.pt", "w", zipfile.ZIP_DEFLATED)
    with plain, packed:
        for record in plain.infolist():
            packed.writestr(record.filename, plain.read(record))
    assert "is compressed" in refused(tmp_path / "file.pt")


ADM_MARKS = {name: torch.zeros(4, 4, 3, 3) for name in adm.MARKS}


@pytest.mark.parametrize("number", ["999999999", "9" * 5000, "-1", "x", "1e9", ""])
def test_block_numbers_are_not_believed(tmp_path, number):
    for held in (
        {f"{side}_blocks.{number}.0.w": torch.zeros(1) for side in ("input", "output")} | ADM_MARKS,
        {f"down.{number}.block.{number}.conv1.weight": torch.zeros(1)} | DDPM,
    ):
        torch.save(held, tmp_path / "file.pt")
        assert len(refused(tmp_path / "file.pt")) < 2000


HEADER = {"kind": "prior", "domain": "noise", "size_px": 16, "fixed_size": False}
SETTINGS = {
    "channels": [16, 32], "layers": 1, "patch": 2, "attention": True, "norm": "group",
    "inputs": 3, "outputs": 3, "labels": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size_px": 50_000}, "50000 px a side"),
        ({"size_px": None, "fixed_size": True}, "but not which"),
        ({"size_px": "16"}, "impossible size_px"),
        ({"prediction": "x0"}, "predicts x0; networks of its kind predict flow"),
        ({"kind": ["prior"]}, "impossible kind"),
        ({"kind": "unheard"}, "kinds? 'unheard'"),
        ({"network": None}, "impossible network"),
        ({"domain": 3}, "impossible domain"),
        ({"eps": math.nan}, "impossible noise"),
        ({"network": {}}, "settings lack channels"),
        ({"network": SETTINGS | {"channels": [20_000] * 3}}, "channels ="),
        ({"network": SETTINGS | {"channels": [16] * 9}}, "channels ="),
        ({"network": SETTINGS | {"layers": 100_000}}, "layers = 100000"),
        ({"network": SETTINGS | {"layers": 500}}, "ask for 2002 residual blocks"),
        ({"network": SETTINGS | {"layers": 2}}, "missing: unet.down_blocks.0.resnets.1"),
        ({"network": SETTINGS | {"channels": [12, 32]}}, "channels must be multiples of 16"),
        ({"network": SETTINGS | {"novelty": 1}}, "setting unknown here, novelty"),
        ({"network": {"unet2d": {}}}, "do not go together"),
        ({"network": {"architecture": "residual", "layers": 1000}}, "missing: conv_in.weight|ask"),
    ],
)
def test_headers_of_ours_that_are_damaged(tmp_path, change, words):
    tensors = PatchUNet(SETTINGS).state_dict()
    save_weights(tmp_path / "f.safetensors", tensors, HEADER | {"network": SETTINGS} | change)
    with pytest.raises(CheckpointError, match=words) as error:
        load_prior(tmp_path / "f.safetensors")
    assert "f.safetensors" in str(error.value)


@pytest.mark.parametrize("text", ["{oops", "[1,2]", "5", "[" * 100_000, '{"kind": "prior"}'])
def test_headers_that_are_no_settings(tmp_path, text):
    save_file({"w": torch.zeros(1)}, tmp_path / "f.safetensors", metadata={"pristina": text})
    assert "f.safetensors" in refused(tmp_path / "f.safetensors")


def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    assert "not a file that can be read" in refused(tmp_path / "pipe.pt")
    assert "not a file that can be read" in refused("/dev/zero")
