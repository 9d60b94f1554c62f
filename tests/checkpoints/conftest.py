"""Networks that are compared number for number compute in float32, also where bfloat16 is fast."""

import pytest
import torch


@pytest.fixture(autouse=True)
def in_float32(monkeypatch):
    monkeypatch.setattr("pristina.priors.load.fast_dtype", lambda device: torch.float32)
