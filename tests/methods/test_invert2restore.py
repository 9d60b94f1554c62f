from dataclasses import replace

import pytest
import torch

from pristina.errors import SettingError
from pristina.methods.bird import BIRD, bird
from pristina.methods.index import method
from pristina.methods.invert2restore import DESIGNED, Invert2Restore, invert2restore
from pristina.methods.steps.rectify import rectify
from pristina.operators.base import Observation
from pristina.operators.blur import GaussianBlur
from pristina.operators.resample import Downsample
from pristina.priors.gaussian import GaussianMixturePrior, GaussianPrior
from pristina.priors.generate import NotConverged, generate, invert
from pristina.restoration import restore
from pristina.seeds import generators
from pristina.types import Draw
from tests.contract.battery import check_method

PRIOR = GaussianPrior(0.0, 0.1)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("operator", "size"), [(None, 8), (GaussianBlur(1.0, size=5), 8), (Downsample(2), 4)]
)
def test_battery(operator, size):
    observation = Observation(noise(2, 3, size, size), operator)
    check_method(
        invert2restore, observation, PRIOR, Invert2Restore(iterations=4, every=2), calls=5 * 5
    )
    settings = Invert2Restore(start="inverse", refine=6, sampler_steps=3, iterations=1)
    check_method(
        invert2restore, observation, PRIOR, settings, calls=3 * 6 + 3 + 3, random=False
    )  # xi is mixed in by the last rung only


def test_battery_full_gradient():
    settings = Invert2Restore(iterations=2, sampler_steps=3, gradient="full")
    check_method(
        invert2restore, Observation(noise(2, 3, 8, 8)), PRIOR, settings, calls=3 * 3, backward=2 * 3
    )


def test_with_the_norm_alone_it_is_bird():
    observation = Observation(noise(2, 3, 8, 8), GaussianBlur(1.0, size=5))
    ours = invert2restore(observation, PRIOR, Invert2Restore(iterations=5, rectifier="norm"))
    theirs = bird(observation, PRIOR, BIRD(iterations=5))
    assert torch.allclose(ours.images, theirs.images, atol=1e-6)
    assert ours.operator.estimates() == theirs.operator.estimates()


def test_an_inverse_that_is_not_found_is_a_note_and_no_warning():
    """A warning would be an error in the test run."""
    prior = GaussianMixturePrior(
        torch.tensor([-0.9, 0.9]).view(2, 1, 1, 1).expand(2, 3, 8, 8), 0.001
    )
    settings = replace(DESIGNED, sampler_steps=2, refine=2)
    options = {"method": "invert2restore", "prior": prior, "settings": settings}
    with pytest.warns(NotConverged):
        invert(prior, noise(1, 3, 8, 8), 2, refine=2)
    done = restore(noise(3, 8, 8), **options)
    (note,) = [note for note in done.notes if "was not found in 2 network calls" in note]
    assert note in done.record()["notes"]
    found = restore(noise(3, 8, 8), **{**options, "prior": PRIOR, "settings": DESIGNED})
    assert not any("was not found" in note for note in found.notes)


def test_as_designed_it_inverts_once_and_rectifies_once():
    y = 0.3 + 0.4 * noise(2, 3, 16, 16)
    result = invert2restore(Observation(y), PRIOR, DESIGNED)
    assert (generate(PRIOR, result.extras["z_found"], 10) - y).abs().max() < 1e-3  # A is exact
    z = rectify(
        result.extras["z"], torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    )
    assert (z.changed == 0).all()  # B leaves nothing that could be found again
    assert torch.equal(result.images, generate(PRIOR, result.extras["z"], 10))  # C
    assert method("invert2restore").make_settings("designed") == DESIGNED


