from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekd import cache
from edgekd.engine import plan, runner
from edgekd.engine.plan import Planned
from edgekd.errors import ExitCode, UsageError
from edgekd.loading import load
from edgekd.progress import Silent

GOLDEN = Path(__file__).parents[2] / "golden" / "plan"

RECIPE = """\
edgekd: 1
data: {source: npz:data.npz, image_size: 16, augment: [flip]}
teacher: {model: edgekd:resnet10, args: {width: 8}, train: {epochs: 2}}
student: {model: net.py:net, args: {width: 4}}
distill:
  epochs: 8
  losses:
    - {kind: task}
    - {kind: kd, temperature: 4}
quantize: {epochs: 2}
export: [onnx, tflite]
profile: {devices: [host]}
"""

ASSISTANT = (
    "teacher={model: edgekd:resnet10, distill: {epochs: 3, losses: [{kind: kd}]}, "
    "teacher: {model: edgekd:resnet18, train: {epochs: 5}}}"
)

NET = "def net(num_classes, width): raise RuntimeError('a plan builds no model')\n"


@pytest.fixture
def recipe(tmp_path: Path, arrays: Callable[..., dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    np.savez(folder / "data.npz", **arrays())
    (folder / "net.py").write_text(NET)
    (folder / "small.yaml").write_text(RECIPE)
    return folder / "small.yaml"


def make(recipe: Path, *overrides: str) -> list[Planned]:
    return plan.make(load(recipe, overrides))


def keys(recipe: Path, *overrides: str) -> dict[str, str]:
    return {step.name: step.key for step in make(recipe, *overrides)}


def test_each_device_has_a_folder_of_its_own(recipe: Path) -> None:
    (recipe.parent / "devices").mkdir()
    (recipe.parent / "devices" / "pi4.yaml").write_text("transport: ssh\nhost: pi@raspberrypi\n")
    found = keys(recipe, "profile.devices=[host, pi4]")
    assert found["profile.host"] != found["profile.pi4"]


def changed(before: dict[str, str], now: dict[str, str]) -> set[str]:
    assert before.keys() == now.keys()
    return {name for name in before if before[name] != now[name]}


def finish(steps: list[Planned], recipe: str = "small") -> None:
    """What a run leaves in the cache."""
    for step in steps:
        if step.status == "run" and step.node.stage.reused:
            with cache.scratch() as folder:
                (folder / "weights.bin").write_text(step.name)
                cache.commit(folder, step.key, step.material, 1.0)
            cache.remember(recipe, step.name, step.material)


def test_processes_count_where_something_trains(recipe: Path) -> None:
    """Each has batches of its own: two of them train another student than one."""
    alone, together = (plan.make(load(recipe), processes) for processes in (1, 2))
    keys_of = [{step.name: step.key for step in steps} for steps in (alone, together)]
    trained = {step.name for step in together if step.material.get("processes") == 2}
    assert trained == {"teacher", "student_alone", "distill", "quantize"}
    assert changed(*keys_of) == set(keys_of[0])  # and all that reads them
    finish(alone)
    (reason,) = [step.reason for step in plan.make(load(recipe), 2) if step.name == "teacher"]
    assert reason == "processes none → 2"


def lines(steps: list[Planned]) -> Iterator[str]:
    for step in steps:
        yield f"{step.name:<19} {step.status:<7} {step.reason}".rstrip() + "\n"


def agrees(name: str, steps: list[Planned], folder: Path) -> None:
    """Compare with a golden text; EDGEKD_UPDATE_GOLDEN=1 rewrites it."""
    text = "".join(lines(steps)).replace(str(folder), "FOLDER").replace(str(cache.root()), "CACHE")
    for step in steps:
        if step.key:
            text = text.replace(step.key, "KEY").replace(f"/{step.key[:2]}/KEY", "/KEY")
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("EDGEKD_UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


# --- what is said -----------------------------------------------------------------------------------------------------


def test_a_fresh_cache(recipe: Path) -> None:
    agrees("fresh", make(recipe), recipe.parent)


def test_all_finished(recipe: Path) -> None:
    finish(make(recipe))
    agrees("finished", make(recipe), recipe.parent)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("epochs", ["distill.epochs=6"]),
        ("temperature", ["distill.losses[1].temperature=2"]),
        ("another_loss", ["distill.losses=[{kind: kd}]"]),
        ("quantize_only", ["quantize.epochs=3", "quantize.lr=0.001"]),
        ("many", ["distill.epochs=6", "distill.lr=0.1", "distill.batch_size=8", "seed=5"]),
        ("method", ["quantize={method: ptq}"]),
        ("io", ["export=[onnx, {format: tflite, io: int8}]"]),
        ("threads", ["profile.threads=2"]),
    ],
)
def test_what_changed(recipe: Path, name: str, overrides: list[str]) -> None:
    finish(make(recipe))
    agrees(f"changed_{name}", make(recipe, *overrides), recipe.parent)


def test_changed_data(recipe: Path, arrays: Callable[..., dict[str, np.ndarray]]) -> None:
    finish(make(recipe))
    np.savez(recipe.parent / "data.npz", **arrays(train=84))
    agrees("changed_data", make(recipe), recipe.parent)


def test_changed_model_file(recipe: Path) -> None:
    finish(make(recipe))
    (recipe.parent / "net.py").write_text(NET + "# changed\n")
    agrees("changed_model_file", make(recipe), recipe.parent)


def test_half_finished(recipe: Path) -> None:
    """After an interruption in distill."""
    finish(make(recipe)[:2])
    agrees("half_finished", make(recipe), recipe.parent)


def test_damaged_entry(recipe: Path) -> None:
    finish(make(recipe))
    step = next(step for step in make(recipe) if step.name == "distill")
    assert step.entry is not None
    (step.entry.path / "weights.bin").write_text("damaged")
    agrees("damaged", make(recipe), recipe.parent)


def test_emptied_cache(recipe: Path) -> None:
    finish(make(recipe))
    shutil.rmtree(cache.root() / "stages")
    agrees("emptied", make(recipe), recipe.parent)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("teacher_weights", ["teacher.train=null", "teacher.weights=no.safetensors"]),
        ("student_file", ["student.model=no.py:net"]),
        ("data", ["data.source=npz:no.npz"]),
    ],
)
def test_blocked(recipe: Path, name: str, overrides: list[str]) -> None:
    agrees(f"blocked_{name}", make(recipe, *overrides), recipe.parent)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("teacher_only", ["student=null", "distill=null", "quantize=null", "export=[]", "profile=null"]),
        ("no_teacher", ["teacher=null", "distill.losses=[{kind: task}]"]),
        ("float_only", ["quantize=null"]),
        ("no_baseline", ["baselines=[]"]),
        ("no_export", ["export=[]", "profile=null"]),
        ("trained_student", ["teacher=null", "distill=null", "student.weights=best.pt"]),
        ("precisions", ["export=[onnx, {format: onnx, precision: int4-weights}, {format: tflite, precision: dynamic}]"]),
        ("assistant", [ASSISTANT]),
        ("trained_student_float", ["teacher=null", "distill=null", "quantize=null", "student.weights=best.pt"]),
    ],
)
def test_other_chains(recipe: Path, name: str, overrides: list[str]) -> None:
    (recipe.parent / "best.pt").write_bytes(b"weights")
    agrees(f"chain_{name}", make(recipe, *overrides), recipe.parent)


