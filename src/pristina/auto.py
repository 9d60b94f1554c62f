"""The choice of a method for a picture about whose damage nothing is known.

Three kinds of damage are looked for in the image statistics, each against a bound that clean
photographs do not reach. A picture that shows none gets a second look: crops of it go through a
regressor that hardly changes clean photographs. Where it changes much, as the grain of an old print
or of its paper, it is taken; else the picture is left alone, because a restorer can only harm a
clean picture. Damage for which there is a specialist goes to it, everything else to
``photos-blind``; each is a single network call on pictures of any size.

Source:
    The bounds are our own, from training photographs (clean; noise of 3 to 25/255; JPEG of quality
    10 to 95; blur; enlarged pictures): see benchmarks/indi.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from pristina.image.picture import Picture
from pristina.image.statistics import ImageStatistics
from pristina.priors.direct import DirectPrior
from pristina.priors.load import Kind
from pristina.request import Request

JPEG_QUALITY = 85
"""Highest quality at which a JPEG file is repaired: each of 20 training photographs then gains in
PSNR and HaarPSI; at 90 some lose."""
BLOCKINESS = 2.0
"""Blockiness from which a picture is repaired as a JPEG; clean photographs stay below."""
NOISE, WHITENESS = 3 / 255, 0.7
"""Noise and its whiteness, in the smoothest places, from which a picture is denoised."""
LOUD_NOISE = 12 / 255
"""Noise from which a picture is denoised whatever its whiteness."""
GRAIN, GRAIN_WHITENESS = 6 / 255, 0.65
"""Noise and whiteness at twice the finest size from which a JPEG file holds noise that was
compressed, which is too coarse for ``denoise``."""
FINENESS, FINENESS_WIDE = 0.30, 0.11
"""Fine detail, over one octave and over two, up to which a picture is blurred or enlarged."""
STRENGTH = 0.8
"""Strength of ``photos-blind`` where there is neither noise nor strong blur: on training
photographs 0.05 to 0.25 dB better there than 1, at light blur and enlargement by two."""
SPECIALISTS = {
    "noise": "denoise",
    "noise and JPEG compression": "mixed",
    "noise and blur or enlargement": "mixed",
    "noise and JPEG compression and blur or enlargement": "mixed",
    "JPEG compression": "jpeg",
    "JPEG compression and blur or enlargement": "jpeg",
}
"""Weights for the damage seen, where they are not ``photos-blind``. A compressed picture may be
soft by nature: sharpening then costs 2 to 9 dB, and otherwise gains 0.5 to 1.5 dB (ten training
photographs), while ``jpeg`` gains in both cases."""

CAREFUL = "blind"
"""Weights for pictures that show none of the damage in the statistics: they hardly change clean
pictures."""
CHANGE_DB = 37.0
"""Largest PSNR between crops of a picture and what ``CAREFUL`` makes of them at which it is taken.
Of 35 clean training photographs the lowest has 39.6 dB."""
CROP_PX, CROPS = 128, 3
"""Side of the crops, in pixels, on which that is measured, and their number in each direction."""


Look = Callable[[str, Picture, Callable[[], Any]], Any]
"""Function that computes something of a picture: its name, the picture, and the computation."""


def look_afresh(_name: str, _picture: Picture, compute: Callable[[], Any]) -> Any:
    """Compute something of a picture; a server has a function that remembers it."""
    return compute()


def change_db(picture: Picture, prior: DirectPrior) -> float:
    """Return the PSNR in dB between crops of a picture and what a regressor makes of them.

    Args:
        picture: The picture.
        prior: The regressor.
    """
    pixels = picture.visible
    height, width = picture.size
    size = min(CROP_PX, height), min(CROP_PX, width)
    tops, lefts = (
        sorted({round(i * (n - side) / (CROPS - 1)) for i in range(CROPS)})
        for n, side in zip((height, width), size, strict=True)
    )
    crops = [pixels[:, t : t + size[0], a : a + size[1]] for t in tops for a in lefts]
    y = torch.stack(crops).to(prior.device)
    with torch.no_grad():
        change = prior.predict(y, 1.0).clamp(0, 1) - y
    return float(-10 * change.square().mean().clamp(min=1e-9).log10())


def second_look(
    picture: Picture, request: Request, prior: DirectPrior, look: Look = look_afresh
) -> tuple[Request, str] | None:
    """Choose again for a picture that shows nothing in the statistics.

    Args:
        picture: The picture.
        request: Request with ``method="auto"``.
        prior: The weights :data:`CAREFUL`.
        look: Function that measures the change.

    Returns:
        The request and the reason, as from :func:`choose`; None if the picture is to be left alone.
    """
    change = look("change", picture, lambda: change_db(picture, prior))
    if change > CHANGE_DB:
        return None
    why = (
        "No noise, compression, blur or enlargement was seen, but something like grain or the "
        f"texture of paper ({CAREFUL} changes it to {change:.1f} dB): indi with {CAREFUL} was "
        "chosen. --method nothing leaves the picture as it is."
    )
    return replace(request, method="indi", prior=CAREFUL), why


def damage_seen(statistics: ImageStatistics) -> list[str]:
    """Return the kinds of damage that the image statistics show, in words."""
    s = statistics
    noisy = (s.noise >= NOISE and s.whiteness >= WHITENESS) or s.noise >= LOUD_NOISE
    compressed = (s.jpeg_quality or 100) <= JPEG_QUALITY or s.blockiness >= BLOCKINESS
    coarse = s.noise_wide >= GRAIN and s.whiteness_wide >= GRAIN_WHITENESS
    grain = s.jpeg_quality is not None and coarse
    damage = []
    if noisy or (compressed and grain):
        damage.append("noise")
    if compressed or (noisy and grain):
        damage.append("JPEG compression")
    if s.fineness <= FINENESS or s.fineness_wide <= FINENESS_WIDE:
        damage.append("blur or enlargement")
    return damage


def method_for(kind: Kind, damage: list[str]) -> str:
    """Return the name of the method that weights of a kind allow for this damage."""
    diffusion = "mmse" if damage == ["noise"] else "diip"
    return {"direct": "indi", "conditional": "conditional_ddpm"}.get(kind, diffusion)


def choose(
    statistics: ImageStatistics, request: Request, kind: Kind = "direct", *, grey: bool = False
) -> tuple[Request, str]:
    """Choose a method for a picture from its statistics.

    Args:
        statistics: Statistics of the picture.
        request: Request with ``method="auto"``; its weights are kept if it names some.
        kind: Kind of those weights: a diffusion prior allows ``mmse`` for noise and ``diip`` for
            other damage.
        grey: Whether the picture is grey: noise that is the same in all channels is nothing that
            ``denoise`` and ``mixed`` know.

    Returns:
        The request with method, weights and settings filled in (method ``nothing`` for a picture
        that shows no damage), and the reason in a sentence.
    """
    damage = damage_seen(statistics)
    figures = statistics.sentence()
    if not damage and request.strength is None:
        why = f"No noise, compression, blur or enlargement worth repairing was seen ({figures})"
        left = replace(request, method="nothing", prior=None, deep=False)
        return left, (
            f"{why}: the picture is left as it is. Other damage was not looked for. "
            "A strength, as with --strength 1, repairs it all the same."
        )
    shown = " and ".join(damage) or "no damage that is worth repairing"
    usual = SPECIALISTS.get(shown, "photos-blind")
    prior = request.prior or (CAREFUL if grey and "noise" in damage else usual)
    name = method_for(kind, damage)
    gently = (
        prior == "photos-blind"
        and request.strength is None
        and "noise" not in damage
        and statistics.fineness_wide > FINENESS_WIDE
    )
    how = f" at strength {STRENGTH}" if gently else ""
    why = f"It shows {shown} ({figures}): {name} with {prior}{how} was chosen."
    settings = {"strength": STRENGTH} if gently else {}
    return replace(request, method=name, prior=prior, settings=settings), why
