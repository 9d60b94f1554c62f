"""Rectify noise relative to what clean pictures invert to, at several levels of inversion.

    python -m benchmarks.rectification --training TRAINING --pictures VALIDATION

The folders are those that ``benchmarks.validation`` makes of the faces. Clean training pictures are
inverted by the sampler's exact inverse, as far as its first k of ten steps (10: to pure noise).
There the mean over the pictures is taken off, and the energy of each band of the cosine transform
of patches measured in three colour components. Degraded pictures are inverted as far; the energy of
each band of each patch that lies outside what ``share`` of the clean patches show is brought to the
nearest value that they do show; and the sampler draws the picture. Writes ``OUT/rectification.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cyclopts
import torch
from benchmarks.common import RESULTS, restored, write
from benchmarks.study import observe, score
from scipy.fft import dctn, idctn
from torch import Tensor

from pristina.bench import PictureSet
from pristina.bench.pictures import load_pictures
from pristina.methods.mmse import MMSE
from pristina.methods.steps.rectify import _cut, _join
from pristina.priors import Prior, load_prior
from pristina.priors.base import to_signed, to_unit
from pristina.priors.generate import _end, _solve
from pristina.priors.schedule import alpha_bar_at, ddim_step, eps_from_x0, step_pairs

TASKS = {
    "noise 0.1": "noise:sigma=0.1",
    "rain": "rain:density=0.004,length_px=8",
    "JPEG 10": "jpeg:quality=10",
    "blur 1.6, noise 0.02": "blur:sigma=1.6,size=13 | noise:sigma=0.02",
}
STEPS, CALLS = 10, 5
"""Steps of the sampler, and network calls of the inverse in each."""

COLOURS = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]])
COLOURS = COLOURS / COLOURS.norm(dim=1, keepdim=True)


def inverses(prior: Prior, x: Tensor, last: int) -> dict[int, Tensor]:
    """Return the diffused images after each of the first ``last`` steps of the inverse."""
    found, x_s = {}, to_signed(x)
    for k, (t, s) in enumerate(reversed(step_pairs(STEPS, len(prior.alpha_bar))), 1):
        if k <= last:
            found[k] = x_s = _solve(_end(prior, x_s, t, s), x_s, CALLS, 0.0)[0]
    return found


def drawn(prior: Prior, x_t: Tensor, k: int) -> Tensor:
    """Return the pictures that the last ``k`` steps of the sampler draw."""
    for t, s in step_pairs(STEPS, len(prior.alpha_bar))[STEPS - k :]:
        a_t, a_s = (alpha_bar_at(prior.alpha_bar, time) for time in (t, s))
        x0 = prior.predict(x_t, t).x0.clamp(-1, 1)
        x_t = x0 if s < 0 else ddim_step(x0, eps_from_x0(x_t, x0, a_t), a_s)
    return to_unit(x_t)


@dataclass(frozen=True)
class Bands:
    """Bands of the cosine transform of patches of ``side`` px."""

    side: int

    @property
    def places(self) -> Tensor:
        """Number of the band of each coefficient, (side, side): octaves of its frequency."""
        n, axis = 8 if self.side > 16 else 5, torch.arange(self.side).float()
        r = (axis[:, None].square() + axis.square()).sqrt()
        octaves = torch.log2(r + 1) / math.log2(1.42 * self.side + 1)
        return (octaves * n).long().clamp(max=n - 1)

    def transform(self, z: Tensor) -> Tensor:
        """Return the coefficients of all patches, (patches, 3, side, side)."""
        z = torch.einsum("dc,bchw->bdhw", COLOURS, z)
        cells = _cut(z, self.side, self.side).double().numpy()
        return torch.from_numpy(dctn(cells, axes=(-2, -1), norm="ortho"))

    def back(self, coefficients: Tensor, like: Tensor) -> Tensor:
        """Return the images of coefficients."""
        cells = torch.from_numpy(idctn(coefficients.numpy(), axes=(-2, -1), norm="ortho"))
        z = _join(cells.float(), len(like), *like.shape[-2:])
        return torch.einsum("dc,bdhw->bchw", COLOURS, z)

    def energy(self, coefficients: Tensor) -> Tensor:
        """Return the mean square of each band, (patches, 3, bands)."""
        places = self.places
        bands = [coefficients[..., places == b] for b in range(int(places.max()) + 1)]
        return torch.stack([band.square().mean(-1) for band in bands], -1)

    def rectified(self, z: Tensor, clean: Tensor, share: float, both: bool) -> Tensor:
        """Bring the energies of ``z`` to what ``share`` of the clean patches show."""
        mean = clean.mean(0, keepdim=True)
        seen, found = self.energy(self.transform(clean - mean)), self.transform(z - mean)
        tail = (1 - share) / 2 if both else 1 - share
        energy = self.energy(found)
        goal = torch.minimum(energy, seen.quantile(1 - tail, 0))
        if both:
            goal = torch.maximum(goal, seen.quantile(tail, 0))
        gain = (goal / energy.clamp(min=1e-12)).sqrt()
        return mean + self.back(found * gain[..., self.places], z)


@torch.no_grad()
def main(
    *,
    training: Path,
    pictures: Path,
    prior: str = "faces",
    clean: int = 24,
    count: int = 6,
    sides: tuple[int, ...] = (64, 16),
    levels: tuple[int, ...] = (2, 3, 4, 10),
    share: float = 0.9,
    both: bool = True,
    out: Path = RESULTS,
) -> None:
    """Measure; ``both``: energies that are too small are raised as well."""
    torch.set_num_threads(1)
    network = load_prior(prior)
    apart = PictureSet(folder=training)
    known = load_pictures(apart, 64)[1][::70][:clean]
    x = load_pictures(PictureSet(folder=pictures, count=count), 64)[1]
    seen = inverses(network, known, max(levels))
    rows = []
    for title, recipe in TASKS.items():
        y = observe(x, recipe).y.clamp(0, 1)
        found = inverses(network, y, max(levels))
        one_call = restored("mmse", y, network, MMSE()).images
        row = [title, f"{score(y, x):.2f}", f"{score(one_call, x):.2f}"]
        for k in levels:
            for side in sides:
                z = Bands(side).rectified(found[k], seen[k], share, both)
                row.append(f"{score(drawn(network, z, k), x):.2f}")
        rows.append(row)
        print(row, flush=True)
    head = ["degradation", "input", "mmse", *(f"k {k}, {s} px" for k in levels for s in sides)]
    notes = f"{clean} clean pictures, {count} degraded; PSNR in dB."
    write(out, "rectification", "Rectification relative to clean pictures", head, rows, notes)


if __name__ == "__main__":
    cyclopts.run(main)
