"""What benchmarks/regimes.py takes out of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.scripts import benchmark

from edgekd.results.run import read_run

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def module() -> Any:
    return benchmark("regimes")


def test_figures_are_those_of_the_report(module: Any) -> None:
    result = read_run(ROOT / "reports" / "examples" / "mobilenet")
    found = module.figures(result)
    models = {model.name: top1.value for model in result.models if (top1 := model.figure("top1"))}
    passed, of = found["gates"]
    assert passed == of == len(result.gates) > 0, "the example passes"
    assert [found[key] for key in ("teacher", "alone", "student", "onnx", "tflite", "openvino")] == [
        models[name] for name in ("teacher", "student_alone", "distilled", "onnx", "tflite", "openvino")
    ]
    page = module.table({"mutual": {**found, "alone": None}})
    assert page.count("| [") == 1, "a regime that was not run has no row"
    assert f" | {100 * models['teacher']:.1f} | — | {100 * models['distilled']:.1f} | " in page
    assert f"{of} of {of} |" in page


def test_what_another_regime_reads_is_made_before_it(module: Any) -> None:
    names = module.names()
    assert names.index("black-box-teacher") < names.index("black-box")
    assert len(names) == len(list((ROOT / "recipes" / "regimes").glob("*.yaml")))
