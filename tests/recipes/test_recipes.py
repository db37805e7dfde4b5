from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekd import loading
from edgekd.engine import plan

FOLDER = Path(__file__).parents[2] / "recipes"
STUDIES = FOLDER / "studies"  # no recipes: tests/unit/study/test_study_loading.py
RECIPES = sorted(path for path in FOLDER.rglob("*.yaml") if STUDIES not in path.parents)


def test_there_are_recipes() -> None:
    assert RECIPES, f"no recipe under {FOLDER}"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_recipe_loads(path: Path) -> None:
    loaded = loading.load(path)
    assert loaded.name == path.stem


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_quick_look_is_one_epoch(path: Path) -> None:
    if loading.load(path).recipe.distill:
        loading.load(path, ["distill.epochs=1"])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_its_lock_replays(path: Path, tmp_path: Path) -> None:
    loaded = loading.load(path)
    lock = tmp_path / "recipe.lock.yaml"
    lock.write_text(loading.lock_text(loaded, lock.parent), encoding="utf-8")
    again = loading.load(lock)
    assert again.recipe == loaded.recipe
    assert again.name == loaded.name


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_it_names_the_schema_for_editors(path: Path) -> None:
    schema = "./schema.json" if path.parent == FOLDER else "../schema.json"
    assert path.read_text(encoding="utf-8").startswith(f"# yaml-language-server: $schema={schema}\n")


def test_the_schema_for_editors_is_up_to_date() -> None:
    written = json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))
    assert written == loading.json_schema(), "run: edgekd schema"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_it_plans(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path))
    steps = plan.make(loading.load(path))
    blocked = {step.name: step.reason for step in steps if step.status == "blocked"}
    if "dataset-fashion-mnist" in str(blocked):
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    if path.name == "black-box.yaml":  # another recipe makes its teacher, and this one says which
        file = path.parent / "../../reports/black-box-teacher/latest/artifacts/onnx_float.onnx"
        assert file.exists() or "does not exist" in blocked.pop("teacher")
        blocked = {name: reason for name, reason in blocked.items() if not reason.endswith("is blocked")}
    assert not blocked
    assert steps[-1].name == "package"
