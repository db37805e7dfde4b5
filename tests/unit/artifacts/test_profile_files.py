"""``edgekd profile`` on this machine: files that edgekd made and others, what cannot be known, and what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tests.unit.exporting.nets import Residual, make_source
from tests.words import lacking

import edgekd
from edgekd.artifacts import against, declared, found
from edgekd.artifacts.profile import Settings, profile
from edgekd.errors import ExitCode, UsageError
from edgekd.exporting.exporter import Options
from edgekd.profiling.compare import paces
from edgekd.profiling.variant import Variant
from edgekd.progress import Silent, Task
from edgekd.recipe.profile import Profile
from edgekd.registry import exporters
from edgekd.report.findings import sentence
from edgekd.report.layouts import html, markdown
from edgekd.report.sections import comparison
from edgekd.results.codec import to_json
from edgekd.results.findings import said
from edgekd.results.run import read_run, write_run
from edgekd.runtimes.tflite import flatbuffer

KEYS = {"warmup_runs": 1, "warmup_ms": 0, "blocks": 3, "block_ms": 1, "block_runs": 1}
QUICK = Profile(**KEYS)
INFO = helper.make_tensor_value_info


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], *constants: Any) -> Path:
    graph = helper.make_graph(nodes, "net", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


def conv(folder: Path, name: str = "conv.onnx", sides: tuple[int | str, int | str] = (8, 8)) -> Path:
    """Of an open batch, and open sizes where *sides* has names."""
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype("float32"), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    x, y = INFO("x", TensorProto.FLOAT, ["n", 3, *sides]), INFO("y", TensorProto.FLOAT, ["n", 4])
    return save(folder / name, nodes, [x], [y], weight)


def words(folder: Path) -> Path:
    """Integer inputs, two of them."""
    table = numpy_helper.from_array(np.ones((5, 8), "float32"), "table")
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["g"]),
        helper.make_node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "axis"], ["u"]),
        helper.make_node("Mul", ["g", "u"], ["y"]),
    ]
    sides = ["n", "t"]
    inputs = [INFO(name, TensorProto.INT64, sides) for name in ("input_ids", "attention_mask")]
    axis = numpy_helper.from_array(np.array([2]), "axis")
    return save(folder / "words.onnx", nodes, inputs, [INFO("y", TensorProto.FLOAT, [*sides, 8])], table, axis)


def branches(folder: Path) -> Path:
    """An ``If``, and two outputs."""
    then, other = (
        helper.make_graph([helper.make_node(op, ["x"], [name])], name, [], [INFO(name, TensorProto.FLOAT, [1, 4])])
        for op, name in (("Neg", "n"), ("Abs", "a"))
    )
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
        helper.make_node("ArgMax", ["y"], ["best"], axis=1),
    ]
    inputs = [INFO("c", TensorProto.BOOL, []), INFO("x", TensorProto.FLOAT, [1, 4])]
    outputs = [INFO("y", TensorProto.FLOAT, [1, 4]), INFO("best", TensorProto.INT64, [1, 1])]
    return save(folder / "branches.onnx", nodes, inputs, outputs)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Odd files of the user, measured in one session."""
    folder = tmp_path_factory.mktemp("odd files")
    paths = [conv(folder), words(folder), branches(folder), folder / 'it\'s; a "name".onnx']
    shutil.copy(paths[0], paths[-1])
    shapes = {"input_ids": (2, 16), "attention_mask": (2, 16)}
    return edgekd.profile(*paths[:1], *paths[2:], out=folder / "out", overrides=KEYS), edgekd.profile(
        paths[1], out=folder / "out", overrides=KEYS, shapes=shapes
    )


def test_any_onnx_file_is_measured(measured: Any) -> None:
    for found_ in measured:
        assert (found_.exit_code, found_.failures) == (ExitCode.OK, ())
    several, sized = (one.result for one in measured)
    assert [record.model for record in several.profiles] == ["conv", "branches", 'it\'s; a "name"']
    for record in (*several.profiles, *sized.profiles):
        assert record.latency_ms.n >= 3
        assert record.inputs == "random" or record.images == 0
        assert record.operations
        assert 0 < record.operations.attributed < 1.5
    assert {row.kind for row in several.profiles[1].operations.operations} >= {"If", "ArgMax"}


