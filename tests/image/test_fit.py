"""Sizes: what is fitted comes back, and so does what is cut and put together."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pristina.errors import SizeError
from pristina.image.fit import Fit, pad, resize
from pristina.image.tile import in_tiles

sizes = st.tuples(st.integers(2, 70), st.integers(2, 70))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1)])
def test_a_side_of_one_pixel_has_nothing_to_reflect(size):
    with pytest.raises(SizeError, match="too small"):
        pad(torch.rand(2, 3, *size), 48, 48)
    with pytest.raises(SizeError, match="too small"):
        Fit.to(*size, multiple=16, minimum=32)
    assert Fit.to(1, 1).apply(torch.rand(2, 3, 1, 1)).shape[-2:] == (1, 1)


@settings(max_examples=60, deadline=None)
@given(size=sizes, multiple=st.integers(1, 33), units=st.integers(1, 3))
def test_fitting_and_back_is_the_identity(size, multiple, units):
    x, minimum = torch.rand(2, 3, *size), units * multiple
    fit = Fit.to(*size, multiple=multiple, minimum=minimum)
    fitted = fit.apply(x)
    assert fit.note == "" and torch.equal(fit.undo(fitted), x)
    assert fitted.shape[-2:] == (fit.work_height, fit.work_width)
    for n, m in zip(size, fitted.shape[-2:], strict=True):
        assert m % multiple == 0 and minimum <= m < max(n, minimum) + multiple
    assert torch.equal(fitted[..., : size[0], : size[1]], x)
    assert set(fitted.flatten().tolist()) <= set(x.flatten().tolist())  # Nothing is made up.
    again = Fit.to(*fitted.shape[-2:], multiple=multiple, minimum=minimum)
    assert torch.equal(again.apply(fitted), fitted)


def test_a_prior_of_one_size():
    fit = Fit.to(100, 104, multiple=16, minimum=16, native=64, fixed=True)
    fitted = fit.apply(torch.rand(1, 3, 100, 104))
    assert fitted.shape == (1, 3, 64, 64) and fit.undo(fitted).shape == (1, 3, 100, 104)
    assert "64 x 64" in fit.note
    same = Fit.to(64, 64, multiple=16, minimum=16, native=64, fixed=True)
    assert torch.equal(same.undo(same.apply(fitted)), fitted) and same.note == ""
    with pytest.raises(SizeError, match="far from square"):
        Fit.to(64, 128, multiple=16, minimum=16, native=64, fixed=True)


def test_resizing_keeps_flat_and_smooth_images():
    assert torch.allclose(
        resize(torch.full((1, 3, 20, 30), 0.3), 7, 90), torch.tensor(0.3), atol=1e-5
    )
    ramp = torch.linspace(0, 1, 60).expand(1, 1, 40, 60)
    back = resize(resize(ramp, 80, 120), 40, 60)
    assert (back - ramp).abs().max() < 0.01
    assert resize(ramp, 40, 60) is ramp


@settings(max_examples=60, deadline=None)
@given(size=sizes, pixels=st.integers(1, 1600), halo=st.integers(0, 9), data=st.data())
def test_cutting_into_tiles_and_joining_is_the_identity(size, pixels, halo, data):
    multiple = data.draw(st.integers(1, 4).filter(lambda m: size[0] % m == size[1] % m == 0))
    x = torch.rand(1, 2, *size)
    shapes = []

    def function(part):
        shapes.append(part.shape[-2:])
        return part

    assert torch.equal(in_tiles(function, x, pixels=pixels, halo=halo, multiple=multiple), x)
    least = (3 * multiple + 2 * halo) ** 2  # One cell of the grid, and its borders.
    assert all(h * w <= max(pixels, least) for h, w in shapes)
    assert all(h % multiple == w % multiple == 0 for h, w in shapes)
