"""A real browser, and what a report must be in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from edgekd.results.upgrade import SCHEMA

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER or ""))
    try:
        yield driver
    finally:
        driver.quit()


def assert_clean(browser: webdriver.Chrome, path: Path) -> None:
    """Nothing on the console, nothing loaded, nothing sticking out at 1280 and 400 px, and the run readable inside."""
    browser.get(path.as_uri())
    for width in (1280, 400):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.execute_script(
            "return [...document.querySelectorAll('.chart')].filter(c => c.offsetParent).every("
            "c => c.getBoundingClientRect().right <= innerWidth)"
        )
    assert browser.execute_script("return JSON.parse(document.getElementById('run').textContent).schema") == SCHEMA
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    # The browser's own new-tab page is in this log too; only what the report asked for counts.
    asked = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    asked = [request for request in asked if request["documentURL"] == path.as_uri()]
    assert {request["request"]["url"] for request in asked} <= {path.as_uri(), "data:,"}
    failed = {m["params"]["requestId"] for m in messages if m["method"] == "Network.loadingFailed"}
    assert asked
    assert not failed & {request["requestId"] for request in asked}
