"""``--method auto``: look at a picture, and say what should be done with it.

One restorer, ``photos-blind``, is the best choice that was measured for ordinary photographs of any size and any of the damage below, in one
network call; what is left to decide is whether there is damage at all, for on a clean picture it can only do harm. So three things are looked
for, each against a bound that clean photographs do not reach, and where none is found the picture is left alone.

Source:
    The bounds are our own, from training photographs (clean; noise of 3 to 25/255; JPEG of quality 10 to 95; blur; enlarged pictures): see
    benchmarks/indi.md.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Choice:
    """What to do with a picture.

    Attributes:
        method: One of :data:`pristina.methods.index.METHODS`; ``nothing`` for a picture that looks undamaged.
        why: One sentence: what was seen, and what follows.
    """

    method: str
    why: str


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
    return Choice(name, f"It shows {' and '.join(damage)} ({seen.sentence()}): {name} with {prior} was chosen.")
