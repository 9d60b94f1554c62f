"""Priors made of other priors."""

from __future__ import annotations

from torch import Tensor

from pristina.errors import SettingError
from pristina.priors.base import Prior


class PerChannel(Prior):
    """Colour prior from a prior of one channel: every colour channel is an image of its own.

    A prior that was trained on grey images so keeps the colour of a colour image, though it knows
    nothing of what its channels have in common.

    Args:
        prior: Prior of one channel.
        channels: Number of colour channels (default 3).

    Raises:
        SettingError: The prior has more than one channel.

    Example:
        >>> import torch
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> prior = PerChannel(GaussianPrior(variance=0.1, channels=1))
        >>> prior.predict(torch.zeros(2, 3, 8, 8), 500).x0.shape, prior.n_calls
        (torch.Size([2, 3, 8, 8]), 6)
    """

    def __init__(self, prior: Prior, channels: int = 3):
        if prior.channels != 1:
            raise SettingError(f"A prior of one channel is needed, not of {prior.channels}.")
        super().__init__(
            domain=prior.domain,
            channels=channels,
            size_rule=prior.size_rule,
            alpha_bar=prior.alpha_bar,
        )
        self.prior, self.spec = prior, prior.spec
        self.source = {**prior.source, "channels": f"each of {channels} by itself"}

    def calls_per_image(self, height: int, width: int) -> int:
        """Return the number of network calls for one image: those of one channel for each."""
        return self.channels * self.prior.calls_per_image(height, width)

    def predict_x0(self, x_t: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
        each = x_t.flatten(0, 1).unsqueeze(1)
        n = self.channels
        x0 = self.prior.predict_x0(
            each, t.repeat_interleave(n), alpha_bar.repeat_interleave(n, dim=0)
        )
        return x0.view_as(x_t)
