"""The page: its addresses, and what is the same for everybody who opens it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, HTTPException
from fastapi import Request as HTTPRequest
from nicegui import ui
from starlette.responses import FileResponse

from pristina.app.api import in_turn
from pristina.app.folder import atomically
from pristina.app.forms import file_of, form_of, marks_of
from pristina.app.job import MARKS, Job, Upload
from pristina.app.outcome import read_picture, view

if TYPE_CHECKING:
    from pristina.app.jobs import Jobs
    from pristina.image.picture import Picture

HERE = Path(__file__).parent
LEFT_S = 300.0
"""Time after which somebody who has closed the page is taken to have left, in seconds."""
CACHED = {"Cache-Control": "private, max-age=3600"}
COLOURS = {"primary": "#1d5c57", "secondary": "#5b6361", "accent": "#1d5c57"}


def add_page(app: FastAPI, jobs: Jobs, report: Path | None) -> None:
    """Add the page to an application.

    Args:
        app: The application.
        jobs: The jobs of the server.
        report: Folder of a benchmark report that the page shows.
    """
    _add_pictures(app, jobs)
    _add_results(app, jobs)
    if report is not None:

        @app.get("/report")
        def report_page() -> FileResponse:
            return FileResponse(report / "report.html", media_type="text/html")

    ui.add_head_html(f"<style>{(HERE / 'style.css').read_text()}</style>", shared=True)

    @ui.page("/", title="Pristina: restore a photo")
    def start() -> None:
        from pristina.app.session import Session

        ui.colors(**COLOURS)
        Session(jobs).build(has_report=report is not None)

    ui.run_with(app, language="en-US", reconnect_timeout=LEFT_S, show_welcome_message=False)


def _add_pictures(app: FastAPI, jobs: Jobs) -> None:
    """Add the addresses at which the page sends, marks and shows pictures."""

    def upload_of(key: str) -> Upload:
        try:
            return jobs.upload(key)
        except KeyError as error:
            raise HTTPException(404, "There is no such picture.") from error

    @app.post("/pictures")
    async def send(http: HTTPRequest) -> dict[str, Any]:
        with jobs.short():
            async with form_of(http, "picture") as form:
                content, name = await file_of(form)
            upload = await in_turn(jobs, jobs.keep, content, name)
        return {"id": upload.id}

    @app.post("/pictures/{key}/marks")
    async def mark(key: str, http: HTTPRequest) -> dict[str, Any]:
        upload = upload_of(key)
        stem = upload.name.rpartition(".")[0] or upload.name
        with jobs.short():
            async with form_of(http, *MARKS) as form:
                sent = await marks_of(form)
            named = {
                field: (content, f"{stem}-{field}.png") for field, (content, _) in sent.items()
            }
            await in_turn(jobs, jobs.mark, upload, named)
        return {"marks": list(upload.marks)}

    @app.get("/pictures/{key}")
    async def before(key: str) -> FileResponse:
        upload = upload_of(key)
        path = upload.path.with_name(f"{upload.path.name}.view")
        return await _view(jobs, path, upload.read, jobs.limits)

    @app.get("/examples/{name}")
    def example(name: str) -> FileResponse:
        if name not in examples():
            raise HTTPException(404, "There is no such example.")
        return FileResponse(HERE / "examples" / name, media_type="image/jpeg", headers=CACHED)


def _add_results(app: FastAPI, jobs: Jobs) -> None:
    """Add the addresses at which the page shows what has become of pictures."""

    def job_of(key: str) -> Job:
        try:
            return jobs.get(key)
        except KeyError as error:
            raise HTTPException(404, "There is no such job.") from error

    @app.get("/restored/{key}")
    async def after(key: str) -> FileResponse:
        job = job_of(key)
        if job.state != "done":
            raise HTTPException(409, "The job is not done.")
        return await _view(jobs, job.folder / "view", read_picture, job.folder)

    @app.get("/restored/{key}/{field}")
    def marked(key: str, field: str) -> FileResponse:
        mark = job_of(key).upload.marks.get(field)
        if mark is None:
            raise HTTPException(404, "Nothing of this kind was marked.")
        return FileResponse(mark.path, media_type="image/png", filename=mark.name)


async def _view(
    jobs: Jobs, path: Path, read: Callable[..., Picture], *arguments: Any
) -> FileResponse:
    """Answer with a view of a picture, which is made once."""

    def make() -> None:
        if not path.exists():
            atomically(path, view(read(*arguments)))

    await in_turn(jobs, make)
    return FileResponse(path, media_type="image/jpeg", headers=CACHED)


def examples() -> list[str]:
    """Return the names of the example pictures."""
    return sorted(path.name for path in (HERE / "examples").glob("*.jpg"))
