"""DDRM, and GibbsDDRM with its kernel held, against what a Gaussian prior has in closed form.

Both are checked twice: against the law of their own chain, which is Gaussian and follows from two
short recursions in each coordinate (so that the implementation is right), and against the exact
posterior mean (so that it is known how far the method is right). DDRM does not sample the
posterior, not even with many steps, so that the second comparison has measured bounds, not
Monte-Carlo ones.
"""

import itertools
import math
from functools import cache

import pytest
import torch

from pristina.methods.ddrm import DDRM, ddrm
from pristina.methods.gibbs_ddrm import GibbsDDRM, bump, gibbs_ddrm
from pristina.operators.base import Observation, Operator
from pristina.operators.blur import KernelBlur
from pristina.operators.kernels import gaussian_kernel
from pristina.operators.mask import Mask
from pristina.operators.resample import Downsample
from pristina.priors.gaussian import GaussianPrior
from pristina.priors.schedule import linear_alpha_bar
from pristina.seeds import generators
from pristina.types import Draw

N, SIDE, SIGMA = 256, 8, 0.05


def spectral_variance(strength=0.15):
    """Return the variance of the Fourier modes of images whose neighbouring pixels are alike."""
    f = torch.fft.fftfreq(SIDE)
    r2 = f[:, None] ** 2 + f[None] ** 2
    shape = 1 / (r2 + 0.02)
    return strength**2 * shape / shape.mean()


def scene(operator, prior, seed=0, n=N):
    """Draw an image from the prior, and observe it n times with the same noise, in [0, 1]."""
    draw = Draw(generators(seed, 1), 1)
    x = (prior.sample(draw.normal(1, SIDE, SIDE)) + 1) / 2
    y = operator(x)
    return (y + SIGMA * draw.normal(*y.shape[1:])).expand(n, -1, -1, -1).contiguous()


def posterior_mean(operator, prior, y):
    """E[x | y] in [-1, 1] units, by dense linear algebra in double precision."""
    d = SIDE * SIDE
    basis = torch.eye(d).view(d, 1, SIDE, SIDE)
    zero = operator(torch.zeros(1, 1, SIDE, SIDE))
    A = (operator(basis) - zero).flatten(1).T.double()
    root = prior.sample(basis).flatten(1).double() - float(prior.mean)
    covariance = root.T @ root
    gain = (
        covariance
        @ A.T
        @ torch.linalg.inv(
            A @ covariance @ A.T + (2 * SIGMA) ** 2 * torch.eye(len(A), dtype=torch.double)
        )
    )
    mean = torch.full((d,), float(prior.mean), dtype=torch.double)
    seen = 2 * (y[0] - zero[0]).flatten().double() - A.sum(1)  # A x for x in [-1, 1] units
    return (mean + gain @ (seen - A @ mean)).view(1, SIDE, SIDE)


