"""The JSON API: what it does, what it refuses, and that it leaves nothing behind."""

import io
import struct
import threading
import zlib

import pytest
from PIL import Image

import pristina
from pristina import planning
from pristina.app import jobs as jobs_module
from pristina.app.rules import Limits
from pristina.errors import Cancelled
from pristina.priors.load import load_weights
from tests.app.conftest import encoded, painted

DIIP = {"method": "diip", "settings": {"iterations": 4, "sampler_steps": 2, "rule": "none"}}


def test_a_picture_is_restored_and_nothing_is_left(api, tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "Aunt Ida"
    content = encoded(kind="JPEG", quality=90, exif=exif)
    key = api.submit(content, name="../../aunt ida.jpg")
    with api.client.stream("GET", f"/api/v1/jobs/{key}/events") as stream:
        lines = [line for line in stream.iter_lines() if line.startswith("data:")]
    assert '"state":"done"' in lines[-1]
    answer = api.get(f"jobs/{key}/result")
    assert "aunt%20ida-restored.jpg" in answer.headers["content-disposition"]
    assert "/" not in answer.headers["content-disposition"]
    got = Image.open(io.BytesIO(answer.content))
    assert (got.format, got.size, got.getexif()[0x010E]) == ("JPEG", (64, 64), "Aunt Ida")
    direct = pristina.restore(pristina.Picture.decode(content, "aunt.jpg"))
    assert answer.content == direct.picture.encode("x.jpg")
    record = api.get(f"jobs/{key}/record").json()
    assert pristina.Request.from_record(record).prior == direct.plan.request.prior
    assert str(tmp_path) not in str(record) and "/" not in record["weights"]["file"]
    assert Image.open(io.BytesIO(api.get(f"jobs/{key}/result?format=tif").content)).format == "TIFF"
    assert api.get(f"jobs/{key}/drawings/change").headers["content-type"] == "image/png"
    assert api.get(f"jobs/{key}/drawings/state").status_code == 404
    assert api.client.delete(f"/api/v1/jobs/{key}").status_code == 204
    assert api.get(f"jobs/{key}").status_code == 404
    assert [path.name for path in api.jobs.folder.path.iterdir()] == ["lock"]


def test_a_plan_is_that_of_the_library_and_keeps_nothing(api):
    content = encoded()
    answer = api.post("plan", content).json()
    plan = pristina.plan(pristina.Picture.decode(content, "in.png"))
    assert (answer["method"], answer["weights"]) == (plan.entry.name, plan.weights_name)
    assert answer["notes"] == list(plan.notes) and answer["seconds"] > 0
    assert [path.name for path in api.jobs.folder.path.iterdir()] == ["lock"]


def test_a_clean_picture_comes_back_bit_for_bit(api):
    content = encoded(kind="JPEG", quality=95)
    key = api.submit(content, request={"method": "nothing"})
    api.wait(key, "done")
    assert api.get(f"jobs/{key}/result").content == content


HOLE, KEPT = (8, 8, 20, 12), (30, 30, 50, 50)
MARKED = {"mask": painted(HOLE), "protect": painted(KEPT)}


def test_parts_are_filled_and_left_alone_as_in_the_library(api, tmp_path):
    content = encoded()
    request = {"method": "indi", "prior": "denoise", "strength": 0.5}
    key = api.submit(content, request=request, marks=MARKED)
    found = api.wait(key, "done")
    assert (found["request"]["mask"], found["request"]["protect"]) == (
        "the mask.png", "the protect.png",
    )  # fmt: skip
    for name, mark in MARKED.items():
        (tmp_path / name).write_bytes(mark)
    direct = pristina.restore(
        pristina.Picture.decode(content, "in.png"),
        **request,
        mask=tmp_path / "mask",
        protect=tmp_path / "protect",
    )
    answer = api.get(f"jobs/{key}/result").content
    assert answer == direct.picture.encode("x.png")
    before, after = (Image.open(io.BytesIO(one)) for one in (content, answer))
    assert before.crop(KEPT).tobytes() == after.crop(KEPT).tobytes()
    filled = Image.open(io.BytesIO(api.get(f"jobs/{key}/drawings/filled").content))
    assert filled.tobytes() == Image.open(io.BytesIO(MARKED["mask"])).tobytes()
    record = api.get(f"jobs/{key}/record").json()
    assert record["request"]["mask"] == "the mask.png" and str(tmp_path) not in str(record)
    api.client.delete(f"/api/v1/jobs/{key}")
    assert [path.name for path in api.jobs.folder.path.iterdir()] == ["lock"]


def test_a_picture_that_is_only_filled_is_not_the_file_that_was_sent(api):
    content = encoded(kind="JPEG", quality=95)
    key = api.submit(content, request={"method": "nothing"}, marks={"mask": painted(HOLE)})
    api.wait(key, "done")
    assert api.get(f"jobs/{key}/result").content != content


@pytest.mark.parametrize("more", [{"levels": True}, {"scale": 2}])
def test_a_picture_that_is_only_stretched_or_enlarged_is_not_either(api, more):
    content = encoded(kind="JPEG", quality=95)
    key = api.submit(content, request={"method": "nothing", **more})
    api.wait(key, "done")
    assert api.get(f"jobs/{key}/result").content != content


def test_who_goes_on_may_repeat_the_names_of_the_marks_and_no_others(api):
    key = api.submit(request=DIIP, marks={"protect": MARKED["protect"]})
    found = api.wait(key, "done")
    again = api.post(f"jobs/{key}/go-on", request=found["request"])
    assert again.status_code == 202, again.text
    assert api.wait(again.json()["id"])["request"]["protect"] == "the protect.png"
    other = api.post(f"jobs/{key}/go-on", request={**DIIP, "protect": "/etc/passwd"})
    assert other.status_code == 422 and "reads no files" in other.json()["detail"]
    both = api.post(f"jobs/{key}/go-on", request=DIIP, marks=MARKED)
    assert both.status_code == 422 and "may hold request" in both.json()["detail"]


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        (b"Dear Ida", "the mask.png is not a picture"),
        (painted(width=32), "the mask.png has 32 x 64 px and the picture 64 x 64 px"),
        (painted((0, 0, 64, 64)), "marks the whole picture"),
    ],
)
def test_masks_that_cannot_be_used_are_refused(api, mark, words):
    answer = api.post("plan", encoded(), marks={"mask": mark})
    assert answer.status_code == 422 and words in answer.json()["detail"], answer.text
    assert [path.name for path in api.jobs.folder.path.iterdir()] == ["lock"]


