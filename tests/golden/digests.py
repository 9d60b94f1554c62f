"""Compute digests of what pristina computes, to show that a change leaves every number as it was.

A digest is the SHA-256 of the float32 bytes of a result. It stays the same only if no bit has
moved. Processors differ in the last bits, so every entry also holds mean, standard deviation and a
few values of the result, which ``test_golden.py`` compares within a tolerance on any machine.

Run from the root of the repository; name parts to compute only these::

    python -m tests.golden.digests --write before.json --arrays before-arrays
    python -m tests.golden.digests --check before.json --arrays before-arrays
    python -m tests.golden.digests --check before.json --part bird operators
    python -m tests.golden.digests --small --write tests/golden/small.json

Restorations go through ``pristina.restore``; what else is needed from inside the package is in
``seams.py`` and nowhere else. The table of restorations is in ``cases.py``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import pristina
from tests.golden import seams
from tests.golden.cases import CONDITIONAL, RESTORATIONS, Case, noise, normal, picture

Outputs = dict[str, Tensor]
"""The results of one computation by label; the main one is labelled with the empty string."""
Entry = dict[str, Any]
"""What a reference says of one result: digest, shape, mean, standard deviation, a few values."""

N_PIXELS = 5
MAX_SAVED_BYTES = 2**20
"""Larger results (the tensors of weight files) are not saved by ``--arrays``."""


def restore(case: Case) -> Outputs:
    """Restore an image; besides it, take the spread, what the operator does, and the calls."""
    done = pristina.restore(
        picture(case.image),
        method=case.method,
        prior=seams.conditional_prior() if case.prior == CONDITIONAL else case.prior,
        operator=case.operator,
        preset=case.preset,
        settings=case.settings or None,
        seed=case.seed,
        samples=case.samples,
        device="cpu",
    )
    outputs = {"": done.picture.pixels, "calls": torch.tensor(done.cost.network_calls)}
    if done.std is not None:
        outputs["std"] = done.std
    if done.operator is not None:
        probe = picture("clean-{}x{}".format(*seams.working_size(done)))[None]
        with torch.no_grad():
            outputs["operator"] = done.operator(probe.repeat(case.samples, 1, 1, 1))
    return outputs


WEIGHTS = ("blind", "denoise", "faces", "jpeg", "kernels", "mixed", "photos", "photos-blind", "x4")

RECIPES = (
    "blur:sigma=2",
    "blur:sigma=1.3,size=7,boundary=zero",
    "blur:sigma=1.3,size=7,boundary=circular",
    "blur:sigma=1.3,size=7,boundary=valid",
    "anisotropic:sigma_x=3,sigma_y=1,angle=30",
    "defocus:radius=3",
    "motion:size=15",
    "motion:size=15,intensity=0.9,seed=4",
    "motion:size=7 | motion:size=7",
    "kernel",
    "kernel:size=9,sigma=1.5",
    "kernel:size=9,parametrisation=network",
    "varying:size=9,rows=2,columns=3",
    "area:factor=4",
    "bicubic:factor=4",
    "antialias:factor=4",
    "antialias:factor=2,size=5,boundary=zero",
    "noise:sigma=0.05",
    "poisson:peak=50",
    "speckle",
    "jpeg:quality=20",
    "jpeg:quality=70,subsample=no,rounding=soft",
    "mask:box=10",
    "mask:drop=0.4",
    "mask:drop=0.4,seed=2",
    "grey",
    "grey:how=luma",
    "exposure:gain=0.5",
    "gamma:gamma=2",
    "haze",
    "haze:transmission=0.6,airlight=0.7,grid=3",
    "elastic",
    "elastic:amplitude_px=1.3,scale_px=4,extent_px=32,seed=1",
    "turbulence:size=15",
    "rain:density=0.02,length_px=6",
    "drops:count=4,radius_px=5",
    "radon:n_angles=30,size=32",
    "learned",
    "learned:width=4,depth=2,seed=1",
    "blur:sigma=1,size=5 | area:factor=2 | exposure:gain=0.8 | noise:sigma=0.1 | jpeg:quality=40",
    "grey | noise:sigma=0.1",
)


def apply_operator(recipe: str) -> Outputs:
    """Apply an operator, its acquisition, its start, its adjoint and the form of it."""
    x = torch.stack([picture("clean-32x32"), picture("dark-32x32").flip(-1)])
    operator = seams.build_operator(recipe, seed=5)
    with torch.no_grad():
        y = operator(x)
        outputs = {"": y, "initial": operator.initial(y)}
        outputs["degrade"] = operator.degrade(x, seams.random_source(11, len(x)))
    if operator.linear:
        outputs["adjoint"] = operator.adjoint(y)
    if recipe.split(":")[0] in ("rain", "drops") or recipe == "mask:drop=0.4":
        return outputs  # a form cannot hold places that are drawn
    form = seams.build_form(recipe)
    unknowns = [p for p in form.parameters() if p.requires_grad]
    outputs["form"] = form(x)
    if unknowns and outputs["form"].requires_grad:
        loss = (outputs["form"] - 0.9 * y).square().sum()
        gradients = torch.autograd.grad(loss, unknowns, materialize_grads=True)
        outputs["gradient"] = torch.cat([g.flatten() for g in gradients])
    return outputs


def read_file(suffix: str, mode: str) -> Outputs:
    """Read a picture file through ``restore``; also take a mask from it."""
    levels = (255 * picture("noisy-37x45")).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(levels).convert("L" if mode in ("L", "I;16") else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 201)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(levels[..., 0]))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"image{suffix}"
        image.save(path, exif=exif)
        done = pristina.restore(path, method="nothing", device="cpu").picture
        outputs = {"": done.pixels}
        if done.alpha is not None:
            outputs["alpha"] = done.alpha
        done.save(Path(folder) / "again.png")
        outputs["again"] = pristina.Picture.open(Path(folder) / "again.png").pixels
        if suffix == ".jpg":
            outputs["auto"] = pristina.restore(path, device="cpu").picture.pixels
        if mode == "L":
            outputs["mask"] = seams.build_operator(f"mask:file={path}", 0)(
                torch.ones(1, 3, *done.size)
            )
    return outputs


def load(name: str) -> Outputs:
    """Load shipped weights; take their tensors, whatever they are called, and a prediction."""
    prior = seams.load_weights(name)
    if prior.dtype != torch.float32:
        raise RuntimeError(f"{name} computes in {prior.dtype}; digests are taken in float32.")
    tensors = sorted(prior.state_dict().values(), key=lambda t: _sha256(_array(t)))
    outputs = {"tensors": torch.cat([t.flatten() for t in tensors])}
    if prior.channels == 1:
        x_t = noise(1, 1, 32, 32)
    elif hasattr(prior, "alpha_bar"):
        x_t = 0.5 * (2 * picture("clean-64x64")[None] - 1) + 0.75**0.5 * noise(1, 3, 64, 64)
    else:
        x_t = picture("blurred-61x47")[None]
    with torch.no_grad():
        predicted = prior.predict(x_t, 300.5 if hasattr(prior, "alpha_bar") else 0.7)
    if isinstance(predicted, Tensor):
        return {**outputs, "": predicted}
    return {**outputs, "": predicted.x0, "eps": predicted.eps}


def sample(prior: str, size: tuple[int, int], steps: int, **options: Any) -> Outputs:
    """Generate images from noise, and differentiate them."""
    z = noise(2, 3, *size, seed=1).requires_grad_()
    images = pristina.generate(pristina.load_prior(prior), z, steps, **options)
    (gradient,) = torch.autograd.grad(images.square().sum(), z)
    return {"": images, "gradient": gradient}


def invert(prior: str, name: str, steps: int, **options: Any) -> Outputs:
    """Invert the sampler at an image, and go back."""
    loaded = pristina.load_prior(prior)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Few steps leave a remainder, and the inverse says so.
        z = pristina.invert(loaded, picture(name)[None], steps, **options)
    return {"": z, "back": pristina.generate(loaded, z, steps)}


def compare_kernels() -> Outputs:
    """Compute the metrics of kernels of different sizes."""
    kernels = np.abs(normal(2, 9, 9)), np.abs(normal(2, 7, 7, seed=1))
    return seams.measure_kernels(*(torch.from_numpy(k.astype(np.float32)) for k in kernels))


def compare_images(size: str) -> Outputs:
    """Compute the metrics of two damaged images."""
    truth = picture(f"clean-{size}").expand(2, -1, -1, -1)
    return seams.measure_images(
        torch.stack([picture(f"{d}-{size}") for d in ("noisy", "blurred")]), truth
    )


@dataclass(frozen=True)
class Item:
    """A computation: its name, how to do it, and whether the test suite does it too."""

    name: str
    compute: Callable[[], Outputs]
    small: bool = False


def all_items() -> list[Item]:
    """List all that is computed; a name begins with its part and a slash."""
    items = [Item(case.name, partial(restore, case), case.small) for case in RESTORATIONS]
    items += [Item(f"operators/{text}", partial(apply_operator, text), True) for text in RECIPES]
    for suffix, mode in ((".png", "RGB"), (".png", "RGBA"), (".png", "L"), (".png", "I;16")):
        items += [Item(f"files/{mode}{suffix}", partial(read_file, suffix, mode), True)]
    items += [Item("files/RGB.jpg", partial(read_file, ".jpg", "RGB"))]
    items += [Item(f"weights/{name}", partial(load, name), True) for name in WEIGHTS]
    for prior, size in (("faces", (64, 64)), ("photos", (48, 40))):
        for gradient in ("detached", "checkpointed", "full"):
            for steps in (1, 3, 10):
                small = (prior, steps) == ("photos", 3)
                compute = partial(sample, prior, size, steps, gradient=gradient)
                items += [Item(f"sampler/generate/{prior}/{steps}/{gradient}", compute, small)]
        compute = partial(sample, prior, size, 5, clip=False)
        items += [Item(f"sampler/generate/{prior}/5/unclipped", compute)]
        name = "clean-{}x{}".format(*size)
        for steps, refine in ((10, 1), (10, 20), (3, 4)):
            compute = partial(invert, prior, name, steps, refine=refine)
            small = (prior, steps) == ("photos", 3)
            items += [Item(f"sampler/invert/{prior}/{steps}/refine={refine}", compute, small)]
    for size in ("64x64", "45x37"):
        items += [Item(f"metrics/{size}", partial(compare_images, size), True)]
    return [*items, Item("metrics/kernels", compare_kernels, True)]


PARTS = tuple(dict.fromkeys(item.name.split("/")[0] for item in all_items()))


# --------------------------------------------------------------------------- Digests and checks


@contextmanager
def reproducible() -> Iterator[None]:
    """Compute on one thread and in float32, where everything on a CPU is deterministic."""
    threads = torch.get_num_threads()
    with mock.patch(seams.FAST_DTYPE, return_value=torch.float32):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _array(value: Tensor) -> np.ndarray:
    return np.ascontiguousarray(value.detach().cpu().float().numpy())


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def describe(array: np.ndarray) -> Entry:
    """Describe a result by its digest and by plain numbers."""
    flat = array.astype(np.float64).ravel()
    places = np.linspace(0, flat.size - 1, N_PIXELS + 2)[1:-1].astype(int)
    return {
        "sha256": _sha256(array),
        "shape": list(array.shape),
        "mean": float(f"{flat.mean():.9g}"),
        "std": float(f"{flat.std():.9g}"),
        "pixels": [float(f"{v:.9g}") for v in flat[places]],
    }


def results(item: Item) -> dict[str, np.ndarray]:
    """Compute an item; its results by full name, such as ``metrics/64x64#psnr``."""
    return {
        f"{item.name}#{label}" if label else item.name: _array(value)
        for label, value in item.compute().items()
    }


