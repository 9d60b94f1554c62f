"""Press a server hard: many senders at once, and senders who mean it no good.

It starts a server of its own on loopback, and ends with an error if an accepted job is lost, if the
server dies, if its memory grows without bound, or if a file is left behind. Run on demand:

    python tests/app/load.py
"""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

SENDERS = 200
MOST_BYTES = 3 * 2**30


def picture(side: int = 64, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.effect_noise((side, side), 80).convert("RGB").save(file, kind)
    return file.getvalue()


def form(content: bytes, name: str = "in.png", **fields: str) -> bytes:
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode()
        for k, v in fields.items()
    ]
    head = f'--x\r\nContent-Disposition: form-data; name="picture"; filename="{name}"\r\n\r\n'
    return b"".join([*parts, head.encode(), content, b"\r\n--x--\r\n"])


class Server:
    """A server, and requests to it."""

    def __init__(self, folder: str):
        environment = {**os.environ, "TMPDIR": folder, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "pristina", "serve", "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        self.url = re.search(r"http://\S+", self.process.stdout.readline())[0]
        self.port = int(self.url.rstrip("/").rpartition(":")[2])
        while self.ask("healthz")[0] != 200:
            time.sleep(0.2)

    def ask(self, path: str, body: bytes | None = None, verb: str | None = None):
        headers = {"Content-Type": "multipart/form-data; boundary=x"} if body else {}
        asked = urllib.request.Request(self.url + path, body, headers, method=verb)
        try:
            with urllib.request.urlopen(asked, timeout=120) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), error.headers
        except OSError as error:
            return type(error).__name__, b"", {}

    def memory(self) -> int:
        """Return the largest memory of the server so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])

    def submit(self, content: bytes, **more: str):
        return self.ask("api/v1/jobs", form(content, **more))


def many_at_once(server: Server) -> None:
    """Submit pictures from many senders at once; follow every accepted one to its end."""
    content = picture()
    with ThreadPoolExecutor(SENDERS) as pool:
        answers = list(pool.map(lambda _: server.submit(content), range(SENDERS)))
    codes = Counter(code for code, _, _ in answers)
    print("at once:", dict(codes), f"{server.memory() / 2**20:.0f} MiB at most")
    assert set(codes) == {202, 429}, codes
    assert all(headers["Retry-After"] for code, _, headers in answers if code == 429)
    keys = [json.loads(body)["id"] for code, body, _ in answers if code == 202]
    assert len(set(keys)) == codes[202]
    states: Counter[str] = Counter()
    for key in keys:
        while (state := json.loads(server.ask(f"api/v1/jobs/{key}")[1])["state"]) not in (
            "done", "failed", "cancelled",
        ):  # fmt: skip
            time.sleep(0.1)
        states[state] += 1
        code, result, _ = server.ask(f"api/v1/jobs/{key}/result")
        assert code == 200 and Image.open(io.BytesIO(result)).size == (64, 64)
        server.ask(f"api/v1/jobs/{key}", verb="DELETE")
    print("accepted:", dict(states))
    assert states == {"done": codes[202]}


def bad_senders(server: Server) -> None:
    """Send what a server should not fall for."""
    large = server.submit(bytes(100 * 2**20))
    polyglot = server.submit(b"%PDF-1.4 <script>alert(1)</script>" + picture())
    joined = server.submit(picture(kind="JPEG") + b"PK\x03\x04<script>alert(1)</script>")
    path = server.submit(picture(), name="../../../../tmp/evil.png")
    header = (
        b"\x89PNG\r\n\x1a\n"
        + b"\0\0\0\rIHDR"
        + b"\x7f\xff\xff\xff" * 2
        + b"\x08\x02\0\0\0"
        + bytes(4)
    )
    bomb = server.submit(header)
    found = {
        "100 MB": large[0], "polyglot": polyglot[0], "bomb": bomb[0], "appended": joined[0],
        "path": path[0],
    }  # fmt: skip
    print(found, f"{server.memory() / 2**20:.0f} MiB at most")
    assert found == {"100 MB": 413, "polyglot": 422, "bomb": 422, "appended": 202, "path": 202}
    for _, body, _ in (joined, path):
        key = json.loads(body)["id"]
        while json.loads(server.ask(f"api/v1/jobs/{key}")[1])["state"] != "done":
            time.sleep(0.1)
        _, result, headers = server.ask(f"api/v1/jobs/{key}/result")
        assert b"script" not in result and headers["x-content-type-options"] == "nosniff"
        assert "/" not in headers["content-disposition"]
        server.ask(f"api/v1/jobs/{key}", verb="DELETE")
    assert not Path("/tmp/evil.png").exists()


def open_upload(server: Server) -> socket.socket:
    sent = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    sent.sendall(
        b"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
    )
    return sent


def slow_and_leaving_senders(server: Server) -> None:
    """Send too slowly, or leave in the middle; the places must be free again."""
    for _ in range(40):
        open_upload(server).close()
    slow = [open_upload(server) for _ in range(20)]
    begun, answers = time.monotonic(), []
    for one in slow:
        answers.append(one.recv(200).split(b" ")[1:2])
        one.close()
    seconds = time.monotonic() - begun
    print("slow:", Counter(map(str, answers)), f"{seconds:.0f} s")
    assert all(answer in ([b"408"], [b"429"]) for answer in answers) and seconds < 60
    code, body, _ = server.submit(picture())
    assert code == 202
    follow = socket.create_connection(("127.0.0.1", server.port))
    key = json.loads(body)["id"]
    follow.sendall(f"GET /api/v1/jobs/{key}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    follow.close()
    server.ask(f"api/v1/jobs/{key}", verb="DELETE")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder)
        try:
            for step in (many_at_once, bad_senders, slow_and_leaving_senders, many_at_once):
                step(server)
                assert server.ask("healthz")[0] == 200 and server.memory() < MOST_BYTES
            time.sleep(1)
            left = [p.name for p in Path(folder).rglob("*") if p.is_file() and p.name != "lock"]
            assert not left, left
            server.submit(picture())
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()
            assert list(Path(folder).glob("pristina-serve-*"))
            server = Server(folder)
            (alone,) = Path(folder).glob("pristina-serve-*")
            assert [p.name for p in alone.iterdir()] == ["lock"]
            print("killed and started again: nothing left")
        finally:
            server.process.send_signal(signal.SIGINT)
            server.process.wait()
        assert not list(Path(folder).glob("pristina-serve-*"))


if __name__ == "__main__":
    main()
