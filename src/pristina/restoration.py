"""From a picture to a restored picture: plan, run, finish."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pristina.auto import JPEG_WEIGHTS
from pristina.errors import InputError
from pristina.image.blend import blend
from pristina.image.fit import resize
from pristina.image.levels import HINT, Levels
from pristina.image.picture import Picture
from pristina.image.tile import LEAST_PIXELS, is_out_of_memory
from pristina.methods.steps.result import Cost, Result, State, Stop, StopReason
from pristina.methods.steps.samples import sampled
from pristina.operators.base import Observation, Operator
from pristina.operators.recipe import Recipe
from pristina.planning import Plan, plan
from pristina.request import plain
from pristina.seeds import generators
from pristina.settings import Settings
from pristina.types import Draw, Generators, OnStep, check_dense

RECORD_FORMAT = 2
"""Version of the layout of records."""


@dataclass(frozen=True)
class Restored:
    """A restored picture and how it came about.

    Attributes:
        picture: Restored picture, with everything else that was in the file.
        result: What the method found: images at the size of the picture, everything else at the
            size at which the prior worked.
        plan: What was planned.
        notes: What the user should know, in sentences.
        source: File that was read and its digest; empty for pixels.
        std: Standard deviation of each pixel over several samples, (3, H, W), in [0, 1] units;
            None for one sample.
    """

    picture: Picture
    result: Result
    plan: Plan
    notes: tuple[str, ...] = ()
    source: Mapping[str, Any] | None = None
    std: Tensor | None = None

    @property
    def left_alone(self) -> bool:
        """Whether the picture is as it was."""
        return _left_alone(self.plan, self.result)

    @property
    def operator(self) -> Operator | None:
        """Estimated degradation; None if the method has none."""
        return self.result.operator

    @property
    def cost(self) -> Cost:
        """Network calls, seconds, memory."""
        return self.result.cost

    @property
    def operator_std(self) -> dict[str, Any]:
        """Standard deviation over several samples of each number that the operator estimates."""
        return {
            name.removeprefix("std_"): value[0].tolist()
            for name, value in self.result.extras.items()
            if name.startswith("std_")
        }

    def record(self) -> dict[str, Any]:
        """Return all that is needed to run it again, and what came out, ready for JSON."""
        prior = self.plan.prior
        machine = {
            "device": str(self.plan.device),
            "dtype": str(getattr(prior, "dtype", torch.float32)).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "processor": platform.machine(),
        }
        parts = {
            "format": RECORD_FORMAT,
            "pristina": version("pristina"),
            "input": dict(self.source or {}),
            **self.plan.record(),
            "weights_name": self.plan.weights_name,
            "machine": machine,
            "notes": list(self.notes),
            "result": self.result.record(),
            "operator_std": self.operator_std,
        }
        recorded: dict[str, Any] = plain(parts)
        return recorded


def restore(
    picture: Any,
    *,
    method: str = "auto",
    prior: Any = None,
    operator: Operator | Recipe | str | None = None,
    preset: str | None = None,
    settings: Mapping[str, Any] | Settings | None = None,
    seed: int = 0,
    samples: int = 1,
    device: str | torch.device = "auto",
    strength: float | None = None,
    grain: float = 0.0,
    protect: str | Path | None = None,
    deep: bool = False,
    mask: str | Path | None = None,
    scratches: bool = False,
    levels: bool = False,
    scale: int = 1,
    memory_bytes: int | None = None,
    start: State | None = None,
    on_step: OnStep | None = None,
) -> Restored:
    """Restore a picture.

    Args:
        picture: File, :class:`~pristina.image.picture.Picture`, pixels (3, H, W) in [0, 1], a
            NumPy array (H, W, 3), or a Pillow image.
        method: Name of a method, or ``auto``, which chooses one from what it reads in the
            picture; see :data:`pristina.methods.index.METHODS`.
        prior: Shipped name, path, hub id, or loaded weights; None takes those that suit the method.
        operator: Form of the degradation for methods that use it, as an operator or a recipe; None
            when nothing is known. Methods that need the noise level take it from the white noise at
            its end. Where it removes the colour (``grey``), a grey picture is restored in colour.
        preset: Name of a preset of the method, such as ``paper``.
        settings: Settings object, or single settings by name, applied after the preset.
        seed: Random seed (default 0).
        samples: Number of restorations to draw (default 1); of several the mean is returned, and
            :attr:`Restored.std` tells how much they differ.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        strength: Share of the change that is made, in [0, 1] (default 1); given with ``auto``, a
            picture is repaired even where no damage is seen.
        grain: Share of the removed grain that is put back, in [0, 1] (default 0).
        protect: Picture file of the same size, white where the picture is to stay as it is.
        deep: Whether a regressor averages over the eight turned and mirrored copies of the picture.
        mask: Picture file of the same size, white where the picture is missing; it is filled in
            there before anything else is done.
        scratches: Whether scratches, dust, cracks and stains are looked for and filled in.
        levels: Whether faded colours are stretched, each channel by itself.
        scale: Number of times that the picture is enlarged after it was restored, 1 to 4 (default
            1).
        memory_bytes: Memory that the run may use; None takes half of what is free.
        start: State of an earlier result from which the method goes on.
        on_step: Progress callback; it may raise :class:`~pristina.errors.Cancelled`, and the best
            result so far is returned.

    Returns:
        The picture at its own size (or at the size that the operator implies), the method's result,
        and a record.

    Raises:
        PictureError: The file cannot be read.
        SettingError: A name or a value is wrong.
        SizeError: The prior cannot take a picture of this shape.
        InputError: The operator does not suit the method, or the method diverged.

    Example:
        >>> import torch
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> done = restore(torch.rand(3, 20, 12), method="mmse", prior=GaussianPrior(variance=0.2))
        >>> done.picture.size, done.cost.network_calls
        ((20, 12), 1)
    """
    opened = Picture.of(picture)
    made = plan(
        opened,
        method=method,
        prior=prior,
        operator=operator,
        preset=preset,
        settings=settings,
        seed=seed,
        samples=samples,
        device=device,
        strength=strength,
        grain=grain,
        protect=protect,
        deep=deep,
        mask=mask,
        scratches=scratches,
        levels=levels,
        scale=scale,
        memory_bytes=memory_bytes,
    )
    result = run(made, opened.visible[None], start=start, on_step=on_step)
    source = {"file": str(picture)} if isinstance(picture, str | Path) else {}
    return finish(made, opened, result, source)


def run(
    plan: Plan,
    images: Tensor,
    *,
    generator: Generators | None = None,
    start: State | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Restore a batch of images as planned.

    Args:
        plan: Plan for images of this size.
        images: Degraded images, (B, C, H, W), in [0, 1] but for noise.
        generator: Generator of each image; None takes those of the plan's seed.
        start: State of an earlier result from which the method goes on.
        on_step: Progress callback.

    Returns:
        The method's result; its images, and its ``std`` over several samples, have the planned
        output size.

    Raises:
        InputError: The images do not suit the plan, or the method diverged.
    """
    if not isinstance(plan, Plan):
        raise InputError(
            f"run takes a plan, as pristina.plan makes it, not {type(plan).__name__}; "
            "to restore a picture at once, take pristina.restore."
        )
    check_dense(images, "Images")
    if tuple(images.shape[-2:]) != tuple(plan.size):
        raise InputError(
            f"The plan is for images of {plan.size[1]} x {plan.size[0]} px; "
            f"these have {images.shape[-1]} x {images.shape[-2]} px."
        )
    images, n_filled = images.detach().to(plan.device), 0
    begun = time.perf_counter()
    if plan.filling is not None:
        images, n_filled = plan.filling.run(images, on_step)
    filling_s = time.perf_counter() - begun
    y = _prepare(plan, images)
    observation = Observation(y, plan.operator, plan.known_sigma)
    if plan.request.samples > 1 and start is not None:
        raise InputError("Several samples cannot start from a state; take one sample.")
    if generator is None:
        generator = generators(plan.request.seed, len(y))
    result = _call_method(plan, observation, generator, start, on_step)
    restored = plan.fit.undo(result.images)
    if not torch.stack(restored.aminmax()).isfinite().all():  # NaN is passed on by both.
        raise InputError(
            f"{plan.entry.name} diverged, and its picture holds NaN or infinity; "
            "take smaller steps, or the default settings."
        )
    extras = dict(result.extras)
    if "std" in extras:
        extras["std"] = plan.fit.undo(extras["std"])
    if plan.filling is not None:
        extras["filled"] = images
    if plan.filling is not None and not plan.leaves_alone:
        result = _with_stages(result, n_filled, filling_s)
    return replace(result, images=restored, extras=extras)


