"""BIRD: find the noise that the prior turns into the picture behind the observation, and the damage along with it.

Glossary: y observation, H the operator and eta its unknown parameters, k its kernel, z noise, x = G(z), r = H(G(z)) - y, m numbers in y.

    min over z, eta of  ||y - H_eta(G(z))||^2   subject to  ||z|| = sqrt(d)

Source:
    Chihaoui, Lemkhenter and Favaro, "Blind Image Restoration via Fast Diffusion Inversion", NeurIPS 2024, and its released code, which is
    the authority for :data:`AS_RELEASED`: the network's noise is a constant to the gradient; z and the kernel's network take one joint Adam
    step; z then returns to the sphere; of its iterations the picture of every tenth is saved, and the last one saved is the result.
    Its kernel is applied as correlation; ours is a point spread function, so the two are turned by 180 degrees to each other.
    Beyond the paper: any operator, composed ones too; one set of unknowns for each picture of a batch; ``marginalised``; kernels that stay
    centred while they are fitted (logits) or are centred on return; an operator that comes to rest; ``average``; G of the final noise as
    the result. On eight training faces (seed 0) centred kernels and rest are worth 0.5 dB at motion blur, 2 at blur that varies over the
    picture, and told that the blur is Gaussian 0.5: without rest its width falls from 1.2 px to 0.5 in 500 iterations.
    The defaults are for small flow priors of 64 px; see :class:`BIRD`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from pristina.errors import Cancelled, SettingError
from pristina.methods.base import Books, Result, check_observation, to_sphere
from pristina.operators.base import Compose, Observation, Operator
from pristina.operators.blur import FreeKernel
from pristina.operators.convolve import centre
from pristina.priors.base import Prior, to_signed
from pristina.priors.generate import Gradient, check_gradient, generate
from pristina.types import Draw, OnStep

Residual = Literal["squared", "marginalised"]
"""What is minimised. ``squared``: the mean of r^2. ``marginalised``: ``0.5 ||z||^2 + 0.5 m log ||r||^2``, the negative log posterior of z
when the strength of the noise is unknown and integrated out (as in NA-NHMC, 2026); on the sphere its first term is constant."""


@dataclass(frozen=True)
class BIRD:
    """Settings of :func:`bird`.

    Attributes:
        iterations: Optimiser steps.
        learning_rate: Of Adam on z.
        operator_learning_rate: Of Adam on the operator's unknowns, where the operator keeps them: logarithms of positive numbers, mostly.
            It is larger than that of z so that the operator moves before z has fitted the damage. A kernel *network* needs far less: 2e-4.
        kernel_learning_rate: Of Adam on kernels that are kept as logits. Both fall to zero along half a cosine: z fits some noise at last, and
            an operator that still moved would then return to "nothing happened", which needs no prior to explain noise.
        sampler_steps: Network calls of G in each iteration.
        gradient: How G is differentiated.
        sphere: Return z to the sphere of typical noise after each step.
        residual: What is minimised, see :data:`Residual`.
        average: The picture is the mean of the last so many estimates; 1 for G of the final noise.
        centre: Return a free kernel with its centre of mass in the middle, and the picture moved along.
        as_released: Habits of the released scripts. The operator acts on [-1, 1] pixels, so that a zero border is middle grey; its learning
            rate stays; and the result is the picture of the last iteration, counted from 0, that is a multiple of ten: G after 90 of
            100 updates.
    """

    iterations: int = 300
    learning_rate: float = 0.02
    operator_learning_rate: float = 0.05
    kernel_learning_rate: float = 0.07
    sampler_steps: int = 5
    gradient: Gradient = "detached"
    sphere: bool = True
    residual: Residual = "squared"
    average: int = 1
    centre: bool = True
    as_released: bool = False

    def __post_init__(self) -> None:
        check_gradient(self.gradient)
        if self.residual not in get_args(Residual):
            raise SettingError(f"residual must be one of {', '.join(get_args(Residual))}; not {self.residual!r}.")
        for name in ("iterations", "sampler_steps", "average"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("learning_rate", "operator_learning_rate", "kernel_learning_rate"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name} must be positive, not {getattr(self, name)}.")


AS_RELEASED = BIRD(
    iterations=100, learning_rate=0.003, operator_learning_rate=0.0002, sampler_steps=10, centre=False, as_released=True
)  # blind deblurring: FreeKernel(41, "network", "zero")
AS_RELEASED_DENOISING = BIRD(iterations=200, learning_rate=0.01, sampler_steps=10, centre=False, as_released=True)
AS_RELEASED_INPAINTING = AS_RELEASED_DENOISING  # with Mask: squared error of the known pixels, over all pixels
AS_RELEASED_SUPER_RESOLUTION = BIRD(iterations=100, learning_rate=0.001, sampler_steps=10, centre=False, as_released=True)
AS_RELEASED_NON_UNIFORM = BIRD(iterations=25, learning_rate=0.002, sampler_steps=10, centre=False, as_released=True)  # no operator


def joint_adam(
    z: Tensor, operator: Operator, learning_rate: float, operator_learning_rate: float, kernel_learning_rate: float
) -> torch.optim.Adam:
    """One optimiser for noise and operator, one step; kernels kept as logits have a learning rate of their own."""
    groups = [{"params": [z], "lr": learning_rate}]
    for name, unknown in operator.named_parameters():
        if unknown.requires_grad:
            groups.append({"params": [unknown], "lr": kernel_learning_rate if name.endswith("logits") else operator_learning_rate})
    return torch.optim.Adam(groups)


def cooling(optimizer: torch.optim.Adam, iterations: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Lets the learning rates of the operator fall from their first value to zero, half a cosine long; that of z stays."""

    def falling(k: int) -> float:
        return 0.5 + 0.5 * math.cos(math.pi * min(k / iterations, 1))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda _: 1.0] + [falling] * (len(optimizer.param_groups) - 1))


