"""The public functions: exactly those of ``__all__``, each called for real after every module was imported."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch

import edgekd
from edgekd.cli import cli
from edgekd.engine import arguments
from edgekd.engine.checking import Checked
from edgekd.engine.plan import Planned
from edgekd.engine.runner import Outcome
from edgekd.errors import ExitCode, RecipeError, UsageError
from edgekd.results.run import RunResult

NET = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self, num_classes=4):
        super().__init__(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""

QUICK = {"warmup_runs": 1, "warmup_ms": 0, "blocks": 3, "block_ms": 1, "block_runs": 1}


@pytest.fixture
def project(tmp_path: Path, npz: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a trained network and its images."""
    monkeypatch.chdir(tmp_path)
    npz()
    Path("net.py").write_text(NET)
    names: dict[str, type[torch.nn.Module]] = {}
    exec(NET, names)
    torch.save(names["Net"]().state_dict(), "net.pt")
    return tmp_path


def import_everything() -> list[str]:
    """Import each module that can be: some are programs for another interpreter or an extra."""
    imported = []
    for module in pkgutil.walk_packages(edgekd.__path__, "edgekd."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
            imported.append(module.name)
        except ModuleNotFoundError as error:  # an extra
            if str(error.name).startswith("edgekd"):
                raise
    return imported


def test_the_public_names_are_the_functions_and_no_subpackage_bears_one() -> None:
    assert edgekd.__all__ == ["check", "export", "plan", "profile", "quantize", "read_run", "run"]
    assert len(import_everything()) > 200
    assert not {module.name for module in pkgutil.iter_modules(edgekd.__path__)} & set(edgekd.__all__)
    for name in edgekd.__all__:
        function = getattr(edgekd, name)
        assert callable(function), name
        for part in ("Args:", "Raises:"):
            assert part in function.__doc__, name


PRINTED = {"as_json", "debug", "recipe_only", "with_layers", "ask_devices", "target"}
"""Options without an argument in Python: they choose what is printed, or do the work of another function."""


@pytest.mark.parametrize("name", ["check", "export", "plan", "profile", "quantize", "run"])
def test_each_function_has_the_arguments_of_its_command(name: str) -> None:
    """The texts differ, because a shell and a script are typed differently; names, choices and defaults must not."""
    arguments = inspect.signature(getattr(edgekd, name)).parameters
    options = {each.name: each for each in cli.commands[name].params if each.expose_value and each.name not in PRINTED}
    assert arguments.keys() - {"quiet"} == options.keys()
    for key, option in options.items():
        if key in ("out", "processes"):
            assert str(arguments[key].default) == str(option.default)
        if isinstance(option.type, click.Choice):
            (allowed,) = re.findall(r"Literal\[(.*?)\]", arguments[key].annotation)
            assert allowed.replace("'", "").split(", ") == [*option.type.choices]


def test_each_public_function_does_its_work(project: Path) -> None:
    """One quantization is all that is computed: the others find its stages in the cache."""
    import_everything()
    options = {"weights": "net.pt", "data": project / "data.npz", "size": 16, "threads": 1, "quiet": True}
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(False)  # other tests of this process may have set it
    random = torch.get_rng_state()
    made = edgekd.quantize("net.py:Net", **options, formats=["onnx"], devices=["host"], overrides=PROFILE)
    assert isinstance(made, Outcome)
    assert made.exit_code in (ExitCode.OK, ExitCode.GATE_FAILED)
    assert (made.folder / "artifacts" / "onnx.onnx").exists()
    assert torch.get_num_threads() == 2, "torch belongs to the script"
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), random)

    lock = made.folder / "recipe.lock.yaml"
    checked = edgekd.check(lock)
    assert isinstance(checked, Checked)
    assert checked.ok
    assert checked.recipe is not None
    steps = edgekd.plan(lock)
    assert all(isinstance(step, Planned) for step in steps)
    assert {step.name: step.status for step in steps}["quantize"] == "cached"
    assert repr(steps[0]) == f"Planned(name={steps[0].name!r}, status={steps[0].status!r}, reason={steps[0].reason!r})"

    again = edgekd.run(lock, quiet=True)
    assert {stage.name for stage in again.result.stages if stage.status == "ran"} == {"profile.host", "package"}
    floats = edgekd.export("net.py:Net", **options)
    assert {stage.name: stage.status for stage in floats.result.stages}["export.onnx_float"] == "cached"
    assert [model.name for model in floats.result.models if model.path] == ["onnx_float"]

    measured = edgekd.profile(again.folder / "artifacts" / "onnx.onnx", overrides=QUICK, quiet=True)
    assert measured.exit_code == ExitCode.OK
    assert measured.result.profiles[0].latency_ms.p50 > 0
    found = edgekd.read_run(again.folder)
    assert isinstance(found, RunResult)
    assert found == again.result
    for result in (*steps, made, floats, measured, found):  # what an interactive session prints is a line, not the run
        assert len(repr(result)) < 400, type(result)


PROFILE = {f"profile.{key}": value for key, value in QUICK.items()}