def machine() -> dict[str, Any]:
    """Say what the digests depend on besides the code."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model")]
    return {
        "processor": " ".join([platform.machine(), *models[:2]]),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def compare(entry: Entry, expected: Entry) -> str:
    """Say how an entry differs from the expected one; the empty string if it does not."""
    if "error" in entry or "error" in expected:
        was, now = (e.get("error", "no error") for e in (expected, entry))
        return "" if was.partition(":")[0] == now.partition(":")[0] else f"{was} -> {now}"
    if entry["shape"] != expected["shape"]:
        return f"shape {expected['shape']} -> {entry['shape']}"
    if entry["sha256"] == expected["sha256"]:
        return ""
    return ", ".join(f"{key} {expected[key]} -> {entry[key]}" for key in ("mean", "std"))


def largest_difference(array: np.ndarray, folder: Path | None, name: str) -> str:
    """Say how far a result is from the saved one at most, if that was saved."""
    file = None if folder is None else _array_file(folder, name)
    if file is None or not file.is_file():
        return ""
    with np.load(file) as saved:
        if name not in saved or saved[name].shape != array.shape:
            return ""
        return f", largest difference {np.abs(saved[name] - array).max():.3g}"


def _array_file(folder: Path, name: str) -> Path:
    return folder / f"{name.split('/')[0]}.npz"


def save_arrays(folder: Path, found: Mapping[str, np.ndarray]) -> None:
    """Save results, one file for each part."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in dict.fromkeys(name.split("/")[0] for name in found):
        small = {n: a for n, a in found.items() if n.split("/")[0] == part}
        small = {n: a for n, a in small.items() if a.nbytes <= MAX_SAVED_BYTES}
        np.savez(_array_file(folder, part), **small)