def _with_stages(result: Result, n_calls: int, seconds: float) -> Result:
    """Return a result with the cost of filling; what is not left alone is not called so."""
    cost = result.cost
    cost = replace(cost, network_calls=cost.network_calls + n_calls, seconds=cost.seconds + seconds)
    done = [
        Stop(StopReason.COMPLETED, 1) if stop.reason is StopReason.LEFT_ALONE else stop
        for stop in result.stopped
    ]
    return replace(result, cost=cost, stopped=done)


def _call_method(
    plan: Plan,
    observation: Observation,
    generator: Generators,
    start: State | None,
    on_step: OnStep | None,
) -> Result:
    """Call the method, and again from its start with smaller portions when the memory runs out.

    A call of the network goes on by itself with smaller portions; this is for all else, such as
    the way back through the network.
    """
    function: Callable[..., Result] = partial(plan.entry.function, **plan.extra_weights)
    if plan.request.samples > 1:
        function = partial(sampled, function, samples=plan.request.samples)
    random = Draw(generator, len(observation.y)).get_states()
    prior, notes = plan.prior, list[str]()
    while True:
        Draw(generator, len(observation.y)).set_states(random)
        try:
            result = function(
                observation, prior, plan.settings, start=start, generator=generator, on_step=on_step
            )
            return replace(result, notes=(*notes, *result.notes))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if prior is None or prior.portions.pixels < 2 * LEAST_PIXELS:
                raise InputError(
                    "It needs more memory than there is here; take a smaller picture, or fewer "
                    "samples."
                ) from error
        prior = prior.limited(prior.portions.pixels // 2)
        notes = ["The memory ran out, and the run began again with smaller parts."]


def finish(
    plan: Plan, picture: Picture, result: Result, source: Mapping[str, Any] | None = None
) -> Restored:
    """Return the first restored image with everything else that belongs to the picture."""
    left_alone = _left_alone(plan, result)
    notes = [*(() if left_alone else picture.notes), *plan.notes, *result.notes]
    std = None
    if plan.request.samples > 1:
        std = result.extras["std"][0].expand(3, -1, -1).cpu()
        if not std.any():
            certain = "" if left_alone else f", and do not tell how certain {plan.entry.name} is"
            notes.append(
                f"Nothing is drawn with these settings: all {plan.request.samples} samples are the "
                f"same{certain}."
            )
    if plan.first_channel:
        picture = replace(picture, grey=False)
    pixels = result.images[0].expand(3, -1, -1)
    cells = picture.jpeg_cells() if _only_compressed(plan) else None
    if cells is not None and pixels.shape == picture.pixels.shape:
        pixels = cells.project(pixels, picture.pixels)
        notes.append(
            "The picture was kept within what the JPEG file allows: compressed again with the "
            "tables of the file, nearly all blocks are those in the file."
        )
    request = plan.request
    made = 1.0 if request.strength is None else request.strength
    controls = {
        f"{100 * made:.0f} % of the change was made": made < 1,
        f"{100 * request.grain:.0f} % of the grain was put back": request.grain > 0,
        f"what is white in {request.protect} stays as it was": plan.protected is not None,
    }
    if any(controls.values()) and not left_alone:
        told = ", ".join(text for text, given in controls.items() if given)
        notes.append(f"{told[0].upper()}{told[1:]}.")
    before = result.extras["filled"][0] if plan.filling is not None else picture.visible
    pixels, said = _with_levels(plan, before.cpu(), pixels)
    if plan.enlarging is not None:
        pixels = plan.enlarging.run(pixels)
    notes += said
    std = std if std is None else resize(std[None], *pixels.shape[-2:])[0]
    restored = picture.with_pixels(pixels)
    input_facts = {**(source or {}), "size": list(picture.size)}
    if picture.sha256:
        input_facts["sha256"] = picture.sha256
    return Restored(restored, result, plan, tuple(notes), input_facts, std)


def _left_alone(plan: Plan, result: Result) -> bool:
    """Return whether the first picture is as it was, by the plan or by the method's judgement."""
    return plan.only_method and result.stopped[0].reason is StopReason.LEFT_ALONE


def _with_levels(plan: Plan, before: Tensor, after: Tensor) -> tuple[Tensor, list[str]]:
    """Keep of the damaged picture what is asked for, and stretch the levels.

    Args:
        plan: The plan.
        before: Damaged picture, (3, H, W), its holes filled.
        after: Restored picture, (3, H, W).

    Returns:
        The pixels, and what the user should know.
    """
    request = plan.request
    strength = 1.0 if request.strength is None else request.strength
    guard = None if request.levels else plan.protected
    pixels = blend(before, after, strength=strength, grain=request.grain, protected=guard)
    if not request.levels:
        faded = plan.reading is not None and Levels.of(pixels).faded
        return pixels, [HINT] if faded else []
    levels = Levels.of(pixels)
    stretched = levels.apply(pixels)
    return blend(before, stretched, protected=plan.protected), [levels.note]


def _only_compressed(plan: Plan) -> bool:
    """Return whether compression is all that is repaired."""
    return plan.weights_name == JPEG_WEIGHTS and plan.filling is None


def _prepare(plan: Plan, images: Tensor) -> Tensor:
    """Return the images as the method sees them: their size, and the number of channels."""
    y = images if plan.enlarge is None else Observation(images, plan.enlarge).initial()
    if plan.first_channel:
        y = y[:, :1]
    return y if plan.operator is not None else plan.fit.apply(y)
