"""Damage a portrait, restore it with a shipped prior, and say what was gained.

Run by ``make demo``; writes ``demo/before-after.png``. The picture is scikit-image's ``astronaut`` (NASA, public domain),
cropped to the prior's alignment. It was never trained on.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from PIL import Image
from skimage.data import astronaut

from pristina.image.picture import Picture

OUT = Path("demo")


def pristina(*words: str) -> None:
    """Run the command line, as a user would."""
    print("$ pristina", *(f'"{w}"' if " " in w or "=" in w else w for w in words), flush=True)
    subprocess.run([sys.executable, "-m", "pristina", *words], check=True)


def psnr(a: Picture, b: Picture) -> float:
    """Peak signal-to-noise ratio in dB."""
    return float(-10 * (a.pixels - b.pixels).square().mean().log10())


def main() -> None:
    """Make the demonstration."""
    OUT.mkdir(exist_ok=True)
    clean, damaged, restored = OUT / "clean.png", OUT / "damaged.png", OUT / "restored.png"
    Image.fromarray(astronaut()).resize(
        (64, 64), Image.Resampling.LANCZOS, (151, 43, 299, 191)
    ).save(clean)
    pristina(
        "degrade", str(clean), "-o", str(damaged), "--operator", "noise:sigma=0.1", "--seed", "0"
    )
    begun = time.perf_counter()
    pristina(
        "restore", str(damaged), "-o", str(restored), "--method", "diip", "--prior", "faces", "--seed", "0",
        "--record", str(OUT / "record.json"), "--compare", str(OUT / "before-after.png"),
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    truth = Picture.open(clean)
    before, after = psnr(Picture.open(damaged), truth), psnr(Picture.open(restored), truth)
    print(
        f"PSNR to the clean picture: {before:.2f} dB damaged, {after:.2f} dB restored ({after - before:+.2f} dB) in {seconds:.0f} s"
    )
    print(f"look at {OUT / 'before-after.png'}")
    if after <= before:
        sys.exit("the restored picture is no better than the damaged one")


if __name__ == "__main__":
    main()
