"""The guard: names, other sites, tokens, sizes and slow senders."""

import asyncio

import pytest
from starlette.websockets import WebSocketDisconnect

from pristina.app import guard as guard_module
from pristina.app.guard import Guard
from pristina.app.rules import MAX_UPLOAD_BYTES
from tests.app.conftest import encoded

TOKEN = "a-long-secret"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8080"}, 200),
        ({"host": "[::1]:8080"}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "[::1"}, 421),
        ({"origin": "http://127.0.0.1"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_only_this_server_and_its_own_pages_are_answered(api, headers, status):
    answer = api.client.get("/metrics", headers=headers)
    assert answer.status_code == status
    assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_a_token_is_needed_everywhere_but_for_the_health(make_api):
    api = make_api(token=TOKEN, hosts=None)
    assert api.client.get("/healthz").status_code == 200
    for path in ("/", "/metrics", "/api/v1/openapi.json", "/api/v1/jobs/x", "/?token=wrong"):
        answer = api.client.get(path)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert api.post("jobs", encoded()).status_code == 401
    for value in ("Bearer wrong", "Bearer", TOKEN, "Basic " + TOKEN):
        assert api.client.get("/metrics", headers={"authorization": value}).status_code == 401
    bearer = {"authorization": f"Bearer {TOKEN}", "host": "photos.example"}
    schema = api.client.get("/api/v1/openapi.json", headers=bearer).json()
    assert schema["security"] and "401" in schema["paths"]["/plan"]["post"]["responses"]


def test_the_printed_address_leaves_a_cookie(make_api):
    api = make_api(token=TOKEN, hosts=None)
    answer = api.client.get(f"/?token={TOKEN}", follow_redirects=False)
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert api.client.get("/metrics").status_code == 200


def test_a_websocket_needs_the_token_too(make_api):
    api = make_api(token=TOKEN, hosts=None)
    with pytest.raises(WebSocketDisconnect) as refused, api.client.websocket_connect("/any"):
        pass
    assert refused.value.code == 1008


def test_a_file_that_is_too_large_is_refused(api):
    def pieces():
        for _ in range(MAX_UPLOAD_BYTES // 2**20 + 3):
            yield bytes(2**20)

    kind = {"content-type": "multipart/form-data; boundary=x"}
    head = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n'
    body = head + bytes(MAX_UPLOAD_BYTES + 2**21)
    answer = api.client.post("/api/v1/jobs", content=body, headers=kind)
    assert answer.status_code == 413 and "64 MB" in answer.json()["detail"]

    def chunked():
        yield head
        yield from pieces()

    answer = api.client.post("/api/v1/jobs", content=chunked(), headers=kind)
    assert answer.status_code == 413
    assert [path.name for path in api.jobs.folder.path.iterdir()] == ["lock"]


def ask(app, receive):
    """Send one request to an application, and return the messages of its answer."""
    sent = []

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"multipart/form-data; boundary=x")]
    scope = {"type": "http", "method": "POST", "path": "/api/v1/jobs", "headers": headers}
    scope |= {"query_string": b"", "root_path": "", "scheme": "http", "http_version": "1.1"}
    scope |= {"server": ("127.0.0.1", 80), "client": ("127.0.0.1", 5), "raw_path": b"/api/v1/jobs"}
    asyncio.run(app(scope, receive, send))
    return sent


def test_a_sender_that_falls_silent_is_refused_and_its_place_is_free_again(api, monkeypatch):
    monkeypatch.setattr(guard_module, "SILENCE_S", 0.2)
    monkeypatch.setattr(guard_module, "DRAIN_S", 0.2)
    monkeypatch.setattr(guard_module, "DRAIN_SILENCE_S", 0.2)

    async def silent():
        await asyncio.sleep(3600)

    sent = ask(api.client.app, silent)
    assert sent[0]["status"] == 408
    assert api.jobs._reserved == 0


def test_a_sender_that_leaves_frees_its_place(api):
    async def leaves():
        return {"type": "http.disconnect"}

    assert ask(api.client.app, leaves)[0]["status"] == 400
    assert api.jobs._reserved == 0 and isinstance(api.client.app, Guard)
