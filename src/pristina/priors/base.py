"""Contracts of priors: what every kind of weights has in common, and the diffusion prior."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from pristina.errors import InputError, SizeError
from pristina.image.tile import Portions, in_portions
from pristina.priors.schedule import alpha_bar_at, eps_from_x0, linear_alpha_bar

if TYPE_CHECKING:
    from pristina.priors.checkpoints.header import NetworkSpec


class Prediction(NamedTuple):
    """Split of diffused images into noise and clean images.

    ``x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps`` holds exactly.

    Attributes:
        eps: Noise, (B, C, H, W), of unit variance.
        x0: Clean images, ``E[x0 | x_t]``, (B, C, H, W), in [-1, 1] and not clipped.
    """

    eps: Tensor
    x0: Tensor


@dataclass(frozen=True)
class SizeRule:
    """Image sizes that a prior accepts, in pixels.

    Attributes:
        multiple: Number of which both sides must be a multiple.
        minimum: Smallest accepted side.
        native: Side of the training images, used when an image has to be fitted; None if every
            size is as good as another.
        fixed: Whether only images of ``native`` x ``native`` are accepted (aligned faces, say).
    """

    multiple: int = 1
    minimum: int = 1
    native: int | None = None
    fixed: bool = False

    def check(self, height: int, width: int) -> None:
        """Raise :class:`SizeError` unless (height, width) is accepted."""
        size = f"{width} x {height}"
        if self.fixed and (height, width) != (self.native, self.native):
            raise SizeError(
                f"This prior takes pictures of exactly {self.native} x {self.native} px, not "
                f"{size}; crop it or bring it to that size, or take a prior for pictures of any "
                "size, such as photos."
            )
        if min(height, width) < self.minimum:
            raise SizeError(
                f"The picture is {size} px; this prior needs at least {self.minimum} px a side."
            )
        if height % self.multiple or width % self.multiple:
            raise SizeError(
                f"The picture is {size} px; this prior needs multiples of {self.multiple} px."
            )


B = TypeVar("B", bound="BasePrior")


class BasePrior(nn.Module):
    """Base of the three kinds of weights: diffusion, direct and conditional priors.

    A prior is frozen and reentrant: runs that share one each take a copy of it from
    :meth:`counted`, so that their counts stay apart.

    Args:
        domain: Description of the images that it was trained on, in one sentence.
        channels: Number of colour channels.
        size_rule: Accepted sizes; any by default.

    Attributes:
        n_calls: Number of network calls so far; a batch of B images counts B times.
        portions: How much goes through the network at once.
        source: Origin of the weights for records (file, sha256, layout); empty if there is none.
        spec: Header of the weight file; None if the prior was not read from a file.
    """

    def __init__(self, *, domain: str, channels: int = 3, size_rule: SizeRule | None = None):
        super().__init__()
        self.domain = domain
        self.channels = channels
        self.size_rule = size_rule or SizeRule()
        self.n_calls = 0
        self.portions = Portions()
        self.source: dict[str, str] = {}
        self.spec: NetworkSpec | None = None
        self.register_buffer("_marker", torch.empty(0), persistent=False)

    @property
    def device(self) -> torch.device:
        """Device on which the prior computes."""
        return next(self.buffers()).device

    def counted(self: B) -> B:
        """Return a copy that shares all weights and counts its own calls, from 0."""
        return self.limited(self.portions.pixels)

    def limited(self: B, pixels: int) -> B:
        """Return such a copy, through whose network at most ``pixels`` pixels go at once."""
        return self._copy(Portions(pixels))

    def _copy(self: B, portions: Portions) -> B:
        other = copy.copy(self)
        for name in ("_parameters", "_buffers", "_modules"):
            other.__dict__[name] = dict(self.__dict__[name])
        for name, inner in self._modules.items():
            if isinstance(inner, BasePrior):
                other._modules[name] = inner._copy(portions)
        other.n_calls, other.portions = 0, portions
        return other

    def calls_per_image(self, height: int, width: int) -> int:
        """Return the number of network calls that one prediction takes for one image."""
        return 1

    def call(self, x: Tensor, time: Tensor) -> Tensor:
        """Return ``self.network(x, time)``.

        Args:
            x: Images, (B, C, H, W).
            time: Time of each, (B,).
        """
        network: Any = self.network
        out = network(x, time)
        found: Tensor = out if isinstance(out, Tensor) else out.sample
        return found

    def portioned(self, function: Callable[..., Tensor], x: Tensor) -> Tensor:
        """Return ``function(x)``, computed in portions: the same numbers in less memory.

        Images are cut into tiles if the network has a ``radius``, as those of ours have.

        Args:
            function: Map ``function(images, rows=rows)`` from images and the rows of ``x`` that
                they come from; all but the network in it is computed pixel by pixel.
            x: Images, (B, C, H, W).
        """
        network: Any = self.network
        radius, multiple = (getattr(network, name, None) for name in ("radius", "multiple"))
        return in_portions(function, x, self.portions, halo=radius, multiple=multiple or 1)

    def _count(self, images: Tensor) -> None:
        self.n_calls += len(images) * self.calls_per_image(images.shape[-2], images.shape[-1])


class Prior(BasePrior):
    """Diffusion prior: a model of clean images that splits a diffused one in a single call.

    A subclass implements :meth:`predict_x0`. Pixels are in [-1, 1] inside a prior and nowhere
    else: :func:`pristina.priors.generate.generate` and the methods bring them back to [0, 1].

    Args:
        domain: Description of the images that it was trained on, in one sentence.
        channels: Number of colour channels.
        size_rule: Accepted sizes; any by default.
        alpha_bar: Table of the noise schedule, (1000,); linear by default.
    """

    alpha_bar: Tensor

    def __init__(
        self,
        *,
        domain: str,
        channels: int = 3,
        size_rule: SizeRule | None = None,
        alpha_bar: Tensor | None = None,
    ):
        super().__init__(domain=domain, channels=channels, size_rule=size_rule)
        table = linear_alpha_bar() if alpha_bar is None else alpha_bar
        self.register_buffer("alpha_bar", table, persistent=False)

    @abstractmethod
    def predict_x0(self, x_t: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
        """Predict the clean images in diffused ones.

        Args:
            x_t: Diffused images, (B, C, H, W), variance preserving.
            t: Timestep of each image, (B,), in [0, 999].
            alpha_bar: Value of the schedule at ``t``, (B, 1, 1, 1).

        Returns:
            ``E[x0 | x_t]``, (B, C, H, W), in [-1, 1] and not clipped.
        """

    def predict(self, x_t: Tensor, t: Tensor | float) -> Prediction:
        """Split diffused images into noise and clean images.

        Args:
            x_t: Diffused images, (B, C, H, W), variance preserving.
            t: Timestep in [0, 999], fractions allowed; one number, or one for each image.

        Returns:
            The noise and the clean images, (B, C, H, W) each.

        Raises:
            SizeError: The prior does not accept the size.
            InputError: The number of channels is wrong.
        """
        if x_t.ndim != 4 or x_t.shape[1] != self.channels:
            raise InputError(
                f"The prior takes (batch, {self.channels}, height, width), not {tuple(x_t.shape)}."
            )
        self.size_rule.check(x_t.shape[-2], x_t.shape[-1])
        t = torch.as_tensor(t, dtype=torch.float32, device=x_t.device).expand(len(x_t))
        alpha_bar = alpha_bar_at(self.alpha_bar, t).to(x_t.dtype).view(-1, 1, 1, 1)
        self._count(x_t)
        x0 = self.predict_x0(x_t, t, alpha_bar)
        return Prediction(eps_from_x0(x_t, x0, alpha_bar), x0)


LoadPrior = Callable[[str], Prior]


def to_signed(x: Tensor) -> Tensor:
    """Map pixels from [0, 1] to the [-1, 1] of priors."""
    return (2 * x).sub_(1)


def to_unit(x: Tensor) -> Tensor:
    """Map pixels from the [-1, 1] of priors to [0, 1]."""
    return (x + 1).div_(2)
