"""What pristina computes stays what it was when the reference was written."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.golden.digests import PARTS, all_items, describe, reproducible, results

REFERENCE = json.loads(Path(__file__).with_name("small.json").read_text("utf-8"))["entries"]
TOLERANCE = 1e-4
"""Between processors, relative for numbers above 1; the digests themselves hold on one machine."""


@pytest.mark.parametrize("part", PARTS)
def test_numbers_are_those_of_the_reference(part):
    found = {}
    with reproducible():
        for item in all_items():
            if item.small and item.name.startswith(f"{part}/"):
                found |= {name: describe(array) for name, array in results(item).items()}
    expected = {name: entry for name, entry in REFERENCE.items() if name.startswith(f"{part}/")}
    assert found and found.keys() == expected.keys()
    wrong = {}
    for name, entry in found.items():
        then = expected[name]
        a, b = ([e["mean"], e["std"], *e["pixels"]] for e in (entry, then))
        if entry["shape"] != then["shape"] or not np.allclose(a, b, TOLERANCE, TOLERANCE):
            wrong[name] = (a, b)
    assert not wrong
