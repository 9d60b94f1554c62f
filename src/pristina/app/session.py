"""What one person sees and does on the page."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nicegui import background_tasks, context, ui

from pristina.app.api import in_turn, measured
from pristina.app.choices import Choices
from pristina.app.elements import Brush, Comparison, DropArea
from pristina.app.job import Job, Upload
from pristina.app.page import HERE, examples
from pristina.app.panel import Panel
from pristina.app.rules import Busy
from pristina.app.words import time_words
from pristina.errors import PristinaError
from pristina.filling import FINDER
from pristina.methods.index import METHODS
from pristina.priors.load import shipped
from pristina.reading import Reading
from pristina.request import Request

if TYPE_CHECKING:
    from pristina.app.jobs import Jobs
    from pristina.estimates import Estimate
    from pristina.planning import Plan

PAUSE_S = 0.6
"""Time after the last change of a setting after which a new plan is made, in seconds."""
LOOK_S = 0.4
"""Time between two looks at the jobs, in seconds."""


@dataclass
class Item:
    """A picture on the page.

    Attributes:
        upload: The picture.
        plan: What would be done to it; None if that is not known, or cannot be done.
        estimate: What that would take.
        reading: What was read in it when a method was last chosen for it.
        problem: Why it cannot be done, in a sentence.
        versions: Jobs that restore it, or have.
        shown: The one that is looked at.
    """

    upload: Upload
    plan: Plan | None = None
    estimate: Estimate | None = None
    reading: Reading | None = None
    problem: str | None = None
    versions: list[Job] = field(default_factory=list)
    shown: Job | None = None


class Session:
    """The page of one person.

    Args:
        jobs: The jobs of the server.
    """

    def __init__(self, jobs: Jobs):
        self.jobs = jobs
        self.items: list[Item] = []
        self.item: Item | None = None
        self.strength: float | None = None
        self.scratches = self.levels = self.marking = False
        self.finds = FINDER in shipped()
        self.comparison: Comparison | None = None
        self.choices = Choices(self.changed)
        self.panel = Panel(self)
        self._changes = 0
        self._seen: object = None

    # What is drawn.

    def build(self, *, has_report: bool) -> None:
        """Draw the page."""
        context.client.on_delete(self._left)
        with ui.element("div").classes("shell"):
            with ui.element("header").classes("top"):
                ui.html("Pristina", tag="h1")
                ui.html("Restores damaged photos.", tag="p")
                ui.link("API", "/api/v1/docs")
            if has_report:
                with ui.tabs().props("no-caps align=left") as tabs:
                    photos, benchmark = ui.tab("Photos"), ui.tab("Benchmark")
                with ui.tab_panels(tabs, value=photos).classes("w-full bg-transparent"):
                    with ui.tab_panel(photos).classes("px-0 pb-0"):
                        self._main()
                    with ui.tab_panel(benchmark).classes("px-0 pb-0"):
                        ui.element("iframe").classes("report").props(
                            'src="/report" title="Benchmark report" sandbox="allow-scripts"'
                        )
            else:
                self._main()
        ui.timer(LOOK_S, self._look)

    def _main(self) -> None:
        with ui.element("main").classes("w-full flex flex-col gap-5"):
            self.entrance()
            self.strip()
            with ui.element("div").classes("work").bind_visibility_from(self, "has_item"):
                with ui.element("div").classes("picture"):
                    self.viewer()
                with ui.element("section").classes("panel"):
                    self.panel.build()
                    with ui.expansion("More settings").classes("w-full"):
                        self.choices.build()
                        self._compare_methods()
                with ui.column().classes("rest gap-4"):
                    self.versions()
                    self.panel.found()

    @property
    def has_item(self) -> bool:
        """Whether there is a picture."""
        return self.item is not None

    @ui.refreshable_method
    def entrance(self) -> None:
        """Draw the area for the first picture."""
        if self.items:
            return
        DropArea(small=False, on_sent=self.add, on_refused=self.tell)
        with ui.column().classes("gap-2"):
            ui.html("Or try an example", tag="h2")
            with ui.element("div").classes("examples"):
                for name in examples():
                    word = name.partition(".")[0]
                    button = ui.element("button").classes("thumb")
                    button.props(f'type="button" aria-label="Example: {word}"')
                    button.on("click", lambda _, name=name: self._add_example(name))
                    with button:
                        ui.element("img").props(f'src="/examples/{name}" alt=""')
        ui.label(
            "Your photos stay on the computer that runs this page, and are removed when you leave."
        ).classes("hint")

    @ui.refreshable_method
    def strip(self) -> None:
        """Draw the pictures in a row."""
        if not self.items:
            return
        with ui.element("div").classes("examples items-center"):
            for item in self.items if len(self.items) > 1 else []:
                pressed = "true" if item is self.item else "false"
                name = item.upload.name.replace('"', "'")
                button = ui.element("button").classes("thumb")
                button.props(f'type="button" aria-pressed={pressed} aria-label="{name}"')
                button.on("click", lambda _, item=item: self.choose(item))
                with button:
                    ui.element("img").props(f'src="/pictures/{item.upload.id}" alt=""')
            DropArea(small=True, on_sent=self.add, on_refused=self.tell)
            ui.button("Remove this photo", on_click=self._remove).props("flat dense no-caps")

    @ui.refreshable_method
    def viewer(self) -> None:
        """Draw the picture, before and after, or as it came with a brush to mark parts of it."""
        self.comparison = None
        if self.item is None:
            return
        upload = self.item.upload
        if self.marking:
            Brush(
                upload.id,
                upload.size,
                on_painting=self.painting,
                on_painted=self.make_plan,
                on_refused=self.not_painted,
            )
        else:
            self.comparison = Comparison(*reversed(upload.size))
            self._show()

    @ui.refreshable_method
    def versions(self) -> None:
        """Draw several results of the same picture side by side."""
        if self.item is None or len(self.item.versions) < 2:
            return
        ui.html("Results side by side", tag="h2")
        with ui.element("div").classes("versions"):
            for job in self.item.versions:
                self._version(job)

    def _version(self, job: Job) -> None:
        pressed = "true" if self.item is not None and job is self.item.shown else "false"
        button = (
            ui.element("button").classes("version").props(f'type="button" aria-pressed={pressed}')
        )
        button.on("click", lambda _: self.show_version(job))
        weights = "" if job.planned.prior is None else f", {job.planned.prior}"
        words = {"done": time_words(job.seconds), "failed": job.error or "failed"}
        with button:
            if job.state == "done":
                ui.element("img").props(f'src="/restored/{job.id}" alt=""')
            with ui.element("span"):
                ui.label(f"{job.planned.method}{weights}: {words.get(job.state, job.state)}")

    def _compare_methods(self) -> None:
        ui.separator()
        names = [name for name in METHODS if name != "nothing"]
        chosen = ui.select(names, label="Compare methods", multiple=True, value=[])
        chosen.classes("w-full").props("use-chips")

        async def start() -> None:
            for name in chosen.value:
                seed = int(self.choices.seed.value or 0)
                asked = Request(method=name, seed=seed, scratches=self.scratches)
                await self._submit(replace(asked, levels=self.levels))

        ui.button("Restore with each of these", on_click=start).props("outline no-caps").classes(
            "w-full"
        ).bind_enabled_from(chosen, "value", bool)

    # What is done.

    def tell(self, sentence: str) -> None:
        """Show a sentence about what went wrong."""
        close = [{"label": "Close", "color": "white"}]
        ui.notify(
            sentence, type="negative", position="top", multi_line=True, timeout=9000, actions=close
        )

    async def add(self, keys: list[str]) -> None:
        """Add pictures that were sent."""
        for key in keys:
            with suppress(KeyError):
                self.items.append(Item(self.jobs.upload(key)))
        if self.items:
            self.entrance.refresh()
            await self.choose(self.items[0] if self.item is None else self.item)

    async def _add_example(self, name: str) -> None:
        content = (HERE / "examples" / name).read_bytes()
        try:
            upload = await in_turn(self.jobs, self.jobs.keep, content, name)
        except PristinaError as error:
            self.tell(str(error))
            return
        await self.add([upload.id])

    async def choose(self, item: Item) -> None:
        """Show another picture."""
        self.item, self.strength, self.marking = item, None, False
        self._draw_again()
        if item.plan is None:
            await self.make_plan()

    async def _remove(self) -> None:
        if self.item is None:
            return
        self._forget(self.item)
        self.items.remove(self.item)
        self.item, self.marking = None, False
        self.entrance.refresh()
        self._draw_again()
        if self.items:
            await self.choose(self.items[0])

    def _draw_again(self) -> None:
        self.strip.refresh()
        self.viewer.refresh()
        self.versions.refresh()
        self.panel.refresh()

    def forget_plans(self) -> None:
        """Forget what would be done, for something else is asked for now."""
        self._changes += 1
        for item in self.items:
            item.plan = item.estimate = item.problem = None

    def painting(self) -> None:
        """Wait for what is being painted; nothing moves on the page meanwhile."""
        self.forget_plans()
        self.panel.action.refresh()

    async def not_painted(self, sentence: str) -> None:
        """Say that what was painted could not be kept, and plan without it."""
        self.tell(sentence)
        await self.make_plan()

    def changed(self) -> None:
        """Plan again a moment after the last change."""
        self.forget_plans()
        self.panel.refresh()
        number = self._changes

        async def later() -> None:
            await asyncio.sleep(PAUSE_S)
            if number == self._changes:
                await self.make_plan()

        background_tasks.create(later())  # What was changed may be drawn anew, and with it a timer.

    def mark(self) -> None:
        """Begin to mark parts of the picture, or end."""
        self.marking = not self.marking
        self.viewer.refresh()
        self.panel.refresh()
        if self.item is not None and self.item.plan is None:
            self.changed()  # The brush is gone, and does not say any more that it was painted.

    def want(self, **wanted: bool) -> None:
        """Look for scratches or freshen colours, or do not."""
        vars(self).update(wanted)
        self.changed()

    def asked(self) -> Request:
        """Return what is asked for pictures, whatever their plan.

        Raises:
            SettingError: A value is out of range.
        """
        return replace(self.choices.request(), scratches=self.scratches, levels=self.levels)

    def request(self, item: Item) -> Request:
        """Return what is asked for a picture: of what is planned, as much as was chosen."""
        made = item.plan
        whole = self.strength is None or self.strength == 1
        if made is None or whole or made.request.method == "nothing":
            return self.asked()
        return replace(made.request, strength=self.strength)

    async def make_plan(self) -> None:
        """Say what would be done to the picture that is shown."""
        item, number = self.item, self._changes
        if item is None:
            return
        try:
            with self.jobs.short():
                made = await in_turn(self.jobs, self.jobs.plan, item.upload, self.asked())
                if number == self._changes:
                    item.plan, item.reading = made, made.reading or item.reading
                    self.panel.refresh()
                    item.estimate = await measured(self.jobs, made)
        except PristinaError as error:
            if number == self._changes:
                item.problem = str(error)
        if number == self._changes:
            self.panel.refresh()

    async def restore(self) -> None:
        """Restore the picture that is shown."""
        if self.item is not None:
            await self._submit(self.request(self.item))

    async def insist(self) -> None:
        """Restore the picture that is shown although no damage is seen."""
        await self._submit(replace(self.asked(), strength=1.0))

    async def restore_all(self) -> None:
        """Restore all pictures, each as it needs."""
        for item in list(self.items):
            await self._submit(self.request(item) if item is self.item else self.asked(), item)

    async def go_on(self, request: Request) -> None:
        """Go on from where the version that is shown has stopped."""
        if self.item is not None and self.item.shown is not None:
            await self._submit(request, start=self.item.shown)

    async def _submit(
        self, request: Request, item: Item | None = None, start: Job | None = None
    ) -> None:
        item = self.item if item is None else item
        if item is None:
            return
        try:
            with self.jobs.place():
                job = await in_turn(self.jobs, self.jobs.submit, item.upload, request, start)
        except Busy as error:
            self.tell(str(error))
            return
        except PristinaError as error:
            self.tell(f"{request.method}: {error}")
            return
        item.versions.append(job)
        item.shown = job
        self._refresh_results()
        ui.run_javascript("document.querySelector('.stage')?.scrollIntoView({block: 'nearest'})")

    def stop(self) -> None:
        """Stop the version that is shown, and keep the best so far."""
        if self.item is not None and self.item.shown is not None:
            self.jobs.stop(self.item.shown)

    def show_version(self, job: Job) -> None:
        """Look at another version."""
        if self.item is not None:
            self.item.shown = job
            self._refresh_results()

    def _refresh_results(self) -> None:
        self.versions.refresh()
        self.panel.refresh()
        if self.marking and self.item is not None and self.item.shown is not None:
            self.marking = False
            self.viewer.refresh()
        self._show()

    def _show(self) -> None:
        """Show the picture, and the version of it, or its intermediate picture."""
        item = self.item
        if item is None or self.comparison is None:
            return
        before, job = f"/pictures/{item.upload.id}", item.shown
        if job is not None and job.state == "done":
            self.comparison.show(before, f"/restored/{job.id}")
        elif job is not None and job.state == "running" and job.n_previews:
            address = f"/api/v1/jobs/{job.id}/preview?{job.n_previews}"
            self.comparison.show(before, address, f"Step {job.step}")
        else:
            self.comparison.show(before)

    def _look(self) -> None:
        """Show how far the jobs are."""
        item = self.item
        if item is None:
            return
        for held in self.items:
            held.upload.used = time.monotonic()
            for job in held.versions:
                job.used = time.monotonic()
        states = [(job.id, job.state) for job in item.versions]
        if states != self._seen:
            self._seen = states
            self._refresh_results()
        elif item.shown is not None and not item.shown.finished:
            self._show()
            self.panel.update_progress(item.shown)

    def _forget(self, item: Item) -> None:
        for job in item.versions:
            self.jobs.delete(job)
        self.jobs.drop(item.upload.id)

    def _left(self) -> None:
        """Remove everything of somebody who has left."""
        for item in self.items:
            self._forget(item)
        self.items, self.item = [], None
