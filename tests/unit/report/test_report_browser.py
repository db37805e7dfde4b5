"""The report in a real browser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from selenium import webdriver
from tests.browser import assert_clean, browser  # noqa: F401  # a fixture is used by its name
from tests.unit.report import sample, sample_devices

from edgekd.report.layouts import html
from edgekd.results.fidelity import Figure
from edgekd.results.findings import said
from edgekd.results.models import ModelRecord
from edgekd.results.profile import Comparison


def test_reports_in_a_browser(browser: webdriver.Chrome, tmp_path: Path) -> None:  # noqa: F811  # the fixture
    for make in (sample.good, sample.bad, sample.empty, sample_devices.devices):
        path = tmp_path / f"{make.__name__}.html"
        path.write_text(html.render(make()), encoding="utf-8")
        assert_clean(browser, path)


def test_a_phone_shows_verdicts_and_names_of_close_points_do_not_touch(
    browser: webdriver.Chrome,  # noqa: F811  # the fixture
    tmp_path: Path,
) -> None:
    result = sample.good()
    close = tuple(
        replace(p, latency_ms=replace(p.latency_ms, p50=1 + 0.01 * number, ci=(0.5, 2.0)))
        for number, p in enumerate(result.profiles)
    )
    alike = tuple(replace(m, metrics=(sample.measured(10000, top1=0.9),)) for m in result.models)
    path = tmp_path / "close.html"
    path.write_text(html.render(replace(result, profiles=close, models=alike)), encoding="utf-8")
    browser.get(path.as_uri())
    for width in (1280, 390):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        boxes = browser.execute_script(
            "return [...document.querySelectorAll('#pareto svg text.halo')].map(e => e.getBoundingClientRect())"
            ".filter(b => b.width).map(b => [b.left, b.top + 3, b.right, b.bottom - 3])"
        )
        assert len(boxes) > 1
        for number, a in enumerate(boxes):
            for b in boxes[:number]:
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    verdict = browser.execute_script("return document.querySelector('.gates td.good').getBoundingClientRect().right")
    assert verdict <= 390


def test_reasons_make_no_row_high_on_a_phone(browser: webdriver.Chrome, tmp_path: Path) -> None:  # noqa: F811
    result = sample_devices.devices()
    reasons = ("the blocks differ by 20% (interquartile range over median)", "other processes kept 1.4 of 2 cores busy") * 2
    doubt = replace(result.profiles[0].trust, verdict="untrusted", reasons=tuple(map(said, reasons)))
    profiles = tuple(replace(profile, trust=doubt) for profile in result.profiles)
    compared = (Comparison("onnx", "onnx", "pi4", "two sessions", "refused", reasons=tuple(map(said, reasons))),)
    path = tmp_path / "profile.html"
    made = replace(result, kind="profile", profiles=profiles, comparisons=compared, gates=())
    path.write_text(html.render(made), encoding="utf-8")
    browser.get(path.as_uri())
    size = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    heights = browser.execute_script(
        "return [...document.querySelectorAll('#models tbody tr, #comparison tbody tr')].map("
        "r => r.getBoundingClientRect().height)"
    )
    assert len(heights) > len(profiles)
    assert max(heights) < 120


def test_no_column_of_the_models_is_cut_off_on_a_screen(browser: webdriver.Chrome, tmp_path: Path) -> None:  # noqa: F811
    """With the longest words and figures that a column has: untrusted times, undecided gates, wide intervals."""
    result = sample.good()
    doubt = replace(result.profiles[0].trust, verdict="untrusted", reasons=(said("load"),))
    tiny = [replace(p.latency_ms, p50=0.00707, p90=0.00926) for p in result.profiles]
    profiles = tuple(replace(p, trust=doubt, latency_ms=times) for p, times in zip(result.profiles, tiny, strict=True))
    gates = tuple(replace(gate, verdict="undecided", blocks=False) for gate in result.gates)
    wide = Figure(-0.0476, 42, -0.1214, 0.1231)

    def harder(model: ModelRecord) -> ModelRecord:
        close = model.fidelity and replace(model.fidelity, drops={"top1": wide}, agreement=Figure(0.952, 42, 0.842, 0.987))
        small = replace(model, params=6190, macs=203, bytes=8700) if model.params else model
        return replace(small, fidelity=close, source="torchvision:mobilenet_v3_small")

    path = tmp_path / "wide.html"
    made = replace(result, profiles=profiles, gates=gates, models=tuple(map(harder, result.models)), verdict="undecided")
    path.write_text(html.render(made), encoding="utf-8")
    browser.get(path.as_uri())
    size = {"width": 1200, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    tables = browser.execute_script(
        "return [...document.querySelectorAll('#models .scroll, #numbers .scroll')].map(t => [t.scrollWidth, t.clientWidth])"
    )
    assert len(tables) == 2
    assert all(inside <= outside for inside, outside in tables)