def test_open_sizes_numbers_and_branches_in_the_other_formats(tmp_path: Path) -> None:
    import openvino

    paths = []
    for path in (conv(tmp_path, sides=("h", "w")), branches(tmp_path)):
        openvino.save_model(openvino.convert_model(path), path.with_suffix(".xml"))
        paths.append(path.with_suffix(".xml"))
        assert declared.inputs(paths[-1], "openvino") == declared.inputs(path, "onnx") != {}
    torch.manual_seed(0)
    exporter = exporters.get("tflite")()  # type: ignore[operator]
    exporter.export(make_source(Residual()), tmp_path / "net.tflite", Options(precision="float32", log=tmp_path / "log"))
    model = flatbuffer.read((tmp_path / "net.tflite").read_bytes())
    taken = model.subgraphs[0].tensors[int(model.subgraphs[0].inputs[0])]
    taken.shapeSignature = np.array([-1, *taken.shape[1:]], np.int32)
    (tmp_path / "net.tflite").write_bytes(flatbuffer.write(model))
    found_ = edgekd.profile(paths[1], tmp_path / "net.tflite", out=tmp_path / "out", overrides=KEYS)
    assert found_.failures == ()
    assert len(found_.result.profiles) == 2
    found_ = edgekd.profile(paths[0], out=tmp_path / "out", overrides=KEYS, shapes={"x": (1, 3, 9, 7)})
    assert found_.failures == ()
    sized = edgekd.profile(tmp_path / "net.tflite", out=tmp_path / "out", overrides=KEYS, shapes={"input": (4, 12, 12, 3)})
    assert sized.failures == ()


def test_what_cannot_be_known_is_said(measured: Any) -> None:
    result = measured[0].result
    assert any(line.startswith("conv: accuracy") and "random values" in line for line in lacking(result))
    assert result.profiles[0].outputs == ()


def test_the_folder_is_a_result_that_can_be_read_again(measured: Any) -> None:
    folder = measured[0].folder
    again = read_run(folder)
    assert again == measured[0].result
    assert html.render(again) == (folder / "report.html").read_text()
    text = markdown.render(again)
    assert "3 files on 1 device: 3 of 3 measurements made" in text
    assert "conv (ONNX)" in text
    assert len(paces(folder / "samples" / "host.jsonl", "conv")) == QUICK.blocks


def test_a_later_measurement_is_compared_with_an_earlier_one(measured: Any, tmp_path: Path) -> None:
    earlier = measured[0].folder
    found_ = edgekd.profile(conv(tmp_path), against=earlier, out=tmp_path / "out", overrides=KEYS)
    (compared,) = found_.result.comparisons
    assert (compared.model, compared.way) == ("conv", "two sessions")
    assert compared.before == f"conv of {earlier.name}"
    assert compared.verdict in ("no difference shown", "slower", "faster", "refused")
    assert "Compared" in (found_.folder / "report.md").read_text()
    with pytest.raises(UsageError, match="has no figures of these files; it has conv, branches"):
        edgekd.profile(
            words(tmp_path), against=earlier, out=tmp_path / "out", overrides=KEYS,
            shapes={"input_ids": (1, 4), "attention_mask": (1, 4)},
        )  # fmt: skip


def test_another_file_is_measured_in_turns_with_the_earlier_one(measured: Any, tmp_path: Path) -> None:
    """As a run has it: the earlier file lies in the folder."""
    earlier = tmp_path / "0001-run"
    (earlier / "artifacts").mkdir(parents=True)
    before = measured[0].result
    shutil.copy(conv(tmp_path, "old.onnx"), earlier / "artifacts" / "conv.onnx")
    model = replace(before.models[0], path="artifacts/conv.onnx")
    write_run(replace(before, run=earlier.name, models=(model,)), earlier / "run.json")
    new = branches(tmp_path).rename(tmp_path / "conv.onnx")
    found_ = edgekd.profile(new, against=earlier, out=tmp_path / "out", overrides=KEYS)
    (compared,) = found_.result.comparisons
    assert (compared.way, compared.before) == ("one session", "conv of 0001-run")
    assert [record.model for record in found_.result.profiles] == ["conv"]


def compared_with(folder: Path, *paths: Path) -> against.Against:
    files = found.files(paths)
    return against.find(folder, files, [Variant(file.record.name, file.format, file.path) for file in files])


