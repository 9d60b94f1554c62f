import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from pristina.bench import CellFailure, CellResult, Published, Row, Suite, Task
from pristina.bench.cells import CellCost, Machine, Trace
from pristina.bench.findings import Findings
from pristina.bench.report import html, markdown

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


def cell(task, row, seed, psnr, seconds=0.5, **more):
    found = CellResult(
        task=task,
        row=row,
        seed=seed,
        key="k",
        pictures=("a", "b"),
        size_px=16,
        recipe="noise:sigma=<0.1>",
        degradation="noise",
        degradation_seeds=(0, 1),
        prior="p",
        pristina="0",
        metrics={"psnr": tuple(psnr), "gmsd": tuple(p / 100 for p in psnr)},
        stopped=("enough at step 3", "enough at step 4"),
        sha256=("", ""),
        shown=(PIXEL,),
        truth=(PIXEL,) if row == "input" else (),
        cost=CellCost(7, 0, seconds, 2_000_000),
        machine=Machine("a machine", 1, "2", "3"),
    )
    return replace(found, **more)


@pytest.fixture
def findings():
    """Two seeds, two pictures, four rows: one knows the truth, one failed on the second task."""
    rows = (
        Row("input", "input", "input"),
        Row("mmse", "mmse", "mmse"),
        Row("diip", "diip", "DIIP & co"),
        Row("dps", "dps", "DPS", knowledge="exact"),
    )
    suite = Suite(
        "s",
        "Title",
        (Task("a", "r", "task a"), Task("b", "r")),
        rows,
        seeds=(0, 1),
        metrics=("psnr", "gmsd"),
    )
    suite = replace(
        suite, published=Published("The Paper", ("psnr", "ssim"), {"diip": {"a": (30.5, 0.9)}})
    )
    cells = [cell(t, "input", s, [20, 22]) for t in "ab" for s in (0, 1)]
    cells += [cell(t, "mmse", s, [24, 26 + s]) for t in "ab" for s in (0, 1)]
    cells += [
        cell("a", "diip", s, [23, 24], trace=Trace((1, 2), (0.2, 0.1), (20, 23.5))) for s in (0, 1)
    ]
    cells += [CellFailure("b", "diip", s, "k", "it cannot <do> that") for s in (0, 1)]
    cells += [cell(t, "dps", s, [28, 29]) for t in "ab" for s in (0, 1)]
    return Findings(suite, cells)


def test_means_are_over_seeds_and_errors_over_pictures(findings):
    line = next(x for x in findings.lines if x.row.name == "mmse")
    mean = findings.mean(line, "a", "psnr")
    assert mean.value == 25.25  # Pictures: 24 and 26.5.
    assert mean.error == pytest.approx(1.25)
    assert (
        findings.mean(next(x for x in findings.lines if x.row.name == "diip"), "b", "psnr") is None
    )


def test_seconds_are_a_median_which_one_disturbed_cell_does_not_spoil(findings):
    three = replace(findings.suite, seeds=(0, 1, 2))
    cells = [
        cell("a", "mmse", s, [24, 26], seconds=seconds)
        for s, seconds in enumerate((1.0, 90.0, 2.0))
    ]
    line = next(x for x in findings.lines if x.row.name == "mmse")
    assert Findings(three, cells).seconds(line, "a") == 2.0
    assert Findings(three, cells).seconds(line, "b") is None


def test_best_and_second_best_leave_the_oracle_out(findings):
    assert findings.marks("a", "psnr") == {"mmse": "best", "DIIP & co": "second"}
    assert findings.marks("a", "gmsd") == {
        "input": "best",
        "DIIP & co": "second",
    }  # Less is better.
    assert findings.marks("b", "psnr") == {"mmse": "best", "input": "second"}
    assert findings.marks("a", "noise") == {}


def test_markdown_tables(findings):
    text = markdown(findings, [("command", "pristina bench s"), ("seeds", "0, 1")])
    assert "* command: `pristina bench s`\n* seeds: 0, 1\n" in text
    assert (
        "| method | task a | b |\n| --- | ---: | ---: |\n"
        "| input | 21.00 | _21.00_ |\n| mmse | **25.25** | **25.25** |" in text
    )
    assert "| DIIP & co | _23.50_ (paper 30.50) | - |" in text
    assert "| DPS (knows the degradation) | 28.50 | 28.50 |" in text
    assert (
        "The Paper\n\n| method | task a | b |\n| --- | ---: | ---: |\n"
        "| DIIP & co | 30.50 / 0.900 | - |" in text
    )
    assert "* diip, b: it cannot <do> that" in text


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.sources, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [
            value for name, value in attrs if name in ("src", "href", "action", "srcset", "data")
        ]


def test_the_page_loads_nothing_else(findings):
    text = html(findings, [("command", "pristina bench s")])
    page = Page()
    page.feed(text)
    assert page.sources and all(s.startswith("data:image/") for s in page.sources)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"url\(|@import", text)
    assert (
        "DIIP &amp; co" in text and "<li>diip, b: it cannot &lt;do&gt; that</li>" in text
    )  # Texts of suites are escaped.
    assert re.search(r'<td class="best" title="± 1.250">25.25</td>', text)
    assert '<td class="second" title="± 0.500">23.50<small class="paper">30.50</small></td>' in text
    assert '<tr class="oracle"><td>DPS' in text
    assert "enough: 4" in text
    for source in page.sources:
        kind, data = re.fullmatch(r"data:image/([a-z+]+);base64,(.*)", source).groups()
        if kind == "png":
            Image.open(io.BytesIO(base64.b64decode(data))).load()
        else:
            assert b"<svg" in base64.b64decode(data)


def test_the_page_is_the_same_every_time(findings):
    assert html(findings, []) == html(findings, [])
