"""Train any network of this project with one loop.

A task says what a batch costs and how good the network is. The loop does the rest: accelerate (one
processor, one GPU, or many through ``accelerate launch``), averaging of the weights, the learning
rate, progress, checkpoints that are whole or absent, and resuming.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pristina.errors import CheckpointError, SettingError
from pristina.priors.checkpoints.format import read_tensors, save_weights
from pristina.priors.checkpoints.header import read_header
from pristina.priors.network import complete, fast_dtype
from pristina.training.muon import Muon, parameter_groups
from pristina.training.schedule import Schedule
from pristina.training.state import Position, only_training, read_state, write_state

LINE_S = 60
"""Seconds of training between two lines of progress."""


@runtime_checkable
class Stream(Protocol):
    """Training items: endless in effect, and item ``i`` the same whenever it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, item: int) -> Tensor: ...


@runtime_checkable
class Task(Protocol):
    """What a network is trained for."""

    def loss(self, network: nn.Module, batch: Tensor, random: torch.Generator) -> Tensor:
        """Return the mean loss of a batch of the stream."""

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Return figures of the averaged weights on pictures that are not trained on."""

    def sample(self, network: nn.Module, path: Path) -> None:
        """Write a grid of pictures that shows what the network can do."""

    def header(self) -> dict[str, Any]:
        """Return what the weight file's metadata say beside the network's settings."""


def train(
    network: nn.Module,
    task: Task,
    stream: Stream,
    schedule: Schedule,
    out: Path,
    *,
    resume: bool | Path = False,
    report: Callable[[str], None] = print,
) -> Path:
    """Train a network and write its averaged weights.

    Beside ``out`` (``NAME.safetensors``) stand ``NAME.state.pt`` (for resuming), ``NAME.jsonl``
    (loss and held-out figures against pictures seen) and ``NAME.png`` (a grid of samples), renewed
    at each checkpoint, and ``NAME.stable.pt``, the state before the cool-down, if the schedule has
    one.

    Args:
        network: The network, with its ``settings``; trained in place.
        task: What it is trained for.
        stream: Items to train on.
        schedule: How long and how fast.
        out: Path of the weights.
        resume: Whether to go on from ``NAME.state.pt``, or the path of the state to go on from.
        report: Function that receives lines of progress.

    Returns:
        ``out``.

    Raises:
        CheckpointError: The state to resume is missing, damaged, or belongs to another network.
        InputError: Another training is writing to ``out``.
    """
    trainer = _Trainer(network, task, schedule, out, report)
    main = trainer.accelerator.is_main_process
    with only_training(trainer.log_path) if main else nullcontext():
        trainer.begin(resume)
        trainer.run(stream)
    return out


class _Trainer:
    """Hold everything that changes while a network is trained."""

    def __init__(
        self,
        network: Any,
        task: Task,
        schedule: Schedule,
        out: Path,
        report: Callable[[str], None],
    ):
        mixed = fast_dtype(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        self.accelerator = Accelerator(mixed_precision="bf16" if mixed == torch.bfloat16 else "no")
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        if schedule.batch % self.world:
            raise SettingError(
                f"A batch of {schedule.batch} cannot be shared by {self.world} processes."
            )
        self.network, self.task, self.schedule = network, task, schedule
        self.out, self.report = out, report
        self.state_path = out.with_suffix(".state.pt")
        self.log_path = out.with_suffix(".jsonl")
        self.network.to(memory_format=torch.channels_last)
        self.optimizer: Any = make_optimizer(network, schedule)
        self.ema = EMAModel(network.parameters(), decay=schedule.ema)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.step, self.seconds = 0, 0.0
        self.running, self.speed = float("nan"), 0.0

    @property
    def images(self) -> int:
        """Return the number of pictures seen so far."""
        return self.step * self.schedule.batch

    def begin(self, resume: bool | Path) -> None:
        """Read the state to resume, or begin a new log; then move everything to the device."""
        if resume:
            path = self.state_path if resume is True else resume
            found = read_state(path, self.network, self.optimizer, self.ema, self.network.settings)
            self.step, self.seconds = found.step, found.seconds
            self.report(f"resumed at {self.images:,} pictures")
        elif self.accelerator.is_main_process:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            self.log_path.write_text("")
        self.ema.to(self.accelerator.device)
        wrapped, self.optimizer = self.accelerator.prepare(self.network, self.optimizer)
        self.model: Any = torch.compile(wrapped) if self.schedule.compile else wrapped
        n_parameters = sum(p.numel() for p in self.network.parameters())
        self.report(
            f"{n_parameters / 1e6:.1f} M parameters, {self.accelerator.device}, "
            f"{self.accelerator.mixed_precision}, {self.world} process(es)"
        )

    def run(self, stream: Stream) -> None:
        """Train until the schedule says that the run is done."""
        last_line = last_save = self.seconds
        saved = self.step if self.out.exists() else None
        cooling = self.schedule.cooling(self._progress())
        self.model.train()
        tick = time.perf_counter()
        for batch in self._batches(stream):
            progress = self._progress()
            if progress >= 1:
                break
            if not cooling and self.schedule.cooling(progress):
                cooling = True
                self._write_state(self.out.with_suffix(".stable.pt"))
                self.report("  the cool-down begins")
            value = self._step(batch, progress)
            took, tick = time.perf_counter() - tick, time.perf_counter()
            self._count(value, took)
            if self.seconds - last_line > LINE_S:
                last_line = self.seconds
                self._report_progress()
            if self.seconds - last_save > 60 * self.schedule.save_minutes:
                last_save, saved = self.seconds, self.step
                self._save()
                tick = time.perf_counter()
        if saved != self.step:
            self._save()

    def _progress(self) -> float:
        return self.schedule.progress(self.images, self.seconds)

    def _batches(self, stream: Stream) -> DataLoader[Tensor]:
        local = self.schedule.batch // self.world
        share = _Share(stream, self.step, self.schedule.batch, local, self.rank)
        workers = self.schedule.workers
        return DataLoader(share, local, num_workers=workers, prefetch_factor=4 if workers else None)

    def _step(self, batch: Tensor, progress: float) -> float:
        """Take one step and return its loss."""
        seed = self.schedule.seed * 1_000_003 + self.step * self.world + self.rank
        factor = self.schedule.factor(self.step, progress)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        loss = self.task.loss(self.model, batch, torch.Generator().manual_seed(seed))
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.step(self.network.parameters())
        self.step += 1
        return float(loss.detach())

    def _count(self, loss: float, took_s: float) -> None:
        """Bring the clock and the running means up to date."""
        self.running = loss if math.isnan(self.running) else 0.98 * self.running + 0.02 * loss
        self.seconds += took_s
        if self.world > 1:
            # All processes stop and save together, by the first one's clock.
            clock = torch.tensor(self.seconds, dtype=torch.float64, device=self.accelerator.device)
            self.seconds = float(broadcast(clock))
        speed = self.schedule.batch / took_s
        self.speed = 0.95 * self.speed + 0.05 * speed if self.speed else speed

    def _report_progress(self) -> None:
        share = self._progress()
        left_s = self.seconds * (1 - share) / share if share else 0
        self.report(
            f"{self.images:>9,} pictures  {time.strftime('%H:%M:%S')}  loss {self.running:.4f}  "
            f"{self.speed:5.1f} images/s  {100 * share:4.1f} %  {left_s / 60:.0f} min left"
        )

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Give the network its averaged weights for a while."""
        self.ema.store(self.network.parameters())
        self.ema.copy_to(self.network.parameters())
        self.network.eval()
        try:
            yield
        finally:
            self.ema.restore(self.network.parameters())
            self.network.train()

    def _save(self) -> None:
        """Write the averaged weights, samples, the state and a line of the log."""
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        hours = round(self.seconds / 3600, 3)
        done = {"images": self.images, "hours": hours, "images_per_s": round(self.speed, 1)}
        with self._averaged():
            figures = {k: round(v, 4) for k, v in self.task.evaluate(self.network).items()}
            trained = done | {"schedule": asdict(self.schedule)}
            header = {"network": self.network.settings, "held_out": figures, "trained": trained}
            save_weights(self.out, self.network.state_dict(), header | self.task.header())
            self.task.sample(self.network, self.out.with_suffix(".png"))
        self._write_state(self.state_path)
        with self.log_path.open("a") as file:
            line = done | {"time": time.strftime("%H:%M:%S"), "loss": round(self.running, 5)}
            file.write(json.dumps(line | figures) + "\n")
        self.report(f"  held out: {figures}")

    def _write_state(self, path: Path) -> None:
        if self.accelerator.is_main_process:
            position = Position(self.step, self.seconds)
            settings = self.network.settings
            write_state(path, self.network, self.optimizer, self.ema, settings, position)


