"""``restore --ray`` and ``bench --ray`` beside the same work without Ray: seconds, what differs.

    python benchmarks/cluster.py --pictures 24

The folder is restored on two workers, one of which is killed when a third of the pictures is done.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from folder_kills import make_pictures

RAY = ["--ray", "local", "--jobs", "2"]
SUITE = """
title = "Two tasks"
about = "For a cluster."
prior = "photos"
seeds = [0, 1]
metrics = ["psnr"]
[pictures]
builtin = ["astronaut", "coffee"]
size_px = 64
[[tasks]]
name = "noise"
recipe = "noise:sigma=0.1"
form = "noise:sigma=0.1"
sigma = 0.1
[[tasks]]
name = "x2"
recipe = "area:factor=2"
[[methods]]
method = "diip"
label = "DIIP"
settings = { iterations = 6, sampler_steps = 2, rule = "none" }
[[methods]]
method = "diffpir"
label = "DiffPIR"
knowledge = "form"
settings = { steps = 4 }
"""


def command(*words: object) -> tuple[subprocess.Popen[str], float]:
    """Start a command of pristina with one thread; return it and when it began."""
    line = [sys.executable, "-m", "pristina", *map(str, words), "--threads", "1"]
    begun = time.perf_counter()
    return subprocess.Popen(line, stderr=subprocess.PIPE, text=True), begun


def finish(process: subprocess.Popen[str], begun: float) -> tuple[str, float]:
    """Wait for a command; return what it said, and its seconds."""
    _, text = process.communicate()
    if process.returncode:
        sys.exit(f"exit code {process.returncode}:\n{text}")
    return text, time.perf_counter() - begun


def workers() -> list[int]:
    """Return the processes of Ray that hold our weights."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if words.startswith(b"ray::_Worker"):
            found.append(int(path.parent.name))
    return found


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of every output."""
    paths = [p for p in folder.rglob("*") if p.is_file() and ".pristina" not in p.parts]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


def cells(folder: Path) -> dict[str, Any]:
    """Return what each cell of a suite found, but for the time and the memory that it took."""
    found = {}
    for path in (folder / "cells").iterdir():
        cell = json.loads(path.read_text())
        for name in ("seconds", "peak_bytes"):
            cell.get("cost", {}).pop(name, None)
        found[path.name] = cell
    return found


def row(what: str, way: str, seconds: float, said: str) -> None:
    print(f"| {what} | {way} | {seconds:.0f} | {said} |", flush=True)


def restore(folder: Path, n: int) -> None:
    """Restore pictures here and on two workers, one of which is killed."""
    source, here, there = (folder / name for name in ("in", "here", "there"))
    make_pictures(source, n)
    words = ("restore", source, "--method", "indi", "-o")
    said, seconds = finish(*command(*words, here))
    row(f"{n} pictures", "here, one process", seconds, summary(said))
    process, begun = command(*words, there, *RAY)
    done = 0
    while done < n // 3:
        done += " indi " in (process.stderr.readline() or sys.exit("It ended by itself."))
    victim = workers()[0]
    os.kill(victim, signal.SIGKILL)
    said, seconds = finish(process, begun)
    row(f"{n} pictures", f"Ray, a worker killed after {done}", seconds, summary(said))
    if len(files(here)) != n or files(here) != files(there):
        sys.exit("The outputs differ.")
    print(f"\nAll {n} outputs are equal.\n")


def summary(text: str) -> str:
    line = next(line for line in text.splitlines() if " restored" in line)
    return line.partition(": ")[2]


def measure(folder: Path) -> None:
    """Run a suite here and on two workers."""
    suite = folder / "suite.toml"
    suite.write_text(SUITE)
    for way, words in (("here, one process", []), ("Ray, two workers", RAY)):
        out = folder / way.partition(",")[0]
        _, seconds = finish(*command("bench", suite, "--device", "cpu", "--out", out, *words))
        row("a suite", way, seconds, f"{len(cells(out))} cells")
    if cells(folder / "here") != cells(folder / "Ray"):
        sys.exit("The cells differ.")
    print("\nAll cells are equal but for their seconds and memory.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=24)
    options = parser.parse_args()
    print("| work | where | seconds | done |")
    print("| --- " * 4 + "|")
    if options.pictures:
        with tempfile.TemporaryDirectory() as name:
            restore(Path(name) / "folder", options.pictures)
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name))


if __name__ == "__main__":
    main()
