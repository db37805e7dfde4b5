"""Doctor on the test devices: the faults that it finds there, and that a run works round them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.devices import lab

from edgekd.cli import cli
from edgekd.devices import schema
from edgekd.devices.schema import Device
from edgekd.errors import DeviceError
from edgekd.profiling import doctor, readiness, transports
from edgekd.profiling.session import measure
from edgekd.profiling.variant import Variant
from edgekd.recipe.profile import Profile
from edgekd.results.profile import DeviceRecord

QUICK = Profile(devices=("pi4",), blocks=3, block_runs=3, block_ms=10, warmup_runs=1, warmup_ms=0)


def examined(device: Device, **options: bool) -> DeviceRecord:
    with transports.to(device) as way:
        return doctor.examine(device, way, **options)


def test_a_pi_4_says_what_it_is_and_what_is_wrong_with_its_runtimes(pi4: Device, pi4_board: lab.Pi) -> None:
    firmware = pi4_board.root / "run/edgekd/throttled"
    firmware.write_text("0x50001")
    try:
        found = examined(pi4.model_copy(update={"python": ("python3-trap", "python3")}), thorough=True)
    finally:
        firmware.unlink()
    assert found.model.startswith("Raspberry Pi 4 Model B")
    assert (found.arch, found.isa, found.governor, found.celsius) == ("aarch64", ("asimd",), "ondemand", 48.2)
    assert 1800 in found.cores
    assert found.throttled == ("under-voltage now", "throttled since boot")
    works = {(runtime.python, runtime.package): runtime.works for runtime in found.runtimes}
    assert works == {
        ("python3-trap", "tflite-runtime"): False,
        ("python3", "onnxruntime"): True,
        ("python3", "ai-edge-litert"): True,
        ("python3", "openvino"): True,
    }
    trap = next(runtime for runtime in found.runtimes if not runtime.works)
    assert "is built for numpy 1 and numpy 2." in trap.problem
    assert "install 'numpy<2' tflite-runtime" in trap.fix
    assert any("CompiledModel dies with SIGILL on this CPU; edgekd uses Interpreter" in text for text in found.traps)
    assert not any("INFERENCE_PRECISION_HINT" in text for text in found.traps)
    assert not found.problems


def test_a_run_works_round_both_faults_of_a_pi_4(pi4: Device, nets: Path, tmp_path: Path) -> None:
    device = pi4.model_copy(update={"python": ("python3-trap", "python3-tflite", "python3")})
    session = measure([Variant("tflite", "tflite", nets / "float.tflite")], QUICK, device, tmp_path)
    assert session.failures == ()
    assert session.profiles[0].effective.runtime == "tflite-runtime 2.14.0"
    assert [(runtime.python, runtime.works) for runtime in session.device.runtimes] == [
        ("python3-trap", False), ("python3-tflite", True),
    ]  # fmt: skip


def test_a_pi_5_computes_in_float16_unasked_and_edgekd_asks_for_float32(pi5: Device, nets: Path, tmp_path: Path) -> None:
    session = measure([Variant("openvino", "openvino", nets / "float.xml")], QUICK, pi5, tmp_path)
    assert "float layers are computed in f16 here unless INFERENCE_PRECISION_HINT" in " ".join(session.device.traps)
    (record,) = session.profiles
    assert set(record.effective.operations) == {"float32"}
    assert record.effective.settings == {"INFERENCE_PRECISION_HINT": "f32"}
    assert session.device.isa == ("asimd", "asimddp")


def test_all_that_is_in_the_way_is_said_before_anything_is_trained(pi4: Device, pi5: Device) -> None:
    devices = [
        pi4,
        pi5.model_copy(update={"isa": ("asimd", "i8mm"), "python": ("python3-tflite",)}),
        pi4.model_copy(update={"name": "gone", "host": "nobody@127.0.0.1", "port": 1, "emulated": False}),
    ]
    found = readiness.ask(devices, [("onnx", "tflite")] * 3)
    with pytest.raises(DeviceError) as error:
        readiness.refuse(found)
    text = error.value.message
    assert text.startswith("2 of 3 devices are not ready:")
    assert "pi5: its file says isa: i8mm, which it does not have\n    → write isa: [asimd, asimddp]" in text
    assert "pi5: onnx: no runtime is installed for python3-tflite" in text
    assert "/home/pi/edgekd/bin/pip install onnxruntime" in text
    assert "  gone: " in text
    assert next(readiness.ready(found)).startswith("pi4: ready; onnxruntime 1.")


def test_a_board_is_asked_and_its_file_is_written(
    pi5_board: lab.Pi, pi5: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["devices", "add", "pi5", "--python", "python3-trap", "--python", "python3"]
    done = CliRunner().invoke(cli, command, catch_exceptions=False, standalone_mode=False)
    assert done.return_value == 0
    device = schema.load("pi5", tmp_path)
    assert (device.host, device.arch, device.isa) == ("pi5", "aarch64", ("asimd", "asimddp"))
    assert device.python == ("python3",), "only what works"
    assert device.description.startswith("Raspberry Pi 5 Model B")


def test_a_board_without_python_is_told_so(pi4: Device, pi4_board: lab.Pi, ssh_config, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    ssh_config("bare", pi4_board.client("bare"))
    (tmp_path / "bare.yaml").write_text("transport: ssh\nhost: bare\n")
    command = ["doctor", str(tmp_path / "bare.yaml"), "--json"]
    done = CliRunner().invoke(cli, command, catch_exceptions=False, standalone_mode=False)
    found = json.loads(done.stdout)
    assert (done.return_value, found["exit_code"], found["device"]["answered"]) == (4, 4, False)
    assert "ython" in found["device"]["problems"][0]
