"""Measure one model file in one runtime: a script that is started anew for every artifact, here or on a device.

It stands alone (standard library, numpy and the one runtime; Python 3.9 or later), so that it can be copied to a board.
It reads one JSON object a line on stdin, such as ``{"command": "block", "runs": 30, "ms": 250}``, and answers with one
JSON object a line on stdout; ``{"error": "..."}`` is a refusal. Times are milliseconds, memory is MiB (2**20 bytes).

Commands in the order a session gives them: ``start``, ``warmup``, ``state``, ``block`` (many), ``state``, ``memory``,
``effective``, ``stop``. ``effective`` comes last because asking a runtime what it did costs memory.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

BUSY_THREAD = 0.1
"""Share of a block's wall time from which on a thread counts as having worked."""
SETTLE_RUNS = 3
"""Inferences at the head of a block that do not count: the variant before it left its own data in the caches."""
MOVES = re.compile(
    r"(?i)(quantize|quantizelinear|transpose|reshape|flatten|squeeze|identity|cast|convert)$"
    r"|reorder|^(input|output|const)"
)
"""Operations that convert or move data; they say nothing about the precision a network computes in."""

# A runtime has: version, load(path), unload(), run(feed) as a user writes it, effective(path, feed) -> what it says it did,
# and inputs() -> by name, in the model's order: (shape with None where free, numpy type, (scale, zero point)).
# A feed has an array for each input, by name, in the same order.


class _OnnxRuntime:
    def __init__(self, threads: int) -> None:
        import onnxruntime

        self.module, self.threads, self.version = onnxruntime, threads, f"onnxruntime {onnxruntime.__version__}"

    def load(self, path: str, profile: str = "") -> None:
        options = self.module.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.execution_mode = self.module.ExecutionMode.ORT_SEQUENTIAL
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, profile
        self.session = self.module.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def unload(self) -> None:
        del self.session

    def inputs(self) -> dict[str, Any]:
        found = {}
        for spec in self.session.get_inputs():
            kind = spec.type[len("tensor(") : -1]
            shape = [side if isinstance(side, int) else None for side in spec.shape]
            found[spec.name] = shape, {"float": "float32", "double": "float64"}.get(kind, kind), (0.0, 0)
        return found

    def run(self, feed: Any) -> Any:
        return self.session.run(None, feed)[0]

    def effective(self, path: str, feed: Any) -> dict[str, Any]:
        threads = self.session.get_session_options().intra_op_num_threads
        with tempfile.TemporaryDirectory() as folder:  # a session of its own: recording slows a session down
            self.load(path, str(Path(folder) / "nodes"))
            self.run(feed)
            events = json.loads(Path(self.session.end_profiling()).read_text())
        nodes = [event["args"] for event in events if event["name"].endswith("_kernel_time")]
        counts = sorted(Counter(node["provider"] for node in nodes).items())
        where = ", ".join(f"{name} {count} of {len(nodes)} operations" for name, count in counts)
        ops = [(node["op_name"], [kind for entry in node["input_type_shape"] for kind in entry]) for node in nodes]
        return {"threads": threads, "delegate": where, **precisions(ops)}


class _TensorFlowLite:
    def __init__(self, threads: int) -> None:
        try:  # Interpreter, not CompiledModel, which dies with SIGILL on a Cortex-A72
            from ai_edge_litert.interpreter import Interpreter

            name = "ai-edge-litert"
        except ImportError:
            from tflite_runtime.interpreter import Interpreter

            name = "tflite-runtime"
        self.create, self.threads, self.version = Interpreter, threads, f"{name} {importlib.metadata.version(name)}"

    def load(self, path: str) -> None:
        self.model = self.create(model_path=path, num_threads=self.threads)
        self.model.allocate_tensors()
        self.at = {spec["name"]: spec["index"] for spec in self.model.get_input_details()}
        self.out = self.model.get_output_details()[0]["index"]

    def unload(self) -> None:
        del self.model

    def inputs(self) -> dict[str, Any]:
        found = {}
        for spec in self.model.get_input_details():
            scale, zero_point = spec["quantization"]
            grid = (float(scale), int(zero_point))
            found[spec["name"]] = [int(side) for side in spec["shape"]], spec["dtype"].__name__, grid
        return found

    def run(self, feed: Any) -> Any:
        for name, x in feed.items():
            self.model.set_tensor(self.at[name], x)
        self.model.invoke()
        return self.model.get_tensor(self.out)

    def effective(self, path: str, feed: Any) -> dict[str, Any]:
        details = self.model._get_ops_details()  # not public, and there since TensorFlow 2.4
        nodes, _, where = delegated(details)
        # Through the tensors: tflite-runtime 2.14 tells no types with the operations.
        kinds = {tensor["index"]: tensor["dtype"].__name__ for tensor in self.model.get_tensor_details()}
        ops = [(node["op_name"], [kinds[at] for at in map(int, node["inputs"]) if at in kinds]) for node in nodes]
        return {"threads": None, "delegate": where, **precisions(ops)}


