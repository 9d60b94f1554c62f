"""The server as a whole: its folder, its command, its client."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
import uvicorn

import pristina
from pristina.app.client import _form
from pristina.app.folder import PREFIX, PrivateFolder
from pristina.app.jobs import Jobs
from pristina.app.server import make_app
from pristina.cli import main
from tests.app.conftest import encoded, painted


def test_folders_of_killed_servers_are_swept_and_those_in_use_are_not(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from pristina.app.folder import PrivateFolder; "
        "f = PrivateFolder(Path(sys.argv[1])); (f.path / 'x').write_text('x'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (left,) = tmp_path.glob(f"{PREFIX}*")
    assert (left / "x").exists()
    living = PrivateFolder(tmp_path)
    assert not left.exists() and oct(living.path.stat().st_mode)[-3:] == "700"
    other = PrivateFolder(tmp_path)
    assert living.path.exists()
    other.close()
    living.close()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def started(tmp_path):
    """Start ``pristina serve`` as a process; gives it and its address."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pristina", "serve", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        address = re.search(r"http://\S+", process.stdout.readline())[0]
        for _ in range(600):
            try:
                urllib.request.urlopen(address + "healthz", timeout=5)
                break
            except OSError:
                time.sleep(0.1)
        yield process, address
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def sent_to(address, **files):
    """Send a form with files, and return the answer."""
    body, kind = _form(files, {})
    asked = urllib.request.Request(address, body, {"Content-Type": kind})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return json.load(answer)


def test_the_page_is_served_and_an_interrupted_server_leaves_nothing(started, tmp_path):
    process, address = started
    with urllib.request.urlopen(address, timeout=60) as answer:
        page = answer.read().decode()
        policy = answer.headers["content-security-policy"]
    assert "Restores damaged photos." in page and "default-src 'self'" in policy
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    picture = sent_to(f"{address}pictures", picture=encoded())["id"]
    marks = f"{address}pictures/{picture}/marks"
    both = {"mask": painted((0, 0, 9, 9)), "protect": painted()}
    assert sent_to(marks, **both) == {"marks": ["mask"]}
    assert sent_to(marks) == {"marks": []}
    with urllib.request.urlopen(f"{address}pictures/{picture}", timeout=60) as answer:
        assert answer.headers["content-type"] == "image/jpeg"
    client = pristina.Client(address)
    key = client.submit(encoded(), method="nothing")
    assert [event["state"] for event in client.events(key)][-1] == "done"
    assert list(tmp_path.glob(f"{PREFIX}*/job-*"))
    client.submit(encoded())
    process.send_signal(signal.SIGINT)
    assert process.wait(60) in (0, 130, -signal.SIGINT)
    assert not list(tmp_path.glob(f"{PREFIX}*"))


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """Folder in which the server of the tests keeps its own."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def address(private):
    """Run a server in a thread of this process, for all tests of this file."""
    app = make_app(Jobs(parent=private), page=False)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def test_the_client_restores_and_leaves_nothing(address, private, tmp_path):
    path = tmp_path / "in ümlaut.png"
    path.write_bytes(encoded())
    states = []
    got = pristina.Client(address).restore(
        path, method="indi", prior="denoise", on_event=lambda e: states.append(e["state"])
    )
    got.save(tmp_path / "out.png")
    direct = pristina.restore(path, method="indi", prior="denoise")
    assert (tmp_path / "out.png").read_bytes() == direct.picture.encode("out.png")
    assert states[-1] == "done" and got.record["input"]["file"] == "in ümlaut.png"
    assert not list(private.glob(f"{PREFIX}*/job-*"))


def test_the_client_and_the_command_send_masks(address, tmp_path):
    path, out, record = tmp_path / "in.png", tmp_path / "out.png", tmp_path / "run.json"
    path.write_bytes(encoded())
    marks = {"mask": tmp_path / "holes.png", "protect": tmp_path / "face.png"}
    marks["mask"].write_bytes(painted((3, 3, 20, 20)))
    marks["protect"].write_bytes(painted((30, 30, 60, 60)))
    options = {"method": "indi", "prior": "denoise", **marks}
    direct = pristina.restore(path, **options).picture.encode("out.png")
    got = pristina.Client(address).restore(path, **options)
    assert got.content == direct and got.filled is not None
    assert pristina.Client(address).restore(path, method="nothing").filled is None
    words = ["restore", str(path), "--method", "indi", "--prior", "denoise"]
    words += ["--mask", str(marks["mask"]), "--protect", str(marks["protect"])]
    main_exits([*words, "-o", str(out), "--server", address, "--record", str(record)], 0)
    assert out.read_bytes() == direct
    again = tmp_path / "again.png"
    main_exits(["restore", str(path), "-o", str(again), "--like", str(record)], 0)
    assert again.read_bytes() == direct


def test_the_client_says_what_is_wrong(address):
    client = pristina.Client(address)
    with pytest.raises(pristina.InputError, match="refuses: picture is not a picture"):
        client.restore(b"Dear Ida")
    with pytest.raises(pristina.InputError, match="no such job"):
        client.status("no-such")
    with pytest.raises(pristina.InputError, match="begins with http"):
        pristina.Client("file:///etc/passwd")
    with pytest.raises(pristina.PristinaError, match="is it running"):
        pristina.Client("http://127.0.0.1:9").plan(encoded())
    assert json.dumps(client.plan(encoded(), method="nothing")["network_calls"]) == "0"


def test_the_command_restores_on_a_server(address, tmp_path, capsys):
    path, out, record = tmp_path / "in.png", tmp_path / "out.tif", tmp_path / "run.json"
    path.write_bytes(encoded())
    words = ["restore", str(path), "-o", str(out), "--server", address, "--record", str(record)]
    main_exits(words, 0)
    assert "indi with denoise was chosen" in capsys.readouterr().err
    direct = pristina.restore(path)
    assert out.read_bytes() == direct.picture.encode("out.tif")
    again = tmp_path / "again.tif"
    main_exits(["restore", str(path), "-o", str(again), "--like", str(record)], 0)
    assert again.read_bytes() == out.read_bytes()
    main_exits([*words, "--force", "--dry-run"], 0)
    assert "cost: about" in capsys.readouterr().out
    main_exits([*words, "--force", "--truncated"], 2)
    main_exits(["restore", str(tmp_path), "-o", str(tmp_path / "o"), "--server", address], 2)
    assert "name one file" in capsys.readouterr().err
    bad = ["restore", str(path), "-o", str(again), "--force", "--server", "http://127.0.0.1:9"]
    main_exits(bad, 2)
    assert "is it running" in capsys.readouterr().err and again.read_bytes() == out.read_bytes()


def main_exits(words, code):
    found = 0
    try:
        main(words)
    except SystemExit as stopped:
        found = stopped.code or 0
    assert found == code


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--host", "0.0.0.0"], "--token"),
        (["--token", "short"], "at least 8"),
        (["--report", "nowhere"], "report.html"),
        (["--port", "70000"], "between 0 and 65535"),
        (["--max-megapixels", "0"], "positive"),
        (["--host", "203.0.113.1", "--token", "long enough"], "without blanks"),
        (["--host", "203.0.113.1", "--token", "longenough"], "another --port"),
    ],
)
def test_the_command_refuses_in_a_sentence(words, sentence, capsys, monkeypatch):
    monkeypatch.delenv("PRISTINA_TOKEN", raising=False)
    with pytest.raises(SystemExit) as stopped:
        main(["serve", *words])
    assert stopped.value.code in (1, 2)
    errors = capsys.readouterr().err
    assert sentence in errors and errors.count("\n") == 1
