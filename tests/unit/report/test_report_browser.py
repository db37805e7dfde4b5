"""The report in a real browser."""

from __future__ import annotations

from pathlib import Path

from selenium import webdriver
from tests.browser import assert_clean, browser  # noqa: F401  # a fixture is used by its name
from tests.unit.report import sample, sample_devices

from edgekd.report import html


def test_reports_in_a_browser(browser: webdriver.Chrome, tmp_path: Path) -> None:  # noqa: F811  # the fixture
    for make in (sample.good, sample.bad, sample.empty, sample_devices.devices):
        path = tmp_path / f"{make.__name__}.html"
        path.write_text(html.render(make()), encoding="utf-8")
        assert_clean(browser, path)
