"""Words and forms of the page."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pytest
from annotated_types import Interval

import pristina
from pristina.app.form import attribute_words
from pristina.app.rules import safe_name
from pristina.app.words import (
    DAMAGE,
    command_line,
    cost_words,
    damage_words,
    notes_but_reason,
    plan_words,
    python_code,
    time_words,
)
from pristina.cli import app
from pristina.estimates import Estimate
from pristina.methods.index import METHODS
from pristina.reading import NAMES
from pristina.settings import Count, Positive, Share, bounds_of, field_types, range_in_words
from tests.app.conftest import encoded, painted

REQUEST = pristina.Request(
    method="bird",
    prior="faces",
    recipe="blur:sigma=2 | noise:sigma=0.05",
    preset="as_released",
    settings={"iterations": 7, "centre": False},
    seed=3,
    samples=2,
    strength=0.4,
    grain=0.25,
    mask="it's holes.png",
    protect="face.png",
    scratches=True,
    levels=True,
    scale=2,
)


def test_the_command_line_asks_for_the_same():
    words = shlex.split(command_line(REQUEST, "it's me.png", "out.png"))
    _, bound, _ = app.parse_args(words[1:], print_error=False, exit_on_error=False)
    given = bound.arguments
    assert given["pictures"] == [Path("it's me.png")] and given["output"] == Path("out.png")
    assert given["operator"] == REQUEST.recipe and given["seed"] == 3 and given["samples"] == 2
    assert (given["strength"], given["grain"]) == (0.4, 0.25)
    assert (given["mask"], given["protect"]) == (Path("it's holes.png"), Path("face.png"))
    assert given["scratches"] and given["levels"] and given["scale"] == 2 and "deep" not in given
    deep = command_line(pristina.Request(deep=True), "in.png", "out.png")
    assert app.parse_args(deep.split()[1:], exit_on_error=False)[1].arguments["deep"]
    changes = dict(pair.split("=") for pair in given["set_"])
    settings = METHODS["bird"].make_settings(given["preset"], changes)
    assert settings == METHODS["bird"].make_settings(REQUEST.preset, REQUEST.settings)


def test_the_lines_of_python_ask_for_the_same(monkeypatch):
    seen = {}

    class Done:
        class picture:
            save = staticmethod(lambda path: seen.update(saved=path))

    def restore(picture, **options):
        seen.update(options, picture=picture)
        return Done

    monkeypatch.setattr(pristina, "restore", restore, raising=False)
    exec(python_code(REQUEST, 'a "b".png', "out.png"), {})
    assert seen["picture"] == 'a "b".png' and seen["saved"] == "out.png"
    assert seen["operator"] == REQUEST.recipe and seen["settings"] == dict(REQUEST.settings)
    assert (seen["prior"], seen["preset"], seen["seed"], seen["samples"]) == (
        "faces", "as_released", 3, 2,
    )  # fmt: skip
    assert (seen["strength"], seen["grain"], seen["scratches"]) == (0.4, 0.25, True)
    assert (seen["mask"], seen["protect"]) == ("it's holes.png", "face.png")
    assert (seen["levels"], seen["scale"]) == (True, 2)
    assert "deep" not in seen


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_has_words(name):
    kind = METHODS[name].settings
    assert set(attribute_words(kind)) == set(field_types(kind))


def test_ranges_are_read_from_types():
    found = [bounds_of(kind)[:2] for kind in (Count, Positive, Share, str)]
    assert found == [(1, None), (0, None), (0, 1), (None, None)]
    open_end = Annotated[float, Interval(ge=0, lt=1)]
    words = [range_in_words(kind) for kind in (str, open_end, tuple[Positive, ...])]
    assert words == ["", "At least 0 and less than 1.", "More than 0."]


def test_every_kind_of_damage_has_words():
    assert set(DAMAGE) == set(NAMES)


def test_damage_and_costs_are_said_in_words():
    plan = pristina.plan(pristina.Picture.decode(encoded(), "in.png"))
    assert "noise" in damage_words(plan.reading).lower()
    kinds = {"noise": 0.95, "jpeg": 0.6, "shake": 0.8, "grain": 0.1}
    assert damage_words(replace(plan.reading, kinds=kinds)) == (
        "Coloured or grey specks (noise); probably a camera that moved; "
        "perhaps marks of JPEG compression."
    )
    unseen = replace(plan.reading, kinds={"noise": 0.1})
    assert damage_words(unseen) == "No damage that can be repaired was seen."
    assert plan.reason in plan.notes
    assert notes_but_reason(("Filled.", plan.reason), plan.reason) == ["Filled."]
    assert notes_but_reason(("Filled.",), "") == ["Filled."]
    words = cost_words(plan, Estimate(12.4, 6 * 10**8, 12.4))
    assert words == "This takes about 12 seconds and 0.6 GB of memory here."
    assert time_words(600) == "10 minutes"


def test_what_will_be_done_is_said_in_words(tmp_path):
    def said(**asked):
        return plan_words(pristina.plan(pristina.Picture.decode(encoded(), "in.png"), **asked))

    blind = "The damage will be removed by the network “blind”, in one pass."
    assert said(method="indi", prior="blind") == blind
    around = "Faded colours will be freshened. The picture will become twice as large. "
    assert (
        said(method="nothing", levels=True, scale=2) == f"{around}The rest will be left as it is."
    )
    assert said(method="nothing") == "The picture will be left as it is."
    assert "Its prior knows aligned faces" in said(method="mmse", prior="faces")
    mask = tmp_path / "mask.png"
    mask.write_bytes(painted((3, 3, 9, 9)))
    assert said(method="nothing", mask=mask).startswith(
        "The marked places will be filled in. The rest"
    )


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\ida.jpg", "ida.jpg"),
        ("a\0b\n.png", "ab.png"),
        ("..", "picture"),
        ("", "picture"),
        (None, "picture"),
        ("x" * 300 + ".jpeg", "x" * 90 + ".jpeg"),
    ],
)
def test_names_of_files_are_made_safe(name, safe):
    assert safe_name(name) == safe
