"""The JSON API: plan, submit, status, events, result, cancel, delete."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args

from fastapi import APIRouter, FastAPI, HTTPException, Path, Query
from fastapi import Request as HTTPRequest
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import compile_path

from pristina import __version__
from pristina.app.description import (
    SENDING,
    docs_page,
    form_schema,
    links,
    problem_schema,
    responses,
)
from pristina.app.forms import file_of, form_of, marks_of, request_of
from pristina.app.job import MARKS, Job, JobState, Upload
from pristina.app.jobs import Jobs
from pristina.app.outcome import suffix_of
from pristina.app.rules import Busy
from pristina.errors import PristinaError
from pristina.estimates import Estimate
from pristina.image.encoding import FORMATS
from pristina.planning import Plan
from pristina.request import Request

POLL_S = 0.2
"""Time between two looks at a job whose events are sent, in seconds."""
SIGN_OF_LIFE_S = 15
"""Longest silence in a stream of events, in seconds."""

Key = Annotated[str, Path(description="Name of the job: the ``id`` that it was given.")]
Format = Literal["png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp", "avif"]
MEDIA = {kind: f"image/{kind.lower()}" for kind in {*FORMATS.values(), "GIF"}}
assert {f".{name}" for name in get_args(Format)} == set(FORMATS)

T = TypeVar("T")


class PlanAnswer(BaseModel):
    """What would be done, and what it would take."""

    method: str
    title: str
    weights: str | None
    settings: dict[str, Any]
    request: dict[str, Any]
    size: list[int]
    output_size: list[int]
    network_calls: int
    may_stop: bool
    seconds: float
    memory_bytes: int
    reading: dict[str, Any] | None
    notes: list[str]


class JobAnswer(BaseModel):
    """Where a job is."""

    id: str
    state: JobState
    position: int
    method: str
    request: dict[str, Any]
    step: int
    n_steps: int
    loss: float | None
    previews: int
    seconds: float
    stopped: str | None
    may_go_on: bool
    drawings: list[str]
    cost: dict[str, Any]
    notes: list[str]
    error: str | None


def job_answer(jobs: Jobs, job: Job) -> JobAnswer:
    """Describe a job."""
    return JobAnswer(
        id=job.id,
        state=job.state,
        position=jobs.position(job),
        method=job.planned.method,
        request=job.planned.to_json(),
        step=job.step,
        n_steps=job.n_steps,
        loss=job.loss,
        previews=job.n_previews,
        seconds=round(job.seconds, 3),
        stopped=job.stopped,
        may_go_on=job.may_go_on,
        drawings=list(job.drawings),
        cost=job.cost,
        notes=list(job.notes or job.plan_notes),
        error=job.error,
    )


async def in_turn(jobs: Jobs, function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in the one thread for short work."""
    return await _in_thread(jobs.short_work, function, *arguments)


async def measured(jobs: Jobs, plan: Plan) -> Estimate:
    """Measure what a plan will take, in the one thread for that."""
    return await _in_thread(jobs.measuring, jobs.estimate, plan)


async def _in_thread(pool: Executor, function: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)


def make_api(jobs: Jobs, *, with_token: bool = False) -> FastAPI:
    """Make the application that answers under ``/api/v1``.

    Args:
        jobs: The jobs of the server.
        with_token: Whether the description says that a token is needed.
    """
    api = FastAPI(
        title="pristina",
        version=__version__,
        description="Restore pictures: submit one, follow its events, fetch the result.",
        docs_url=None,
        redoc_url=None,
        servers=[{"url": "/api/v1"}],
        root_path_in_servers=False,
        generate_unique_id_function=lambda route: route.name,
    )
    api.include_router(_plans(jobs))
    api.include_router(_jobs(jobs))
    api.include_router(_progress(jobs))
    api.include_router(_results(jobs))
    add_error_handlers(api)

    @api.exception_handler(405)
    async def not_allowed(http: HTTPRequest, _: Exception) -> JSONResponse:
        # The framework names the methods of the first route that has the path, and not of all.
        path = http.url.path.removeprefix(http.scope.get("root_path", ""))
        allowed = {
            verb.upper()
            for template, operations in api.openapi()["paths"].items()
            if compile_path(template)[0].match(path)
            for verb in operations
        }
        sentence = f"{http.method} is not possible here."
        return JSONResponse({"detail": sentence}, 405, {"Allow": ", ".join(sorted(allowed))})

    @api.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(api.openapi()))

    plain = api.openapi

    def described() -> dict[str, Any]:
        schema = plain()
        if with_token and "security" not in schema:
            schemes = {"token": {"type": "http", "scheme": "bearer"}}
            schema.setdefault("components", {})["securitySchemes"] = schemes
            schema["security"] = [{"token": []}]
            for path in schema["paths"].values():
                for operation in path.values():
                    operation["responses"]["401"] = problem_schema("The token is missing.")
        return schema

    api.openapi = described  # type: ignore[method-assign]
    return api


