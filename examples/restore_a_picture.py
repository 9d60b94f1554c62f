"""Restore a picture
=================

Restore a picture, and see what was planned, found and done.
"""

from matplotlib import pyplot as plt
from skimage.data import chelsea
from torch import Tensor

import pristina
from pristina.image import side_by_side
from pristina.operators import Recipe
from pristina.seeds import generators
from pristina.types import Draw


def damaged(recipe: str) -> Tensor:
    """Return a photograph of a cat, 300 x 450 px, damaged as a recipe says."""
    clean = pristina.Picture.from_array(chelsea()).pixels
    damage = Recipe.parse(recipe).build(seed=0)
    return damage.degrade(clean[None], Draw(generators(0, 1), 1)).detach()[0].clamp(0, 1)


picture = damaged("jpeg:quality=10")
plan = pristina.plan(picture)
print(f"{plan.entry.name} with {plan.weights_name}, {plan.calls.forward} network call")
done = pristina.restore(picture)
for note in done.notes:
    print(note)
print(f"{done.cost.network_calls} network call")

plt.figure(figsize=(8, 3))
plt.axis("off")
plt.imshow(side_by_side([("damaged", pristina.Picture(picture)), ("restored", done.picture)]))