class _OpenVino:
    def __init__(self, threads: int) -> None:
        import openvino

        self.core, self.version = openvino.Core(), f"openvino {openvino.__version__.split('-')[0]}"
        # Left alone it computes float layers in fp16 or bf16 where the CPU has them.
        self.settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}

    def load(self, path: str) -> None:
        self.model = self.core.compile_model(path, "CPU", {**self.settings, "PERFORMANCE_HINT": "LATENCY"})
        self.request = self.model.create_infer_request()

    def unload(self) -> None:
        del self.request, self.model

    def inputs(self) -> dict[str, Any]:
        found = {}
        for number, port in enumerate(self.model.inputs):
            shape = [side.get_length() if side.is_static else None for side in port.get_partial_shape()]
            name = port.get_any_name() if port.get_names() else str(number)
            found[name] = shape, port.get_element_type().to_dtype().name, (0.0, 0)
        return found

    def run(self, feed: Any) -> Any:
        return self.request.infer(list(feed.values()))[0]

    def effective(self, path: str, feed: Any) -> dict[str, Any]:
        names = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "u8": "uint8", "i8": "int8"}
        ops = []
        for layer in self.model.get_runtime_model().get_ordered_ops():
            kind, precision = (layer.get_rt_info()[key].astype(str) for key in ("layerType", "runtimePrecision"))
            before = [value.get_node().get_rt_info()["layerType"].astype(str) for value in layer.input_values()]
            if kind != "Subgraph" or "Input" not in before:  # at the input it is the quantization, fused into a kernel
                ops.append((kind, [names.get(precision, precision)]))
        threads = int(self.model.get_property("INFERENCE_NUM_THREADS"))
        hint = self.model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        return {"threads": threads, "delegate": f"CPU plugin, precision hint {hint}", **precisions(ops)}


RUNTIMES: dict[str, Any] = {"onnx": _OnnxRuntime, "tflite": _TensorFlowLite, "openvino": _OpenVino}


def precisions(ops: list[tuple[str, list[str]]]) -> dict[str, Any]:
    """Count operations (name, input types) by the type they compute in; one that reads any int8 computes in int8."""
    counts: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for name, types in ops:
        floats = ["float32" if kind == "float" else kind for kind in types if "float" in kind]
        if MOVES.search(name) or not (floats or {"int8", "uint8"} & set(types)):
            continue
        kind = "int8" if {"int8", "uint8"} & set(types) else floats[0]
        counts[kind] += 1
        left.update([name] if kind != "int8" else [])
    return {"ops": dict(counts), "float_ops": dict(left)}


def delegated(details: list[Any]) -> tuple[list[Any], list[Any], str]:
    """Say which operations of a TensorFlow Lite model a delegate took.

    Args:
        details: What ``Interpreter._get_ops_details()`` returns.

    Returns:
        The model's operations, those of them that a delegate took, and both in words.
    """
    nodes = [node for node in details if node["op_name"] != "DELEGATE"]
    parts = [node for node in details if node["op_name"] == "DELEGATE"]
    maker = {int(tensor): node for node in nodes for tensor in node["outputs"]}
    taken: set[int] = set()
    for part in parts:  # a part is told by its edge alone: walk back from its outputs to its inputs
        edge, todo = {int(tensor) for tensor in part["inputs"]}, [int(tensor) for tensor in part["outputs"]]
        while todo:
            node = maker.get(todo.pop())
            if node and node["index"] not in taken:
                taken.add(node["index"])
                todo += [int(tensor) for tensor in node["inputs"] if int(tensor) not in edge]
    plural = "s" if len(parts) > 1 else ""
    where = f"XNNPACK {len(taken)} of {len(nodes)} operations in {len(parts)} part{plural}" if parts else "none"
    return nodes, [node for node in nodes if node["index"] in taken], where


