"""Folders of pictures: collect, then read, plan, run and write one picture after the other.

Every picture gets the result that it would get alone: the same request, the same seed. The weights
are loaded once, and a :class:`~pristina.work.Manifest` says what a later run need not do again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from pristina.device import best_device
from pristina.errors import PictureError, PristinaError
from pristina.files import read_bytes, sha256_of
from pristina.image.encoding import FORMATS, WITH_QUALITY
from pristina.image.picture import Picture
from pristina.memory import free_bytes
from pristina.methods.index import method
from pristina.operators.recipe import Recipe
from pristina.picture_files import FileOptions, mask_of, request_files
from pristina.planning import Plan, plan_request
from pristina.priors.load import load_weights
from pristina.request import Request
from pristina.restoration import finish, run
from pristina.types import OnStep
from pristina.work import Manifest, Pool

PICTURE_SUFFIXES = {*FORMATS, ".jpe", ".jfif", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"}
"""Endings of the names by which pictures are found in a folder."""


@dataclass(frozen=True)
class Item:
    """A picture of a folder.

    Attributes:
        source: Its file.
        output: File of the result, as a path inside the folder of results.
    """

    source: Path
    output: Path


@dataclass(frozen=True)
class Listing:
    """What was found in files and folders.

    Attributes:
        items: The pictures.
        bad: Folders that cannot be read, in sentences.
        others: Number of files that are no pictures by their names, or hidden.
        links: Links to folders, which are not followed.
    """

    items: tuple[Item, ...]
    bad: tuple[str, ...] = ()
    others: int = 0
    links: tuple[Path, ...] = ()


def collect(inputs: Sequence[Path], out: Path, aside: Sequence[Path] = ()) -> Listing:
    """Find the pictures in files and folders, and where their results belong.

    A file keeps its name, and a file in a folder its path inside that folder; what is not written
    in the format of the input gets the ending ``.png`` added. The folder of results is left out if
    it lies in one of the others, and so are those of masks.

    Args:
        inputs: Files, which are taken whatever their names are, and folders.
        out: Folder of the results.
        aside: Further folders that are left out.

    Raises:
        PictureError: There is no picture, two results would have the same place, or a result that
            of an input.
    """
    found: list[tuple[Path, Path]] = []
    bad: list[str] = []
    links: list[Path] = []
    others = 0
    for given in inputs:
        if not given.is_dir():
            found.append((given, Path(given.name)))
            continue
        if _is_same(given, out):
            raise PictureError(f"{out} holds the pictures themselves; give another folder.")
        for folder, folders, files in os.walk(given, onerror=lambda e: bad.append(_sentence(e))):
            place = Path(folder)
            links += [place / name for name in folders if (place / name).is_symlink()]
            folders[:] = [
                name
                for name in folders
                if name[0] != "."
                and not any(_is_same(place / name, other) for other in (out, *aside))
            ]
            named = [n for n in files if n[0] != "." and Path(n).suffix.lower() in PICTURE_SUFFIXES]
            others += len(files) - len(named)
            found += [(place / n, (place / n).relative_to(given)) for n in named]
    items = _without_clashes(found, out)
    if not items and not bad:
        raise PictureError(
            f"There is no picture in {', '.join(map(str, inputs))}; "
            f"pictures are found by their endings: {', '.join(sorted(PICTURE_SUFFIXES))}."
        )
    return Listing(items, tuple(bad), others, tuple(links))


def _without_clashes(found: list[tuple[Path, Path]], out: Path) -> tuple[Item, ...]:
    """Check that every result has a place of its own; a file that was named twice is taken once."""
    real = {os.path.realpath(source) for source, _ in found}
    items: dict[Path, Item] = {}
    for source, relative in sorted(found):
        output = relative
        if relative.suffix.lower() not in FORMATS:
            output = relative.with_name(relative.name + ".png")
        if os.path.realpath(out / output) in real:
            raise PictureError(
                f"{out / output} is an input and would be overwritten; give another folder."
            )
        other = items.setdefault(output, Item(source, output))
        if not (other.source == source or _is_same(other.source, source)):
            raise PictureError(
                f"{other.source} and {source} would both be written to {out / output}; "
                "restore them into different folders."
            )
    return tuple(items.values())


def _is_same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return False


def _sentence(error: OSError) -> str:
    return f"{error.filename} cannot be read: {error.strerror or error}."


@dataclass(frozen=True)
class FolderJob:
    """What is to be done to every picture, and where the results go.

    Attributes:
        out: Folder of the results.
        request: The request.
        options: How pictures are read and written; the quality is ignored where there is none.
        files: SHA-256 of each file that the request names.
    """

    out: Path
    request: Request
    options: FileOptions
    files: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        files = tuple(_sha256(path) for path in request_files(self.request) if path.is_file())
        object.__setattr__(self, "files", files)

    @property
    def mask_folders(self) -> dict[str, Path]:
        """Folders that the request names in place of a mask, by the name of the option."""
        named = {name: getattr(self.request, name) for name in ("mask", "protect")}
        return {name: Path(path) for name, path in named.items() if path and Path(path).is_dir()}

    def of(self, item: Item) -> FolderJob:
        """Return the job for one picture: with the masks of its name, where they are in folders.

        Raises:
            PictureError: There is no mask of its name.
        """
        masks: dict[str, Any] = {
            name: str(mask_of(item.source, path, item.output))
            for name, path in self.mask_folders.items()
        }
        return replace(self, request=replace(self.request, **masks)) if masks else self

    @property
    def manifest(self) -> Manifest:
        """Manifest of the folder of results."""
        return Manifest(self.out)

    def check(self, *, here: bool = True) -> None:
        """Check what can be checked of the request without a picture.

        Args:
            here: Whether the work is done on this machine (default yes).

        Raises:
            SettingError: A name or a value is wrong.
            OperatorError: The recipe cannot be read.
        """
        if here:
            best_device(self.request.device)
        if self.request.method != "auto":
            method(self.request.method).make_settings(self.request.preset, self.request.settings)
        if self.request.recipe is not None:
            Recipe.parse(self.request.recipe)

    def answers(self, sha256: str) -> str:
        """Return the digest of everything on which a result depends.

        Args:
            sha256: SHA-256 of the input's file.
        """
        request = replace(self.request, threads=0, memory_bytes=None)
        written = (self.options.quality, self.options.depth)
        return request.digest(written, self.files, sha256)

    def options_for(self, output: Path) -> FileOptions:
        """Return the options without a quality where the format has none."""
        kind = FORMATS.get(output.suffix.lower())
        return self.options if kind in WITH_QUALITY else replace(self.options, quality=None)


def survey(job: FolderJob, items: Sequence[Item], *, force: bool = False) -> list[Item]:
    """Return the items that are still to be done.

    Args:
        job: What is to be done.
        items: All items.
        force: Whether files that this command did not write may be overwritten.

    Raises:
        PictureError: They may not, and there are some.
    """
    manifest = job.manifest
    todo, unknown = [], []
    for item in items:
        state = manifest.state(item.output, partial(_answers, job, item))
        if state != "done":
            todo.append(item)
        if state == "unknown":
            unknown.append(job.out / item.output)
    if unknown and not force:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        exist = "exist and were" if more else "exists and was"
        raise PictureError(
            f"{unknown[0]}{more} {exist} not written by this command, or changed since: give "
            "another folder, or --force to write over what is there."
        )
    return todo


def _answers(job: FolderJob, item: Item) -> str:
    try:
        return job.of(item).answers(_sha256(item.source))
    except PictureError:
        return ""  # Restoring it later will say why.


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:
        return ""  # Reading it later will say why.


@dataclass(frozen=True)
class Worker:
    """What a process keeps from picture to picture.

    Attributes:
        on_step: Progress callback.
        load: Function that loads weights, each once.
    """

    on_step: OnStep | None = None
    load: Callable[..., Any] = field(default_factory=lambda: cache(load_weights))


@dataclass(frozen=True)
class Outcome:
    """A picture that was written.

    Attributes:
        item: The picture.
        method: Method, or ``nothing``.
        weights: Name of the weights; None if the method has none.
        seconds: Time of the method.
        damaged: Whether the file was cut off or damaged.
        left_alone: Whether the picture is as it was, by the plan or by the method's judgement.
        notes: What the user should know, in sentences.
    """

    item: Item
    method: str
    weights: str | None
    seconds: float
    damaged: bool
    left_alone: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """A restored picture that is still to be written.

    Attributes:
        outcome: What will be told of it.
        content: Content of its file.
        answers: Digest of everything on which the result depends.
        record: How it came about.
    """

    outcome: Outcome
    content: bytes
    answers: str
    record: Mapping[str, Any]


def plan_item(
    job: FolderJob, worker: Worker, item: Item, content: bytes
) -> tuple[Picture, tuple[str, ...], Plan]:
    """Decode a picture and plan its restoration.

    Args:
        job: What is to be done.
        worker: What this process keeps.
        item: The picture.
        content: Content of its file.

    Returns:
        The picture, what its format will lose, and the plan.

    Raises:
        PristinaError: The picture cannot be read, restored or written as asked.
    """
    job = job.of(item)
    before = job.options.read(content, str(item.source))
    lost = job.options_for(item.output).check(before, item.output)
    return before, lost, plan_request(before, job.request, load=worker.load)


def restore_content(job: FolderJob, worker: Worker, sent: tuple[Item, bytes]) -> Done:
    """Restore one picture from the content of its file; nothing is read or written.

    Raises:
        PristinaError: The picture cannot be read, restored or written as asked.
    """
    item, content = sent
    job = job.of(item)
    before, lost, plan = plan_item(job, worker, item, content)
    result = run(plan, before.visible[None], on_step=worker.on_step)
    done = finish(plan, before, result, {"file": str(item.source)})
    options = job.options_for(item.output)
    notes = options.notes(before, lost, done, item.output)
    if item.output.name != item.source.name:
        notes.append(f"{item.source.suffix or 'Its format'} is not written: the result is PNG.")
    outcome = Outcome(
        item,
        plan.entry.name,
        plan.weights_name,
        done.cost.seconds,
        before.damaged,
        done.left_alone,
        tuple(notes),
    )
    written = options.encode(before, content, done, item.output)
    return Done(outcome, written, job.answers(before.sha256 or ""), done.record())


def write_done(job: FolderJob, done: Done) -> Outcome:
    """Write a restored picture.

    Raises:
        PictureError: It cannot be written.
    """
    output = done.outcome.item.output
    job.manifest.write(output, done.content, answers=done.answers, record=done.record)
    return done.outcome


def restore_item(job: FolderJob, worker: Worker, item: Item) -> Outcome:
    """Restore one picture and write it.

    Raises:
        PristinaError: The picture cannot be read, restored or written as asked.
    """
    return write_done(job, restore_content(job, worker, (item, read_bytes(item.source))))


def restore_items(
    job: FolderJob,
    items: Sequence[Item],
    *,
    jobs: int = 1,
    cluster: str | None = None,
    on_step: OnStep | None = None,
) -> Iterator[tuple[Item, Outcome | Exception]]:
    """Restore pictures and write them; the manifest's lock must be held.

    Args:
        job: What is to be done.
        items: The pictures.
        jobs: Number of processes, which share the memory; each loads the weights once. On a
            cluster, number of workers; 1 leaves it to the cluster.
        cluster: Address of a Ray cluster that does the work; None for this machine.
        on_step: Progress callback within a picture, for one process.

    Yields:
        Every item with its outcome, or with the reason why it could not be done, as they finish.
    """
    job.manifest.sweep(item.output for item in items)
    if cluster is not None:
        yield from _restore_on_cluster(job, items, jobs, cluster)
        return
    if jobs > 1:
        device = best_device(job.request.device)
        memory = job.request.memory_bytes or free_bytes(device) // 2
        job = replace(job, request=replace(job.request, memory_bytes=max(1, memory // jobs)))
    setup = Worker if jobs > 1 else partial(Worker, on_step)
    pool = Pool(jobs, setup, threads=job.request.threads)
    with closing(pool.map(partial(restore_item, job), items)) as outcomes:  # type: ignore[type-var]
        yield from outcomes


def _restore_on_cluster(
    job: FolderJob, items: Sequence[Item], jobs: int, cluster: str
) -> Iterator[tuple[Item, Outcome | Exception]]:
    """Restore pictures on a cluster; files are read and written here."""
    from pristina.work.ray_pool import RayPool

    pool = RayPool(
        cluster,
        None if jobs == 1 else jobs,
        Worker,
        threads=job.request.threads,
        gpus=0 if job.request.device == "cpu" else 1,
    )
    answers = pool.map(partial(restore_content, job), items, lambda x: (x, read_bytes(x.source)))
    with closing(answers):  # type: ignore[type-var]
        for item, done in answers:
            if isinstance(done, Exception):
                yield item, done
                continue
            try:
                outcome: Outcome | Exception = write_done(job, done)
            except PristinaError as error:
                outcome = error
            yield item, outcome
