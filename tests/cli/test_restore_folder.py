"""``pristina restore`` for several files and folders."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from pristina import files, folder

PHOTO = data.astronaut()


def save(path, at=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PHOTO[at : at + 20, at : at + 24]).save(path, **options)


def look(path):
    """Mode and size of a picture that can be read to its end."""
    with Image.open(path) as image:
        image.load()
        return image.mode, image.size


@pytest.fixture
def pictures(tmp_path):
    """A folder of four pictures in three folders."""
    source = tmp_path / "in"
    for i, name in enumerate(("a.png", "b.jpg", "sub/c.webp", "sub/deep/d.png")):
        save(source / name, 20 * i)
    return source


@pytest.fixture
def words(prior_file):
    return ["--method", "mmse", "--prior", prior_file]


@pytest.fixture
def quick():
    """A method and weights with which a process starts quickly."""
    return ["--method", "indi", "--prior", "blind", "--threads", "1"]


def tree(out):
    """Content, inode and time of writing of every output."""
    found = {}
    for path in out.rglob("*"):
        name = path.relative_to(out).as_posix()
        if path.is_file() and not name.startswith(".pristina/"):
            found[name] = (path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns)
    return found


def contents(out):
    return {name: content for name, (content, *_) in tree(out).items()}


def test_a_folder_is_restored_as_its_files_one_by_one(pristina, pictures, words, tmp_path):
    out = tmp_path / "out"
    assert "out: 4 restored; " in pristina("restore", pictures, "-o", out, *words)
    alone = tmp_path / "alone"
    for name in ("a.png", "b.jpg", "sub/c.webp", "sub/deep/d.png"):
        pristina("restore", pictures / name, "-o", alone / name, *words)
    assert contents(out) == contents(alone) and len(contents(out)) == 4
    several = tmp_path / "several"
    pristina("restore", pictures / "a.png", pictures / "sub", "-o", several, *words)
    assert sorted(contents(several)) == ["a.png", "c.webp", "deep/d.png"]
    entries = [json.loads(path.read_text()) for path in (out / ".pristina").glob("*.json")]
    assert {entry["record"]["request"]["method"] for entry in entries} == {"mmse"}


def test_processes_give_the_same(pristina, pictures, quick, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    pristina("restore", pictures, "-o", one, *quick)
    pristina("restore", pictures, "-o", two, *quick, "--jobs", 2)
    assert contents(one) == contents(two) and len(contents(two)) == 4


def test_only_what_has_changed_is_done_again(pristina, pictures, words, tmp_path):
    out = tmp_path / "out"
    pristina("restore", pictures, "-o", out, *words)
    first = tree(out)
    assert "4 done before" in pristina("restore", pictures, "-o", out, *words, "--threads", 1)
    assert tree(out) == first

    save(pictures / "a.png", 100)
    (out / "b.jpg").unlink()
    assert "2 restored, 2 done before" in pristina("restore", pictures, "-o", out, *words)
    second = tree(out)
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"a.png", "b.jpg"} and first["b.jpg"][0] == second["b.jpg"][0]

    text = pristina("restore", pictures, "-o", out, *words, "--quality", 50)
    assert "2 restored, 2 done before" in text or "4 restored" in text
    assert contents(out)["b.jpg"] != second["b.jpg"][0]
    text = pristina("restore", pictures, "-o", out, *words, "--seed", 1)
    assert "4 restored" in text


def test_files_of_others_are_not_overwritten_unasked(pristina, pictures, words, tmp_path):
    out = tmp_path / "out"
    save(out / "a.png", 300)
    theirs = contents(out)
    text = pristina("restore", pictures, "-o", out, *words, status=2)
    assert "out/a.png exists and was not written by this command" in text
    assert contents(out) == theirs and not (out / ".pristina").exists()
    pristina("restore", pictures, "-o", out, *words, "--force")
    assert len(contents(out)) == 4 and contents(out)["a.png"] != theirs["a.png"]

    (out / "b.jpg").write_bytes(b"edited")
    save(out / "sub" / "c.webp", 200)
    text = pristina("restore", pictures, "-o", out, *words, status=2)
    assert "b.jpg and 1 more exist" in text and (out / "b.jpg").read_bytes() == b"edited"


@pytest.fixture
def odd(tmp_path):
    """A folder of good and bad files with odd names; gives the names of both."""
    source = tmp_path / "odd"
    good = ["new\nline.png", "[red]b[0].png", "x" * 245 + ".png", os.fsdecode(b"not\xff\xfe.png")]
    for i, name in enumerate(good):
        save(source / name, 10 * i)
    save(source / "anim.gif", 50)
    save(source / "cut.jpg", 60, quality=95)
    with (source / "cut.jpg").open("rb+") as file:
        file.truncate((source / "cut.jpg").stat().st_size - 100)
    (source / "text.png").write_text("text")
    (source / "empty.jpg").write_bytes(b"")
    (source / "loop.png").symlink_to("loop.png")
    (source / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(source / "pipe.png")
    (source / "around").symlink_to(".")
    (source / "notes.txt").write_text("text")
    bad = {"text.png", "empty.jpg", "loop.png", "gone.png", "pipe.png", "cut.jpg"}
    return source, {*good, "anim.gif.png"}, bad


def test_bad_files_are_listed_and_good_ones_done(pristina, odd, words, tmp_path):
    source, good, bad = odd
    out = tmp_path / "out"
    text = pristina("restore", source, "-o", out, *words, status=3)
    assert set(contents(out)) == good
    assert {
        line.split()[1].split("/")[-1] for line in text.splitlines() if "pristina: " in line
    } == bad
    counts = "5 restored, 6 failed, 1 other files left out, 1 links to folders not followed"
    assert counts in text and ".gif is not written: the result is PNG." in text

    first = tree(out)
    text = pristina("restore", source, "-o", out, *words, "--truncated", status=3)
    assert "1 restored, 5 done before, 5 failed" in text and "as far as it goes" in text
    assert {name: tree(out)[name] for name in first} == first and "cut.jpg" in tree(out)
    for name in bad - {"cut.jpg"}:
        (source / name).unlink()
    pristina("restore", source, "-o", out, *words)  # All is there.
    again = tmp_path / "again"
    pristina("restore", source, "-o", again, *words, "--truncated", status=4)
    assert contents(again) == contents(out)


UNPRIVILEGED = """
import os, sys
from pathlib import Path

