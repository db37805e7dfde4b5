"""TensorFlow Lite: LiteRT, or tflite-runtime on older boards."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from . import packages
from .precision import precisions


class TensorFlowLite:
    """The interpreter of LiteRT, tflite-runtime or TensorFlow, with XNNPACK."""

    def __init__(self, package: str, threads: int) -> None:
        # Interpreter, not CompiledModel, which dies with SIGILL on a Cortex-A72
        name = "tensorflow.lite.python.interpreter" if package == "tensorflow" else package + ".interpreter"
        self.create, self.threads = importlib.import_module(name).Interpreter, threads
        self.version = " ".join(packages.found(package)).strip()

    def load(self, path: str) -> None:
        """Load a model file."""
        self.model = self.create(model_path=path, num_threads=self.threads)
        self.model.allocate_tensors()
        self.at = {name: spec["index"] for name, spec in named(self.model.get_input_details())}
        self.out = self.model.get_output_details()[0]["index"]

    def unload(self) -> None:
        """Let the model go."""
        del self.model

    def inputs(self) -> dict[str, Any]:
        """Inputs by name, in the model's order: (shape with None where free, numpy type, (scale, zero point))."""
        found = {}
        for name, spec in named(self.model.get_input_details()):
            scale, zero_point = spec["quantization"]
            grid = (float(scale), int(zero_point))
            free = [None if side == -1 else int(side) for side in spec.get("shape_signature", spec["shape"])]
            found[name] = free, spec["dtype"].__name__, grid
        return found

    def fit(self, feed: Any) -> None:
        """Take inputs of the feed's sizes, where they are free."""
        details = named(self.model.get_input_details())
        other = [(name, spec) for name, spec in details if list(spec["shape"]) != list(feed[name].shape)]
        for name, spec in other:
            self.model.resize_tensor_input(spec["index"], feed[name].shape)
        if other:
            self.model.allocate_tensors()

    def run(self, feed: Any) -> Any:
        """Run one inference, as a user writes it; returns the first output."""
        for name, x in feed.items():
            self.model.set_tensor(self.at[name], x)
        self.model.invoke()
        return self.model.get_tensor(self.out)

    def outputs(self, feed: Any) -> dict[str, Any]:
        """Run one inference; returns all outputs, by name, integers that stand for floats as floats."""
        self.run(feed)
        found = {}
        for name, spec in named(self.model.get_output_details()):
            found[name] = as_floats(self.model.get_tensor(spec["index"]), *spec["quantization"])
        return found

    def operations(self, path: str, feed: Any, runs: int) -> dict[str, Any]:
        """TensorFlow Lite has a profiler in C++ only."""
        return {"why": f"{self.version} gives no times of operations to Python; benchmark_model does"}

    def default_precision(self, path: str) -> str:
        """Nothing: floats are float32."""
        return ""

    def effective(self, path: str, feed: Any) -> dict[str, Any]:
        """Return what the runtime says it used: threads, delegates, operations by precision."""
        details = self.model._get_ops_details()  # not public, and there since TensorFlow 2.4
        nodes, _, delegates = delegated(details)
        # Through the tensors: tflite-runtime 2.14 tells no types with the operations.
        kinds = {tensor["index"]: tensor["dtype"].__name__ for tensor in self.model.get_tensor_details()}
        ops = [(node["op_name"], [kinds[at] for at in map(int, node["inputs"]) if at in kinds]) for node in nodes]
        return {"threads": None, "delegates": delegates, **precisions(ops)}


def named(details: list[Any]) -> list[tuple[str, Any]]:
    """Return inputs or outputs with their names; a name that comes again has its place behind it: a file may repeat one."""
    names = unique([spec["name"] for spec in details])
    return list(zip(names, details))  # noqa: B905


def unique(names: list[str]) -> list[str]:
    """Return names of tensors so that each is another.

    Example:
        >>> unique(["x", "x", "y"])
        ['x', 'x#1', 'y']
    """
    return [name if name not in names[:at] else f"{name}#{at}" for at, name in enumerate(names)]


def as_floats(value: Any, scale: float, zero_point: int) -> Any:
    """Return integers that stand for floats as floats; any other value as it is."""
    if scale > 0 and value.dtype.kind in "iu":
        value = value.astype("float32")
        return (value - float(zero_point)) * value.dtype.type(scale)
    return value


def delegated(details: list[Any]) -> tuple[list[Any], list[Any], list[dict[str, Any]]]:
    """Say which operations of a TensorFlow Lite model a delegate took.

    Args:
        details: What ``Interpreter._get_ops_details()`` returns.

    Returns:
        The model's operations, those of them that a delegate took, and that delegate, if there is one.
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
    delegate = {"name": "XNNPACK", "taken": len(taken), "of": len(nodes), "parts": len(parts)}
    return nodes, [node for node in nodes if node["index"] in taken], [delegate] if parts else []


PACKAGES = {name: partial(TensorFlowLite, name) for name in ("ai_edge_litert", "tflite_runtime", "tensorflow")}
TRIVIAL = ("trivial.tflite",)
