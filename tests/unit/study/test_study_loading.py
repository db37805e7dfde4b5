from __future__ import annotations

import json
import os
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from edgekd.errors import RecipeError
from edgekd.loading import load
from edgekd.loading.schema import study_schema
from edgekd.study.checking import check as check_study
from edgekd.study.loading import load_study
from edgekd.study.runner import planned

ROOT = Path(__file__).parents[3]
CASES = sorted((ROOT / "tests" / "golden" / "study_errors").glob("*.yaml"))
SHIPPED = sorted((ROOT / "recipes" / "studies").glob("*.yaml"))

STUDY = """\
study: 1
recipe:
  edgekd: 1
  data: {source: fashion-mnist-mini}
  teacher: {model: edgekd:resnet10, train: {epochs: 2}}
  student: {model: net.py:net, args: {width: 8}, rewrite: {se: drop}}
  distill: {epochs: 2, lr: 0.01}
  quantize: {method: ptq}
  export: [onnx]
pairs:
  small: {student: {args: {width: 4}}}
  other: {teacher: {model: edgekd:resnet18, weights: big.safetensors}}
methods:
  fitnet: [{kind: task}, {kind: fitnet}]
  long: {distill: {epochs: 9, losses: [{kind: dkd}]}}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(STUDY)
    return path


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_message(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for recipes: comments ``# --set KEY=VALUE`` are the command line, EDGEKD_UPDATE_GOLDEN=1 rewrites."""
    monkeypatch.chdir(case.parent)
    overrides = re.findall(r"^# --set (.*)$", case.read_text("utf-8"), re.MULTILINE)
    with pytest.raises(RecipeError) as caught:
        load_study(Path(case.name), overrides)
    text, golden = f"{caught.value}\n", case.with_suffix(".txt")
    text = text.replace(str(case.parent.parent), "FOLDER")
    if os.environ.get("EDGEKD_UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text("utf-8")


def test_every_pair_has_every_method(study: Path) -> None:
    found = load_study(study)
    assert [(pair.name, list(pair.methods)) for pair in found.pairs] == [
        ("small", ["fitnet", "long"]),
        ("other", ["fitnet", "long"]),
    ]
    recipe = found.pairs[0].methods["fitnet"].recipe
    assert recipe.distill is not None
    assert [loss.kind for loss in recipe.distill.losses] == ["task", "fitnet"]
    assert (recipe.seeds, recipe.baselines) == (3, ())


def test_keys_are_joined_and_a_network_is_replaced(study: Path) -> None:
    small, other = (pair.common.recipe for pair in load_study(study).pairs)
    assert small.student is not None
    assert (small.student.args, small.student.rewrite.se) == ({"width": 4}, "drop")
    assert other.teacher is not None
    assert (other.teacher.train, other.teacher.weights) == (None, str(study.parent / "big.safetensors"))
    long = load_study(study).pairs[0].methods["long"].recipe.distill
    assert long is not None
    assert (long.epochs, long.lr) == (9, 0.01)


def test_nothing_is_shipped_unless_it_is_asked_for(study: Path) -> None:
    without, asked = load_study(study), load_study(study, ["artifacts=true"])
    assert (without.pairs[0].common.recipe.quantize, without.pairs[0].common.recipe.export) == (None, ())
    assert [export.format for export in asked.pairs[0].common.recipe.export] == ["onnx"]


def test_settings_are_of_the_study_or_of_its_recipe(study: Path) -> None:
    found = load_study(study, ["seeds=5", "distill.epochs=7", "pairs={}", "methods.fitnet[1].weight=3"])
    (pair,) = found.pairs
    assert pair.name == "mine"
    recipe = pair.methods["fitnet"].recipe
    assert recipe.distill is not None
    assert (recipe.seeds, recipe.distill.epochs, recipe.distill.losses[1].weight) == (5, 7, 3)


def test_a_recipe_in_a_file_of_its_own_has_its_paths_there(study: Path) -> None:
    folder = study.parent / "recipes"
    folder.mkdir()
    (folder / "base.yaml").write_text(yaml.safe_dump(yaml.safe_load(STUDY)["recipe"]))
    study.write_text("study: 1\nrecipe: recipes/base.yaml\nmethods: {fitnet: [{kind: fitnet}]}\n")
    (pair,) = load_study(study).pairs
    assert pair.name == "base"
    assert pair.common.recipe.student is not None
    assert pair.common.recipe.student.model == f"{folder / 'net.py'}:net"


def test_a_study_is_no_recipe_and_a_recipe_no_study(study: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is a study, not a recipe\n  → edgekd study"):
        load(study)
    with pytest.raises(RecipeError, match="is a recipe, not a study\n  → edgekd run mobilenet"):
        load_study(Path("mobilenet"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_study_can_run_and_names_its_schema(path: Path) -> None:
    assert path.read_text("utf-8").startswith("# yaml-language-server: $schema=../study.schema.json\n")
    load_study(path)
    jsonschema.validate(yaml.safe_load(path.read_text("utf-8")), study_schema())


def test_the_schema_for_editors_is_up_to_date_and_sees_a_mistake() -> None:
    written = json.loads((ROOT / "recipes" / "study.schema.json").read_text("utf-8"))
    assert written == study_schema(), "run: edgekd schema --study > recipes/study.schema.json"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"study": 1, "recipe": "x", "methods": {"a": [{"kind": "fitnt"}]}}, written)


DEVICE = "there is no device called 'pi9' (looked in what ships with edgekd, devices)"
CHECKED = """\
study: 1
recipe:
  edgekd: 1
  data: {source: "imagefolder:images"}
  teacher: {model: edgekd:resnet10, weights: big.safetensors}
  student: {model: "net.py:net"}
  distill: {epochs: 2}
  quantize: {method: ptq}
  export: [onnx]
  profile: {devices: [host, pi9]}
artifacts: true
pairs:
  small: {student: {args: {width: 4}}}
  other: {student: {model: "net.py:nett"}}
methods:
  own: [{kind: task}, {kind: kd}]
  wide: {student: {model: "wide.py:net"}, distill: {losses: [{kind: dkdd}]}}
"""


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text("def net(): pass\n")
    path = tmp_path / "mine.yaml"
    path.write_text(CHECKED)
    return path


def test_check_finds_what_is_missing_beside_mistakes_each_once(checked: Path) -> None:
    """The images, the weights and the device belong to the common recipe: they are not reported for each method again."""
    found = check_study(Path("mine.yaml"))
    told = [(problem.where, problem.key, problem.message.replace(f"{checked.parent}/", "")) for problem in found.problems]
    assert told == [
        ("mine.yaml:4:18", "recipe.data.source", "images does not exist"),
        ("mine.yaml:5:46", "recipe.teacher.weights", "big.safetensors does not exist"),
        ("mine.yaml:10:29", "recipe.profile.devices[1]", DEVICE),
        ("mine.yaml:17:69", "methods.wide.distill.losses[0].kind", "unknown loss 'dkdd'"),
        ("mine.yaml:17:27", "methods.wide.student.model", "wide.py does not exist"),
        ("mine.yaml:14:28", "pairs.other.student.model", "net.py has no nett"),
    ]
    assert found.loaded is None


def test_check_of_a_study_looks_at_the_images_once(checked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def lacks_of(data: str) -> tuple[tuple[str, str], ...]:
        looked.append(data)
        return ()

    monkeypatch.setattr("edgekd.engine.preflight.lacks_of", lacks_of)
    check_study(checked)
    assert looked == [f"imagefolder:{checked.parent / 'images'}"]


def test_a_study_with_an_unknown_device_is_not_planned(checked: Path) -> None:
    only = ["methods={own: [{kind: kd}]}", "pairs={}"]
    with pytest.raises(RecipeError, match=r"mine.yaml:10:29: .*profile.devices\[1\]: there is no device called 'pi9'"):
        planned(load_study(Path("mine.yaml"), only))
