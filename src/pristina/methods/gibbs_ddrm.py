"""GibbsDDRM: blind deblurring by taking turns: the picture by DDRM given the kernel, the kernel by Langevin dynamics given the picture.

Glossary: y observation, k kernel, x_t diffused picture (variance exploding), x0 and eps the prior's clean picture and noise in it, sigma_y
noise of y in [-1, 1] units; the picture's coefficients and etas are those of :mod:`pristina.methods.ddrm`.

Source:
    Murata et al., "GibbsDDRM: a partially collapsed Gibbs sampler for solving blind inverse problems with denoising diffusion
    restoration", ICML 2023, algorithm 2 and released code: 100 steps, eta_b 0.9, eta_c = eta_d = 0.8 (eta_a, which is 0 there, is left
    out), zero threshold 0.05, a bump exp(-r / 10) of 64 px to start from. Deliberate differences:

    * The kernel always starts from the bump, whatever kernel the observation's operator holds (a released configuration starts from the
      truth): only its border rule is read.
    * The likelihood of the kernel has the observation's noise, not a fixed 0.04; the noise level may be estimated from the observation.
    * 17 px kernels, a quarter of a 64 px picture as 64 px are of 256 px; the bump shrinks along.
    * Langevin with a fixed metric: the likelihood's own curvature, softened. There, 500 plain iterations of step 1e-11 three times in each
      step do not converge, and the step must be found for each data set. (Given the true 64 px picture, 6000 plain iterations of the
      largest stable step left the kernel's correlation at 0.79; 500 with the metric, and the weight below, reach 0.96.) Here the step
      is one number for any picture, size and noise. Ten iterations in a step keep the kernel as sluggish as it is there, and that
      helps: it should not follow early pictures, which are wrong.
    * The mean colour, which says nothing about a kernel of sum 1, is taken off before. The gradient comes from the picture's
      autocorrelation, computed once in each turn.
    * The weight of the absolute sum is 32,000 instead of 1000, which hardly acts there; it goes with the number of pixels, as the
      likelihood does. The kernel moves once t is below 0.5 T instead of 0.7 T, in one turn a step instead of three: tuned on four faces.
    * The returned kernel has no negative entries and sum 1; inside the chain it only has sum 1.
    * The filled border counts as uncertain (:mod:`pristina.operators.spectral`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pristina.errors import Cancelled, OperatorError, SettingError
from pristina.image.noise_level import estimate_sigma
from pristina.methods.base import Books, Result, check_observation
from pristina.methods.ddrm import Etas, advance, first_picture, known_sigma, sigma_at
from pristina.operators.base import Observation
from pristina.operators.blur import Blur, FreeKernel, VaryingBlur
from pristina.operators.convolve import normalise
from pristina.operators.spectral import BlurSpectrum, what_matters
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, step_pairs
from pristina.types import Draw, OnStep

MIN_SIGMA = 0.002  # in [0, 1] units: half a grey level, below which the likelihood of the kernel is of no use

SOFTEST = 1e-3  # part of the largest curvature below which the Langevin step is not enlarged any more


@dataclass(frozen=True)
class GibbsDDRM:
    """Settings of :func:`gibbs_ddrm`.

    Attributes:
        steps: Steps of the chain.
        kernel_px: Side of the kernel, odd.
        sigma: Take the noise level that is ``known`` from the observation, or have it ``estimated``.
        turns: Kernel updates in a step, each costing one network call more.
        langevin: Langevin iterations in an update.
        rate: Their step: 1 forgets half of the kernel's deviation in one iteration, in what the picture shows well.
        sparsity: Weight of the kernel's absolute sum, at 256 x 256 px.
        kernel_from: The share of the chain's noise times, from the end, in which the kernel moves.
        eta_b: How far to follow the observation where the chain is noisier than it.
        eta_c: How far to follow its noise where the chain is less noisy.
        eta_d: Fresh noise where nothing is observed.
        threshold: Singular values below this count as zero.
    """

    steps: int = 100
    kernel_px: int = 17
    sigma: Literal["known", "estimated"] = "known"
    turns: int = 1
    langevin: int = 10
    rate: float = 0.2
    sparsity: float = 32_000.0
    kernel_from: float = 0.5
    eta_b: float = 0.9
    eta_c: float = 0.8
    eta_d: float = 0.8
    threshold: float = 0.05

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= N_TIMESTEPS:
            raise SettingError(f"steps must lie between 1 and {N_TIMESTEPS}, not {self.steps}.")
        if self.kernel_px < 3 or self.kernel_px % 2 == 0:
            raise SettingError(f"kernel_px must be odd and at least 3, not {self.kernel_px}.")
        if self.sigma not in ("known", "estimated"):
            raise SettingError(f"sigma must be known or estimated, not {self.sigma!r}.")
        if self.turns < 0 or self.langevin < 1 or not self.sparsity >= 0:
            raise SettingError("turns and sparsity must not be negative, and langevin must be at least 1.")
        if not 0 < self.rate <= 2:
            raise SettingError(f"rate must lie in (0, 2], where the Langevin iteration is stable; not {self.rate}.")
        for name in ("kernel_from", "eta_b", "eta_c", "eta_d", "threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"{name} must lie between 0 and 1, not {getattr(self, name)}.")


def bump(size: int) -> Tensor:
    """The kernel to start from, (1, 1, size, size): exp(-r / 10) at 64 px, in proportion at others."""
    axis = torch.arange(size) - size // 2
    r = (axis[:, None].square() + axis[None].square()).sqrt()
    return normalise((-r * 64 / size / 10).exp())[None, None]


def blur_of(observation: Observation, method: str, kernel_px: int) -> Blur:
    """The one blur that the observation went through; a ``method`` that estimates the kernel reads its border rule only.

    Raises:
        OperatorError: There is none, or other things happened too, or its kernel must have another size.
    """
    parts = [] if observation.operator is None else what_matters(observation.operator)
    if len(parts) != 1 or not isinstance(parts[0], Blur) or isinstance(parts[0], VaryingBlur):
        raise OperatorError(f"{method} is for blur with one unknown kernel, and noise: give the operator FreeKernel({kernel_px}).")
    if parts[0].boundary == "valid" and parts[0].size != kernel_px:
        raise OperatorError(f"With a valid border the kernel's size shows: {parts[0].size} px; set kernel_px to it, not to {kernel_px}.")
    return parts[0]


def langevin(kernel: Tensor, x0: Tensor, y: Tensor, sigma: Tensor, n: int, rate: float, weight: float, draw: Draw) -> Tensor:
    """Samples of the kernel given the picture, of density ``exp(-||y - k * x0||^2 / (2 sigma^2) - weight ||k||_1)``, scaled to sum 1.

    A kernel stays as it was where the picture has no contrast to tell it from another, or the sample has lost half its sum.

    Args:
        kernel: Where to start, (B, 1, K, K).
        x0: Pictures on the canvas, (B, C, H, W), where convolution is circular.
        y: Observations there.
        sigma: Noise, (B, 1, 1, 1), in the units of the pictures.
        n: Iterations of ``k <- k - (rate / 2) M gradient + sqrt(rate M) noise``, M the inverse of the softened curvature.
        rate: The step.
        weight: Of the absolute sum.
        draw: Where the noise comes from.
    """
    height, width = y.shape[-2:]
    size = kernel.shape[-1]
    mean = y.mean((2, 3), keepdim=True)
    fx, fy = torch.fft.rfft2(x0 - mean), torch.fft.rfft2(y - mean)
    power = fx.abs().square().sum(1)
    # the gradient is (R k - b) / sigma^2 + weight sign(k): R holds the autocorrelation of x0, b its correlation with y
    autocorrelation = torch.fft.irfft2(power, s=(height, width))
    correlation = torch.fft.irfft2((fx.conj() * fy).sum(1), s=(height, width))
    axis = torch.arange(size, device=y.device) - size // 2
    rows, columns = (v.flatten() for v in torch.meshgrid(axis, axis, indexing="ij"))
    R = autocorrelation[:, (rows[:, None] - rows) % height, (columns[:, None] - columns) % width]
    b = correlation[:, rows % height, columns % width, None]

    variance = sigma.view(-1, 1, 1) ** 2
    scale = power.amax((1, 2)).view(-1, 1, 1)  # scale / variance is the likelihood's largest curvature
    telling = scale > variance * size**2
    scale = torch.where(telling, scale, 1.0)
    root = torch.linalg.cholesky(R / scale + SOFTEST * torch.eye(size**2, device=y.device))
    M = torch.cholesky_inverse(root) / scale  # times the variance
    noise = torch.linalg.solve_triangular(root.mT, draw.normal(size**2, n), upper=True) * (rate * variance / scale).sqrt()
    start = kernel.flatten(1)[..., None]
    k = start
    for i in range(n):
        k = k - rate / 2 * (M @ (R @ k - b + variance * weight * k.sign())) + noise[..., i : i + 1]
    total = k.sum(1, keepdim=True)
    usable = telling & (total > 0.5)
    return torch.where(usable, k / torch.where(usable, total, 1.0), start).view(-1, 1, size, size)


@torch.no_grad()
def gibbs_ddrm(
    observation: Observation,
    prior: Prior,
    settings: GibbsDDRM = GibbsDDRM(),
    *,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Pictures and kernels drawn in turns, each given the other.

    Args:
        observation: Blurred pictures; the operator is a blur, of which only the border rule is used; ``known_sigma``, unless it is
            ``estimated``.
        prior: The diffusion prior.
        settings: See :class:`GibbsDDRM`.
        generator: One for each picture.
        on_step: Called after each step.

    Returns:
        Pictures; the operator with the estimated kernels; trace ``loss`` (mean squared residual, [0, 1] units); ``sigma`` in the extras.

    Raises:
        InputError: ``known_sigma`` is missing.
        OperatorError: The operator is not a blur with one kernel.
        SizeError: The prior does not accept the size.

    Source:
        See the module.

    Example:
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> observation = Observation(torch.full((1, 3, 8, 8), 0.6), FreeKernel(3), known_sigma=0.05)
        >>> result = gibbs_ddrm(observation, GaussianPrior(variance=0.1), GibbsDDRM(steps=10, kernel_px=3, langevin=5))
        >>> result.picture.shape, result.cost.network_calls, round(result.operator.kernel().sum().item(), 3)
        (torch.Size([1, 3, 8, 8]), 15, 1.0)
    """
    height, width = check_observation(observation, prior)
    blur = blur_of(observation, "GibbsDDRM", settings.kernel_px)
    y = to_signed(observation.y)
    n = len(y)
    sigma = (
        torch.full((n,), known_sigma(observation, "GibbsDDRM"), device=y.device)
        if settings.sigma == "known"
        else estimate_sigma(observation.y)
    )
    sigma_y = 2 * sigma.clamp(min=MIN_SIGMA).view(-1, 1, 1, 1)
    weight = settings.sparsity * height * width / 256**2
    etas = Etas(b=settings.eta_b, c=settings.eta_c, d=settings.eta_d)
    draw = Draw(generator, n, y.device)
    k = bump(settings.kernel_px).to(y).repeat(n, 1, 1, 1)
    space = BlurSpectrum(k, height, width, blur.boundary, settings.threshold)

    books = Books(prior, settings.steps, on_step)
    pairs = step_pairs(settings.steps, len(prior.alpha_bar))
    last_t = settings.kernel_from * len(prior.alpha_bar)
    picture = observation.initial()
    like_y = to_signed(picture)
    x_t = first_picture(space, y, like_y, sigma_y, sigma_at(prior, pairs[0][0]), draw)
    why = "the chain is done"
    try:
        for t, s in pairs:
            eps, x0 = prior.predict(alpha_bar_at(prior.alpha_bar, t).sqrt() * x_t, t)
            around = x0 if t <= last_t else like_y
            x_t = advance(space, x0, eps, sigma_at(prior, s), y, sigma_y, draw, etas, around)
            for _ in range(settings.turns if t <= last_t and s >= 0 else 0):
                seen = prior.predict(alpha_bar_at(prior.alpha_bar, s).sqrt() * x_t, s).x0
                y_canvas, _ = space.fill(y, seen, sigma_y, draw.normal(*space.shape(seen)))
                k = langevin(k, space.extend(seen), y_canvas, sigma_y, settings.langevin, settings.rate, weight, draw)
                space.set_kernel(k, settings.threshold)
                x_t = advance(space, x0, eps, sigma_at(prior, s), y, sigma_y, draw, etas, around)
            picture = to_unit(x_t if s < 0 else x0).clamp(0, 1)
            books.step(picture, (found(k, blur)(picture) - observation.y).square().mean((1, 2, 3)))
    except Cancelled:
        why = f"cancelled at step {books.n_done}"
    return books.result("gibbs_ddrm", picture, settings, draw.seeds, [why] * n, found(k, blur), sigma=sigma)


def found(kernel: Tensor, blur: Blur) -> FreeKernel:
    """The blur with these kernels, (B, 1, K, K), their negative entries left out."""
    return FreeKernel(kernel.shape[-1], boundary=blur.boundary, start=normalise(kernel.clamp(min=0)))
