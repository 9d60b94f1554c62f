"""Pictures as files on both sides of a restoration: how they are read and how they are written.

torch takes seconds to import, and is only when a picture is read: what can be refused before that
is refused at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pristina.errors import PictureError, SettingError
from pristina.image.encoding import FORMATS, WITH_DEPTH, WITH_QUALITY, check_format, check_quality

if TYPE_CHECKING:
    from pristina.image.picture import Picture
    from pristina.request import Request
    from pristina.restoration import Restored


@dataclass(frozen=True)
class FileOptions:
    """How pictures are read and written.

    Attributes:
        quality: Quality of JPEG, WebP and AVIF files, 1 to 100; None takes that of a JPEG input for
            a JPEG file, else 95.
        depth: 8 rounds pictures of 16 bits a channel; None keeps their bits, and refuses to write
            them in a format that cannot hold them.
        truncated: Whether damaged files are read as far as they go.
    """

    quality: int | None = None
    depth: int | None = None
    truncated: bool = False

    def __post_init__(self) -> None:
        check_quality(self.quality)
        if self.depth not in (None, 8):
            raise SettingError(f"depth must be 8, not {self.depth}; without it bits are kept.")

    def read(self, content: bytes, name: str) -> Picture:
        """Read a picture.

        Args:
            content: Content of its file.
            name: Name of its file, for messages.

        Raises:
            PictureError: It cannot be read.
        """
        from pristina.image.picture import Picture

        return Picture.decode(content, name, truncated=self.truncated)

    def check(self, picture: Picture, output: Path) -> tuple[str, ...]:
        """Check before any work that a picture can be written to ``output``.

        Returns:
            Sentences about what the format cannot hold and will be dropped.

        Raises:
            PictureError: The format is not known, or cannot hold the picture as it is.
            SettingError: A quality is asked of a format that has none.
        """
        kind = check_format(output)
        picture = self._with_depth(picture)
        if self.quality is not None and kind not in WITH_QUALITY:
            raise SettingError(
                f"{kind} has no quality; leave --quality out, or write JPEG, WebP or AVIF."
            )
        if picture.depth > 8 and kind not in WITH_DEPTH:
            raise PictureError(
                f"The picture has 16 bits a channel and {kind} holds 8; write "
                f"{output.with_suffix('.png').name} instead, or round them with --depth 8."
            )
        return picture.check_encodable(output, quality=self.quality)

    def is_copied(self, before: Picture, done: Restored, output: Path) -> bool:
        """Return whether the output is the input's file: left alone, whole, in the same format."""
        asked = self.quality is not None or (self.depth is not None and before.depth > self.depth)
        alone = done.left_alone and not (asked or before.damaged)
        return alone and before.format == FORMATS.get(output.suffix.lower())

    def encode(self, before: Picture, content: bytes, done: Restored, output: Path) -> bytes:
        """Return the content of the file that holds a restored picture.

        Args:
            before: The picture as it was read.
            content: Content of its file.
            done: The restored picture.
            output: Path of the file to be written.

        Raises:
            PictureError: The format cannot hold the picture.
        """
        if self.is_copied(before, done, output):
            return content
        return self._with_depth(done.picture).encode(output, self.quality)

    def notes(
        self, before: Picture, lost: tuple[str, ...], done: Restored, output: Path
    ) -> list[str]:
        """Collect what the user should know, and nothing about what did not happen.

        Args:
            before: The picture as it was read.
            lost: What :meth:`check` returned.
            done: The restored picture.
            output: Path of the file.
        """
        if self.is_copied(before, done, output):
            return list(done.notes)
        return list(dict.fromkeys([*before.notes, *done.notes, *lost]))

    def _with_depth(self, picture: Picture) -> Picture:
        return replace(picture, depth=8) if self.depth == 8 else picture


def request_files(request: Request) -> list[Path]:
    """Return the files that a request may read: weights, and those of the recipe."""
    named = (request.prior, request.protect, request.mask)
    files = [Path(name) for name in named if name is not None]
    if not request.recipe:
        return files
    from pristina.operators.recipe import Recipe

    return files + list(Recipe.parse(request.recipe).files)


def mask_of(source: Path, folder: Path, place: Path) -> Path:
    """Find the mask of a picture in a folder of masks: a file of its name, or that name as PNG.

    Args:
        source: File of the picture.
        folder: Folder of the masks.
        place: Path of its result in the folder of results, which has the same sub-folders.

    Raises:
        PictureError: There is none.
    """
    same = folder / place.with_name(source.name)
    found = [path for path in (same, same.with_suffix(".png")) if path.is_file()]
    if not found:
        as_png = "" if same.suffix == ".png" else ", nor one that ends in .png"
        raise PictureError(f"{source} has no mask: there is no {same}{as_png}.")
    return found[0]
