import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd.profiling import on_device
from edgekd.profiling.agents.python import packed
from edgekd.profiling.on_device import feeds, looking, machine
from edgekd.profiling.on_device.runtimes.precision import precisions

SOURCE = Path(on_device.__file__).parent
RUNTIMES = {"onnxruntime", "ai_edge_litert", "openvino"}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The packed program, as a device gets it."""
    path = tmp_path_factory.mktemp("agent") / "agent.pyz"
    path.write_bytes(packed())
    return path


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_it_can_be_copied_to_a_board(path):
    """Only the standard library, numpy, a runtime and, where it is there, Pillow; the syntax of Python 3.8."""
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported.add((node.module or "").split(".")[0])
    assert imported - set(sys.stdlib_module_names) <= {"numpy", "PIL", *RUNTIMES}


def test_the_program_has_the_same_bytes_every_time():
    assert packed() == packed()


@pytest.mark.parametrize(
    ("runtime", "file"), [("onnx", "float.onnx"), ("tflite", "float.tflite"), ("openvino", "float.xml")]
)
def test_a_copy_answers_every_command_with_one_json_line(nets, program, runtime, file):
    start = {"command": "start", "runtime": runtime, "path": str(nets / file), "threads": 1, "inputs": [1, 3, 16, 16]}
    rest = [{"command": "warmup", "runs": 2, "ms": 0}, {"command": "state"}, {"command": "block", "runs": 3, "ms": 0}]
    rest += [{"command": "memory"}, {"command": "effective"}, {"command": "stop"}]
    lines = "".join(json.dumps(request) + "\n" for request in (start, *rest))
    done = subprocess.run([sys.executable, program], input=lines, capture_output=True, text=True, timeout=120, check=True)
    started, _, state, block, memory, effective = (json.loads(line) for line in done.stdout.splitlines())
    assert started["cold_ms"] > 0
    assert started["warm_ms"] > 0
    assert memory["peak_mib"] > started["bare_mib"] > 0
    assert len(block["samples"]) == 3
    assert state["cores"] >= 1
    assert set(effective["ops"]) == {"float32"}


def test_a_refusal_is_an_answer(program, tmp_path):
    lines = json.dumps({"command": "start", "runtime": "onnx", "path": str(tmp_path / "none.onnx"), "threads": 1}) + "\n"
    done = subprocess.run([sys.executable, program], input=lines, capture_output=True, text=True, check=True)
    assert "none.onnx" in json.loads(done.stdout)["error"]


def test_precision_counts_what_computes_and_names_what_is_float():
    ops = [
        ("QuantizeLinear", ["float", "float", "uint8"]),
        ("QLinearConv", ["uint8", "float", "int8"]),
        ("Softmax", ["float"]),
        ("Transpose", ["float"]),
        ("Shape", ["int64"]),
    ]
    assert precisions(ops) == {"ops": {"int8": 1, "float32": 1}, "float_ops": {"Softmax": 1}}


def test_a_batch_is_fed_row_by_row(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(6, dtype="float32").reshape(3, 2))
    rows = feeds.samples(str(tmp_path / "x.npy"), [1, 2], "float32", (0.0, 0))
    assert [row.tolist() for row in rows] == [[[0.0, 1.0]], [[2.0, 3.0]], [[4.0, 5.0]]]


def test_floats_are_put_on_the_grid_of_an_int8_input(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[-9.0, 0.0, 0.26]], dtype="float32"))
    rows = feeds.samples(str(tmp_path / "x.npy"), [1, 3], "int8", (0.05, -3))
    assert (rows[0].dtype, rows[0].tolist()) == (np.int8, [[-128, -3, 2]])


def test_random_input_has_the_models_shape_and_is_the_same_every_time():
    first, second = (feeds.samples(None, [None, 2], "float32", (0.0, 0))[0] for _ in range(2))
    assert first.shape == (1, 2)
    assert (first == second).all()


def test_inputs_are_fed_by_name_each_with_its_own_number_of_rows():
    specs = {"ids": ([1, 1], "int32", (0.0, 0)), "mask": ([1, 1], "float32", (0.0, 0))}
    ids, mask = np.array([[1], [2]], "int32"), np.array([[0.5]], "float32")
    found = feeds.feeds({"mask": mask, "ids": ids}, specs)
    assert [list(feed) for feed in found] == [["ids", "mask"]] * 2, "in the model's order"
    assert [(int(feed["ids"][0, 0]), float(feed["mask"][0, 0])) for feed in found] == [(1, 0.5), (2, 0.5)]
    with pytest.raises(ValueError, match="the model takes ids, mask, the inputs are tokens"):
        feeds.feeds({"tokens": ids}, specs)


def test_an_input_without_values_gets_random_ones_of_its_type():
    grid = (0.0, 0)
    specs = {"ids": ([None, 4], "int64", grid), "mask": ([None, 4], "bool", grid), "x": ([2], "float16", grid)}
    specs |= {"number": ([], "float32", grid), "choice": ([], "bool", grid)}
    (first,), (second,) = (feeds.feeds({"ids": [3, 4]}, specs) for _ in range(2))
    assert {name: (str(value.dtype), value.shape) for name, value in first.items()} == {
        "ids": ("int64", (3, 4)),
        "mask": ("bool", (1, 4)),
        "x": ("float16", (2,)),
        "number": ("float32", ()),
        "choice": ("bool", ()),
    }
    assert set(first["ids"].ravel()) <= {0, 1}
    assert all((first[name] == second[name]).all() for name in specs)


@pytest.mark.parametrize("x", [np.zeros((1, 3), "float32"), np.zeros((1, 2), "int64")])
def test_an_input_that_does_not_fit_is_refused(tmp_path, x):
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(ValueError, match=r"the model takes float32 \[1, 2\], the input is"):
        feeds.samples(str(tmp_path / "x.npy"), [1, 2], "float32", (0.0, 0))


def test_strings_and_sizes_of_zero_are_fed_as_they_are(tmp_path):
    np.save(tmp_path / "x.npy", np.array([["a", "é"], ["b", ""]]))
    rows = feeds.samples(str(tmp_path / "x.npy"), [None, 2], "string", (0.0, 0))
    assert [row.tolist() for row in rows] == [[["a", "é"]], [["b", ""]]]
    with pytest.raises(ValueError, match="the model takes string"):
        feeds.samples(np.zeros((1, 2), "float32"), [1, 2], "string", (0.0, 0))
    assert feeds.samples(None, [0, 3], "float32", (0.0, 0))[0].shape == (0, 3)


def test_outputs_that_are_no_real_numbers_are_left_out_and_never_pickled(tmp_path):
    values = {
        "text": np.array(["a"], object), "complex": np.zeros(1, "complex64"), "list": [np.zeros(1)], "none": None,
        "real": np.ones(1, "float16"), "truth": np.array(True),
    }  # fmt: skip

    class Runtime:
        def outputs(self, feed):
            return values

    told = looking.outputs(Runtime(), [{}, {}], str(tmp_path / "outputs.npz"))
    assert (told["names"], told["others"]) == (["real", "truth"], ["text", "complex", "list", "none"])
    with np.load(tmp_path / "outputs.npz", allow_pickle=False) as stored:
        assert [stored[name].shape for name in stored] == [(2, 1), (2,)]


def test_cores_that_a_machine_does_not_have_are_refused_there():
    with pytest.raises(ValueError, match=r"cores \[99999\]: this machine has no such cores"):
        machine.pin([0, 99999])


def test_state_reads_what_a_board_tells(tmp_path):
    files = {
        "proc/stat": "cpu  100 0 50 900 0 0 0 25 0 0\ncpu0 0\n",
        "proc/loadavg": "0.52 0.4 0.3 1/100 42\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
        "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = machine.state(tmp_path)
    assert (found["load"], found["governor"], found["throttled"], found["firmware"]) == (0.52, "ondemand", 7, "50005")
    assert found["busy"] == pytest.approx(6 * found["steal"])
    assert "driver" not in found
