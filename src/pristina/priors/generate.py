"""G: the deterministic map from noise to picture, its gradient, and its inverse.

Source:
    The few-step DDIM sampler of BIRD (Chihaoui et al., NeurIPS 2024), as in its released code: timesteps n - dt, ..., dt, 0; the clean
    picture clipped at every step and the noise derived again from it; the last step returns the clean picture itself.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pristina.errors import SettingError
from pristina.priors.base import Prior, to_signed, to_unit
from pristina.priors.schedule import alpha_bar_at, ddim_step, eps_from_x0, step_pairs, x0_from_eps
from pristina.types import Pictures

Gradient = Literal["detached", "checkpointed", "full"]
"""How G is differentiated.

``detached``: the network's noise is a constant, so that only the sampler's arithmetic is differentiated; this is what BIRD's released
code does, and costs nothing. ``full``: true back-propagation through every network call. ``checkpointed``: the same numbers in the
memory of one call, computing each twice.
"""


def check_gradient(gradient: str) -> None:
    """Raise :class:`SettingError` unless ``gradient`` is one of :data:`Gradient`."""
    if gradient not in get_args(Gradient):
        raise SettingError(f"gradient must be one of {', '.join(get_args(Gradient))}; not {gradient!r}.")


def generate(prior: Prior, z: Pictures, steps: int = 10, *, gradient: Gradient = "detached", clip: bool = True) -> Pictures:
    """The pictures that noise ``z`` stands for.

    Args:
        prior: The diffusion prior.
        z: Noise, (B, C, H, W), standard normal.
        steps: Network calls for each picture.
        gradient: What flows back to ``z``, see :data:`Gradient`.
        clip: Clip the clean picture to [-1, 1] at every step (the last one always is, when ``clip``).

    Returns:
        Pictures, (B, C, H, W), in [0, 1] (if ``clip``).

    Raises:
        SizeError: The prior does not accept the size of ``z``.

    Example:
        >>> import torch
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> prior = GaussianPrior(mean=0.0, variance=0.25)
        >>> x = generate(prior, torch.ones(1, 3, 8, 8), clip=False)
        >>> round(float(2 * x[0, 0, 0, 0] - 1), 4)
        0.3741
    """
    check_gradient(gradient)
    x = z
    for t, s in step_pairs(steps, len(prior.alpha_bar)):
        a_t, a_s = alpha_bar_at(prior.alpha_bar, t), alpha_bar_at(prior.alpha_bar, s)
        if gradient == "detached":
            with torch.no_grad():
                eps = prior.predict(x, t).eps
            x0 = x0_from_eps(x, eps, a_t)
        elif gradient == "checkpointed" and x.requires_grad:
            x0 = checkpoint(lambda x, t=t: prior.predict(x, t).x0, x, use_reentrant=False)
        else:
            x0 = prior.predict(x, t).x0
        if clip:
            x0 = x0.clamp(-1, 1)
        x = x0 if s < 0 else ddim_step(x0, eps_from_x0(x, x0, a_t), a_s)
    return to_unit(x)


@torch.no_grad()
def invert(prior: Prior, x: Pictures, steps: int = 10, *, refine: int = 20, tolerance: float = 1e-4) -> Pictures:
    """The noise ``z`` with ``generate(prior, z, steps, clip=False) = x``: the sampler run backwards.

    Going from s to t, the noise must be evaluated at the unknown end ``x_t``. The plain inverse evaluates it at ``x_s`` instead and is off
    by a quarter at ten steps; here ``x_t`` is refined by fixed-point iteration whose steps are stretched by a factor taken from the last two
    moves: at first that is Anderson acceleration of depth one; later the earlier of the two moves has been stretched itself.

    Args:
        prior: The diffusion prior.
        x: Pictures, (B, C, H, W), in [0, 1].
        steps: Network calls of the map to invert.
        refine: Network calls a step at most; 1 is the plain inverse.
        tolerance: Refinement of a step ends when ``x_t`` moves by less than this (relative, in every picture, so that a picture is refined
            on while a neighbour is, and may differ by about the tolerance from what it would be alone; 0 refines all the way).

    Returns:
        Noise, (B, C, H, W). It is standard normal only if ``x`` is a typical picture of the prior.

    Source:
        Plain inversion: Song et al. 2021, section 4.3. Fixed point: Pan et al. 2023 ("AIDI"). The acceleration and the tolerance are ours.
    """
    if refine < 1:
        raise SettingError(f"refine must be at least 1, not {refine}.")
    x_s = to_signed(x)
    for t, s in reversed(step_pairs(steps, len(prior.alpha_bar))):
        a_t, a_s = alpha_bar_at(prior.alpha_bar, t), alpha_bar_at(prior.alpha_bar, s)

        def end(guess: Tensor, x_s: Tensor = x_s, t: int = t, a_t: Tensor = a_t, a_s: Tensor = a_s) -> Tensor:
            eps = prior.predict(guess, t).eps
            return ddim_step(x0_from_eps(x_s, eps, a_s), eps, a_t)

        guess, found = x_s, end(x_s)
        for _ in range(refine - 1):
            again = end(found)
            move, last = again - found, found - guess
            size = found.flatten(1).norm(dim=1)
            if bool((move.flatten(1).norm(dim=1) <= tolerance * size).all()):
                found = again
                break
            change = move - last
            flat = change.flatten(1)
            theta = (flat * move.flatten(1)).sum(1) / flat.square().sum(1).clamp(min=1e-20)
            guess, found = found, again - theta.clamp(-20, 20).view(-1, 1, 1, 1) * (again - found)
        x_s = found
    return x_s
