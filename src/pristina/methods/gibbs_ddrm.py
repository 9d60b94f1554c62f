"""GibbsDDRM: blind deblurring by turns: the image by DDRM given the kernel, the kernel by Langevin.

Glossary:
    y: observation; sigma_y its noise in [-1, 1] units.
    k: kernel.
    x_t: diffused image, variance exploding.
    x0, eps: clean image and noise that the prior predicts from it.
    etas: weights of an update, see :mod:`pristina.methods.ddrm`.

Source:
    Murata et al., "GibbsDDRM: a partially collapsed Gibbs sampler for solving blind inverse
    problems with denoising diffusion restoration", ICML 2023, algorithm 2 and released code: 100
    steps, eta_b 0.9, eta_c = eta_d = 0.8 (eta_a, which is 0 there, is left out), zero threshold
    0.05, a first kernel exp(-r / 10) of 64 px. Deliberate differences of all settings:

    * The kernel always starts from that bump, whatever kernel the observation's operator holds (a
      released configuration starts from the truth): only its border rule is read.
    * The likelihood of the kernel has the observation's noise, not a fixed 0.04; the noise level
      may be estimated from the observation.
    * Kernels have odd sides.
    * The returned kernel has no negative entries and sum 1; inside the chain it only has sum 1.
    * The filled border counts as uncertain in the image's update
      (:mod:`pristina.operators.spectral`).

    Deliberate differences of the default from :data:`PAPER`:

    * 17 px kernels, a quarter of a 64 px image as 64 px are of 256 px; the bump shrinks along.
    * Langevin with a fixed metric, the likelihood's own softened curvature. There, 500 plain
      iterations of step 1e-11, three times in each step, do not converge, and the step must be
      found for each data set. (Given the true 64 px image, 6000 plain iterations of the largest
      stable step left the kernel's correlation at 0.79; 500 with the metric, and the weight below,
      reach 0.96.) Here the step is one number for any image, size and noise. Ten iterations in a
      step keep the kernel as slow as it is there, which helps: it should not follow early images,
      which are wrong.
    * The mean colour, which says nothing about a kernel of sum 1, is taken off before.
    * The weight of the absolute sum is 32,000 instead of 1000, which hardly acts there; it goes
      with the number of pixels, as the likelihood does. The kernel moves once t is below 0.5 T
      instead of 0.7 T, in one turn a step instead of three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from pristina.errors import Cancelled, SettingError
from pristina.image.statistics import estimate_noise
from pristina.methods.ddrm import Etas, advance, first_image, sigma_at
from pristina.methods.steps.blind_blur import (
    blur_of,
    blur_with,
    bump,
    canvas_of,
    first_kernel,
    langevin,
    langevin_as_released,
)
from pristina.methods.steps.chain import begin
from pristina.methods.steps.linear import known_sigma
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation
from pristina.operators.blur import Blur
from pristina.operators.spectral import BlurSpectrum
from pristina.priors.base import Prediction, Prior, to_signed, to_unit
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, step_pairs
from pristina.settings import Count, NotNegative, Settings, Share
from pristina.types import Draw, Generators, OnStep

MIN_SIGMA = 0.002
"""Least noise level, in [0, 1] units: half a grey level, below which no kernel can be sampled."""


@dataclass(frozen=True)
class GibbsDDRM(Settings):
    """Settings of :func:`gibbs_ddrm`.

    Attributes:
        steps: Number of steps of the chain, 1 to 1000.
        kernel_px: Side of the kernel in pixels, odd.
        sigma: Noise level: ``known``, that of the observation; or ``estimated``.
        turns: Number of kernel updates in a step, each of which costs one more network call.
        langevin: Number of Langevin iterations in an update.
        rate: Step size of an iteration. With the metric, 1 forgets half of the kernel's deviation
            in one iteration where the image determines the kernel well; without, it is the
            paper's, for 256 x 256 px and a noise of 0.04 in [-1, 1] units.
        metric: Metric of the Langevin iterations: the likelihood's ``curvature``, or ``none`` as
            in the released code.
        sparsity: Weight of the kernel's absolute sum, at 256 x 256 px.
        kernel_from: Share of the chain's noise times, from the end, in which the kernel moves.
        eta_b: Share of the observation where the chain is noisier than it.
        eta_c: Share of the observation's noise where the chain is less noisy.
        eta_d: Share of fresh noise where nothing is observed.
        threshold: Singular values below this count as zero.
    """

    steps: Annotated[int, Interval(ge=1, le=N_TIMESTEPS)] = 100
    kernel_px: Annotated[int, Ge(3)] = 17
    sigma: Literal["known", "estimated"] = "known"
    turns: Annotated[int, Ge(0)] = 1
    langevin: Count = 10
    rate: Annotated[float, Interval(gt=0, le=2)] = 0.2
    metric: Literal["curvature", "none"] = "curvature"
    sparsity: NotNegative = 32_000.0
    kernel_from: Share = 0.5
    eta_b: Share = 0.9
    eta_c: Share = 0.8
    eta_d: Share = 0.8
    threshold: Share = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel_px % 2 == 0:
            raise SettingError(f"kernel_px must be odd, not {self.kernel_px}.")

    def moves(self, t: int, s: int, n: int = N_TIMESTEPS) -> bool:
        """Return whether the kernel moves in the step from t to s of a prior of n timesteps."""
        return t <= self.kernel_from * n and s >= 0


PAPER = GibbsDDRM(
    kernel_px=63,
    turns=3,
    langevin=500,
    rate=1e-11,
    metric="none",
    sparsity=1000.0,
    kernel_from=0.7,
)
"""Settings of the released configuration for faces of 256 px, with kernels one pixel smaller."""


def calls(settings: GibbsDDRM) -> Calls:
    """Return the network calls for one image."""
    n_moves = sum(settings.moves(t, s) for t, s in step_pairs(settings.steps))
    return Calls(settings.steps + n_moves * settings.turns)


@torch.no_grad()
def gibbs_ddrm(
    observation: Observation,
    prior: Prior,
    settings: GibbsDDRM = GibbsDDRM(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Sample images and blur kernels in turns, each given the other.

    Args:
        observation: Blurred images; the operator is a blur, of which only the border rule is used;
            ``known_sigma``, unless the noise level is ``estimated``.
        prior: Diffusion prior.
        settings: Settings, see :class:`GibbsDDRM`.
        start: State of a cancelled run to go on from. A state without progress gives the first
            kernels; the chain begins with noise of its own.
        generator: Random generators, one for each image.
        on_step: Function called after each step.

    Returns:
        Result with the images and the operator with the estimated kernels; trace ``loss``, the
        mean squared residual in [0, 1] units; extra ``sigma``, the noise level, (B,).

    Raises:
        InputError: ``known_sigma`` is missing.
        OperatorError: The operator is not a blur with one kernel.
        SizeError: The prior does not accept the size.

    Source:
        See the module.

    Example:
        >>> from pristina.operators.blur import FreeKernel
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> y, prior = torch.full((1, 3, 8, 8), 0.6), GaussianPrior(variance=0.1)
        >>> observation = Observation(y, FreeKernel(3), known_sigma=0.05)
        >>> result = gibbs_ddrm(observation, prior, GibbsDDRM(steps=10, kernel_px=3, langevin=5))
        >>> result.images.shape, result.cost.network_calls
        (torch.Size([1, 3, 8, 8]), 15)
    """
    height, width = check_observation(observation, prior)
    blur = blur_of(observation, "GibbsDDRM", settings.kernel_px)
    n, device = len(observation.y), observation.y.device
    draw = Draw(generator, n, device)
    sigma = _noise_level(observation, settings)
    initial = observation.initial()
    bumps = bump(settings.kernel_px).to(device).repeat(n, 1, 1, 1)
    k = first_kernel(start, "gibbs_ddrm", bumps)

    recorder = RunRecorder(prior, settings.steps, on_step, start)
    prior = recorder.prior
    pairs = step_pairs(settings.steps, len(prior.alpha_bar))
    parts = zip(observation.y.split(1), initial.split(1), sigma, k.split(1), strict=True)
    chains = [
        _Chain(prior, settings, blur, *part, Draw(g, 1, device))
        for part, g in zip(parts, draw.generators, strict=True)
    ]

    def first() -> Tensor:
        return torch.cat([chain.first_image(pairs[0][0]) for chain in chains])

    shape = (n, prior.channels, height, width)
    x_t, images = begin(start, "gibbs_ddrm", draw, shape, initial, first)
    for chain, x in zip(chains, x_t.split(1), strict=True):
        chain.x_t = x
    stop = StopReason.COMPLETED
    try:
        for t, s in pairs[recorder.first_step :]:
            steps = [chain.step(t, s) for chain in chains]
            images, loss = (torch.cat(parts) for parts in zip(*steps, strict=True))
            recorder.step(images, loss)
    except Cancelled:
        stop = StopReason.CANCELLED
    k = torch.cat([chain.k for chain in chains])
    x_t = torch.cat([chain.x_t for chain in chains])
    found = blur_with(k, blur)
    memory: dict[str, Any] = {"images": images, "kernel": k, "generators": draw.get_states()}
    state = recorder.state("gibbs_ddrm", recorder.n_done, x_t, found, **memory)
    return recorder.result(
        "gibbs_ddrm", images, settings, draw.seeds, stop, operator=found, state=state, sigma=sigma
    )


