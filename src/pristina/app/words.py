"""Plain words for the page: what is seen, what will be done, and the same as a command."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pristina.estimates import Estimate
    from pristina.planning import Plan
    from pristina.reading import Reading
    from pristina.request import Request


DAMAGE = {
    "noise": "coloured or grey specks (noise)",
    "grain": "grain, or the dots of a printer",
    "jpeg": "marks of JPEG compression",
    "blur": "softness, as from a simple lens",
    "defocus": "focus that missed",
    "shake": "a camera that moved",
    "enlarged": "enlargement without detail",
}
"""What the page calls the kinds of damage."""
SURE, LIKELY = 0.9, 0.7
"""Probabilities from which a kind of damage is said to be there for certain, and probably."""


def damage_words(reading: Reading) -> str:
    """Say what was read in a picture, the surest first."""
    seen = sorted(reading.seen.items(), key=lambda item: -item[1])
    groups = {
        "": [DAMAGE[kind] for kind, p in seen if p >= SURE],
        "probably ": [DAMAGE[kind] for kind, p in seen if LIKELY <= p < SURE],
        "perhaps ": [DAMAGE[kind] for kind, p in seen if p < LIKELY],
    }
    said = "; ".join(f"{how}{', '.join(kinds)}" for how, kinds in groups.items() if kinds)
    return f"{said[0].upper()}{said[1:]}." if said else "No damage that can be repaired was seen."


def notes_but_reason(notes: Iterable[str], reason: str) -> list[str]:
    """Leave out the note that says in figures what was read; a page says it in words."""
    return [note for note in notes if not reason or note[:REASON] != reason[:REASON]]


REASON = 60
"""Length in which such notes agree: what is said about holes and size may change their end."""
LARGER = {2: "twice", 3: "three times", 4: "four times"}
"""Words for the number of times that a picture is enlarged."""


def plan_words(plan: Plan) -> str:
    """Say in sentences what a plan will do."""
    request = plan.request
    around = []
    if plan.filling is not None:
        what = "Scratches and dust" if plan.filling.found else "The marked places"
        around.append(f"{what} will be filled in.")
    if request.levels:
        around.append("Faded colours will be freshened.")
    if request.scale > 1:
        around.append(f"The picture will become {LARGER[request.scale]} as large.")
    return " ".join([*around, _method_words(plan, f"The {'rest' if around else 'picture'}")])


def _method_words(plan: Plan, rest: str) -> str:
    if plan.entry.name == "nothing":
        return f"{rest} will be left as it is."
    n = plan.calls.forward
    passes = "" if not n else ", in one pass" if n == 1 else f", in at most {n} passes"
    if plan.entry.name == "indi":
        return f"The damage will be removed by the network “{plan.weights_name}”{passes}."
    knows = f" Its prior knows {plan.prior.domain}." if plan.entry.prior == "diffusion" else ""
    return f"Method {plan.entry.name} will {plan.entry.title}{passes}.{knows}"


def cost_words(plan: Plan, estimate: Estimate) -> str:
    """Say in a sentence what a plan will take."""
    most = "at most " if plan.calls.may_stop else ""
    return (
        f"This takes {most}about {time_words(estimate.seconds)} and "
        f"{estimate.peak_bytes / 1e9:.1f} GB of memory here."
    )


def time_words(seconds: float) -> str:
    """Write a time in words."""
    if seconds < 1.5:
        return "a second"
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    if seconds < 6000:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours"


def command_line(request: Request, name: str, output: str) -> str:
    """Write a request as a command."""
    words = ["pristina", "restore", name, "-o", output, "--method", request.method]
    options = {"--prior": request.prior, "--operator": request.recipe, "--preset": request.preset}
    for option, value in options.items():
        if value is not None:
            words += [option, value]
    for setting, value in request.settings.items():
        words += ["--set", f"{setting}={_as_text(value)}"]
    for option, given, default in (
        ("--seed", request.seed, 0),
        ("--samples", request.samples, 1),
        ("--strength", request.strength, None),
        ("--grain", request.grain, 0),
        ("--mask", request.mask, None),
        ("--protect", request.protect, None),
        ("--scale", request.scale, 1),
    ):
        if given != default:
            words += [option, str(given)]
    words += [f"--{flag}" for flag in ("deep", "scratches", "levels") if getattr(request, flag)]
    return shlex.join(words)


def python_code(request: Request, name: str, output: str) -> str:
    """Write a request as lines of Python."""
    arguments: dict[str, Any] = {
        "method": request.method,
        "prior": request.prior,
        "operator": request.recipe,
        "preset": request.preset,
        "settings": dict(request.settings) or None,
        "seed": request.seed or None,
        "samples": request.samples if request.samples > 1 else None,
        "strength": request.strength,
        "grain": request.grain or None,
        "mask": request.mask,
        "protect": request.protect,
        "deep": request.deep or None,
        "scratches": request.scratches or None,
        "levels": request.levels or None,
        "scale": request.scale if request.scale > 1 else None,
    }
    given = "".join(f", {k}={v!r}" for k, v in arguments.items() if v is not None)
    return (
        "import pristina\n\n"
        f"done = pristina.restore({_quoted(name)}{given})\n"
        f"done.picture.save({_quoted(output)})\n"
    )


def _as_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return (
        "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