def make_optimizer(network: Any, schedule: Schedule) -> torch.optim.Optimizer:
    """Make the optimiser that a schedule names.

    Args:
        network: The network; for Muon its ``ends`` name the first and the last layer.
        schedule: The schedule.

    Returns:
        The optimiser, each group with its peak learning rate.

    Raises:
        SettingError: Muon does not know the ends of this network.
    """
    if schedule.optimiser == "adamw":
        rate = schedule.learning_rate
        return torch.optim.AdamW(
            network.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01
        )
    ends = getattr(network, "ends", None)
    if ends is None:
        raise SettingError(
            f"Muon needs to know the first and last layer of a {type(network).__name__}, "
            "which does not name them; use adamw."
        )
    return Muon(parameter_groups(network, schedule.learning_rate, schedule.outer_rate, ends))


class _Share(Dataset[Tensor]):
    """What one of several processes draws from a stream, from a given step on."""

    def __init__(self, stream: Stream, step: int, batch: int, local: int, rank: int):
        self.stream, self.batch, self.local = stream, batch, local
        self.first = step * batch + rank * local

    def __len__(self) -> int:
        return (len(self.stream) - self.first) // self.batch * self.local

    def __getitem__(self, i: int) -> Tensor:
        return self.stream[self.first + i // self.local * self.batch + i % self.local]


def start_from(network: Any, path: Path) -> None:
    """Begin with the weights of a trained network of the same settings, or of a smaller one.

    A smaller :class:`pristina.priors.patch_unet.PatchUNet` may lack the coarsest levels or the
    attention in the middle. What it lacks, and the middle of a network with more levels, begins as
    it would anew.

    Args:
        network: The network, changed in place.
        path: The weights to begin with.

    Raises:
        CheckpointError: The weights belong to a network that does not fit.
    """
    header = read_header(path)
    new = network.settings
    if header is not None and header["network"] == new:
        network.load_state_dict(read_tensors(path))
        return
    old = complete(header["network"]) if header and "layers" in header["network"] else None
    if old is None or "architecture" in new or old != _smaller(new, old):
        raise CheckpointError(
            f"{path} holds another network than {new}, and not a smaller one to grow from."
        )
    _grow(network, read_tensors(path), len(new["channels"]) - len(old["channels"]), old)


def _smaller(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that ``old`` must have for ``new`` to grow from it."""
    return new | {
        "channels": new["channels"][: len(old["channels"])],
        "attention": new["attention"] and old.get("attention", False),
    }


@torch.no_grad()
def _grow(network: Any, tensors: dict[str, Tensor], added: int, old: dict[str, Any]) -> None:
    """Copy the tensors of a network that lacks the ``added`` coarsest levels."""
    width, state = old["channels"][-1], network.state_dict()
    for name, value in tensors.items():
        if added and "mid_block" in name:
            continue
        renamed = re.sub(r"up_blocks\.(\d+)", lambda m: f"up_blocks.{int(m[1]) + added}", name)
        into = state[renamed]
        if into.shape == value.shape:
            into.copy_(value)
            continue
        # The first block on the way up takes [from below, same level]; what comes from below is new
        # and has no effect at first.
        channels = min(1, value.ndim - 1)
        if value.ndim == 4:
            into.zero_()
        from_level = into.narrow(channels, into.shape[channels] - width, width)
        from_level.copy_(value.narrow(channels, width, width))
