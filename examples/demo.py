"""Damage a photograph, restore it, and measure what was gained.

``make demo`` runs it; it writes ``demo/before-after.png``. The photograph is scikit-image's
``astronaut``, 512 x 512 px (NASA, public domain); it was never trained on.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from PIL import Image
from skimage.data import astronaut

from pristina import Picture

OUT = Path("demo")


def pristina(*words: str) -> None:
    """Run the command line, as a user would."""
    quoted = (f'"{w}"' if " " in w or "=" in w else w for w in words)
    print("$ pristina", *quoted, flush=True)
    subprocess.run([sys.executable, "-m", "pristina", *words], check=True)


def psnr(a: Picture, b: Picture) -> float:
    """Compute the peak signal-to-noise ratio in dB."""
    return float(-10 * (a.pixels - b.pixels).square().mean().log10())


def main() -> None:
    """Make the demonstration."""
    OUT.mkdir(exist_ok=True)
    clean, damaged, restored = OUT / "clean.png", OUT / "damaged.png", OUT / "restored.png"
    Image.fromarray(astronaut()).save(clean)
    damage = ("--operator", "noise:sigma=0.1", "--seed", "0")
    pristina("degrade", str(clean), "-o", str(damaged), *damage)
    begun = time.perf_counter()
    files = ("--record", str(OUT / "record.json"), "--compare", str(OUT / "before-after.png"))
    pristina("restore", str(damaged), "-o", str(restored), "--force", *files)
    seconds = time.perf_counter() - begun
    truth = Picture.open(clean)
    before, after = (psnr(Picture.open(path), truth) for path in (damaged, restored))
    gain = f"{before:.2f} dB damaged, {after:.2f} dB restored ({after - before:+.2f} dB)"
    print(f"PSNR to the clean picture: {gain} in {seconds:.0f} s")
    print(f"look at {OUT / 'before-after.png'}")
    if after <= before:
        sys.exit("the restored picture is no better than the damaged one")


if __name__ == "__main__":
    main()
