"""OpenVINO."""

from __future__ import annotations

import platform
from typing import Any

from .precision import precisions
from .timing import timed

NAMES = {
    "f32": "float32", "fp32": "float32", "f16": "float16", "fp16": "float16", "bf16": "bfloat16",
    "u8": "uint8", "i8": "int8", "i32": "int32", "i64": "int64",
}  # fmt: skip
"""Types as OpenVINO calls them."""


WITHOUT_INT8 = "LP_TRANSFORMS_MODE"
"""Setting that, off, lets it compute an int8 file in float: the same values."""
_X86 = ("x86_64", "AMD64", "i686")


class OpenVino:
    """OpenVINO's CPU plugin."""

    def __init__(self, threads: int) -> None:
        import openvino

        self.core, self.version = openvino.Core(), f"openvino {openvino.__version__.split('-')[0]}"
        # Left alone it computes float layers in fp16 or bf16 where the CPU has them.
        self.settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        self.notes: list[str] = []

    def load(self, path: str, count: bool = False) -> None:
        """Load a model file; with ``count``, record the time of each operation."""
        settings = {**self.settings, "PERFORMANCE_HINT": "LATENCY", **({"PERF_COUNT": True} if count else {})}
        try:
            self.model = self.core.compile_model(path, "CPU", settings)
        except RuntimeError as error:
            # 2026.4 on Arm: it asserts on some int8 convolutions, and for others asks for float16, which not all CPUs have.
            if platform.machine() in _X86 or WITHOUT_INT8 in settings:
                raise
            try:
                self.model = self.core.compile_model(path, "CPU", {**settings, WITHOUT_INT8: False})
            except RuntimeError:
                raise error from None
            self.settings[WITHOUT_INT8] = False
            self.notes = [
                f"{self.version} does not load int8 convolutions of this file on this CPU, so {WITHOUT_INT8} is off: it "
                "computes the same values in float; the cold load has the attempt in it"
            ]
        self.request = self.model.create_infer_request()

    def unload(self) -> None:
        """Let the model go."""
        del self.request, self.model

    def inputs(self) -> dict[str, Any]:
        """Inputs by name, in the model's order: (shape with None where free, numpy type, (scale, zero point))."""
        found = {}
        for number, port in enumerate(self.model.inputs):
            sides = port.get_partial_shape()
            shape = [] if sides.rank.is_dynamic else [side.get_length() if side.is_static else None for side in sides]
            name = port.get_any_name() if port.get_names() else str(number)
            kind = port.get_element_type()
            found[name] = shape, "string" if kind.to_string() == "string" else kind.to_dtype().name, (0.0, 0)
        return found

    def fit(self, feed: Any) -> None:
        """Sizes that are free follow the feed by themselves."""

    def run(self, feed: Any) -> Any:
        """Run one inference, as a user writes it; returns the first output."""
        return self.request.infer(list(feed.values()))[0]

    def outputs(self, feed: Any) -> dict[str, Any]:
        """Run one inference; returns all outputs, by name."""
        self.run(feed)
        names = [port.get_any_name() if port.get_names() else str(at) for at, port in enumerate(self.model.outputs)]
        return {name: self.request.get_output_tensor(at).data.copy() for at, name in enumerate(names)}

    def operations(self, path: str, feed: Any, runs: int) -> dict[str, Any]:
        """Time each operation over ``runs`` inferences, after as many to warm up."""
        self.load(path, count=True)
        rows: list[dict[str, Any]] = []
        seen: list[Any] = []

        def run() -> None:
            self.run(feed)
            seen.append([(info.node_name, info.real_time) for info in self.request.profiling_info])

        times = timed(lambda: self.run(feed), runs)
        timed(run, runs)
        totals: dict[str, float] = {}
        for name, spent in (pair for part in seen[-runs:] for pair in part):
            totals[name] = totals.get(name, 0.0) + spent.total_seconds() * 1000 / runs
        for info in self.request.profiling_info:
            if info.status.name == "EXECUTED":
                kind = NAMES.get(info.exec_type.rpartition("_")[2].lower(), "")
                rows.append({"name": info.node_name, "kind": info.node_type, "precision": kind, "where": info.exec_type})
                rows[-1]["ms"] = totals[info.node_name]
        return {"operations": rows, "times": times, "source": "OpenVINO performance counters"}

    def default_precision(self, path: str) -> str:
        """Return what it computes float layers in where it is not asked for float32."""
        return str(self.core.compile_model(path, "CPU").get_property("INFERENCE_PRECISION_HINT").get_type_name())

    def effective(self, path: str, feed: Any) -> dict[str, Any]:
        """Return what the runtime says it used: threads, settings, operations by precision."""
        ops = []
        for layer in self.model.get_runtime_model().get_ordered_ops():
            kind, precision = (layer.get_rt_info()[key].astype(str) for key in ("layerType", "runtimePrecision"))
            before = [value.get_node().get_rt_info()["layerType"].astype(str) for value in layer.input_values()]
            if kind != "Subgraph" or "Input" not in before:  # at the input it is the quantization, fused into a kernel
                ops.append((kind, [NAMES.get(precision, precision)]))
        threads = int(self.model.get_property("INFERENCE_NUM_THREADS"))
        hint = self.model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        settings = {"INFERENCE_PRECISION_HINT": hint, **({WITHOUT_INT8: "off"} if self.notes else {})}
        return {"threads": threads, "delegates": None, "settings": settings, "notes": self.notes, **precisions(ops)}


PACKAGES = {"openvino": OpenVino}
TRIVIAL = ("trivial.xml", "trivial.bin")
BESIDE = (".bin",)
