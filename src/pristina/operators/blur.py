"""Blur: convolution with a kernel that is given, that has a form with unknown numbers, or that is unknown altogether."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pristina.errors import OperatorError, SettingError
from pristina.operators.base import Operator
from pristina.operators.convolve import Boundary, check_boundary, check_fits, check_kernel_size, convolve
from pristina.operators.kernels import defocus_kernel, gaussian_kernel, motion_kernel
from pristina.operators.unknown import Unknown, check_finite, numbers, own_generator, say

Parametrisation = Literal["logits", "network"]


class Blur(Operator):
    """Convolution with :meth:`kernel`; all blurs share everything but that.

    Args:
        size: Side of the kernel in pixels, odd.
        boundary: What lies beyond the border, see :data:`pristina.operators.convolve.Boundary`.
    """

    def __init__(self, size: int, boundary: Boundary = "reflect"):
        super().__init__()
        check_kernel_size(size)
        check_boundary(boundary)
        self.size, self.boundary = size, boundary

    @abstractmethod
    def kernel(self) -> Tensor:
        """The present kernel, (1 or B, 1, size, size), of sum 1."""

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.kernel(), self.boundary)

    def picture_size(self, height: int, width: int) -> tuple[int, int]:
        more = self.size - 1 if self.boundary == "valid" else 0
        return height + more, width + more

    def initial(self, y: Tensor) -> Tensor:
        if self.boundary != "valid":
            return y
        return F.pad(y, (self.size // 2,) * 4, mode="replicate")

    def check(self, y: Tensor) -> None:
        check_fits(*self.picture_size(*y.shape[-2:]), self.size, self.size, self.boundary)

    def estimates(self) -> dict[str, Any]:
        return {**self.unknowns(), "size": self.size, "boundary": self.boundary}

    def unknowns(self) -> dict[str, Any]:
        """The part of :meth:`estimates` that differs from blur to blur."""
        return {"kernel": numbers(self.kernel()[:, 0], 4)}


class GaussianBlur(Blur):
    """Isotropic Gaussian blur of unknown width.

    Args:
        sigma: First guess of the standard deviation, px.
        size: Side of the kernel; 41 holds sigma up to 6. One that cuts off most of the first guess is refused.
        boundary: What lies beyond the border.
        learnable: Whether sigma is unknown.
    """

    name = "blur"

    def __init__(self, sigma: float, size: int = 41, boundary: Boundary = "reflect", learnable: bool = True):
        super().__init__(size, boundary)
        self.sigma = Unknown("sigma", sigma, "positive", learnable=learnable)
        _check_holds(size, sigma)

    def kernel(self) -> Tensor:
        return gaussian_kernel(self.size, self.sigma())

    def unknowns(self) -> dict[str, Any]:
        return {"sigma": numbers(self.sigma())}

    def describe(self) -> str:
        return f"Gaussian blur with sigma {say(self.sigma(), 'px')}"


def _check_holds(size: int, sigma: float) -> None:
    """Raise :class:`SettingError` if so much of a Gaussian lies outside the kernel that sigma says little about the blur."""
    if size < 2.5 * sigma:
        enough = 2 * math.ceil(3 * sigma) + 1
        raise SettingError(f"A Gaussian of sigma {sigma:g} px is cut off in a kernel of {size} px; take size={enough}.")


class AnisotropicBlur(Blur):
    """Gaussian blur with two widths and a direction, all unknown.

    Args:
        sigma_x: First guess of the standard deviation along the direction, px.
        sigma_y: Across it.
        angle: The direction in degrees, from x (to the right) towards y (downwards). Nothing pulls at it where both widths are equal.
        size: Side of the kernel.
        boundary: What lies beyond the border.
        learnable: Whether the three are unknown.
    """

    name = "anisotropic"

    def __init__(
        self,
        sigma_x: float,
        sigma_y: float,
        angle: float = 0.0,
        size: int = 41,
        boundary: Boundary = "reflect",
        learnable: bool = True,
    ):
        super().__init__(size, boundary)
        self.sigma_x = Unknown("sigma_x", sigma_x, "positive", learnable=learnable)
        self.sigma_y = Unknown("sigma_y", sigma_y, "positive", learnable=learnable)
        self.angle = Unknown("angle", math.radians(angle), learnable=learnable)
        _check_holds(size, max(sigma_x, sigma_y))

    def kernel(self) -> Tensor:
        return gaussian_kernel(self.size, self.sigma_x(), self.sigma_y(), self.angle())

    def unknowns(self) -> dict[str, Any]:
        angle = torch.rad2deg(self.angle())
        return {"sigma_x": numbers(self.sigma_x()), "sigma_y": numbers(self.sigma_y()), "angle": numbers(angle)}

    def describe(self) -> str:
        along, aside = say(self.sigma_x(), "px"), say(self.sigma_y(), "px")
        return f"Gaussian blur with sigma {along} along {say(torch.rad2deg(self.angle()), 'degrees')} and {aside} across"


class Defocus(Blur):
    """A disc of unknown radius: a lens out of focus.

    Args:
        radius: First guess, px; above 0.5, for a smaller disc is a point and nothing pulls at its radius.
        size: Side of the kernel; it must hold any radius that is to be found.
        boundary: What lies beyond the border.
        learnable: Whether the radius is unknown.
    """

    name = "defocus"

    def __init__(self, radius: float, size: int = 41, boundary: Boundary = "reflect", learnable: bool = True):
        super().__init__(size, boundary)
        self.radius = Unknown("radius", radius, "positive", learnable=learnable)
        if radius <= 0.5:
            raise SettingError(f"A disc of radius {radius:g} px lies within one pixel and blurs nothing; take a radius above 0.5 px.")
        if radius > size // 2:
            raise SettingError(f"A radius of {radius:g} px does not fit into a kernel of {size} px; take size={2 * math.ceil(radius) + 1}.")

    def kernel(self) -> Tensor:
        return defocus_kernel(self.size, self.radius())

    def unknowns(self) -> dict[str, Any]:
        return {"radius": numbers(self.radius())}

    def describe(self) -> str:
        return f"defocus with a disc of radius {say(self.radius(), 'px')}"


class KernelBlur(Blur):
    """Convolution with a given kernel, which stays as it is.

    Args:
        kernel: (1 or B, 1, K, K), K odd; it is used as it comes, whatever its sum.
        boundary: What lies beyond the border.
    """

    name = "kernel"

    def __init__(self, kernel: Tensor, boundary: Boundary = "reflect"):
        if kernel.ndim != 4 or kernel.shape[1] != 1 or kernel.shape[-1] != kernel.shape[-2]:
            raise OperatorError(f"A kernel has the shape (1, 1, K, K), or (B, 1, K, K) for B pictures; not {tuple(kernel.shape)}.")
        super().__init__(kernel.shape[-1], boundary)
        self.register_buffer("given", kernel.detach().clone())

    def kernel(self) -> Tensor:
        return self.get_buffer("given")

    def describe(self) -> str:
        return f"blur with a given {self.size} x {self.size} px kernel"


class MotionBlur(KernelBlur):
    """Convolution with a motion kernel drawn from ``seed``, see :func:`pristina.operators.kernels.motion_kernel`."""

    name = "motion"

    def __init__(self, size: int = 41, intensity: float = 0.5, boundary: Boundary = "reflect", seed: int = 0):
        super().__init__(motion_kernel(size, intensity, own_generator(self.name, seed)), boundary)
        self.intensity, self.seed = intensity, seed

    def unknowns(self) -> dict[str, Any]:
        return {"intensity": self.intensity, "seed": self.seed, **super().unknowns()}

    def describe(self) -> str:
        return f"motion blur with a {self.size} x {self.size} px kernel of intensity {self.intensity:g}"


class FreeKernel(Blur):
    """Convolution with an unknown kernel: not negative, of sum 1, otherwise free.

    Args:
        size: Side of the kernel.
        parametrisation: ``logits``: the kernel is the softmax of K*K numbers. ``network``: it is the softmax of what a small network
            makes of a fixed random input, 200 -> 1000 (ReLU6) -> K*K.
        boundary: What lies beyond the border.
        sigma: The Gaussian that ``logits`` start from, px; None starts flat.
        seed: Of the network's input and weights.
        start: A kernel (1, 1, K, K) for ``logits`` to start from instead. At no place does it start from less than a ten-thousandth of its
            mean, for the softmax lets nothing grow that is almost zero.

    Attributes:
        logits: (1 or B, K*K), for ``logits``.
        u: The network's input, (1, 200), uniform on [0, 0.1), the same for all pictures.
        weight1: (1 or B, 1000, 200), and so on: the layers' ``bias1`` (1, 1000), ``weight2`` (1, K*K, 1000), ``bias2`` (1, K*K).

    Source:
        ``network`` is BIRD's released kernel network (which is SelfDeblur's); its weights start as ``torch.nn.Linear``'s do, so the first
        kernel is nearly flat. Here all its randomness comes from ``seed``, and nothing else is re-seeded.
    """

    name = "kernel"
    n_input, n_hidden = 200, 1000

    def __init__(
        self,
        size: int = 41,
        parametrisation: Parametrisation = "logits",
        boundary: Boundary = "reflect",
        sigma: float | None = None,
        seed: int = 0,
        start: Tensor | None = None,
    ):
        super().__init__(size, boundary)
        self.parametrisation = parametrisation
        if parametrisation == "logits":
            if start is not None:
                start = start.clamp_min(1e-4 / size**2)
            elif sigma is not None:
                _check_sigma(sigma)
                start = gaussian_kernel(size, sigma)
            else:
                start = torch.ones(1, 1, size, size)
            self.logits = nn.Parameter(start.flatten(1).clamp_min(1e-12).log())
        elif parametrisation == "network":
            if sigma is not None or start is not None:
                raise SettingError("The kernel network starts from its random weights; give no sigma and no start.")
            generator = own_generator(self.name, seed)
            self.register_buffer("u", 0.1 * torch.rand(1, self.n_input, generator=generator))
            self.weight1, self.bias1 = _linear(self.n_input, self.n_hidden, generator)
            self.weight2, self.bias2 = _linear(self.n_hidden, size * size, generator)
        else:
            raise SettingError(f"parametrisation must be logits or network, not {parametrisation!r}.")

    def kernel(self) -> Tensor:
        if self.parametrisation == "logits":
            logits: Tensor = self.logits
        else:
            hidden = F.relu6((self.weight1 @ self.get_buffer("u")[..., None])[..., 0] + self.bias1)
            logits = (self.weight2 @ hidden[..., None])[..., 0] + self.bias2
        return logits.softmax(1).view(-1, 1, self.size, self.size)

    def project(self) -> None:
        if self.parametrisation == "logits":
            tilt_to_centre(self.logits, self.size)

    def describe(self) -> str:
        return f"blur with an unknown {self.size} x {self.size} px kernel, {say(spread(self.kernel()), 'px')} wide (rms)"


def _linear(n_in: int, n_out: int, generator: torch.Generator) -> tuple[nn.Parameter, nn.Parameter]:
    """Weight (1, n_out, n_in) and bias (1, n_out), both uniform within 1 / sqrt(n_in)."""
    bound = 1 / math.sqrt(n_in)
    weight = bound * (2 * torch.rand(1, n_out, n_in, generator=generator) - 1)
    return nn.Parameter(weight), nn.Parameter(bound * (2 * torch.rand(1, n_out, generator=generator) - 1))


@torch.no_grad()
def tilt_to_centre(logits: Tensor, size: int, middle: float = 0.0) -> None:
    """Bring the centre of mass of softmax kernels to the middle, in place, by one Newton step; ``logits`` is (..., size * size).

    A blurred picture does not tell a shift of the kernel from the opposite shift of the picture. Of all centred kernels the nearest in
    relative entropy is the kernel tilted by an exponential, ``k exp(a . x)``, x in px, so that only ``a`` must be found. Where the mass is
    hardly spread at all the step is damped. A kernel that is farther off than half of its spread would lose its shape, and the step
    might not even converge: it is first moved by whole pixels.

    Args:
        logits: Of the kernels.
        size: Their side, px.
        middle: How far down and to the right of the middle pixel the centre belongs, px.
    """
    axis = torch.arange(size, dtype=logits.dtype, device=logits.device) - size // 2 - middle
    x = torch.stack([axis.repeat_interleave(size), axis.repeat(size)], 1)  # (K * K, 2)
    mean, step = _newton(logits, x)
    far = (mean * step).sum(-1, keepdim=True) > 0.25  # squared, the offset in units of the spread
    if far.any():
        down, across = (mean.round() * far).long()[..., None].unbind(-2)
        place = torch.arange(size * size, device=logits.device)
        logits.copy_(logits.gather(-1, (place // size + down) % size * size + (place + across) % size))
        step = _newton(logits, x)[1]
    logits -= step @ x.T


def _newton(logits: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The centres of mass of softmax kernels over the places ``x`` (K * K, 2), and the tilts that would bring them to 0, both (..., 2)."""
    weight = logits.softmax(-1)
    mean = weight @ x
    covariance = (weight[..., None, None] * x[:, :, None] * x[:, None, :]).sum(-3) - mean[..., None] * mean[..., None, :]
    damped = covariance + 0.1 * torch.eye(2, dtype=x.dtype, device=x.device)
    return mean, torch.linalg.solve(damped, mean)


