"""FastDiffusionEM: at each step of a guided sampler, fit the blur kernel to the clean image.

Glossary:
    y: observation; sigma its noise, in [0, 1] units.
    k: kernel; z its regularised copy.
    x_t: diffused image; x0: clean image that the prior predicts from it.
    beta: weight that ties k to z.
    lam: weight of the kernel's prior.

Source:
    Laroche, Almansa and Coupete, "Fast diffusion EM: a diffusion model for blind inverse problems
    with application to deconvolution", WACV 2024, and its released code, the variant with PiGDM and
    one sample: from a kernel that is a single point, in each of 100 steps

    * M-step: ``k = argmin ||y - k * x0||^2 / sigma^2 + beta ||k - z||^2`` and ``z = prox(k)`` in
      turns, ten times; the kernel moves to its centre of mass;
    * E-step: a step of PiGDM with this kernel.

    Deliberate differences:

    * The released prox is a network that was trained to denoise kernels. Its weights are not ours
      to ship; instead kernels are not negative, have sum 1, and lose ``lam / beta`` in each value
      (the prox of their absolute sum, which the released code has as an alternative).
    * The kernel is fitted once in each step (:data:`PAPER`: ten times), ``lam / beta`` is large:
      without the network a kernel that moves more follows wrong images.
    * ``lam / beta`` is a share of the largest value of the kernel, so that it holds for any size,
      and ``beta`` goes with the number of pixels, as the likelihood does.
    * The step of PiGDM is that of :mod:`pristina.methods.pigdm`, whose weights are those of its own
      authors, and any border rule is kept, where the released code takes all images for periodic.
    * Kernels have odd sides, and move by whole pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from pristina.errors import Cancelled, SettingError
from pristina.methods.steps.blind_blur import (
    blur_of,
    blur_with,
    canvas_of,
    first_kernel,
    normal_equations,
)
from pristina.methods.steps.chain import begin
from pristina.methods.steps.linear import MIN_SIGMA, known_sigma, proximal
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation
from pristina.operators.convolve import centre
from pristina.operators.spectral import BlurSpectrum
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, ddim_noisy_step, step_pairs
from pristina.settings import Count, Positive, Settings, Share
from pristina.types import Draw, Generators, OnStep


@dataclass(frozen=True)
class FastDiffusionEM(Settings):
    """Settings of :func:`fast_diffusion_em`.

    Attributes:
        steps: Number of network calls, 1 to 1000, each differentiated.
        kernel_px: Side of the kernel in pixels, odd.
        turns: Number of times in each step that the kernel is fitted and regularised.
        beta: Weight that ties the fitted kernel to the regularised one, at 256 x 256 px.
        sparsity: Share of its largest value that each value of a kernel loses in a turn.
        cg_iterations: Largest number of conjugate gradient iterations of an image's data step.
    """

    steps: Annotated[int, Interval(ge=1, le=N_TIMESTEPS)] = 100
    kernel_px: Annotated[int, Ge(3)] = 17
    turns: Count = 1
    beta: Positive = 1e5
    sparsity: Share = 0.2
    cg_iterations: Count = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel_px % 2 == 0:
            raise SettingError(f"kernel_px must be odd, not {self.kernel_px}.")


PAPER = FastDiffusionEM(kernel_px=33, turns=10)
"""Settings of the released configuration for faces of 256 px, but for the kernel's prior."""


def calls(settings: FastDiffusionEM) -> Calls:
    """Return the network calls for one image."""
    return Calls(settings.steps, settings.steps)


