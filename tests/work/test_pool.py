import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pristina.errors import InputError, SettingError
from pristina.work import Pool, WorkerDied


class Ten:
    """A setup that can be pickled by reference or by value."""

    def __call__(self):
        return 10


def add(context, item):
    return context + item


def refuse_two(context, item):
    if item == 2:
        raise InputError("not two")
    return os.getpid()


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_comes_back_with_its_result_or_its_error(workers):
    found = dict(Pool(workers, Ten()).map(refuse_two, [1, 2, 3]))
    assert set(found) == {1, 2, 3}
    assert isinstance(found[2], InputError) and str(found[2]) == "not two"
    assert (found[1] == os.getpid()) == (workers == 1)
    assert sorted(Pool(workers, Ten()).map(add, [3, 1])) == [(1, 11), (3, 13)]
    assert list(Pool(workers, Ten()).map(add, [])) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_setup_that_fails_ends_the_map_with_its_error(workers):
    def setup():
        raise InputError("no context")

    with pytest.raises(InputError, match="no context"):
        list(Pool(workers, setup).map(add, [1, 2]))


def test_threads_hold_in_every_process():
    def setup():
        import torch

        return torch

    def count(torch, item):
        return torch.get_num_threads()

    share = max(1, (os.cpu_count() or 1) // 2)
    assert dict(Pool(2, setup, threads=3).map(count, [1, 2])) == {1: 3, 2: 3}
    assert Pool(2, setup).threads == share


def test_threads_hold_in_this_process():
    import torch

    before = torch.get_num_threads()
    try:
        assert dict(Pool(1, Ten(), threads=2).map(lambda c, i: torch.get_num_threads(), [1])) == {
            1: 2
        }
    finally:
        torch.set_num_threads(before)


def test_a_worker_that_dies_once_is_replaced_and_its_item_redone(tmp_path):
    marks = str(tmp_path)

    def die_once(context, item):
        mark = Path(marks) / f"{item}.{time.monotonic_ns()}"
        mark.touch()
        if item == 2 and len(list(Path(marks).glob("2.*"))) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    found = list(Pool(2, Ten()).map(die_once, list(range(6))))
    assert sorted(found) == [(i, i) for i in range(6)]  # Each exactly once.
    assert len(list(tmp_path.glob("2.*"))) == 2


def test_an_item_that_ends_every_worker_is_reported_and_takes_no_other_with_it():
    def die(context, item):
        if item == 3:
            os._exit(1)
        return item

    found = dict(Pool(2, Ten()).map(die, list(range(8))))
    assert isinstance(found.pop(3), WorkerDied)
    assert found == {i: i for i in range(8) if i != 3}


def test_wrong_numbers_are_refused():
    for workers, threads in ((0, 0), (1, -1)):
        with pytest.raises(SettingError, match="at least 1 worker"):
            Pool(workers, Ten(), threads)


SCRIPT = """
import os, time
from pristina.work import Pool

def work(context, item):
    os.write(1, b"%d\\n" % os.getpid())  # One write, so that lines never mix.
    time.sleep(600)

list(Pool(2, lambda: 0).map(work, [1, 2]))
"""


def started():
    """Start a script whose two workers never finish; return it and the workers' numbers."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return process, [int(process.stdout.readline()) for _ in range(2)]


def gone(pid, within_s=30):
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_a_parent_that_is_killed_or_interrupted(how):
    process, workers = started()
    assert all(not gone(pid, 0.1) for pid in workers)
    process.send_signal(how)
    assert all(gone(pid) for pid in workers)
    # The pipes close when the last process that holds them is gone.
    process.communicate(timeout=60)


def test_a_consumer_that_stops_early_leaves_no_worker():
    def pid_then_wait(context, item):
        if item:
            time.sleep(600)
        return os.getpid()

    results = Pool(2, Ten()).map(pid_then_wait, [0, 1, 2])
    _, pid = next(results)
    begun = time.monotonic()
    results.close()
    assert gone(pid) and time.monotonic() - begun < 30
    assert not [t for t in threading.enumerate() if "ExecutorManager" in t.name and t.is_alive()]
