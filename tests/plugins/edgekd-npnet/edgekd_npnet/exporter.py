"""The exporter."""

from __future__ import annotations

import json

from edgekd.errors import ExportError
from edgekd.exporting.exporter import (
    Exported,
    Refused,
    Supported,
    file_ports,
    output_steps,
    require_float_io,
    require_precision,
    total_bytes,
    with_steps,
)

_FLOAT = Refused("the interpreter computes in float32 from float32 arrays", "use float32 or int8")


class NpnetExporter:
    """Write convolutions, linear layers, ReLU, sums, means and reshapes."""

    suffix = ".npnet"
    packages = ("edgekd-npnet", "torch", "numpy")
    precisions = {  # noqa: RUF012
        "int8": Supported("float32, rounded to int8 between the layers"),
        "float32": Supported("float32"),
        **dict.fromkeys(("float16", "dynamic", "int8-weights", "int4-weights", "int16x8"), _FLOAT),
    }

    def export(self, source, path, options):
        """Write ``path``; see ``Exporter``."""
        require_precision(options, "npnet", self.precisions)
        require_float_io(options, "npnet")
        int8 = options.precision == "int8"
        module = source.graph(options.precision)
        inputs, outputs = file_ports(source.signature.inputs), file_ports(source.signature.outputs)
        (taken,), (given,) = inputs, outputs
        arrays, steps, last = _steps(module, path.name, taken.name)
        graph = {
            "inputs": [{"name": taken.name, "shape": taken.shape}],
            "outputs": [{"name": given.name, "shape": given.shape, "value": last}],
            "steps": steps,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, graph, arrays)
        return Exported(
            format="npnet",
            paths=(path,),
            bytes=total_bytes((path,)),
            inputs=inputs,
            outputs=with_steps(outputs, output_steps(module)) if int8 else outputs,
            float_ops=source.float_ops if int8 else (),
        )


def write(path, graph, arrays):
    """Write a file: the steps as JSON, and the arrays by name."""
    import numpy as np

    with path.open("wb") as file:
        np.savez(file, graph=np.frombuffer(json.dumps(graph).encode(), np.uint8), **arrays)


def _steps(module, name, taken):
    """Return the arrays and steps of a traced graph, and the name of its last value."""
    arrays, steps, names = {}, [], {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            value = module
            for part in str(node.target).split("."):
                value = getattr(value, part)
            names[node] = node.name
            arrays[node.name] = value.detach().numpy()
        elif node.op == "placeholder":
            names[node] = taken
        elif node.op == "output":
            last = names[node.all_input_nodes[0]]
        elif node.users and "sym_size" not in str(node.target):
            operation, tensors, options = _step(node, name)
            names[node] = node.name
            inputs = [None if one is None else names[one] for one in tensors]
            steps.append({"name": node.name, "operation": operation, "inputs": inputs, "options": options})
    used = {one for step in steps for one in step["inputs"]}
    return {key: value for key, value in arrays.items() if key in used}, steps, last


def _step(node, name):
    """Return the interpreter's operation, its tensors and its options."""
    from torch import fx

    args, kind = list(node.args), str(node.target)
    if kind == "aten.conv2d.default":
        tensors = [*args[:2], args[2] if len(args) > 2 else None]
        return "conv2d", tensors, [*args[3:], *([1, 1], [0, 0], [1, 1], 1)[len(args[3:]) :]]
    if kind == "aten.linear.default":
        return "linear", [*args, None][:3], []
    if kind == "aten.relu.default":
        return "relu", args, []
    if kind == "aten.add.Tensor" and isinstance(args[1], fx.Node):
        return "add", args[:2], []
    if kind == "aten.mean.dim":
        return "mean", args[:1], args[1:]
    if kind == "aten.adaptive_avg_pool2d.default" and list(args[1]) == [1, 1]:
        return "mean", args[:1], [[2, 3], True]
    if kind in ("aten.reshape.default", "aten.view.default"):
        return "reshape", args[:1], [[size if isinstance(size, int) else -1 for size in args[1]]]
    if kind == "aten.flatten.using_ints" and args[1:] == [1]:
        return "reshape", args[:1], [[1, -1]]
    if kind == "quantized_decomposed.quantize_per_tensor.default":
        return "quantize", args[:1], args[1:5]
    if kind == "quantized_decomposed.dequantize_per_tensor.default":
        return "dequantize", args[:1], args[1:3]
    if kind == "quantized_decomposed.dequantize_per_channel.default" and args[3] == 0:
        return "dequantize_channels", args[:3], []
    raise ExportError(f"writing {name} failed: npnet has no {kind}", "remove npnet from export")