class _Chain:
    """Chain of one image.

    The chain is chaotic: a difference in the last bit, such as a network makes between an image
    alone and in a batch, moves a coefficient across a threshold and grows to several grey levels.
    Chains therefore go side by side, but each is computed by itself.
    """

    x_t: Tensor

    def __init__(
        self,
        prior: Prior,
        settings: GibbsDDRM,
        blur: Blur,
        y: Tensor,
        initial: Tensor,
        sigma: Tensor,
        k: Tensor,
        draw: Draw,
    ):
        self.prior, self.settings, self.blur, self.draw = prior, settings, blur, draw
        self.observed, self.y, self.enlarged = y, to_signed(y), to_signed(initial)
        self.sigma_y = 2 * sigma.clamp(min=MIN_SIGMA).view(1, 1, 1, 1)
        self.k = k
        height, width = initial.shape[-2:]
        self.space = BlurSpectrum(k, height, width, blur.boundary, settings.threshold)
        self.weight = settings.sparsity * height * width / 256**2
        self.etas = Etas(b=settings.eta_b, c=settings.eta_c, d=settings.eta_d)

    def first_image(self, t: int) -> Tensor:
        """Draw the first, noisiest image."""
        known = self.space, self.y, self.enlarged, self.sigma_y
        return first_image(*known, sigma_at(self.prior, t), self.draw)

    def predict(self, t: int) -> Prediction:
        """Predict noise and clean image at timestep t."""
        return self.prior.predict(alpha_bar_at(self.prior.alpha_bar, t).sqrt() * self.x_t, t)

    def step(self, t: int, s: int) -> tuple[Tensor, Tensor]:
        """Go from t to s and return the current estimate and its mean squared residual, (1,)."""
        settings, n_times = self.settings, len(self.prior.alpha_bar)
        # Denoising step, and DDRM's update of the image given the kernel.
        eps, x0 = self.predict(t)
        around = x0 if t <= settings.kernel_from * n_times else self.enlarged
        self._update(x0, eps, s, around)
        for _ in range(settings.turns if settings.moves(t, s, n_times) else 0):
            # Kernel given the image: Langevin iterations.
            self._sample_kernel(self.predict(s).x0)
            # Image given the new kernel: the same update again.
            self._update(x0, eps, s, around)
        x = to_unit(self.x_t if s < 0 else x0).clamp(0, 1)
        return x, (blur_with(self.k, self.blur)(x) - self.observed).square().mean((1, 2, 3))

    def _update(self, x0: Tensor, eps: Tensor, s: int, around: Tensor) -> None:
        data = self.y, self.sigma_y, self.draw, self.etas, around
        self.x_t = advance(self.space, x0, eps, sigma_at(self.prior, s), *data)

    def _sample_kernel(self, clean: Tensor) -> None:
        settings = self.settings
        canvas = canvas_of(self.space, clean, settings.kernel_px)
        sample = langevin if settings.metric == "curvature" else langevin_as_released
        numbers = settings.langevin, settings.rate, self.weight
        self.k = sample(self.k, canvas, self.y, self.sigma_y, *numbers, self.draw)
        self.space.set_kernel(self.k, settings.threshold)


def _noise_level(observation: Observation, settings: GibbsDDRM) -> Tensor:
    if settings.sigma == "estimated":
        return estimate_noise(observation.y)
    level = known_sigma(observation, "GibbsDDRM")
    return torch.full((len(observation.y),), level, device=observation.y.device)