def chain_law(prior_variance, s, y_bar, steps, b, c, d):
    """Return mean and variance of the last image of a DDRM chain, coordinate by coordinate.

    The prior has mean 0, and ``y_bar`` is U^T y / s.
    """
    table = linear_alpha_bar().double()
    ts = [i * 1000 // steps for i in reversed(range(steps))]
    sigma = [math.sqrt((1 - table[t]) / table[t]) for t in ts] + [0.0]
    prior_variance, s, y_bar = (
        torch.as_tensor(v, dtype=torch.double) for v in (prior_variance, s, y_bar)
    )
    shape = torch.broadcast_shapes(prior_variance.shape, s.shape, y_bar.shape)
    noise = torch.where(s > 0, 2 * SIGMA / s, torch.inf).expand(shape)
    known = sigma[0] > noise
    mean = torch.where(known, y_bar, 0.0)
    variance = torch.where(known, sigma[0] ** 2 - noise**2, sigma[0] ** 2)
    for now, after in itertools.pairwise(sigma):
        g = prior_variance / (prior_variance + now**2)
        seen, above = noise < torch.inf, after >= noise
        unseen = g + math.sqrt(1 - d**2) * after * (1 - g) / now
        slope = torch.where(
            above, (1 - b) * g, torch.where(seen, (1 - after * c / noise) * g, unseen)
        )
        pull = torch.where(
            above,
            torch.full(shape, b, dtype=torch.double),
            torch.where(seen, after * c / noise, 0.0),
        )
        fresh = torch.where(
            above,
            after**2 - (b * noise) ** 2,
            torch.where(seen, after**2 * (1 - c**2), after**2 * d**2),
        )
        mean, variance = slope * mean + pull * y_bar, slope**2 * variance + fresh
    return mean, variance


def agree(found, mean, variance):
    """Mean and variance of N chains (N, ...) within five standard errors everywhere."""
    found = found.double()
    assert ((found.mean(0) - mean).abs() <= 5 * (variance / N).sqrt() + 1e-5).all()
    assert ((found.var(0) - variance).abs() <= 5 * variance * math.sqrt(2 / N) + 1e-8).all()


def run(method, operator, prior, y, settings):
    return (
        2
        * method(
            Observation(y, operator, known_sigma=SIGMA),
            prior,
            settings,
            generator=generators(100, len(y)),
        ).images
        - 1
    )


@pytest.mark.parametrize("steps", [5, 20])
def test_ddrm_follows_its_law_pixel_by_pixel(steps):
    prior = GaussianPrior(0.0, 0.05, channels=1)
    c, d = math.sqrt(1 - 0.85**2), 0.85
    kept = Mask(drop=0.4, seed=1)
    for operator, s in ((Operator(), torch.ones(SIDE, SIDE)), (kept, kept.mask(SIDE, SIDE)[0, 0])):
        y = scene(operator, prior)
        found = run(ddrm, operator, prior, y, DDRM(steps=steps))
        agree(found[:, 0], *chain_law(0.05, s, 2 * y[0, 0] - 1, steps, 1.0, c, d))


def test_ddrm_follows_its_law_mode_by_mode():
    variance = spectral_variance()
    prior = GaussianPrior(0.0, variance, spectral=True, channels=1)
    blur = KernelBlur(gaussian_kernel(5, 0.6), "circular")
    y = scene(blur, prior)
    found = torch.fft.fft2(run(ddrm, blur, prior, y, DDRM())[:, 0], norm="ortho")
    transfer = torch.fft.fft2(blur(torch.eye(SIDE * SIDE)[:1].view(1, 1, SIDE, SIDE)))[0, 0]
    y_bar = torch.fft.fft2(2 * y[0, 0] - 1, norm="ortho") / transfer
    assert transfer.abs().min() > 0.03
    mean, total = chain_law(
        variance, transfer.abs(), y_bar.real, 20, 1.0, math.sqrt(1 - 0.85**2), 0.85
    )
    imaginary, _ = chain_law(
        variance, transfer.abs(), y_bar.imag, 20, 1.0, math.sqrt(1 - 0.85**2), 0.85
    )
    error = (
        5 * (total / N).sqrt() + 1e-5
    )  # of the complex number; its real and imaginary part share the variance
    assert ((found.mean(0).real - mean).abs() <= error).all() and (
        (found.mean(0).imag - imaginary).abs() <= error
    ).all()
    assert (
        (found - found.mean(0)).abs().square().sum(0) / (N - 1) / total - 1
    ).abs().max() <= 5 * math.sqrt(2 / N)


def off(method, operator, settings):
    """Return the distance of the chains' mean from the posterior's, relative to the prior's."""
    prior = GaussianPrior(0.0, spectral_variance(), spectral=True, channels=1)
    y = scene(operator, prior)
    exact = posterior_mean(operator, prior, y)
    found = run(method, operator, prior, y, settings).double().mean(0)
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize(
    ("operator", "bound"),
    [
        (Operator(), 0.4),
        (KernelBlur(gaussian_kernel(5, 0.6), "reflect"), 0.3),
        (KernelBlur(gaussian_kernel(5, 0.6), "circular"), 0.3),
        (KernelBlur(gaussian_kernel(3, 0.6), "valid"), 0.45),
        (Mask(drop=0.4, seed=1), 0.5),
        (Downsample(2), 0.4),
    ],
    ids=["noise", "blur", "circular blur", "valid blur", "mask", "x2"],
)
def test_ddrm_mean_is_in_the_direction_of_the_posterior_mean(operator, bound):
    """At the default 20 steps the prior pulls too hard.

    Measured: 0.16 (circular blur) to 0.40 (mask).
    """
    if isinstance(operator, KernelBlur) and operator.boundary == "valid":
        prior = GaussianPrior(0.0, spectral_variance(), spectral=True, channels=1)
        assert scene(operator, prior).shape[-1] == SIDE - 2
    assert off(ddrm, operator, DDRM()) < bound


def test_more_steps_help_ddrm_on_noise():
    assert off(ddrm, Operator(), DDRM(steps=100)) < 0.1 < off(ddrm, Operator(), DDRM(steps=20))


def test_endless_steps_take_ddrm_past_the_posterior_mean():
    """A pixel with prior mean 0, as likely as the noise: the posterior mean is half of y."""
    means = [
        float(chain_law((2 * SIGMA) ** 2, 1.0, 1.0, n, 1.0, math.sqrt(1 - 0.85**2), 0.85)[0])
        for n in (20, 100, 1000)
    ]
    assert means[0] < 0.35 and 0.45 < means[1] < 0.5 and means[2] > 0.6


N_GIBBS = 36


@cache
def gibbs_chains(boundary):
    """Return the observation and images of chains with the kernel held, both in [-1, 1].

    GibbsDDRM computes its images one by one. With its kernel held their channels are independent,
    so that 12 colour images stand for 36 chains.
    """
    n, channels = N_GIBBS // 3, 3
    prior = GaussianPrior(0.0, spectral_variance(), spectral=True, channels=channels)
    blur = KernelBlur(bump(5), boundary)
    y = scene(blur, GaussianPrior(0.0, spectral_variance(), spectral=True, channels=1), n=n)
    settings = GibbsDDRM(steps=20, turns=0, kernel_px=5)
    found = run(gibbs_ddrm, blur, prior, y.expand(-1, channels, -1, -1).contiguous(), settings)
    return 2 * y - 1, found.flatten(0, 1).double()


@pytest.mark.parametrize("boundary", ["reflect", "circular"])
def test_gibbs_ddrm_with_its_kernel_held(boundary):
    """Its weights differ from DDRM's, and so does its bias.

    Measured: 0.31 and 0.30 at 20 steps; at 100, past the mean, 0.76 and 0.76.
    """
    prior = GaussianPrior(0.0, spectral_variance(), spectral=True, channels=1)
    y, found = gibbs_chains(boundary)
    exact = posterior_mean(KernelBlur(bump(5), boundary), prior, (y + 1) / 2)
    assert (found.mean(0) - exact).norm() / exact.norm() < 0.45


def test_gibbs_ddrm_follows_its_law():
    """Each mode sees a bias of 0.6 of its spread, the sums over all of them one of an eighth."""
    settings, variance = GibbsDDRM(), spectral_variance()
    y, found = gibbs_chains("circular")
    found = torch.fft.fft2(found, norm="ortho")
    blur = KernelBlur(bump(5), "circular")
    transfer = torch.fft.fft2(blur(torch.eye(SIDE * SIDE)[:1].view(1, 1, SIDE, SIDE)))[0, 0]
    s = torch.where(transfer.abs() < settings.threshold, 0.0, transfer.abs())
    y_bar = torch.where(s > 0, torch.fft.fft2(y[0, 0], norm="ortho") / transfer, 0.0)
    etas = settings.eta_b, settings.eta_c, settings.eta_d
    mean, total = chain_law(variance, s, y_bar.real, 20, *etas)
    mean = torch.complex(mean, chain_law(variance, s, y_bar.imag, 20, *etas)[0])
    # The mean and variance of the chains, relative to what they should be. The modes of a real
    # image come in pairs, but for four: the sums below have as many degrees of freedom as pixels.
    error = (found.mean(0) - mean).abs().square() / (total / N_GIBBS)
    spread = (found - found.mean(0)).abs().square().sum(0) / (N_GIBBS - 1) / total
    n_spread = SIDE**2 * (N_GIBBS - 1)
    assert error.sqrt().max() <= 5
    assert (spread - 1).abs().max() <= 5 * math.sqrt(2 / N_GIBBS)
    assert abs(error.mean() - 1) <= 5 * math.sqrt(2 / SIDE**2)
    assert abs(spread.mean() - 1) <= 5 * math.sqrt(2 / n_spread)
