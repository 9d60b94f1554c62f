"""One training loop for every network of this project.

A task says what a batch costs and how good the network is; the loop does the rest: accelerate (one processor, one GPU or many
through ``accelerate launch``), averaging of weights, learning rate, progress, checkpoints that are whole or absent, resuming.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pristina.errors import CheckpointError, SettingError
from pristina.priors.checkpoints.format import read_tensors, save_weights
from pristina.priors.checkpoints.header import read_header
from pristina.priors.network import PatchUNet, complete, fast_dtype


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        images: Stop after this many pictures; 0 for no such limit.
        minutes: Stop after this much training time, interruptions not counted; 0 for no such limit.
        batch: Pictures a step, over all processes.
        learning_rate: Its peak: reached after ``warmup`` steps, and left along a cosine to zero.
        warmup: Steps.
        ema: Decay of the averaged weights a step, reached gradually. The averaged weights are the ones that are kept.
        save_minutes: Time between checkpoints: what a kill can cost.
        compile: Use torch.compile (slow to start, faster after).
        workers: Processes that prepare pictures; 0 does it in the training process.
        seed: Of everything that is drawn.
    """

    images: int = 0
    minutes: float = 0
    batch: int = 16
    learning_rate: float = 5e-4
    warmup: int = 200
    ema: float = 0.999
    save_minutes: float = 5
    compile: bool = True
    workers: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.images <= 0 and self.minutes <= 0:
            raise SettingError("Say how long to train: images or minutes must be positive.")
        if self.batch < 1:
            raise SettingError(f"batch must be at least 1, not {self.batch}.")

    def progress(self, images: int, seconds: float) -> float:
        """How much of the run is done, from 0 to 1."""
        shares = [images / self.images if self.images else 0, seconds / (60 * self.minutes) if self.minutes else 0]
        return min(1.0, max(shares))

    def rate(self, step: int, progress: float) -> float:
        """The learning rate at a step."""
        return self.learning_rate * min(1, (step + 1) / self.warmup) * (0.5 + 0.5 * math.cos(math.pi * progress))


class Stream(Protocol):
    """Training items: endless in effect, and item ``i`` the same whenever it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, item: int) -> Tensor: ...


class Task(Protocol):
    """What a network is trained for."""

    def loss(self, network: nn.Module, batch: Tensor, random: torch.Generator) -> Tensor:
        """The mean loss of a batch as the stream gives it."""

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Held-out figures of the averaged weights."""

    def sample(self, network: nn.Module, path: Path) -> None:
        """Write a grid of pictures that shows what the network can do."""

    def header(self) -> dict[str, Any]:
        """What goes into the weight file's metadata beside the network's settings."""


