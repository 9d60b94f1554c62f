"""Command ``pristina doctor``."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from pristina.errors import InputError, SettingError

if TYPE_CHECKING:
    import torch

    from pristina.planning import Plan

EXTRAS = {
    "train": ("accelerate",),
    "bench": ("torchmetrics", "matplotlib", "skimage", "scipy", "jinja2"),
    "perceptual": ("lpips", "torch_fidelity"),
}
DEFAULT_PX = 512
"""Side of the picture for which a plan is made when no size is given."""


def doctor(
    *,
    prior: str | None = None,
    method: str | None = None,
    operator: str | None = None,
    preset: str | None = None,
    size: str | None = None,
    device: str = "auto",
) -> None:
    """Show what this machine can do, and what a method would cost before it is started.

    Parameters
    ----------
    prior
        Weights to measure; those that suit the method without it.
    method
        Method whose cost is wanted: auto, indi, mmse, diip, bird, ...; without it and --prior only
        the machine is described.
    operator
        Form of the degradation, for methods that need it.
    preset
        Named settings of the method, such as paper; its defaults without.
    size
        Size of the picture, as WIDTHxHEIGHT in pixels; the size at which the prior was trained, or
        512x512, without.
    device
        auto, cpu, cuda or mps.
    """
    from pristina.cli.show_plan import plan_lines
    from pristina.planning import best_device

    where = best_device(device)
    for name, value in machine(where).items():
        print(f"{name:10s} {value}")
    if prior is None and method is None:
        return
    print()
    if method == "auto":
        print("auto chooses from the image statistics; most damage takes one network call of:")
        method = "indi"
    for line in plan_lines(plan_for(method, prior, operator, preset, parse_size(size), device)):
        print(line)


def plan_for(
    method: str | None,
    prior: str | None,
    operator: str | None,
    preset: str | None,
    size: tuple[int, int] | None,
    device: str,
) -> Plan:
    """Make a plan for a picture of which only the size, (height, width), is known.

    Without a method it is the cheapest that suits the weights; without a form of the degradation
    that the method needs, a blur with noise stands in.
    """
    from pristina.methods.index import method as entry_of
    from pristina.operators.recipe import Recipe
    from pristina.planning import DEFAULT_WEIGHTS, make_plan
    from pristina.priors.load import kind_of, load_weights
    from pristina.request import Request

    if method is None:
        kinds = {"direct": "indi", "conditional": "conditional_ddpm", "kernels": ""}
        method = kinds.get(kind_of(prior), "mmse")
        if not method:
            raise InputError(
                f"{prior} holds a prior of blur kernels; blind_dps uses it beside one."
            )
    entry = entry_of(method)
    if operator is None and entry.operator == "required":
        operator = "blur:sigma=2 | noise:sigma=0.05"
        print(f"{method} needs the form of the degradation; taken here: {operator}")
    request = Request(method=method, prior=prior, recipe=operator, preset=preset, device=device)
    form = None if operator is None else Recipe.parse(operator).form()
    source = prior or DEFAULT_WEIGHTS.get(entry.prior)
    weights = None
    if size is None:
        weights = None if source is None else load_weights(entry.prior, source)
        native = None if weights is None else weights.size_rule.native
        size = (native or DEFAULT_PX, native or DEFAULT_PX)
    made = make_plan(request, size, weights=weights, operator=form)
    return replace(made, weights_name=source)


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Read WIDTHxHEIGHT as (height, width).

    Raises:
        SettingError: The text is something else.
    """
    found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text) if text else None
    if text is not None and (found is None or min(int(found[1]), int(found[2])) < 1):
        raise SettingError(f"--size must be WIDTHxHEIGHT in pixels, such as 256x256; not {text!r}.")
    return None if found is None else (int(found[2]), int(found[1]))


def machine(device: torch.device) -> dict[str, str]:
    """Describe versions, device, threads, extras, cache and shipped weights in words."""
    from importlib.metadata import version
    from importlib.util import find_spec

    import torch

    from pristina.priors.checkpoints.fetch import cache_dir, offline
    from pristina.priors.load import shipped
    from pristina.priors.network import fast_dtype

    extras = []
    for extra, packages in EXTRAS.items():
        missing = [package for package in packages if find_spec(package) is None]
        extras.append(f"{extra}: {'lacks ' + ', '.join(missing) if missing else 'installed'}")
    ram = ""
    if hasattr(os, "sysconf"):
        n_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        ram = f", {n_bytes / 2**30:.0f} GiB of memory"
    files = (f for f in cache_dir().rglob("*") if f.is_file() and not f.is_symlink())
    cached = sum(f.stat().st_size for f in files) / 2**20
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else platform.machine()
    fast = fast_dtype(device) == torch.bfloat16
    return {
        "pristina": version("pristina"),
        "python": f"{platform.python_version()}, torch {torch.__version__}, "
        f"diffusers {version('diffusers')}",
        "device": f"{device} ({name}), {torch.get_num_threads()} threads{ram}",
        "bfloat16": "fast here, used" if fast else "slow here, float32 is used",
        "extras": "; ".join(extras),
        "cache": f"{cache_dir()} ({cached:.0f} MiB)"
        + (", connections switched off" if offline() else ""),
        "weights": ", ".join(shipped()) or "none shipped",
    }
