"""InDI and the conditional DDPM against closed forms.

The two plane problems: x is one of the four points (+-1, +-1), equally likely, and E[x | x_t] is
known exactly. A point p is represented as an image of 1 x 2 pixels, ``(p + 4) / 8``; InDI's updates
commute with that.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from pristina.methods.conditional_ddpm import ConditionalDDPM, chain, conditional_ddpm
from pristina.methods.indi import InDI, indi
from pristina.operators.base import Observation
from pristina.priors.direct import ConditionalPrior, DirectPrior
from pristina.seeds import generators


def to_picture(points):
    return (torch.as_tensor(np.asarray(points), dtype=torch.float32).view(-1, 1, 1, 2) + 4) / 8


def to_points(pictures):
    return (8 * pictures - 4).view(-1, 2).double().numpy()


class FourPoints(DirectPrior):
    """E[x | x_t] of the plane problems, and the places it was asked at."""

    def __init__(self, second_erased):
        super().__init__(domain="four points", channels=1)
        self.second_erased, self.path, self.times = second_erased, [], []

    def regress(self, x_t, t):
        self.path.append(to_points(x_t))
        self.times.append(float(t[0]))
        return to_picture(closed_form(to_points(x_t), float(t[0]), self.second_erased))


def closed_form(p, t, second_erased):
    if not second_erased:  # (a) y = x + N(0, 1.5^2)
        return np.tanh(p / (1.5 * t) ** 2)
    # (b) y = (x_1, 0) + N(0, 0.25^2), so that x_t = (x_1, (1 - t) x_2) + 0.25 t n
    return np.tanh(p * np.array([1.0, 1.0 - t]) / (0.25 * t) ** 2)


def simulate(p, times, second_erased):
    """The residual flow by Euler steps, in double precision: dx/dt = (x - F) / t."""
    path = [p]
    for t, s in pairwise(times):
        p = p - (t - s) * (p - closed_form(p, t, second_erased)) / t
        path.append(p)
    return path


def circle():
    angle = 2 * np.pi * np.arange(20) / 20 + 0.1
    return 2.5 * np.stack([np.cos(angle), np.sin(angle)], 1)


@pytest.mark.parametrize("second_erased", [False, True])
@pytest.mark.parametrize("grid", ["uniform", "geometric", (1.0, 0.9, 0.2, 0.0)])
def test_trajectories(second_erased, grid):
    points = (
        np.array([[x, y] for x in (-1.1, 0.02, 0.9) for y in (-0.2, 0.2)])
        if second_erased
        else circle()
    )
    settings = InDI(steps=12, grid=grid)
    prior = FourPoints(second_erased)
    result = indi(Observation(to_picture(points)), prior, settings)
    path = simulate(points, [float(t) for t in settings.times], second_erased)
    assert len(prior.path) == len(path) - 1
    for found, expected in zip([*prior.path, to_points(result.images)], path, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_published_figures():
    prior = FourPoints(False)
    np.testing.assert_allclose(
        to_points(prior.predict(to_picture([[2.47, 0.25], [1.87, 1.66]]), 1)),
        [[0.80, 0.11], [0.68, 0.63]],
        atol=6e-3,
    )

    prior = FourPoints(False)
    indi(Observation(to_picture([[-0.26, 2.49]])), prior, InDI(steps=5, grid="geometric"))
    np.testing.assert_allclose(
        np.concatenate(prior.path[1:]),
        [[-0.22, 2.07], [-0.21, 1.78], [-0.23, 1.58], [-0.30, 1.44]],
        atol=6e-3,
    )

    prior = FourPoints(True)
    indi(Observation(to_picture([[1.0, 0.2]])), prior, InDI(steps=8, grid="geometric"))
    np.testing.assert_allclose(
        [p[0, 1] for p in prior.path],
        [0.2, 0.15, 0.31, 0.482, 0.612, 0.709, 0.782, 0.836],
        atol=1e-3,
    )


def test_more_steps_lead_to_the_modes():
    def farthest(steps):
        found = to_points(
            indi(Observation(to_picture(circle())), FourPoints(False), InDI(steps=steps)).images
        )
        assert (np.sign(found) == np.sign(circle())).all()
        return np.linalg.norm(found - np.sign(circle()), axis=1).max()

    assert farthest(1) == pytest.approx(0.911, abs=1e-3)
    assert farthest(2) == pytest.approx(0.690, abs=1e-3)
    assert farthest(5) == pytest.approx(4e-4, abs=1e-4)
    assert farthest(10) < 1e-4


def test_one_step_is_regression():
    prior, y = FourPoints(True), to_picture([[0.02, 0.2], [-1.1, -0.2]])
    for update in ("indi", "cold_naive", "cold_improved"):
        assert torch.allclose(
            indi(Observation(y), prior, InDI(steps=1, update=update)).images,
            prior.predict(y, 1),
            atol=1e-6,
        )


class Exact(DirectPrior):
    """It knows the clean picture."""

    def __init__(self, x):
        super().__init__(domain="one picture", channels=x.shape[1])
        self.x, self.path = x, {}

    def regress(self, x_t, t):
        self.path[round(float(t[0]), 6)] = x_t.clone()
        return self.x.expand_as(x_t)


@pytest.mark.parametrize("strength", [1.0, 0.4])
@pytest.mark.parametrize("grid", ["uniform", "geometric"])
@pytest.mark.parametrize("update", ["indi", "cold_naive", "cold_improved"])
def test_all_updates_agree_when_the_regressor_is_exact(update, grid, strength):
    """The path leads from the observation, at time ``strength``, straight to the clean image."""
    x, y = torch.rand(2, 1, 3, 5, 6, generator=torch.Generator().manual_seed(0)).mean(2)[
        ..., None, :, :
    ]
    prior = Exact(x)
    settings = InDI(steps=6, grid=grid, update=update, strength=strength)
    result = indi(Observation(y), prior, settings)
    assert torch.allclose(result.images, x, atol=1e-6)
    assert len(prior.path) == 6 and max(prior.path) == strength
    for t, x_t in prior.path.items():
        assert torch.allclose(x_t, (1 - t / strength) * x + t / strength * y, atol=1e-6)


def test_updates_differ_when_it_is_not():
    y = to_picture(circle())
    found = [
        indi(Observation(y), FourPoints(False), InDI(steps=3, update=u)).images
        for u in ("indi", "cold_naive", "cold_improved")
    ]
    assert (found[0] - found[1]).abs().max() > 1e-3 and (found[0] - found[2]).abs().max() > 1e-3


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize(("noise", "power"), [("constant", 1.0), ("brownian", 0.5)])
def test_noise_has_the_deviation_of_its_law_at_every_time(noise, power, strength):
    x, y = torch.full((1, 1, 96, 96), 0.3), torch.full((1, 1, 96, 96), 0.6)
    prior = Exact(x)
    settings = InDI(steps=8, noise=noise, eps=0.02, strength=strength)
    result = indi(Observation(y), prior, settings, generator=generators(1, 1))
    assert len(prior.path) == 8
    for t, x_t in prior.path.items():
        residual = x_t - (0.3 + 0.3 * t / strength)
        assert float(residual.std()) == pytest.approx(0.02 * t**power, rel=0.04)
        assert abs(float(residual.mean())) < 1e-3
    assert torch.equal(result.images, x)


@pytest.mark.parametrize("update", ["indi", "cold_naive", "cold_improved"])
def test_constant_noise_is_drawn_once(update):
    """It belongs to the image at time 1, also in the updates of Cold Diffusion."""
    prior = Exact(torch.full((1, 1, 8, 8), 0.3))
    settings = InDI(steps=4, noise="constant", eps=0.02, update=update)
    y = torch.full((1, 1, 8, 8), 0.6)
    indi(Observation(y), prior, settings, generator=generators(1, 1))
    n = torch.randn(1, 8, 8, generator=generators(1, 1)[0])
    for t, x_t in prior.path.items():
        assert torch.allclose(x_t, 0.3 + 0.3 * t + 0.02 * t * n, atol=1e-6)


def test_white_noise_is_the_probability_flow():
    """x ~ N(m, v), y = x + sigma n: the flow ends at ``m + (y - m) sqrt(v / (v + sigma^2))``."""
    mean, v, sigma = 0.5, 0.02, 0.2

    class Gaussian(DirectPrior):
        def regress(self, x_t, t):
            return mean + v / (v + (float(t[0]) * sigma) ** 2) * (x_t - mean)

    y = torch.linspace(0.2, 0.8, 24).view(1, 1, 4, 6)
    exact = mean + (y - mean) * (v / (v + sigma**2)) ** 0.5
    errors = [
        float(
            (indi(Observation(y), Gaussian(domain="", channels=1), InDI(steps=n)).images - exact)
            .abs()
            .max()
        )
        for n in (1, 10, 100, 800)
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 2e-4


class Wavy(ConditionalPrior):
    """Any smooth function of all it is given."""

    def predict_x0(self, x_t, t, alpha_bar, condition):
        return torch.sin(3 * condition) + 0.3 * torch.cos(x_t + t.view(-1, 1, 1, 1) / 300)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_conditional_sampling_matches_diffusers(eta):
    steps = 10
    y = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(5))
    prior = Wavy(domain="")
    found = conditional_ddpm(
        Observation(y), prior, ConditionalDDPM(steps, eta), generator=generators(2, 1)
    ).images

    scheduler = DDIMScheduler(
        1000,
        1e-4,
        0.02,
        "linear",
        timestep_spacing="trailing",
        clip_sample=True,
        set_alpha_to_one=True,
    )
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == [t for t, _ in chain(steps)]
    random = generators(2, 1)[0]
    x = torch.randn(3, 6, 6, generator=random)[None]
    for t in scheduler.timesteps.tolist():
        eps = prior.predict(x, t, 2 * y - 1).eps
        noise = (
            torch.randn(3, 6, 6, generator=random)[None]
            if eta and t >= 1000 // steps
            else torch.zeros_like(x)
        )
        x = scheduler.step(
            eps, t, x, eta=eta, use_clipped_model_output=True, variance_noise=noise
        ).prev_sample
    assert torch.allclose(found, ((x + 1) / 2).clamp(0, 1), atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_conditional_sampling_gives_the_posterior(eta):
    """In [-1, 1] units p(x0 | c) = N(c / 2, 0.1^2).

    Ancestral steps of the small variance leave the spread some 7 % low at 500 steps, where
    chance adds 0.7 %.
    """

    class Gaussian(ConditionalPrior):
        def predict_x0(self, x_t, t, alpha_bar, condition):
            spread = alpha_bar * 0.1**2 + 1 - alpha_bar
            return condition / 2 + alpha_bar.sqrt() * 0.1**2 / spread * (
                x_t - alpha_bar.sqrt() * condition / 2
            )

    y = torch.full((1, 1, 96, 96), 0.8)
    x = (
        2
        * conditional_ddpm(
            Observation(y), Gaussian(domain="", channels=1), ConditionalDDPM(500, eta)
        ).images
        - 1
    )
    assert float(x.mean()) == pytest.approx(0.3, abs=0.01)
    assert float(x.std()) == pytest.approx(0.1, rel=0.1)