def test_what_is_wrong_is_returned_by_check_and_raised_by_the_others(project: Path) -> None:
    Path("r.yaml").write_text("edgekd: 1\ndata: {source: synthetic}\nstudent: {model: net.py:Net}\n")
    checked = edgekd.check("r.yaml", overrides={"seed": -1, "student.args": {"num_classes": 4}})
    assert not checked.ok
    assert checked.recipe is None
    assert "seed" in [problem.key for problem in checked.problems]
    for function in (edgekd.plan, edgekd.run):
        with pytest.raises(RecipeError) as caught:
            function("r.yaml", overrides={"seed": -1})
        assert caught.value.exit_code == ExitCode.USAGE
        assert caught.value.problems
    with pytest.raises(RecipeError, match=r"^edgekd.quantize: MODEL: 'resnet18' does not say"):
        edgekd.quantize("resnet18", weights="net.pt", data="data.npz")
    with pytest.raises(UsageError, match="^weights no.pt does not exist"):
        edgekd.quantize("net.py:Net", weights="no.pt", data="data.npz")
    told = r"^edgekd.quantize: io: onnx has float32 input and output, always\n  → only tflite can have int8; remove io$"
    with pytest.raises(RecipeError, match=told):
        edgekd.quantize("net.py:Net", weights="net.pt", data="data.npz", size=16, formats=["onnx"], io="int8")
    told = r"^edgekd.export: precisions: int8 needs a quantized model\n  → use edgekd.quantize, or use int8-weights$"
    with pytest.raises(RecipeError, match=told):
        edgekd.export("net.py:Net", weights="net.pt", size=16, precisions=["int8"])
    with pytest.raises(UsageError, match="does not exist"):
        edgekd.read_run(project)
    with pytest.raises(UsageError):
        edgekd.profile("nothing.onnx")


FINE = {
    "recipe": "r.yaml", "model": "net.py:Net", "weights": "net.pt", "data": "data.npz", "folder": "run",
}  # fmt: skip
WRONG: dict[str, list[Any]] = {
    **{key: [None, 3, b"a", "a\0b", Path("a\0b")] for key in ("recipe", "weights", "out", "folder")},
    **{key: [3] for key in ("against", "artifacts")},
    **{key: [0, -1, 1.5, True, "2"] for key in ("processes", "threads", "accuracy", "epochs", "classes")},
    **{key: ["onnx", 3, [3], ["a\0b"]] for key in ("formats", "precisions", "devices")},
    **{key: [1, "yes", None] for key in ("without_devices", "quiet")},
    **{key: [["x"], {3: (1,)}, {"x": 3}] for key in ("inputs", "shapes")},
    "channels": [2, "3", True],
    "cores": [1, [-1], ["0"]],
    "data": [3],
    "io": ["int4", []],
    "method": ["x"],
    "model": [None, Path("net.py"), "net.py:\0"],
    "normalize": [0.5],
    "overrides": [
        ["seed=1"],
        "seed=1",
        {1: 2},
        {"seed=1": 2},
        {"seed": object()},
        {"export": {"onnx"}},
        {"data.source": "a\0"},
    ],
    "size": [0, -16, "16", (1, 2, 3), (), (8, "8")],
    "sustained": [-1, "1", float("nan")],
}


@pytest.mark.parametrize("name", edgekd.__all__)
def test_a_wrong_argument_is_refused_in_words_before_anything_is_done(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    function = getattr(edgekd, name)
    parameters = inspect.signature(function).parameters
    fine = {key: value for key, value in FINE.items() if key in parameters}
    for key in parameters:
        for value in WRONG[key]:
            given = () if key != "artifacts" else (value,)
            with pytest.raises(UsageError, match=rf"^{name}: {key} is ") as caught:
                function(*given, **fine | ({} if given else {key: value}))
            assert str(caught.value.hint).startswith("give ")


def test_overrides_take_what_scripts_have() -> None:
    values = {
        "distill.epochs": np.int64(3), "distill.lr": np.float32(0.5), "data.mean": np.array([0.5, 0.25]),
        "data.source": Path("npz:x.npz"), "export": ("onnx",), "student.args": {"width": np.float64(1)}, "seed": np.True_,
    }  # fmt: skip
    bound = arguments.checked(edgekd.check, ("r.yaml",), {"overrides": values})
    assert edgekd._texts(bound.arguments["overrides"]) == [
        "distill.epochs=3", "distill.lr=0.5", "data.mean=[0.5, 0.25]", "data.source=npz:x.npz", "export=[onnx]",
        "student.args={width: 1.0}", "seed=true",
    ]  # fmt: skip


def test_a_plain_script_trains_beside_itself(project: Path) -> None:
    """Processes that edgekd starts do not run the script again, so it needs no ``if __name__``; its import is instant."""
    Path("r.yaml").write_text(
        "edgekd: 1\ndata: {source: npz:data.npz, image_size: 16}\nstudent: {model: net.py:Net}\n"
        "teacher: {model: net.py:Net, weights: net.pt}\n"
        "distill: {epochs: 1, warmup_epochs: 0, batch_size: 16, losses: [{kind: task}, {kind: kd}]}\n"
    )
    Path("script.py").write_text(
        "import sys\nimport edgekd\n"
        "assert not {'torch', 'numpy', 'pydantic', 'yaml'} & sys.modules.keys()\n"
        "print('the script')\n"
        "print(edgekd.run('r.yaml', processes=2, overrides={'baselines': []}).exit_code)\n"
        "from edgekd.assembly.background import Background\n"  # as a baseline trains beside the student
        "with Background(abs, -1) as beside:\n"
        "    print(beside.result())\n"
    )
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["the script", "0", "1"]
    assert "distill" in done.stderr  # its progress
