from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from edgekd.runtimes import silence


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, Any, Any]:
    """Runtimes that tests use by themselves do not report home either."""
    with silence.off():
        return (yield)
