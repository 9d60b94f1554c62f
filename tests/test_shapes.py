"""Shapes are checked in this test run."""

import jaxtyping
import pytest
import torch

from pristina.image.statistics import blockiness, estimate_noise


def test_a_wrong_shape_is_seen():
    with pytest.raises(jaxtyping.TypeCheckError, match="y"):
        estimate_noise(torch.rand(3, 64, 64))
    with pytest.raises(jaxtyping.TypeCheckError, match="x"):
        blockiness(torch.rand(3, 64, 64))
