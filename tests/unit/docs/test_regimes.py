"""The recipes of docs/distillation.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.engine import plan
from edgekd.loading import load

ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "recipes" / "regimes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_regime_can_run_and_has_its_section(path: Path) -> None:
    steps = plan.make(load(path))
    waits = [step.reason for step in steps if step.status == "blocked"]
    made = ROOT / "reports/black-box-teacher/latest/artifacts/onnx_float.onnx"
    if path.stem == "black-box" and not made.exists():  # another recipe makes it
        assert "onnx_float.onnx does not exist" in waits[0]
    else:
        assert waits == []
    wanted = {"student", "export.onnx_float"} if path.stem == "black-box-teacher" else {"distill", "quantize", "export.onnx"}
    assert wanted <= {step.name for step in steps}
    assert f"[`{path.name}`](../recipes/regimes/{path.name})" in (ROOT / "docs" / "distillation.md").read_text("utf-8")
