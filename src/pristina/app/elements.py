"""Elements of the page that the browser has no better ones for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui
from nicegui.element import Element


class DropArea(Element, component="drop.js"):
    """Area onto which pictures are dropped, or in which they are chosen.

    Args:
        small: Whether it is a button rather than an area.
        on_sent: Called with the names of the pictures that the server has accepted.
        on_refused: Called with a sentence for each that it has refused.
    """

    def __init__(
        self,
        *,
        small: bool,
        on_sent: Callable[[list[str]], Awaitable[None]],
        on_refused: Callable[[str], None],
    ):
        super().__init__()
        self._props["small"] = small
        self.on("sent", lambda e: on_sent([str(key) for key in e.args["ids"]]))
        self.on("refused", lambda e: on_refused(str(e.args["detail"])))


class Comparison(Element, component="compare.js", dependencies=["zoom.js"]):
    """Picture before and after, with a line between them that can be moved, and zoom."""

    def __init__(self, width: int, height: int):
        super().__init__()
        self._props["ratio"] = width / height

    def show(self, before: str, after: str | None = None, label: str = "After") -> None:
        """Show pictures.

        Args:
            before: Address of the picture as it came.
            after: Address of the restored picture; None if there is none yet.
            label: Caption of the latter.
        """
        new: dict[str, Any] = {"before": before, "after": after or "", "label": label}
        if any(self._props.get(name) != value for name, value in new.items()):
            self._props.update(new)
            self.update()


class Brush(Element, component="brush.js", dependencies=["zoom.js"]):
    """Picture on which parts are marked: to be filled in, or to be left as they are.

    Args:
        picture: Name of the picture, which the server keeps.
        size: Height and width in pixels.
        on_painting: Called when something is painted or taken back.
        on_painted: Called when the server has what was painted.
        on_refused: Called with a sentence if it could not be sent.
    """

    def __init__(
        self,
        picture: str,
        size: tuple[int, int],
        *,
        on_painting: Callable[[], None],
        on_painted: Callable[[], Awaitable[None]],
        on_refused: Callable[[str], Awaitable[None]],
    ):
        super().__init__()
        self._props |= {"picture": picture, "ratio": size[1] / size[0]}
        self.on("painting", lambda _: on_painting())
        self.on("painted", lambda _: on_painted())
        self.on("refused", lambda e: on_refused(str(e.args["detail"])))


def slider(words: str, value: float, least: float, on_change: Callable[..., Any]) -> ui.slider:
    """Draw a slider for a share, from ``least`` to 1, with its value in per cent."""
    with ui.row().classes("w-full items-center no-wrap"):
        ui.label(words).classes("whitespace-nowrap")
        drawn = ui.slider(min=least, max=1.0, step=0.05, value=value, on_change=on_change)
        drawn.props(f'aria-label="{words}"')
        percent = ui.label().classes("whitespace-nowrap w-12 text-right")
        percent.bind_text_from(drawn, "value", lambda v: f"{100 * v:.0f} %")
    return drawn
