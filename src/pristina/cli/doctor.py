"""``pristina doctor``: what this machine can do, and what a method would cost on it before it is started."""

from __future__ import annotations

import os
import platform
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pristina.errors import SettingError

if TYPE_CHECKING:
    import torch

    from pristina.priors.base import Prior

EXTRAS = {
    "train": ("accelerate",),
    "bench": ("torchmetrics", "matplotlib", "skimage", "scipy", "jinja2"),
    "perceptual": ("lpips", "torch_fidelity"),
}


def doctor(
    *, prior: str | None = None, method: str = "mmse", preset: str | None = None, size: str | None = None, device: str = "auto"
) -> None:
    """Say what runs on this machine and, for a prior, how long a method would take and how much memory, before it is started.

    Parameters
    ----------
    prior
        Weights to try: one network call is measured.
    method
        The method whose cost is wanted.
    preset
        Named settings of the method, such as paper; its defaults without.
    size
        Of the picture, as WIDTHxHEIGHT in pixels; the size that the prior was trained at without.
    device
        auto, cpu, cuda or mps.
    """
    from pristina.restoration import best_device

    where = best_device(device)
    for name, value in machine(where).items():
        print(f"{name:10s} {value}")
    if prior is None:
        return
    from pristina.methods.index import method as entry_of
    from pristina.priors.load import load_prior

    entry = entry_of(method)
    if entry.prior != "diffusion":
        raise SettingError(f"{method} uses no diffusion prior; doctor measures methods that do, such as mmse, diip or dps.")
    calls = network_calls(method, entry.preset(preset))
    loaded = load_prior(prior, device=where)
    width, height = working_size(size, loaded)
    print(f"\n{prior}: {sum(p.numel() for p in loaded.parameters()) / 1e6:.1f} million parameters; {loaded.domain}")
    measured = measure(loaded, height, width, backward=calls.backward > 0)
    print(
        f"one call at {width} x {height} px: {measured.forward_s:.3g} s"
        + (f", differentiated {measured.both_s:.3g} s" if calls.backward else "")
    )
    n_bytes = measured.peak_bytes + (calls.kept - 1) * measured.call_bytes
    at_most = "at most " if calls.may_stop else ""
    print(
        f"{method}: {at_most}{calls.forward} calls ({calls.backward} differentiated), {at_most}about {duration(measured.seconds(calls))} "
        f"and {n_bytes / 2**30:.1f} GiB of memory for one picture"
    )


def machine(device: torch.device) -> dict[str, str]:
    """What there is: versions, device, threads, extras, cache and shipped weights, in words."""
    from importlib.metadata import version
    from importlib.util import find_spec

    import torch

    from pristina.priors.checkpoints.fetch import cache_dir, offline
    from pristina.priors.load import shipped
    from pristina.priors.network import fast_dtype

    lacking = {extra: [p for p in packages if find_spec(p) is None] for extra, packages in EXTRAS.items()}
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0
    held = sum(f.stat().st_size for f in cache_dir().rglob("*") if f.is_file() and not f.is_symlink())
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    bf16 = "fast here, used" if fast_dtype(device) == torch.bfloat16 else "slow here, float32 is used"
    return {
        "pristina": version("pristina"),
        "python": f"{platform.python_version()}, torch {torch.__version__}, diffusers {version('diffusers')}",
        "device": f"{device} ({name}), {torch.get_num_threads()} threads" + (f", {ram:.0f} GiB of memory" if ram else ""),
        "bfloat16": bf16,
        "extras": "; ".join(f"{extra}: {'lacks ' + ', '.join(gone) if gone else 'installed'}" for extra, gone in lacking.items()),
        "cache": f"{cache_dir()} ({held / 2**20:.0f} MiB)" + (", connections switched off" if offline() else ""),
        "weights": ", ".join(shipped()) or "none shipped",
    }


@dataclass(frozen=True)
class Calls:
    """How often a method calls the network for one picture.

    Attributes:
        forward: All calls.
        backward: Those that are differentiated through.
        kept: Calls whose activations are in memory at the same time.
        may_stop: Whether it may stop earlier.
    """

    forward: int
    backward: int = 0
    kept: int = 1
    may_stop: bool = False


