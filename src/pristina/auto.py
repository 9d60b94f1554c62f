"""The choice of a method for a picture about whose damage nothing is known.

A small network reads in crops of the picture what damage there is and what each of the shipped
regressors would gain. The one that gains most is taken; where none gains enough, or it is not sure
of it, the picture is left alone, because a restorer can only harm a clean picture. Each is a single
network call on pictures of any size.

Where blur is seen, ``deblur`` looks for its kernel first, and checks it; only where the check fails
it comes to what was chosen by gain.

Source:
    The network and the bounds are our own, see benchmarks/indi.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pristina.image.picture import Picture
from pristina.priors.load import Kind
from pristina.reading import NAMES, SOFT, Reading
from pristina.request import Request

READER = "reader"
"""Shipped weights that read the damage."""
LEAST_DB, CAUTION = 0.3, 0.44
"""Least predicted gain for which a picture is repaired, and the least share of half of its interval
that it must be. Of 400 held-out items of the reader's training 270 are then repaired; the mean gain
over all is 2.37 dB, where 2.53 were possible, nine lose more than 0.1 dB, the worst 1.5."""
JPEG_QUALITY = 88
"""Highest quality at which a JPEG file is repaired in any case, and by ``jpeg`` unless noise is
seen too or others are sure to gain more: each of 12 photographs that training set aside gains with
it, with and without subsampled colours (0.1 dB at least; at 90 the worst loses 0.2), while
sharpening a file whose picture was soft by nature costs 2 to 9 dB."""
JPEG_WEIGHTS = "jpeg"
"""Weights that repair compression alone: with them the restored picture is kept to what the JPEG
file allows."""
ALL_ROUND, SPECIALIST_DB = "blind", 0.1
"""Weights for any damage, and how much more others must gain to be taken in their place."""

NOISY = frozenset({"noise", "grain"})
"""Kinds of damage that are noise."""
NOISE = "grain"
"""Weights that take the place of ``blind`` where nothing but noise is seen, compressed or not: they
leave sharpness as it is. On the middle of 12 photographs that training set aside they gain 0.3 to
1.2 dB more, and where those are soft 2.9 to 4.3 dB."""
FILE_SURE = 0.7
"""Probability of noise from which they take the place of ``jpeg`` too. Of 70 training photographs
saved at quality 80 and 50 none reaches it (0.63 is the most, and there they would lose 5 dB); of 12
with the noise of a camera of 3, 6 and 12/255, saved at 88, 85 and 85, two, four and six do."""
WHITE, COARSENESS = "denoise", (0.9, 1.2)
"""Weights that take their place where that noise is white, and the coarseness that white noise
has. Of 12 photographs that training set aside with noise of 50, 25, 10, 5 and 2/255, 12, 12, 11, 11
and 8 lie within, and of 60 with the noise of a camera 3. White noise gains 0.5 to 0.9 dB more, that
of cameras 2.7 to 3.7 dB less."""

LEAST_BLUR, LEAST_BLUR_PX = 0.35, 0.8
"""Least probability of blur, and its least width, from which its kernel is looked for: 87 of 97
blurred training photographs reach them, and none of 18 others, of which nine are soft by nature."""
LEAST_NOISE = 0.3
"""Least noise of the finest scale, in 1/255, for which a kernel is looked for. A camera adds noise
to its blur. Pictures with less were enlarged: what is found there is how, and undoing it shows the
pixels of the small picture (it cost 0.2 to 2.8 dB in five cases of five)."""
SHAKE_FIELDS, FIELDS_PX = 3, 480
"""Number of kernels along the longer side that are looked for where one is in doubt and the blur
looks like camera shake, because a camera turns as well; and the least longer side for it."""
DEBLUR_PX = 124
"""Least side of a picture in which a kernel is looked for: four times that of the kernel."""

Look = Callable[[str, Picture, Callable[[], Any]], Any]
"""Function that computes something of a picture: its name, the picture, and the computation."""


def look_afresh(_name: str, _picture: Picture, compute: Callable[[], Any]) -> Any:
    """Compute something of a picture; a server has a function that remembers it."""
    return compute()


def method_for(kind: Kind, damage: list[str]) -> str:
    """Return the name of the method that weights of a kind allow for this damage."""
    diffusion = "mmse" if damage == ["noise"] else "diip"
    others = {
        "direct": "indi",
        "conditional": "conditional_ddpm",
        "operator": "reconstruct",
    }
    return others.get(kind, diffusion)


def choose(reading: Reading, request: Request, kind: Kind = "direct") -> tuple[Request, str]:
    """Choose a method for a picture from what was read in it.

    Args:
        reading: What was read.
        request: Request with ``method="auto"``; its weights are kept if it names some.
        kind: Kind of those weights: a diffusion prior allows ``mmse`` for noise and ``diip`` for
            other damage.

    Returns:
        The request with method and weights filled in (method ``nothing`` for a picture that is to
        be left alone), and the reason in sentences.
    """
    name, gain = _best(reading)
    repair = gain.value >= max(LEAST_DB, CAUTION * (gain.value - gain.low))
    expected = f"predicted gain {gain.value:+.1f} dB ({gain.low:+.1f} to {gain.high:+.1f})"
    compressed = (reading.file_quality or 100) <= JPEG_QUALITY
    sure = (
        name == JPEG_WEIGHTS
        or gain.low > reading.gains[JPEG_WEIGHTS].value
        or "noise" in reading.seen
    )
    if compressed and not (repair and sure):
        name, repair = JPEG_WEIGHTS, True
        expected = f"a JPEG file of quality {reading.file_quality}, which it betters as a rule"
    if request.prior is not None:
        repair = bool(reading.seen)
    seen = " ".join(reading.sentences())
    if _may_deblur(reading, request) and (name == ALL_ROUND or not repair):
        otherwise = repair or request.strength is not None
        return _deblur(reading, request, f"indi with {ALL_ROUND}" if otherwise else "")
    if not repair and request.strength is None:
        looked = ", ".join(NAMES[kind] for kind in reading.kinds)
        what = f"{seen} No repair is" if seen else f"None of these was seen: {looked}. No repair is"
        why = (
            f"{what} likely to better it ({name}: {expected}): the picture is left "
            "as it is. A strength, as with --strength 1, repairs it all the same."
        )
        return replace(request, method="nothing", prior=None, deep=False), why
    seen = seen or "No damage that is known was seen."
    if request.prior is not None:
        method = method_for(kind, list(reading.seen))
        why = f"{seen} {method} with {request.prior} was chosen."
        return replace(request, method=method), why
    usual, kinds = name, set(reading.seen)
    if name == ALL_ROUND and kinds & NOISY and kinds <= {*NOISY, "jpeg"}:
        white = COARSENESS[0] <= reading.coarseness <= COARSENESS[1] and not compressed
        name = WHITE if white and kinds == {"noise"} else NOISE
        more = "the noise is white" if name == WHITE else "noise is what is seen"
    elif name == JPEG_WEIGHTS and reading.kinds.get("noise", 0) >= FILE_SURE:
        name, more = NOISE, "there is noise in the file"
    elif name == JPEG_WEIGHTS and "noise" in kinds:
        expected = f"{expected}. Where the noise is to go, --prior {NOISE} may do more"
    if name != usual:
        expected = f"{expected} with {usual}, and more as {more}"
    why = f"{seen} indi with {name} was chosen; {expected}."
    return replace(request, method="indi", prior=name), why


def _best(reading: Reading) -> tuple[str, Any]:
    """Return the weights to take and the predicted gain."""
    name, gain = reading.best()
    usual = reading.gains[ALL_ROUND]
    return (name, gain) if gain.value > usual.value + SPECIALIST_DB else (ALL_ROUND, usual)


def _may_deblur(reading: Reading, request: Request) -> bool:
    """Return whether there is blur to be looked for, and nothing in the request against it."""
    free = request.prior is None and not request.deep
    seen = reading.blurred >= LEAST_BLUR and reading.blur_px.value >= LEAST_BLUR_PX
    large = min(reading.height, reading.width) >= DEBLUR_PX
    enlarged = "enlarged" in reading.seen or reading.finest < LEAST_NOISE
    return free and seen and large and not enlarged


def _deblur(reading: Reading, request: Request, otherwise: str) -> tuple[Request, str]:
    """Choose ``deblur``, and tell what it comes to where the kernel is in doubt."""
    said = reading.sentences() if any(kind in SOFT for kind in reading.seen) else []
    said = said or [
        *reading.sentences(),
        f"Perhaps not sharp ({100 * reading.blurred:.0f} % sure).",
    ]
    instead = f"{otherwise} takes its place" if otherwise else "the picture is left as it is"
    settings: dict[str, Any] = {"in_doubt": "regress" if otherwise else "leave"}
    long = "some 10 s"
    if "shake" in reading.seen and max(reading.height, reading.width) >= FIELDS_PX:
        settings["fields"], long = SHAKE_FIELDS, "10 s to a minute"
    why = (
        f"{' '.join(said)} deblur was chosen: it looks for the blur in the picture, for {long}, "
        f"and where the blur is in doubt, {instead}."
    )
    return replace(request, method="deblur", settings=settings), why