def samples(source: Any, shape: list[Any], kind: str, grid: tuple[float, int]) -> list[Any]:
    """Values of one input to feed in turn, each as the model takes it.

    Args:
        source: Path of an .npy file or its array (rows of a batch are fed one by one), a shape, or ``None`` for the model's
            own; without a file the values are random and the same every time.
        shape: The model's input shape, ``None`` where free.
        kind: numpy type the model takes.
        grid: (scale, zero point) of a quantized input; floats are put on it.
    """
    import numpy as np

    x = _read(source)
    if x is None or isinstance(x, list):
        x = np.random.default_rng(0).standard_normal(x or [side or 1 for side in shape]).astype("float32")
    if x.dtype.kind == "f" and kind in ("int8", "uint8") and grid[0] > 0:
        limits = np.iinfo(kind)
        x = np.clip(np.round(x / grid[0]) + grid[1], limits.min, limits.max).astype(kind)
    rows = [x[i : i + 1] for i in range(len(x))] if shape[:1] == [1] and x.ndim == len(shape) else [x]
    fits = len(rows[0].shape) == len(shape) and all(a in (None, b) for a, b in zip(shape, rows[0].shape))  # noqa: B905
    if not fits or rows[0].dtype != kind:
        raise ValueError(f"the model takes {kind} {shape}, the input is {x.dtype} {list(x.shape)}")
    return [np.ascontiguousarray(row) for row in rows]


def _read(source: Any) -> Any:
    """The array of an .npy file; anything else as it is."""
    import numpy as np

    return np.load(source, allow_pickle=False) if isinstance(source, str) else source


def feeds(source: Any, inputs: dict[str, Any]) -> list[dict[str, Any]]:
    """Feeds in turn: an array for each of the model's inputs, by name.

    Args:
        source: By the name of an input, or for the only one without its name: see ``samples``.
        inputs: See above, of a runtime.
    """
    named = source if isinstance(source, dict) else dict.fromkeys(inputs, source)
    if set(named) != set(inputs):
        raise ValueError(f"the model takes {', '.join(inputs)}, the inputs are {', '.join(named)}")
    rows = {name: samples(named[name], *spec) for name, spec in inputs.items()}
    count = max(len(part) for part in rows.values())
    return [{name: part[turn % len(part)] for name, part in rows.items()} for turn in range(count)]


def drop_from_cache(path: Path) -> bool:
    """Put a model file (and OpenVINO's .bin) out of the page cache; tells whether it is out (never in a tmpfs)."""
    out = True
    for part in {path, path.with_suffix(".bin")} if path.suffix == ".xml" else {path}:
        handle = os.open(part, os.O_RDONLY)
        try:
            os.fsync(handle)  # what is not on the disk yet cannot be dropped
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.preadv(handle, [bytearray(1)], 0, os.RWF_NOWAIT)  # succeeds without waiting only if the page is there
            out = False
        except BlockingIOError:
            pass
        except (OSError, AttributeError):
            out = False  # a file system or a system that cannot tell
        finally:
            os.close(handle)
    return out


