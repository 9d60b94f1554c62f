"""The page: its addresses, and what is the same for everybody who opens it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, HTTPException
from fastapi import Request as HTTPRequest
from nicegui import ui
from starlette.responses import FileResponse

from pristina.app.api import in_turn
from pristina.app.forms import form_of, picture_of
from pristina.app.outcome import read_picture, view

if TYPE_CHECKING:
    from pristina.app.jobs import Jobs

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
    """Add the addresses at which the page sends and shows pictures."""

    @app.post("/pictures")
    async def send(http: HTTPRequest) -> dict[str, Any]:
        with jobs.short():
            async with form_of(http, "picture") as form:
                content, name = await picture_of(form)
            upload = await in_turn(jobs, jobs.keep, content, name)
        return {"id": upload.id}

    @app.get("/pictures/{key}")
    async def before(key: str) -> FileResponse:
        try:
            upload = jobs.upload(key)
        except KeyError as error:
            raise HTTPException(404, "There is no such picture.") from error
        path = upload.path.with_name(f"{upload.path.name}.view")
        if not path.exists():
            picture = await in_turn(jobs, upload.read, jobs.limits)
            path.write_bytes(view(picture))
        return FileResponse(path, media_type="image/jpeg", headers=CACHED)

    @app.get("/restored/{key}")
    async def after(key: str) -> FileResponse:
        try:
            job = jobs.get(key)
        except KeyError as error:
            raise HTTPException(404, "There is no such job.") from error
        path = job.folder / "view"
        if not path.exists():
            if job.state != "done":
                raise HTTPException(409, "The job is not done.")
            path.write_bytes(view(await in_turn(jobs, read_picture, job.folder)))
        return FileResponse(path, media_type="image/jpeg", headers=CACHED)

    @app.get("/examples/{name}")
    def example(name: str) -> FileResponse:
        if name not in examples():
            raise HTTPException(404, "There is no such example.")
        return FileResponse(HERE / "examples" / name, media_type="image/jpeg", headers=CACHED)


def examples() -> list[str]:
    """Return the names of the example pictures."""
    return sorted(path.name for path in (HERE / "examples").glob("*.jpg"))
