"""``pristina restore``."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from pristina.errors import Cancelled, InputError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pristina.types import StepEvent


def restore(
    picture: Path,
    *,
    output: Annotated[Path, Parameter(alias="-o")],
    method: str | None = None,
    prior: str | None = None,
    operator: str | None = None,
    preset: str | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    seed: int | None = None,
    samples: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    record: Path | None = None,
    compare: Path | None = None,
    spread: Path | None = None,
    like: Path | None = None,
    quiet: bool = False,
) -> None:
    """Restore a picture.

    Parameters
    ----------
    picture
        The damaged picture.
    output
        Where to write the restored one; the format follows from the suffix.
    method
        How: auto, as when none is named, looks at the picture, says what it saw, and chooses, or leaves a clean picture alone; or indi,
        mmse, diip, bird, ...
    prior
        What the method knows of pictures: a shipped name, or a weight file; without it, what comes with pristina for the method.
    operator
        The form of the damage, for methods that use it: "blur:sigma=2 | noise:sigma=0.05"; or, for those that do not, how the picture got
        smaller: "area:factor=4".
    preset
        Named settings of the method, such as paper.
    set_
        One setting of the method, as name=value; may be repeated.
    seed
        Of everything that is drawn; 0 without.
    samples
        How many restorations to draw; of several the mean is written; 1 without.
    device
        auto, cpu, cuda or mps; auto without.
    threads
        Processor threads; without, or for 0, torch chooses.
    record
        Write everything needed to run this again, and what came out, to this JSON file.
    compare
        Write a picture of before and after to this file.
    spread
        Write how far several samples lie apart, pixel by pixel, to this file: black where they agree, white where they agree least.
    like
        Run exactly as this earlier record says, in place of all options from --method to --threads.
    quiet
        Print nothing but errors.
    """
    from rich.console import Console

    from pristina.cli.degrade import recipe_files
    from pristina.image.picture import FORMATS, Picture, check_format, check_outputs, encode, write

    console = Console(quiet=quiet, stderr=True, soft_wrap=True, highlight=False)
    options: dict[str, Any] = {"method": method, "prior": prior, "operator": operator, "preset": preset, "set": _pairs(set_ or []) or None}
    options |= {"seed": seed, "samples": samples, "device": device, "threads": threads}
    told = {name: value for name, value in options.items() if value is not None}
    if like is not None:
        if told:
            raise SettingError(
                f"--like takes everything from {like}; leave out {', '.join(f'--{name}' for name in told)}, or edit a copy of it."
            )
        told = _read_record(like)
    threads = int(told.pop("threads", 0))
    most = 64 * (os.cpu_count() or 1)
    if not 0 <= threads <= most:
        raise SettingError(f"--threads must lie between 0 and {most} here, not at {threads}.")
    if spread is not None and told.get("samples", 1) < 2:
        raise SettingError("A single sample shows no spread; give --samples 2 or more.")
    weights = None if told.get("prior") is None else Path(told["prior"])
    check_outputs([output, compare, spread], [record], inputs=[picture, like, weights, *recipe_files(told.get("operator"))])
    before = Picture.open(picture)
    check_format(output, alpha=before.alpha is not None)

    import torch

    from pristina.restoration import restore as run

    if threads:
        torch.set_num_threads(threads)
    with _progress(console, told.get("method", "auto")) as on_step:
        done = run(picture, settings=told.pop("set", None), **told, on_step=on_step)
    same = done.result.method == "nothing" and FORMATS.get(picture.suffix.lower()) == FORMATS[output.suffix.lower()]
    files = {output: picture.read_bytes() if same else done.picture.encode(output)}
    if record is not None:
        files[record] = (json.dumps(done.record(), indent=1, allow_nan=False) + "\n").encode()
    if compare is not None:
        from pristina.image.compare import side_by_side

        files[compare] = encode(side_by_side([("before", before), ("after", done.picture)]), compare)
    largest = 0.0
    if spread is not None and done.std is not None:
        grey = done.std.mean(0, keepdim=True)
        largest = float(grey.max())
        files[spread] = Picture.from_pixels(grey / max(largest, 1e-9)).encode(spread)
    write(files)
    cost = done.cost
    console.print(f"{output}: {done.result.stopped[0]}; {cost.network_calls} network calls, {cost.seconds:.1f} s")
    if largest:
        console.print(f"{spread}: white is a standard deviation of {255 * largest:.1f}/255")
    if done.operator is not None:
        console.print(f"estimated damage: {done.operator.describe()}")
    for name, value in done.operator_std.items():
        if isinstance(value, float):
            console.print(f"standard deviation of {name} over the samples: {value:.3g}")
    for note in done.notes:
        console.print(f"[yellow]note:[/yellow] {note}")


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise SettingError(f"--set takes name=value, not {text!r}.")
        pairs[name.strip()] = value.strip()
    return pairs


def _read_record(path: Path) -> dict[str, Any]:
    """What a record says of how the picture was restored, by the names of the options."""
    try:
        old = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise InputError(f"{path} is not a record of pristina restore: it is no JSON ({error}).") from error
    machine = old.get("machine") if isinstance(old, dict) else None
    said = {**old, **machine} if isinstance(machine, dict) else {}
    kinds = {"method": str, "prior": str | None, "recipe": str | None, "settings": dict, "seed": int, "samples": int}
    wrong = [
        name
        for name, kind in (kinds | {"device": str, "threads": int}).items()
        if not isinstance(said.get(name, ...), kind) or isinstance(said[name], bool)
    ]
    if wrong:
        raise InputError(f"{path} is not a record of pristina restore: {', '.join(wrong)} missing or of a wrong type.")
    names = {"recipe": "operator", "settings": "set"}
    return {names.get(name, name): said[name] for name in [*kinds, "device", "threads"]}


@contextmanager
def _progress(console: Any, title: str) -> Iterator[Callable[[StepEvent], None]]:
    """A progress bar, and Ctrl-C turned into a request to stop with the best result so far (a second one ends at once)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    asked = False

    def interrupt(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        console.print("stopping; the best result so far is kept (once more to end at once)")

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    ]
    before = signal.signal(signal.SIGINT, interrupt)
    begun = time.perf_counter()
    try:
        with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task(title, total=None, loss="-")

            def on_step(event: StepEvent) -> None:
                progress.update(task, completed=event.step, total=event.n_steps, loss=f"{float(event.loss.mean()):.5f}")
                if not sys.stderr.isatty() and event.step % 50 == 0:
                    left = (time.perf_counter() - begun) * (event.n_steps / event.step - 1)
                    console.print(f"{title} {event.step}/{event.n_steps}  loss {float(event.loss.mean()):.5f}  at most {left:.0f} s left")
                if asked:
                    raise Cancelled

            yield on_step
    finally:
        signal.signal(signal.SIGINT, before)