def objective(r: Tensor, z: Tensor, residual: Residual) -> Tensor:
    """What is minimised, for each picture, (B,)."""
    if residual == "squared":
        return r.square().mean((1, 2, 3))
    return 0.5 * z.square().sum((1, 2, 3)) + 0.5 * r[0].numel() * r.square().sum((1, 2, 3)).clamp(min=1e-12).log()


def centre_kernel(operator: Operator, picture: Tensor) -> tuple[Operator, Tensor, Tensor]:
    """The operator with its free kernel centred, the picture moved along, and by how much: (dy, dx) in px for each picture, (B, 2).

    Only a kernel that meets the picture first can be traded against a shift. What comes in at the border repeats the outermost pixels.
    """
    first = operator.parts[0]
    still = torch.zeros(len(picture), 2, dtype=torch.long)
    if not isinstance(first, FreeKernel):
        return operator, picture, still
    with torch.no_grad():
        kernel, shift = centre(first.kernel())
    if not shift.any():
        return operator, picture, still
    centred: Operator = FreeKernel(first.size, "logits", first.boundary, start=kernel)
    if isinstance(operator, Compose):
        centred = Compose([centred, *operator.parts[1:]])
    return centred, torch.stack([_moved(x, dy, dx) for x, (dy, dx) in zip(picture, shift.tolist(), strict=True)]), shift.cpu()


def _moved(x: Tensor, dy: int, dx: int) -> Tensor:
    height, width = x.shape[-2:]
    rows = (torch.arange(height, device=x.device) - dy).clamp(0, height - 1)
    columns = (torch.arange(width, device=x.device) - dx).clamp(0, width - 1)
    return x[:, rows][:, :, columns]


def bird(
    observation: Observation,
    prior: Prior,
    settings: BIRD = BIRD(),
    *,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """The picture that the prior can make and the operator can turn into the observation, both found at once.

    Args:
        observation: The degraded pictures, and the form of the damage; what is unknown in it is learnable, and starts from its first guess.
            Without an operator the observation is taken for the picture itself (denoising).
        prior: The diffusion prior.
        settings: See :class:`BIRD`.
        generator: One for each picture.
        on_step: Called after each iteration.

    Returns:
        Pictures of the prior's size; the estimated operator; the mean squared residual as trace ``loss``; in the extras the final noise
        ``z``, ``sigma``, the standard deviation of what remains unexplained (B,), in [0, 1] units, and ``shift_px`` (B, 2), by which a
        kernel was off its middle and the picture has been moved.

    Raises:
        SizeError: The prior does not accept the size.
        InputError: NaN, or the wrong number of channels.
        OperatorError: The operator does not fit the observation.

    Source:
        See the module.

    Example:
        >>> import torch
        >>> from pristina.operators.blur import GaussianBlur
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> y = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> result = bird(Observation(y, GaussianBlur(1.0, size=9)), GaussianPrior(variance=0.1), BIRD(iterations=5))
        >>> result.picture.shape, result.cost.network_calls
        (torch.Size([1, 3, 16, 16]), 30)
    """
    height, width = check_observation(observation, prior)
    y = observation.y
    n = len(y)
    draw = Draw(generator, n, y.device)
    z = torch.nn.Parameter(draw.normal(prior.channels, height, width))
    operator = (Operator() if observation.operator is None else observation.operator).for_batch(n).to(y.device)
    optimizer = joint_adam(z, operator, settings.learning_rate, settings.operator_learning_rate, settings.kernel_learning_rate)
    n_steps = settings.iterations if settings.as_released else settings.iterations + 1
    schedule = None if settings.as_released else cooling(optimizer, settings.iterations)
    books = Books(prior, n_steps, on_step)
    target = y
    if settings.as_released:  # a hole is 0 in what the operator makes of [-1, 1] pixels, and not black
        with torch.no_grad():
            target = to_signed(y) * (operator(torch.ones_like(z)) != 0)

    why = [f"all {settings.iterations} iterations done"] * n
    estimates: list[Tensor] = []
    mean_square = y.new_zeros(n)
    try:
        for iteration in range(n_steps):
            x = generate(prior, z, settings.sampler_steps, gradient=settings.gradient)
            r = operator(to_signed(x) if settings.as_released else x) - target
            mean_square = r.detach().square().mean((1, 2, 3)) / (4 if settings.as_released else 1)
            if not settings.as_released or iteration % 10 == 0:
                estimates = [*estimates, x.detach()][-settings.average :]
            books.step(estimates[-1], mean_square)
            if iteration == settings.iterations:
                break
            if settings.gradient != "detached":
                books.backward_calls += settings.sampler_steps * n
            optimizer.zero_grad()
            objective(r, z, settings.residual).sum().backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
            operator.project()
            if settings.sphere:
                z.data = to_sphere(z.data)
    except Cancelled:
        why = [f"cancelled at iteration {books.n_done - 1}"] * n
    picture, shift = torch.stack(estimates).mean(0), torch.zeros(n, 2, dtype=torch.long)
    if settings.centre:
        operator, picture, shift = centre_kernel(operator, picture)
    return books.result(
        "bird",
        picture,
        settings,
        draw.seeds,
        why,
        None if observation.operator is None else operator,
        z=z.detach(),
        sigma=mean_square.sqrt(),
        shift_px=shift,
    )