def spread(kernel: Tensor) -> Tensor:
    """Root-mean-square distance from the centre of mass, per axis, of each kernel (B, 1, K, K), in px."""
    weight = kernel.detach() / kernel.detach().sum((-2, -1), keepdim=True)
    axis = torch.arange(kernel.shape[-1], dtype=kernel.dtype, device=kernel.device)
    variance = torch.zeros(len(kernel), dtype=kernel.dtype, device=kernel.device)
    for profile in (weight.sum((1, 2)), weight.sum((1, 3))):
        mean = (profile * axis).sum(1, keepdim=True)
        variance = variance + (profile * (axis - mean).square()).sum(1) / 2
    return variance.clamp_min(0).sqrt()


class VaryingBlur(Blur):
    """Blur that changes over the picture: kernels on a grid of places, blended in between.

    ``y = sum_n w_n (k_n * x)``: the weight maps ``w_n`` are bilinear between the places, which are spread evenly from border to border.

    Args:
        kernels: First guess, (rows, columns, K, K), not negative, each of sum 1.
        boundary: What lies beyond the border; ``valid`` is not offered.
        learnable: Whether they are unknown.
    """

    name = "varying"

    def __init__(self, kernels: Tensor, boundary: Boundary = "reflect", learnable: bool = True):
        if kernels.ndim != 4 or kernels.shape[-1] != kernels.shape[-2]:
            raise OperatorError(f"The kernels have the shape (rows, columns, K, K), not {tuple(kernels.shape)}.")
        super().__init__(kernels.shape[-1], boundary)
        if boundary == "valid":
            raise SettingError("A varying blur has no valid border; take reflect, zero or circular.")
        self.rows, self.columns = kernels.shape[:2]
        logits = kernels.detach().reshape(1, self.rows * self.columns, -1).clamp_min(1e-12).log()
        self.logits = nn.Parameter(logits, requires_grad=learnable)

    @classmethod
    def drawn(
        cls, size: int = 21, rows: int = 2, columns: int = 2, intensity: float = 0.5, boundary: Boundary = "reflect", seed: int = 0
    ) -> VaryingBlur:
        """One with a different motion kernel in each place."""
        _check_grid(rows, columns)
        generator = own_generator(cls.name, seed)
        drawn = [motion_kernel(size, intensity, generator)[0, 0] for _ in range(rows * columns)]
        return cls(torch.stack(drawn).view(rows, columns, size, size), boundary)

    @classmethod
    def free(cls, size: int = 21, rows: int = 2, columns: int = 2, boundary: Boundary = "reflect", sigma: float = 2.0) -> VaryingBlur:
        """One whose kernels are unknown and start as Gaussians of ``sigma`` px."""
        _check_grid(rows, columns)
        _check_sigma(sigma)
        return cls(gaussian_kernel(size, sigma).expand(rows, columns, size, size), boundary)

    def kernels(self) -> Tensor:
        """The present kernels, (1 or B, rows * columns, K, K)."""
        return self.logits.softmax(2).unflatten(2, (self.size, self.size))

    def kernel(self) -> Tensor:
        """Their mean."""
        return self.kernels().mean(1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        down, across = _weights(x.shape[-2], self.rows, x), _weights(x.shape[-1], self.columns, x)
        y = torch.zeros_like(x)
        for i, k in enumerate(self.kernels().split(1, 1)):
            weight = down[i // self.columns][:, None] * across[i % self.columns]
            y = y + weight * convolve(x, k, self.boundary)
        return y

    def project(self) -> None:
        if self.logits.requires_grad:
            tilt_to_centre(self.logits, self.size)

    def unknowns(self) -> dict[str, Any]:
        return {"rows": self.rows, "columns": self.columns, "kernels": numbers(self.kernels(), 4)}

    def describe(self) -> str:
        return f"blur that varies over the picture, {self.rows} x {self.columns} kernels of {self.size} x {self.size} px"


def _check_sigma(sigma: float) -> None:
    check_finite(sigma=sigma)
    if sigma <= 0:
        raise SettingError(f"sigma must be positive, not {sigma}.")


def _check_grid(rows: int, columns: int) -> None:
    if rows < 1 or columns < 1:
        raise SettingError(f"rows and columns must be at least 1, not {rows} and {columns}.")


def _weights(length: int, n: int, like: Tensor) -> Tensor:
    """``n`` overlapping triangles over ``length`` pixels that sum to 1 everywhere, (n, length)."""
    places = torch.linspace(0, n - 1, length, dtype=like.dtype, device=like.device)
    return (1 - (places - torch.arange(n, dtype=like.dtype, device=like.device)[:, None]).abs()).clamp_min(0)