@pytest.mark.parametrize("rung", ["norm", "noise"])
def test_after_the_last_rectification_the_fit_goes_on_along_the_sphere(rung):
    y = 0.3 + 0.4 * noise(1, 3, 16, 16)
    at_ten = invert2restore(
        Observation(y),
        PRIOR,
        Invert2Restore(iterations=10, rectifier=rung, every=10),
        generator=generators(1, 1),
    )
    later = invert2restore(
        Observation(y),
        PRIOR,
        Invert2Restore(iterations=13, rectifier=rung, every=10),
        generator=generators(1, 1),
    )
    assert torch.equal(
        at_ten.extras["z_found"], later.extras["z_found"]
    )  # what was corrected, not what the fit made of it
    assert not torch.equal(at_ten.extras["z"], later.extras["z"])
    assert float(later.extras["z"].square().mean()) == pytest.approx(1, abs=1e-4)
    assert later.trace["loss"][-1] < at_ten.trace["loss"][-1]


def test_the_fresh_noise_is_a_second_draw():
    """Noise of ones and minus ones is white, and needs fresh noise to be normal."""
    settings = Invert2Restore(
        start="inverse", iterations=0, sampler_steps=1, refine=1, rectifier="noise", every=0
    )
    y = 0.5 + 0.1 * torch.sign(noise(2, 3, 16, 16) - 0.5)
    result = check_method(
        invert2restore, Observation(y), PRIOR, settings, calls=2, random=True, tolerance=1e-4
    )
    assert (result.extras["gamma"] > 0).all()
    drawn = Draw(generators(3, 2), 2)
    _, xi = drawn.normal(3, 16, 16), drawn.normal(3, 16, 16)
    expected = rectify(result.extras["z_found"], xi, "noise").z
    assert torch.equal(result.extras["z"], expected)


def test_the_default_sets_the_scale_of_patches():
    assert Invert2Restore().rectifier == "scale" and Invert2Restore().every == 1
    y = 0.5 + 0.02 * noise(1, 3, 32, 32)
    y[..., 8:16, 8:16] = (noise(1, 3, 8, 8) > 0.5).float()
    patch = (..., slice(8, 16), slice(8, 16))
    settings = Invert2Restore(iterations=4, learning_rate=0.3)
    found = invert2restore(Observation(y), PRIOR, settings).extras
    assert found["changed"] > 0 and found["gamma"] == 0
    bird_like = replace(settings, rectifier="norm")
    free = invert2restore(Observation(y), PRIOR, bird_like).extras
    assert free["changed"] == 0
    off, on = (abs(float(e["z"][patch].square().mean()) - 1) for e in (free, found))
    assert on < off


def test_p_min_decides_how_much_is_corrected():
    y = 0.3 + 0.4 * noise(2, 3, 16, 16)
    changed = []
    for p_min in (1e-9, 0.05):
        changed.append(
            invert2restore(Observation(y), PRIOR, replace(DESIGNED, p_min=p_min))
            .extras["changed"]
            .tolist()
        )
    assert changed == [[0, 0], [1, 1]]


def test_fewer_iterations_than_between_rectifications_rectify_once():
    y = 0.3 + 0.4 * noise(1, 3, 16, 16)
    settings = Invert2Restore(start="inverse", iterations=0, rectifier="norm", every=5)
    assert float(
        invert2restore(Observation(y), PRIOR, settings).extras["z"].square().mean()
    ) == pytest.approx(1, abs=1e-4)


def test_without_rectifier_the_observation_comes_back():
    y = 0.3 + 0.4 * noise(1, 3, 16, 16)
    settings = Invert2Restore(
        start="inverse", iterations=0, sampler_steps=10, every=0, rectifier="none"
    )
    assert (invert2restore(Observation(y), PRIOR, settings).images - y).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": "zero"}, "start"),
        ({"rectifier": "all"}, "rectifier"),
        ({"p_min": 0.0}, "p_min"),
        ({"iterations": -1}, "iterations"),
        ({"kernel_learning_rate": 0.0}, "kernel_learning_rate"),
        ({"gradient": "none"}, "gradient"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(SettingError, match=message):
        Invert2Restore().changed(settings)