def fast_diffusion_em(
    observation: Observation,
    prior: Prior,
    settings: FastDiffusionEM = FastDiffusionEM(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Sample images and estimate their blur kernels, each in turn given the other.

    Args:
        observation: Blurred images; the operator is a blur, of which only the border rule is used;
            ``known_sigma``.
        prior: Diffusion prior.
        settings: Settings, see :class:`FastDiffusionEM`.
        start: State of a cancelled run to go on from. A state without progress gives the first
            kernels; the chain begins with noise of its own.
        generator: Random generators, one for each image.
        on_step: Function called after each step.

    Returns:
        Result with the images and the operator with the estimated kernels; trace ``loss``, the
        mean squared residual in [0, 1] units.

    Raises:
        InputError: ``known_sigma`` is missing, or the observation does not fit the prior.
        OperatorError: The operator is not a blur with one kernel.
        SizeError: The prior does not accept the size.

    Source:
        See the module.

    Example:
        >>> from pristina.operators.blur import FreeKernel
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> y, prior = torch.full((1, 3, 8, 8), 0.6), GaussianPrior(variance=0.1)
        >>> observation = Observation(y, FreeKernel(3), known_sigma=0.05)
        >>> settings = FastDiffusionEM(steps=10, kernel_px=3)
        >>> result = fast_diffusion_em(observation, prior, settings)
        >>> result.images.shape, result.cost.network_calls, result.cost.backward_calls
        (torch.Size([1, 3, 8, 8]), 10, 10)
    """
    height, width = check_observation(observation, prior)
    blur = blur_of(observation, "FastDiffusionEM", settings.kernel_px)
    y, n = observation.y, len(observation.y)
    sigma = max(known_sigma(observation, "FastDiffusionEM"), MIN_SIGMA)
    draw = Draw(generator, n, y.device)
    point = torch.zeros(n, 1, settings.kernel_px, settings.kernel_px, device=y.device)
    point[..., settings.kernel_px // 2, settings.kernel_px // 2] = 1
    k = first_kernel(start, "fast_diffusion_em", point)
    space = BlurSpectrum(k, height, width, blur.boundary)

    recorder = RunRecorder(prior, settings.steps, on_step, start)
    prior = recorder.prior
    shape = (n, prior.channels, height, width)
    chain = start, "fast_diffusion_em", draw, shape, observation.initial()
    x, images = begin(*chain, lambda: draw.normal(*shape[1:]))
    stop = StopReason.COMPLETED
    try:
        for t, s in step_pairs(settings.steps, len(prior.alpha_bar))[recorder.first_step :]:
            x.requires_grad_()
            eps, x0 = prior.predict(x, t)
            with torch.no_grad():
                # M-step: the kernel given the clean image.
                canvas = to_unit(canvas_of(space, x0.clamp(-1, 1), settings.kernel_px))
                parts = zip(canvas, y, k, strict=True)
                k, _ = centre(torch.stack([fitted(*one, sigma, settings) for one in parts]))
                operator = blur_with(k, blur).requires_grad_(False)
                # E-step: what the data ask of the clean image, given the kernel.
                a_t, a_s = alpha_bar_at(prior.alpha_bar, t), alpha_bar_at(prior.alpha_bar, s)
                rho = (2 * sigma) ** 2 / (1 - a_t)  # [-1, 1] pixels double the noise.
                wanted = proximal(operator, y, to_unit(x0), rho, settings.cg_iterations)
            (guidance,) = torch.autograd.grad(x0, x, to_signed(wanted) - x0.detach())
            recorder.backward_calls += n
            x0 = x0.detach() + a_t.sqrt() * guidance
            x = ddim_noisy_step(x0, eps.detach(), a_t, a_s, draw.normal(*shape[1:]), eta=1.0)
            images = to_unit(x0).clamp(0, 1)
            loss = (operator(images) - y).square().mean((1, 2, 3))
            recorder.step(images, loss)
    except Cancelled:
        stop = StopReason.CANCELLED
    found = blur_with(k, blur)
    memory: dict[str, Any] = {"images": images, "kernel": k, "generators": draw.get_states()}
    state = recorder.state("fast_diffusion_em", recorder.n_done, x, found, **memory)
    return recorder.result(
        "fast_diffusion_em", images, settings, draw.seeds, stop, operator=found, state=state
    )


def fitted(canvas: Tensor, y: Tensor, k: Tensor, sigma: float, settings: FastDiffusionEM) -> Tensor:
    """Fit the kernel of one image by half-quadratic splitting.

    Args:
        canvas: Clean image with its border, (C, h + K - 1, w + K - 1), in [0, 1].
        y: Observation, (C, h, w).
        k: Kernel to start from, (1, K, K).
        sigma: Noise level.
        settings: Settings, see :class:`FastDiffusionEM`.

    Returns:
        Kernel that is not negative and has sum 1, (1, K, K).
    """
    R, b = normal_equations(canvas, y, settings.kernel_px)
    alpha = settings.beta * sigma**2 * y[0].numel() / 256**2
    root = torch.linalg.cholesky(R + alpha * torch.eye(len(R), device=y.device))
    z = k.flatten()[:, None]
    for _ in range(settings.turns):
        fit = torch.cholesky_solve(b + alpha * z, root)
        if not fit.max() > 0:
            break
        z = (fit - settings.sparsity * fit.max()).clamp(min=0)
        z = z / z.sum()
    return z.view_as(k)
