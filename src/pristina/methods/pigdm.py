"""PiGDM: DDIM steps, guided through the network by what the observation asks of the clean image.

The operator and the noise level must be known: an upper bound for blind methods, not one of them.

Glossary:
    y: observation.
    A: operator.
    x_t: diffused image; x0: clean image that the prior predicts from it.
    sigma_y: noise of y in [-1, 1] units.
    r_t: uncertainty of x0, ``r_t^2 = sigma_t^2 / (1 + sigma_t^2)`` with sigma_t the noise of x_t
        over its signal; this is ``1 - alpha_bar_t``.
    g: ``(dx0/dx_t)^T A^T (r_t^2 A A^T + sigma_y^2)^-1 (y - A x0)``, the guidance: the gradient of
        ``log N(y; A x0, r_t^2 A A^T + sigma_y^2)`` in x_t.
    eta: share of fresh noise in a DDIM step.

Source:
    Song, Vahdat, Mardani and Kautz, "Pseudoinverse-guided diffusion models for inverse problems",
    ICLR 2023, of which we could read the abstract; and the algorithm without noise as the authors
    released it in the repository of RED-diff (``algos/pgdm.py``): a DDIM step, and
    ``x_s <- x_s + sqrt(alpha_bar_s alpha_bar_t) r_t^2 g``. Decisions and deliberate differences:

    * The inverse is found by conjugate gradients, for any linear operator: ``r_t^2 A^T (...)^-1 (y
      - A x0)`` is the step from x0 to the minimiser of
      ``||y - A x||^2 / sigma_y^2 + ||x - x0||^2 / r_t^2``.
    * The weight of g is the released one. Bayes' rule would have g added to the score, which is
      ``1 / alpha_bar_t`` times as much, less what it takes from the noise; the errors of a network
      at the noisiest steps are then multiplied by a hundred (measured on faces: 27.2 to 28.4 dB
      with it, 27.6 to 28.6 dB without).
    * The noise level has a floor of 0.001, for without noise the problem would be singular.
    * eta is 1 as in the paper's experiments; the released configuration has 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval

from pristina.errors import Cancelled
from pristina.methods.steps.chain import begin
from pristina.methods.steps.linear import MIN_SIGMA, known_and_linear, proximal
from pristina.methods.steps.recorder import RunRecorder, check_observation
from pristina.methods.steps.result import Calls, Result, State, StopReason
from pristina.operators.base import Observation
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.priors.schedule import N_TIMESTEPS, alpha_bar_at, ddim_noisy_step, step_pairs
from pristina.settings import Count, Settings, Share
from pristina.types import Draw, Generators, OnStep


@dataclass(frozen=True)
class PiGDM(Settings):
    """Settings of :func:`pigdm`.

    Attributes:
        steps: Number of network calls, 1 to 1000, each differentiated.
        eta: Share of fresh noise, in [0, 1]: 0 is deterministic, 1 is ancestral.
        cg_iterations: Largest number of conjugate gradient iterations in each step.
    """

    steps: Annotated[int, Interval(ge=1, le=N_TIMESTEPS)] = 100
    eta: Share = 1.0
    cg_iterations: Count = 50


def calls(settings: PiGDM) -> Calls:
    """Return the network calls for one image."""
    return Calls(settings.steps, settings.steps)


def pigdm(
    observation: Observation,
    prior: Prior,
    settings: PiGDM = PiGDM(),
    *,
    start: State | None = None,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Sample images that the true operator and noise could have turned into the observation.

    Args:
        observation: Degraded images, the true operator (linear), and ``known_sigma``.
        prior: Diffusion prior.
        settings: Settings, see :class:`PiGDM`.
        start: State of a cancelled run to go on from. A state without progress begins anew.
        generator: Random generators, one for each image.
        on_step: Function called after each step.

    Returns:
        Result with the images; trace ``loss``, the mean squared residual in [0, 1] units.

    Raises:
        OperatorError: There is no operator, or it is not linear.
        InputError: ``known_sigma`` is missing, or the observation does not fit the prior.
        SizeError: The prior does not accept the size.

    Source:
        See the module.

    Example:
        >>> from pristina.operators.base import Operator
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> observation = Observation(torch.full((1, 3, 8, 8), 0.6), Operator(), known_sigma=0.05)
        >>> result = pigdm(observation, GaussianPrior(variance=0.1), PiGDM(steps=10))
        >>> result.images.shape, result.cost.network_calls, result.cost.backward_calls
        (torch.Size([1, 3, 8, 8]), 10, 10)
    """
    known, sigma = known_and_linear("PiGDM", observation)
    height, width = check_observation(observation, prior)
    y = observation.y
    n = len(y)
    operator = known.for_batch(n).requires_grad_(False)
    draw = Draw(generator, n, y.device)
    variance = (2 * max(sigma, MIN_SIGMA)) ** 2  # [-1, 1] pixels double the noise.

    recorder = RunRecorder(prior, settings.steps, on_step, start)
    prior = recorder.prior
    shape = (n, prior.channels, height, width)
    x, images = begin(
        start, "pigdm", draw, shape, observation.initial(), lambda: draw.normal(*shape[1:])
    )
    stop = StopReason.COMPLETED
    try:
        for t, s in step_pairs(settings.steps, len(prior.alpha_bar))[recorder.first_step :]:
            a_t, a_s = alpha_bar_at(prior.alpha_bar, t), alpha_bar_at(prior.alpha_bar, s)
            # Clean image, and how far the data pull it: r_t^2 A^T (...)^-1 (y - A x0).
            x.requires_grad_()
            eps, x0 = prior.predict(x, t)
            with torch.no_grad():
                rho = variance / (1 - a_t)
                fitted = proximal(operator, y, to_unit(x0), rho, settings.cg_iterations)
                pull = to_signed(fitted) - x0
            # Vector-Jacobian product through the network.
            (guidance,) = torch.autograd.grad(x0, x, pull)
            recorder.backward_calls += n
            with torch.no_grad():
                x0 = x0 + a_t.sqrt() * guidance
                x = ddim_noisy_step(x0, eps, a_t, a_s, draw.normal(*shape[1:]), settings.eta)
                images = to_unit(x0).clamp(0, 1)
                loss = (operator(to_unit(x0)) - y).square().mean((1, 2, 3))
            recorder.step(images, loss)
    except Cancelled:
        stop = StopReason.CANCELLED
    state = recorder.state("pigdm", recorder.n_done, x, images=images, generators=draw.get_states())
    return recorder.result("pigdm", images, settings, draw.seeds, stop, state=state)
