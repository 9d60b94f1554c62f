"""The application: API, page, health and metrics behind one guard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import PlainTextResponse

from pristina import __version__
from pristina.app.api import add_error_handlers, make_api
from pristina.app.guard import LOOPBACK, Guard
from pristina.app.jobs import Jobs
from pristina.app.rules import MAX_UPLOAD_BYTES
from pristina.methods.steps.recorder import peak_bytes


def make_app(
    jobs: Jobs,
    *,
    token: str | None = None,
    hosts: tuple[str, ...] | None = LOOPBACK,
    page: bool = True,
    report: Path | None = None,
) -> Callable[..., Any]:
    """Make the application of a server.

    Args:
        jobs: The jobs; they are closed when the application ends.
        token: Token that every request needs; None for none.
        hosts: Names under which it answers; None for any.
        page: Whether the page is part of it, beside the API.
        report: Folder of a benchmark report that the page shows.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        jobs.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    add_error_handlers(app)

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @app.get("/metrics")
    def metrics() -> PlainTextResponse:
        return PlainTextResponse(metrics_text(jobs), media_type="text/plain; version=0.0.4")

    app.mount("/api/v1", make_api(jobs, with_token=token is not None))
    if page:
        from pristina.app.page import add_page

        add_page(app, jobs, report)
    return Guard(app, MAX_UPLOAD_BYTES, hosts, token)


def metrics_text(jobs: Jobs) -> str:
    """Return the figures of a server in the text format of Prometheus."""
    import torch

    now, counts = jobs.snapshot(), jobs.counts
    lines = []
    for name, kind, words in (
        ("accepted", "counter", "Jobs accepted"),
        ("refused", "counter", "Requests refused because the server was busy"),
        ("done", "counter", "Jobs done"),
        ("failed", "counter", "Jobs failed"),
        ("cancelled", "counter", "Jobs cancelled without a result"),
    ):
        full = f"pristina_jobs_{name}_total"
        lines += [f"# HELP {full} {words}.", f"# TYPE {full} {kind}", f"{full} {counts[name]}"]
    gauges = {
        "pristina_jobs_waiting": ("Jobs that wait.", now["waiting"]),
        "pristina_jobs_running": ("Jobs that run.", now["running"]),
        "pristina_jobs_kept": ("Jobs whose results are kept.", now["kept"]),
        "pristina_weights_resident": ("Weights in memory.", now["weights"]),
        "pristina_memory_peak_bytes": (
            "Largest memory of the process so far.",
            peak_bytes(torch.device("cpu")),
        ),
    }
    for full, (words, value) in gauges.items():
        lines += [f"# HELP {full} {words}", f"# TYPE {full} gauge", f"{full} {value:.0f}"]
    full = "pristina_jobs_seconds_total"
    lines += [f"# HELP {full} Time spent on jobs.", f"# TYPE {full} counter"]
    lines += [f"{full} {jobs.seconds:.3f}"]
    return "\n".join(lines) + "\n"
