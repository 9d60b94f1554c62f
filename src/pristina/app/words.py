"""Plain words for the page: what is seen, what will be done, and the same as a command."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pristina.estimates import Estimate
    from pristina.planning import Plan
    from pristina.reading import Reading
    from pristina.request import Request


def damage_words(reading: Reading) -> list[str]:
    """Say in sentences what was read in the picture."""
    return reading.sentences() or ["None of the damage that is looked for was seen."]


def plan_words(plan: Plan) -> str:
    """Say in a sentence what a plan will do."""
    filled = ""
    if plan.filling is not None:
        found = plan.filling.found
        filled = f"{'Scratches and dust' if found else 'The marked places'} will be filled in. "
    if plan.entry.name == "nothing":
        return f"{filled}The {'rest' if filled else 'picture'} will be left as it is."
    n = plan.calls.forward
    passes = "" if not n else ", in one pass" if n == 1 else f", in at most {n} passes"
    if plan.entry.name == "indi":
        trained = f" The network has learnt from {plan.prior.domain}."
        name = plan.weights_name
        return f"{filled}The damage will be removed by the network “{name}”{passes}.{trained}"
    return f"{filled}Method {plan.entry.name} will {plan.entry.title}{passes}."


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
    ):
        if given != default:
            words += [option, str(given)]
    words += [f"--{flag}" for flag in ("deep", "scratches") if getattr(request, flag)]
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
