"""The measured parts of the README files are those of the committed example runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "readme.py"


def test_the_figures_in_the_readme_are_those_of_the_example_run() -> None:
    spec = importlib.util.spec_from_file_location("readme", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path, text in module.rendered().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date: python benchmarks/readme.py"
        assert "Top-1" in text or "top-1" in text
