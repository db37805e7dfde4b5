import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from edgekd.devices import schema
from edgekd.devices.schema import Device
from edgekd.errors import DeviceError
from edgekd.profiling import doctor, make_trivial, traps
from edgekd.profiling.agents.python import PythonAgents, packed
from edgekd.profiling.on_device import facts, trivial
from edgekd.profiling.transports.host import Host
from edgekd.profiling.variant import Variant
from edgekd.results.codec import from_json, to_json
from edgekd.results.profile import DeviceRecord

PI = {
    "proc/cpuinfo": "processor : 0\nFeatures : fp asimd crc32\nprocessor : 1\nFeatures : fp asimd\nModel : Raspberry Pi 4\n",
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.5\0",
    "proc/meminfo": "MemTotal:        3884224 kB\nMemFree: 1 kB\nMemAvailable:    2048000 kB\n",
    "proc/loadavg": "0.52 0.4 0.3 1/100 42\n",
    "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1800000\n",
    "sys/devices/system/cpu/online": "0,2-3\n",
    "sys/class/thermal/thermal_zone0/temp": "48200\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "71000\n",
    "sys/class/thermal/thermal_zone1/type": "battery\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50001\n",
}
FACTS = {"arch": "aarch64", "python": "3.11.2", "numpy": "2.4.6", "kernel_arch": "aarch64", "home": "/home/pi"}


@pytest.fixture(scope="module")
def host():
    return schema.load("host")


class Doctored(Host):
    """This machine with a runtime in front of those that are installed."""

    def __init__(self, folder):
        self.folder = folder

    def spawn(self, argv, **options):
        return super().spawn(argv, **{**options, "env": {"PYTHONPATH": str(self.folder)}})


def broken(folder, text):
    """A tflite_runtime whose interpreter is ``text``, and no other."""
    for name, content in {"tflite_runtime/interpreter.py": text, "ai_edge_litert.py": "raise ImportError('hidden')"}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    return Doctored(folder)


def test_facts_of_a_board_are_read_from_its_files(tmp_path):
    for name, text in PI.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = facts.facts(tmp_path)
    assert found["model"] == "Raspberry Pi 4 Model B Rev 1.5"
    assert found["features"] == ["asimd", "fp"], "only what every core has"
    assert found["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert (found["cores"], found["governor"], found["celsius"]) == ([1800, 0, 0], "ondemand", 48.2)
    assert found["throttled"] == ["under-voltage now", "throttled since boot"]
    assert (round(found["memory_mib"]), found["available_mib"]) == (3793, 2000)
    assert "driver" not in found


def test_facts_that_cannot_be_read_are_left_out(tmp_path):
    found = facts.facts(tmp_path)
    assert not {"model", "os", "governor", "celsius", "memory_mib"} & set(found)
    assert 0 < found["clock_ns"] < doctor.CLOCK_NS


def test_the_trivial_models_are_what_the_script_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(make_trivial, "FOLDER", tmp_path)
    make_trivial.main()
    shipped = Path(trivial.__file__).parent / "models"
    for name in ("trivial.onnx", "trivial.tflite", "trivial.bin"):  # the .xml names the version that wrote it
        assert (tmp_path / name).read_bytes() == (shipped / name).read_bytes()
    x, w, b, y = (np.array(part) for part in (trivial.INPUT, trivial.WEIGHT, trivial.BIAS, trivial.OUTPUT))
    assert (x @ w.T + b == y).all()


def test_every_runtime_of_this_machine_computes(host):
    with Host() as way:
        found = doctor.examine(host, way, thorough=True)
    own = ["onnx", "openvino", "tflite"]
    with_tensorflow = ["tflite"] if find_spec("tensorflow") else []  # which has an interpreter of its own
    assert [(runtime.format, runtime.works) for runtime in found.runtimes] == [
        (name, True) for name in own + with_tensorflow
    ]
    assert not found.problems
    assert found.isa == tuple(sorted(host.cpu().features))
    assert any("ORT_DISABLE_TELEMETRY" in trap for trap in found.traps)
    assert from_json(DeviceRecord, json.loads(json.dumps(to_json(found)))) == found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGILL)", "dies with SIGILL: it is built for instructions"),
        ("raise SystemError('no')", "does not work: SystemError: no"),
        ("print('noise'); import os; os._exit(3)", "does not work: it ended with code 3"),
        ("import time; time.sleep(60)", "does not work: no answer within 2 s"),
    ],
    ids=["SIGILL", "error", "exit", "hang"],
)
def test_a_runtime_that_dies_is_a_problem_and_the_others_go_on(host, tmp_path, monkeypatch, text, problem):
    monkeypatch.setattr(doctor, "_PROBE_S", 2.0)
    monkeypatch.setattr(traps, "_TFLITE_RUNTIME_NUMPY", 99)  # it is another fault that is looked for
    with broken(tmp_path, text) as way:
        found = doctor.examine(host, way, ("tflite", "onnx"))
        agents = PythonAgents(host, way, found.runtimes)
        with pytest.raises(DeviceError, match="tflite on host: .*tflite-runtime"):
            agents.start(Variant("tflite", "tflite", tmp_path), "tflite on host")
        agents.start(Variant("onnx", "onnx", tmp_path), "onnx on host").close()
    broken_one = next(runtime for runtime in found.runtimes if runtime.module == "tflite_runtime")
    assert problem in broken_one.problem
    assert any(problem in text for text in found.problems)


