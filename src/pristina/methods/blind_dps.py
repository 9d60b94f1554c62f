"""BlindDPS: two diffusions side by side, one of the picture and one of the kernel, tied together by the observation.

Glossary: y observation, x_t and k_t diffused picture and kernel, x0 and k0 what their priors see in them, k the kernel that k0 stands for,
r residual y - k * x0, zeta step sizes.

Source:
    Chung et al., "Parallel diffusion models of operator and image for blind inverse problems", CVPR 2023, algorithm 1, and its released
    code: ``x_s <- step(x_t) - zeta grad_x ||r||`` and ``k_s <- step(k_t) - zeta grad_k ||r||``, norm not squared, in [-1, 1] units, x0 and
    k0 clipped. Deliberate differences:

    * The norm is each picture's own (there it runs over the batch).
    * Any number of steps, and any size: the step sizes, given for 1000 steps at 256 px with 64 px kernels, are multiplied by ``1000 /
      steps`` and by ``sqrt(H W) / 256`` or ``kernel side / 64``, for a unit gradient is spread over that many pixels. They are constants, as
      in the paper; the released code has sqrt(alpha_bar) for both.
    * No penalty on the kernel's absolute sum, which is 1 for a normalised kernel whatever it is (the released code adds it, once).
    * True convolution with a kernel that has a middle pixel: the last row and column of the kernel network's picture are left out. There it
      is correlation with an even kernel.
    * The "small" variance, for priors that predict none. The returned kernel is k, not the raw k_0.
    * The kernel prior is the project's own (:mod:`pristina.training.kernel_prior`). ``kernel_prior=None`` is the paper's ablation: a
      uniform one, for which "the sample is itself", so that the kernel is found by gradient descent from noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pristina.errors import Cancelled, SettingError
from pristina.methods.base import Books, Result, check_observation
from pristina.methods.gibbs_ddrm import blur_of, found
from pristina.operators.base import Observation
from pristina.operators.convolve import convolve, normalise
from pristina.priors.base import Prior, to_unit
from pristina.priors.load import load_kernel_prior
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, ddpm_step, step_pairs
from pristina.types import Draw, OnStep


@dataclass(frozen=True)
class BlindDPS:
    """Settings of :func:`blind_dps`.

    Attributes:
        steps: Network calls, each differentiated through; as many of the kernel's network.
        kernel_prior: The kernel's prior: a shipped name, a file, a prior of one channel, or None for a uniform one.
        kernel_px: Side of the kernel, odd: one less than what the kernel's prior was trained at.
        zeta: Step size of the picture, in the paper's units (1000 steps at 256 px). The paper has 0.3; in 200 steps with priors of 64 px
            that leaves the observation behind: on training faces 1.0 gains 1.4 dB at motion blur and 3.4 at Gaussian blur.
        zeta_kernel: Step size of the kernel, likewise (64 px kernels).
    """

    steps: int = 200
    kernel_prior: str | Prior | None = "kernels"
    kernel_px: int = 31
    zeta: float = 1.0
    zeta_kernel: float = 0.3

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= N_TIMESTEPS:
            raise SettingError(f"steps must lie between 1 and {N_TIMESTEPS}, not {self.steps}.")
        if self.kernel_px < 3 or self.kernel_px % 2 == 0:
            raise SettingError(f"kernel_px must be odd and at least 3, not {self.kernel_px}.")
        if not (self.zeta >= 0 and self.zeta_kernel >= 0):
            raise SettingError("zeta and zeta_kernel must not be negative.")


def as_kernel(k0: Tensor) -> Tensor:
    """The kernel that a picture of one stands for: from [-1, 1] (n, 1, S, S) to not negative, sum 1, (n, 1, S - 1, S - 1)."""
    return normalise(to_unit(k0)[..., :-1, :-1].clamp(min=0) + 1e-12)


def blind_dps(
    observation: Observation,
    prior: Prior,
    settings: BlindDPS = BlindDPS(),
    *,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Pictures and kernels that are likely each by itself and make the observation together.

    Args:
        observation: Blurred pictures; the operator is a blur, of which only the border rule is used.
        prior: The diffusion prior of the pictures.
        settings: See :class:`BlindDPS`.
        generator: One for each picture.
        on_step: Called after each step.

    Returns:
        Pictures; the operator with the estimated kernels; trace ``loss`` (mean squared residual, [0, 1] units). The cost counts the calls
        of the picture's network; those of the kernel's, as many again, are in the extras as ``kernel_calls``.

    Raises:
        CheckpointError: There is no such kernel prior.
        OperatorError: The operator is not a blur with one kernel.
        SizeError: A prior does not accept the size.

    Source:
        See the module.

    Example:
        >>> from pristina.operators.blur import FreeKernel
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> observation = Observation(torch.full((1, 3, 8, 8), 0.6), FreeKernel(3))
        >>> settings = BlindDPS(steps=5, kernel_prior=GaussianPrior(0.0, 0.1, channels=1), kernel_px=3)
        >>> result = blind_dps(observation, GaussianPrior(variance=0.1), settings)
        >>> result.picture.shape, result.operator.kernel().shape, result.cost.network_calls
        (torch.Size([1, 3, 8, 8]), torch.Size([1, 1, 3, 3]), 5)
    """
    height, width = check_observation(observation, prior)
    blur = blur_of(observation, "BlindDPS", settings.kernel_px)
    y = observation.y
    n, side = len(y), settings.kernel_px + 1
    kernel_prior = None if settings.kernel_prior is None else load_kernel_prior(settings.kernel_prior, device=y.device)
    draw = Draw(generator, n, y.device)
    speed = N_TIMESTEPS / settings.steps
    zeta = settings.zeta * speed * (height * width) ** 0.5 / 256
    zeta_kernel = settings.zeta_kernel * speed * side / 64

    books = Books(prior, settings.steps, on_step)
    x_t, k_t = draw.normal(prior.channels, height, width), draw.normal(1, side, side)
    picture, kernel = observation.initial(), as_kernel(k_t)
    kernel_calls = 0
    why = "the chain is done"
    try:
        for t, s in step_pairs(settings.steps, len(prior.alpha_bar)):
            a_t, a_s = alpha_bar_at(prior.alpha_bar, t), alpha_bar_at(prior.alpha_bar, s)
            x_t.requires_grad_()
            k_t.requires_grad_()
            x0 = prior.predict(x_t, t).x0.clamp(-1, 1)
            k0 = k_t if kernel_prior is None else kernel_prior.predict(k_t, t).x0.clamp(-1, 1)
            r = (y - convolve(to_unit(x0), as_kernel(k0), blur.boundary)).flatten(1)
            grad_x, grad_k = torch.autograd.grad(2 * r.norm(dim=1).sum(), (x_t, k_t))  # 2: [-1, 1] units
            books.backward_calls += n
            kernel_calls += kernel_prior is not None
            with torch.no_grad():
                x_t = ddpm_step(x_t, x0, a_t, a_s, draw.normal(*x_t.shape[1:])) - zeta * grad_x
                if kernel_prior is not None:
                    k_t = ddpm_step(k_t, k0, a_t, a_s, draw.normal(*k_t.shape[1:]))
                k_t = k_t.detach() - zeta_kernel * grad_k
                picture = to_unit(x_t if s < 0 else x0).clamp(0, 1)
                kernel = as_kernel(k_t if s < 0 else k0)
            books.step(picture, r.detach().square().mean(1))
    except Cancelled:
        why = f"cancelled at step {books.n_done}"
    calls = torch.full((n,), kernel_calls)
    return books.result("blind_dps", picture, settings, draw.seeds, [why] * n, found(kernel, blur), kernel_calls=calls)
