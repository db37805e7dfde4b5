"""docs/formats.md says of each format what its exporter says."""

from __future__ import annotations

from tests.scripts import benchmark


def test_the_table_of_precisions_is_that_of_the_exporters() -> None:
    module = benchmark("formats")
    page = module.PAGE.read_text(encoding="utf-8")
    table = module.supported()
    assert table in page, "docs/formats.md is out of date: python benchmarks/formats.py"
    assert table.count("\n") == 8
    assert "| `int16x8` | no: " in table
