"""The measured parts of the README files are those of the committed example runs."""

from __future__ import annotations

from tests.scripts import benchmark


def test_the_figures_in_the_readme_are_those_of_the_example_run() -> None:
    module = benchmark("readme")
    for path, text in module.rendered().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date: python benchmarks/readme.py"
        assert "Top-1" in text or "top-1" in text
