"""Requests and settings: one value, JSON both ways, checked in one place."""

import json
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pytest
from annotated_types import Ge, Interval
from hypothesis import given, settings
from hypothesis import strategies as st

from pristina.errors import InputError, SettingError
from pristina.request import Request
from pristina.seeds import benchmark_seeds, derive
from pristina.settings import Count, Positive, Settings, Share

CIRCULAR = {}
CIRCULAR["settings"] = CIRCULAR
VALUES = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1, 1) | st.text(max_size=5)


@settings(deadline=None)
@given(
    method=st.sampled_from(["bird", "diip", "indi"]),
    prior=st.none()
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=9),
    options=st.dictionaries(st.text(max_size=5), VALUES | st.lists(VALUES, max_size=3)),
    seed=st.integers(0, 2**64 - 1),
    samples=st.integers(1, 1000),
)
def test_a_request_is_json_both_ways(method, prior, options, seed, samples):
    request = Request(method, prior, settings=options, seed=seed, samples=samples)
    text = json.dumps(request.to_json())
    again = Request.from_json(json.loads(text))
    assert again == request and again.digest() == request.digest()
    assert request.digest("more") != request.digest()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"method": 3}, "method"),
        ({"colour": "red"}, "colour"),
        ({"seed": "3"}, "seed"),
        ({"seed": 2**70}, "64 bits"),
        ({"samples": 0}, "greater than or equal to 1"),
        ({"samples": 2.5}, "samples"),
        ({"threads": -1}, "greater than or equal to 0"),
        ({"memory_bytes": 0}, "memory_bytes"),
        ({"prior": ""}, "prior cannot be empty"),
        ({"method": "bird", "preset": ""}, "preset cannot be empty"),
        ({"method": "bird", "recipe": "kernel:file=a\0b"}, "recipe cannot hold the character NUL"),
        ({"prior": "a\0b"}, "prior cannot hold the character NUL"),
        ({"settings": {"a": 1}}, "belong to a method"),
        ({"settings": []}, "settings"),
        (["restore"], "not a request"),
        (CIRCULAR, "Circular reference"),
        (None, "not a request"),
    ],
)
def test_what_is_not_a_request_is_refused(values, sentence):
    with pytest.raises(InputError, match=sentence):
        Request.from_json(values)


@pytest.mark.parametrize("wrong", [None, [("steps", 3)], (item for item in ())])
def test_settings_of_a_request_are_values_by_name(wrong):
    with pytest.raises(SettingError, match="settings must be values by name, not "):
        Request(method="diip", settings=wrong)


def test_a_request_by_itself_is_followed_as_in_a_record():
    request = Request(method="mmse", prior="photos", strength=0.5, levels=True, scale=2)
    assert Request.from_record(request.to_json()) == request
    for wrong in ({}, {"method": "mmse", "input": {}}):
        with pytest.raises(InputError, match="missing or of a wrong type"):
            Request.from_record(wrong)


def test_numbers_of_numpy_are_numbers():
    request = Request(seed=np.int64(3), strength=np.float32(0.5), deep=np.True_)
    assert request == Request(seed=3, strength=0.5, deep=True)
    assert json.loads(json.dumps(request.to_json())) == request.to_json()
    assert Example().changed({"steps": np.int32(4), "rate": np.array(2.0)}) == Example(4, 2.0)
    with pytest.raises(SettingError, match=r"seed must be a whole number, not 3\.0"):
        Request(seed=np.float64(3))


@dataclass(frozen=True)
class Example(Settings):
    steps: Count = 3
    rate: Positive = 0.5
    share: Share = 0.5
    strength: Annotated[float, Interval(gt=0, le=1)] = 1.0
    rule: Literal["first", "none"] = "first"
    side: Annotated[int, Ge(3)] | None = None
    grid: Literal["uniform"] | tuple[float, ...] = "uniform"
    flip: bool = True


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"steps": 1.0}, "steps must be a whole number"),
        ({"steps": True}, "steps must be a whole number"),
        ({"rate": 0}, "rate must be positive, not 0"),
        ({"rate": float("nan")}, "rate must be a finite number"),
        ({"share": 1.1}, "share must lie between 0 and 1, not at 1.1"),
        ({"strength": 0.0}, r"strength must lie in \(0, 1\], not at 0.0"),
        ({"rule": "often"}, "rule must be first or none, not 'often'"),
        ({"side": 2}, "side must be at least 3"),
        ({"grid": (1.0, "a")}, "grid must be"),
        ({"flip": 1}, "flip must be true or false"),
        ({"rate": "1_0"}, "rate must be a finite number"),
    ],
)
def test_settings_out_of_range_are_refused(change, sentence):
    with pytest.raises(SettingError, match=sentence):
        Example(**change)
    with pytest.raises(SettingError, match=next(iter(change))):
        Example().changed(change)


def test_settings_are_read_from_text_and_json():
    text = {"steps": "4", "rate": "1e-3", "rule": "none", "side": "none", "grid": "1,0.5,0"}
    expected = Example(steps=4, rate=0.001, rule="none", grid=(1.0, 0.5, 0.0), flip=False)
    assert Example().changed({**text, "flip": "false"}) == expected
    assert Example().changed({"grid": [1, 0.5, 0]}).grid == (1, 0.5, 0)
    with pytest.raises(SettingError, match="no setting 'speed'; it has steps, rate"):
        Example().changed({"speed": 3})


def test_seeds_are_derived_apart():
    seeds = {derive(s, *labels) for s in (0, 1, -1) for labels in ((), ("a",), ("a", 1), ("b",))}
    assert len(seeds) == 12 and all(0 <= seed < 2**63 for seed in seeds)
    assert derive(0, "a") == derive(0, "a")
    drawn = benchmark_seeds(0, 5, "method") + benchmark_seeds(0, 5, "degradation")
    assert len(set(drawn)) == 10
