"""``edgekd profile --pack``: what a board does with a pack and with a damaged one, and what a report takes of its result."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.unit.artifacts.packing import with_lock
from tests.unit.artifacts.test_profile_files import INFO, QUICK, branches, conv, save

from edgekd.artifacts import board, pack
from edgekd.artifacts.profile import Settings
from edgekd.cli import cli
from edgekd.errors import ExitCode, StorageError, UsageError
from edgekd.profiling.compare import paces

RESULT = "edgekd-result.json"


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Measure as on a board, without edgekd, in the folder beside the pack's."""
    scratch = folder.parent / "tmp"
    scratch.mkdir(exist_ok=True)
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"} | {"TMPDIR": str(scratch)}
    return subprocess.Popen(
        [sys.executable, folder / "profile.py", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder.parent, env=environment,
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def own_lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A lock of these tests' own: others measure on this machine, too."""
    lock = tmp_path_factory.mktemp("locks") / "lock"
    program = with_lock(lock)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "packed", lambda: program)
        yield lock


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, own_lock: Path) -> Path:
    """Two files in a zip, measured from it elsewhere; returns what the board wrote."""
    folder = tmp_path_factory.mktemp("pack")
    target = pack.pack([conv(folder), branches(folder)], Settings(protocol=QUICK), folder / "board.zip")
    shutil.unpack_archive(target, folder / "elsewhere")
    assert "python3 profile.py" in (folder / "elsewhere" / "board" / "README.txt").read_text()
    running = start(folder / "elsewhere" / "board", "--name", "my; board", "--emulated")
    told, log = running.communicate()
    assert running.returncode == 0, log[-2000:]
    assert "conv" in told
    assert "p50 ms" in told
    assert not own_lock.exists()
    return folder / "elsewhere" / RESULT


def test_a_pack_measures_without_edgekd_and_its_result_becomes_a_report(packed: Path, tmp_path: Path) -> None:
    assert pack.is_result(packed)
    done = pack.report(packed, tmp_path)
    assert done.exit_code == ExitCode.OK
    assert done.result.devices[0].name == "my-board"
    assert [record.model for record in done.result.profiles] == ["conv", "branches"]
    assert done.result.recipe["profile"]["blocks"] == QUICK.blocks
    for record in done.result.profiles:
        assert record.emulated
        assert len(record.blocks) == len(record.states) == QUICK.blocks
        assert record.reference_ms
        assert record.operations
        assert [found_.reference for found_ in record.outputs] == ["host"]
        assert record.outputs[0].differs == ()
    assert "my-board" in (done.folder / "report.html").read_text()
    assert len(paces(done.folder / "samples" / "my-board.jsonl", "conv")) == QUICK.blocks