from pristina.cli import main

def run(words):
    try:
        main(words)
    except SystemExit as end:
        return end.code
    return 0

folder, words = Path(sys.argv[1]), sys.argv[2:]
assert run(["restore", str(folder / "photos"), "-o", str(folder / "all"), *words]) == 0
for name in ("secret.png", "locked"):
    (folder / "photos" / name).chmod(0)
if os.geteuid() == 0:
    os.setuid(65534)  # What is imported by now stays; nothing else may be readable any more.
sys.exit(run(["restore", str(folder / "photos"), "-o", str(folder / "out"), *words]))
"""


def test_files_that_may_not_be_read_are_listed(quick):
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o777)
        for i, file in enumerate(("good.png", "secret.png", "locked/inside.png")):
            save(place / "photos" / file, 20 * i)
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, str(place), *quick],
            capture_output=True,
            text=True,
            cwd=place,
        )
        for file in ("secret.png", "locked"):
            (place / "photos" / file).chmod(0o700)
        assert done.returncode == 3, done.stderr
        assert "secret.png cannot be read: Permission denied." in done.stderr
        assert "locked cannot be read: Permission denied." in done.stderr
        assert "1 restored, 2 failed" in done.stderr
        assert list(contents(place / "out")) == ["good.png"]


def test_a_dry_run_prints_every_plan_and_writes_nothing(pristina, odd, words, tmp_path):
    source, good, _ = odd
    out = tmp_path / "out"
    text = pristina("restore", source, "-o", out, *words, "--dry-run", status=3)
    assert text.count(": mmse with ") == len(good) and "6 that cannot be restored" in text
    assert "anim.gif.png" in text and not out.exists()


@pytest.mark.parametrize(
    ("given", "out", "sentence"),
    [
        (["in"], "in", "holds the pictures themselves"),
        (["in/a.png", "in/b.jpg"], "in", "is an input and would be overwritten"),
        (["in", "other"], "out", "would both be written to"),
        (["in"], "file", "is a file; several pictures are written into a folder"),
        (["empty"], "out", "There is no picture in"),
        (["in", "--compare", "x.png"], "out", "--compare is for one picture"),
        (["in", "--jobs", "0"], "out", "--jobs must be at least 1"),
        (["in", "--method", "magic"], "out", "no method 'magic'"),
        (["in", "--method", "mmse", "--prior", "nothing"], "out", "is neither a file"),
        (["in/a.png", "--jobs", "2"], "out.png", "--jobs is for several pictures"),
    ],
)
def test_mistakes_end_before_any_work(
    pristina, pictures, tmp_path, monkeypatch, given, out, sentence
):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "other" / "a.png", 200)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert sentence in pristina("restore", *given, "-o", out, status=2)
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name != "lock"}
    assert after == before


def test_a_folder_is_not_named_like_a_picture(pristina, pictures, words, tmp_path):
    text = pristina("restore", pictures, "-o", tmp_path / "x.png", *words, status=2)
    assert "x.png looks like a file; several pictures are written into a folder" in text
    assert not (tmp_path / "x.png").exists()


def test_the_folder_of_results_may_lie_among_the_pictures(pristina, pictures, words):
    out = pictures / "restored"
    for counts in ("4 restored;", "0 restored, 4 done before;"):
        assert counts in pristina("restore", pictures, "-o", out, *words)
    assert len(contents(out)) == 4


def test_weights_are_loaded_once(pristina, pictures, words, tmp_path, monkeypatch):
    loaded, load = [], folder.load_weights

    def counting(*names, **options):
        loaded.append(names)
        return load(*names, **options)

    monkeypatch.setattr(folder, "load_weights", counting)
    pristina("restore", pictures, "-o", tmp_path / "out", *words)
    assert len(loaded) == 1


def test_two_runs_do_not_write_to_one_folder(pristina, pictures, words, tmp_path):
    out = tmp_path / "out"
    (out / ".pristina").mkdir(parents=True)
    with (out / ".pristina" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = pristina("restore", pictures, "-o", out, *words, status=2)
        assert "Another run is writing to" in text and not contents(out)
    pristina("restore", pictures, "-o", out, *words)


def test_an_interruption_is_told_and_gone_on_from(pristina, pictures, words, tmp_path, monkeypatch):
    out, seen, run = tmp_path / "out", [], folder.run

    def interrupted(*arguments, **options):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return run(*arguments, **options)

    monkeypatch.setattr(folder, "run", interrupted)
    text = pristina("restore", pictures, "-o", out, *words, status=130)
    assert "2 restored, 2 not begun or not finished" in text and "goes on from here" in text
    before = tree(out)
    assert "2 restored, 2 done before" in pristina("restore", pictures, "-o", out, *words)
    assert {name: tree(out)[name] for name in before} == before and len(seen) == 5


def test_a_full_disk_ends_the_run_and_loses_nothing(
    pristina, pictures, words, tmp_path, monkeypatch
):
    out, seen, fsync = tmp_path / "out", [], os.fsync

    def full(handle):
        seen.append(handle)
        if len(seen) > 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(files.os, "fsync", full)
    text = pristina("restore", pictures, "-o", out, *words, status=3)
    assert "The disk is full" in text and "2 restored, 1 failed, 1 not begun" in text
    before = tree(out)
    assert len(before) == 2
    monkeypatch.undo()
    assert "2 restored, 2 done before" in pristina("restore", pictures, "-o", out, *words)
    assert {name: tree(out)[name] for name in before} == before and len(tree(out)) == 4


def test_a_killed_run_is_gone_on_from(pristina, pictures, quick, tmp_path):
    """``benchmarks/folder_kills.py`` does this with 200 pictures, ten times."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    pristina("restore", pictures, "-o", whole, *quick)
    command = [sys.executable, "-m", "pristina", "restore", pictures, "-o", out, *quick]
    process = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True)
    assert "1/4" in process.stderr.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    before = {name: v for name, v in tree(out).items() if ".pristina-" not in name}
    assert before
    (out / "sub").mkdir(exist_ok=True)
    (out / "sub" / ".pristina-half.png").write_bytes(b"half")
    text = pristina("restore", pictures, "-o", out, *quick)
    assert f"{4 - len(before)} restored, {len(before)} done before" in text
    assert contents(out) == contents(whole)
    assert {name: tree(out)[name] for name in before} == before


