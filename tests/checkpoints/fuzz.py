"""Damaged and hostile checkpoints, drawn at random: each is loaded, or refused in a sentence.

``python -m tests.checkpoints.fuzz --n 2000`` loads that many, each in a process of its own with a
limit of time and memory, and counts the outcomes. It runs on any version of pristina.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import os
import random
import resource
import select
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from tests.checkpoints.reference import Form, make_adm, make_ddpm

TIME_S, MEMORY_BYTES = 20, 6 << 30
OURS = {
    "channels": [16, 32], "layers": 1, "patch": 2, "attention": True, "norm": "group",
    "inputs": 3, "outputs": 3, "labels": 2,
}  # fmt: skip
KINDS = {
    "prior": {"prediction": "flow"},
    "kernel-prior": {"prediction": "flow"},
    "indi": {"noise": "none", "eps": 0.0},
    "conditional": {"prediction": "x0"},
}
ODD = [
    None, True, False, 0, -1, 1, 2, 3, 1.5, 7, 33, 64, 1000, 20_000, 10**6, 10**9, 10**18, 10**40,
    -(10**9), 1e-300, 1e300, math.nan, math.inf, "", "zz", "\x1b[31m\n", "a" * 5000, [], [1], [0],
    [-1], [10**9], [32] * 3, [32] * 500, [[32], [64]], {}, {"a": {"a": {}}}, "fourier",
    "timestep", "UNet2DConditionModel", "AttnUpBlock2D", "CrossAttnDownBlock2D", "KDownBlock2D",
    "SkipUpBlock2D", "sample", "flow", "scale_shift", "resnet", ["DownBlock2D", "SkipDownBlock2D"],
]  # fmt: skip


def build_bases(folder: Path) -> dict[str, Path]:
    """Write one sound checkpoint of each form."""
    from pristina.priors.checkpoints.format import save_weights
    from pristina.priors.patch_unet import PatchUNet
    from pristina.priors.reader import ReaderNetwork
    from pristina.priors.residual import ResidualUNet

    bases = {}
    for kind, more in KINDS.items():
        settings = {**OURS, **({"inputs": 6} if kind == "conditional" else {})}
        if kind == "kernel-prior":
            settings |= {"inputs": 1, "outputs": 1}
        torch.manual_seed(0)
        network = PatchUNet(settings)
        header = {"kind": kind, "domain": "noise", "size_px": 16, "fixed_size": False, **more}
        bases[kind] = folder / f"{kind}.safetensors"
        save_weights(bases[kind], network.state_dict(), {**header, "network": settings})
    small = {"channels": [8, 16], "layers": 1, "patch": 2, "inputs": 3, "outputs": 1}
    newer: dict[str, tuple[type[nn.Module], dict[str, object], str]] = {
        "scratches": (ResidualUNet, {"architecture": "residual", **small}, "mask"),
        "operator": (
            ResidualUNet,
            {"architecture": "residual", **small, "inputs": 14, "outputs": 3},
            "x0",
        ),
        "reader": (
            ReaderNetwork,
            {"architecture": "reader", "channels": [8, 16], "hidden": 8},
            "damage",
        ),
    }
    for kind, (network_type, settings, predicts) in newer.items():
        header = {"kind": kind, "domain": "noise", "predicts": predicts, "network": settings}
        bases[kind] = folder / f"{kind}.safetensors"
        save_weights(bases[kind], network_type(settings).state_dict(), header)
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=16,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    unet.save_pretrained(folder / "pipe" / "unet")
    DDIMScheduler().save_pretrained(folder / "pipe" / "scheduler")
    bases["pipe"] = folder / "pipe"
    torch.save(make_ddpm(Form()), folder / "ddpm.ckpt")
    torch.save(make_adm(Form(widths=(64, 64), two_d=True, time=64)), folder / "edm.pt")
    torch.save(make_adm(Form(widths=(64,), attends=())), folder / "adm.pt")
    save_file(make_ddpm(Form()), folder / "foreign.safetensors")
    names = {
        "ddpm": "ddpm.ckpt",
        "edm": "edm.pt",
        "adm": "adm.pt",
        "foreign": "foreign.safetensors",
    }
    return bases | {name: folder / file for name, file in names.items()}


def change_json(held: dict, r: random.Random) -> None:
    """Replace, drop or add a value at a random place of settings."""
    place = held
    while True:
        inner = [v for v in place.values() if isinstance(v, dict) and v]
        if not inner or r.random() < 0.4:
            break
        place = r.choice(inner)
    key = r.choice(list(place))
    if r.random() < 0.15:
        del place[key]
    elif r.random() < 0.1:
        place[f"x{key}"] = r.choice(ODD)
    elif isinstance(place[key], list) and place[key] and r.random() < 0.5:
        place[key][r.randrange(len(place[key]))] = r.choice(ODD)
    else:
        place[key] = r.choice(ODD)


def odd_tensor(t: torch.Tensor, r: random.Random) -> torch.Tensor:
    """Make something of a tensor that no network holds."""
    shape = list(t.shape) or [1]
    makers = [
        lambda: t.new_full(shape, math.nan),
        lambda: t.new_full(shape, math.inf),
        lambda: t.new_full(shape, torch.finfo(t.dtype).max),
        lambda: t.double() * 1e300,
        lambda: t.to(r.choice([torch.int64, torch.bool, torch.uint8, torch.complex64])),
        lambda: t.to(torch.float8_e4m3fn),
        lambda: t.new_zeros(()),
        lambda: t.new_zeros([0, *shape[1:]]),
        lambda: t.new_zeros([*shape, 1]),
        lambda: t.new_zeros(r.choice([1, 3, 31]), *shape[1:]),
        lambda: t.new_zeros(1).expand([*shape[:-1], 10**7]),
        lambda: t.new_zeros(1).expand(shape),
        lambda: t.new_zeros(10**9, 0),
        lambda: torch.empty(shape, device="meta"),
        lambda: torch.sparse_coo_tensor(torch.zeros(len(shape), 1).long(), torch.ones(1), shape),
        lambda: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
        lambda: torch.nn.Parameter(t.float()),
    ]
    return r.choice(makers)()


def change_tensors(held: dict, r: random.Random, plain: bool) -> None:
    """Drop, rename, copy or spoil a tensor; only what safetensors can hold if ``plain``."""
    name = r.choice(list(held))
    what = r.randrange(7)
    if what == 0:
        del held[name]
    elif what == 1:
        parts = name.split(".")
        i = r.randrange(len(parts))
        parts[i] = str(r.choice([0, 1, 2, 5, 17, 10**9, "9" * 30, "x", "", "\x1b["]))
        held[".".join(parts)] = held[name].clone()
    elif what == 2:
        other = r.choice(list(held))
        held[name], held[other] = held[other].clone(), held[name].clone()
    else:
        odd = odd_tensor(held[name], r)
        if plain and (type(odd) is not torch.Tensor or odd.layout != torch.strided):
            return
        if plain and (odd.is_meta or odd.is_quantized or odd.is_complex()):
            return
        held[name] = odd.contiguous() if plain and odd.numel() < 10**6 else odd
        if plain and held[name].numel() >= 10**6:
            held[name] = torch.zeros(3)


def wrap(held: dict, r: random.Random) -> object:
    """Put tensors into the containers of training scripts, or into hostile ones."""
    what = r.randrange(10)
    if what == 0:
        return {"state_dict": held, "epoch": 3}
    if what == 1:
        return [held, {"x": torch.zeros(1)}, 7]
    if what == 2:
        prefix = r.choice(["module.", "_orig_mod.", "model.module.", "ema_model.", "zz."])
        return {prefix + name: t for name, t in held.items()}
    if what == 3:
        nested: object = held
        for _ in range(r.choice([3, 30, 300])):
            nested = {"a": nested, "b": nested} if r.random() < 0.7 else [nested, nested]
        return nested
    if what == 4:
        return {**held, 3: torch.zeros(1), ("a", 1): torch.zeros(1), "list": [[[]]]}
    return held


def spoil_bytes(path: Path, r: random.Random) -> None:
    """Cut a file, or change some of its bytes."""
    data = bytearray(path.read_bytes())
    what = r.randrange(4)
    if what == 0:
        data = data[: r.randrange(len(data) + 1)]
    elif what == 1:
        for _ in range(r.choice([1, 3, 30])):
            data[r.randrange(min(len(data), r.choice([16, 2000, len(data)])))] = r.randrange(256)
    elif what == 2:
        data = data[: r.randrange(64)] + data[r.randrange(64, 200) :]
    else:
        start = [b"<html>", b"version https://git-lfs", b"PK", b"\x80\x02", b"{", bytes(8) + b"{"]
        data = bytearray(r.choice(start)) + data[: r.randrange(300)]
    path.write_bytes(bytes(data))


def make_case(bases: dict[str, Path], seed: int, folder: Path) -> tuple[str, Path]:
    """Write the checkpoint of a seed into an empty folder, and return its form and path."""
    r = random.Random(seed)
    form = r.choice(list(bases))
    base = bases[form]
    path = folder / base.name
    if form == "pipe":
        shutil.copytree(base, path)
        config, scheduler = path / "unet/config.json", path / "scheduler/scheduler_config.json"
        weights = path / "unet/diffusion_pytorch_model.safetensors"
        for _ in range(r.choice([1, 1, 2])):
            target = r.choice([config, config, scheduler, weights])
            if target == weights:
                held = load_file(weights)
                change_tensors(held, r, plain=False)
                weights.unlink()
                torch.save(wrap(held, r), weights.with_suffix(".bin"))
                break
            held = json.loads(target.read_text())
            change_json(held, r)
            target.write_text(json.dumps(held))
        if r.random() < 0.1:
            spoil_bytes(r.choice([config, scheduler]), r)
        return form, path / r.choice([".", "unet"])
    if base.suffix == ".safetensors":
        with safe_open(base, framework="np") as file:
            metadata = file.metadata()
        held = load_file(base)
        if metadata and r.random() < 0.6:
            header = json.loads(metadata["pristina"])
            for _ in range(r.choice([1, 1, 2, 4])):
                change_json(header, r)
            text = json.dumps(header)
            text = text[: r.randrange(len(text))] if r.random() < 0.05 else text
            metadata = {"pristina": text}
        else:
            change_tensors(held, r, plain=True)
        save_file(held, path, metadata=metadata)
    else:
        held = torch.load(base, weights_only=True)
        for _ in range(r.choice([0, 1, 1, 3])):
            change_tensors(held, r, plain=False)
        torch.save(wrap(held, r), path, _use_new_zipfile_serialization=r.random() < 0.8)
    if r.random() < 0.15:
        spoil_bytes(path, r)
    return form, path


def outcome(form: str, path: Path) -> str:
    """Load a checkpoint and call it once, and tell in a word how it ended."""
    from pristina.errors import PristinaError
    from pristina.priors.load import load_weights, try_images

    kinds = {"indi": "direct", "kernel-prior": "kernels"}
    kinds |= {kind: kind for kind in ("conditional", "operator", "scratches", "reader")}
    try:
        prior = load_weights(kinds.get(form, "diffusion"), path, dtype=torch.float32)
    except PristinaError as error:
        text = str(error)
        assert text.strip() and len(text) < 3000, text
        return "sentence"
    except Exception as error:
        return f"traceback {type(error).__name__}"
    rule = prior.size_rule
    px = rule.native if rule.fixed else max(rule.minimum, 16)
    if px > 512:
        return "loads, but its size cannot be had"
    x = torch.randn(1, prior.channels, px, px, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            found = try_images(prior, x.sigmoid())
    except Exception as error:
        return f"loads, then traceback {type(error).__name__}"
    return "runs" if bool(found.isfinite().all()) else "loads, then NaN"


def work_off(bases: dict[str, Path], seeds: range, folder: Path, writing: int) -> None:
    """Write the outcome of one seed after the other into a pipe."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    warnings.simplefilter("ignore")
    for seed in seeds:
        case = folder / str(seed)
        case.mkdir()
        form = "?"
        try:
            form, path = make_case(bases, seed, case)
            word = outcome(form, path)
        except BaseException as error:
            word = f"traceback {type(error).__name__}"
        os.write(writing, f"{seed} {form} {word[:100]}\n".encode())
        shutil.rmtree(case)


