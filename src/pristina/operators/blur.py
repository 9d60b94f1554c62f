"""Blurs: convolutions with a kernel that is given, parametric or entirely unknown."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pristina.errors import OperatorError, SettingError
from pristina.operators.base import Observed, Operator
from pristina.operators.convolve import (
    Boundary,
    Kernels,
    check_boundary,
    check_fits,
    check_kernel_size,
    convolve,
)
from pristina.operators.kernels import (
    blending_weights,
    check_gaussian_fits,
    check_grid,
    check_sigma,
    defocus_kernel,
    gaussian_kernel,
    motion_kernel,
    spread,
    tilt_to_centre,
)
from pristina.operators.unknown import Unknown, in_words, linear_layer, numbers, own_generator
from pristina.types import Images

__all__ = [
    "AnisotropicBlur",
    "Blur",
    "Defocus",
    "FreeKernel",
    "GaussianBlur",
    "KernelBlur",
    "MotionBlur",
    "VaryingBlur",
]

Parametrisation = Literal["logits", "network"]


class Blur(Operator):
    """Convolution with :meth:`kernel`; base of all blurs.

    Args:
        size: Side of the kernel in pixels, odd.
        boundary: Rule beyond the border, see :data:`pristina.operators.convolve.Boundary`.
    """

    def __init__(self, size: int, boundary: Boundary = "reflect"):
        super().__init__()
        check_kernel_size(size)
        check_boundary(boundary)
        self.size, self.boundary = size, boundary

    @abstractmethod
    def kernel(self) -> Kernels:
        """Return the current kernel, (1 or B, 1, size, size), of sum 1."""

    def forward(self, x: Images) -> Observed:
        return convolve(x, self.kernel(), self.boundary)

    def picture_size(self, height: int, width: int) -> tuple[int, int]:
        more = self.size - 1 if self.boundary == "valid" else 0
        return height + more, width + more

    def initial(self, y: Observed) -> Images:
        if self.boundary != "valid":
            return y
        return F.pad(y, (self.size // 2,) * 4, mode="replicate")

    def check(self, y: Observed) -> None:
        check_fits(*self.picture_size(*y.shape[-2:]), self.size, self.size, self.boundary)

    def estimates(self) -> dict[str, Any]:
        return {**self.unknowns(), "size": self.size, "boundary": self.boundary}

    def unknowns(self) -> dict[str, Any]:
        """Return the part of :meth:`estimates` that differs from blur to blur."""
        return {"kernel": numbers(self.kernel()[:, 0], 4)}


class GaussianBlur(Blur):
    """Isotropic Gaussian blur of unknown width.

    Args:
        sigma: First guess of the standard deviation, px.
        size: Side of the kernel, px; 41 holds sigma up to 6. A kernel that cuts off most of the
            first guess is refused.
        boundary: Rule beyond the border.
        learnable: Whether sigma is unknown.
    """

    name = "blur"

    def __init__(
        self, sigma: float, size: int = 41, boundary: Boundary = "reflect", learnable: bool = True
    ):
        super().__init__(size, boundary)
        self.sigma = Unknown("sigma", sigma, "positive", learnable=learnable)
        check_gaussian_fits(size, sigma)

    def kernel(self) -> Kernels:
        return gaussian_kernel(self.size, self.sigma())

    def unknowns(self) -> dict[str, Any]:
        return {"sigma": numbers(self.sigma())}

    def describe(self) -> str:
        return f"Gaussian blur with sigma {in_words(self.sigma(), 'px')}"


class AnisotropicBlur(Blur):
    """Gaussian blur with two widths and a direction, all unknown.

    Args:
        sigma_x: First guess of the standard deviation along the direction, px.
        sigma_y: First guess of the standard deviation across it, px.
        angle: First guess of the direction in degrees, from x (to the right) towards y
            (downwards). It has no gradient where both widths are equal.
        size: Side of the kernel, px.
        boundary: Rule beyond the border.
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
        check_gaussian_fits(size, max(sigma_x, sigma_y))

    def kernel(self) -> Kernels:
        return gaussian_kernel(self.size, self.sigma_x(), self.sigma_y(), self.angle())

    def unknowns(self) -> dict[str, Any]:
        return {
            "sigma_x": numbers(self.sigma_x()),
            "sigma_y": numbers(self.sigma_y()),
            "angle": numbers(torch.rad2deg(self.angle())),
        }

    def describe(self) -> str:
        along, across = in_words(self.sigma_x(), "px"), in_words(self.sigma_y(), "px")
        angle = in_words(torch.rad2deg(self.angle()), "degrees")
        return f"Gaussian blur with sigma {along} along {angle} and {across} across"


