"""A plan in words, as ``doctor`` and ``restore --dry-run`` print it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pristina.cli.console import duration

if TYPE_CHECKING:
    from pristina.planning import Plan


def plan_lines(plan: Plan) -> list[str]:
    """Return what a plan will do and take, measured with one network call, line by line."""
    lines = [f"method: {plan.entry.name} ({plan.entry.title})"]
    if plan.prior is not None:
        millions = sum(p.numel() for p in plan.prior.parameters()) / 1e6
        domain = plan.prior.domain
        lines.append(f"weights: {plan.weights_name}, {millions:.1f} million parameters; {domain}")
    if plan.operator is not None:
        lines.append(f"degradation: {plan.operator.describe()}")
    lines.append(f"size: {_size(plan.size)}{_worked(plan)}")
    estimate, calls = plan.estimate(), plan.calls
    most = "at most " if calls.may_stop else ""
    if calls.forward:
        backward = f", {calls.backward} of them differentiated" if calls.backward else ""
        one = f", {duration(estimate.call_seconds)} each" if estimate.call_seconds else ""
        lines.append(f"network calls: {most}{calls.forward}{backward}{one}")
    lines.append(
        f"cost: {most}about {duration(estimate.seconds)}, "
        f"{estimate.peak_bytes / 2**30:.1f} GiB of memory"
    )
    return lines


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]} px"


def _worked(plan: Plan) -> str:
    words = ""
    if plan.output_size != plan.size:
        words += f", restored at {_size(plan.output_size)}"
    if plan.work_size != plan.output_size:
        words += f", the prior works at {_size(plan.work_size)}"
    if plan.windows > 1:
        words += f", in {plan.windows} windows"
    return words
