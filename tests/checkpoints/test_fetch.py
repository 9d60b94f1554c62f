"""Downloads from a server on this machine: progress, resume, checksums, the offline switch."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from diffusers import UNet2DModel

from pristina.cli.weights import app
from pristina.errors import CheckpointError
from pristina.priors.checkpoints.catalogue import CATALOGUE, CatalogueEntry
from pristina.priors.checkpoints.fetch import cache_dir, cached, fetch
from pristina.priors.checkpoints.options import LoadOptions
from pristina.priors.load import load_prior
from tests.checkpoints.reference import Form, make_ddpm

HELD = bytes(range(256)) * 8000  # 2 MB: more than one block


class Server:
    """A server of ``held`` that can break off, ignore Range, or fail."""

    def __init__(self):
        self.held, self.break_after, self.ranges, self.status, self.asked = (
            HELD,
            None,
            True,
            200,
            [],
        )
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.headers.get("Range"))
                start = (
                    int(self.headers["Range"][6:-1])
                    if self.headers.get("Range") and outer.ranges
                    else 0
                )
                if outer.status != 200:
                    self.send_error(outer.status)
                    return
                if start >= len(outer.held):
                    self.send_error(416)
                    return
                body = outer.held[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: outer.break_after])

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/weights.bin"
        threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("PRISTINA_CACHE", str(tmp_path / "cache"))
    for name in ("PRISTINA_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Server()
    known = CatalogueEntry(
        "mine",
        "mine",
        "mine.bin",
        "none",
        LoadOptions(domain="x"),
        page="https://page",
        url=made.url,
    )
    monkeypatch.setitem(CATALOGUE, "mine", known)
    yield made
    made.http.shutdown()
    made.http.server_close()


def publish(monkeypatch, **more):
    known = CATALOGUE["mine"]
    monkeypatch.setitem(CATALOGUE, "mine", CatalogueEntry(**{**known.__dict__, **more}))


def test_a_download_reports_progress_and_is_kept(server):
    assert cached("mine") is None
    told = []
    path = fetch("mine", on_bytes=lambda done, all_: told.append((done, all_)))
    assert path == cache_dir() / "mine" / "mine.bin" and path.read_bytes() == HELD
    assert (
        told[-1] == (len(HELD), len(HELD))
        and len(told) >= 2
        and [d for d, _ in told] == sorted(d for d, _ in told)
    )
    assert fetch("mine") == path == cached("mine") and len(server.asked) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on(server, monkeypatch, ranges):
    publish(monkeypatch, sha256=hashlib.sha256(HELD).hexdigest())
    server.break_after, server.ranges = 1_500_000, ranges
    with pytest.raises(CheckpointError, match="run it again"):
        fetch("mine")
    assert cached("mine") is None  # a part never gets the name of the whole
    server.break_after = None
    assert fetch("mine").read_bytes() == HELD
    assert server.asked == [None, "bytes=1500000-"]


def test_a_whole_file_under_the_partial_name_is_taken(server):
    place = cache_dir() / "mine" / ".mine.bin.partial"
    place.parent.mkdir(parents=True)
    place.write_bytes(HELD)
    assert fetch("mine").read_bytes() == HELD


def test_a_wrong_hash_is_refused_and_nothing_is_kept(server, monkeypatch):
    publish(monkeypatch, sha256="0" * 64)
    with pytest.raises(CheckpointError, match="sha256"):
        fetch("mine")
    assert not [f for f in cache_dir().rglob("*") if f.is_file()]
    publish(monkeypatch, sha256=None, md5=hashlib.md5(HELD, usedforsecurity=False).hexdigest())
    fetch("mine").write_bytes(b"damaged later")
    with pytest.raises(CheckpointError, match="md5"):
        fetch("mine")


def test_an_address_with_a_hash(server):
    assert fetch(server.url, sha256=hashlib.sha256(HELD).hexdigest()).read_bytes() == HELD
    with pytest.raises(CheckpointError, match="sha256"):
        fetch(server.url, sha256="0" * 64)


def test_offline(server, monkeypatch, capsys):
    for name in ("PRISTINA_OFFLINE", "HF_HUB_OFFLINE"):
        with monkeypatch.context() as inside:
            inside.setenv(name, "1")
            with pytest.raises(CheckpointError, match="switched off"):
                fetch("mine")
            with pytest.raises(CheckpointError, match="switched off"):
                fetch("celebahq")
    with pytest.raises(CheckpointError, match="switched off"):
        app(["fetch", "mine", "--offline"], exit_on_error=False, result_action="return_value")
    assert server.asked == []
    path = fetch("mine")
    monkeypatch.setenv("PRISTINA_OFFLINE", "1")
    assert fetch("mine") == path
    capsys.readouterr()


def test_what_cannot_be_reached(server, monkeypatch):
    server.status = 403
    with pytest.raises(CheckpointError, match=r"answers 403 .* https://page"):
        fetch("mine")
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(CheckpointError, match=r"127\.0\.0\.1 cannot be reached"):
        fetch("mine")
    with pytest.raises(CheckpointError, match="download it from"):
        fetch("ffhq-p2")
    with pytest.raises(CheckpointError, match="neither in the catalogue"):
        fetch("nonsense")
    with pytest.raises(CheckpointError, match="neither in the catalogue"):
        fetch("file:///etc/hostname")


def test_nothing_is_fetched_unless_asked(server):
    for name in ("ffhq", "celebahq", "owner/name"):
        with pytest.raises(CheckpointError, match=f"pristina weights fetch {name}"):
            load_prior(name)
    with pytest.raises(CheckpointError, match="download it from"):
        load_prior("ffhq-p2")
    assert server.asked == []


def test_a_hub_folder_in_the_cache_is_found_without_a_connection(server):
    snapshot = cache_dir() / "hub" / "models--google--ddpm-ema-celebahq-256" / "snapshots" / "abc"
    small = UNet2DModel(
        sample_size=16,
        block_out_channels=(32, 32),
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )
    small.save_pretrained(snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    for name in ("celebahq", "google/ddpm-ema-celebahq-256"):
        prior = load_prior(name)
        assert (
            prior.domain == "aligned faces, 256 x 256 px"
            and prior.size_rule.fixed
            and prior.source["layout"] == "diffusers"
        )


def test_fetched_weights_have_their_name(server, monkeypatch, tmp_path, capsys):
    torch.save(make_ddpm(Form()), tmp_path / "mine.ckpt")
    server.held = (tmp_path / "mine.ckpt").read_bytes()
    publish(
        monkeypatch,
        file="mine.ckpt",
        options=LoadOptions(domain="smudges", size_px=16, fixed_size=True),
    )
    app(["fetch", "mine"], exit_on_error=False, result_action="return_value")
    said = capsys.readouterr().out
    assert "mine.ckpt" in said and hashlib.sha256(server.held).hexdigest() in said.replace("\n", "")
    prior = load_prior("mine")
    assert (
        prior.domain == "smudges"
        and prior.size_rule.fixed
        and prior.source["catalogue"] == "mine (by name)"
    )
    app(["list", "--json"], exit_on_error=False, result_action="return_value")
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)["known"]}
    assert listed["mine"]["here"] and listed["ffhq"]["here"] is None
    assert listed["imagenet64-classes"]["schedule"] == "cosine" and listed["imagenet256"][
        "checksum"
    ].startswith("sha256 a37c32ff")
    app(["list"], exit_on_error=False, result_action="return_value")
    said = capsys.readouterr().out
    assert (
        "celebahq" in said and "aligned faces, eyes" in said
    )  # one that is known, and what a shipped one says of itself