class Defocus(Blur):
    """Blur with a disc of unknown radius, as of a lens out of focus.

    Args:
        radius: First guess, px; above 0.5, because a smaller disc is a point and the radius has
            no gradient.
        size: Side of the kernel, px; it must hold every radius that may be found.
        boundary: Rule beyond the border.
        learnable: Whether the radius is unknown.
    """

    name = "defocus"

    def __init__(
        self, radius: float, size: int = 41, boundary: Boundary = "reflect", learnable: bool = True
    ):
        super().__init__(size, boundary)
        self.radius = Unknown("radius", radius, "positive", learnable=learnable)
        if radius <= 0.5:
            raise SettingError(
                f"A disc of radius {radius:g} px lies within one pixel and blurs nothing; "
                "take a radius above 0.5 px."
            )
        if radius > size // 2:
            raise SettingError(
                f"A radius of {radius:g} px does not fit into a kernel of {size} px; "
                f"take size={2 * math.ceil(radius) + 1}."
            )

    def kernel(self) -> Kernels:
        return defocus_kernel(self.size, self.radius())

    def unknowns(self) -> dict[str, Any]:
        return {"radius": numbers(self.radius())}

    def describe(self) -> str:
        return f"defocus with a disc of radius {in_words(self.radius(), 'px')}"


class KernelBlur(Blur):
    """Convolution with a known kernel.

    Args:
        kernel: Kernel, (1 or B, 1, K, K), K odd; used as it is, whatever its sum.
        boundary: Rule beyond the border.
    """

    name = "kernel"

    def __init__(self, kernel: Tensor, boundary: Boundary = "reflect"):
        if kernel.ndim != 4 or kernel.shape[1] != 1 or kernel.shape[-1] != kernel.shape[-2]:
            raise OperatorError(
                "A kernel has the shape (1, 1, K, K), or (B, 1, K, K) for B images; "
                f"not {tuple(kernel.shape)}."
            )
        super().__init__(kernel.shape[-1], boundary)
        self.register_buffer("given", kernel.detach().clone())

    def kernel(self) -> Kernels:
        return self.get_buffer("given")

    def describe(self) -> str:
        return f"blur with a given {self.size} x {self.size} px kernel"


class MotionBlur(KernelBlur):
    """Convolution with a motion kernel drawn at random.

    Args:
        size: Side of the kernel in pixels, odd.
        intensity: Erratic share of the motion, from 0 to 1, see
            :func:`pristina.operators.kernels.motion_kernel`.
        boundary: Rule beyond the border.
        seed: Random seed of the kernel.
    """

    name = "motion"

    def __init__(
        self, size: int = 41, intensity: float = 0.5, boundary: Boundary = "reflect", seed: int = 0
    ):
        super().__init__(motion_kernel(size, intensity, own_generator(self.name, seed)), boundary)
        self.intensity, self.seed = intensity, seed

    def unknowns(self) -> dict[str, Any]:
        return {"intensity": self.intensity, "seed": self.seed, **super().unknowns()}

    def describe(self) -> str:
        kernel = f"{self.size} x {self.size} px kernel"
        return f"motion blur with a {kernel} of intensity {self.intensity:g}"


