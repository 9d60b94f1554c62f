"""BlindDPS: two diffusions side by side, of the image and of the kernel, tied by the observation.

Glossary:
    y: observation.
    x_t, k_t: diffused image and kernel.
    x0, k0: clean image and kernel that their priors predict; k the kernel that k0 stands for.
    r: residual y - k * x0.
    zeta: step sizes.

Source:
    Chung et al., "Parallel diffusion models of operator and image for blind inverse problems",
    CVPR 2023, algorithm 1, and its released code: ``x_s <- step(x_t) - zeta grad_x ||r||`` and
    ``k_s <- step(k_t) - zeta grad_k ||r||``, the norm not squared, in [-1, 1] units, x0 and k0
    clipped. Deliberate differences:

    * The norm is that of each image (there it runs over the batch).
    * Any number of steps and any size: the step sizes, given for 1000 steps at 256 px with 64 px
      kernels, are multiplied by ``1000 / steps`` and by ``sqrt(H W) / 256`` or ``kernel side /
      64``, because a unit gradient is spread over that many pixels.
    * No penalty on the kernel's absolute sum, which is 1 for a normalised kernel whatever it is
      (the released code adds it, once).
    * True convolution with a kernel that has a middle pixel: the last row and column of the image
      that the kernel's network makes are left out. There it is correlation with an even kernel.
    * The "small" variance, for priors that predict none. The returned kernel is k, not the raw k_0.
    * The kernel prior is the project's own (trained by :mod:`pristina.training`). No kernel prior
      is the paper's ablation: a uniform one, for which "the sample is itself", so that the kernel
      is found by gradient descent from noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from pristina.errors import Cancelled, InputError, SettingError
from pristina.methods.steps.blind_blur import blur_of, blur_with
from pristina.methods.steps.chain import begin
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation
from pristina.operators.convolve import convolve, normalise
from pristina.priors.base import Prior, to_unit
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, ddpm_step, step_pairs
from pristina.settings import NotNegative, Settings
from pristina.types import Draw, Generators, OnStep


@dataclass(frozen=True)
class BlindDPS(Settings):
    """Settings of :func:`blind_dps`.

    Attributes:
        steps: Number of network calls, 1 to 1000, each differentiated; the kernel's network is
            called as often.
        kernel_prior: Name of the kernel prior: a shipped one or a file; None for a uniform prior.
        kernel_px: Side of the kernel in pixels, odd: one less than the kernel prior's own side.
        zeta: Step size of the image in the paper's units (1000 steps at 256 px). The paper has
            0.3, which leaves the observation behind in 200 steps with priors of 64 px.
        zeta_kernel: Step size of the kernel in the paper's units (64 px kernels).
        step_size: Course of both step sizes: ``constant``, as in the paper, or ``growing`` with
            sqrt(alpha_bar_t), as in the released code.
    """

    steps: Annotated[int, Interval(ge=1, le=N_TIMESTEPS)] = 200
    kernel_prior: str | None = "kernels"
    kernel_px: Annotated[int, Ge(3)] = 31
    zeta: NotNegative = 1.0
    zeta_kernel: NotNegative = 0.3
    step_size: Literal["constant", "growing"] = "constant"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel_px % 2 == 0:
            raise SettingError(f"kernel_px must be odd, not {self.kernel_px}.")


PAPER = BlindDPS(steps=1000, zeta=0.3, zeta_kernel=0.3)
"""Settings of the paper, with the kernels of the shipped kernel prior (31 instead of 64 px)."""

AS_RELEASED = BlindDPS(steps=1000, zeta=1.0, zeta_kernel=1.0, step_size="growing")
"""Settings of the released code, with the kernels of the shipped kernel prior."""


def calls(settings: BlindDPS) -> Calls:
    """Return the calls of the image's network for one image."""
    return Calls(settings.steps, settings.steps)


def as_kernel(k0: Tensor) -> Tensor:
    """Return the kernels that images of kernels stand for.

    Args:
        k0: Images of kernels, (B, 1, S, S), in [-1, 1].

    Returns:
        Kernels, not negative, of sum 1, (B, 1, S - 1, S - 1).
    """
    return normalise(to_unit(k0)[..., :-1, :-1].clamp(min=0) + 1e-12)


