"""``pristina restore``."""

from __future__ import annotations

import json
import shutil
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
    method: str = "auto",
    prior: str | None = None,
    operator: str | None = None,
    preset: str | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    seed: int = 0,
    samples: int = 1,
    device: str = "auto",
    threads: int = 0,
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
        How: auto looks at the picture, says what it saw, and chooses, or leaves a clean picture alone; or indi, mmse, diip, bird, ...
    prior
        What the method knows of pictures: a shipped name, or a weight file; without it, what comes with pristina for the method.
    operator
        The form of the damage, for methods that use it: "blur:sigma=2 | noise:sigma=0.05".
    preset
        Named settings of the method, such as paper.
    set_
        One setting of the method, as name=value; may be repeated.
    seed
        Of everything that is drawn.
    samples
        How many restorations to draw; of several the mean is written.
    device
        auto, cpu, cuda or mps.
    threads
        Processor threads; 0 leaves the choice to torch.
    record
        Write everything needed to run this again, and what came out, to this JSON file.
    compare
        Write a picture of before and after to this file.
    spread
        Write how far several samples lie apart, pixel by pixel, to this file: black where they agree, white where they agree least.
    like
        Run exactly as this earlier record says (method, prior, operator, settings, seed, threads, device).
    quiet
        Print nothing but errors.
    """
    from rich.console import Console

    from pristina.image.picture import FORMATS, Picture, atomic, check_output

    console = Console(quiet=quiet, stderr=True, soft_wrap=True, highlight=False)
    changes: dict[str, Any] = _pairs(set_ or [])
    if like is not None:
        old = _read_record(like)
        method, prior, operator, preset, seed = old["method"], old["prior"], old["recipe"], None, old["seed"]
        samples = old.get("samples", 1)
        changes = {name: tuple(v) if isinstance(v, list) else v for name, v in old["settings"].items()}
        threads, device = old["machine"]["threads"], old["machine"]["device"]
    if samples < 1:
        raise SettingError(f"--samples must be positive, not {samples}.")
    if spread is not None and samples == 1:
        raise SettingError("--samples 1 shows no spread; give 2 or more.")
    written = [path.resolve() for path in (output, record, compare, spread) if path is not None]
    for path in (output, compare, spread):
        if path is not None:
            check_output(path)
    if len(set(written)) < len(written):
        raise SettingError(
            "Two results would be written to the same file; give --output, --record, --compare and --spread different names."
        )
    before = Picture.open(picture)
    check_output(output, alpha=before.alpha is not None)

    import torch

    from pristina.restoration import restore as run

    if threads < 0:
        raise SettingError(f"threads must not be negative ({threads}).")
    if threads:
        torch.set_num_threads(threads)
    with _progress(console, method) as on_step:
        done = run(
            picture,
            method=method,
            prior=prior,
            operator=operator,
            preset=preset,
            settings=changes,
            seed=seed,
            samples=samples,
            device=device,
            on_step=on_step,
        )
    if done.result.method == "nothing" and FORMATS.get(picture.suffix.lower()) == FORMATS[output.suffix.lower()]:
        with atomic(output) as copy:
            shutil.copyfile(picture, copy)
    else:
        done.picture.save(output)
    if record is not None:
        _write_text(record, json.dumps(done.record(), indent=1) + "\n")
    if compare is not None:
        from pristina.image.compare import side_by_side

        with atomic(compare) as beside:
            side_by_side([("before", before), ("after", done.picture)]).save(beside, FORMATS[compare.suffix.lower()])
    if spread is not None and done.std is not None:
        grey = done.std.mean(0, keepdim=True)
        largest = float(grey.max())
        Picture.from_pixels(grey / max(largest, 1e-9)).save(spread)
        console.print(f"{spread}: white is a standard deviation of {255 * largest:.1f}/255")
    cost = done.cost
    console.print(f"{output}: {done.result.stopped[0]}; {cost.network_calls} network calls, {cost.seconds:.1f} s")
    if done.operator is not None:
        console.print(f"estimated damage: {done.operator.describe()}")
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
    try:
        old: dict[str, Any] = json.loads(path.read_text())
        if missing := {"method", "prior", "recipe", "seed", "settings", "machine"} - set(old):
            raise InputError(f"{path} is not a record of pristina restore: {', '.join(sorted(missing))} missing.")
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
        raise InputError(f"{path} cannot be read as a record of pristina restore: {error}.") from error
    return old


def _write_text(path: Path, text: str) -> None:
    from pristina.image.picture import atomic

    with atomic(path) as beside:
        beside.write_text(text)


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