def network_calls(method: str, settings: Any) -> Calls:
    """The calls that a method's settings imply.

    Raises:
        SettingError: They are not known for this method.

    Example:
        >>> from pristina.methods.diip import DIIP
        >>> network_calls("diip", DIIP(iterations=9, sampler_steps=5, rule="none"))
        Calls(forward=50, backward=0, kept=1, may_stop=False)
    """
    if method == "mmse":
        return Calls(1)
    if method in ("diip", "bird", "invert2restore"):
        each, through = settings.sampler_steps, settings.gradient != "detached"
        rounds = settings.iterations + (not getattr(settings, "as_released", False))
        forward, backward = rounds * each, settings.iterations * each if through else 0
        if settings.gradient == "checkpointed":  # each call is made again on the way back
            forward += settings.iterations * each
        if getattr(settings, "start", "noise") == "inverse":
            forward += each * settings.refine
        may_stop = getattr(settings, "rule", "none") != "none"
        return Calls(forward, backward, each if settings.gradient == "full" else 1, may_stop)
    if method == "dreamclean":
        return Calls((2 + settings.renewals) * settings.levels)
    if method in ("dps", "blind_dps"):
        return Calls(settings.steps, settings.steps)
    if method in ("gdp", "diffpir", "ddrm"):
        return Calls(settings.steps)
    raise SettingError(f"How often {method} calls its network cannot be said beforehand; restore a small picture and see its record.")


def working_size(size: str | None, prior: Prior) -> tuple[int, int]:
    """Width and height at which ``prior`` would work for a picture of ``size``: its own side, or the next multiples.

    Raises:
        SettingError: ``size`` is not WIDTHxHEIGHT.
    """
    rule = prior.size_rule
    native = rule.native or rule.minimum
    found = re.fullmatch(r"(\d+)x(\d+)", size) if size else None
    if size and (found is None or min(int(found[1]), int(found[2])) < 1):
        raise SettingError(f"--size must be WIDTHxHEIGHT in pixels, such as 256x256; not {size!r}.")
    if found is None or rule.fixed:
        return native, native
    width, height = (max(rule.minimum, -(-int(side) // rule.multiple) * rule.multiple) for side in (found[1], found[2]))
    return width, height


@dataclass(frozen=True)
class Measured:
    """One network call: seconds without and with differentiation, what it adds to memory, and the peak."""

    forward_s: float
    both_s: float
    call_bytes: int
    peak_bytes: int

    def seconds(self, calls: Calls) -> float:
        """What all calls would take."""
        return (calls.forward - calls.backward) * self.forward_s + calls.backward * self.both_s


def measure(prior: Prior, height: int, width: int, backward: bool) -> Measured:
    """What one call of ``prior`` takes at this size, after a first small one that is not counted."""
    import torch

    from pristina.methods.base import peak_bytes

    def call(h: int, w: int, differentiate: bool) -> float:
        x = torch.zeros(1, prior.channels, h, w, device=prior.device, requires_grad=differentiate)
        begun = time.perf_counter()
        with torch.set_grad_enabled(differentiate):
            x0 = prior.predict(x, 500.0).x0
            if differentiate:
                torch.autograd.grad(x0.sum(), x)
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        return time.perf_counter() - begun

    small = prior.size_rule.native if prior.size_rule.fixed else None
    call(small or min(height, prior.size_rule.minimum), small or min(width, prior.size_rule.minimum), False)
    before = peak_bytes(prior.device)
    forward_s = call(height, width, False)
    both_s = call(height, width, True) if backward else 0.0
    after = peak_bytes(prior.device)
    return Measured(forward_s, both_s, after - before, after)


def duration(seconds: float) -> str:
    """Seconds in words: ``12 s``, ``3.5 min``, ``4.2 h``."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.2g} min" if seconds < 6000 else f"{seconds / 3600:.2g} h"
