"""Your own damage
===============

Describe a damage of one's own, and let BIRD find its unknown along with the picture.
"""

import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn

import pristina
from pristina.image import side_by_side
from pristina.priors import GaussianPrior


class Fading(pristina.Operator):
    """Contrast that has faded towards white by an unknown share."""

    name = "fading"

    def __init__(self, share: float = 0.1):
        super().__init__()
        # A learnable parameter has a leading axis of 1, so that each image can have its own.
        self.share = nn.Parameter(torch.full((1, 1, 1, 1), share))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the fading."""
        return x + self.share * (1 - x)

    def project(self) -> None:
        """Bring the share back into [0, 1]."""
        self.share.data.clamp_(0, 1)

    def estimates(self) -> dict[str, float]:
        """Return the present share."""
        return {"share": round(float(self.share.detach().mean()), 3)}

    def describe(self) -> str:
        """Describe the operator in a sentence."""
        return f"faded towards white by {float(self.share.detach().mean()):.2f}"


prior = GaussianPrior(mean=0.0, variance=0.05)  # Stands in for a trained one.
clean = prior.sample(torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
faded = Fading(0.6)((clean + 1) / 2).detach().clamp(0, 1)
done = pristina.restore(
    faded[0], method="bird", prior=prior, operator=Fading(), settings={"iterations": 100}
)
print(done.operator.describe() if done.operator else "")

plt.figure(figsize=(8, 4))
plt.axis("off")
plt.imshow(side_by_side([("faded", pristina.Picture(faded[0])), ("restored", done.picture)]))