def test_every_golden_text_is_used() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for path in GOLDEN.glob("*.txt"):
        assert path.stem.removeprefix("changed_").removeprefix("blocked_").removeprefix("chain_") in source


# --- what a key depends on --------------------------------------------------------------------------------------------


def test_keys_do_not_know_where_anything_is(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(recipe)
    moved = tmp_path / "elsewhere" / "deep"
    shutil.copytree(recipe.parent, moved)
    (moved / "small.yaml").rename(moved / "renamed.yaml")
    (moved / "models").mkdir()
    (moved / "net.py").rename(moved / "models" / "other.py")
    (moved / "data.npz").rename(moved / "images.npz")
    monkeypatch.chdir(moved)
    now = keys(moved / "renamed.yaml", "student.model=models/other.py:net", "data.source=npz:images.npz")
    assert now == before


def test_finished_stages_serve_another_recipe(recipe: Path) -> None:
    finish(make(recipe))
    copy = shutil.copy(recipe, recipe.with_name("copy.yaml"))
    assert [step.status for step in make(Path(copy))] == [step.status for step in make(recipe)]


def test_keys_depend_on_the_seed(recipe: Path) -> None:
    assert changed(keys(recipe), keys(recipe, "seed=1")) == set(keys(recipe))


def test_a_given_teacher_does_not_depend_on_the_seed(recipe: Path) -> None:
    (recipe.parent / "t.safetensors").write_bytes(b"weights")
    given = ["teacher.train=null", "teacher.weights=t.safetensors"]
    before = keys(recipe, *given)
    assert "teacher" not in changed(before, keys(recipe, *given, "seed=1"))
    (recipe.parent / "t.safetensors").write_bytes(b"other weights")
    assert changed(before, keys(recipe, *given)) >= {"teacher", "distill", "evaluate"}


def test_an_assistant_depends_on_its_teacher(recipe: Path) -> None:
    before = keys(recipe, ASSISTANT)
    now = changed(before, keys(recipe, ASSISTANT, "teacher.teacher.train.epochs=6"))
    assert now >= {"teacher.teacher", "teacher", "distill", "quantize"}
    assert changed(before, keys(recipe, ASSISTANT, "teacher.distill.lr=0.1")) & {"teacher.teacher", "teacher"} == {"teacher"}
    assert changed(before, keys(recipe, ASSISTANT, "teacher.seed=7")) & {"teacher.teacher", "teacher"} == {"teacher"}


def test_student_alone_knows_nothing_of_the_teacher(recipe: Path) -> None:
    before = keys(recipe)
    for override in ("distill.losses[1].temperature=2", "distill.losses[1].weight=0.5", "distill.losses[0].weight=0.3",
                     "distill.losses=[{kind: kd}, {kind: fitnet}]", "teacher.args={width: 16}",
                     "teacher.train.epochs=9"):  # fmt: skip
        assert "student_alone" not in changed(before, keys(recipe, override)), override
        assert "distill" in changed(before, keys(recipe, override)), override
    for override in ("distill.epochs=6", "distill.losses[0].label_smoothing=0.1", "student.args={width: 5}"):
        assert "student_alone" in changed(before, keys(recipe, override)), override


def test_a_student_that_teaches_itself_stands_beside_one_alone(recipe: Path) -> None:
    def stages(losses: str) -> list[str]:
        return list(keys(recipe, "teacher=null", f"distill.losses={losses}"))[:2]

    assert stages("[{kind: task}, {kind: byot}]") == ["student_alone", "distill"]
    assert stages("[{kind: task}, {kind: byot, weight: 0}]") == ["distill", "quantize"]
    assert stages("[{kind: task}]") == ["distill", "quantize"]


def test_a_change_reaches_what_comes_after_and_nothing_else(recipe: Path) -> None:
    before = keys(recipe)
    assert changed(before, keys(recipe, "quantize.epochs=3")) == {
        "quantize", "export.onnx", "export.tflite", "evaluate", "profile.host", "package",
    }  # fmt: skip
    assert changed(before, keys(recipe, "profile.threads=2")) == {"profile.host", "package"}
    assert changed(before, keys(recipe, "gates.top1={min: 0.5}")) == set()
    assert changed(before, keys(recipe, "data.download=false")) == set()


def test_calibration_needs_the_student_alone(recipe: Path) -> None:
    ptq = "quantize={method: ptq}"
    (step,) = [step for step in make(recipe, ptq) if step.name == "quantize"]
    assert step.node.inputs == ("distill",)
    before = keys(recipe, ptq)
    for override in ("quantize.observer=entropy", "quantize.calibration_images=64", "quantize.adaround=true",
                     "quantize.bias_correction=false", "quantize.equalize=true", "distill.epochs=6"):  # fmt: skip
        assert {"quantize", "export.onnx", "evaluate"} <= changed(before, keys(recipe, ptq, override)), override
    assert "quantize" not in changed(before, keys(recipe, ptq, "quantize.adaround=false"))


@pytest.mark.parametrize(
    ("package", "first", "untouched"),
    [
        ("torch", {"teacher", "student_alone", "distill", "quantize", "export.onnx", "evaluate"}, set()),
        ("torchao", {"quantize", "export.onnx", "evaluate"}, {"teacher", "distill", "export.onnx_float"}),
        ("onnxruntime", {"evaluate"}, {"teacher", "distill", "quantize"}),
        ("rich", set(), {"teacher", "distill", "quantize", "export.onnx", "evaluate", "package"}),
    ],
)
def test_keys_depend_on_the_packages_of_the_stage(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, first: set[str], untouched: set[str]
) -> None:
    """As if another version of the package was installed: its metadata come first on the path."""
    before = keys(recipe)
    info = tmp_path / "site" / f"{package}-99.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 99.0\n")
    monkeypatch.syspath_prepend(str(info.parent))
    found = changed(before, keys(recipe))
    assert found >= first
    assert not found & untouched


