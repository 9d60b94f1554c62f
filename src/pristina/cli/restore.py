"""Command ``pristina restore``."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from pristina.cli.console import make_console, printable
from pristina.cli.outputs import Outputs
from pristina.errors import Cancelled, InputError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pristina.image.picture import Picture
    from pristina.picture_files import FileOptions
    from pristina.request import Request
    from pristina.restoration import Restored
    from pristina.types import StepEvent

DAMAGED = 4
"""Exit code where damaged files were restored as far as they go."""


def restore(
    pictures: list[Path],
    /,
    *,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    method: str | None = None,
    prior: str | None = None,
    operator: str | None = None,
    preset: str | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    seed: int | None = None,
    samples: int | None = None,
    strength: float | None = None,
    grain: float | None = None,
    protect: Path | None = None,
    deep: Annotated[bool | None, Parameter(negative="")] = None,
    mask: Path | None = None,
    scratches: Annotated[bool | None, Parameter(negative="")] = None,
    levels: Annotated[bool | None, Parameter(negative="")] = None,
    scale: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    memory: str | None = None,
    quality: int | None = None,
    depth: int | None = None,
    truncated: bool = False,
    force: bool = False,
    jobs: int = 1,
    ray: str | None = None,
    frames: Annotated[bool, Parameter(negative="")] = False,
    record: Path | None = None,
    compare: Path | None = None,
    spread: Path | None = None,
    like: Path | None = None,
    server: str | None = None,
    dry_run: bool = False,
    quiet: bool = False,
) -> int:
    """Restore pictures.

    Parameters
    ----------
    pictures
        Damaged pictures: files and folders.
    output
        File to write the restored picture to, whose format follows from the suffix; or folder for
        those of several files or of a folder.
    method
        Method: auto (the default) reads the damage, chooses a method and says why, or leaves the
        picture alone; or indi, mmse, diip, bird, ...
    prior
        Weights that the method uses: a shipped name or a weight file; those that suit the method
        without it.
    operator
        Form of the degradation, for methods that use it: "blur:sigma=2 | noise:sigma=0.05"; for the
        others, how the picture became smaller: "area:factor=4".
    preset
        Named settings of the method, such as paper.
    set_
        One setting of the method, as name=value; may be repeated.
    seed
        Random seed (default 0), the same for every picture.
    samples
        Number of restorations to draw (default 1); of several the mean is written.
    strength
        How much of the change is made, 0 to 1 (default 1); given with --method auto, a picture is
        repaired even where no damage is seen.
    grain
        How much of the removed grain is put back, 0 to 1 (default 0): brightness alone, no colour.
    protect
        Picture of the same size, white where the damaged one is to stay as it is.
    deep
        Average over eight turned and mirrored copies, with a regressor (indi): eight times the
        work, a little better.
    mask
        Picture of the same size, white where the damaged one is missing: it is filled in there,
        smoothly or by a method that is named and takes an operator, such as diffpir. For a folder
        of pictures, a folder of masks with the same names.
    scratches
        Look for scratches, dust, cracks and stains and fill them in; the mask that was used is
        written beside the output.
    levels
        Stretch faded colours from black to white, each channel by itself.
    scale
        Enlarge the picture 2, 3 or 4 times after it was restored.
    device
        auto (the default), cpu, cuda or mps.
    threads
        Processor threads; torch chooses their number without it, or for 0.
    memory
        Memory that may be used, such as 4G or 800M, for all jobs together; half of what is free
        without it.
    quality
        Quality of a JPEG, WebP or AVIF output, 1 to 100; without it that of a JPEG
        input of at least 90, else 95.
    depth
        8 rounds pictures of 16 bits a channel; without it they keep their bits, and a format that
        cannot hold them is refused.
    truncated
        Restore files that are cut off or damaged as far as they go, instead of refusing them.
    force
        Write over files that exist.
    jobs
        Number of processes for several pictures; each loads the weights once.
    ray
        Address of a Ray cluster that works on several pictures: HOST:PORT, auto for the one that
        this machine belongs to, or local for this machine alone; --jobs is the number of workers
        then.
    frames
        The pictures in a folder, which have numbers in their names, are the frames of a video: each
        goes on from the one before. A video file needs no such option.
    record
        JSON file to write all that is needed to run this again to, and what came out.
    compare
        File to write a picture of before and after to, with the blur beside them if one was found.
    spread
        File to write the standard deviation of several samples to, pixel by pixel: black where they
        agree, white where they agree least.
    like
        Earlier record that is followed exactly, in place of all options from --method to --memory.
    server
        Address of a pristina serve that restores a single picture in place of this machine; its
        token is taken from PRISTINA_TOKEN.
    dry_run
        Print what would be done and what it would take, and write nothing.
    quiet
        Print nothing but errors.
    """
    from pristina.files import is_video
    from pristina.picture_files import FileOptions
    from pristina.request import Request, parse_bytes

    output = _output(output, pictures, operator, method)
    console = make_console(quiet=quiet and not dry_run)
    options: dict[str, Any] = {"method": method, "prior": prior, "recipe": operator}
    options |= {"preset": preset, "settings": _pairs(set_ or []) or None, "seed": seed}
    options |= {"samples": samples, "strength": strength, "grain": grain, "deep": deep}
    options |= {"protect": protect and str(protect), "mask": mask and str(mask)}
    options |= {"scratches": scratches, "levels": levels, "scale": scale, "device": device}
    options |= {"threads": threads, "memory_bytes": None if memory is None else parse_bytes(memory)}
    given = {name: value for name, value in options.items() if value is not None}
    request, made_of = (Request(**given), None) if like is None else _read_record(like, given)
    _check_threads(request.threads)
    if spread is not None and request.samples < 2:
        raise SettingError("A single sample shows no spread; give --samples 2 or more.")
    files = FileOptions(quality, depth, truncated)
    used = output.with_name(f"{output.stem}-mask.png") if request.scratches else None
    outputs = Outputs(output, record, compare, spread, used)
    if frames or any(map(is_video, pictures)):
        from pristina.cli.restore_video import restore_video

        outputs.check_single()
        if len(pictures) != 1 or server or ray or jobs != 1:
            raise SettingError(
                "A video is restored by itself; leave out other files, --jobs, --ray and --server."
            )
        return restore_video(pictures[0], output, request, files, console, force=force)
    if len(pictures) == 1 and not pictures[0].is_dir() and not output.is_dir():
        if jobs != 1 or ray is not None:
            option = "--jobs" if ray is None else "--ray"
            raise SettingError(f"{option} is for several pictures; leave it out.")
        outputs.check([pictures[0], like], request, force=force)
        if server is not None:
            from pristina.cli.restore_remote import restore_remote

            return restore_remote(
                server, pictures[0], outputs, request, files, console, dry_run=dry_run
            )
        return _restore_file(
            pictures[0], outputs, request, files, console, made_of, dry_run=dry_run
        )

    if server is not None:
        raise SettingError("--server restores a single picture; name one file.")
    from pristina.cli.restore_folder import restore_folder

    outputs.check_single()
    return restore_folder(
        pictures,
        output,
        request,
        files,
        console,
        jobs=jobs,
        cluster=ray,
        force=force,
        dry_run=dry_run,
    )


def _output(
    output: Path | None, pictures: list[Path], operator: str | None, method: str | None
) -> Path:
    """Return the output, which must be named; slips in other names are said before all else."""
    from pristina.methods.index import check_name

    if output is None:
        raise SettingError(
            f"Say where the result goes, as in: pristina restore {pictures[0]} -o restored.png"
        )
    check_name(method or "auto")
    if operator is not None and method in (None, "auto"):
        from pristina.operators.recipe import Recipe

        Recipe.parse(operator)
    return output


def _restore_file(
    source: Path,
    outputs: Outputs,
    request: Request,
    files: FileOptions,
    console: Any,
    made_of: str | None,
    *,
    dry_run: bool,
) -> int:
    """Restore one picture, by a record of the one with digest ``made_of``; return the exit code."""
    from pristina.files import read_bytes
    from pristina.image.encoding import check_format

    check_format(outputs.output)
    content = read_bytes(source)
    before = files.read(content, str(source))
    lost = files.check(before, outputs.output)
    if outputs.compare is not None:
        from pristina.image.picture import Picture

        Picture.from_pixels(before.pixels[:, :1, :1]).check_encodable(outputs.compare)

    done = _restored(before, request, console, dry_run=dry_run)
    if done is None:
        return 0
    done = replace(done, source={"file": str(source), **dict(done.source or {})})
    folder, is_new = outputs.output.parent, not outputs.output.parent.exists()
    _write(outputs, files.encode(before, content, done, outputs.output), before, done)
    _report(console, done, outputs)
    more = [f"The folder {folder} was made."] if is_new else []
    if made_of not in (None, before.sha256):
        more.append(
            "What --like names is the record of another picture; its settings were followed."
        )
    for note in (*files.notes(before, lost, done, outputs.output), *more):
        console.print(f"note: {printable(note)}")
    return DAMAGED if before.damaged else 0


def _restored(before: Picture, request: Request, console: Any, *, dry_run: bool) -> Restored | None:
    """Plan, run and finish; print the plan and return None for a dry run."""
    import torch

    from pristina.planning import plan_request
    from pristina.restoration import finish, run

    if request.threads:
        torch.set_num_threads(request.threads)
    plan = plan_request(before, request)
    if dry_run:
        from pristina.cli.show_plan import plan_lines

        for line in (*plan_lines(plan), *(f"note: {note}" for note in plan.notes)):
            print(printable(line))
        return None
    with _progress(console, plan.entry.name) as on_step:
        result = run(plan, before.visible[None], on_step=on_step)
    return finish(plan, before, result)


def _write(outputs: Outputs, content: bytes, before: Picture, done: Restored) -> None:
    """Write all results, or none."""
    from pristina.files import json_bytes, write_all
    from pristina.image.encoding import encode
    from pristina.image.picture import Picture

    files = {outputs.output: content}
    if outputs.record is not None:
        files[outputs.record] = json_bytes(done.record())
    if outputs.compare is not None:
        from pristina.image.compare import side_by_side

        kernels = [("blur", Picture.from_pixels(drawing)) for drawing in _kernels(done)]
        sheet = side_by_side([("before", before), ("after", done.picture), *kernels])
        files[outputs.compare] = encode(sheet, outputs.compare)
    if outputs.spread is not None and done.std is not None:
        grey = done.std.mean(0, keepdim=True)
        picture = Picture.from_pixels(grey / grey.max().clamp(min=1e-9))
        files[outputs.spread] = picture.encode(outputs.spread)
    if outputs.mask is not None:
        files[outputs.mask] = _mask(done).encode(outputs.mask)
    write_all(files)


def _kernels(done: Restored) -> list[Any]:
    """Draw the blurs that a method took or found."""
    from pristina.operators.blur import Blur
    from pristina.operators.kernels import drawing

    blurs = [] if done.operator is None else done.operator.parts
    side = max(done.picture.size)
    return [drawing(blur.kernel()[0], side) for blur in blurs if isinstance(blur, Blur)]


def _mask(done: Restored) -> Picture:
    """Return the holes that were filled, white on black."""
    import torch

    from pristina.image.picture import Picture

    filling = done.plan.filling
    holes = torch.zeros(1, *done.plan.size) if filling is None else filling.holes
    return Picture.from_pixels(holes)


def _report(console: Any, done: Restored, outputs: Outputs) -> None:
    cost, stop, spread = done.cost, done.result.stopped[0], outputs.spread
    calls = "1 network call" if cost.network_calls == 1 else f"{cost.network_calls} network calls"
    console.print(f"{printable(outputs.output)}: {stop}; {calls}, {cost.seconds:.1f} s")
    if spread is not None and done.std is not None and done.std.any():
        largest = 255 * float(done.std.mean(0).max())
        console.print(f"{printable(spread)}: white is a standard deviation of {largest:.1f}/255")
    if done.operator is not None:
        console.print(f"estimated degradation: {printable(done.operator.describe())}")
    for name, value in done.operator_std.items():
        if isinstance(value, float):
            console.print(f"standard deviation of {name} over the samples: {value:.3g}")


def _check_threads(threads: int) -> None:
    most = 64 * (os.cpu_count() or 1)
    if threads > most:
        raise SettingError(f"--threads must lie between 0 and {most} here, not at {threads}.")


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise SettingError(f"--set takes name=value, not {text!r}.")
        if name.strip() in pairs:
            raise SettingError(f"--set gives {name.strip()} twice; leave one of them out.")
        pairs[name.strip()] = value.strip()
    return pairs


def _read_record(path: Path, given: dict[str, Any]) -> tuple[Request, str | None]:
    """Read the request in a record, and the digest of the picture that it was made of.

    Raises:
        SettingError: Options were given beside it.
        InputError: The file is not a record, or cannot be followed.
    """
    from pristina.request import Request

    if given:
        names = {"recipe": "operator", "settings": "set", "memory_bytes": "memory"}
        options = ", ".join(f"--{names.get(name, name)}" for name in given)
        raise SettingError(
            f"--like takes everything from {path}; leave out {options}, or edit a copy of it."
        )
    try:
        values = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not a record of pristina restore: it is no JSON ({error})."
        ) from error
    try:
        request = Request.from_record(values)
    except InputError as error:
        raise InputError(f"{path} is not a record of pristina restore: {error}") from error
    source = values.get("input")
    return request, source.get("sha256") if isinstance(source, dict) else None


@contextmanager
def _progress(console: Any, title: str) -> Iterator[Callable[[StepEvent], None]]:
    """Show progress, and turn Ctrl-C into a request to stop with the best result so far.

    A second Ctrl-C ends the command at once.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    asked, terminal = False, sys.stderr is not None and sys.stderr.isatty()

    def interrupt(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        console.print("stopping; the best result so far is kept (once more to end at once)")

    text, loss = TextColumn("{task.description}"), TextColumn("loss {task.fields[loss]}")
    columns = [text, BarColumn(), MofNCompleteColumn(), loss, Remaining()]
    before = signal.signal(signal.SIGINT, interrupt)
    begun = time.perf_counter()
    try:
        with Progress(*columns, console=console, transient=True, disable=not terminal) as progress:
            task = progress.add_task(title, total=None, loss="-")

            def on_step(event: StepEvent) -> None:
                step, n_steps, mean = event.step, event.n_steps, float(event.loss.mean())
                progress.update(task, completed=step, total=n_steps, loss=f"{mean:.5f}")
                if not terminal and step % 50 == 0:
                    left = (time.perf_counter() - begun) * (n_steps / step - 1)
                    console.print(
                        f"{title} {step}/{n_steps}  loss {mean:.5f}  at most {left:.0f} s left"
                    )
                if asked:
                    raise Cancelled

            yield on_step
    finally:
        signal.signal(signal.SIGINT, before)
