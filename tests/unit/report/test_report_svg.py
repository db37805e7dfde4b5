from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import combinations, pairwise

import pytest

from edgekd.report.charts import curves, quality, svg, timing
from edgekd.report.charts.curves import Line
from edgekd.report.charts.quality import Budget, Point, Step
from edgekd.report.metric import MetricWords
from edgekd.report.page import Chart
from edgekd.results.models import MetricFacts

TOP1 = MetricWords(MetricFacts("top1", "top-1", "%", "higher"))


def drawn(chart: Chart) -> list[ET.Element]:
    """Both drawings, parsed: a chart that is not well-formed breaks the page around it."""
    return [ET.fromstring(str(one)) for one in (chart.wide, chart.narrow)]


def texts(image: ET.Element) -> list[str]:
    return [part.text or "" for part in image.iter("text")]


def test_scales_give_round_ticks() -> None:
    scale = svg.Scale(0, 1.07, 0, 100)
    assert scale.ticks(5) == (0.0, 0.5, 1.0)
    assert scale.ticks(8) == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert svg.tick_text(0.2, 0.2) == "0.2"
    assert svg.tick_text(-20, 10) == "−20"


def test_equal_values_still_have_a_scale() -> None:
    low, high = svg.padded([91.0, 91.0], 0.1, 0.5, 100.0)
    assert low < 91.0 < high
    assert svg.padded([100.0], 0.1, 0.5, 100.0)[1] == 100.0


def test_labels_keep_apart_in_order() -> None:
    placed = svg.spread([50, 51, 52, 10], 15, 0, 100)
    ordered = sorted(placed)
    assert all(b - a >= 15 - 1e-9 for a, b in pairwise(ordered))
    assert placed[3] == min(placed)
    assert placed[0] < placed[1] < placed[2]


def test_a_chart_is_an_image_with_title_and_description() -> None:
    chart = quality.metric_steps([Step("Teacher <1>", 93.0, "93.0")], "caption", TOP1)
    for image in drawn(chart):
        assert image.get("role") == "img"
        named = {part.get("id") for part in image if part.tag in {"title", "desc"}}
        assert set((image.get("aria-labelledby") or "").split()) == named
        assert "Teacher <1>" in texts(image)


def test_pareto_draws_every_artifact_and_budget() -> None:
    points = [Point(f"A{i}", "circle", bool(i % 2), 1.0 + i, 0.9 + i, 1.1 + i, 90.0 + i) for i in range(4)]
    points.append(Point("doubted", "square", True, 2.0, 1.9, 2.1, 91.0, doubt=True))
    budgets = [Budget("x", 3.0, "p50 ≤ 3 ms"), Budget("y", 89.0, "top-1 ≥ 89 %"), Budget("x", 900.0, "far")]
    chart = quality.pareto([quality.Panel("host", tuple(points), tuple(budgets))], "", TOP1)
    for image in drawn(chart):
        written = texts(image)
        assert {"A0", "A1", "A2", "A3", "doubted △", "p50 ≤ 3 ms", "top-1 ≥ 89 %", "far →"} <= set(written)
        assert sum(part.get("class") == "budget" for part in image.iter("line")) == 2
    assert "budget far" in chart.told


