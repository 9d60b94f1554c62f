"""``--method auto``: look at a picture, and say what should be done with it.

One restorer, ``photos-blind``, is the best choice that was measured for ordinary photographs of any size and any of the damage below, in one
network call; what is left to decide is whether there is damage at all, for on a clean picture it can only do harm. So three things are looked
for, each against a bound that clean photographs do not reach, and where none is found the picture is left alone.

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

JPEG_QUALITY = 30
"""JPEG files of this quality or less are repaired: up to 60 PSNR still gains a quarter of a dB on average, but HaarPSI falls, and a picture loses."""
BLOCKINESS = 2.0
"""So are pictures with blocks like these, whatever their file says: clean photographs stay below."""
NOISE, WHITENESS = 4 / 255, 0.7
"""So are pictures in which even the smoothest places are as noisy as this, and the noise as white."""
LOUD_NOISE = 12 / 255
"""So are pictures as noisy as this, of whatever colour the noise."""
FINENESS, FINENESS_WIDE = 0.30, 0.11
"""So are pictures with as little fine detail as this over one octave or over two: blurred or enlarged."""
STRENGTH = 0.8
"""Of InDI where there is no noise and no strong blur: ``photos-blind`` then does more good and less harm to JPEG of quality 10 to 60, to light
blur and to enlargement by two than at 1 (by 0.05 to 0.25 dB on training photographs); for noise and strong blur, 1 is best."""


@dataclass(frozen=True)
class Choice:
    """What to do with a picture.

    Attributes:
        method: One of :data:`pristina.methods.index.METHODS`; ``nothing`` for a picture that looks undamaged.
        why: One sentence: what was seen, and what follows.
        settings: Those of the method that differ from its defaults.
    """

    method: str
    why: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def choose(seen: Seen, kind: Kind = "direct", prior: str = "photos-blind") -> Choice:
    """The method for a picture of which nothing is known but what was seen.

    Args:
        seen: What :func:`pristina.image.look.look` saw.
        kind: Of the weights that are to be used: a diffusion prior leaves one call of ``mmse`` where there is noise, and ``diip`` elsewhere.
        prior: What they are called.
    """
    damage = []
    if (seen.noise >= NOISE and seen.whiteness >= WHITENESS) or seen.noise >= LOUD_NOISE:
        damage.append("noise")
    if seen.jpeg_quality is not None and seen.jpeg_quality <= JPEG_QUALITY:
        damage.append("strong JPEG compression")
    elif seen.blockiness >= BLOCKINESS:
        damage.append("blocks as JPEG leaves them")
    if seen.fineness <= FINENESS or seen.fineness_wide <= FINENESS_WIDE:
        damage.append("blur or enlargement")
    if not damage:
        return Choice("nothing", f"It shows no damage worth repairing ({seen.sentence()}): the picture is left as it is.")
    name = {"direct": "indi", "conditional": "conditional_ddpm"}.get(kind, "mmse" if damage == ["noise"] else "diip")
    gently = prior == "photos-blind" and "noise" not in damage and seen.fineness_wide > FINENESS_WIDE
    how = f" at strength {STRENGTH}" if gently else ""
    why = f"It shows {' and '.join(damage)} ({seen.sentence()}): {name} with {prior}{how} was chosen."
    return Choice(name, why, {"strength": STRENGTH} if gently else {})