def test_a_mask_painted_on_a_reduced_picture_is_enlarged(api):
    upload = api.jobs.keep(encoded(90, 120), "in.png")
    api.jobs.mark(upload, {"mask": (painted((4, 3, 8, 6), height=30, width=40), "m.png")})
    filling = api.jobs.plan(upload, pristina.Request(method="nothing")).filling
    expected = Image.open(io.BytesIO(painted((12, 9, 24, 18), height=90, width=120)))
    assert Image.fromarray(filling.holes[0].mul(255).byte().numpy()).tobytes() == expected.tobytes()
    api.jobs.mark(upload, {"mask": (painted(height=30, width=40), "m.png")})
    assert api.jobs.plan(upload, pristina.Request(method="nothing")).filling is None
    api.jobs.drop(upload.id)
    api.jobs.mark(upload, {"mask": (painted((4, 3, 8, 6), height=30, width=40), "m.png")})
    assert [path.name for path in api.jobs.folder.path.iterdir()] == ["lock"]


def test_a_picture_is_looked_at_once_however_often_it_is_planned(api, monkeypatch):
    looked, original = [], planning.read_damage

    def counted(*arguments):
        looked.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(planning, "read_damage", counted)
    upload = api.jobs.keep(encoded(), "in.png")
    plans = [api.jobs.plan(upload, pristina.Request(seed=seed)) for seed in range(3)]
    assert len(looked) == 1
    assert len({plan.notes for plan in plans}) == 1
    api.jobs.mark(upload, {"mask": (painted(HOLE), "m.png")})
    api.jobs.plan(upload, pristina.Request())
    assert len(looked) == 2


class Finder:
    """Take everything light for a scratch, in place of trained weights."""

    device = "cpu"

    def predict(self, x):
        return (x.mean(1, keepdim=True) > 0.8).float()


def test_scratches_are_looked_for_once_and_filled(api, monkeypatch):
    looked = []

    def load(kind, source, **more):
        if kind != "scratches":
            return load_weights(kind, source, **more)
        return looked.append(source) or Finder()

    scratched = Image.new("RGB", (64, 64), "#404850")
    scratched.paste("white", (10, 30, 50, 32))
    file = io.BytesIO()
    scratched.save(file, "PNG")
    monkeypatch.setattr(api.jobs, "weights", load)
    predict = Finder.predict
    monkeypatch.setattr(
        Finder, "predict", lambda self, x: looked.append("look") or predict(self, x)
    )
    request = {"method": "nothing", "scratches": True}
    plan = api.post("plan", file.getvalue(), request=request).json()
    assert "pixels of scratches" in plan["notes"][0]
    key = api.submit(file.getvalue(), request=request)
    assert api.wait(key, "done")["drawings"] == ["filled"]
    after = Image.open(io.BytesIO(api.get(f"jobs/{key}/result").content))
    assert max(channel[1] for channel in after.getextrema()) < 90
    assert looked.count("look") == 1 and set(looked) == {"look", "scratches"}


