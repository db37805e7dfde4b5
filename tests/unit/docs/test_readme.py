"""The measured parts of the README files are those of the committed example runs."""

from __future__ import annotations

import re
from pathlib import Path

from tests.scripts import benchmark

from edgekd.loading import load

ROOT = Path(__file__).parents[3]


def test_the_figures_in_the_readme_are_those_of_the_example_run() -> None:
    module = benchmark("readme")
    for path, text in module.rendered().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date: python benchmarks/readme.py"
        assert "Top-1" in text or "top-1" in text


def test_the_readme_is_short_and_its_recipe_is_valid(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 100
    (recipe,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(recipe.splitlines()) <= 10
    (tmp_path / "my.yaml").write_text(recipe, encoding="utf-8")
    loaded = load(tmp_path / "my.yaml").recipe
    assert [one.format for one in loaded.export] == ["onnx", "tflite", "openvino"]


def test_the_example_names_no_folder_of_the_machine_that_made_it() -> None:
    files = [path for path in (ROOT / "reports" / "examples").rglob("*") if path.is_file()]
    assert len(files) >= 4
    for path in files:
        found = re.findall(r"(?<![\w./:])/[a-z]+/[\w./-]+", path.read_text("utf-8"))
        assert not found, f"{path.name}: {found[:3]}"
