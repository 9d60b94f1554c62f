"""``pristina train``: train weights on your own pictures."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from pristina.errors import MissingExtra, SettingError

if TYPE_CHECKING:
    from pristina.training.pairs import PairFiles
    from pristina.training.schedule import Schedule

app = App(name="train", help="Train weights on your own pictures.")

BESIDE = (".jsonl", ".png", ".state.pt", ".stable.pt")
"""Endings of the files that a training writes beside its weights."""


@dataclass(frozen=True)
class Run:
    """How long and how fast to train, for every kind of training.

    Attributes:
        images: Number of pictures after which training stops.
        minutes: Training time after which it stops (interruptions not counted).
        batch: Pictures in a step, over all processes.
        learning_rate: Peak of the learning rate.
        optimiser: adamw; or muon for the inner layers and AdamW for the first and last one (indi,
            scratches, operator; begin with --learning-rate 0.004).
        outer_rate: Peak of AdamW's learning rate beside Muon.
        warmup: Steps until the peak of the learning rate.
        cooldown: Share of the run, at its end, in which the learning rate falls to zero. Under 1
            the state before it is kept as NAME.stable.pt, from which a longer run can go on.
        ema: Decay of the averaged weights in a step.
        save_minutes: Time between checkpoints, which is what an interruption can cost.
        compile: Use torch.compile.
        workers: Processes that read pictures.
        seed: Seed of everything that is drawn.
        resume: Go on with an interrupted run.
        resume_from: Go on from this state, such as NAME.stable.pt, instead of NAME.state.pt.
    """

    images: int = 0
    minutes: float = 0
    batch: int = 16
    learning_rate: float = 6e-4
    optimiser: Literal["adamw", "muon"] = "adamw"
    outer_rate: float = 1e-3
    warmup: int = 100
    cooldown: float = 1.0
    ema: float = 0.999
    save_minutes: float = 5
    compile: bool = False
    workers: int = 1
    seed: int = 0
    resume: bool = False
    resume_from: Path | None = None

    def schedule(self, out: Path, start: Path | None = None) -> Schedule:
        """Return the schedule of the run, once it is certain that its results can be written.

        Args:
            out: Path of the weights.
            start: Weights to begin with, which must not be overwritten.

        Raises:
            MissingExtra: The packages for training are not installed.
            InputError: ``out`` does not end in .safetensors.
            PictureError: A result cannot be written.
        """
        from pristina.priors.checkpoints.format import check_weights_output

        beside = [out.with_suffix(ending) for ending in BESIDE]
        state = None if self.resume_from in beside else self.resume_from
        check_weights_output(out, *beside, inputs=[start, state])
        try:
            import accelerate  # noqa: F401
        except ImportError as error:
            raise MissingExtra(
                "Training needs the extra packages of pristina[train]: "
                "pip install 'pristina[train]'."
            ) from error
        from pristina.training.schedule import Schedule

        settings = dataclasses.asdict(self)
        return Schedule(**{k: v for k, v in settings.items() if not k.startswith("resume")})

    @property
    def state(self) -> bool | Path:
        """Return what to resume: a state file, NAME.state.pt (True), or nothing (False)."""
        return self.resume_from or self.resume


@dataclass(frozen=True)
class KernelRun(Run):
    """How long and how fast to train a prior of kernels.

    Attributes:
        batch: Kernels in a step, over all processes.
        learning_rate: Peak of the learning rate.
    """

    batch: int = 32
    learning_rate: float = 1e-3


Shares = Annotated[list[str] | None, Parameter(name="--share", negative="")]
AnyRun = Annotated[Run, Parameter(name="*")]


def parse_shares(texts: list[str] | None) -> dict[str, float]:
    """Parse shares of pictures.

    Args:
        texts: Texts such as ``"prefix=3"``, each of which says how often a picture counts whose
            file name begins with the prefix.

    Returns:
        The number for each prefix.

    Raises:
        SettingError: A text has another form, or a number is negative.
    """
    shares = {}
    for text in texts or []:
        prefix, _, value = text.partition("=")
        try:
            shares[prefix] = float(value)
        except ValueError:
            raise SettingError(f"--share takes PREFIX=NUMBER, not {text!r}.") from None
        if not 0 <= shares[prefix] < float("inf"):
            raise SettingError(f"A share must not be negative or infinite ({text!r}).")
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
    run: AnyRun = Run(),
) -> None:
    """Train a diffusion prior on a folder of clean pictures.

    Parameters
    ----------
    data
        Folder of clean pictures (sub-folders included).
    out
        NAME.safetensors. Beside it stand NAME.jsonl (losses), NAME.png (samples) and NAME.state.pt
        (for --resume).
    domain
        One sentence about the pictures; it is kept with the weights and shown to whoever uses them.
    held_out
        Folder of pictures for the held-out figures; otherwise every 30th of --data is set aside.
    size
        Side of the training pictures, in pixels.
    crop
        whole: pictures that are all alike, such as aligned faces (a prior for that size only).
        random: crops (a prior for any size).
    channels
        Widths of the network, from fine to coarse.
    layers
        Residual blocks on each level.
    patch
        Side in pixels of the squares that are folded into channels.
    share
        PREFIX=NUMBER: how often a picture counts whose file name begins so. May be repeated.
    start
        Weights to begin with: of the same network, for instance trained at a smaller size; of one
        with fewer levels, to which coarser ones are added; or of a regressor of the same shape.
    """
    schedule = run.schedule(out, start)
    from pristina.training.prior import PriorTraining, train_prior

    whole = crop == "whole"
    settings = PriorTraining(
        domain=domain,
        size_px=size,
        crop=crop,
        channels=channels,
        layers=layers,
        patch=patch,
        attention=whole,
        norm="group" if whole else "pixel",
        head="norm" if whole else "linear",
        fixed_size=whole,
    )
    train_prior(
        data,
        out,
        settings,
        schedule,
        held_out=held_out,
        weights=parse_shares(share),
        start=start,
        resume=run.state,
    )


@dataclass(frozen=True)
class Pairs:
    """What to learn from, for trainings on pairs of pictures.

    Attributes:
        data: Folder of clean pictures for a mixture; may be repeated. For --mixture pairs one
            folder of pairs (also in the layouts of GoPro, DPDD or DIV2K).
        out: NAME.safetensors. Beside it stand NAME.jsonl (losses), NAME.png (pictures) and
            NAME.state.pt (for --resume).
        degraded: Folder of the degraded pictures, if --data holds only the clean ones of the pairs.
        mixture: Damage to the clean pictures: photographs (all kinds), noise, grain (noise of all
            kinds, JPEG), jpeg, jpeg10, blur, motion, x4, pure-noise; or pairs.
        domain: One sentence about the pictures and their damage; it is kept with the weights.
        held_out: Folder of pictures (or pairs) for the held-out figures; otherwise some of --data
            are set aside.
        size: Side of the training crops, in pixels.
        share: PREFIX=NUMBER: how often a picture counts whose file name begins so. May be repeated.
        start: Weights of the same network to begin with.
    """

    data: list[Path]
    out: Path
    degraded: Path | None = None
    mixture: str = "photographs"
    domain: str = "photographs with the damage it was trained on"
    held_out: Path | None = None
    size: int = 64
    share: Shares = None
    start: Path | None = None

    def settings(self) -> dict[str, Any]:
        """Return what describes the pairs in the settings of a training."""
        mixture = None if self.mixture == "pairs" else self.mixture
        return {"domain": self.domain, "mixture": mixture, "size_px": self.size}

    def files(self) -> PairFiles:
        """Return where a training finds its pictures."""
        from pristina.training.pairs import PairFiles

        return PairFiles(tuple(self.data), self.degraded, self.held_out, parse_shares(self.share))


AnyPairs = Annotated[Pairs, Parameter(name="*")]


@app.command
def indi(
    *,
    pairs: AnyPairs,
    channels: tuple[int, ...] = (48, 96, 192),
    layers: int = 2,
    loss: Literal["l1", "l2", "psnr"] = "l2",
    times: Literal["mixture", "uniform", "linear", "quadratic"] = "mixture",
    a: float = 1.0,
    noise: Literal["none", "constant", "brownian"] = "none",
    eps: float = 0.0,
    run: AnyRun = Run(),
) -> None:
    """Train InDI's regressor, on pairs or on clean pictures that a mixture degrades.

    Parameters
    ----------
    channels
        Widths of the network, from fine to coarse.
    layers
        Residual blocks on each level.
    loss
        l1; l2; or psnr, under which light damage counts as much as heavy.
    times
        Density of t.
    a
        Weight of t = 1 in the mixture of times: its probability is a / (1 + a).
    noise
        Noise on the path.
    eps
        Size of that noise, in [0, 1] units.
    """
    schedule = run.schedule(pairs.out, pairs.start)
    from pristina.training.indi import InDITraining, train_indi

    settings = InDITraining(
        **pairs.settings(),
        channels=channels,
        layers=layers,
        loss=loss,
        times=times,
        a=a,
        noise=noise,
        eps=eps,
    )
    train_indi(pairs.files(), pairs.out, settings, schedule, start=pairs.start, resume=run.state)


@app.command
def conditional(*, pairs: AnyPairs, run: AnyRun = Run()) -> None:
    """Train a conditional diffusion network on the same pairs, to compare with InDI."""
    schedule = run.schedule(pairs.out, pairs.start)
    from pristina.training.conditional import train_conditional
    from pristina.training.pairs import PairTraining

    settings = PairTraining(**pairs.settings())
    train_conditional(
        pairs.files(), pairs.out, settings, schedule, start=pairs.start, resume=run.state
    )


@app.command(name="kernel-prior")
def kernel_prior(
    *, out: Path, size: int = 32, run: Annotated[KernelRun, Parameter(name="*")] = KernelRun()
) -> None:
    """Train a prior of blur kernels, which are drawn on the fly; BlindDPS needs one.

    Parameters
    ----------
    out
        NAME.safetensors.
    size
        Side of the network's pictures; the kernels are one pixel smaller.
    """
    schedule = run.schedule(out)
    from pristina.training.kernel_prior import KernelTraining, train_kernel_prior

    train_kernel_prior(out, KernelTraining(size_px=size), schedule, resume=run.state)


@dataclass(frozen=True)
class Photographs:
    """What to learn from, for trainings whose damage is drawn on the fly.

    Attributes:
        data: Folder of clean photographs; may be repeated. Some of the first are set aside for the
            held-out figures.
        out: NAME.safetensors.
        share: PREFIX=NUMBER: how often a picture counts whose file name begins so. May be repeated.
    """

    data: list[Path]
    out: Path
    share: Shares = None

    def files(self) -> dict[str, Any]:
        """Return the arguments of a training that say it."""
        return {"data": self.data, "out": self.out, "weights": parse_shares(self.share)}


AnyPhotographs = Annotated[Photographs, Parameter(name="*")]


@app.command
def scratches(
    *,
    photographs: AnyPhotographs,
    size: int = 128,
    channels: tuple[int, ...] = (24, 48, 96),
    layers: int = 1,
    run: AnyRun = Run(),
) -> None:
    """Train the network that finds dust, scratches, cracks, tears and stains.

    Parameters
    ----------
    size
        Side of the training crops, in pixels.
    channels
        Widths of the network, from fine to coarse.
    layers
        Residual blocks on each level.
    """
    schedule = run.schedule(photographs.out)
    from pristina.training.scratches import ScratchTraining, train_scratches

    settings = ScratchTraining(size_px=size, channels=channels, layers=layers)
    train_scratches(**photographs.files(), settings=settings, schedule=schedule, resume=run.state)


@app.command
def operator(
    *,
    photographs: AnyPhotographs,
    size: int = 96,
    channels: tuple[int, ...] = (48, 96, 192),
    layers: int = 2,
    start: Path | None = None,
    run: AnyRun = Run(),
) -> None:
    """Train the regressor of the method reconstruct, which is told the operator.

    Parameters
    ----------
    size
        Side of the training crops, in pixels.
    channels
        Widths of the network, from fine to coarse.
    layers
        Residual blocks on each level.
    start
        Weights to begin with: of the same network, or of a regressor of these widths (blind, say).
    """
    schedule = run.schedule(photographs.out, start)
    from pristina.training.operator import OperatorTraining, train_operator

    settings = OperatorTraining(size_px=size, channels=channels, layers=layers)
    files = photographs.files() | {"start": start}
    train_operator(**files, settings=settings, schedule=schedule, resume=run.state)


@app.command
def reader(
    *,
    photographs: AnyPhotographs,
    items: int = 6000,
    channels: tuple[int, ...] = (32, 64, 96, 128),
    hidden: int = 256,
    run: AnyRun = Run(),
) -> None:
    """Train the network that reads what damage a picture has and what a repair would gain.

    The damage is drawn, and the gains of the shipped regressors are measured; both are kept in
    NAME.items and NAME.held-out.

    Parameters
    ----------
    items
        Number of different items; each takes about half a second to draw.
    channels
        Widths of the network, from fine to coarse.
    hidden
        Width of its dense layers.
    """
    schedule = run.schedule(photographs.out)
    from pristina.training.reader import ReaderTraining, train_reader

    settings = ReaderTraining(items=items, channels=channels, hidden=hidden)
    train_reader(**photographs.files(), settings=settings, schedule=schedule, resume=run.state)
