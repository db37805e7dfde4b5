"""docs/formats.md says of each format what its exporter says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "formats.py"


def test_the_table_of_precisions_is_that_of_the_exporters() -> None:
    spec = importlib.util.spec_from_file_location("formats", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.PAGE.read_text(encoding="utf-8")
    table = module.supported()
    assert table in page, "docs/formats.md is out of date: python benchmarks/formats.py"
    assert table.count("\n") == 8
    assert "| `int16x8` | no: " in table
