"""Observation of a run from outside: quality of every estimate, and the peak of memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pristina.bench.cells import Trace, rounded
from pristina.metrics.fidelity import psnr
from pristina.types import OnStep, StepEvent

TRACED = 200
"""Largest number of points of a trace."""


class Observer:
    """Progress callback that compares every estimate with the clean pictures.

    Nothing that it finds goes back to the method.

    Args:
        truth: Clean pictures, (B, C, H, W).
        keep_best: Whether to keep the estimates of highest PSNR.
        on_step: Progress callback that is called after it.

    Attributes:
        loss: Loss at each step, each (B,).
        psnr: PSNR at each step, each (B,).
        best: Estimates of highest PSNR, (B, C, H, W).
        best_step: Their steps, (B,).
        seconds: Time spent here, which is not the method's.
    """

    def __init__(self, truth: Tensor, keep_best: bool, on_step: OnStep | None = None):
        self.truth, self.keep_best, self.on_step = truth, keep_best, on_step
        self.loss: list[Tensor] = []
        self.psnr: list[Tensor] = []
        self.best = torch.zeros_like(truth)
        self.best_psnr = torch.full((len(truth),), -torch.inf)
        self.best_step = torch.zeros(len(truth), dtype=torch.long)
        self.seconds = 0.0

    def __call__(self, event: StepEvent) -> None:
        """Record one step."""
        begun = time.perf_counter()
        if event.images.shape == self.truth.shape:
            now = psnr(event.images.clamp(0, 1), self.truth).cpu()
            self.psnr.append(now)
            self.loss.append(event.loss.detach().float().cpu().clone())
            if self.keep_best:
                better = now > self.best_psnr
                self.best[better] = event.images[better]
                self.best_psnr = torch.where(better, now, self.best_psnr)
                self.best_step = torch.where(better, event.step, self.best_step)
        if self.on_step:
            self.on_step(event)
        self.seconds += time.perf_counter() - begun


def trace_of(observers: Sequence[Observer]) -> Trace:
    """Return loss and PSNR against steps, mean over pictures.

    A batch that ended early counts with its last values.

    Args:
        observers: Observer of each batch.

    Returns:
        At most :data:`TRACED` points; none unless every batch has several steps.
    """
    if not observers or any(len(observer.psnr) < 2 for observer in observers):
        return Trace()
    longest = max(len(observer.psnr) for observer in observers)
    kept = sorted({round(i * (longest - 1) / (TRACED - 1)) for i in range(TRACED)})

    def mean(figures: Sequence[list[Tensor]]) -> tuple[float, ...]:
        whole = [torch.stack(steps) for steps in figures]
        filled = [torch.cat([t, t[-1:].expand(longest - len(t), -1)]) for t in whole]
        return tuple(rounded(v) for v in torch.cat(filled, 1).mean(1)[kept].tolist())

    return Trace(
        step=tuple(k + 1 for k in kept),
        loss=mean([observer.loss for observer in observers]),
        psnr=mean([observer.psnr for observer in observers]),
    )


def reset_peak(device: torch.device) -> bool:
    """Begin a new peak of memory.

    Returns:
        False where the system cannot; the peak is then that of the process so far.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux.
    except OSError:
        return False
    return True


def peak(device: torch.device) -> int:
    """Return the largest memory since :func:`reset_peak`, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
