"""Kill ``pristina restore FOLDER`` at random moments, and check that nothing is lost or done twice.

    python benchmarks/folder_kills.py                          # 200 pictures, killed ten times
    python benchmarks/folder_kills.py --pictures 40 --kills 3 --jobs 2
    python benchmarks/folder_kills.py --kills 0 --full SMALL   # SMALL: a small file system

With ``--full``, another file fills the small file system, so that the disk is full in mid-run; it
is then removed and the same command given again.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

SIDE = 64
"""Side of the pictures in pixels."""


def make_pictures(folder: Path, n: int) -> None:
    """Write ``n`` damaged crops in three formats and two sub-folders."""
    rng = np.random.default_rng(0)
    photo = data.astronaut()
    for i in range(n):
        y, x = rng.integers(0, 512 - SIDE, 2)
        crop = photo[y : y + SIDE, x : x + SIDE].astype(float)
        place = folder / ("" if i % 3 else "sub" if i % 2 else "sub/deeper")
        place.mkdir(parents=True, exist_ok=True)
        suffix = (".jpg", ".png", ".webp")[i % 3]
        noisy = (crop + (15 * rng.normal(size=crop.shape) if i % 2 else 0)).clip(0, 255)
        options = {} if suffix == ".png" else {"quality": 20}
        Image.fromarray(noisy.round().astype(np.uint8)).save(place / f"{i:03}{suffix}", **options)


def start(source: Path, out: Path, jobs: int) -> subprocess.Popen[str]:
    """Start the command."""
    words = ["restore", str(source), "-o", str(out), "--jobs", str(jobs), "--threads", "1"]
    return subprocess.Popen(
        [sys.executable, "-m", "pristina", *words], stderr=subprocess.PIPE, text=True
    )


def listing(out: Path) -> dict[str, tuple[int, int, str]]:
    """Return inode, time of writing and digest of every output that is visible to a user."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and not name.startswith(".pristina/"):
            stat = path.stat()
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[name] = (stat.st_ino, stat.st_mtime_ns, digest)
    return found


def outputs(out: Path) -> dict[str, tuple[int, int, str]]:
    """Return the listing without the temporary files of a killed run."""
    return {name: v for name, v in listing(out).items() if "/.pristina-" not in f"/{name}"}


def check(out: Path, whole: dict[str, str], before: dict[str, tuple[int, int, str]]) -> int:
    """Check that outputs are whole, and that those that were there are untouched; count them."""
    now = outputs(out)
    wrong = [name for name, (*_, digest) in now.items() if digest != whole[name]]
    again = [name for name, was in before.items() if now.get(name) != was]
    if wrong or again:
        sys.exit(f"not whole or not equal: {wrong}; gone or written again: {again}")
    return len(now)


def kill(source: Path, out: Path, jobs: int, delay_s: float) -> None:
    """Run the command and kill it so long after its first picture."""
    process = start(source, out, jobs)
    process.stderr.readline()
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    time.sleep(1 if jobs > 1 else 0)  # The other processes notice within half a second.
    if process.returncode != -signal.SIGKILL:
        sys.exit(f"The run ended by itself, with {process.returncode}, before it was killed.")


def finish(source: Path, out: Path, jobs: int, code: int = 0) -> str:
    """Run the command to its end, which must have the exit code; return its last words."""
    process = start(source, out, jobs)
    _, text = process.communicate()
    if process.returncode != code:
        sys.exit(f"exit code {process.returncode} instead of {code}:\n{text}")
    return text


def summary(text: str) -> str:
    return next(line for line in text.splitlines() if " restored" in line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", type=Path, help="empty folder on a small file system")
    given = parser.parse_args()
    random.seed(given.seed)
    with tempfile.TemporaryDirectory() as name:
        source, reference = Path(name) / "in", Path(name) / "reference"
        make_pictures(source, given.pictures)
        process = start(source, reference, given.jobs)
        lines, times = [], []
        for line in process.stderr:
            lines.append(line)
            if line.split(" ")[0].endswith(f"/{given.pictures}"):
                times.append(time.perf_counter())
        process.wait()
        seconds, text = times[-1] - times[0], "".join(lines)
        print("uninterrupted:", summary(text))
        whole = {name: digest for name, (*_, digest) in outputs(reference).items()}
        if len(whole) != given.pictures:
            sys.exit(f"{len(whole)} outputs of {given.pictures} pictures:\n{text}")

        out, before = Path(name) / "out", {}
        for i in range(given.kills):
            ahead_s = seconds * (1 - len(before) / given.pictures)
            kill(source, out, given.jobs, random.uniform(0, 2 * ahead_s / (given.kills - i + 1)))
            left = len(listing(out)) - len(outputs(out))
            n = check(out, whole, before)
            print(f"kill {i + 1}: {n} of {given.pictures} outputs, all whole; {left} temporaries")
            before = outputs(out)
        if given.kills:
            print("then:", summary(finish(source, out, given.jobs)))
            if check(out, whole, before) != given.pictures or len(listing(out)) != given.pictures:
                sys.exit("outputs are missing, or temporaries were left")
            print(f"{given.kills} kills; all {given.pictures} outputs equal, none written twice")
        if given.full is not None:
            fill(source, given.full, whole, given.jobs)


def fill(source: Path, small: Path, whole: dict[str, str], jobs: int) -> None:
    """Let the disk be full in mid-run, then make room and go on."""
    filler, out = small / "filler", small / "out"
    kept = 6144 * len(whole)  # Less than outputs and entries need.
    filler.write_bytes(b"\0" * (shutil.disk_usage(small).free - kept))
    text = finish(source, out, jobs, code=3)
    print("full disk:", summary(text), "|", text.splitlines()[-1])
    n = check(out, whole, {})
    before = outputs(out)
    if not 0 < n < len(whole) or len(listing(out)) != n:
        sys.exit(f"the disk was not full in mid-run, or temporaries were left: {n} outputs")
    filler.unlink()
    print("then:", summary(finish(source, out, jobs)))
    if check(out, whole, before) != len(whole):
        sys.exit("outputs are missing")
    print(f"full disk: {n} outputs before, all {len(whole)} after, equal, none written twice")


if __name__ == "__main__":
    main()
