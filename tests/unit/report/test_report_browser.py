"""The report in a real browser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from selenium import webdriver
from tests.browser import assert_clean, browser  # noqa: F401  # a fixture is used by its name
from tests.unit.report import sample, sample_devices

from edgekd.report.layouts import html
from edgekd.results.findings import said
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
