"""What the harness sees of a run from outside: the PSNR of every estimate, and the peak of memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pristina.metrics.fidelity import psnr
from pristina.operators.base import Operator
from pristina.types import StepEvent

TRACED = 200  # points kept of a trace


class Watch:
    """Listens to a run: the PSNR of every estimate, and the best one if asked. What it sees never goes back.

    Attributes:
        loss: The loss at each step, (B,) each.
        psnr: The PSNR at each step, (B,) each.
        best: The estimates of highest PSNR, (B, C, H, W).
        best_step: Where they were.
        seconds: Time spent here, which is not the method's.
    """

    def __init__(self, truth: Tensor, keep_best: bool, on_step: Callable[[StepEvent], None] | None = None):
        self.truth, self.keep_best, self.on_step = truth, keep_best, on_step
        self.loss: list[Tensor] = []
        self.psnr: list[Tensor] = []
        self.best = torch.zeros_like(truth)
        self.best_psnr = torch.full((len(truth),), -torch.inf)
        self.best_step = torch.zeros(len(truth), dtype=torch.long)
        self.seconds = 0.0

    def __call__(self, event: StepEvent) -> None:
        """Note one step."""
        begun = time.perf_counter()
        if event.picture.shape == self.truth.shape:
            now = psnr(event.picture.clamp(0, 1), self.truth).cpu()
            self.psnr.append(now)
            self.loss.append(event.loss.detach().float().cpu().clone())
            if self.keep_best:
                better = now > self.best_psnr
                self.best[better] = event.picture[better]
                self.best_psnr, self.best_step = torch.where(better, now, self.best_psnr), torch.where(better, event.step, self.best_step)
        if self.on_step:
            self.on_step(event)
        self.seconds += time.perf_counter() - begun


@dataclass
class Part:
    """What one batch of a cell came to.

    Attributes:
        picture: The restored pictures, (B, C, H, W).
        stopped: Why, for each picture.
        operator: The estimated operator.
        watch: Who listened; None for the input, which is no run.
        network_calls: Of the batch.
        backward_calls: Of the batch.
        seconds: Of the batch, the listener's left out.
        peak_bytes: The most memory.
        peak_is_own: Whether that is this batch's, or the process's so far.
    """

    picture: Tensor
    stopped: list[str]
    operator: Operator | None = None
    watch: Watch | None = None
    network_calls: int = 0
    backward_calls: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    peak_is_own: bool = True


def traces(parts: Sequence[Part]) -> dict[str, list[Any]]:
    """Loss and PSNR, mean over pictures, against steps; a batch that ended early counts with its last values. Empty without steps."""
    watches = [p.watch for p in parts if p.watch is not None and len(p.watch.psnr) > 1]
    if len(watches) < len(parts):
        return {}
    longest = max(len(w.psnr) for w in watches)
    kept = sorted({round(i * (longest - 1) / (TRACED - 1)) for i in range(TRACED)})
    found: dict[str, list[Any]] = {"step": [k + 1 for k in kept]}
    for name in ("loss", "psnr"):
        whole = [torch.stack(getattr(w, name)) for w in watches]
        filled = torch.cat([torch.cat([t, t[-1:].expand(longest - len(t), -1)]) for t in whole], 1)
        found[name] = [rounded(v) for v in filled.mean(1)[kept].tolist()]
    return found


def rounded(value: float) -> float:
    """Six digits, which is what a cell keeps of a number."""
    return float(f"{value:.6g}")


def reset_peak(device: torch.device) -> bool:
    """Begin a new peak of memory; False where the system has no such thing, and the peak is that of the process so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux
    except OSError:
        return False
    return True


def peak(device: torch.device) -> int:
    """The most memory since :func:`reset_peak`, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if status.exists():
        return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
