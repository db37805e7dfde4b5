from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from tests.unit.report import sample

from edgekd.report.layouts import html
from edgekd.results.codec import from_json, to_json
from edgekd.results.run import RunResult

VOID = {"meta", "link", "br", "hr", "img", "input"}
SVG_LEAF = {"line", "path", "polyline", "rect", "circle", "polygon"}
RESULTS = [sample.good, sample.bad, sample.empty]
ORDER = ("verdict", "numbers", "models", "pareto", "accuracy", "device", "findings", "parity", "layers",
         "training", "artifacts", "provenance", "not-measured")  # fmt: skip


class Outline(HTMLParser):
    """What the tests look at, and a check that every element that is opened is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[int] = []
        self.sections: list[str] = []
        self.ids: list[str] = []
        self.scripts: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.headers_without_scope = 0
        self.images: list[dict[str, str | None]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"]] if found.get("id") else []
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "action", "data", "srcset"}]
        assert not any(name.startswith("on") or name == "style" for name in found), (tag, found)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "section":
            self.sections.append(found.get("id") or "")
        if tag == "script":
            self.scripts.append(found)
        if tag == "th":
            self.headers_without_scope += found.get("scope") not in {"col", "row"}
        if tag == "svg":
            self.images.append(found)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SVG_LEAF, tag

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(params=RESULTS, ids=lambda make: make.__name__)
def result(request: pytest.FixtureRequest) -> RunResult:
    found: RunResult = request.param()
    return found


def test_the_document_is_sound(result: RunResult) -> None:
    text = html.render(result)
    page = Outline(text)
    assert page.open == []
    devices = ("devices", "device", "device1") if result == sample.bad() else ("device",)
    at = ORDER.index("device")
    assert tuple(page.sections) == (*ORDER[:at], *devices, *ORDER[at + 1 :])
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert len(page.ids) == len(set(page.ids))
    assert page.headers_without_scope == 0
    assert '<html lang="en">' in text


def test_one_file_is_small_and_needs_nothing(result: RunResult) -> None:
    text = html.render(result)
    assert len(text.encode()) < 500_000
    page = Outline(text)
    assert all(link.startswith("#") or link == "data:," for link in page.links)
    assert not re.search(r"url\(|@import|src=", text.split("</style>")[0])
    assert "http://" not in text
    assert "https://" not in text


def test_a_big_run_is_still_a_small_file() -> None:
    """ImageNet for 300 epochs on four devices."""
    result = sample.good()
    curves = tuple(
        replace(curve, terms={name: values[:1] * 300 for name, values in curve.terms.items()}, val={"top1": (0.5,) * 300},
                train={"top1": (0.5,) * 300}, lr=(0.001,) * 300)
        for curve in result.curves
    )  # fmt: skip
    devices = tuple(replace(p, device=f"pi{n}", blocks=p.blocks * 10) for n in range(4) for p in result.profiles)
    data = replace(result.data, classes=tuple(f"some class of animal number {n}" for n in range(1000)))
    text = html.render(replace(result, curves=curves, profiles=devices, data=data))
    assert len(text.encode()) < 500_000
    assert "and 975 more" in text


def test_the_only_script_is_data_and_reads_back(result: RunResult) -> None:
    text = html.render(result)
    assert Outline(text).scripts == [{"type": "application/json", "id": "run"}]
    assert json.loads(embedded(text)) == json.loads(json.dumps(to_json(result)))


@pytest.mark.parametrize(
    "make",
    [
        sample.good,
        sample.empty,
        sample.bad,
    ],
)
def test_the_run_can_be_read_back_from_a_lone_report(make: Callable[[], RunResult]) -> None:
    assert from_json(RunResult, json.loads(embedded(html.render(make())))) == make()


def test_foreign_text_stays_text() -> None:
    text = html.render(sample.bad())
    assert "<script>alert" not in text
    assert text.lower().count("<script") == text.lower().count("</script") == 1
    assert "\x1b" not in text
    assert "\u202e" not in text.split("<script")[0]
    text.encode()  # a lone surrogate would not


def test_the_same_run_gives_the_same_bytes(result: RunResult) -> None:
    assert html.render(result) == html.render(result)


def test_every_chart_is_named_for_those_who_do_not_see_it() -> None:
    images = Outline(html.render(sample.good())).images
    assert len(images) == 13  # six charts in two widths, and the seal of the verdict
    assert all((image.get("role") == "img") != (image.get("aria-hidden") == "true") for image in images)
    assert all(image.get("aria-labelledby") for image in images if image.get("role") == "img")


def embedded(text: str) -> str:
    data = re.search(r'<script type="application/json" id="run">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    return data[1]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_has_contrast_in_light_and_dark() -> None:
    """WCAG 2.2 AA, 1.4.3: 4.5 to 1 for text, in both palettes."""
    css = html.render(sample.good()).split("</style>")[0]
    palettes = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\n *\}", css, re.DOTALL)
    ]
    assert len(palettes) == 2
    for palette in palettes:
        pairs = [(name, ground) for name in ("ink", "soft", "good", "bad", "warn", "accent") for ground in ("bg", "panel")]
        pairs += [(f"s{i}", "bg") for i in range(6)]
        pairs += [(name, f"{name}-bg") for name in ("good", "bad", "warn")]
        pairs += [("ink", f"{name}-bg") for name in ("good", "bad", "warn")]
        weak = {pair: round(contrast(palette[pair[0]], palette[pair[1]]), 2) for pair in pairs}
        assert {pair: value for pair, value in weak.items() if value < 4.5} == {}