def add_error_handlers(app: FastAPI) -> None:
    """Turn the errors of the package into answers with a sentence."""

    @app.exception_handler(Busy)
    async def busy(_: HTTPRequest, error: Busy) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 429, {"Retry-After": str(error.retry_s)})

    @app.exception_handler(PristinaError)
    async def refused(_: HTTPRequest, error: PristinaError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: HTTPRequest, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:]))
        return JSONResponse({"detail": f"{where}: {first['msg']}."}, 422)


def _job(jobs: Jobs, key: str) -> Job:
    try:
        return jobs.get(key)
    except KeyError as error:
        raise HTTPException(404, "There is no such job; perhaps it was removed.") from error


def _plans(jobs: Jobs) -> APIRouter:
    router = APIRouter(tags=["plan"])

    @router.post("/plan", responses=responses(*SENDING), openapi_extra=form_schema())
    async def plan(http: HTTPRequest) -> PlanAnswer:
        """Say what would be done to a picture, and what it would take; nothing is kept."""
        with jobs.short():
            async with form_of(http, "picture", "request", *MARKS) as form:
                sent = Sent(*await file_of(form), await marks_of(form))
                request = request_of(form)
            made = await in_turn(jobs, _planned, jobs, sent, request)
            return _plan_answer(made, await measured(jobs, made))

    return router


@dataclass(frozen=True)
class Sent:
    """A picture in a form, and the files that mark parts of it."""

    content: bytes
    name: str
    marks: dict[str, tuple[bytes, str]]

    @contextmanager
    def kept(self, jobs: Jobs) -> Iterator[Upload]:
        """Keep it for as long as the block takes."""
        upload = jobs.keep(self.content, self.name)
        try:
            jobs.mark(upload, self.marks)
            yield upload
        finally:
            jobs.drop(upload.id)


def _planned(jobs: Jobs, sent: Sent, request: Request) -> Plan:
    with sent.kept(jobs) as upload:
        return jobs.plan(upload, request)


def _plan_answer(made: Plan, estimate: Estimate) -> PlanAnswer:
    return PlanAnswer(
        method=made.entry.name,
        title=made.entry.title,
        weights=made.weights_name,
        settings=asdict(made.settings),
        request=made.request.to_json(),
        size=list(made.size),
        output_size=list(made.output_size),
        network_calls=made.calls.forward,
        may_stop=made.calls.may_stop,
        seconds=estimate.seconds,
        memory_bytes=estimate.peak_bytes,
        reading=None if made.reading is None else asdict(made.reading),
        notes=list(made.notes),
    )


def _jobs(jobs: Jobs) -> APIRouter:
    router = APIRouter(tags=["jobs"])

    accepted: dict[int | str, dict[str, Any]] = {202: {"links": links()}, **responses(*SENDING)}

    def answer(job: Job, response: Response) -> JobAnswer:
        response.headers["Location"] = f"/api/v1/jobs/{job.id}"
        return job_answer(jobs, job)

    @router.post("/jobs", status_code=202, responses=accepted, openapi_extra=form_schema())
    async def submit(http: HTTPRequest, response: Response) -> JobAnswer:
        """Put a picture into the queue."""
        with jobs.place():
            async with form_of(http, "picture", "request", *MARKS) as form:
                sent = Sent(*await file_of(form), await marks_of(form))
                request = request_of(form)
            return answer(await in_turn(jobs, _submitted, jobs, sent, request), response)

    @router.post(
        "/jobs/{key}/go-on",
        status_code=202,
        responses={**accepted, **responses(404)},
        openapi_extra=form_schema(picture=False),
    )
    async def go_on(key: Key, http: HTTPRequest, response: Response) -> JobAnswer:
        """Go on from where a finished job stopped, on its picture, as a new job."""
        earlier = _job(jobs, key)
        with jobs.place():
            async with form_of(http, "request") as form:
                request = request_of(form, earlier.planned)
            job = await in_turn(jobs, jobs.submit, earlier.upload, request, earlier)
            return answer(job, response)

    @router.get("/jobs/{key}", responses=responses(404, 422))
    async def status(key: Key) -> JobAnswer:
        """Say where a job is."""
        return job_answer(jobs, _job(jobs, key))

    @router.post("/jobs/{key}/cancel", responses=responses(404, 422))
    async def cancel(key: Key) -> JobAnswer:
        """Stop a job; the best result so far is kept."""
        job = _job(jobs, key)
        jobs.stop(job)
        return job_answer(jobs, job)

    @router.delete("/jobs/{key}", status_code=204, responses=responses(404, 422))
    async def delete(key: Key) -> None:
        """Stop a job at once, and remove everything about it."""
        jobs.delete(_job(jobs, key))

    return router


