"""The recipe of several inputs in docs/data.md works."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import edgekd
from edgekd import registry

DOCS = Path(__file__).parents[3] / "docs"


def test_the_recipe_of_an_image_and_a_vector_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DOCS / "data.md").read_text().partition("<!-- several inputs -->")[2].partition("\n## ")[0]
    task, net, recipe = re.findall(r"```(?:python|yaml)\n(.*?)```", text, re.DOTALL)
    random, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 60), ("test", 20)):
        facts = random.normal(size=(count, 5)).astype(np.float32)
        arrays |= {
            f"x_{split}.facts": facts,
            f"x_{split}.picture": random.normal(size=(count, 3, 16, 16)).astype(np.float32),
            f"y_{split}": facts[:, :2].copy(),
        }
    np.savez(tmp_path / "pictures.npz", **arrays)  # type: ignore[arg-type]
    for name, content in {"edgekd_pictures.py": task, "net.py": net, "pictures.yaml": recipe}.items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    for folder in (tmp_path, DOCS / "examples" / "edgekd-tabular"):
        monkeypatch.syspath_prepend(str(folder))
    from edgekd_pictures import Pictures  # type: ignore[import-not-found]

    monkeypatch.setitem(registry.tasks._entries, "pictures", Pictures)
    result = edgekd.run(tmp_path / "pictures.yaml", quiet=True).result
    for name in ("edgekd_pictures", "edgekd_tabular"):
        sys.modules.pop(name, None)
    assert result is not None
    (file,) = (model for model in result.models if model.name == "onnx")
    assert [port.name for port in file.inputs] == ["picture", "facts"]
    assert file.figure("rmse") is not None
