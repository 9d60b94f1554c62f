"""What a caller may say about a checkpoint that its file leaves open."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

AttentionOrder = Literal["auto", "legacy", "new"]
Predicts = Literal["auto", "eps", "v", "x0", "edm", "consistency"]


@dataclass(frozen=True)
class LoadOptions:
    """Choices that the tensors of a checkpoint leave open; ``auto`` and None are to be found out.

    Attributes:
        attention_order: Order of the attention's rows, which shapes do not show: ``legacy`` (for
            each head q, k, v) or ``new`` (all q, all k, all v).
        head_channels: Channels of an attention head, the same on every level.
        heads: Attention heads, the same number on every level; instead of ``head_channels``.
        predicts: Quantity that the network predicts: noise (``eps``), ``v``, the clean image
            (``x0``), or that of EDM and consistency models.
        schedule: Noise schedule that it was trained with.
        label: Class to which a class-conditional network is fixed; None takes the mean of all class
            embeddings.
        weights: Averaged (``ema``) or last trained (``raw``) weights, in a file with both; ``auto``
            takes the averaged ones.
        size_px: Side of the training images in pixels.
        fixed_size: Whether only that size is accepted (aligned faces).
        domain: Description of the training images in one sentence.
    """

    attention_order: AttentionOrder = "auto"
    head_channels: int | None = None
    heads: int | None = None
    predicts: Predicts = "auto"
    schedule: Literal["auto", "linear", "cosine"] = "auto"
    label: int | None = None
    weights: Literal["auto", "ema", "raw"] = "auto"
    size_px: int | None = None
    fixed_size: bool | None = None
    domain: str | None = None

    def or_else(self, other: LoadOptions) -> LoadOptions:
        """Return these options, with what they leave open taken from ``other``."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        closed = {name: value for name, value in values.items() if value not in (None, "auto")}
        if "heads" in closed or "head_channels" in closed:  # two ways to say one thing
            closed = {"heads": None, "head_channels": None, **closed}
        return replace(other, **closed)
