"""The recipes of docs/distillation.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd import plan
from edgekd.loading import load

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes" / "regimes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_regime_can_run_and_has_its_section(path: Path) -> None:
    steps = plan.make(load(path))
    assert [step.reason for step in steps if step.status == "blocked"] == []
    assert {"distill", "quantize", "export.onnx"} <= {step.name for step in steps}
    assert f"[`{path.name}`](../recipes/regimes/{path.name})" in (ROOT / "docs" / "distillation.md").read_text("utf-8")