def test_a_clean_picture_in_a_folder_is_copied(pristina, tmp_path):
    clean = tmp_path / "in" / "clean.jpg"
    clean.parent.mkdir()
    Image.fromarray(PHOTO).save(clean, quality=95)
    text = pristina("restore", tmp_path / "in", "-o", tmp_path / "out")
    assert "left as it is" in text and "0 restored, 1 left alone" in text
    assert (tmp_path / "out" / "clean.jpg").read_bytes() == clean.read_bytes()
    text = pristina("restore", tmp_path / "in", "-o", tmp_path / "stretched", "--levels")
    assert "only its holes, levels or size" in text and "1 restored;" in text


def test_what_a_method_left_alone_is_not_counted_as_restored(pristina, tmp_path):
    save(tmp_path / "in" / "sharp.png")
    words = ["--method", "deblur", "--set", "kernel_px=5"]
    text = pristina("restore", tmp_path / "in", "-o", tmp_path / "out", *words)
    assert "sharp.png: left as it is" in text and "0 restored, 1 left alone" in text


def test_sixteen_bits_are_not_rounded_unasked(pristina, words, tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (16, 16), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    out = tmp_path / "out.jpg"
    text = pristina("restore", tmp_path / "deep.png", "-o", out, *words, status=2)
    assert "16 bits a channel and JPEG holds 8; write out.png" in text and not out.exists()
    pristina("restore", tmp_path / "deep.png", "-o", out, *words, "--depth", 8)
    pristina("restore", tmp_path / "deep.png", "-o", tmp_path / "16.png", *words)
    pristina("restore", tmp_path / "deep.png", "-o", tmp_path / "8.png", *words, "--depth", 8)
    assert [look(tmp_path / name)[0] for name in ("16.png", "8.png")] == ["I;16", "L"]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_ramp_of_16_bits_shows_no_bands(pristina, tmp_path, suffix):
    """The ramp lies within three levels of 8 bits."""
    ramp = np.linspace(30000, 30500, 96).round().astype(np.uint16)
    Image.fromarray(np.tile(ramp, (24, 1))).save(tmp_path / f"ramp.{suffix}")
    words = ["--method", "indi", "--prior", "denoise"]
    pristina("restore", tmp_path / f"ramp.{suffix}", "-o", tmp_path / f"out.{suffix}", *words)
    with Image.open(tmp_path / f"out.{suffix}") as image:
        levels = np.asarray(image)[12, 8:-8].astype(float)
    assert len(np.unique(levels)) > 60 and np.abs(np.diff(levels)).max() < 257 / 4


def test_damaged_files_are_restored_as_far_as_they_go(pristina, words, tmp_path):
    Image.fromarray(PHOTO[:64, :64]).save(tmp_path / "cut.jpg", quality=90)
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    out = tmp_path / "out.jpg"
    assert "damaged or cut off" in pristina(
        "restore", tmp_path / "cut.jpg", "-o", out, *words, status=2
    )
    text = pristina("restore", tmp_path / "cut.jpg", "-o", out, *words, "--truncated", status=4)
    assert "read as far as it goes" in text and look(out)[1] == (64, 64)
    alone = tmp_path / "alone.jpg"
    more = ["--method", "nothing", "--truncated"]
    text = pristina("restore", tmp_path / "cut.jpg", "-o", alone, *more, status=4)
    assert "read as far as it goes" in text
    assert look(alone)[1] == (64, 64)  # Not a copy of the damaged file.


def test_existing_files_and_new_folders(pristina, picture_file, words, tmp_path):
    out = tmp_path / "new" / "out.png"
    text = pristina("restore", picture_file, "-o", out, *words)
    assert f"note: The folder {out.parent} was made." in text
    first = out.read_bytes()
    text = pristina("restore", picture_file, "-o", out, *words, "--seed", 1, status=2)
    assert "exists; give another name, or --force" in text and out.read_bytes() == first
    record = tmp_path / "r.json"
    record.write_text("mine")
    other = ["-o", tmp_path / "other.png", *words, "--record", record]
    assert "r.json exists" in pristina("restore", picture_file, *other, status=2)
    pristina("restore", picture_file, *other, "--force")
    text = pristina("restore", picture_file, "-o", out, *words, "--force")
    assert "was made" not in text
    text = pristina("restore", picture_file, "-o", tmp_path / "q.png", "--quality", 9, status=2)
    assert "PNG has no quality" in text


def test_messages_that_nobody_receives_change_nothing(picture_file, quick, tmp_path):
    out = tmp_path / "out.png"
    command = ["pristina", "restore", picture_file, "-o", out, *quick]
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", *map(str, command)], stderr=full, timeout=120)
    assert done.returncode == 0 and out.exists()


def test_measure_ends_as_others_when_its_reader_has_gone(picture_file):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "pristina", "measure", str(picture_file)]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=120)
    os.close(write)
    assert done.returncode == 141 and not done.stderr


def test_every_picture_of_a_folder_has_its_mask(pristina, pictures, words, tmp_path):
    masks, out = pictures / "masks", tmp_path / "out"
    white = np.zeros((20, 24), np.uint8)
    white[5:8] = 255
    for name in ("a.png", "b.png", "sub/c.webp"):  # none for sub/deep/d.png
        (masks / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(white).save(masks / name, lossless=True)
    words = [*words, "--mask", masks]
    text = pristina("restore", pictures, "-o", out, *words, status=3)
    assert "3 restored" in text and "1 failed" in text
    assert f"{pictures / 'sub/deep/d.png'} has no mask: there is no" in text
    pristina("restore", pictures / "b.jpg", "-o", tmp_path / "b.jpg", *words[:-1], masks / "b.png")
    assert contents(out)["b.jpg"] == (tmp_path / "b.jpg").read_bytes()

    white[:] = 0
    white[:2] = 255
    Image.fromarray(white).save(masks / "a.png")
    text = pristina("restore", pictures, "-o", out, *words, status=3)
    assert "1 restored" in text and "2 done before" in text
