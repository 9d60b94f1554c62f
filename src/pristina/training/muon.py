"""Muon: momentum whose matrix is made orthogonal before it is subtracted.

Source:
    Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024, with its five
    Newton-Schulz steps. They are computed here on the small Gram matrix of each layer, which gives
    the same result with a third of the work on the long matrices of 3 x 3 convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
N_STEPS = 5


def orthogonalised(matrix: Tensor) -> Tensor:
    """Bring the singular values of a matrix near 1 and keep its singular vectors.

    Args:
        matrix: Any matrix, (rows, columns).

    Returns:
        A matrix of the same shape whose singular values lie between about 0.7 and 1.2.
    """
    x = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    x = x / x.norm().clamp(min=1e-12)
    a, b, c = COEFFICIENTS
    gram, eye = x @ x.T, torch.eye(len(x), dtype=x.dtype, device=x.device)
    product = eye
    for step in range(N_STEPS):
        factor = a * eye + b * gram + c * (gram @ gram)
        product = factor @ product
        if step + 1 < N_STEPS:
            gram = factor @ gram @ factor
            gram = (gram + gram.T) / 2
    x = product @ x
    return x if len(matrix) <= matrix.shape[1] else x.T


class Muon(torch.optim.Optimizer):
    """Update inner convolutions by Muon and all other parameters by AdamW.

    Args:
        groups: Parameter groups. Those with ``muon`` true are flattened to (rows, the rest) and
            updated by Muon; the others by AdamW.
        lr: Learning rate of a group that does not name its own.
        momentum: Nesterov momentum of Muon.
        betas: Decays of AdamW's two averages.
        weight_decay: Share of the weights that is subtracted, times the learning rate.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "betas": betas,
            "weight_decay": weight_decay,
            "muon": False,
        }
        super().__init__(list(groups), defaults)

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                if group["weight_decay"]:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                if group["muon"]:
                    self._muon(parameter, gradient, group)
                else:
                    self._adam(parameter, gradient, group)
        return loss

    def _muon(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        mean, decay = state["momentum"], group["momentum"]
        mean.lerp_(gradient, 1 - decay)
        matrix = gradient.lerp(mean, decay).flatten(1)
        scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
        update = orthogonalised(matrix).view(parameter.shape)
        parameter.add_(update, alpha=-group["lr"] * scale)

    def _adam(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
            state["step"] = torch.zeros(())
        state["step"] += 1
        n, (b1, b2) = float(state["step"]), group["betas"]
        state["mean"].lerp_(gradient, 1 - b1)
        state["square"].lerp_(gradient.square(), 1 - b2)
        deviation = (state["square"] / (1 - b2**n)).sqrt_().add_(1e-8)
        parameter.addcdiv_(state["mean"], deviation, value=-group["lr"] / (1 - b1**n))


def parameter_groups(
    network: nn.Module, rate: float, outer_rate: float, ends: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Divide the parameters of a network between Muon and AdamW.

    Args:
        network: The network.
        rate: Learning rate of Muon.
        outer_rate: Learning rate of AdamW.
        ends: Names of the first and the last layer, which AdamW updates, as it does all vectors.

    Returns:
        Two parameter groups, without one that would be empty.
    """
    inner: list[nn.Parameter] = []
    outer: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        is_inner = parameter.ndim >= 2 and not name.startswith(ends)
        (inner if is_inner else outer).append(parameter)
    groups = [
        {"params": inner, "lr": rate, "muon": True},
        {"params": outer, "lr": outer_rate, "muon": False},
    ]
    return [group for group in groups if group["params"]]
