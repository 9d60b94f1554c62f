"""Shapes are checked in this test run."""

import jaxtyping
import pytest
import torch

from pristina.image.statistics import fineness, noise_floor


def test_a_wrong_shape_is_seen():
    with pytest.raises(jaxtyping.TypeCheckError, match="y"):
        noise_floor(torch.rand(3, 64, 64))
    with pytest.raises(jaxtyping.TypeCheckError, match="y"):
        fineness(torch.rand(3, 64, 64))