def test_the_command_report_takes_the_result_of_a_pack(packed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgekd", "report", str(packed)], capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "✓ same" in done.stdout
    assert (tmp_path / "reports" / "profile" / "latest" / "report.html").is_file()


def test_the_command_report_ends_with_4_where_a_file_failed_on_the_board(packed: Path, tmp_path: Path) -> None:
    value = json.loads(packed.read_text())
    del value["answers"]["models"]["branches"]
    value["answers"]["failures"]["branches"] = "no memory"
    (tmp_path / "result.json").write_text(json.dumps(value))
    done = subprocess.run(
        [sys.executable, "-m", "edgekd", "report", "result.json"], capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == ExitCode.DEVICE_FAILED, done.stderr
    assert "no memory" in done.stdout


def test_a_pack_refuses_what_it_would_ignore(tmp_path: Path) -> None:
    for option in (["--device", "pi4"], ["--sustained", "5"], ["--against", "x"], ["--out", "y"]):
        with pytest.raises(UsageError, match=f"--pack and {option[0]} do not go together"):
            cli.main(["profile", str(conv(tmp_path)), "--pack", str(tmp_path / "p"), *option], standalone_mode=False)
    assert not (tmp_path / "p").exists()


def test_a_damaged_result_of_a_pack_is_refused(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(packed.read_text()[:-1000])
    with pytest.raises(UsageError, match="cannot be read"):
        pack.report(tmp_path / "result.json", tmp_path)
    whole = json.loads(packed.read_text())
    damages = (("plan", "files", 0, "host"), "AAAA"), (("answers", "models"), {"x": {}}), (("answers", "before"), [])
    for (*way, last), value in damages:
        damaged = json.loads(packed.read_text())
        inner = damaged
        for key in way:
            inner = inner[key]
        inner[last] = value
        assert damaged != whole
        (tmp_path / "result.json").write_text(json.dumps(damaged))
        with pytest.raises(UsageError, match="cannot be read"):
            pack.report(tmp_path / "result.json", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_runs_on_the_board_is_python_3_8_without_packages() -> None:
    tree = ast.parse(Path(board.__file__).read_text(), feature_version=(3, 8))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names <= set(sys.stdlib_module_names)


def test_a_pack_is_not_written_over_anything(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        pack.pack([conv(tmp_path)], Settings(protocol=QUICK), tmp_path / "pack")


@pytest.fixture
def carried(packed: Path, tmp_path: Path) -> Path:
    """The folder of a pack on a board."""
    return Path(shutil.copytree(packed.parent / "board", tmp_path / "there" / "board"))


def test_a_changed_model_is_not_measured_and_the_others_are(carried: Path, tmp_path: Path) -> None:
    shutil.copy(conv(tmp_path, "other.onnx"), carried / "model1.onnx")
    running = start(carried)
    told = running.communicate()[0]
    assert running.returncode == 4
    assert "branches: not measured: model1.onnx: missing, or changed since edgekd packed it" in told
    done = pack.report(carried.parent / RESULT, tmp_path / "out")
    assert done.exit_code == ExitCode.DEVICE_FAILED
    assert [record.model for record in done.result.profiles] == ["conv"]
    (row,) = (row for row in json.loads((carried.parent / RESULT).read_text())["plan"]["files"] if row["host"] is None)
    assert row["record"]["name"] == "branches", "what has no outputs has no expected outputs in the result"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("damage", "options", "told"),
    [
        (lambda folder: cut(folder / "plan.json"), (), "plan.json: missing, or changed"),
        (lambda folder: (folder / "plan.json").write_text('{"files": []}'), (), "plan.json: missing, or changed"),
        (lambda folder: (folder / "plan.sha256").unlink(), (), "plan.json: missing, or changed"),
        (lambda folder: (folder / "agent.pyz").unlink(), (), "agent.pyz: missing, or changed"),
        (lambda folder: cut(folder / "agent.pyz"), (), "agent.pyz: missing, or changed"),
        (lambda folder: None, ("--out", "/nonexistent/x.json"), "--out /nonexistent/x.json cannot be written"),
        (lambda folder: None, ("--out", "board"), "--out board cannot be written"),
        (lambda folder: None, ("--name", "host"), "choose another name"),
    ],
)
def test_what_cannot_be_measured_or_kept_is_said_before_anything_is_measured(
    carried: Path, damage: Callable[[Path], Any], options: tuple[str, ...], told: str
) -> None:
    damage(carried)
    running = start(carried, *options)
    said = running.communicate()[1]
    assert (running.returncode, "Traceback" in said, "load:" in said) == (2, False, False)
    assert told in said
    assert sorted(path.name for path in carried.parent.iterdir()) == ["board", "tmp"]


def test_a_changed_input_ends_it(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 3, 8, 8), "float32"))
    given = pack.inputs.Given(inputs={"x": tmp_path / "x.npy"})
    folder = pack.pack([conv(tmp_path)], Settings(protocol=QUICK, given=given), tmp_path / "there" / "board")
    np.save(folder / "inputs" / "0.npy", np.zeros((2, 3, 8, 8), "float32"))
    running = start(folder)
    assert "inputs/0.npy: missing, or changed" in running.communicate()[1]
    assert running.returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_nothing_behind(carried: Path, number: signal.Signals) -> None:
    running = start(carried)
    assert running.stderr
    assert "load" in running.stderr.readline()
    running.send_signal(number)
    said = running.communicate(timeout=60)[1]
    assert (running.returncode, "Traceback" in said) == (130, False)
    assert "error: interrupted" in said
    assert [path.name for path in carried.parent.rglob("*") if path.parent != carried] == ["board", "tmp"]


def test_figures_that_are_not_known_have_a_dash() -> None:
    found = {"blocks": [{"samples": [1.0]}], "start": {"cold_ms": None, "runtime": "r"}, "end": {"peak_mib": None}}
    lines = board.table({"models": {"net": found}, "failures": {}})
    assert lines[1].split() == ["net", "1.000", "1.000", "-", "-", "r"]


def test_outputs_that_no_board_brings_are_not_packed(tmp_path: Path) -> None:
    sides = numpy_helper.from_array(np.array([1, board.MOST_BYTES // 4 + 1]), "sides")
    nodes = [helper.make_node("Expand", ["x", "sides"], ["y"])]
    x, y = (INFO(name, TensorProto.FLOAT, [1, side]) for name, side in (("x", 1), ("y", board.MOST_BYTES // 4 + 1)))
    wide = save(tmp_path / "wide.onnx", nodes, [x], [y], sides)
    folder = pack.pack([wide], Settings(protocol=QUICK), tmp_path / "pack")
    (row,) = json.loads((folder / "plan.json").read_text())["files"]
    assert (row["host"], row["names"]) == (None, ["y"])
    assert (folder / "plan.json").stat().st_size < 10_000


def changed(packed: Path, path: Path, change: Callable[[Any], None], **form: Any) -> Path:
    """A result that somebody has edited."""
    value = json.loads(packed.read_text())
    change(value)
    path.write_text(json.dumps(value, **form))
    return path


def test_a_result_is_known_by_its_content(packed: Path, tmp_path: Path) -> None:
    tidy = changed(packed, tmp_path / "tidy.json", lambda value: None, indent=2, sort_keys=True)
    tidy.write_bytes(b"\xef\xbb\xbf" + tidy.read_bytes())  # an editor's mark
    assert pack.is_result(tidy)
    assert len(pack.report(tidy, tmp_path).result.profiles) == 2
    cut(packed_copy := Path(shutil.copy(packed, tmp_path / "cut.json")))
    assert pack.is_result(packed_copy), "damaged, which the report says"
    for name, text in (("a", '["edgekd_pack"]'), ("b", '{"name": "edgekd_pack"}'), ("c", '"edgekd_pack"'), ("d", "")):
        (tmp_path / name).write_text(text)
        assert not pack.is_result(tmp_path / name)


@pytest.mark.parametrize("time", [-1.0, float("nan"), float("inf"), "1"])
@pytest.mark.parametrize("which", ["samples", "first_ms", "warmup"])
def test_times_that_are_none_are_refused(packed: Path, tmp_path: Path, which: str, time: Any) -> None:
    def change(value: Any) -> None:
        found = value["answers"]["models"]["conv"]
        place, key = {
            "samples": (found["blocks"][1]["samples"], 0), "first_ms": (found["start"], "first_ms"),
            "warmup": (found["warmup"], "ms"),
        }[which]  # fmt: skip
        place[key] = time

    with pytest.raises(UsageError, match="cannot be read: ") as error:
        pack.report(changed(packed, tmp_path / "result.json", change), tmp_path / "out")
    assert "\n" not in error.value.message
    assert not (tmp_path / "out").exists()


def test_a_result_of_another_file_than_was_packed_is_refused(packed: Path, tmp_path: Path) -> None:
    def other(value: Any) -> None:
        value["answers"]["sha256"]["conv"] = value["answers"]["sha256"]["branches"]

    with pytest.raises(UsageError, match="what was measured as conv is not the file that was packed"):
        pack.report(changed(packed, tmp_path / "result.json", other), tmp_path / "out")


def test_a_report_that_cannot_be_written_is_said_in_words(packed: Path, tmp_path: Path) -> None:
    folder = pack.report(packed, tmp_path).folder
    (folder / "report.html").unlink()
    (folder / "report.html").mkdir()
    with pytest.raises(StorageError, match="report.html"):
        cli.main(["report", str(folder)], standalone_mode=False)


def test_a_board_is_never_called_as_this_machine(packed: Path, tmp_path: Path) -> None:
    result = changed(packed, tmp_path / "result.json", lambda value: value["answers"]["board"].update(name="host!"))
    assert pack.report(result, tmp_path / "out").result.devices[0].name == "board"


def test_a_pack_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = conv(tmp_path)
    for target in (model / "x", Path("/proc/x"), tmp_path / ("x" * 300)):
        with pytest.raises(UsageError, match="cannot be written"):
            pack.pack([model], Settings(protocol=QUICK), target)
    half = SimpleNamespace(copyfile=lambda source, target: Path(target).write_bytes(b"half"))
    monkeypatch.setattr(pack, "shutil", half)
    with pytest.raises(UsageError, match=r"conv.onnx has changed meanwhile"):
        pack.pack([model], Settings(protocol=QUICK), tmp_path / "pack")
    assert [path.name for path in tmp_path.iterdir()] == ["conv.onnx"]