def train(
    network: PatchUNet,
    task: Task,
    stream: Stream,
    schedule: Schedule,
    out: Path,
    *,
    resume: bool = False,
    report: Callable[[str], None] = print,
) -> Path:
    """Train ``network`` and write its averaged weights to ``out``.

    Beside ``out`` (``NAME.safetensors``) stand ``NAME.state.pt`` (for resuming), ``NAME.jsonl`` (loss and held-out figures against
    pictures seen) and ``NAME.png`` (a grid of samples), renewed at each checkpoint.

    Raises:
        CheckpointError: ``resume`` without a state, or with one of another network.
    """
    mixed = fast_dtype(torch.device("cuda" if torch.cuda.is_available() else "cpu")) == torch.bfloat16
    accelerator = Accelerator(mixed_precision="bf16" if mixed else "no")
    rank, world = accelerator.process_index, accelerator.num_processes
    if schedule.batch % world:
        raise SettingError(f"A batch of {schedule.batch} cannot be shared by {world} processes.")
    local = schedule.batch // world
    state_path, log_path = out.with_suffix(".state.pt"), out.with_suffix(".jsonl")

    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=schedule.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    ema = EMAModel(network.parameters(), decay=schedule.ema)
    step, seconds = 0, 0.0
    if resume:
        step, seconds = _load_state(state_path, network, optimizer, ema)
        report(f"resumed at {step * schedule.batch:,} pictures")
    elif accelerator.is_main_process:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log_path.write_text("")
    ema.to(accelerator.device)
    plain = network
    wrapped, optimizer = accelerator.prepare(network, optimizer)
    model: Any = torch.compile(wrapped) if schedule.compile else wrapped
    n_parameters = sum(p.numel() for p in plain.parameters())
    report(f"{n_parameters / 1e6:.1f} M parameters, {accelerator.device}, {accelerator.mixed_precision}, {world} process(es)")

    def save(images: int, loss: float, speed: float) -> None:
        accelerator.wait_for_everyone()
        if not accelerator.is_main_process:
            return
        ema.store(plain.parameters())
        ema.copy_to(plain.parameters())
        figures = {k: round(v, 4) for k, v in task.evaluate(plain.eval()).items()}
        done = {"images": images, "hours": round(seconds / 3600, 3), "images_per_s": round(speed, 1)}
        header = {"network": plain.settings, "held_out": figures, "trained": done | {"schedule": asdict(schedule)}}
        save_weights(out, plain.state_dict(), header | task.header())
        task.sample(plain, out.with_suffix(".png"))
        ema.restore(plain.parameters())
        plain.train()
        state = {"network": plain.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema.state_dict()}
        beside = state_path.with_suffix(".partial")
        torch.save(state | {"settings": plain.settings, "step": step, "seconds": seconds}, beside)
        os.replace(beside, state_path)
        with log_path.open("a") as file:
            file.write(json.dumps(done | {"loss": round(loss, 5)} | figures) + "\n")
        report(f"  held out: {figures}")

    mine = _Share(stream, step, schedule.batch, local, rank)
    ahead = 4 if schedule.workers else None
    loader = DataLoader(mine, local, num_workers=schedule.workers, prefetch_factor=ahead)
    running, last_save, last_line, speed = float("nan"), seconds, seconds, 0.0
    model.train()
    tick = time.perf_counter()
    for batch in loader:
        progress = schedule.progress(step * schedule.batch, seconds)
        if progress >= 1:
            break
        random = torch.Generator().manual_seed(schedule.seed * 1_000_003 + step * world + rank)
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step, progress)
        loss = task.loss(model, batch, random)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ema.step(plain.parameters())
        step += 1
        value = float(loss.detach())
        running = value if math.isnan(running) else 0.98 * running + 0.02 * value
        took, tick = time.perf_counter() - tick, time.perf_counter()
        seconds += took
        if world > 1:  # all processes stop and save together, by the first one's clock
            seconds = float(broadcast(torch.tensor(seconds, dtype=torch.float64, device=accelerator.device)))
        speed = schedule.batch / took if not speed else 0.95 * speed + 0.05 * schedule.batch / took
        images = step * schedule.batch
        if seconds - last_line > 20:
            last_line = seconds
            share = schedule.progress(images, seconds)
            left = seconds * (1 - share) / share if share else 0
            report(f"{images:>9,} pictures  loss {running:.4f}  {speed:5.1f} images/s  {100 * share:4.1f} %  {left / 60:.0f} min left")
        if seconds - last_save > 60 * schedule.save_minutes:
            last_save = seconds
            save(images, running, speed)
            tick = time.perf_counter()
    save(step * schedule.batch, running, speed)
    return out


class _Share(Dataset[Tensor]):
    """What one of several processes draws from a stream, from a given step on."""

    def __init__(self, stream: Stream, step: int, batch: int, local: int, rank: int):
        self.stream, self.batch, self.local = stream, batch, local
        self.first = step * batch + rank * local

    def __len__(self) -> int:
        return (len(self.stream) - self.first) // self.batch * self.local

    def __getitem__(self, i: int) -> Tensor:
        return self.stream[self.first + i // self.local * self.batch + i % self.local]


def _load_state(path: Path, network: PatchUNet, optimizer: torch.optim.Optimizer, ema: EMAModel) -> tuple[int, float]:
    if not path.is_file():
        raise CheckpointError(f"There is nothing to resume: {path} does not exist. Leave out --resume to start anew.")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if complete(state["settings"]) != network.settings:
        raise CheckpointError(f"{path} belongs to another network ({state['settings']}, not {network.settings}).")
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    ema.load_state_dict(state["ema"])
    return int(state["step"]), float(state["seconds"])


@torch.no_grad()
def start_from(network: PatchUNet, path: Path) -> None:
    """Begin with the weights of a trained network, of the same shape or one that lacks the coarsest levels or the attention in the middle.

    What it lacks, and the middle of a network with more levels, begins as it would anew.
    """
    header = read_header(path)
    old, new = complete(header["network"]) if header else None, network.settings
    if old is None or old != new | {
        "channels": new["channels"][: len(old["channels"])],
        "attention": new["attention"] and old["attention"],
    }:
        raise CheckpointError(f"{path} holds another network than {network.settings}, and not a smaller one to grow from.")
    added, width = len(new["channels"]) - len(old["channels"]), old["channels"][-1]
    state = network.state_dict()
    for name, value in read_tensors(path).items():
        if added and "mid_block" in name:
            continue
        into = state[re.sub(r"up_blocks\.(\d+)", lambda found: f"up_blocks.{int(found[1]) + added}", name)]
        if into.shape == value.shape:
            into.copy_(value)
        else:  # where the way up begins: [from below, same level]; what comes from below is new, and not heard at first
            channels = min(1, value.ndim - 1)
            if value.ndim == 4:
                into.zero_()
            into.narrow(channels, into.shape[channels] - width, width).copy_(value.narrow(channels, width, width))
