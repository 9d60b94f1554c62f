"""A pool on a cluster gives what one on this machine gives, even when a worker dies.

Each test runs a process of its own: Ray leaves threads and open sockets behind.
"""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from pristina.errors import PristinaError
from pristina.work.ray_pool import RayPool

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray (extra cluster) is not installed"),
    pytest.mark.timeout(900),
]

SCRIPT = """
import os, signal, sys
from pathlib import Path

from pristina.errors import PictureError
from pristina.work.pool import Pool
from pristina.work.ray_pool import RayPool

folder = Path(sys.argv[1])

def setup():
    (folder / f"setup-{os.getpid()}").touch()
    return 10

def work(context, item):
    if item == 3 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if item == 5:
        raise PictureError("five is bad")
    if item == 7 and context != -1:
        os.kill(os.getpid(), signal.SIGKILL)
    return context + item * item

def plain(outputs):
    return sorted((item, str(output)) for item, output in outputs)

def send(item):
    if item == 6:
        raise PictureError("six cannot be sent")
    return item

items = [0, 1, 2, 3, 4, 5, 6, 8, 9]
here = plain(Pool(1, lambda: 10).map(lambda c, i: work(c, i) if i != 3 else 19, items))
there = plain(RayPool("local", 2, setup).map(work, items))
assert here == there, (here, there)
assert (folder / "died").exists()
assert 2 <= len(list(folder.glob("setup-*"))) <= 3, "each worker prepares once"
sent = dict(RayPool("local", 2, setup).map(work, [6, 7, 8], send))
assert sent[8] == 74 and "six cannot be sent" in str(sent[6])
assert type(sent[7]).__name__ == "WorkerDied", sent[7]

def broken():
    raise PictureError("no weights")

try:
    list(RayPool("local", 1, broken).map(work, [1]))
except PictureError as error:
    assert "no weights" in str(error)
else:
    raise SystemExit("a broken setup was passed over")
print("fine")
"""


def run(*words):
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_a_cluster_gives_the_same_and_replaces_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    status, text = run(script, tmp_path)
    assert status == 0 and "fine" in text, text


class Slow:
    """Ray on a machine that has too much to do."""

    ended = 0

    def init(self, *words, **options):
        raise Exception("The current node timed out during startup. It may be overloaded.")

    def shutdown(self):
        self.ended += 1


def test_a_cluster_that_does_not_start(monkeypatch):
    ray = Slow()
    monkeypatch.setattr("pristina.work.ray_pool._import_ray", lambda: ray)
    with pytest.raises(PristinaError, match="did not start on this machine: The current node"):
        list(RayPool("local", 2, dict).map(len, ["a"]))
    assert ray.ended == 1
