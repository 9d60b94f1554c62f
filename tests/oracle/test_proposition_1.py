"""Proposition 1 of Invert2Restore, on a Gaussian prior, where all of it is known in closed form.

Let B bound the Jacobian determinant of G, and p_x(y) < tau. Then the noise z with G(z) = y has
p_z(z) < tau B, because p_z(z) = p_x(G(z)) |det J_G(z)|.
"""

import math
from functools import cache

import pytest
import torch
from torch import Tensor

import pristina
from pristina.methods.steps.rectify import TESTS, p_values
from pristina.priors.gaussian import GaussianPrior
from pristina.priors.schedule import alpha_bar_at, step_pairs

SIDE, CHANNELS = 8, 3
N_VALUES = CHANNELS * SIDE**2
EXACT = 500  # steps with which the sampler's images have the prior's own density, nearly


def smooth_prior() -> GaussianPrior:
    """Return a prior whose images have a 1/f spectrum."""
    f = torch.fft.fftfreq(SIDE)
    f = (f[:, None].square() + f.square()).sqrt().clamp(min=1 / SIDE)
    return GaussianPrior(0.0, 0.004 / f.square(), spectral=True)


def log_gains(prior: GaussianPrior, steps: int) -> Tensor:
    """Return the logarithm of G's gain for each Fourier mode of [-1, 1] images: a formula."""
    total = torch.zeros_like(prior.variance)
    for t, s in step_pairs(steps, len(prior.alpha_bar)):
        a_t, a_s = (float(alpha_bar_at(prior.alpha_bar, k)) for k in (t, s))
        v = prior.variance
        through = math.sqrt(a_s * a_t) * v + math.sqrt((1 - a_s) * (1 - a_t))
        total += (through / (a_t * v + 1 - a_t)).log()
    return total


def log_normal(x: Tensor, variance: Tensor | float = 1.0) -> Tensor:
    """Return the log density of images whose Fourier modes are normal with these variances."""
    variance = torch.as_tensor(variance).expand(x.shape[1:])
    power = torch.fft.fft2(x, norm="ortho").abs().square() / variance
    return -0.5 * (power + (2 * math.pi * variance).log()).sum((1, 2, 3))


def images(prior: GaussianPrior) -> dict[str, Tensor]:
    """Return clean images and three degradations of them, (16, 3, 8, 8), in [-1, 1]."""
    draw = torch.Generator().manual_seed(0)
    clean = prior.sample(torch.randn(16, CHANNELS, SIDE, SIDE, generator=draw))
    mean = (clean + clean.roll(1, -1) + clean.roll(1, -2) + clean.roll((1, 1), (-1, -2))) / 4
    noisy = clean + 0.3 * torch.randn(clean.shape, generator=draw)
    return {"clean": clean, "noisy": noisy, "dotted": dotted(clean), "blurred": mean}


def dotted(x: Tensor) -> Tensor:
    """Return images with white dots."""
    x = x.clone()
    x[..., ::4, 1::4] = 1
    return x


@cache
def all_inverted() -> dict[str, Tensor]:
    """Return the noise of all kinds of images under G, found in one batch."""
    prior = smooth_prior()
    kinds = images(prior)
    x = (torch.cat([*kinds.values()]) + 1) / 2
    return dict(zip(kinds, pristina.invert(prior, x, EXACT, refine=2).split(16), strict=True))


def inverted(name: str) -> Tensor:
    """Return the noise of one kind of images under G."""
    return all_inverted()[name]


@pytest.mark.parametrize("steps", [3, 10])
def test_the_determinant_of_g_is_the_product_of_its_gains(steps):
    prior = GaussianPrior(0.0, smooth_prior().variance[:4, :4], spectral=True, channels=1)
    prior.variance = (prior.variance + prior.variance.flip(0, 1).roll((1, 1), (0, 1))) / 2

    def g(z: Tensor) -> Tensor:
        made = pristina.generate(prior, z.view(1, 1, 4, 4), steps, gradient="full", clip=False)
        return (2 * made - 1).flatten()

    jacobian = torch.autograd.functional.jacobian(g, torch.randn(16))
    measured = torch.linalg.slogdet(jacobian.double()).logabsdet
    assert float(measured) == pytest.approx(float(log_gains(prior, steps).sum()), abs=1e-3)


def test_noise_of_degraded_images_has_the_density_that_the_proposition_says():
    prior = smooth_prior()
    log_b = CHANNELS * float(log_gains(prior, EXACT).sum())
    for name, x in images(prior).items():
        log_px, log_pz = log_normal(x, prior.variance), log_normal(inverted(name))
        # The equality behind the proposition, as far as the sampler is exact.
        slack = 0.03 * log_pz.abs()
        assert ((log_pz - log_px - log_b).abs() < slack).all(), name
        # The proposition itself: tau bounds the density of each image.
        assert (log_pz < log_px + slack + log_b).all(), name


def test_what_adds_to_an_image_lowers_its_density_and_what_takes_away_does_not():
    """Blur is no case of the proposition, so that low density cannot be what betrays it."""
    log_pz = {name: log_normal(inverted(name)).mean() for name in images(smooth_prior())}
    assert log_pz["noisy"] < log_pz["clean"] - 20
    assert log_pz["dotted"] < log_pz["clean"] - 20
    assert log_pz["blurred"] > log_pz["clean"] + 20


def test_the_tests_of_typicality_see_both():
    energy = TESTS.index("second moment")
    p = {name: p_values(inverted(name)).amin(1) for name in images(smooth_prior())}
    assert (p["clean"] > 0.001).all()
    for name in ("noisy", "dotted", "blurred"):
        assert (p[name] < 1e-6).all(), name
    too_little = inverted("blurred")
    assert (p_values(too_little)[:, energy] < 1e-6).all()
    assert (too_little.square().mean((1, 2, 3)) < 0.7).all()