def peak_mib() -> float:
    """Peak resident set of this process (VmHWM)."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024


def thread_ns() -> dict[str, int]:
    """CPU time in nanoseconds of each thread of this process."""
    times = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            times[task.name] = int((task / "schedstat").read_text().split()[0])
        except OSError:  # it ended meanwhile, or the kernel keeps no such figure
            continue
    return times


def state(root: Path = Path("/")) -> dict[str, Any]:
    """The machine now: what runs on it and whether it is throttled; what cannot be read is left out.

    Args:
        root: Where /proc and /sys are.
    """
    ticks = [int(word) for word in (root / "proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    seconds = [tick / os.sysconf("SC_CLK_TCK") for tick in ticks]
    cpu = root / "sys/devices/system/cpu"
    counters = cpu.glob("cpu*/thermal_throttle/*_throttle_count")
    found: dict[str, Any] = {
        "at": time.perf_counter(),
        "cores": os.cpu_count(),
        "load": float((root / "proc/loadavg").read_text().split()[0]),
        "busy": sum(seconds[i] for i in (0, 1, 2, 5, 6)),  # user, nice, system, irq, softirq
        "steal": seconds[7],
        "throttled": sum(int(path.read_text()) for path in counters),
    }
    files = {
        "governor": cpu / "cpu0/cpufreq/scaling_governor",
        "driver": cpu / "cpu0/cpufreq/scaling_driver",
        "firmware": root / "sys/devices/platform/soc/soc:firmware/get_throttled",  # Raspberry Pi, hexadecimal bits
    }
    found.update({name: path.read_text().strip() for name, path in files.items() if path.exists()})
    return found


class Agent:
    """The commands; each returns what is sent back."""

    def start(self, runtime: str, path: str, threads: int, inputs: Any = None) -> dict[str, Any]:
        """Import the runtime, load the model cold, run it once, and load it again warm."""
        began = time.perf_counter_ns()
        import numpy.random  # noqa: F401  # makes the inputs: it belongs to the bare process, not to the model

        self.path, self.runtime = path, RUNTIMES[runtime](threads)
        # Before memory is read: what is fed is not the model's.
        given = {name: _read(part) for name, part in inputs.items()} if isinstance(inputs, dict) else _read(inputs)
        imported, bare = _since(began), peak_mib()
        dropped = drop_from_cache(Path(path))
        began = time.perf_counter_ns()
        self.runtime.load(path)
        cold = _since(began)
        self.feeds = feeds(given, self.runtime.inputs())
        first = self._timed(0)
        self.runtime.unload()  # two models at once would double the peak
        gc.collect()
        began = time.perf_counter_ns()
        self.runtime.load(path)
        warm = _since(began)
        gc.disable()  # a collection in the middle of an inference is this script's doing, not the model's
        loads = {"import_ms": imported, "cold_ms": cold, "is_cold": dropped, "warm_ms": warm, "first_ms": first}
        return {"runtime": self.runtime.version, "bare_mib": bare, "feeds": len(self.feeds), **loads}

    def warmup(self, runs: int, ms: float) -> dict[str, Any]:
        """Run at least ``runs`` times and at least ``ms`` milliseconds."""
        began = time.perf_counter_ns()
        return {"runs": len(self._repeat(runs, ms)), "ms": _since(began), "spent_s": time.process_time()}

    def block(self, runs: int, ms: float) -> dict[str, Any]:
        """Time at least ``runs`` inferences and at least ``ms`` milliseconds of them."""
        self._repeat(SETTLE_RUNS, 0)
        before, mine, began = thread_ns(), time.process_time_ns(), time.perf_counter_ns()
        times = self._repeat(runs, ms)
        wall, cpu = _since(began), (time.process_time_ns() - mine) / 1e6
        worked = [(spent - before.get(name, 0)) / 1e6 for name, spent in thread_ns().items()]
        threads = sum(spent > BUSY_THREAD * wall for spent in worked)
        told = {"wall_ms": wall, "cpu_ms": cpu, "threads": threads, "spent_s": time.process_time()}
        return {"samples": times, **told}

    def state(self) -> dict[str, Any]:
        """See :func:`state`."""
        return state()

    def memory(self) -> dict[str, Any]:
        """Peak resident set so far."""
        return {"peak_mib": peak_mib()}

    def effective(self) -> dict[str, Any]:
        """What the runtime says it used."""
        told: dict[str, Any] = self.runtime.effective(self.path, self.feeds[0])
        return told

    def _timed(self, index: int) -> float:
        feed = self.feeds[index % len(self.feeds)]
        began = time.perf_counter_ns()
        self.runtime.run(feed)
        return _since(began)

    def _repeat(self, runs: int, ms: float) -> list[float]:
        end = time.perf_counter_ns() + ms * 1e6
        times: list[float] = []
        while len(times) < runs or time.perf_counter_ns() < end:
            times.append(self._timed(len(times)))
        return times


def _since(began: int) -> float:
    return (time.perf_counter_ns() - began) / 1e6


def main() -> None:
    """Answer commands until ``stop`` or the end of stdin."""
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # runtimes print on the real stdout, which is the protocol's
    # Idle OpenBLAS threads spin, and numpy's arithmetic is not what is measured; onnxruntime must not phone home.
    # CI: openvino reports home on import, unless it believes it is in continuous integration.
    os.environ.update(OPENBLAS_NUM_THREADS="1", ORT_DISABLE_TELEMETRY="1", CI="true")
    agent = Agent()
    for line in sys.stdin:
        request = json.loads(line)
        command = request.pop("command")
        if command == "stop":
            break
        try:
            answer = getattr(agent, command)(**request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
    answers.flush()
    os._exit(0)  # a runtime that crashes while it is taken down must not spoil a good measurement


if __name__ == "__main__":
    main()
