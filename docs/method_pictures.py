"""Make the pictures of the pages of methods: ``python docs/method_pictures.py``, some minutes.

Each method restores one picture with its default settings and seed 0. The portrait, reduced to
64 px, is scikit-image's ``astronaut`` (NASA, public domain), the photograph a part of its
``chelsea``; no prior was trained on them. Names of methods as arguments make only theirs.
"""

import sys
from pathlib import Path

from skimage.data import astronaut, chelsea

import pristina
from pristina.image import resize, side_by_side
from pristina.metrics import psnr
from pristina.operators import Recipe
from pristina.seeds import generators
from pristina.types import Draw

OUT = Path(__file__).parent / "pictures" / "methods"
NOISE = "noise:sigma=0.1"
BLUR = "blur:sigma=1.6 | noise:sigma=0.02"
SHAKE = "motion:size=15 | noise:sigma=0.02"
SMALL = "area:factor=4 | noise:sigma=0.02"
HOLE = "mask:box=20 | noise:sigma=0.02"
STROKE = "motion:size=21,seed=5 | noise:sigma=0.004"
LOST = "mask:drop=0.7,seed=0 | noise:sigma=0.02"
FREE = "kernel:size=15 | noise:sigma=0.02"
CASES = {
    "mmse": ("faces", NOISE, None),
    "diip": ("faces", NOISE, None),
    "bird": ("faces", BLUR, "blur:sigma=1 | noise:sigma=0.02"),
    "refit": ("faces", SHAKE, FREE),
    "invert2restore": ("faces", "jpeg:quality=10", None),
    "dip": (None, "jpeg:quality=10", None),
    "dreamclean": ("faces", NOISE, None),
    "gdp": ("faces", "haze:transmission=0.4,airlight=0.9", "haze:transmission=0.6"),
    "dps": ("faces", HOLE, HOLE),
    "diffpir": ("faces", HOLE, HOLE),
    "flower": ("faces", HOLE, HOLE),
    "pnp_flow": ("faces", HOLE, HOLE),
    "pigdm": ("faces", HOLE, HOLE),
    "red_diff": ("faces", HOLE, HOLE),
    "ddnm": ("faces", HOLE, HOLE),
    "daps": ("faces", HOLE, HOLE),
    "sitcom": ("faces", HOLE, HOLE),
    "fast_dips": ("faces", HOLE, HOLE),
    "dmplug": ("faces", HOLE, HOLE),
    "na_nhmc": ("faces", HOLE, HOLE),
    "ddrm": ("faces", SMALL, SMALL),
    "gibbs_ddrm": ("faces", SHAKE, FREE),
    "fast_diffusion_em": ("faces", SHAKE, FREE),
    "blind_dps": ("faces", SHAKE, FREE),
    "indi": ("jpeg", "jpeg:quality=10", None),
    "deblur": ("reconstruct", STROKE, None),
    "reconstruct": ("reconstruct", LOST, LOST),
}
"""Weights, damage and the form that the method is told, by method."""


def main() -> None:
    """Make all pictures, and print the PSNR before and after."""
    OUT.mkdir(exist_ok=True, parents=True)
    whole = pristina.Picture.from_array(astronaut()).pixels[None]
    face = resize(whole[..., 43:191, 151:299], 64, 64)
    cat = pristina.Picture.from_array(chelsea()[40:168, 110:238]).pixels[None]
    large = whole[..., :384, :]
    for method in sys.argv[1:] or CASES:
        prior, damage, form = CASES[method]
        truth = {"indi": cat, "reconstruct": cat, "deblur": large}.get(method, face)
        operator = Recipe.parse(damage).build(seed=0)
        observed = operator.degrade(truth, Draw(generators(0, 1), 1)).detach().clamp(0, 1)
        done = pristina.restore(observed[0], method=method, prior=prior, operator=form)
        restored = done.picture.pixels[None]
        sizes_agree = observed.shape == truth.shape
        before = f", {float(psnr(observed, truth)):.1f} dB" if sizes_agree else ""
        after = f", {float(psnr(restored, truth)):.1f} dB"
        print(f"{method}: {damage}{before}; restored{after}", flush=True)
        captions = f"damaged{before}", f"restored{after}", "truth"
        pictures = [pristina.Picture(one[0]) for one in (observed, restored, truth)]
        sheet = side_by_side(list(zip(captions, pictures, strict=True)))
        sheet.save(OUT / f"{method}.webp", quality=80)


if __name__ == "__main__":
    main()