def test_keys_depend_on_the_version_of_the_stage(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekd.stages import quantize

    before = keys(recipe)
    monkeypatch.setattr(quantize.QuantizeStage, "version", quantize.QuantizeStage.version + 1)
    assert {"quantize", "export.onnx"} <= changed(before, keys(recipe)) <= set(before) - {"teacher", "distill"}


def test_a_run_ends_with_the_error_that_blocks_its_plan(recipe: Path, tmp_path: Path) -> None:
    """Its kind, its hint and its exit code are those of the plan."""
    loaded = load(recipe, ["reads=[absent.bin]"])
    problem = next(step.problem for step in plan.make(loaded) if step.problem is not None)
    assert isinstance(problem, UsageError)
    with pytest.raises(UsageError, match=r"^teacher cannot run: reads: ") as caught:
        runner.run(loaded, runner.Options(tmp_path / "reports", Silent()))
    assert (caught.value.hint, caught.value.exit_code) == (problem.hint, ExitCode.USAGE)


def test_planning_imports_no_torch(recipe: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from edgekd.engine import plan, runner
from edgekd.errors import ExitCode, UsageError
from edgekd.loading import load
from edgekd.progress import Silent
steps = plan.make(load(Path({str(recipe)!r})))
assert len(steps) == 11, [step.name for step in steps]
heavy = {{"torch", "torchvision", "torchao", "lightning_fabric", "onnx", "onnxruntime", "openvino", "PIL"}}
print(sorted(heavy & set(sys.modules)))
"""
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"


def test_threads_decide_what_is_computed_with_torch(recipe: Path) -> None:
    """They change the last bits of sums; without a number, as for a caller of Python, nothing is said of them."""
    before = keys(recipe, "threads=1")
    assert changed(before, keys(recipe, "threads=2")) == before.keys()
    finish(make(recipe, "threads=1"))
    reasons = {step.name: step.reason for step in make(recipe, "threads=2")}
    assert reasons["teacher"] == "threads 1 → 2"


# --- what is planned again --------------------------------------------------------------------------------------------


def test_without_a_failed_export_the_rest_has_the_keys_of_a_recipe_without_it(recipe: Path) -> None:
    steps = make(recipe)
    failed = {"export.tflite", "export.tflite_float"}
    (recipe.parent / "net.py").write_text(NET + "# edited while the run is under way\n")
    rest = plan.without(load(recipe), steps, failed)
    (recipe.parent / "net.py").write_text(NET)
    assert {step.name: step.key for step in rest} == keys(recipe, "export=[onnx]")
    assert not failed & {name for step in rest for name in step.node.inputs}
    (evaluate,) = (step for step in rest if step.name == "evaluate")
    assert evaluate.reason == "goes on without export.tflite, export.tflite_float"
    finish(make(recipe, "export=[onnx]"))
    found = {step.name: step.status for step in plan.without(load(recipe), steps, failed)}
    assert found["evaluate"] == "cached"


def test_a_device_has_nothing_to_measure_when_every_export_failed(recipe: Path) -> None:
    steps = make(recipe)
    exports = [step.name for step in steps if step.node.stage.name == "export"]
    rest = plan.without(load(recipe), steps, exports)
    assert [step.name for step in rest][-2:] == ["evaluate", "package"]
    assert "profile.host" not in rest[-1].node.inputs