class FreeKernel(Blur):
    """Convolution with an unknown kernel that is not negative, has sum 1 and is otherwise free.

    Args:
        size: Side of the kernel in pixels, odd.
        parametrisation: ``logits``: the kernel is the softmax of K*K numbers. ``network``: the
            kernel is the softmax of the output of a small network with a fixed random input,
            200 -> 1000 (ReLU6) -> K*K.
        boundary: Rule beyond the border.
        sigma: Standard deviation of the Gaussian from which ``logits`` start, px; None for a flat
            start.
        seed: Random seed of the network's input and weights.
        start: Kernel (1, 1, K, K) from which ``logits`` start instead. Values below a
            ten-thousandth of the mean are raised to it, because a softmax hardly changes what is
            almost zero.

    Attributes:
        logits: Logits of the kernel, (1 or B, K*K), for ``logits``.
        u: Input of the network, (1, 200), uniform on [0, 0.1), the same for all images.
        weight1: Weight of the first layer, (1 or B, 1000, 200); and ``bias1``, ``weight2``, ...

    Source:
        ``network`` is BIRD's released kernel network, which is that of SelfDeblur. Its weights
        start as those of ``torch.nn.Linear``, so that the first kernel is nearly flat. Difference:
        all randomness comes from ``seed``, and no global generator is re-seeded.
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
                check_sigma(sigma)
                start = gaussian_kernel(size, sigma)
            else:
                start = torch.ones(1, 1, size, size)
            self.logits = nn.Parameter(start.flatten(1).clamp_min(1e-12).log())
        elif parametrisation == "network":
            if sigma is not None or start is not None:
                raise SettingError(
                    "The kernel network starts from its random weights; give no sigma and no start."
                )
            generator = own_generator(self.name, seed)
            self.register_buffer("u", 0.1 * torch.rand(1, self.n_input, generator=generator))
            self.weight1, self.bias1 = linear_layer(self.n_input, self.n_hidden, generator)
            self.weight2, self.bias2 = linear_layer(self.n_hidden, size * size, generator)
        else:
            raise SettingError(
                f"parametrisation must be logits or network, not {parametrisation!r}."
            )

    @classmethod
    def gaussian(cls, size: int = 41, boundary: Boundary = "reflect") -> FreeKernel:
        """Build an unknown kernel that starts as a Gaussian of ``size / 8`` px."""
        return cls(size, "logits", boundary, sigma=size / 8)

    @classmethod
    def from_arguments(
        cls,
        size: int = 41,
        parametrisation: Parametrisation = "logits",
        boundary: Boundary = "reflect",
        sigma: float | None = None,
        seed: int = 0,
    ) -> FreeKernel:
        """Build an unknown kernel; without ``sigma``, logits start as in :meth:`gaussian`."""
        if parametrisation == "logits" and sigma is None:
            return cls.gaussian(size, boundary)
        return cls(size, parametrisation, boundary, sigma, seed)

    def kernel(self) -> Kernels:
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
        width = in_words(spread(self.kernel()), "px")
        return f"blur with an unknown {self.size} x {self.size} px kernel, {width} wide (rms)"


class VaryingBlur(Blur):
    """Blur that varies over the image: kernels on a grid of places, blended in between.

    ``y = sum_n w_n (k_n * x)``, where the weight maps ``w_n`` are bilinear between the places,
    which are spaced evenly from border to border.

    Args:
        kernels: First guess, ([B,] rows, columns, K, K), not negative, each of sum 1.
        boundary: Rule beyond the border, except ``valid``.
        learnable: Whether the kernels are unknown.
    """

    name = "varying"

    def __init__(self, kernels: Tensor, boundary: Boundary = "reflect", learnable: bool = True):
        if kernels.ndim not in (4, 5) or kernels.shape[-1] != kernels.shape[-2]:
            raise OperatorError(
                f"The kernels have the shape (rows, columns, K, K), not {tuple(kernels.shape)}."
            )
        super().__init__(kernels.shape[-1], boundary)
        if boundary == "valid":
            raise SettingError(
                "A varying blur has no valid border; take reflect, zero or circular."
            )
        self.rows, self.columns = kernels.shape[-4:-2]
        flat = kernels.detach().reshape(-1, self.rows * self.columns, self.size**2)
        self.logits = nn.Parameter(flat.clamp_min(1e-12).log(), requires_grad=learnable)

    @classmethod
    def drawn(
        cls,
        size: int = 21,
        rows: int = 2,
        columns: int = 2,
        intensity: float = 0.5,
        boundary: Boundary = "reflect",
        seed: int = 0,
    ) -> VaryingBlur:
        """Build one with a different random motion kernel in each place."""
        check_grid(rows, columns)
        generator = own_generator(cls.name, seed)
        drawn = [motion_kernel(size, intensity, generator)[0, 0] for _ in range(rows * columns)]
        return cls(torch.stack(drawn).view(rows, columns, size, size), boundary)

    @classmethod
    def free(
        cls,
        size: int = 21,
        rows: int = 2,
        columns: int = 2,
        boundary: Boundary = "reflect",
        sigma: float | None = None,
    ) -> VaryingBlur:
        """Build one with unknown kernels that start as Gaussians of ``sigma`` px (size / 8)."""
        check_grid(rows, columns)
        sigma = size / 8 if sigma is None else sigma
        check_sigma(sigma)
        return cls(gaussian_kernel(size, sigma).expand(rows, columns, size, size), boundary)

    def kernels(self) -> Float[Tensor, "parameters places side side"]:
        """Return the current kernels, (1 or B, rows * columns, K, K)."""
        return self.logits.softmax(2).unflatten(2, (self.size, self.size))

    def kernel(self) -> Kernels:
        """Return the mean of the current kernels, (1 or B, 1, K, K)."""
        return self.kernels().mean(1, keepdim=True)

    def forward(self, x: Images) -> Images:
        down, across = (
            blending_weights(x.shape[-2], self.rows, x),
            blending_weights(x.shape[-1], self.columns, x),
        )
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
        return (
            f"blur that varies over the image, {self.rows} x {self.columns} kernels "
            f"of {self.size} x {self.size} px"
        )
