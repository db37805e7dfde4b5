"""docs/support.md says what the registries, the gaps of the suites and the last measurement of operators say."""

from __future__ import annotations

import json

from tests.scripts import benchmark

from edgekd.registry import exporters


def test_the_tables_are_up_to_date() -> None:
    module = benchmark("support")
    page = module.PAGE.read_text(encoding="utf-8")
    assert module.written(page) == page, "docs/support.md is out of date: python benchmarks/support.py"


def test_every_runtime_and_operator_was_measured() -> None:
    module = benchmark("support")
    found = json.loads(module.OPERATORS.read_text("utf-8"))
    assert {*found["runtimes"]} == {*exporters.names()}
    assert [*found["operators"]] == [name for name, _ in module.layers()], "python benchmarks/support.py --measure"