def test_a_file_that_was_measured_where_it_lies_is_measured_again_while_it_is_there(tmp_path: Path) -> None:
    old = conv(tmp_path)
    earlier = edgekd.profile(old, out=tmp_path / "out", overrides=KEYS).folder
    (tmp_path / "new").mkdir()
    new = branches(tmp_path / "new").rename(tmp_path / "new" / "conv.onnx")
    assert compared_with(earlier, new).again["conv"].path == old
    assert compared_with(earlier, old).again == {}, "the same file"
    shutil.copy(new, old)
    changed = compared_with(earlier, new)
    assert changed.again == {}, "it has changed"
    assert changed.gone == {"conv": "conv.onnx"}
    records = [replace(record, model="conv") for record in changed.result.profiles]
    (told,) = against.comparisons(changed, records, earlier / "samples", changed.result.devices)
    assert comparison.sentence(told.reasons[0]).startswith(
        "the earlier conv.onnx is no longer there, or has changed; keep a copy"
    )


def test_both_files_of_an_openvino_model_are_its_content(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.xml").write_bytes(b"<net name='n'>")
        (tmp_path / f"{name}.bin").write_bytes(name.encode())
    a, b = (file.record for file in found.files([tmp_path / "a.xml", tmp_path / "b.xml"]))
    assert a.sha256 == b.sha256
    assert a.content != b.content


def test_figures_that_are_not_trusted_are_not_compared(measured: Any) -> None:
    folder = measured[0].folder
    trusted = tuple(
        replace(record, trust=replace(record.trust, verdict="trusted", reasons=())) for record in measured[0].result.profiles
    )
    doubted = tuple(
        replace(record, trust=replace(record.trust, verdict="untrusted", reasons=(said("it was hot"),)))
        for record in trusted
    )
    before = compared_with(folder, Path(measured[0].result.models[0].place))
    for now, then, verdict in (
        (trusted, trusted, "no difference shown"), (doubted, trusted, "refused"), (trusted, doubted, "refused"),
    ):  # fmt: skip
        pair = replace(before, result=replace(before.result, profiles=then))
        (told,) = against.comparisons(pair, now, folder / "samples", pair.result.devices)
        assert (told.verdict, told.ratio is None) == (verdict, verdict == "refused")
        assert verdict != "refused" or "it was hot" in comparison.sentence(told.reasons[-1])


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        ({}, ""),
        ({"model": "", "arch": "", "cores": (), "memory_mib": None}, ""),
        ({"memory_mib": 1050.0, "cores": (1800, 600)}, ""),  # another kernel; it was hot
        ({"model": "Pi 4"}, "another machine: model: Pi 5 now, Pi 4 then"),
        ({"arch": "armv7l"}, "another machine: architecture: aarch64 now, armv7l then"),
        ({"cores": (1800,)}, "another machine: cores: 2 now, 1 then"),
        ({"memory_mib": 2000.0}, "another machine: memory: 1,000 MiB now, 2,000 MiB then"),
    ],
)
def test_two_machines_of_one_name_are_not_compared(measured: Any, then: dict[str, Any], reason: str) -> None:
    folder, result = measured[0].folder, measured[0].result
    device = replace(result.devices[0], model="Pi 5", arch="aarch64", cores=(1800, 1800), memory_mib=1000.0)
    now = replace(result.profiles[0], trust=replace(result.profiles[0].trust, verdict="trusted", reasons=()))
    before = compared_with(folder, Path(result.models[0].place))
    before = replace(before, result=replace(before.result, profiles=(now,), devices=(replace(device, **then),)))
    (told,) = against.comparisons(before, (now,), folder / "samples", (device,))
    assert told.verdict == ("refused" if reason else "no difference shown")
    assert list(map(comparison.sentence, told.reasons)) == ([reason] if reason else [])
    assert (told.ratio is None) == bool(reason)


def test_a_reference_workload_of_one_side_alone_is_no_scale(measured: Any) -> None:
    folder, result = measured[0].folder, measured[0].result
    now = replace(result.profiles[0], trust=replace(result.profiles[0].trust, verdict="trusted", reasons=()))
    before = compared_with(folder, Path(result.models[0].place))
    before = replace(before, result=replace(before.result, profiles=(replace(now, reference=""),)))
    (told,) = against.comparisons(before, (now,), folder / "samples", result.devices)
    assert told.verdict == "refused"
    assert list(map(comparison.sentence, told.reasons)) == [f"reference workload: {now.reference} now, none then"]


