"""BIRD against closed forms, and against an independent reading of its released algorithm."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pristina.methods.bird import AS_RELEASED, BIRD, bird
from pristina.operators.base import Observation
from pristina.operators.blur import FreeKernel, GaussianBlur
from pristina.priors.gaussian import GaussianMixturePrior, GaussianPrior
from pristina.priors.generate import generate
from pristina.priors.unet import UNetPrior
from pristina.seeds import generators


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def mixture() -> GaussianMixturePrior:
    return GaussianMixturePrior(0.5 * torch.sign(normal(3, 1, 4, 4, seed=1)), 0.05)


def gradient_of_sum(prior, z, gradient, steps=10):
    z = z.clone().requires_grad_()
    x = 2 * generate(prior, z, steps, gradient=gradient) - 1  # [-1, 1]
    return x.detach(), torch.autograd.grad(x.sum(), z)[0]


@pytest.mark.parametrize(
    "prior", [GaussianPrior(0.0, 0.01, channels=1), GaussianPrior(0.2, 0.04, channels=1), mixture()]
)
def test_detached_gradient_is_60_83_for_every_pixel_that_is_never_clipped(prior):
    x, g = gradient_of_sum(prior, 0.5 * normal(2, 1, 4, 4), "detached")
    assert (
        x.abs().max() < 0.99
    )  # nothing clipped at the end, and with these narrow priors nothing before
    assert torch.allclose(g, torch.full_like(g, 60.83), atol=0.01)


def test_detached_gradient_of_a_pixel_clipped_at_the_end_is_zero():
    x, g = gradient_of_sum(GaussianPrior(4.0, 0.01, channels=1), normal(1, 1, 4, 4), "detached")
    assert (x == 1).all() and (g == 0).all()


def test_full_gradient_is_the_closed_form_gain():
    _, g = gradient_of_sum(GaussianPrior(0.0, 0.01, channels=1), normal(1, 1, 4, 4), "full")
    assert torch.allclose(g, torch.full_like(g, 0.0368), atol=5e-5)


def test_full_gradient_of_a_mixture_is_the_difference_quotient_and_checkpointing_changes_nothing():
    prior, z = mixture().double(), normal(1, 1, 4, 4).double()
    _, full = gradient_of_sum(prior, z, "full")
    _, checkpointed = gradient_of_sum(prior, z, "checkpointed")
    assert torch.equal(full, checkpointed)

    def total(z):
        return float((2 * generate(prior, z) - 1).sum())

    for i in range(4):
        h = torch.zeros_like(z)
        h[0, 0, i, i] = 1e-4
        assert (total(z + h) - total(z - h)) / 2e-4 == pytest.approx(
            float(full[0, 0, i, i]), rel=2e-3, abs=1e-6
        )


def test_the_width_of_a_gaussian_blur_is_found():
    """Images are drawn from a 1/f prior; the first guess is off by a factor of two."""
    side = 32
    f = (torch.fft.fftfreq(side)[:, None].square() + torch.fft.fftfreq(side)[None].square()).sqrt()
    prior = GaussianPrior(0.0, 0.004 / f.clamp(min=1 / side).square(), spectral=True)
    x = (prior.sample(normal(2, 3, side, side, seed=5)) + 1) / 2
    for true, guess in ((1.0, 2.0), (2.0, 1.0)):
        y = GaussianBlur(true, size=13, boundary="circular")(x).detach() + 0.005 * normal(
            2, 3, side, side, seed=6
        )
        observation = Observation(y, GaussianBlur(guess, size=13, boundary="circular"))
        found = bird(
            observation, prior, BIRD(iterations=120, learning_rate=0.1, sampler_steps=5)
        ).operator.estimates()["sigma"]
        assert found == pytest.approx([true] * 2, rel=0.1)


class Network(nn.Module):
    """Some eps-predicting network with random weights."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(4, 16, 3, padding=1), nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x, t):
        time = (t / 1000).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
        return x + self.last(F.silu(self.first(torch.cat([x, time], 1))))


