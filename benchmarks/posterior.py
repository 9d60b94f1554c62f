"""Measure the posterior samplers on a Gaussian prior, whose posterior is known.

    python -m benchmarks.posterior

The scene is that of the tests (tests/oracle/test_samplers_a.py): a picture of 4 x 4 px, noise of
0.05, 256 chains of one observation. Writes ``OUT/posterior.md``. It needs neither weights nor
pictures, and takes a minute.
"""

from __future__ import annotations

from pathlib import Path

import cyclopts
from benchmarks.common import RESULTS, restored, write
from tests.oracle.test_samplers_a import SPREAD, case

from pristina.methods.ddrm import DDRM
from pristina.methods.diffpir import DiffPIR
from pristina.methods.dps import DPS
from pristina.methods.gdp import GDP
from pristina.operators.base import Operator
from pristina.operators.resample import Downsample

SAMPLERS = [
    ("DiffPIR, 20 steps, given the spread", "diffpir", DiffPIR(steps=20, lam=1.0, spread=SPREAD)),
    ("DiffPIR, 400 steps, lambda 1", "diffpir", DiffPIR(steps=400, lam=1.0)),
    ("DiffPIR, default (20 steps)", "diffpir", DiffPIR()),
    ("DDRM, 100 steps", "ddrm", DDRM(steps=100)),
    ("DDRM, default (20 steps)", "ddrm", DDRM()),
    ("DPS, default", "dps", DPS()),
    ("DPS, zeta of the paper (0.3)", "dps", DPS(zeta=0.3)),
    ("GDP, scale 1000", "gdp", GDP(scale=1000.0)),
    ("GDP, default (scale 3000)", "gdp", GDP()),
    ("GDP, scale 6000", "gdp", GDP(scale=6000.0)),
]


def main(*, out: Path = RESULTS) -> None:
    """Measure."""
    scenes = case(Operator()), case(Downsample(2))
    rows = []
    for label, method, settings in SAMPLERS:
        row = [label]
        for scene in scenes:
            seen = scene.observation
            result = restored(
                method,
                seen.y,
                scene.prior,
                settings,
                operator=seen.operator,
                known_sigma=seen.known_sigma,
            )
            off, errors, ratio = scene.off(result)
            row += [f"{off:.2f}", f"{errors:.1f}", f"{ratio:.2f}"]
        rows.append(row)
    columns = ("off", "standard errors", "spread")
    head = ["sampler", *(f"{scene}: {c}" for scene in ("denoising", "x2") for c in columns)]
    notes = (
        "off: root mean square error of the chains' mean, relative to how far the observation "
        "moves the posterior's mean from the prior's; standard errors: that at the worst of 16 "
        "pixels, in Monte-Carlo errors; spread: the chains' deviation over the posterior's."
    )
    write(out, "posterior", "Posterior samplers against the exact posterior", head, rows, notes)


if __name__ == "__main__":
    cyclopts.run(main)
