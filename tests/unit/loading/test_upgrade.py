"""Recipes of earlier versions: read as before, and rewritten at one place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekd.cli import cli
from edgekd.engine import plan
from edgekd.errors import RecipeError
from edgekd.loading import load, upgrade

RECIPE = """\
# a comment
edgekd: 1   # which stays
data: {source: fashion-mnist-mini}   # and   spaces
student: {model: "edgekd:resnet10"}
distill: {epochs: 1, losses: [{kind: task}]}
"""
STUDY = """\
study: 1
recipe: {edgekd: 1, data: {source: fashion-mnist-mini}}
methods: {fitnet: [{kind: fitnet}]}
"""


def invoke(*args: str) -> str:
    return CliRunner().invoke(cli, ["upgrade", *args], catch_exceptions=False, standalone_mode=False).stdout


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (RECIPE, RECIPE.replace("edgekd: 1 ", "edgekd: 2 ")),
        (RECIPE.replace("\n", "\r\n"), RECIPE.replace("edgekd: 1 ", "edgekd: 2 ").replace("\n", "\r\n")),
        (f"\ufeff{RECIPE}", "\ufeff" + RECIPE.replace("edgekd: 1 ", "edgekd: 2 ")),
        (STUDY, STUDY.replace("edgekd: 1,", "edgekd: 2,")),
        ("{seed: 0, edgekd: &v 0x1}\n", "{seed: 0, edgekd: &v 2}\n"),
        ("seed: 0\nedgekd:\n  1", "seed: 0\nedgekd:\n  2"),
        (STUDY.replace("{edgekd: 1, data: {source: fashion-mnist-mini}}", "mobilenet"), ""),
        (RECIPE.replace("edgekd: 1 ", "edgekd: 2 "), ""),
    ],
)
def test_only_the_version_is_rewritten(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(before.encode())
    invoke("--check", str(path))
    invoke("--diff", str(path))
    assert path.read_bytes().decode() == before
    said = invoke(str(path))
    assert path.read_bytes().decode() == (after or before)
    assert ("upgraded to version 2" in said) == bool(after)


def test_what_is_said(tmp_path: Path) -> None:
    path, study = tmp_path / "r.yaml", tmp_path / "s.yaml"
    path.write_text(RECIPE)
    study.write_text(STUDY.replace("{edgekd: 1, data: {source: fashion-mnist-mini}}", "mobilenet"))
    assert invoke("--check", str(path)) == f"{path}: of an earlier version: edgekd upgrade {path}\n"
    lines = invoke("--diff", str(path)).splitlines()
    assert [line for line in lines if line[0] in "+-"][2:] == ["-edgekd: 1   # which stays", "+edgekd: 2   # which stays"]
    rows = json.loads(invoke("--json", str(path), str(study)))["files"]
    assert [(row["status"], row["rewritten"]) for row in rows] == [("older", True), ("no version", False)]
    assert invoke(str(path), str(study)).splitlines() == [
        f"{path}: version 2 already", f"{study}: a study whose recipe is a file of its own: upgrade that one",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("edgekd: 3\n", "version 3, made for a newer edgekd"),
        ("edgekd: 0\n", "version 0; edgekd"),
        ("seed: 1\n", "it has no version"),
        ("threads: &v 1\nedgekd: *v\n", "this version cannot be rewritten in its place"),
        ("edgekd: &v 1\nthreads: *v\n", "this version cannot be rewritten in its place"),
        ("edgekd: 1\nlock: {recipe: r.yaml}\n", "is a lock, which keeps its version"),
        ("edgekd: [1\nseed: 1\n", "is not closed"),
    ],
)
def test_what_cannot_be_upgraded_is_said_and_nothing_is_rewritten(tmp_path: Path, text: str, told: str) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(RECIPE)
    bad.write_text(text)
    with pytest.raises(RecipeError) as caught:
        invoke(str(good), str(bad))
    assert told in str(caught.value)
    assert caught.value.problems[0].hint
    assert (good.read_text(), bad.read_text()) == (RECIPE, text)


def test_a_shipped_recipe_is_not_rewritten() -> None:
    with pytest.raises(RecipeError, match="ships with edgekd"):
        invoke("mobilenet")


def test_both_versions_are_the_same_recipe_and_have_the_same_stages(tmp_path: Path) -> None:
    """No default differs yet, so what was made with version 1 is found in the cache by version 2."""
    keys = []
    for version in (1, 2):
        path = tmp_path / f"v{version}.yaml"
        path.write_text(RECIPE.replace("edgekd: 1 ", f"edgekd: {version} "))
        loaded = load(path)
        assert loaded.recipe.edgekd == version
        keys.append([step.key for step in plan.make(loaded)])
    assert keys[0] == keys[1]


def test_an_earlier_recipe_keeps_its_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = {1: {("distill", "lr"): 0.5, ("quantize", "epochs"): 7, ("seed",): 3}}
    monkeypatch.setattr(upgrade, "DEFAULTS", earlier)
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    first = load(path).recipe
    assert first.distill is not None
    assert (first.distill.lr, first.seed, first.quantize) == (0.5, 3, None)
    written = load(path, ["distill.lr=0.25", "seed=0"]).recipe
    assert written.distill is not None
    assert (written.distill.lr, written.seed) == (0.25, 0)
    invoke(str(path))
    second = load(path).recipe
    assert second.distill is not None
    assert second.distill.lr != 0.5
    assert second.seed == 0