def released_algorithm(network, y, z, u, layers, iterations, lr_z, lr_kernel, dt):
    """Deblur one image in [-1, 1] as released, written from a description of the code.

    Returns the noise, the saved image and the kernel.
    """
    abar = torch.cumprod(1 - torch.linspace(1e-4, 2e-2, 1000), 0)
    kernel_network = nn.Sequential(*layers)
    z = nn.Parameter(z.clone())
    adam = torch.optim.Adam(
        [{"params": [z], "lr": lr_z}, {"params": kernel_network.parameters(), "lr": lr_kernel}]
    )
    saved = None
    for iteration in range(iterations):
        x = z
        for t in range(1000 - dt, -1, -dt):
            with torch.no_grad():
                e = network(x, torch.tensor([float(t)]))
            x0 = ((x - (1 - abar[t]).sqrt() * e) / abar[t].sqrt()).clamp(-1, 1)
            e = (x - abar[t].sqrt() * x0) / (1 - abar[t]).sqrt()
            x = abar[t - dt].sqrt() * x0 + (1 - abar[t - dt]).sqrt() * e if t > 0 else x0
        if iteration % 10 == 0:
            saved = x.detach()
        k = torch.softmax(kernel_network(u), -1)
        side = math.isqrt(k.numel())
        y_hat = F.conv2d(x.transpose(0, 1), k.view(1, 1, side, side), padding=side // 2).transpose(
            0, 1
        )
        loss = F.mse_loss(y_hat, y)
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            z.mul_(math.sqrt(z.numel()) / (z.square().sum() + 1e-9).sqrt())
    return z.detach(), saved, torch.softmax(kernel_network(u), -1).detach().view(side, side)


def test_as_released_is_the_released_algorithm_number_for_number():
    torch.manual_seed(3)
    network, side, size = Network(), 24, 41
    prior = UNetPrior(network, prediction="eps", domain="nothing")
    y = (0.6 + 0.3 * normal(1, 3, side, side, seed=4)).clamp(0, 1)
    operator = FreeKernel(size, "network", "zero")

    # The released kernel correlates, ours convolves: one is the other turned by 180 degrees.
    layers = nn.Linear(200, 1000), nn.ReLU6(), nn.Linear(1000, size * size)
    layers[0].weight.data, layers[0].bias.data = (
        operator.weight1[0].data.clone(),
        operator.bias1[0].data.clone(),
    )
    layers[2].weight.data, layers[2].bias.data = (
        operator.weight2[0].data.flip(0).clone(),
        operator.bias2[0].data.flip(0).clone(),
    )
    z0 = torch.randn(3, side, side, generator=torch.Generator().manual_seed(11))[None]

    z, saved, k = released_algorithm(
        network, 2 * y - 1, z0, operator.u[0].clone(), layers, 10, 0.003, 0.0002, 100
    )
    settings = BIRD(**{**vars(AS_RELEASED), "iterations": 10})
    ours = bird(Observation(y, operator), prior, settings, generator=generators(11, 1))

    assert (z - z0).abs().mean() > 0.01  # it has moved
    assert torch.allclose(ours.extras["z"], z, atol=2e-5, rtol=1e-4)
    assert torch.allclose(ours.images, (saved + 1) / 2, atol=1e-5)
    assert torch.allclose(ours.operator.kernel()[0, 0].flip(0, 1), k, rtol=1e-4)
    assert not torch.allclose(k.flip(0, 1), operator.kernel()[0, 0], rtol=1e-2)  # it has moved, too
    assert ours.cost.network_calls == 100


def test_as_released_has_the_released_figures():
    assert (
        AS_RELEASED.iterations,
        AS_RELEASED.learning_rate,
        AS_RELEASED.operator_learning_rate,
    ) == (100, 0.003, 0.0002)
    assert (AS_RELEASED.sampler_steps, AS_RELEASED.gradient, AS_RELEASED.sphere) == (
        10,
        "detached",
        True,
    )
