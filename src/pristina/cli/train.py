"""``pristina train``: weights from your own pictures."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from pristina.errors import MissingExtra, SettingError

if TYPE_CHECKING:
    from pristina.training.loop import Schedule

app = App(name="train", help="Train weights on your own pictures.")


@dataclass(frozen=True)
class Run:
    """How long and how fast, for every kind of training.

    Attributes:
        images: Stop after this many pictures.
        minutes: Stop after this much training time (interruptions not counted).
        batch: Pictures a step, over all processes.
        learning_rate: At its peak.
        warmup: Steps until the peak of the learning rate.
        ema: Decay of the averaged weights, a step.
        save_minutes: Time between checkpoints: what a kill can cost.
        compile: Use torch.compile.
        workers: Processes that read pictures.
        seed: Of everything that is drawn.
    """

    images: int = 0
    minutes: float = 0
    batch: int = 16
    learning_rate: float = 6e-4
    warmup: int = 100
    ema: float = 0.999
    save_minutes: float = 5
    compile: bool = False
    workers: int = 1
    seed: int = 0

    def schedule(self, out: Path, start: Path | None = None) -> Schedule:
        """What the training loop takes, once it is sure that the weights can be written to ``out`` in the end.

        Raises:
            MissingExtra: The packages for training are not there.
            InputError: ``out`` does not end in .safetensors.
            PictureError: What the training leaves cannot be written.
        """
        from pristina.priors.checkpoints.format import check_weights_output

        check_weights_output(out, *(out.with_suffix(ending) for ending in (".jsonl", ".png", ".state.pt")), inputs=[start])
        try:
            import accelerate  # noqa: F401
        except ImportError as error:
            raise MissingExtra("Training needs the extra packages of pristina[train]: pip install 'pristina[train]'.") from error
        from pristina.training.loop import Schedule

        return Schedule(**dataclasses.asdict(self))


Shares = Annotated[list[str] | None, Parameter(name="--share", negative="")]
AnyRun = Annotated[Run, Parameter(name="*")]


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
    share: Shares = None,
    start: Path | None = None,
    resume: bool = False,
    run: AnyRun = Run(),
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
    start
        Weights to begin with: of the same network, for instance trained at a smaller size; of one with fewer levels, to which coarser
        ones are added; or a regressor's, as photos-blind.safetensors (with --channels 32 --channels 64 --channels 128 --patch 2): a head
        start for photographs.
    resume
        Go on with an interrupted run.
    """
    schedule = run.schedule(out, start)
    from pristina.training.prior import PriorTraining, train_prior

    whole = crop == "whole"
    settings = PriorTraining(
        domain=domain, size_px=size, crop=crop, channels=channels, layers=layers, patch=patch,
        attention=whole, norm="group" if whole else "pixel", head="norm" if whole else "linear", fixed_size=whole,
    )  # fmt: skip
    train_prior(data, out, settings, schedule, held_out=held_out, weights=parse_shares(share), start=start, resume=resume)


@dataclass(frozen=True)
class Pairs:
    """What is learned from, for trainings on pairs of pictures.

    Attributes:
        data: Clean pictures for a recipe; for --recipe pairs a folder of pairs (also as GoPro, DPDD or DIV2K lay them out).
        out: NAME.safetensors; NAME.jsonl (losses), NAME.png (pictures) and NAME.state.pt (for --resume) stand beside it.
        degraded: The degraded pictures, if --data holds only the clean ones of the pairs.
        recipe: What happens to the clean pictures: photos-blind, mixed, jpeg, denoise, deblur, x4, motion, defocus, jpeg10, pure-noise; or pairs.
        domain: One sentence about the pictures and their damage; it is kept with the weights.
        held_out: Pictures (or pairs) for the held-out figures.
        size: Side of the training crops, in pixels.
        share: PREFIX=NUMBER: how often a picture whose file name begins so counts. May be repeated.
        start: Weights of the same network to begin with.
        resume: Go on with an interrupted run.
    """

    data: Path
    out: Path
    degraded: Path | None = None
    recipe: str = "photos-blind"
    domain: str = "photographs with the damage it was trained on"
    held_out: Path | None = None
    size: int = 64
    share: Shares = None
    start: Path | None = None
    resume: bool = False

    def settings(self) -> dict[str, Any]:
        """What describes the pairs in the settings of a training."""
        return {"domain": self.domain, "recipe": None if self.recipe == "pairs" else self.recipe, "size_px": self.size}

    def files(self) -> dict[str, Any]:
        """Where a training finds them, and how it begins."""
        weights = parse_shares(self.share)
        return {"degraded": self.degraded, "held_out": self.held_out, "weights": weights, "start": self.start, "resume": self.resume}


AnyPairs = Annotated[Pairs, Parameter(name="*")]


@app.command
def indi(
    *,
    pairs: AnyPairs,
    loss: Literal["l1", "l2", "psnr"] = "l2",
    times: Literal["mixture", "uniform", "linear", "quadratic"] = "mixture",
    a: float = 1.0,
    noise: Literal["none", "constant", "brownian"] = "none",
    eps: float = 0.0,
    run: AnyRun = Run(),
) -> None:
    """Train InDI's regressor, on pairs or on clean pictures that a recipe degrades.

    Parameters
    ----------
    loss
        l1; l2; or psnr, under which light damage counts as much as heavy.
    times
        The density of t.
    a
        Of the mixture: t = 1 with probability a / (1 + a).
    noise
        On the path.
    eps
        The size of that noise, in [0, 1] units.
    """
    schedule = run.schedule(pairs.out, pairs.start)
    from pristina.training.indi import InDITraining, train_indi

    settings = InDITraining(**pairs.settings(), loss=loss, times=times, a=a, noise=noise, eps=eps)
    train_indi(pairs.data, pairs.out, settings, schedule, **pairs.files())


@app.command
def conditional(*, pairs: AnyPairs, run: AnyRun = Run()) -> None:
    """Train a conditional diffusion network on the same pairs, to compare with InDI."""
    schedule = run.schedule(pairs.out, pairs.start)
    from pristina.training.conditional import train_conditional
    from pristina.training.pairs import PairTraining

    train_conditional(pairs.data, pairs.out, PairTraining(**pairs.settings()), schedule, **pairs.files())


@app.command(name="kernel-prior")
def kernel_prior(*, out: Path, size: int = 32, resume: bool = False, run: AnyRun = Run(batch=32, learning_rate=1e-3)) -> None:
    """Train a prior of blur kernels, which are drawn on the fly; BlindDPS needs one.

    Parameters
    ----------
    out
        NAME.safetensors.
    size
        Side of the network's pictures; the kernels are one pixel smaller.
    resume
        Go on with an interrupted run.
    """
    schedule = run.schedule(out)
    from pristina.training.kernel_prior import KernelTraining, train_kernel_prior

    train_kernel_prior(out, KernelTraining(size_px=size), schedule, resume=resume)
