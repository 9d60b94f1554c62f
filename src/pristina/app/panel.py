"""The panel of the page: what is seen, what will be done, how far it is, what was found."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nicegui import ui

from pristina.app.elements import slider
from pristina.app.outcome import suffix_of
from pristina.app.words import (
    command_line,
    cost_words,
    damage_words,
    notes_but_reason,
    plan_words,
    python_code,
    time_words,
)

if TYPE_CHECKING:
    from pristina.app.job import Job
    from pristina.app.session import Item, Session

CAPTIONS = {
    "filled": "What was filled in (white).",
    "change": "Where something was changed: the lighter, the more.",
    "kernel": "The blur that was found: how one point was smeared.",
    "mask": "The pixels that were there (white) and missing (black).",
    "spread": "How much the samples differ: the lighter, the less sure.",
}
FORMATS = {"": "same format", "png": "PNG", "jpg": "JPEG", "tif": "TIFF", "webp": "WebP"}
JPEG_QUALITY = 95
BUSY_OR_DONE = ("queued", "running", "done")


class Panel:
    """The panel beside the picture.

    Args:
        session: The page to which it belongs.
    """

    def __init__(self, session: Session):
        self.session = session
        self.progress: Any = None

    def refresh(self) -> None:
        """Draw it again."""
        self.seen.refresh()
        self.action.refresh()
        self.found.refresh()

    def build(self) -> None:
        """Draw it."""
        self.seen()
        self.action()

    @ui.refreshable_method
    def seen(self) -> None:
        """Draw what is seen in the picture, and what would be done."""
        item = self.session.item
        if item is None or (item.shown is not None and item.shown.state in BUSY_OR_DONE):
            return
        height, width = item.upload.size
        ui.html("What we see", tag="h2")
        plan = item.plan
        if item.reading is not None:
            _paragraph(damage_words(item.reading))
        _paragraph(f"{item.upload.name}, {width} x {height} pixels.").classes("hint")
        if item.problem is not None:
            ui.label(item.problem).classes("problem").props('role="alert"')
        elif plan is None:
            _paragraph("Looking at it …").props('role="status"')
        else:
            _paragraph(plan_words(plan))
            if item.estimate is not None and plan.entry.name != "nothing":
                _paragraph(cost_words(plan, item.estimate))
            if plan.entry.name != "nothing":
                self._strength()
            for note in notes_but_reason(plan.notes, plan.reason):
                _paragraph(note).classes("hint")
            if plan.reason:
                with ui.expansion("In figures").classes("w-full").props("dense"):
                    _paragraph(plan.reason).classes("hint")
        self._places()

    def _strength(self) -> None:
        """Draw the slider of the share of the change that is made."""

        def chosen() -> None:
            self.session.strength = drawn.value

        drawn = slider("Strength", self.session.strength or 1.0, 0.05, chosen)

    def _places(self) -> None:
        """Draw what chooses parts of the picture."""
        session = self.session
        if session.finds:
            ui.switch(
                "Find scratches and dust by itself",
                value=session.scratches,
                on_change=lambda event: session.want(scratches=event.value),
            )
        ui.switch(
            "Freshen faded colours",
            value=session.levels,
            on_change=lambda event: session.want(levels=event.value),
        )
        word = "Done with marking" if session.marking else "Mark places with a brush"
        button = ui.button(word, icon="brush", on_click=session.mark).props("outline")
        button.classes("w-full")

    @ui.refreshable_method
    def action(self) -> None:
        """Draw what can be done now."""
        item = self.session.item
        self.progress = None
        if item is None:
            return
        job = item.shown
        if job is not None and not job.finished:
            self._running(job)
        elif job is not None and job.state == "done":
            self._done(item, job)
        else:
            if job is not None and job.error:
                ui.label(job.error).classes("problem").props('role="alert"')
            self._start(item, "Restore")

    def _start(self, item: Item, word: str) -> None:
        act = self.session.restore
        if item.plan and item.plan.leaves_alone and self.session.choices.method.value == "auto":
            word, act = "Restore it all the same", self.session.insist
        button = ui.button(word, on_click=act).classes("main").props("unelevated")
        button.set_enabled(item.plan is not None)
        if len(self.session.items) > 1:
            n = len(self.session.items)
            ui.button(f"Restore all {n}", on_click=self.session.restore_all).props(
                "outline"
            ).classes("w-full")

    def _running(self, job: Job) -> None:
        bar = ui.linear_progress(value=0, show_value=False, size="12px")
        bar.props('rounded aria-label="Progress"')
        words = ui.label().props('role="status"')
        self.progress = (bar, words)
        ui.button("Stop and keep this", on_click=self.session.stop).props("outline").classes(
            "w-full"
        )
        self.update_progress(job)

    def update_progress(self, job: Job) -> None:
        """Show how far a job is."""
        if self.progress is None:
            return
        bar, words = self.progress
        position = self.session.jobs.position(job)
        if position:
            before = position - 1
            words.text = f"Waiting; {before} before this one." if before else "Waiting."
        elif job.stop.is_set():
            words.text = "Stopping after this step …"
        elif not job.step:
            words.text = f"Working, {job.seconds:.0f} s so far …"
        else:
            left = (job.n_steps - job.step) * job.seconds / job.step
            bar.value = job.step / job.n_steps
            words.text = f"Step {job.step} of at most {job.n_steps}, about {time_words(left)} left."

    def _done(self, item: Item, job: Job) -> None:
        left_alone = job.left_alone
        ui.html("Left as it is" if left_alone else "Restored", tag="h2")
        for note in notes_but_reason(job.notes, job.reason):
            _paragraph(note).classes("hint")
        if job.stopped and "cancelled" in job.stopped:
            _paragraph(f"You stopped it after step {job.step}; this is the best so far.")
        self._download(item, job)
        self._go_on(job)
        ui.button("Restore it differently", on_click=self._again).props("flat").classes("w-full")

    def _again(self) -> None:
        if self.session.item is not None:
            self.session.item.shown = None
            self.session._refresh_results()

    def _download(self, item: Item, job: Job) -> None:
        own = suffix_of(job.upload.format).lstrip(".")
        with ui.row().classes("w-full items-center no-wrap gap-3"):
            button = ui.button("Download", icon="download").classes("grow main").props("unelevated")
            kind = ui.select(FORMATS, value="").props('dense borderless aria-label="Format"')

        def aim() -> None:
            suffix = kind.value or own
            quality = f"&quality={JPEG_QUALITY}" if suffix in ("jpg", "jpeg") else ""
            quality = "" if job.left_alone and not kind.value else quality
            button.props(f'href="/api/v1/jobs/{job.id}/result?format={suffix}{quality}" download')

        kind.on_value_change(aim)
        aim()

    def _go_on(self, job: Job) -> None:
        """Draw the button to go on, where there is something to go on with."""
        if not job.may_go_on:
            return
        request = job.planned
        if job.stopped and "cancelled" in job.stopped:
            text = "Go on from here"
        elif job.stopped == "all steps done" and job.n_steps > 1:
            # Twice as many steps as so far, where the method counts them in iterations.
            iterations = {"iterations": 2 * job.n_steps}
            if "iterations" not in _settings_of(job):
                return
            request = replace(request, settings={**request.settings, **iterations})
            text = "Go on for as long again"
        else:
            return
        ui.button(text, on_click=lambda: self.session.go_on(request)).props("outline").classes(
            "w-full"
        )

    @ui.refreshable_method
    def found(self) -> None:
        """Draw what was found, and how to do the same elsewhere."""
        item = self.session.item
        job = None if item is None else item.shown
        if job is None or job.state != "done":
            return
        if job.drawings or job.reason:
            with ui.expansion("What was found and changed").classes("w-full"):
                if job.reason:
                    _paragraph(job.reason)
                with ui.element("div").classes("drawings"):
                    self._drawings(job)
        with ui.expansion("Do the same in a terminal or in Python").classes("w-full"):
            self._code(job)

    def _drawings(self, job: Job) -> None:
        for name in job.drawings:
            caption = CAPTIONS.get(name, name.replace("-", " ").capitalize())
            with ui.element("figure"):
                ui.element("img").props(f'src="/api/v1/jobs/{job.id}/drawings/{name}" alt="{name}"')
                with ui.element("figcaption"):
                    ui.label(caption)

    def _code(self, job: Job) -> None:
        name = job.upload.name
        suffix = suffix_of(job.upload.format)
        output = f"{name.rpartition('.')[0] or name}-restored{suffix}"
        for words in (
            command_line(job.planned, name, output),
            python_code(job.planned, name, output),
        ):
            with ui.element("pre").classes("code"):
                ui.label(words).classes("whitespace-pre-wrap")
            ui.button("Copy", on_click=lambda _, words=words: ui.clipboard.write(words)).props(
                "flat dense"
            )
        for field, mark in job.upload.marks.items():
            ui.link(f"Download {mark.name}", f"/restored/{job.id}/{field}")
        ui.link("Record of this result (JSON)", f"/api/v1/jobs/{job.id}/record", new_tab=True)


def _settings_of(job: Job) -> dict[str, Any]:
    from pristina.methods.index import method

    return vars(method(job.planned.method).make_settings(job.planned.preset, job.planned.settings))


def _paragraph(text: str) -> Any:
    with ui.element("p") as paragraph:
        ui.label(text)
    return paragraph
