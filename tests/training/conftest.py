"""Folders of pictures for the tests of training."""

import pytest

from .common import save, smooth


@pytest.fixture
def photos(tmp_path):
    for i in range(3):
        save(smooth(i, 136), tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def darkened(tmp_path):
    """Pairs whose damage is easily undone: the degraded picture is half as bright."""
    for i in range(3):
        save(smooth(i, 32), tmp_path / "pairs/clean" / f"{i}.png")
        save(smooth(i, 32).point(lambda v: v // 2), tmp_path / "pairs/degraded" / f"{i}.png")
    return tmp_path / "pairs"