def bomb():
    """Return a small file that claims 30,000 x 30,000 px."""

    def chunk(name, body):
        return (
            struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))
        )

    header = struct.pack(">LLBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10_000_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "request_", "words"),
    [
        (b"Dear Ida", None, "is not a picture"),
        (b"", None, "empty"),
        (encoded()[:900], None, "damaged or cut off"),
        (bomb(), None, "million pixels"),
        (encoded(700, 800), None, "million pixels"),
        (encoded(), {"samples": 200, "method": "dreamclean"}, "million pixels"),
        (encoded(), {"recipe": "bicubic:factor=20", "method": "indi"}, "million pixels"),
        (encoded(), {"method": "no_such"}, "no method"),
        (encoded(), {"no_such": 1}, "not a request"),
        (encoded(), {"prior": "/etc/passwd", "method": "mmse"}, "takes weights by name"),
        (encoded(), {"prior": "pyproject.toml", "method": "mmse"}, "takes weights by name"),
        (
            encoded(),
            {
                "method": "blind_dps",
                "recipe": "kernel",
                "settings": {"kernel_prior": "/etc/passwd"},
            },
            "takes weights by name",
        ),
        (
            encoded(),
            {"method": "bird", "recipe": "mask:file=/etc/passwd"},
            "reads no files",
        ),
        (encoded(), {"protect": "/etc/passwd"}, "reads no files"),
        (encoded(), {"mask": "/etc/passwd"}, "reads no files"),
        (encoded(), {"device": "cuda"}, "chosen by the server"),
        (encoded(), {"threads": 4}, "chosen by the server"),
        (encoded(), {"memory_bytes": 4}, "chosen by the server"),
    ],
)
@pytest.mark.parametrize("path", ["plan", "jobs"])
def test_what_cannot_be_used_is_refused_in_a_sentence(make_api, content, request_, words, path):
    api = make_api(Limits(megapixels=0.5))
    answer = api.post(path, content, request=request_)
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["detail"] and "passwd:" not in answer.text
    assert [path.name for path in api.jobs.folder.path.iterdir()] == ["lock"]
    assert api.client.get("/healthz").status_code == 200


def test_forms_without_what_is_needed_are_refused(api):
    assert api.client.post("/api/v1/jobs", json={}).status_code == 415
    assert "no file" in api.post("jobs", request={"seed": 1}).json()["detail"]
    assert "each once" in api.post("jobs", encoded(), requests="{}").json()["detail"]
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert api.client.post("/api/v1/jobs", content=b"--y", headers=broken).status_code in (400, 422)


def test_a_request_that_is_no_json_is_refused(api):
    files = {"picture": ("in.png", encoded())}
    answer = api.client.post("/api/v1/plan", files=files, data={"request": "{"})
    assert answer.status_code == 422 and "not JSON" in answer.json()["detail"]


@pytest.fixture
def held(monkeypatch):
    """Hold every job at its first step until the event is set."""
    go, original = threading.Event(), jobs_module.run

    def slow(plan, images, *, on_step, **more):
        while not go.wait(0.02):
            try:
                on_step(pristina.types.StepEvent(1, 3, images, images.mean((1, 2, 3))))
            except Cancelled:
                break
        return original(plan, images, on_step=on_step, **more)

    monkeypatch.setattr(jobs_module, "run", slow)
    yield go
    go.set()


def test_the_queue_is_bounded_and_nothing_accepted_is_lost(make_api, held):
    api = make_api(Limits(queue=3))
    first = api.submit()
    api.wait(first, "running")
    waiting = [api.submit() for _ in range(3)]
    for path in ("jobs", "jobs"):
        refused = api.post(path, encoded())
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
    assert [api.get(f"jobs/{key}").json()["position"] for key in waiting] == [1, 2, 3]
    assert api.get(f"jobs/{waiting[0]}/result").status_code == 409
    assert api.client.post(f"/api/v1/jobs/{waiting[1]}/cancel").json()["state"] == "cancelled"
    assert api.get(f"jobs/{waiting[1]}/result").status_code == 409
    held.set()
    for key in (first, waiting[0], waiting[2]):
        assert api.wait(key)["state"] == "done"
    metrics = api.client.get("/metrics").text
    assert "pristina_jobs_accepted_total 4" in metrics
    assert "pristina_jobs_refused_total 2" in metrics
    assert "pristina_jobs_done_total 3" in metrics
    assert "pristina_weights_resident 2" in metrics  # The reader and blind.


