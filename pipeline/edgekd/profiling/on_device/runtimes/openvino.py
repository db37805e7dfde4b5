"""OpenVINO."""

from __future__ import annotations

from typing import Any

from .precision import precisions


class OpenVino:
    """OpenVINO's CPU plugin."""

    def __init__(self, threads: int) -> None:
        import openvino

        self.core, self.version = openvino.Core(), f"openvino {openvino.__version__.split('-')[0]}"
        # Left alone it computes float layers in fp16 or bf16 where the CPU has them.
        self.settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}

    def load(self, path: str) -> None:
        """Load a model file."""
        self.model = self.core.compile_model(path, "CPU", {**self.settings, "PERFORMANCE_HINT": "LATENCY"})
        self.request = self.model.create_infer_request()

    def unload(self) -> None:
        """Let the model go."""
        del self.request, self.model

    def inputs(self) -> dict[str, Any]:
        """Inputs by name, in the model's order: (shape with None where free, numpy type, (scale, zero point))."""
        found = {}
        for number, port in enumerate(self.model.inputs):
            shape = [side.get_length() if side.is_static else None for side in port.get_partial_shape()]
            name = port.get_any_name() if port.get_names() else str(number)
            found[name] = shape, port.get_element_type().to_dtype().name, (0.0, 0)
        return found

    def run(self, feed: Any) -> Any:
        """Run one inference, as a user writes it; returns the first output."""
        return self.request.infer(list(feed.values()))[0]

    def effective(self, path: str, feed: Any) -> dict[str, Any]:
        """Return what the runtime says it used: threads, delegate, operations by precision."""
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