@pytest.mark.parametrize(
    ("load", "remark"), [(5.05, "load 5.0 on 2 cores: times measured now will not be trusted"), (0.9, "")]
)
def test_a_load_that_disturbs_the_times_is_a_remark(load, remark):
    facts = {"load": load, "cores": (0, 0), "arch": "x86_64", "kernel": "6.1", "python": "3.11", "clock_ns": 1.0}
    device = Device(edgekd=1, name="board", transport="ssh", description="a board", host="x", arch="x86_64", isa=())
    notes = doctor.described(device, facts, []).notes
    assert [note.partition("\n")[0] for note in notes] == ([remark] if remark else [])


def test_an_interpreter_that_is_not_there_is_said_and_the_next_is_used(tmp_path):
    board = Device(
        edgekd=1, name="board", transport="ssh", description="a board", host="x", python=("/no/python", sys.executable)
    )
    with Host() as way:
        found = doctor.examine(board, way, ("onnx",), infer=False)
    assert [runtime.python for runtime in found.runtimes] == [sys.executable]
    assert not found.problems
    assert "arch and isa are not in its file, so int8 weights for it use 7 bits" in found.notes[0]
    assert found.notes[1].startswith("/no/python on board: /no/python does not start")
    nothing = board.model_copy(update={"python": ("/no/python",)})
    with Host() as way, pytest.raises(DeviceError, match="board has no Python that answers"):
        doctor.examine(nothing, way)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"arch": "armv7l", "isa": ("neon",)}, "its file has arch: armv7l, but it is x86_64"),
        ({"arch": "x86_64", "isa": ("avx2", "asimddp")}, "its file says isa: asimddp, which it does not have"),
        ({"arch": "x86_64", "isa": ("avx2",)}, ""),
        ({"arch": "aarch64", "isa": ("asimd",), "emulated": True}, ""),  # it stands for a board that is not there yet
    ],
)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="an x86 machine is declared")
def test_the_declared_instruction_sets_are_compared(host, keys, told):
    device = host.model_copy(update=keys)
    with Host() as way:
        found = doctor.examine(device, way, ("onnx",), infer=False)
    assert bool(found.problems) == bool(told)
    assert told in "".join(found.problems)


def test_numpy_2_under_tflite_runtime_is_named_with_its_fix():
    row = {"package": "tflite-runtime", "module": "tflite_runtime", "version": "2.14.0", "error": "SystemError: x"}
    problem, fix = traps.problem(row, FACTS, "/opt/my python")
    assert problem.startswith("tflite-runtime 2.14.0 is built for numpy 1 and numpy 2.4.6 is installed")
    assert fix == "on the device: '/opt/my python' -m pip install 'numpy<2'"


@pytest.mark.parametrize(
    ("form", "arch", "python", "package"),
    [
        ("tflite", "aarch64", "3.11.2", "ai-edge-litert"),
        ("tflite", "aarch64", "3.8.10", "tflite-runtime numpy<2"),
        ("tflite", "armv7l", "3.11.2", "tflite-runtime numpy<2"),
        ("tflite", "armv7l", "3.13.1", ""),
        ("onnx", "aarch64", "3.13.1", "onnxruntime"),
        ("openvino", "armv7l", "3.11.2", ""),
    ],
)
def test_the_package_to_install_depends_on_the_architecture_and_python(form, arch, python, package):
    found, reason = traps.package_for(form, {"arch": arch, "python": python})
    assert found == package
    assert bool(reason) != bool(package)


def test_a_python_that_refuses_pip_gets_a_virtual_environment():
    ((_, fix),) = traps.missing(["tflite"], {**FACTS, "managed": True}, "python3")
    place = "/home/pi/edgekd"
    assert f"python3 -m venv {place} && {place}/bin/pip install ai-edge-litert numpy" in fix
    assert f"python: [{place}/bin/python]" in fix


@pytest.mark.parametrize(
    ("forms", "also", "says", "line"),
    [
        (["onnx", "tflite"], [], "onnx, tflite: no runtime is installed for py (Python 3.11.2), and no numpy",
         "onnxruntime ai-edge-litert numpy"),
        ([], ["onnxruntime"], "numpy is not installed for py (Python 3.11.2), and onnxruntime needs it", "numpy"),
        (["onnx"], ["tflite-runtime"], "onnx: no runtime is installed", "onnxruntime 'numpy<2'"),
    ],
)  # fmt: skip
def test_all_that_is_missing_is_one_line_to_type(forms, also, says, line):
    facts = {name: value for name, value in FACTS.items() if name != "numpy"}
    ((what, fix),) = traps.missing(forms, facts, "py", also)
    assert what.startswith(says)
    assert fix == f"on the device: py -m pip install {line}"
    assert not list(traps.missing([], FACTS, "py", also))


def test_known_faults_that_are_worked_round():
    rows = [
        {"package": "ai-edge-litert", "module": "ai_edge_litert", "version": "2.3.0",
         "compiled_model": {"works": False, "signal": "SIGILL", "error": ""}},
        {"package": "openvino", "module": "openvino", "version": "2026.4.1", "default_precision": "f16"},
    ]  # fmt: skip
    told = [trap for row in rows for trap in traps.known(row)]
    assert told[0].startswith("ai-edge-litert 2.3.0: CompiledModel dies with SIGILL on this CPU; edgekd uses Interpreter")
    assert told[1].startswith("openvino 2026.4.1: float layers are computed in f16 here unless INFERENCE_PRECISION_HINT")


def test_a_probe_is_a_program_of_its_own(tmp_path):
    program = tmp_path / "agent.pyz"
    program.write_bytes(packed())
    command = [sys.executable, program, "probe", "inference", "openvino", "openvino"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["works"]