def test_a_running_job_that_is_deleted_ends_and_leaves_nothing(api, held):
    key = api.submit()
    api.wait(key, "running")
    assert api.client.delete(f"/api/v1/jobs/{key}").status_code == 204
    after = api.submit(request={"method": "nothing"})
    held.set()
    api.wait(after, "done")
    assert not (api.jobs.folder.path / f"job-{key}").exists()


def test_intermediate_pictures_are_shown(api, held, monkeypatch):
    monkeypatch.setattr(jobs_module, "PREVIEW_S", 0.0)
    key = api.submit()
    while not api.get(f"jobs/{key}").json()["previews"]:
        pass
    assert Image.open(io.BytesIO(api.get(f"jobs/{key}/preview").content)).size == (64, 64)


def test_a_stopped_job_goes_on_to_the_same_bits(api, monkeypatch):
    whole = api.submit(request=DIIP)
    assert api.wait(whole)["stopped"] == "all steps done"
    original = jobs_module.run

    def stopped(plan, images, *, on_step, **more):
        def on(event):
            on_step(event)
            if event.step == 2:
                raise Cancelled

        return original(plan, images, on_step=on, **more)

    with monkeypatch.context() as patch:
        patch.setattr(jobs_module, "run", stopped)
        part = api.submit(request=DIIP)
        found = api.wait(part)
    assert found["stopped"] == "cancelled at step 2" and found["may_go_on"]
    answer = api.post(f"jobs/{part}/go-on", request=DIIP)
    assert answer.status_code == 202, answer.text
    rest = answer.json()["id"]
    found = api.wait(rest)
    assert found["stopped"] == "all steps done"
    calls = [api.wait(key)["cost"]["network_calls"] for key in (rest, whole)]
    assert 0 < calls[0] < calls[1]
    assert api.get(f"jobs/{rest}/result").content == api.get(f"jobs/{whole}/result").content
    assert api.get(f"jobs/{part}/result").content != api.get(f"jobs/{whole}/result").content
    assert api.post("jobs/none/go-on", request=DIIP).status_code == 404


def test_samples_and_kernels_are_drawn(api):
    settings = {"iterations": 1, "sampler_steps": 1}
    request = {"method": "bird", "recipe": "kernel:size=5", "samples": 2, "settings": settings}
    key = api.submit(request=request)
    found = api.wait(key)
    assert found["drawings"] == ["change", "kernel", "spread", "sample-1", "sample-2"], found
    size = Image.open(io.BytesIO(api.get(f"jobs/{key}/drawings/kernel").content)).size
    assert size == (240, 240)


def test_the_time_limit_keeps_the_best_so_far(make_api):
    api = make_api(Limits(minutes=1e-6))
    key = api.submit(request=DIIP)
    found = api.wait(key)
    if found["state"] == "done":
        assert "limit here" in found["notes"][-1] and found["step"] < 5
    else:
        assert "faster method" in found["error"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("boom /secret/path"), "its log says more"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "more memory"),
        (pristina.InputError("It diverged."), "It diverged."),
    ],
)
def test_a_job_that_fails_says_why_and_the_worker_goes_on(api, monkeypatch, error, words, caplog):
    def fails(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(jobs_module, "run", fails)
        key = api.submit()
        found = api.wait(key)
    assert found["state"] == "failed" and words in found["error"]
    assert "secret" not in found["error"]
    assert api.get(f"jobs/{key}/result").status_code == 409
    assert api.wait(api.submit())["state"] == "done"


def test_other_methods_are_refused_with_those_that_are_possible(api):
    answer = api.client.put("/api/v1/jobs/x")
    assert answer.status_code == 405 and answer.headers["allow"] == "DELETE, GET"


def test_old_results_are_removed(api, monkeypatch):
    key = api.submit()
    api.wait(key)
    monkeypatch.setattr(jobs_module, "KEPT_S", -1)
    api.submit()
    assert api.get(f"jobs/{key}").status_code == 404
    assert not (api.jobs.folder.path / f"job-{key}").exists()


def test_the_description_names_every_answer_and_the_page_needs_no_other_host(api):
    schema = api.get("openapi.json").json()
    assert set(schema["paths"]["/jobs"]["post"]["responses"]) >= {"202", "413", "422", "429"}
    page = api.get("docs").text
    assert all(path in page for path in schema["paths"])
    assert "http" not in page.replace("http-equiv", "")
