"""ONNX Runtime."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import UnfitError
from .precision import computes, precisions
from .timing import timed


class OnnxRuntime:
    """ONNX Runtime on the CPU."""

    def __init__(self, threads: int) -> None:
        import onnxruntime

        self.module, self.threads, self.version = onnxruntime, threads, f"onnxruntime {onnxruntime.__version__}"

    def load(self, path: str, profile: str = "") -> None:
        """Load a model file; with ``profile``, record the time of each operation into files of that prefix."""
        options = self.module.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.execution_mode = self.module.ExecutionMode.ORT_SEQUENTIAL
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, profile
        self.session = self.module.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def unload(self) -> None:
        """Let the model go."""
        del self.session

    def inputs(self) -> dict[str, Any]:
        """Inputs by name, in the model's order: (shape with None where free, numpy type, (scale, zero point))."""
        found = {}
        for spec in self.session.get_inputs():
            if not spec.type.startswith("tensor("):
                raise UnfitError(f"the model's input {spec.name} is a {spec.type}, not a tensor")
            kind = spec.type[len("tensor(") : -1]
            shape = [side if isinstance(side, int) else None for side in spec.shape]
            found[spec.name] = shape, {"float": "float32", "double": "float64"}.get(kind, kind), (0.0, 0)
        return found

    def fit(self, feed: Any) -> None:
        """Sizes that are free follow the feed by themselves."""

    def run(self, feed: Any) -> Any:
        """Run one inference, as a user writes it; returns the first output."""
        return self.session.run(None, feed)[0]

    def outputs(self, feed: Any) -> dict[str, Any]:
        """Run one inference; returns all outputs, by name."""
        names = [spec.name for spec in self.session.get_outputs()]
        return dict(zip(names, self.session.run(None, feed)))  # noqa: B905

    def operations(self, path: str, feed: Any, runs: int) -> dict[str, Any]:
        """Time each operation over ``runs`` inferences, after as many to warm up, in a session of its own."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            self.load(path, str(Path(folder) / "nodes"))
            times = timed(lambda: self.run(feed), runs)
            events = json.loads(Path(self.session.end_profiling()).read_text())
        starts = sorted(event["ts"] for event in events if event["name"] == "model_run")[-runs:]
        totals: dict[str, Any] = {}
        for event in events:
            if event["name"].endswith("_kernel_time") and event["ts"] >= starts[0]:
                node = event["args"]
                name = event["name"][: -len("_kernel_time")]
                kinds = [kind for entry in node["input_type_shape"] for kind in entry]
                entry = {"name": name, "kind": node["op_name"], "precision": computes(node["op_name"], kinds)}
                row = totals.setdefault(name, {**entry, "where": node["provider"], "ms": 0.0})
                row["ms"] += event["dur"] / 1000 / runs
        return {"operations": list(totals.values()), "times": times, "source": "ONNX Runtime profiler"}

    def default_precision(self, path: str) -> str:
        """Nothing: floats are float32."""
        return ""

    def effective(self, path: str, feed: Any) -> dict[str, Any]:
        """Return what the runtime says it used: threads, execution providers, operations by precision."""
        threads = self.session.get_session_options().intra_op_num_threads
        import tempfile

        with tempfile.TemporaryDirectory() as folder:  # a session of its own: recording slows a session down
            self.load(path, str(Path(folder) / "nodes"))
            self.run(feed)
            events = json.loads(Path(self.session.end_profiling()).read_text())
        nodes = [event["args"] for event in events if event["name"].endswith("_kernel_time")]
        counts = sorted(Counter(node["provider"] for node in nodes).items())
        delegates = [{"name": name, "taken": count, "of": len(nodes)} for name, count in counts]
        ops = [(node["op_name"], [kind for entry in node["input_type_shape"] for kind in entry]) for node in nodes]
        return {"threads": threads, "delegates": delegates, **precisions(ops)}


PACKAGES = {"onnxruntime": OnnxRuntime}
TRIVIAL = ("trivial.onnx",)
