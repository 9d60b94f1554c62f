import io
import json
import time

import numpy as np
import pytest
from PIL import Image

collect_ignore = ["browser.py", "load.py", "schema_hooks.py"]
"""They need a browser, minutes or schemathesis; they are run on demand."""

pytest.importorskip("nicegui", reason="The server needs its extra: pip install 'pristina[app]'.")


def painted(*boxes, height=64, width=64):
    """Return the file of a mask: white in boxes (left, top, right, bottom)."""
    mask = Image.new("L", (width, height))
    for box in boxes:
        mask.paste(255, box)
    file = io.BytesIO()
    mask.save(file, "PNG")
    return file.getvalue()


def encoded(height=64, width=64, kind="PNG", seed=0, **options):
    """Return the file of a picture of noise."""
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, kind, **options)
    return file.getvalue()


class API:
    """The API, called in this process."""

    def __init__(self, client, jobs):
        self.client, self.jobs = client, jobs

    def post(self, path, content=None, name="in.png", request=None, marks=None, **fields):
        files = {k: (f"the {k}.png", v) for k, v in (marks or {}).items()}
        files |= {} if content is None else {"picture": (name, content)}
        if request is not None:
            fields["request"] = json.dumps(request)
        if not files:  # A form all the same.
            files = {k: (None, v) for k, v in fields.items()}
            fields = {}
        return self.client.post(f"/api/v1/{path}", files=files, data=fields)

    def get(self, path):
        return self.client.get(f"/api/v1/{path}")

    def submit(self, content=None, **more):
        answer = self.post("jobs", encoded() if content is None else content, **more)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def wait(self, key, *states):
        states = states or ("done", "failed", "cancelled")
        for _ in range(1200):
            found = self.get(f"jobs/{key}").json()
            if found["state"] in states:
                return found
            time.sleep(0.05)
        raise AssertionError(found)


@pytest.fixture
def make_api(tmp_path):
    """Make servers whose private folders are in one folder."""
    entered = []

    from starlette.testclient import TestClient

    from pristina.app.jobs import Jobs
    from pristina.app.rules import Limits
    from pristina.app.server import make_app

    def make(limits=Limits(), **options):
        jobs = Jobs(limits, tmp_path)
        client = TestClient(
            make_app(jobs, page=False, **options), base_url="http://127.0.0.1", headers={}
        )
        entered.append(client)
        return API(client.__enter__(), jobs)

    yield make
    for client in entered:
        client.__exit__(None, None, None)


@pytest.fixture
def api(make_api):
    return make_api()