def blind_dps(
    observation: Observation,
    prior: Prior,
    settings: BlindDPS = BlindDPS(),
    *,
    kernel_prior: Prior | None = None,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Sample images and kernels that are likely each by itself and explain the observation.

    Args:
        observation: Blurred images; the operator is a blur, of which only the border rule is used.
        prior: Diffusion prior of the images.
        settings: Settings, see :class:`BlindDPS`.
        kernel_prior: Weights that ``settings.kernel_prior`` names, of one channel.
        start: State of a cancelled run to go on from. A state without progress begins anew: both
            chains begin with noise, and the kernel's is not an estimate of a kernel.
        generator: Random generators, one for each image.
        on_step: Function called after each step.

    Returns:
        Result with the images and the operator with the estimated kernels; trace ``loss``, the
        mean squared residual in [0, 1] units. The cost counts the calls of the image's network;
        those of the kernel's network are the extra ``kernel_calls``, (B,).

    Raises:
        InputError: Settings and ``kernel_prior`` do not agree.
        OperatorError: The operator is not a blur with one kernel.
        SizeError: A prior does not accept the size.

    Source:
        See the module.

    Example:
        >>> from pristina.operators.blur import FreeKernel
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> observation = Observation(torch.full((1, 3, 8, 8), 0.6), FreeKernel(3))
        >>> images, kernels = GaussianPrior(0.0, 0.1), GaussianPrior(0.0, 0.1, channels=1)
        >>> settings = BlindDPS(steps=5, kernel_px=3)
        >>> result = blind_dps(observation, images, settings, kernel_prior=kernels)
        >>> result.images.shape, result.operator.kernel().shape, result.cost.network_calls
        (torch.Size([1, 3, 8, 8]), torch.Size([1, 1, 3, 3]), 5)
    """
    height, width = check_observation(observation, prior)
    blur = blur_of(observation, "BlindDPS", settings.kernel_px)
    _check_kernel_prior(settings, kernel_prior)
    y = observation.y
    n, side = len(y), settings.kernel_px + 1
    draw = Draw(generator, n, y.device)
    speed = N_TIMESTEPS / settings.steps
    zeta = settings.zeta * speed * (height * width) ** 0.5 / 256
    zeta_kernel = settings.zeta_kernel * speed * side / 64

    recorder = RunRecorder(prior, settings.steps, on_step, start)
    prior = recorder.prior
    kernel_prior = None if kernel_prior is None else kernel_prior.counted()
    shape = (n, prior.channels, height, width)
    x_t, images = begin(
        start, "blind_dps", draw, shape, observation.initial(), lambda: draw.normal(*shape[1:])
    )
    resumed = start is not None and start.step > 0
    k_t = start.memory["k_t"].clone() if start and resumed else draw.normal(1, side, side)
    kernel = start.memory["kernel"].clone() if start and resumed else as_kernel(k_t)
    stop = StopReason.COMPLETED
    try:
        for t, s in step_pairs(settings.steps, len(prior.alpha_bar))[recorder.first_step :]:
            a_t, a_s = alpha_bar_at(prior.alpha_bar, t), alpha_bar_at(prior.alpha_bar, s)
            # Clean image and clean kernel.
            x_t.requires_grad_()
            k_t.requires_grad_()
            x0 = prior.predict(x_t, t).x0.clamp(-1, 1)
            k0 = k_t if kernel_prior is None else kernel_prior.predict(k_t, t).x0.clamp(-1, 1)
            # Gradient of ||r|| in both; the factor 2 makes it [-1, 1] units.
            r = (y - convolve(to_unit(x0), as_kernel(k0), blur.boundary)).flatten(1)
            grad_x, grad_k = torch.autograd.grad(2 * r.norm(dim=1).sum(), (x_t, k_t))
            recorder.backward_calls += n
            with torch.no_grad():
                # Ancestral steps, corrected.
                course = a_t.sqrt() if settings.step_size == "growing" else 1.0
                step = ddpm_step(x_t, x0, a_t, a_s, draw.normal(*x_t.shape[1:]))
                x_t = step - course * zeta * grad_x
                if kernel_prior is not None:
                    k_t = ddpm_step(k_t, k0, a_t, a_s, draw.normal(*k_t.shape[1:]))
                k_t = k_t.detach() - course * zeta_kernel * grad_k
                images = to_unit(x_t if s < 0 else x0).clamp(0, 1)
                kernel = as_kernel(k_t if s < 0 else k0)
            recorder.step(images, r.detach().square().mean(1))
    except Cancelled:
        stop = StopReason.CANCELLED
    found = blur_with(kernel, blur)
    memory = dict[str, Any](images=images, kernel=kernel, k_t=k_t, generators=draw.get_states())
    state = recorder.state("blind_dps", recorder.n_done, x_t, found, **memory)
    kernel_calls = 0 if kernel_prior is None else recorder.n_done
    return recorder.result(
        "blind_dps",
        images,
        settings,
        draw.seeds,
        stop,
        operator=found,
        state=state,
        kernel_calls=torch.full((n,), kernel_calls),
    )


def _check_kernel_prior(settings: BlindDPS, kernel_prior: Prior | None) -> None:
    if settings.kernel_prior is not None and kernel_prior is None:
        raise InputError(
            f"The kernel prior {settings.kernel_prior!r} has not been loaded: pass "
            f"kernel_prior=load_weights('kernels', {settings.kernel_prior!r}), "
            "or set kernel_prior to none for a uniform prior."
        )
    if settings.kernel_prior is None and kernel_prior is not None:
        raise InputError(
            "Weights of a kernel prior were given, but the setting kernel_prior is none; "
            "leave one of them out."
        )
