"""Your own prior
==============

Use a model of one's own as a prior: it only has to say what is clean in a noisy image.
"""

import torch
from matplotlib import pyplot as plt
from torch import Tensor
from torch.nn import functional as F

import pristina
from pristina.image import side_by_side


class SmoothPrior(pristina.Prior):
    """Prior for which clean images are smooth: the noisier the image, the wider the mean."""

    def predict_x0(self, x_t: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
        """Return the clean image in ``x_t``; pixels are in [-1, 1] here."""
        scaled = x_t / alpha_bar.sqrt()
        sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
        for _ in range(int(1 + 20 * sigma.mean().clamp(max=0.5))):
            scaled = F.avg_pool2d(F.pad(scaled, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        return scaled


prior = SmoothPrior(domain="smooth pictures")
ramp = torch.linspace(0.2, 0.8, 32).expand(3, 32, 32)
noise = 0.1 * torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))
noisy = (ramp + noise).clamp(0, 1)
done = pristina.restore(noisy, method="mmse", prior=prior)
error = (done.picture.pixels - ramp).square().mean().sqrt()
print(f"error {float(noise.square().mean().sqrt()):.3f} before, {float(error):.3f} after")

plt.figure(figsize=(8, 4))
plt.axis("off")
plt.imshow(side_by_side([("noisy", pristina.Picture(noisy)), ("restored", done.picture)]))
