"""``pristina train``: weights from your own pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from pristina.errors import MissingExtra, SettingError

app = App(name="train", help="Train weights on your own pictures.")


def parse_shares(texts: list[str] | None) -> dict[str, float]:
    """``["prefix=3"]`` as a dictionary; each says how often a picture whose name begins so counts."""
    shares = {}
    for text in texts or []:
        prefix, _, value = text.partition("=")
        try:
            shares[prefix] = float(value)
        except ValueError:
            raise SettingError(f"--share takes PREFIX=NUMBER, not {text!r}.") from None
        if shares[prefix] < 0:
            raise SettingError(f"A share must not be negative ({text!r}).")
    return shares


def require_training() -> None:
    """Raise :class:`MissingExtra` unless the packages for training are there."""
    try:
        import accelerate  # noqa: F401
    except ImportError as error:
        raise MissingExtra("Training needs the extra packages of pristina[train]: pip install 'pristina[train]'.") from error


@app.command
def prior(
    *,
    data: Path,
    out: Path,
    domain: str = "pictures like those it was trained on",
    held_out: Path | None = None,
    size: int = 64,
    crop: Literal["whole", "random"] = "random",
    channels: tuple[int, ...] = (128, 192, 256),
    layers: int = 1,
    patch: int = 4,
    share: Annotated[list[str] | None, Parameter(negative="")] = None,
    images: int = 0,
    minutes: float = 0,
    batch: int = 16,
    learning_rate: float = 6e-4,
    ema: float = 0.999,
    warmup: int = 100,
    save_minutes: float = 5,
    workers: int = 1,
    seed: int = 0,
    compile_: Annotated[bool, Parameter(name="--compile")] = False,
    start: Path | None = None,
    resume: bool = False,
) -> None:
    """Train a diffusion prior on a folder of clean pictures.

    Parameters
    ----------
    data
        Folder of clean pictures (sub-folders included).
    out
        NAME.safetensors; NAME.jsonl (losses), NAME.png (samples) and NAME.state.pt (for --resume) stand beside it.
    domain
        One sentence about the pictures; it is kept with the weights and shown to whoever uses them.
    held_out
        Folder of pictures for the held-out figures; otherwise every 30th of --data is set aside.
    size
        Side of the training pictures, in pixels.
    crop
        whole: pictures that are all alike, such as aligned faces (a prior for that size only). random: crops (a prior for any size).
    channels
        Widths of the network from fine to coarse.
    layers
        Residual blocks a level.
    patch
        Pixels folded into channels, a side.
    share
        PREFIX=NUMBER: how often a picture whose file name begins so counts. May be repeated.
    images
        Stop after this many pictures.
    minutes
        Stop after this much training time (interruptions not counted).
    batch
        Pictures a step, over all processes.
    learning_rate
        At its peak.
    ema
        Decay of the averaged weights, a step.
    warmup
        Steps until the peak of the learning rate.
    save_minutes
        Time between checkpoints.
    workers
        Processes that read pictures.
    seed
        Of everything that is drawn.
    compile_
        Use torch.compile.
    start
        Weights of the same network to begin with, for instance trained at a smaller size.
    resume
        Go on with an interrupted run.
    """
    require_training()
    from pristina.training.loop import Schedule
    from pristina.training.prior import PriorTraining, train_prior

    whole = crop == "whole"
    settings = PriorTraining(
        domain=domain, size_px=size, crop=crop, channels=channels, layers=layers, patch=patch,
        attention=whole, norm="group" if whole else "pixel", fixed_size=whole,
    )  # fmt: skip
    schedule = Schedule(images, minutes, batch, learning_rate, warmup, ema, save_minutes, compile_, workers, seed)
    train_prior(data, out, settings, schedule, held_out=held_out, weights=parse_shares(share), start=start, resume=resume)
