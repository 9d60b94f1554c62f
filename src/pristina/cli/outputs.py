"""Files that ``pristina restore`` writes for one picture."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pristina.errors import PictureError, SettingError

if TYPE_CHECKING:
    from pristina.request import Request


@dataclass(frozen=True)
class Outputs:
    """Files to be written for one picture."""

    output: Path
    record: Path | None = None
    compare: Path | None = None
    spread: Path | None = None
    mask: Path | None = None

    def check(self, read: list[Path | None], request: Request, *, force: bool) -> None:
        """Check before any work that all can be written, and overwrite nothing unasked."""
        from pristina.files import check_outputs
        from pristina.picture_files import request_files

        pictures = [self.output, self.compare, self.spread, self.mask]
        check_outputs(pictures, [self.record], inputs=[*read, *request_files(request)])
        for path in (*pictures, self.record):
            if path is not None and not force and os.path.lexists(path):
                raise PictureError(f"{path} exists; give another name, or --force to replace it.")

    def check_single(self) -> None:
        """Check that nothing is asked for that is made of one picture only."""
        for name in ("record", "compare", "spread"):
            if getattr(self, name) is not None:
                raise SettingError(f"--{name} is for one picture; leave it out for several.")
