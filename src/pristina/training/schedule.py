"""How long and how fast a training runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from pristina.errors import SettingError
from pristina.settings import Count, NotNegative, Positive, Settings, Share

Optimiser = Literal["adamw", "muon"]


@dataclass(frozen=True)
class Schedule(Settings):
    """Say how long and how fast to train.

    The learning rate rises to its peak during the warm-up, stays there, and falls to zero along
    half a cosine during the cool-down. ``cooldown=1`` is one cosine over the whole run; with a
    shorter cool-down the state before it is kept, so that a later run can go on from it at the full
    rate.

    Attributes:
        images: Number of pictures after which training stops; 0 for no such limit.
        minutes: Training time after which it stops, without interruptions; 0 for no such limit.
        batch: Pictures in a step, over all processes.
        learning_rate: Peak of the learning rate.
        optimiser: ``adamw``; or ``muon`` for the inner layers of a network, and AdamW for its first
            and last one.
        outer_rate: Peak of AdamW's learning rate beside Muon.
        warmup: Number of steps until the peak.
        cooldown: Share of the run, at its end, in which the learning rate falls.
        ema: Decay of the averaged weights in a step, reached gradually. The averaged weights are
            the ones that are kept.
        save_minutes: Time between checkpoints, which is what an interruption can cost.
        compile: Whether to use torch.compile (slow to start, faster after).
        workers: Processes that prepare pictures; 0 prepares them in the training process.
        seed: Seed of everything that is drawn.
    """

    images: Annotated[int, Ge(0)] = 0
    minutes: NotNegative = 0
    batch: Count = 16
    learning_rate: Positive = 5e-4
    optimiser: Optimiser = "adamw"
    outer_rate: Positive = 1e-3
    warmup: Count = 200
    cooldown: Annotated[float, Gt(0), Le(1)] = 1.0
    ema: Share = 0.999
    save_minutes: NotNegative = 5
    compile: bool = True
    workers: Annotated[int, Ge(0)] = 1
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images == 0 and self.minutes == 0:
            raise SettingError("Say how long to train: images or minutes must be positive.")

    def progress(self, images: int, seconds: float) -> float:
        """Return the share of the run that is done, from 0 to 1."""
        shares = [
            images / self.images if self.images else 0,
            seconds / (60 * self.minutes) if self.minutes else 0,
        ]
        return min(1.0, max(shares))

    def cooling(self, progress: float) -> bool:
        """Return whether the cool-down has begun."""
        return self.cooldown < 1 and progress >= 1 - self.cooldown

    def factor(self, step: int, progress: float) -> float:
        """Return the share of the peak learning rate at a step, from 0 to 1."""
        cooled = max(0.0, progress - (1 - self.cooldown)) / self.cooldown
        return min(1, (step + 1) / self.warmup) * (0.5 + 0.5 * math.cos(math.pi * cooled))
