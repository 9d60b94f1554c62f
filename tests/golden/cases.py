"""The inputs of the digests: damaged images, and the restorations of which digests are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from skimage import data
from torch import Tensor


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Draw standard normal numbers from NumPy's legacy generator, whose stream is frozen."""
    return np.random.RandomState(seed).standard_normal(shape)


@cache
def _astronaut() -> np.ndarray:
    return data.astronaut().astype(np.float64) / 255


def scene(height: int, width: int) -> np.ndarray:
    """Reduce a part of scikit-image's astronaut by means of 4 x 4 pixels, (3, height, width)."""
    pixels = _astronaut()[: 4 * height, 96 : 96 + 4 * width]
    return pixels.reshape(height, 4, width, 4, 3).mean((1, 3)).transpose(2, 0, 1)


def blur(x: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve with a Gaussian, the border mirrored."""
    radius = int(4 * sigma)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    for axis in (1, 2):
        pad = [(radius, radius) if i == axis else (0, 0) for i in range(3)]
        padded, n = np.pad(x, pad, mode="reflect"), x.shape[axis]
        shifted = (padded.take(range(i, i + n), axis) for i in range(len(weights)))
        x = sum(w * s for w, s in zip(weights / weights.sum(), shifted, strict=True))
    return x


def blocks(x: np.ndarray) -> np.ndarray:
    """Flatten blocks of 8 x 8 pixels as strong JPEG compression does; the rest stays as it is."""
    x, height, width = x.copy(), x.shape[1] // 8 * 8, x.shape[2] // 8 * 8
    cells = x[:, :height, :width].reshape(3, height // 8, 8, width // 8, 8)
    cells = 0.3 * cells + 0.7 * cells.mean((2, 4), keepdims=True)
    x[:, :height, :width] = cells.reshape(3, height, width)
    return x


def hole(x: np.ndarray) -> np.ndarray:
    """Black out a square of 16 pixels in the middle."""
    x, top, left = x.copy(), (x.shape[1] - 16) // 2, (x.shape[2] - 16) // 2
    x[:, top : top + 16, left : left + 16] = 0
    return x


DAMAGE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "clean": lambda x: x,
    "noisy": lambda x: x + 0.1 * normal(*x.shape),
    "blurred": lambda x: blur(x, 1.5) + 0.03 * normal(*x.shape),
    "soft": lambda x: blur(x, 1.2),
    "dark": lambda x: 0.4 * x + 0.01 * normal(*x.shape),
    "blocky": blocks,
    "worn": lambda x: blocks(x) + 0.05 * normal(*x.shape),
    "hole": lambda x: hole(x + 0.03 * normal(*x.shape)),
    "grey": lambda x: x.mean(0, keepdims=True) + 0.05 * normal(1, *x.shape[1:]),
}


def picture(name: str) -> Tensor:
    """Make the image that a name such as ``noisy-48x40`` (height x width) stands for."""
    damage, _, size = name.partition("-")
    pixels = DAMAGE[damage](scene(*map(int, size.split("x"))))
    return torch.from_numpy(pixels.clip(0, 1).astype(np.float32))


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Draw standard normal numbers as float32."""
    return torch.from_numpy(normal(*shape, seed=seed).astype(np.float32))


CONDITIONAL = "(conditional)"
"""Stands in the table for the network of :func:`tests.golden.seams.conditional_prior`."""


@dataclass(frozen=True)
class Case:
    """A call of ``pristina.restore``.

    Attributes:
        method: Name of the method.
        image: Name of the damaged image, see :func:`picture`.
        prior: Shipped name, :data:`CONDITIONAL`, or None for the method's own choice.
        operator: Recipe, if the method is given one.
        preset: Name of the preset.
        settings: What differs from the preset.
        samples: How many restorations to draw.
        seed: Random seed.
        small: Whether the test suite computes it too.
    """

    method: str
    image: str
    prior: str | None = None
    operator: str | None = None
    preset: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 1
    seed: int = 3
    small: bool = False

    @property
    def name(self) -> str:
        """The method, then all that distinguishes the case."""
        words = [self.method, self.prior or "default", self.image, self.preset, self.operator]
        words += [f"{key}={value}" for key, value in self.settings.items()]
        words += [f"samples={self.samples}"] if self.samples > 1 else []
        return "/".join(word for word in words if word)


def over(places: Sequence[tuple[str, str]], method: str, damage: str, **fields: Any) -> list[Case]:
    """Repeat a case over pairs of prior and size; only the last pair can be ``small``."""
    small = fields.pop("small", False)
    last = len(places) - 1
    return [
        Case(method, f"{damage}-{size}", prior, small=small and i == last, **fields)
        for i, (prior, size) in enumerate(places)
    ]


BLIND = (("faces", "64x64"), ("faces", "70x66"), ("photos", "45x37"), ("photos", "48x40"))
"""Pairs of prior and size where no operator is given, so that the image is fitted to the prior."""
INFORMED = (("faces", "64x64"), ("photos", "56x64"), ("photos", "48x40"))
"""Pairs of prior and size where an operator is given."""
FACES, PHOTOS = (("faces", "64x64"),), (("photos", "48x40"),)
BLUR = "blur:sigma=1.5 | noise:sigma=0.03"
ASTRAY = "kernel:size=9,parametrisation=network"
"""Its kernel leaves the middle within a few iterations, and is brought back at the end."""
FEWEST = {"iterations": 3, "sampler_steps": 3}
FREE = "kernel:size=9 | noise:sigma=0.03"
LITTLE = {
    "daps": {"langevin": 5},
    "sitcom": {"iterations": 4},
    "dmplug": {"iterations": 3},
    "na_nhmc": {"trajectories": 3, "leapfrog": 2, "warm_up": 1},
}
"""What makes a method with an inner loop quick."""
HOLE = "mask:box=16 | noise:sigma=0.03"


def single_call_cases() -> Iterator[Case]:
    """List the restorations by one network call or none."""
    yield Case("nothing", "clean-45x37", small=True)
    yield Case("nothing", "grey-45x37")

    yield from over(BLIND, "mmse", "noisy", small=True)
    yield from over(FACES + PHOTOS, "mmse", "grey")
    yield Case("mmse", "noisy-64x64")
    yield from over(BLIND, "mmse", "noisy", settings={"sigma": 0.08})
    yield Case("mmse", "clean-32x32", "faces", "bicubic:factor=2")
    yield Case("mmse", "clean-24x20", "photos", "area:factor=2")


def diip_cases() -> Iterator[Case]:
    """List the restorations by DIIP: each rule, each gradient."""
    few = {"iterations": 4}
    yield from over(FACES, "diip", "blurred")
    yield from over(BLIND, "diip", "noisy", settings=few)
    yield from over(PHOTOS, "diip", "noisy", settings=FEWEST, small=True)
    yield from over(BLIND, "diip", "noisy", preset="paper", settings={"iterations": 8})
    rules = {"iterations": 24, "k_min": 4, "warm_up": 2, "patience": 1, "smoothing": 2}
    for rule in ("first", "slope", "laplacian", "none"):
        for damage in ("noisy", "blurred"):
            yield from over(PHOTOS, "diip", damage, settings={**rules, "rule": rule})
    for gradient in ("checkpointed", "full"):
        yield from over(FACES, "diip", "noisy", settings={"iterations": 3, "gradient": gradient})
    yield from over(PHOTOS, "diip", "noisy", settings={**few, "sphere": False})
    yield from over(PHOTOS, "diip", "noisy", settings=FEWEST, samples=2, small=True)
    yield Case("diip", "clean-24x20", "photos", "bicubic:factor=2", settings=few)


def bird_cases() -> Iterator[Case]:
    """List the restorations by BIRD: each choice, and every family of operators."""
    few = {"iterations": 6}
    yield from over(FACES, "bird", "blurred", operator=BLUR)
    yield from over(BLIND, "bird", "noisy", settings=few)
    for recipe in (BLUR, FREE):
        yield from over(INFORMED, "bird", "blurred", operator=recipe, settings=few)
        yield from over(PHOTOS, "bird", "blurred", operator=recipe, settings=FEWEST, small=True)
    for change in (
        {"residual": "marginalised"},
        {"average": 3},
        {"sphere": False},
        {"gradient": "full"},
        {"gradient": "checkpointed"},
    ):
        yield from over(PHOTOS, "bird", "blurred", operator=FREE, settings={**few, **change})
    yield from over(PHOTOS, "bird", "blurred", operator=FREE, settings=few, samples=2)
    for method in ("bird", "invert2restore"):
        for centre in (True, False):
            change = {**few, "operator_learning_rate": 0.02, "centre": centre}
            yield from over(PHOTOS, method, "blurred", operator=ASTRAY, settings=change)
    for damage, recipe in (
        ("blurred", "anisotropic:sigma_x=2,sigma_y=1,size=11 | noise:sigma=0.03"),
        ("blurred", "defocus:radius=2,size=9"),
        ("blurred", "motion:size=9"),
        ("blurred", "kernel:size=9,parametrisation=network"),
        ("blurred", "varying:size=7"),
        ("hole", HOLE),
        ("dark", "exposure:gain=0.5"),
        ("dark", "gamma:gamma=2"),
        ("blurred", "haze"),
        ("blurred", "elastic:extent_px=64"),
        ("blurred", "turbulence:size=9,extent_px=64"),
        ("blocky", "jpeg:quality=20"),
        ("grey", "grey"),
        ("blurred", "learned"),
        ("noisy", "blur:sigma=1,size=9 | exposure:gain=0.9 | speckle | jpeg:quality=50"),
    ):
        yield from over(PHOTOS, "bird", damage, operator=recipe, settings=few)
    for recipe in ("area:factor=2", "bicubic:factor=2", "antialias:factor=2"):
        yield Case("bird", "clean-24x20", "photos", recipe, settings=few)


def released_bird_cases() -> Iterator[Case]:
    """List the restorations by BIRD as released; its result is that of the tenth iteration."""
    released = {"iterations": 12}
    for preset, damage, recipe in (
        ("as_released", "blurred", "kernel:size=9,parametrisation=network,boundary=zero"),
        ("as_released_denoising", "noisy", None),
        ("as_released_inpainting", "hole", "mask:box=16"),
        ("as_released_non_uniform", "blurred", "varying:size=9"),
    ):
        fields = {"operator": recipe, "preset": preset, "settings": released}
        yield from over(INFORMED, "bird", damage, **fields)
    for image, prior in (("clean-32x32", "faces"), ("clean-24x20", "photos")):
        preset = "as_released_super_resolution"
        yield Case("bird", image, prior, "bicubic:factor=2", preset, released)


def invert2restore_cases() -> Iterator[Case]:
    """List the restorations by Invert2Restore: each start, each rung of the rectifier."""
    method, few = "invert2restore", {"iterations": 6}
    yield from over(FACES, method, "blurred", operator=BLUR)
    yield from over(BLIND, method, "noisy", settings=few)
    yield from over(INFORMED, method, "blurred", operator=BLUR, settings=few)
    yield from over(PHOTOS, method, "blurred", operator=BLUR, settings=FEWEST, small=True)
    yield from over(BLIND, method, "noisy", preset="designed")
    yield from over(PHOTOS, method, "blurred", operator=BLUR, preset="designed")
    full = {"preset": "full", "settings": {"iterations": 25}}
    yield from over(BLIND, method, "noisy", **full)
    yield from over(PHOTOS, method, "blurred", operator=FREE, **full)
    for rung in ("none", "norm", "scale", "standardise", "whiten", "noise"):
        change = {**few, "start": "inverse", "refine": 3, "rectifier": rung, "every": 2}
        for place, damage in ((PHOTOS, "blurred"), (INFORMED[1:2], "blocky")):
            yield from over(place, method, damage, operator=FREE, settings=change)


def dip_cases() -> Iterator[Case]:
    """List the restorations by DIP: each rule to stop by."""
    narrow = {"channels": 16, "scales": 3}
    yield Case("dip", "noisy-64x64", settings={"iterations": 60})
    yield Case("dip", "blurred-48x40", operator=BLUR, settings={"iterations": 8})
    yield Case("dip", "noisy-45x37", settings=narrow)  # until the rule stops it
    yield Case("dip", "noisy-64x64", preset="paper", settings={"iterations": 6})
    yield Case("dip", "blurred-70x66", operator=BLUR, preset="paper", settings={"iterations": 6})
    for change in (
        {"stop": "emv", "window": 4, "patience": 2},
        {"stop": "diip", "window": 4, "patience": 2, "warm_up": 4},
        {"stop": "iterations"},
        {"blind": True},
        {"jitter": 0.0, "average": 0.0},
        {"backtrack_db": 0.01},
    ):
        settings = {**narrow, "iterations": 40, **change}
        yield Case("dip", "blurred-48x40", operator=FREE, settings=settings)
    # With larger steps the last bits of a processor would grow beyond the tolerance of the test.
    few = {**narrow, "iterations": 4, "learning_rate": 0.001}
    yield Case("dip", "noisy-48x40", settings=few, small=True)
    yield Case("dip", "noisy-48x40", settings=few, samples=2)


def dreamclean_cases() -> Iterator[Case]:
    """List the restorations by DreamClean."""
    yield from over(BLIND, "dreamclean", "noisy")
    for change in ({"gamma": 0.0}, {"renewals": 2, "levels": 4}, {"tau": 200.0}):
        yield from over(PHOTOS, "dreamclean", "noisy", settings=change)
    yield from over(PHOTOS, "dreamclean", "noisy", settings={"levels": 3}, small=True)
    yield Case("dreamclean", "clean-24x20", "photos", "bicubic:factor=2")


def guided_cases() -> Iterator[Case]:
    """List the restorations by GDP and DPS."""
    yield from over(BLIND, "gdp", "dark")
    yield from over(BLIND, "gdp", "dark", preset="light")
    yield from over(BLIND, "gdp", "dark", preset="paper", settings={"steps": 100})
    yield from over(INFORMED, "gdp", "blurred", operator=BLUR)
    yield from over(PHOTOS, "gdp", "blurred", operator=BLUR, settings={"guide": "xt"})
    few = {"steps": 8}
    yield from over(PHOTOS, "gdp", "dark", operator="exposure:gain=0.5", settings=few)
    yield from over(PHOTOS, "gdp", "dark", settings=few, small=True)

    few = {"steps": 40}
    yield from over(INFORMED, "dps", "blurred", operator=BLUR)
    yield from over(INFORMED, "dps", "blurred", operator=BLUR, preset="paper", settings=few)
    yield from over(PHOTOS, "dps", "blurred", operator=BLUR, settings={"steps": 5}, small=True)
    for damage, recipe in (
        ("blocky", "jpeg:quality=30,rounding=soft | noise:sigma=0.02"),
        ("hole", "mask:drop=0.4,seed=1 | noise:sigma=0.03"),
        ("dark", "gamma:gamma=2"),
    ):
        yield from over(PHOTOS, "dps", damage, operator=recipe, settings={"steps": 10})


def spectral_cases() -> Iterator[Case]:
    """List the restorations by DiffPIR and DDRM, which must know operator and noise."""
    circular = "blur:sigma=1.5,boundary=circular | noise:sigma=0.03"
    changes = {
        "diffpir": ({"spread": 0.3}, {"zeta": 0.2, "cg_iterations": 4}),
        "ddrm": ({"eta": 0.3, "eta_b": 0.5}, {"threshold": 0.2}),
    }
    for method in ("diffpir", "ddrm"):
        yield from over(INFORMED, method, "noisy", operator="noise:sigma=0.1")
        yield from over(INFORMED, method, "blurred", operator=BLUR)
        yield from over(PHOTOS, method, "blurred", operator=BLUR, settings={"steps": 4}, small=True)
        for change in changes[method]:
            yield from over(PHOTOS, method, "blurred", operator=BLUR, settings=change)
        yield from over(INFORMED, method, "hole", operator=HOLE)
        yield from over(PHOTOS, method, "blurred", operator=circular)
        yield Case(method, "clean-24x20", "photos", "area:factor=2 | noise:sigma=0.02")
    # DDRM has no singular value decomposition of these.
    yield Case("diffpir", "clean-24x20", "photos", "bicubic:factor=2 | noise:sigma=0.02")
    yield from over(PHOTOS, "diffpir", "grey", operator="grey | noise:sigma=0.05")
    yield from over(INFORMED, "diffpir", "blurred", operator=BLUR, preset="paper")


def flow_cases() -> Iterator[Case]:
    """List the restorations by the methods of 2023 to 2026, and by Deblur."""
    for method in ("flower", "pnp_flow"):
        few = {"steps": 4}
        yield from over(INFORMED, method, "blurred", operator=BLUR, settings=few)
        yield from over(PHOTOS, method, "hole", operator=HOLE, settings=few, small=True)
    for method in ("pigdm", "red_diff", "ddnm", "daps", "sitcom", "fast_dips", "refit"):
        few = {"steps": 4} | LITTLE.get(method, {})
        yield from over(INFORMED, method, "blurred", operator=BLUR, settings=few)
        yield from over(PHOTOS, method, "hole", operator=HOLE, settings=few, small=True)
    for method in ("dmplug", "na_nhmc"):
        few = LITTLE[method]
        yield from over(INFORMED, method, "blurred", operator=BLUR, settings=few)
        yield from over(PHOTOS, method, "hole", operator=HOLE, settings=few, small=True)
    yield from over(PHOTOS, "refit", "blurred", operator=FREE, settings={"steps": 4}, small=True)
    yield Case("deblur", "blurred-61x47", "reconstruct", BLUR, small=True)
    yield Case("reconstruct", "blurred-61x47", "reconstruct", HOLE, small=True)


def kernel_cases() -> Iterator[Case]:
    """List the restorations by GibbsDDRM and BlindDPS, which find a kernel."""
    method, kernel = "gibbs_ddrm", "kernel:size=17 | noise:sigma=0.03"
    yield from over(INFORMED, method, "blurred", operator=kernel)
    for change in ({"sigma": "estimated"}, {"turns": 2, "langevin": 3}, {"kernel_px": 9}):
        settings = {"steps": 20, **change}
        yield from over(PHOTOS, method, "blurred", operator=kernel, settings=settings)
    yield from over(PHOTOS, method, "blurred", operator=kernel, settings={"steps": 6}, small=True)

    method, few = "fast_diffusion_em", {"steps": 4}
    yield from over(PHOTOS, method, "blurred", operator=kernel, settings=few, small=True)
    yield from over(INFORMED, method, "blurred", operator=kernel, settings={"steps": 10})

    method, kernel = "blind_dps", "kernel:size=31 | noise:sigma=0.03"
    yield from over(FACES, method, "blurred", operator=kernel)
    yield from over(INFORMED, method, "blurred", operator=kernel, settings={"steps": 20})
    yield from over(PHOTOS, method, "blurred", operator=kernel, settings={"steps": 4}, small=True)
    uniform = {"steps": 10, "kernel_prior": None, "kernel_px": 9}
    yield from over(PHOTOS, method, "blurred", operator=kernel, settings=uniform)


def indi_cases() -> Iterator[Case]:
    """List the restorations by InDI: each weight file, grid, update and noise."""
    for name in ("photos-blind", "denoise", "jpeg", "mixed"):
        for size in ("61x47", "97x83"):
            small = (name, size) == ("photos-blind", "61x47")
            yield Case("indi", f"blurred-{size}", name, small=small)
    yield Case("indi", "noisy-61x47")
    yield Case("indi", "clean-15x13", "x4", "bicubic:factor=4", small=True)
    for change in (
        {"steps": 3},
        {"steps": 4, "grid": "geometric"},
        {"grid": (1.0, 0.4, 0.1, 0.0)},
        {"steps": 3, "update": "cold_naive"},
        {"steps": 3, "update": "cold_improved"},
        {"steps": 3, "noise": "constant", "eps": 0.02},
        {"steps": 3, "noise": "brownian", "eps": 0.02},
        {"strength": 0.8},
        {"ensemble": 2},
        {"ensemble": 8},
    ):
        yield Case("indi", "noisy-61x47", "photos-blind", settings=change)
    drawn = {"steps": 2, "noise": "brownian", "eps": 0.02}
    yield Case("indi", "noisy-61x47", "denoise", settings=drawn, samples=2)
    yield Case("indi", "grey-61x47", "denoise")


def conditional_ddpm_cases() -> Iterator[Case]:
    """List the restorations by the conditional diffusion network."""
    method = "conditional_ddpm"
    for size in ("61x47", "48x40"):
        for eta in (0.0, 1.0):
            yield Case(method, f"noisy-{size}", CONDITIONAL, settings={"steps": 6, "eta": eta})
    few = {"steps": 3}
    yield Case(method, "noisy-31x27", CONDITIONAL)
    yield Case(method, "noisy-31x27", CONDITIONAL, settings=few, small=True)
    yield Case(method, "noisy-31x27", CONDITIONAL, settings={**few, "eta": 1.0}, samples=2)
    yield Case(method, "clean-16x12", CONDITIONAL, "area:factor=2", settings=few)


def auto_cases() -> Iterator[Case]:
    """List the restorations by the method that is chosen for the picture."""
    for damage in ("noisy", "soft", "blocky", "worn", "blurred", "clean"):
        yield Case("auto", f"{damage}-96x80", small=damage in ("noisy", "soft", "blocky"))
    yield Case("auto", "noisy-64x64", "faces")
    yield Case("auto", "soft-61x47", "denoise")


RESTORATIONS: tuple[Case, ...] = (
    *single_call_cases(),
    *diip_cases(),
    *bird_cases(),
    *released_bird_cases(),
    *invert2restore_cases(),
    *dip_cases(),
    *dreamclean_cases(),
    *guided_cases(),
    *spectral_cases(),
    *flow_cases(),
    *kernel_cases(),
    *indi_cases(),
    *conditional_ddpm_cases(),
    *auto_cases(),
)
"""All restorations: defaults, presets, and every choice that takes a path of its own."""