@pytest.mark.parametrize("start", [0.1, 0.5, 0.9])
def test_labels_of_the_pareto_never_overlap(start: float) -> None:
    """Files with one accuracy and close times, at either edge of the chart."""
    names = ("ONNX float32", "TFLite float32", "OpenVINO float32", "ONNX int8", "TFLite int8", "OpenVINO int8")
    times = [start + 0.02 * number for number in range(len(names))]
    points = tuple(
        Point(name, "circle", True, p50, p50, p50 + 0.02, 100.0, True) for name, p50 in zip(names, times, strict=True)
    )
    budgets = (Budget("y", 98.0, "drop ≤ 2 points"), Budget("x", 1.0, "p50 ≤ 1 ms"))
    panels = [quality.Panel(device, points, budgets) for device in ("host", "pi")]
    for image in (image for count in (1, 2) for image in drawn(quality.pareto(panels[:count], "", TOP1))):
        found = [part for part in image.iter("text") if part.get("class") == "name halo"]
        boxes = [
            quality._box(float(part.get("x", 0)), float(part.get("y", 0)), part.text or "", part.get("text-anchor", "start"))
            for part in found
        ]
        assert len(boxes) % len(names) == 0
        assert boxes
        for a, b in combinations(boxes, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_a_marker_never_hides_another_one() -> None:
    """Where they lie on each other, each is a ring around the next, and the filled one is inside, drawn last."""
    places = [(100.0, 50.0), (101.0, 50.0), (100.0, 51.0), (300.0, 50.0)]
    sizes = quality.nested(places, [True, False, False, False])
    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[3] == sizes[0] == quality.SIZE
    points = (Point("int8", "square", True, 1.0, 0.9, 1.1, 90.0), Point("float", "square", False, 1.0, 0.9, 1.1, 90.0),
              Point("far", "circle", False, 5.0, 4.9, 5.1, 91.0))  # fmt: skip
    for image in drawn(quality.pareto([quality.Panel("host", points, ())], "", TOP1)):
        marks = list(image.iter("polygon"))
        assert [part.get("class") for part in marks] == ["dot hollow", "dot"]
        left = [min(float(dot.split(",")[0]) for dot in (part.get("points") or "").split()) for part in marks]
        assert left[0] < left[1] - 2


@pytest.mark.parametrize("texts", [("0.00707", "0.00926"), ("1.00", "2.00"), ("12,300", "8.11×10⁻⁵")])
def test_figures_of_the_latency_chart_keep_apart(texts: tuple[str, str]) -> None:
    rows = [timing.Range("TFLite float32", 1.0, 1.1, 1.3, 0.9, 1.1, *texts, False)]
    for image in drawn(timing.ranges("host", "host", rows, "")):
        p50, p99 = (next(part for part in image.iter("text") if part.text == text) for text in texts)
        ends = [float(part.get("x") or 0) for part in (p50, p99)]
        assert {part.get("text-anchor") for part in (p50, p99)} == {"end"}
        assert ends[0] + 8 <= ends[1] - svg.CHAR * len(texts[1])
        drawings = [float(part.get("x2") or 0) for part in image.iter("line")]
        assert max(drawings) + 8 <= ends[0] - svg.CHAR * len(texts[0])


def test_the_frontier_holds_only_what_nothing_beats() -> None:
    points = [Point(name, "circle", True, p50, p50, p50, top1) for name, p50, top1 in
              (("a", 1.0, 90.0), ("worse", 2.0, 89.0), ("b", 3.0, 92.0))]  # fmt: skip
    assert [point.label for point in quality._frontier(points, TOP1)] == ["a", "b"]


@pytest.mark.parametrize("epochs", [1, 2, 200])
def test_training_of_any_length_can_be_drawn(epochs: int) -> None:
    lines = [Line("a", tuple(50.0 + i / 10 for i in range(epochs)), epochs - 1), Line("b", (3.0,), 0, epochs)]
    for image in drawn(curves.validation(lines, "", TOP1)):
        assert {"a", "b"} <= set(texts(image))
    assert drawn(curves.losses({"net": [Line("zero", (0.0,) * epochs)]}, ""))


def test_timing_charts_say_what_they_show() -> None:
    rows = [timing.Range("onnx", 1.0, 1.1, 1.3, 0.99, 1.01, "1.00", "1.30", doubt=True)]
    chart = timing.ranges("d0", "host", rows, "")
    assert chart.told == "onnx: p50 1.00 ms, p99 1.30 ms."
    assert all("onnx △" in texts(image) for image in drawn(chart))
    blocks = [timing.Blocks(str(i), (1.0, 1.2), "drift +20.0 %", doubt=False) for i in range(5)]
    assert all(len(image.findall("polyline")) == 5 for image in drawn(timing.drift("d0", "host", blocks, "")))
