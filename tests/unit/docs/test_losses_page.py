"""docs/losses.md says of each loss what the loss says, and of its gain what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.scripts import benchmark

from edgekd.registry import losses

PAIR = "resnet32x4-resnet8x4"


@pytest.fixture(scope="module")
def page() -> Any:
    return benchmark("losses_page")


def test_the_table_is_up_to_date(page: Any) -> None:
    table = page.table()
    assert table in page.PAGE.read_text(encoding="utf-8"), "docs/losses.md is out of date: python benchmarks/losses_page.py"
    assert all(f"| `{name}` |" in table for name in losses.names() if name != "task")


def test_a_gain_is_of_three_seeds_and_of_the_options_that_are_shipped(page: Any, tmp_path: Path) -> None:
    def rows(kind: str, top1: list[float], library: str = "edgekd", **options: float) -> list[str]:
        return [
            json.dumps(
                {"pair": PAIR, "library": library, "kind": kind, "seed": seed, "test_last": value, "options": options}
            )
            for seed, value in enumerate(top1)
        ]

    lines = [
        *rows("alone", [0.80, 0.81, 0.82], library=""), *rows("kd", [0.82, 0.83, 0.85], temperature=4.0),
        *rows("rkd", [0.9, 0.9]), *rows("dist", [0.9, 0.9, 0.9], beta=3.0),
        *rows("pkt", [0.9, 0.9, 0.9], library="torchdistill"),
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    assert page.measured(tmp_path / "rows.jsonl") == {(PAIR, "kd"): "+2.3 ± 0.6"}