def _submitted(jobs: Jobs, sent: Sent, request: Request) -> Job:
    with sent.kept(jobs) as upload:
        return jobs.submit(upload, request)


async def _events(jobs: Jobs, job: Job) -> AsyncIterator[str]:
    last: Any = None
    silent = 0.0
    while True:
        answer = job_answer(jobs, job)
        news = (answer.state, answer.position, answer.step, answer.previews)
        if news != last:
            yield f"event: status\ndata: {answer.model_dump_json()}\n\n"
            last, silent = news, 0.0
        if job.finished or job.deleted.is_set():
            return
        await asyncio.sleep(POLL_S)
        silent += POLL_S
        if silent >= SIGN_OF_LIFE_S:
            yield ": still here\n\n"
            silent = 0.0


def _progress(jobs: Jobs) -> APIRouter:
    router = APIRouter(tags=["jobs"])

    @router.get(
        "/jobs/{key}/events",
        response_class=StreamingResponse,
        responses={
            200: {"description": "Events.", "content": {"text/event-stream": {"schema": {}}}},
            **responses(404, 422),
        },
    )
    async def events(key: Key) -> StreamingResponse:
        """Send an event (server-sent events) whenever a job has got further, until it ends."""
        job = _job(jobs, key)
        return StreamingResponse(_events(jobs, job), media_type="text/event-stream")

    @router.get(
        "/jobs/{key}/preview",
        response_class=Response,
        responses={
            200: {"description": "The picture.", "content": {"image/jpeg": {"schema": {}}}},
            **responses(404, 409, 422),
        },
    )
    async def preview(key: Key) -> Response:
        """Fetch the intermediate picture of a running job."""
        job = _job(jobs, key)
        if not job.preview:
            raise HTTPException(409, "There is no intermediate picture.")
        return Response(job.preview, media_type="image/jpeg", headers={"Cache-Control": "no-store"})

    return router


def _results(jobs: Jobs) -> APIRouter:
    router = APIRouter(tags=["results"])

    def done(key: str) -> Job:
        job = _job(jobs, key)
        if job.state == "failed":
            raise HTTPException(409, f"The job failed: {job.error}")
        if job.state != "done":
            raise HTTPException(409, f"The job is {job.state}; there is no result.")
        return job

    images: dict[str, Any] = {
        "description": "The picture.",
        "content": {media: {"schema": {"type": "string"}} for media in sorted(MEDIA.values())},
    }

    @router.get(
        "/jobs/{key}/result",
        response_class=FileResponse,
        responses={200: images, **responses(404, 409, 422)},
    )
    async def result(
        key: Key,
        format: Annotated[Format | None, Query(description="That of the picture if none.")] = None,
        quality: Annotated[
            int | None, Query(ge=1, le=100, description="Of JPEG, WebP, AVIF.")
        ] = None,
    ) -> FileResponse:
        """Fetch the restored picture, with the metadata of the original."""
        job = done(key)
        suffix = None if format is None else f".{format}"
        path = await in_turn(jobs, jobs.encoded, job, suffix, quality)
        suffix = suffix or suffix_of(job.upload.format)
        stem = job.upload.name.rpartition(".")[0] or job.upload.name
        return FileResponse(
            path, media_type=MEDIA[FORMATS[suffix]], filename=f"{stem}-restored{suffix}"
        )

    @router.get("/jobs/{key}/record", responses=responses(404, 409, 422))
    async def record(key: Key) -> dict[str, Any]:
        """Fetch all that is needed to run it again, and what came out."""
        found: dict[str, Any] = json.loads((done(key).folder / "record.json").read_text())
        return found

    @router.get(
        "/jobs/{key}/drawings/{name}",
        response_class=FileResponse,
        responses={
            200: {"description": "The drawing.", "content": {"image/png": {"schema": {}}}},
            **responses(404, 409, 422),
        },
    )
    async def drawing(key: Key, name: str) -> FileResponse:
        """Fetch a drawing: the change, the estimated kernel, the spread of several samples."""
        job = done(key)
        if name not in job.drawings:
            raise HTTPException(404, f"There is no drawing of this name; there are {job.drawings}.")
        return FileResponse(job.folder / f"{name}.png", media_type="image/png")

    return router