def test_in_turns_untrusted_times_are_a_remark(measured: Any, tmp_path: Path) -> None:
    """Both files have the same conditions, block by block."""
    record = measured[0].result.profiles[0]
    now = replace(record, trust=replace(record.trust, verdict="untrusted", reasons=(said("others used the CPU"),)))
    earlier = replace(now, model="conv of then")
    lines = [
        {"model": name, "samples_ms": [ms * (1 + turn)]}
        for turn in range(10)
        for name, ms in (("conv", 2.0), ("conv of then", 1.0))
    ]
    (tmp_path / "host.jsonl").write_text("\n".join(map(json.dumps, lines)))
    before = compared_with(measured[0].folder, Path(measured[0].result.models[0].place))
    before = replace(before, again={"conv": Variant("conv of then", "onnx", tmp_path)})
    (told,) = against.comparisons(before, (now, earlier), tmp_path, before.result.devices)
    assert (told.verdict, told.way, round(told.ratio or 0, 6)) == ("slower", "one session", 2.0)
    assert comparison.sentence(told.reasons[0]) == "the figures of this file are not trusted: others used the CPU"


@pytest.mark.parametrize("content", [b"", b"\xff", b"{", b"[]\n", b'{"model": "conv", "samples_ms": []}\n',
                                     b'{"model": "conv", "samples_ms": [0, 0]}\n'])  # fmt: skip
def test_damaged_samples_of_then_are_seen_before_anything_is_measured(measured: Any, tmp_path: Path, content: bytes) -> None:
    shutil.copytree(measured[0].folder, tmp_path / "0001-then")
    (tmp_path / "0001-then" / "samples" / "host.jsonl").write_bytes(content)
    before = compared_with(tmp_path / "0001-then", Path(measured[0].result.models[0].place))
    (told,) = against.comparisons(before, measured[0].result.profiles, measured[0].folder / "samples", before.result.devices)
    assert told.verdict == "refused"
    assert "damaged" in comparison.sentence(told.reasons[0])


def test_a_changed_file_of_a_bundle_is_a_file_that_nobody_describes(tmp_path: Path) -> None:
    (file,) = found.files([conv(tmp_path)])
    value = {
        "schema": 2, "classes": [], "artifacts": [to_json(file.record)],
        "preprocessing": {"mean": [0], "std": [1], "channels": 3},
        "files": {"conv.onnx": {"sha256": file.record.sha256}},
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(value))
    assert [one.bundle is not None for one in found.files([tmp_path])] == [True]
    branches(tmp_path).replace(tmp_path / "conv.onnx")
    for path in (tmp_path, tmp_path / "conv.onnx"):
        (one,) = found.files([path])
        assert one.bundle is None
        assert one.record.sha256 != file.record.sha256
        assert one.record.bytes == (tmp_path / "conv.onnx").stat().st_size
        assert "conv.onnx is not what manifest.json beside it describes" in sentence(one.notes[0])


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"shapes": {"y": (1, 3, 4, 4)}}, "--shape y: .* has no such input"),
        ({"shapes": {"x": (1, 4, 4, 4)}}, "--shape x: 1x4x4x4 does not fit"),
        ({"shapes": {"x": (3, 4, 4)}}, "--shape x: 3x4x4 does not fit"),
        ({"inputs": {"x": "wrong.npy"}}, "--input x: 2x5 does not fit"),
        ({"cores": (4095,)}, "this machine has no such cores"),
    ],
)
def test_what_does_not_fit_a_file_or_this_machine_is_refused_before_a_device_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: Any, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("wrong.npy", np.zeros((2, 5), "float32"))
    with pytest.raises(UsageError, match=told):
        edgekd.profile(conv(tmp_path), out="out", overrides=KEYS, **more)
    one, y = numpy_helper.from_array(np.ones(1, "float32"), "c"), INFO("y", TensorProto.FLOAT, [1])
    nothing = save(tmp_path / "none.onnx", [helper.make_node("Identity", ["c"], ["y"])], [], [y], one)
    with pytest.raises(UsageError, match="has no inputs"):
        edgekd.profile(nothing, out="out", overrides=KEYS)
    assert not Path("out").exists()


def test_every_file_has_a_name_of_its_own(tmp_path: Path) -> None:
    paths = []
    for folder, name in (("a", "net"), ("b", "net"), ("c", "net#2"), ("d", "reference workload"), ("e", "net#2")):
        (tmp_path / folder).mkdir()
        paths.append(conv(tmp_path / folder, f"{name}.onnx"))
    names = [file.record.name for file in found.files(paths)]
    assert len({*names, "reference workload"}) == len(names) + 1
    assert names[:3] == ["net", "net#3", "net#2"]


