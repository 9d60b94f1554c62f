"""Elements of the page that the browser has no better ones for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

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


class Comparison(Element, component="compare.js"):
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