def outcomes(bases: dict[str, Path], seeds: range, folder: Path) -> Iterator[tuple[int, str, str]]:
    """Load the checkpoints of many seeds in a process that may hang or crash.

    Yields:
        The seed, the form and how it ended.
    """
    seed = seeds.start
    while seed < seeds.stop:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            work_off(bases, range(seed, seeds.stop), folder, writing)
            os._exit(0)
        os.close(writing)
        text = b""
        while seed < seeds.stop:
            ready = select.select([reading], [], [], TIME_S)[0]
            some = os.read(reading, 1 << 16) if ready else b""
            if not some:
                yield seed, "?", "crash" if ready else "hang"
                seed += 1
                break
            *lines, text = (text + some).split(b"\n")
            for line in lines:
                number, form, word = line.decode().split(" ", 2)
                yield int(number), form, word
                seed = int(number) + 1
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)


def main() -> None:
    """Count the outcomes of many checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as place:
        bases = build_bases(Path(place))
        folder = Path(place) / "cases"
        folder.mkdir()
        for seed, form, word in outcomes(bases, range(asked.first, asked.first + asked.n), folder):
            counts[word] += 1
            if word not in ("sentence", "runs"):
                print(seed, form, word, flush=True)
    for word, n in counts.most_common():
        print(f"{n:6d} {word}")


if __name__ == "__main__":
    main()
