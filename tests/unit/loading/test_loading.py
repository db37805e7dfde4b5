from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import Field, PositiveFloat

from edgekd import __version__, loading, resources
from edgekd.errors import RecipeError
from edgekd.loading.loaded import Loaded
from edgekd.loading.overrides import KeySyntaxError, parse_key
from edgekd.loading.shape import show
from edgekd.loading.source import parse
from edgekd.recipe import distill, loss, quantize
from edgekd.registry import exporters, losses

# The same examples everywhere and every time: CI fails for a change, not for luck.
settings.register_profile("edgekd", derandomize=True, database=None, deadline=None)
settings.load_profile("edgekd")
FIXTURE = [HealthCheck.function_scoped_fixture]

GOLDEN = Path(__file__).parents[2] / "golden" / "errors"
CASES = sorted(GOLDEN.glob("*.yaml"))

GOOD = """\
# A recipe that uses most of the schema.
edgekd: 1
seed: 3
data: {source: fashion-mnist-mini, augment: [crop, flip]}
teacher: {model: torchvision:resnet18, train: {epochs: 6, lr: 1e-3}}
student: {model: torchvision:mobilenet_v2, args: {width_mult: 0.35}, rewrite: {hardswish: relu6}}
distill:
  epochs: 8
  losses:
    - {kind: kd, temperature: 4, weight: 0.9}
    - {kind: fitnet, layers: {features.6: layer3}}
quantize: {method: qat, epochs: 2}
export: [onnx, {format: tflite, io: int8}]
profile: {devices: [host, pi4]}
gates: {accuracy_drop: {max: 0.01}, latency_p90_ms: {max: 12, device: pi4}}
"""


class Task(loss.Loss):
    """Cross-entropy."""

    needs_teacher: ClassVar[bool] = False
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0


class KD(loss.Loss):
    """Softened probabilities."""

    temperature: PositiveFloat = 4.0


class Features(loss.Loss):
    """Feature maps."""

    layers: Literal["auto"] | dict[str, str] = "auto"


@pytest.fixture(autouse=True)
def _registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixed losses and formats: a new one must not change a golden text."""
    kinds = {"task": Task, "kd": KD, "fitnet": Features, "attention_transfer": Features}
    formats = {name: exporters.get(name) for name in ("onnx", "openvino", "tflite")}
    for registry, entries in ((losses, kinds), (exporters, formats)):
        monkeypatch.setattr(registry, "_entries", entries)
        monkeypatch.setattr(registry, "_loaded", True)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD, encoding="utf-8")
    return path


def _message(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        loading.load(path, overrides)
    return str(caught.value)


def _outcome(path: Path, *overrides: str) -> str:
    """Return the message, or nothing for a recipe that loads; any other exception is a failure."""
    try:
        loading.load(path, overrides)
    except RecipeError as error:
        return str(error)
    return ""


# --- golden texts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_message(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A case is a recipe, its comments ``# --set KEY=VALUE`` the command line. EDGEKD_UPDATE_GOLDEN=1 rewrites."""
    monkeypatch.chdir(case.parent)
    overrides = re.findall(r"^# --set (.*)$", case.read_bytes().decode("utf-8", "replace"), re.MULTILINE)
    text = _message(Path(case.name), *overrides).replace(__version__, "VERSION") + "\n"
    golden = case.with_suffix(".txt")
    if os.environ.get("EDGEKD_UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_every_golden_text_has_its_case() -> None:
    assert len(CASES) >= 20
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {path.stem for path in CASES}


# --- what a recipe means ----------------------------------------------------------------------------------------------


def test_a_good_recipe(good: Path) -> None:
    loaded = loading.load(good)
    assert (loaded.name, loaded.path, loaded.overrides) == ("good", good, ())
    assert loaded.recipe.seed == 3
    assert loaded.recipe.teacher is not None
    assert loaded.recipe.teacher.train is not None
    assert loaded.recipe.teacher.train.lr == 1e-3
    assert loaded.recipe.distill is not None
    kd, fitnet = loaded.recipe.distill.losses
    assert isinstance(kd, KD)
    assert isinstance(fitnet, Features)
    assert (kd.temperature, fitnet.layers) == (4.0, {"features.6": "layer3"})
    assert [(export.format, export.io) for export in loaded.recipe.export] == [("onnx", "float32"), ("tflite", "int8")]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("+3", 3),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2026-03-04", "2026-03-04"),
        ("no", "no"),
        ("Off", "Off"),
        ("True", True),
        ("~", None),
        ("", None),
        ("'8'", "8"),
        ("|\n  8", "8"),
    ],
)
def test_plain_text_means_what_yaml_1_2_says(text: str, value: object) -> None:
    parsed = parse(f"key: {text}", "here").value["key"]
    assert parsed == value
    assert type(parsed) is type(value)


