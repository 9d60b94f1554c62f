"""Command ``pristina doctor``."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from pristina.cli.console import printable
from pristina.errors import SettingError

if TYPE_CHECKING:
    import torch

    from pristina.planning import Plan

EXTRAS = {
    "train": ("accelerate",),
    "bench": ("torchmetrics", "matplotlib", "skimage", "scipy", "jinja2"),
    "app": ("nicegui", "python_multipart"),
    "video": ("av",),
    "cluster": ("ray",),
    "perceptual": ("lpips", "torch_fidelity"),
}
DEFAULT_PX = 512
"""Side of the picture for which a plan is made when no size is given."""
STAND_IN = "blur:sigma=2 | noise:sigma=0.05"
"""Degradation that is assumed where a method needs one and none is given."""


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
        Weights that the method uses (default: those that suit the method).
    method
        Method whose cost is wanted: auto (the default), indi, mmse, diip, bird, ... If no option
        but --device is given, only the machine is described.
    operator
        Form of the degradation, for methods that need it.
    preset
        Named settings of the method, such as paper.
    size
        Size of the picture, as WIDTHxHEIGHT in pixels (default: the size at which the prior was
        trained, or 512x512).
    device
        auto (the default), cpu, cuda or mps.
    """
    from pristina.cli.show_plan import plan_lines
    from pristina.device import best_device

    where, shape = best_device(device), parse_size(size)
    lines = []
    if any(value is not None for value in (prior, method, operator, preset, size)):
        plan, remarks = plan_for(method or "auto", prior, operator, preset, shape, device)
        notes = (f"note: {note}" for note in plan.notes)
        lines = ["", *remarks, *plan_lines(plan), *notes]
    for name, value in machine(where).items():
        print(f"{name:10s} {value}")
    for line in lines:
        print(printable(line))


def plan_for(
    method: str,
    prior: str | None,
    operator: str | None,
    preset: str | None,
    size: tuple[int, int] | None,
    device: str,
) -> tuple[Plan, list[str]]:
    """Plan what ``restore`` would do to a colour picture of which only (height, width) is known.

    Without a form of the degradation that the method needs, a blur with noise stands in.

    Returns:
        The plan, and what was assumed for it, in sentences.
    """
    import torch

    from pristina.auto import method_for
    from pristina.image.picture import Picture
    from pristina.methods.index import method as entry_of
    from pristina.planning import DEFAULT_WEIGHTS, plan_request
    from pristina.priors.load import kind_of, load_weights
    from pristina.reading import check_readable
    from pristina.request import Request

    request = Request(method=method, prior=prior, recipe=operator, preset=preset, device=device)
    remarks = []
    if method == "auto":
        kind = "direct" if prior is None else kind_of(prior)
        if size is not None:
            check_readable(*size)
        most, noise = method_for(kind, []), method_for(kind, ["noise"])
        others = "" if noise == most else f", takes {noise} for noise alone,"
        others = ", takes deblur for blur that it can find," if prior is None else others
        remarks.append(
            "auto reads the damage: it leaves a picture alone that no repair would better"
            f"{others} and otherwise takes:"
        )
        request = replace(request, method=most)
    entry = entry_of(request.method)
    if operator is None and (entry.oracle or entry.operator == "required"):
        request = replace(request, recipe=STAND_IN)
        remarks.append(f"{method} needs the form of the degradation; assumed here: {STAND_IN}")
    source, weights = prior or DEFAULT_WEIGHTS.get(entry.prior), None
    if size is None:
        weights = None if source is None else load_weights(entry.prior, source)
        native = None if weights is None else weights.size_rule.native
        size = (native or DEFAULT_PX, native or DEFAULT_PX)
    colour = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1).expand(3, *size)
    plan = plan_request(Picture(colour), request, weights=weights)
    return replace(plan, weights_name=source), remarks


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