def compute(items: Sequence[Item]) -> Iterator[tuple[str, np.ndarray | None, Entry]]:
    """Compute items one after the other, and print the progress; an exception becomes an entry."""
    begun = time.perf_counter()
    for i, item in enumerate(items, 1):
        before = time.perf_counter()
        try:
            found = results(item)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            print(f"{item.name} failed: {text}", flush=True)
            yield item.name, None, {"error": text}
            continue
        now = time.perf_counter()
        done = f"{i}/{len(items)}, {now - begun:.0f} s"
        print(f"[{done}] {item.name} ({now - before:.2f} s)", flush=True)
        for name, array in found.items():
            yield name, array, describe(array)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check digests; the exit status is 1 if something failed or differs."""
    parser = argparse.ArgumentParser(description="Take digests of what pristina computes.")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--small", action="store_true", help="only what the test suite computes")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", type=Path, metavar="FILE", help="write a reference (JSON)")
    what.add_argument("--check", type=Path, metavar="FILE", help="compare with a reference")
    parser.add_argument(
        "--arrays", type=Path, metavar="DIR", help="results: write, or compare with"
    )
    options = parser.parse_args(arguments)
    reference = json.loads(options.check.read_text("utf-8")) if options.check else None
    items = [item for item in all_items() if item.name.split("/")[0] in options.part]
    items = [item for item in items if item.small or not options.small]
    print(f"{pristina.__file__}: {len(items)} computations", flush=True)

    torch.use_deterministic_algorithms(True)  # also fills memory that was not initialised
    entries: dict[str, Entry] = {}
    arrays: dict[str, np.ndarray] = {}
    different: list[str] = []
    with reproducible():
        for name, array, entry in compute(items):
            entries[name] = entry
            if array is not None and options.write and options.arrays:
                arrays[name] = array
            if reference is not None:
                expected = reference["entries"].get(name)
                if expected is None:
                    text = entry.get("error", "not in the reference")
                else:
                    text = compare(entry, expected)
                if text and array is not None:
                    text += largest_difference(array, options.arrays, name)
                different += [f"{name}: {text}"] if text else []

    if reference is None:
        document = {"machine": machine(), "small": options.small, "entries": entries}
        options.write.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
        if options.arrays:
            save_arrays(options.arrays, arrays)
        failed = [f"{name}: {e['error']}" for name, e in entries.items() if "error" in e]
        print(*failed, f"{len(entries)} entries written, {len(failed)} failed.", sep="\n")
        return int(bool(failed))
    if reference["small"] or not options.small:  # otherwise the reference holds more on purpose
        parts = {item.name.split("/")[0] for item in items}
        failed = {name for name, entry in entries.items() if "error" in entry}
        lost = [n for n in reference["entries"] if n not in entries and n.split("/")[0] in parts]
        lost = [name for name in lost if name.partition("#")[0] not in failed]
        different += [f"{name}: not computed any more" for name in lost]
    if reference["machine"] != machine():
        print(f"The reference is of another machine: {reference['machine']}, not {machine()}.")
    print(*different, f"{len(entries)} entries compared, {len(different)} differ.", sep="\n")
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