def test_keys_are_text() -> None:
    assert parse("{1: a, on: b, 1.0: c, null: d}", "here").value == {"1": "a", "on": "b", "1.0": "c", "null": "d"}


def test_an_alias_stands_for_its_anchor(good: Path) -> None:
    text = GOOD.replace("augment: [crop, flip]", "augment: &a [crop]").replace("gates:", "baselines: *b\ngates:")
    good.write_text(text.replace("devices: [host", "devices: &b [host"), encoding="utf-8")
    # An alias is built anew with its own path: this one is wrong where it is used.
    assert "baselines[0]: must be student_alone, kd or tuned_kd, not 'host'" in _message(good)


def test_byte_order_mark_and_windows_line_ends(good: Path) -> None:
    good.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert loading.load(good).recipe.seed == 3


def test_caret_stands_under_wide_characters(tmp_path: Path) -> None:
    path = tmp_path / "wide.yaml"
    path.write_text("edgekd: 1\ndata: {root: 画像, bad: 1}\n", encoding="utf-8")
    assert f"  2 | data: {{root: 画像, bad: 1}}\n    | {' ' * 19}^^^\n" in _message(path)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with one recipe, and an empty working folder."""
    package, work = tmp_path / "site" / "edgekd", tmp_path / "work"
    (package / "_data" / "recipes").mkdir(parents=True)
    work.mkdir()
    monkeypatch.setattr(resources, "_PACKAGE", package)
    monkeypatch.chdir(work)
    path = package / "_data" / "recipes" / "mobilenet.yaml"
    path.write_text(GOOD, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["mobilenet", "mobilenet.yaml", "recipes/mobilenet.yaml"])
def test_a_shipped_recipe_is_found_by_name(shipped: Path, name: str) -> None:
    loaded = loading.load(Path(name))
    assert (loaded.path, loaded.name) == (shipped, "mobilenet")


def test_a_file_comes_before_a_shipped_recipe(shipped: Path) -> None:
    Path("mobilenet.yaml").write_text(GOOD.replace("seed: 3", "seed: 4"), encoding="utf-8")
    assert loading.load(Path("mobilenet.yaml")).recipe.seed == 4


def test_missing_files(shipped: Path) -> None:
    Path("mine.yaml").write_text(GOOD, encoding="utf-8")
    assert _message(Path("mobilnet")) == "mobilnet: does not exist\n  → did you mean mobilenet?"
    assert _message(Path("mine.yml")) == "mine.yml: does not exist\n  → did you mean mine.yaml?"
    assert _message(Path("x/y.yaml")) == "x/y.yaml: does not exist\n  → recipes that ship with edgekd: mobilenet"


def test_a_folder(shipped: Path) -> None:
    run = Path("reports/mobilenet/0001-abc")
    run.mkdir(parents=True)
    assert _message(Path("reports")) == "reports: is a folder, not a recipe\n  → give a .yaml file"
    (run / "recipe.lock.yaml").touch()
    assert _message(run).endswith(f"→ to replay that run, give {run}/recipe.lock.yaml")
    Path("reports/b.yaml").touch()
    assert _message(Path("reports")).endswith("→ give a file in it: b.yaml")


def test_what_is_no_recipe_at_all(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_bytes(b"x" * 1_000_001)
    assert "is larger than 1 MB" in _message(path)
    path.write_text("a: \x07\n")
    assert _message(path).startswith(f"{path}:1:4: a character that cannot be printed (U+0007)")
    path.write_text("[" * 3000)
    assert "nested too deeply" in _message(path)
    assert "cannot be read" in _message(tmp_path / ("x" * 300))


def test_paths_are_relative_to_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    path = folder / "r.yaml"
    path.write_text(
        "edgekd: 1\n"
        "data: {source: imagefolder:../images, root: cache}\n"
        "teacher: {model: nets/big.py:build, weights: big.safetensors}\n"
        "student: {model: torchvision:mobilenet_v2, weights: edgekd:mobilenet}\n"
        "distill: {epochs: 1, losses: [{kind: kd}]}\n"
    )
    monkeypatch.chdir(tmp_path)
    made = loading.load(Path("project/r.yaml"), ["student.weights=start.pt"]).recipe
    assert made.data.source == f"imagefolder:{tmp_path}/images"
    assert made.data.root == f"{folder}/cache"
    assert made.teacher is not None
    assert (made.teacher.model, made.teacher.weights) == (f"{folder}/nets/big.py:build", f"{folder}/big.safetensors")
    # What is typed in a shell is relative to where it is typed.
    assert made.student is not None
    assert (made.student.model, made.student.weights) == ("torchvision:mobilenet_v2", f"{tmp_path}/start.pt")
    made = loading.load(path).recipe
    assert made.student is not None
    assert made.student.weights == "edgekd:mobilenet"


# --- --set ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("distill.epochs=1", lambda r: r.distill.epochs == 1),
        ("distill.losses[0].weight=2", lambda r: r.distill.losses[0].weight == 2),
        ("distill.losses=[{kind: task}, {kind: kd}]", lambda r: len(r.distill.losses) == 2),
        (
            'distill.losses[1].layers."features.6"=layer4',
            lambda r: r.distill.losses[1].layers == {"features.6": "layer4"},
        ),
        ("export=[onnx,tflite]", lambda r: [e.format for e in r.export] == ["onnx", "tflite"]),
        ("export[0].format=openvino", lambda r: r.export[0].format == "openvino"),
        ("quantize.epochs=5", lambda r: r.quantize.epochs == 5),
        ("quantize={method: ptq}", lambda r: r.quantize.method == "ptq" and r.quantize.adaround is False),
        ("quantize={method: ptq, adaround: true}", lambda r: r.quantize.adaround == quantize.AdaRound()),
        ("quantize={method: ptq, adaround: {steps: 7}}", lambda r: r.quantize.adaround.steps == 7),
        ("teacher.train.lr=1e-2", lambda r: r.teacher.train.lr == 0.01),
        ("student.args.dropout=0.2", lambda r: r.student.args == {"width_mult": 0.35, "dropout": 0.2}),
        ("data.root=null", lambda r: r.data.root is None),
    ],
)
def test_set(good: Path, override: str, read: Any) -> None:
    loaded = loading.load(good, [override])
    assert read(loaded.recipe)
    assert loaded.overrides == (override,)


def test_set_makes_and_removes_sections(good: Path) -> None:
    without = ["quantize=null", "export=[onnx]", "gates={}", "profile=null"]
    assert loading.load(good, without).recipe.quantize is None
    again = loading.load(good, [*without, "quantize.epochs=3"]).recipe.quantize
    assert again == quantize.Qat(epochs=3)


def test_the_method_decides_the_keys_of_quantize(good: Path) -> None:
    assert loading.load(good, ["quantize={}"]).recipe.quantize == quantize.Qat()
    ptq = ["quantize={method: ptq, adaround: false}"]
    changed = loading.load(good, [*ptq, "quantize.observer=entropy", "quantize.adaround.steps=9"])
    assert changed.recipe.quantize == quantize.Ptq(method="ptq", observer="entropy", adaround=quantize.AdaRound(steps=9))
    assert "epochs is a key of method: qat" in _message(good, *ptq, "quantize.epochs=3")


def test_a_later_set_wins(good: Path) -> None:
    loaded = loading.load(good, ["distill.epochs=ten", "distill.epochs=4"])
    assert loaded.recipe.distill is not None
    assert loaded.recipe.distill.epochs == 4


def test_set_can_repair_the_file(good: Path) -> None:
    good.write_text(GOOD.replace("seed: 3", "seed: three"), encoding="utf-8")
    assert loading.load(good, ["seed=3"]).recipe.seed == 3


@given(st.lists(st.one_of(st.text(min_size=1).filter(lambda t: '"' not in t), st.integers(0, 999)), min_size=1))
def test_key_paths_are_read_as_they_are_written(parts: list[str | int]) -> None:
    path = tuple(parts)
    if isinstance(path[0], int):
        with pytest.raises(KeySyntaxError):
            parse_key(show(path))
    else:
        assert parse_key(show(path)) == path


# --- lock -------------------------------------------------------------------------------------------------------------


def test_the_lock_replays(good: Path, tmp_path: Path) -> None:
    loaded = loading.load(good, ["distill.epochs=2", "student.args={a: no, b: '1e-3', c: [1, 'x: y'], d: 0o7}"])
    lock = tmp_path / "elsewhere" / "recipe.lock.yaml"
    lock.parent.mkdir()
    text = loading.lock_text(loaded, lock.parent)
    lock.write_text(text, encoding="utf-8")
    again = loading.load(lock)
    assert again.recipe == loaded.recipe
    assert again.name == "good"
    assert again.recipe_file == good
    assert loading.lock_text(again, lock.parent).split("\n\n", 1)[1] == text.split("\n\n", 1)[1]
    assert "# --set distill.epochs=2\n" in text
    # Every default is written out.
    assert set(yaml.safe_load(text)["distill"]) == set(distill.Distill.model_fields)


@given(
    name=st.text(max_size=12),
    value=st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-(2**62), 2**62),
            st.floats(allow_nan=False, allow_infinity=False),
            st.text(),
        ),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
        max_leaves=8,
    ),
)
@example(name="\x85", value="a\x85b")
@settings(max_examples=60, suppress_health_check=FIXTURE)
def test_the_lock_replays_any_argument(good: Path, name: str, value: Any) -> None:
    loaded = loading.load(good)
    assert loaded.recipe.student is not None
    student = loaded.recipe.student.model_copy(update={"args": {name: value}})
    changed = Loaded(loaded.recipe.model_copy(update={"student": student}), "x", good, ("a=\nb",))
    lock = good.with_name("recipe.lock.yaml")
    lock.write_text(loading.lock_text(changed, lock.parent), encoding="utf-8")
    assert loading.load(lock).recipe == changed.recipe


# --- robustness -------------------------------------------------------------------------------------------------------

SNIPPETS = st.sampled_from(
    ["{", "}", "[", "]", ": ", "- ", "\n", "\n  ", "\t", "*a", "&a ", "!t ", "'", '"', "#", "|", ">", "? ", "<<",
     "null", "1e999", "0x", "-1", "kd", "\\ud800", "---\n", "...", "%YAML 1.1\n", "\x85", "\u2028", "é", "😀", "@",
     "`", ","]
)  # fmt: skip


@st.composite
def _mutations(draw: st.DrawFn) -> str:
    text = GOOD
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        text = text[:start] + draw(st.one_of(SNIPPETS, st.text(max_size=4))) + text[end:]
    return text


@given(text=_mutations())
@settings(max_examples=300, suppress_health_check=FIXTURE)
def test_a_broken_recipe_is_a_recipe_error(good: Path, text: str) -> None:
    path = good.with_name("mutated.yaml")
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert "Input should" not in _outcome(path)


@given(
    key=st.one_of(st.sampled_from(["seed", "distill", "distill.losses[0]", "export"]), st.text()),
    value=st.one_of(SNIPPETS, st.text()),
)
@settings(max_examples=200, suppress_health_check=FIXTURE)
def test_a_broken_set_is_a_recipe_error(good: Path, key: str, value: str) -> None:
    assert "Input should" not in _outcome(good, f"{key}={value}")


# --- schema and import ------------------------------------------------------------------------------------------------


def _keys(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "properties" in schema:
        yield schema
    for part in schema.values():
        for inner in part if isinstance(part, list) else [part]:
            if isinstance(inner, dict):
                yield from _keys(inner)


def test_json_schema_knows_losses_and_formats() -> None:
    schema = loading.json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    items = schema["$defs"]["Distill"]["properties"]["losses"]["items"]["oneOf"]
    assert [item["$ref"].rsplit("_", 1)[-1] for item in items] == ["transfer", "fitnet", "kd", "task"]
    kd = schema["$defs"]["loss_kd"]
    assert kd["properties"]["kind"]["const"] == "kd"
    assert "kind" in kd["required"]
    assert "temperature" in kd["properties"]
    assert schema["properties"]["export"]["items"]["anyOf"][0]["enum"] == ["onnx", "openvino", "tflite"]
    assert "Loss" not in schema["$defs"]
    # An editor flags unknown keys, as edgekd does.
    assert all(part["additionalProperties"] is False for part in _keys(schema))


def test_json_schema_is_valid_and_accepts_a_recipe() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = loading.json_schema()
    validator = jsonschema.Draft202012Validator
    validator.check_schema(schema)
    value = parse(GOOD, "here").value
    assert not list(validator(schema).iter_errors(value))
    value["distill"]["losses"][0]["temprature"] = 1
    assert list(validator(schema).iter_errors(value))


def test_loading_imports_no_torch(good: Path) -> None:
    """In a fresh interpreter, with the real losses and exporters."""
    code = (
        "import sys; from pathlib import Path; from edgekd import loading\n"
        f"loading.load(Path({str(good)!r})); loading.json_schema()\n"
        "print(sorted({'torch', 'torchvision', 'onnx', 'openvino'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("setting", "advice"),
    [
        ("gates.accuracy_drop=on", "its keys: max, min"),
        ("data.image_size=[16, 8, 3]", "give 2 items"),
        ("distill.losses.-1.weight=2", "write distill.losses[0].weight"),
        ("edgekd=true", "write edgekd: 2"),
        ("edgekd=2.0", "write edgekd: 2"),
    ],
)
def test_what_is_advised_can_be_followed(tmp_path: Path, setting: str, advice: str) -> None:
    (tmp_path / "r.yaml").write_text(
        "edgekd: 2\ndata: {source: fashion-mnist-mini}\nstudent: {model: torchvision:resnet18}\n"
        "distill: {losses: [{kind: task}]}\n"
    )
    with pytest.raises(RecipeError) as caught:
        loading.load(tmp_path / "r.yaml", [setting])
    assert [problem.hint for problem in caught.value.problems if problem.hint.startswith(advice)], caught.value
