"""``--method auto``: look at a picture, and say what should be done with it.

Three things are looked for, each against a bound that clean photographs do not reach; where none is found the picture is left alone, for on a
clean picture a restorer can only do harm. What has a specialist goes to it, and all else to ``photos-blind``; each is a single network call, for
pictures of any size.

Source:
    The bounds are our own, from training photographs (clean; noise of 3 to 25/255; JPEG of quality 10 to 95; blur; enlarged pictures): see
    benchmarks/indi.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pristina.image.look import Seen
from pristina.priors.load import Kind

JPEG_QUALITY = 85
"""JPEG files of this quality or less are repaired: each of 20 training photographs then gains in PSNR and HaarPSI; at 90 some lose."""
BLOCKINESS = 2.0
"""So are pictures with blocks like these, whatever their file says: clean photographs stay below."""
NOISE, WHITENESS = 3 / 255, 0.7
"""So are pictures in which even the smoothest places are as noisy as this, and the noise as white."""
LOUD_NOISE = 12 / 255
"""So are pictures as noisy as this, of whatever colour the noise."""
GRAIN, GRAIN_WHITENESS = 6 / 255, 0.65
"""A JPEG file as noisy as this at twice the finest size, and the noise as white, holds noise that was compressed: too coarse for ``denoise``."""
FINENESS, FINENESS_WIDE = 0.30, 0.11
"""So are pictures with as little fine detail as this over one octave or over two: blurred or enlarged."""
STRENGTH = 0.8
"""Of ``photos-blind`` where there is no noise and no strong blur: it then does more good and less harm to light blur and to enlargement by
two than at 1 (by 0.05 to 0.25 dB on training photographs); for noise and strong blur, 1 is best."""
SPECIALISTS = {
    "noise": "denoise",
    "noise and JPEG compression": "mixed",
    "noise and blur or enlargement": "mixed",
    "noise and JPEG compression and blur or enlargement": "mixed",
    "JPEG compression": "jpeg",
    "JPEG compression and blur or enlargement": "jpeg",
}
"""The weights for what was seen, where they are not ``photos-blind``. A compressed picture may be soft by nature: if it is, sharpening costs 2 to
9 dB, if not, it gains 0.5 to 1.5 dB (ten training photographs), while ``jpeg`` gains either way."""


@dataclass(frozen=True)
class Choice:
    """What to do with a picture.

    Attributes:
        method: One of :data:`pristina.methods.index.METHODS`; ``nothing`` for a picture that looks undamaged.
        why: One sentence: what was seen, and what follows.
        prior: The weights; None for ``nothing``.
        settings: Those of the method that differ from its defaults.
    """

    method: str
    why: str
    prior: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def choose(seen: Seen, kind: Kind = "direct", prior: str | None = None) -> Choice:
    """The method for a picture of which nothing is known but what was seen.

    Args:
        seen: What :func:`pristina.image.look.look` saw.
        kind: Of the weights that are to be used: a diffusion prior leaves one call of ``mmse`` where there is noise, and ``diip`` elsewhere.
        prior: What they are called; None leaves that choice here too.
    """
    noisy = (seen.noise >= NOISE and seen.whiteness >= WHITENESS) or seen.noise >= LOUD_NOISE
    compressed = (seen.jpeg_quality or 100) <= JPEG_QUALITY or seen.blockiness >= BLOCKINESS
    grain = seen.jpeg_quality is not None and seen.noise_wide >= GRAIN and seen.whiteness_wide >= GRAIN_WHITENESS
    damage = []
    if noisy or (compressed and grain):
        damage.append("noise")
    if compressed or (noisy and grain):
        damage.append("JPEG compression")
    if seen.fineness <= FINENESS or seen.fineness_wide <= FINENESS_WIDE:
        damage.append("blur or enlargement")
    if not damage:
        return Choice("nothing", f"It shows no damage worth repairing ({seen.sentence()}): the picture is left as it is.")
    shown = " and ".join(damage)
    prior = prior or SPECIALISTS.get(shown, "photos-blind")
    name = {"direct": "indi", "conditional": "conditional_ddpm"}.get(kind, "mmse" if damage == ["noise"] else "diip")
    gently = prior == "photos-blind" and "noise" not in damage and seen.fineness_wide > FINENESS_WIDE
    how = f" at strength {STRENGTH}" if gently else ""
    why = f"It shows {shown} ({seen.sentence()}): {name} with {prior}{how} was chosen."
    return Choice(name, why, prior, {"strength": STRENGTH} if gently else {})