def test_two_devices_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder, threads in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        text = f"edgekd: 1\nname: here\ntransport: host\nthreads: {threads}\n"
        (tmp_path / folder / "here.yaml").write_text(text)
    devices = [str(tmp_path / folder / "here.yaml") for folder in "ab"]
    with pytest.raises(UsageError, match="two devices are called here"):
        edgekd.profile(conv(tmp_path), devices=devices, out=tmp_path / "out", overrides=KEYS)


def test_a_file_that_the_runtime_refuses_leaves_the_others(tmp_path: Path) -> None:
    wrong = save(
        tmp_path / "wrong.onnx",
        [helper.make_node("NoSuchOperator", ["x"], ["y"], domain="nobody")],
        [INFO("x", TensorProto.FLOAT, [1, 4])],
        [INFO("y", TensorProto.FLOAT, [1, 4])],
    )
    found_ = edgekd.profile(conv(tmp_path), wrong, out=tmp_path / "out", overrides=KEYS)
    assert found_.exit_code == ExitCode.DEVICE_FAILED
    assert [record.model for record in found_.result.profiles] == ["conv"]
    assert "wrong on host" in found_.failures[0]
    assert "NoSuchOperator" in (found_.folder / "report.md").read_text()


class Stops(Silent):
    """Interrupts when the n-th device begins."""

    def __init__(self, device: int) -> None:
        self.left = device

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        self.left -= 1
        with super().task(name, total) as task:
            yield task

    def heard(self) -> bool:
        return self.left <= 0


def two_devices(folder: Path) -> tuple[str, ...]:
    """Of this machine, which are measured one after the other."""
    for name in ("first", "second"):
        (folder / f"{name}.yaml").write_text(f"edgekd: 1\nname: {name}\ntransport: host\n")
    return str(folder / "first.yaml"), str(folder / "second.yaml")


def test_an_interruption_keeps_the_devices_that_are_finished(tmp_path: Path) -> None:
    stops = Stops(2)
    settings = Settings(
        devices=two_devices(tmp_path), out=tmp_path / "out", protocol=QUICK, progress=stops, interrupted=stops.heard
    )
    done = profile([conv(tmp_path)], settings)
    assert done.exit_code == ExitCode.INTERRUPTED
    assert [(record.device, record.model) for record in done.result.profiles] == [("first", "conv")]
    assert "second: interrupted" in lacking(done.result)
    assert read_run(done.folder) == done.result


def test_an_interruption_before_a_device_is_finished_leaves_no_report(tmp_path: Path) -> None:
    stops = Stops(1)
    settings = Settings(
        devices=two_devices(tmp_path), out=tmp_path / "out", protocol=QUICK, progress=stops, interrupted=stops.heard
    )
    with pytest.raises(KeyboardInterrupt):
        profile([conv(tmp_path)], settings)
    assert not list((tmp_path / "out").rglob("run.json"))


def test_a_file_whose_name_no_runtime_can_read_is_refused(measured: Any, tmp_path: Path) -> None:
    path = conv(tmp_path).rename(os.fsdecode(os.fsencode(tmp_path) + b"/net\xff.onnx"))
    with pytest.raises(UsageError, match=r"net\\xff.onnx: its name is not UTF-8"):
        found.files([path])
    result = replace(measured[0].result, command=f"edgekd profile --device {path}")  # the name of anything else
    write_run(result, tmp_path / "run.json")
    assert read_run(tmp_path) == result


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("net.pt", b"", "is not a model file that a device can run"),
        ("net.onnx", b"hello", "is not an ONNX file"),
        ("net.tflite", b"hello, world", "is not a TensorFlow Lite file"),
        ("net.xml", b"<html>", "is not an OpenVINO model"),
        ("net.xml", b"<net name='n'>", "net.bin does not exist"),
        ("NET.XML", b"<net name='n'>", "in small letters"),
        ("net.bin", b"", "is not a model file that a device can run"),
        ("manifest.json", b"", "is not a model file that a device can run"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=told):
        found.files([tmp_path / name])


def test_the_command_line_ends_with_2_for_a_wrong_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgekd", "profile", str(tmp_path / "none.onnx"), "--json"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"].endswith("none.onnx does not exist")
