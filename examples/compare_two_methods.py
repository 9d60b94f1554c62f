"""Compare two methods
===================

Compare two methods on the same damage: fidelity, and what it costs in network calls. ``diip`` makes
a short run here; with its own settings it takes some twenty times as many calls.
"""

from matplotlib import pyplot as plt
from skimage.data import astronaut

import pristina
from pristina.image import side_by_side
from pristina.image.fit import resize
from pristina.metrics.fidelity import psnr
from pristina.operators import Recipe
from pristina.seeds import generators
from pristina.types import Draw

# The shipped prior `faces` knows aligned faces of 64 px.
whole = pristina.Picture.from_array(astronaut()).pixels[None]
clean = resize(whole[..., 43:191, 151:299], 64, 64)
noisy = Recipe.parse("noise:sigma=0.1").build().degrade(clean, Draw(generators(0, 1), 1))
noisy = noisy.detach().clamp(0, 1)
print(f"input  {float(psnr(noisy, clean)):.2f} dB")
pictures = [("noisy", pristina.Picture(noisy[0]))]
for method, settings in {"mmse": {}, "diip": {"iterations": 20, "sampler_steps": 5}}.items():
    done = pristina.restore(noisy[0], method=method, prior="faces", settings=settings)
    value = float(psnr(done.picture.pixels[None], clean))
    print(f"{method:6s} {value:.2f} dB, {done.cost.network_calls} network calls")
    pictures.append((method, done.picture))
plt.figure(figsize=(8, 3))
plt.axis("off")
plt.imshow(side_by_side(pictures))
