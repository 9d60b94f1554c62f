"""Memory that a run holds at the size of the picture, beside that of the network.

    python benchmarks/held_pictures.py

A network of four channels works in small tiles, so that hardly any of the memory is its own. Each
run is a process of its own, with the settings of ``large_pictures.py``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from large_pictures import METHODS, SMALL, damaged, status

LARGE = (1536, 2048)


def tiny(method: str) -> Any:
    """Return weights that suit the method, of random numbers."""
    from pristina.priors.direct import DirectNetwork
    from pristina.priors.network import build_network
    from pristina.priors.unet import flow_prior

    shape = {"architecture": "residual", "channels": [4], "layers": 1, "patch": 1}
    network = build_network({**shape, "inputs": 3, "outputs": 3})
    if method == "indi":
        return DirectNetwork(network, domain="any")
    return flow_prior(network, domain="any", native=None, fixed=False)


def run_cell(method: str, size: tuple[int, int]) -> None:
    """Restore a picture, and print the peak of the process before and in the run, in bytes."""
    import pristina

    torch.set_num_threads(1)
    y, options = damaged(size, method), METHODS[method]
    plan = pristina.plan(y, method=method, prior=tiny(method), memory_bytes=2**31, **options)
    plan = replace(plan, prior=plan.prior.limited(2**16))
    Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew.
    before = status("VmRSS")
    pristina.run(plan, y[None])
    print(before, status("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", nargs=3, help="method, height, width")
    options = parser.parse_args()
    if options.cell:
        method, height, width = options.cell
        run_cell(method, (int(height), int(width)))
        return
    image = 3 * 4 * (LARGE[0] * LARGE[1] - SMALL[0] * SMALL[1])
    print("| method | peak 512 x 512 | peak 2048 x 1536 | growth, in images of that size |")
    print("| --- " * 4 + "|")
    for method in METHODS:
        peaks = []
        for size in (SMALL, LARGE):
            words = [sys.executable, __file__, "--cell", method, *map(str, size)]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            peaks.append(int(done.stdout.split()[1]))
        small, large = (peak / 2**20 for peak in peaks)
        growth = (peaks[1] - peaks[0]) / image
        print(f"| {method} | {small:.0f} MiB | {large:.0f} MiB | {growth:.1f} |", flush=True)


if __name__ == "__main__":
    main()
